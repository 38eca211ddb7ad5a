"""A study on disk: its description, its table of cells and one memory-mapped array of fixed windows."""

from __future__ import annotations

import hashlib
import mmap
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType

import numpy as np
import pandas as pd
from numpy.lib import format as npy_format
from numpy.typing import NDArray

from perikarya.data.windows import CHANNELS
from perikarya.errors import DataError
from perikarya.runs import new_folder
from perikarya.schema import Study, as_cells, label_codes, read_table, write_table


class CropWriter:
    """Write ``crops.npy`` one crop at a time, so that memory stays flat however many cells there are.

    Use as a context manager; exactly ``n_cells`` crops must be appended.
    """

    def __init__(self, path: Path, *, n_cells: int, window_px: int) -> None:
        self._path = path
        self._shape = (n_cells, window_px, window_px, CHANNELS)
        self._n_written = 0

    def __enter__(self) -> CropWriter:
        self._handle = self._path.open("wb")
        header = {"descr": "|u1", "fortran_order": False, "shape": self._shape}
        npy_format.write_array_header_1_0(self._handle, header)
        return self

    def append(self, crop: NDArray[np.uint8]) -> None:
        """Add the next crop, shape (window_px, window_px, 4), uint8."""
        if crop.shape != self._shape[1:] or crop.dtype != np.uint8:
            raise ValueError(f"expected a uint8 crop of shape {self._shape[1:]}, got {crop.dtype} {crop.shape}")
        self._handle.write(np.ascontiguousarray(crop).tobytes())
        self._n_written += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._handle.close()
        if kind is None and self._n_written != self._shape[0]:
            raise ValueError(f"{self._n_written} crops were written, {self._shape[0]} were announced")


@dataclass(frozen=True)
class OpenStudy:
    """A study that has been read: ``cells`` has one row per cell, in the order of ``crops``.

    ``crops`` has shape (n_cells, window_px, window_px, 4), uint8, and is mapped, not read.
    """

    root: Path
    study: Study
    cells: pd.DataFrame
    crops: NDArray[np.uint8]

    @cached_property
    def labels(self) -> NDArray[np.int64]:
        """Codes of the labels, shape (n_cells,); ``NO_LABEL`` where a cell has none."""
        return label_codes(self.cells["label"], self.study.class_names)

    @cached_property
    def data_hash(self) -> str:
        """Hash of everything training depends on (16 hex digits): identities are hashes of pixels and outlines."""
        digest = hashlib.sha256(f"{self.study.class_names}|{self.study.window_px}".encode())
        for column in ("cell_id", "label", "subject", "image_id", "set"):
            digest.update("\x1f".join(self.cells[column].fillna("\x00").tolist()).encode())
            digest.update(b"\x1e")
        return digest.hexdigest()[:16]

    def read_crops(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Copy some crops out of the map, shape (len(rows), window_px, window_px, 4), and give the pages back."""
        out = np.ascontiguousarray(self.crops[rows])
        self.give_pages_back()
        return out

    def give_pages_back(self) -> None:
        """Let go of what was read through the map; else a pass over a large study counts as this process's memory."""
        mapped = getattr(self.crops, "_mmap", None)
        if mapped is not None:
            mapped.madvise(mmap.MADV_DONTNEED)


def open_study(root: Path) -> OpenStudy:
    """Read a study folder.

    Raises
    ------
    DataError
        If a file is missing, damaged or of another schema version, or the table and the crops do not fit together.
    """
    if not root.is_dir():
        raise DataError(
            f"There is no study at {root}.\nFix: make one with 'perikarya study import SRC --out {root}', "
            "or correct 'study:' in the configuration."
        )
    study = Study.load(root / "study.yaml")
    frame, _ = read_table(root / "cells.parquet", what="the table of cells")
    cells = as_cells(frame, where=root / "cells.parquet")
    path = root / "crops.npy"
    try:
        crops = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise DataError(f"{path} does not exist; the study is incomplete. Fix: import it again.") from None
    except (ValueError, OSError, EOFError) as error:
        raise DataError(f"{path} is damaged ({error}).\nFix: import the study again.") from None
    expected = (len(cells), study.window_px, study.window_px, CHANNELS)
    if crops.shape != expected or crops.dtype != np.uint8:
        raise DataError(
            f"{path} holds {crops.dtype} {crops.shape} but the table and study.yaml call for uint8 {expected}.\n"
            "Crops and rows that do not belong together would train on wrong labels. Fix: import the study again."
        )
    return OpenStudy(root=root, study=study, cells=cells, crops=crops)


def save_tables(root: Path, study: Study, cells: pd.DataFrame) -> None:
    """Write ``study.yaml`` and ``cells.parquet`` into a study folder."""
    write_table(root / "cells.parquet", as_cells(cells))
    study.save(root / "study.yaml")


def new_study_folder(out: Path, *, overwrite: bool = False) -> AbstractContextManager[Path]:
    """Give an empty folder that takes the place of ``out`` when the block ends well; see ``runs.new_folder``."""
    return new_folder(
        out,
        is_ours=lambda folder: (folder / "study.yaml").is_file(),
        what="a study",
        why="runs refer to it",
        overwrite=overwrite,
    )
