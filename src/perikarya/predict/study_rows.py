"""A study of any size, row by row: its table is never in memory as a whole, its windows never at all."""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from perikarya.data.store import OpenStudy
from perikarya.data.windows import CHANNELS
from perikarya.errors import DataError
from perikarya.predict.outputs.cells import evenly
from perikarya.runs import file_sha256
from perikarya.schema import Study, as_cells, check_version

_ROWS_AT_ONCE = 8192  # decoded of the table
_BUFFER_BYTES = 2**20  # read of a column at once


@dataclass(frozen=True)
class StudyRows:
    """A study whose table of cells is read piece by piece; ``crops`` is mapped, see ``data.store.OpenStudy``."""

    root: Path
    study: Study
    n_cells: int
    crops: NDArray[np.uint8]

    def sha256(self) -> str:
        """Hash the description and the table; a cell's identity there is a hash of its pixels and its outline."""
        return hashlib.sha256(
            "".join(map(file_sha256, (_description(self.root), _table(self.root)))).encode()
        ).hexdigest()

    def between(self, begin: int, end: int, *, at_once: int) -> Generator[OpenStudy, None, None]:
        """Iterate over the cells from row ``begin`` to before ``end``, ``at_once`` of them at a time (fewer at last).

        Raises
        ------
        DataError
            If the table is damaged.
        """
        for table in evenly(self._tables(begin, end), at_once):
            cells = as_cells(table.to_pandas(), where=_table(self.root))
            yield OpenStudy(self.root, self.study, cells, self.crops[begin : begin + len(cells)])
            begin += len(cells)

    def _tables(self, begin: int, end: int) -> Iterator[pa.Table]:
        with pq.ParquetFile(_table(self.root), buffer_size=_BUFFER_BYTES) as file:
            sizes = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
            starts = [0, *np.cumsum(sizes).tolist()]
            groups = [i for i, size in enumerate(sizes) if starts[i] < end and starts[i] + size > begin]
            at = starts[groups[0]] if groups else end
            for batch in file.iter_batches(batch_size=_ROWS_AT_ONCE, row_groups=groups):
                taken = batch.slice(max(0, begin - at), max(0, min(len(batch), end - at) - max(0, begin - at)))
                at += len(batch)
                if len(taken):
                    yield pa.Table.from_batches([taken])


def open_rows(root: Path) -> StudyRows:
    """Open a study for reading by rows.

    Raises
    ------
    DataError
        If a file is missing, damaged or of another schema version, or the table and the crops do not fit together.
    """
    study = Study.load(_description(root))
    path = _table(root)
    try:
        schema, n_cells = pq.read_schema(path), pq.read_metadata(path).num_rows
        crops = np.load(root / "crops.npy", mmap_mode="r", allow_pickle=False)
    except FileNotFoundError as error:
        raise DataError(
            f"{error.filename or path} does not exist; the study is incomplete.\nFix: import it again."
        ) from None
    except (pa.ArrowException, ValueError, OSError, EOFError) as error:
        raise DataError(f"{root} is damaged ({str(error).splitlines()[0]}).\nFix: import the study again.") from None
    check_version((schema.metadata or {}).get(b"perikarya_schema", b"None").decode(), path)
    expected = (n_cells, study.window_px, study.window_px, CHANNELS)
    if crops.shape != expected or crops.dtype != np.uint8:
        raise DataError(
            f"{root / 'crops.npy'} holds {crops.dtype} {crops.shape} but the table and study.yaml call for uint8 "
            f"{expected}.\nCrops and rows that do not belong together would be taken for one another's. "
            "Fix: import the study again."
        )
    return StudyRows(root, study, n_cells, crops)


def _description(root: Path) -> Path:
    return root / "study.yaml"


def _table(root: Path) -> Path:
    return root / "cells.parquet"
