"""The data types all stages speak, and their files. Every file carries a schema version that is checked on reading."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from perikarya.errors import DataError
from perikarya.runs import replacing, write_text

SCHEMA_VERSION = 1
MAX_YAML_BYTES = 4 * 2**20
NO_LABEL = -1  # the code of a cell without a label
VIEW_PREFIX = "tta_"  # of the columns that hold means over several views of a cell

DEVELOPMENT = "development"
EXTERNAL = "external"
SET_WORDS = {"cv": "cross-validation", EXTERNAL: "external set"}  # what the sets of results.json are called

# column -> pandas dtype; nullable text stays None where unknown
CELL_COLUMNS: dict[str, str] = {
    "cell_id": "string",
    "label": "string",
    "subject": "string",
    "image_id": "string",
    "region": "string",
    "group": "string",
    "set": "string",
    "x_px": "float64",
    "y_px": "float64",
    "area_px": "int64",
    "um_per_px": "float64",  # of the cell's image, which x_px, y_px and area_px are counted in; NaN where unknown
    "image_sha256": "string",
    "crop_phash": "string",
    "source": "string",
}
_REQUIRED = ("cell_id", "image_id", "set", "x_px", "y_px", "area_px", "image_sha256", "crop_phash", "source")


def safe_name(text: str) -> str:
    """Turn any text into a name that is safe as one part of a path: letters, digits, dot, dash, underscore."""
    cleaned = re.sub(r"[^\w.-]+", "_", text, flags=re.ASCII).strip("._")
    return cleaned[:120] or "unnamed"


def read_yaml(path: Path, *, what: str) -> dict[str, Any]:
    """Read a YAML mapping safely (no tags, no aliases bombs over 4 MiB); raise ``DataError`` with a sentence."""
    try:
        if path.stat().st_size > MAX_YAML_BYTES:
            raise DataError(f"{path} is larger than {MAX_YAML_BYTES // 2**20} MiB; {what} is a small text file.")
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{path} does not exist; it should be {what}.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as {what}: {error}.") from None
    except yaml.YAMLError as error:
        raise DataError(
            f"{path} is not valid YAML: {error}\nFix: correct that line; {what} must be readable."
        ) from None
    if not isinstance(content, dict):
        raise DataError(f"{path} must hold 'key: value' lines; it holds {type(content).__name__}. It should be {what}.")
    return content


def validation_sentences(error: ValidationError, path: Path | str) -> str:
    """Turn pydantic's findings into one line per setting."""
    lines = [f"  {'.'.join(str(p) for p in e['loc']) or '(whole file)'}: {e['msg']}" for e in error.errors()]
    return f"{path} has {len(lines)} setting(s) that do not fit:\n" + "\n".join(lines)


class Study(BaseModel):
    """What a study is about; its cells are in ``cells.parquet``, their windows in ``crops.npy``.

    ``class_names`` are in order of severity where the classes have one; ``window_px`` is the side of the square
    window around each cell, in pixels of ``um_per_px`` micrometres (None where the scale is unknown).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: Literal[1] = 1
    name: str
    class_names: Annotated[tuple[str, ...], Field(min_length=1)]
    um_per_px: Annotated[float, Field(gt=0)] | None = None
    window_px: Annotated[int, Field(ge=8, le=2048)]
    regions: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    provenance: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _class_names_differ(self) -> Self:
        if len(set(self.class_names)) != len(self.class_names):
            raise ValueError("class_names holds a name twice")
        return self

    @property
    def window_um(self) -> float | None:
        """Side of the window in micrometres, where the scale is known."""
        return None if self.um_per_px is None else self.window_px * self.um_per_px

    def save(self, path: Path) -> None:
        """Write ``study.yaml`` whole."""
        write_text(path, yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True))

    @classmethod
    def load(cls, path: Path) -> Study:
        """Read ``study.yaml``; raise ``DataError`` when it is missing, damaged or of another schema version."""
        content = read_yaml(path, what="the description of a study (made by 'perikarya study import')")
        check_version(content.get("schema_version"), path)
        try:
            return cls.model_validate(content)
        except ValidationError as error:
            raise DataError(validation_sentences(error, path)) from None


def check_version(found: object, path: Path) -> None:
    """Raise ``DataError`` when a file was written by another version of the schema."""
    if str(found) != str(SCHEMA_VERSION):
        raise DataError(
            f"{path} has schema version {found}; this Perikarya reads version {SCHEMA_VERSION}.\n"
            "Fix: update Perikarya, or make the study or run again."
        )


def write_table(path: Path, frame: pd.DataFrame, **extra: str) -> None:
    """Write a Parquet table whole, with the schema version and ``extra`` in its metadata."""
    table = pa.Table.from_pandas(frame, preserve_index=False)
    table = table.replace_schema_metadata({"perikarya_schema": str(SCHEMA_VERSION), **extra})
    with replacing(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def read_table(path: Path, *, what: str) -> tuple[pd.DataFrame, dict[str, str]]:
    """Read a Parquet table and its metadata; raise ``DataError`` when it is missing, damaged or of another version."""
    with _parquet_sentences(path, what=what):
        table = pq.read_table(path)
    meta = {k.decode(): v.decode() for k, v in (table.schema.metadata or {}).items()}
    check_version(meta.get("perikarya_schema"), path)
    return table.to_pandas(), meta


def table_columns(path: Path, *, what: str) -> list[str]:
    """Return the names of a Parquet table's columns, reading no rows; raise ``DataError`` when it cannot be read."""
    with _parquet_sentences(path, what=what):
        return list(pq.read_schema(path).names)


@contextmanager
def _parquet_sentences(path: Path, *, what: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise DataError(f"{path} does not exist; it should hold {what}.") from None
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path} should hold {what} but cannot be read: {str(error).splitlines()[0]}") from None


def as_cells(frame: pd.DataFrame, *, where: Path | str = "the cells table") -> pd.DataFrame:
    """Bring a table of cells to the schema's columns, order and types, or raise ``DataError``.

    Missing optional columns (label, subject, region, group) are filled with nulls.
    """
    missing = [c for c in _REQUIRED if c not in frame]
    if missing:
        raise DataError(f"{where} lacks the column(s) {', '.join(missing)}.")
    columns = {c: frame[c] if c in frame else pd.Series([None] * len(frame), index=frame.index) for c in CELL_COLUMNS}
    cells = pd.DataFrame(columns).astype(CELL_COLUMNS).reset_index(drop=True)
    empty = [c for c in _REQUIRED if cells[c].isna().any()]
    if empty:
        raise DataError(f"{where} has empty entries in {', '.join(empty)}; every cell needs them.")
    if cells["cell_id"].duplicated().any():
        twice = cells.loc[cells["cell_id"].duplicated(), "cell_id"].iloc[0]
        raise DataError(f"{where} holds cell {twice} twice; a cell's identity must be unique.")
    wrong = set(cells["set"].unique()) - {DEVELOPMENT, EXTERNAL}
    if wrong:
        raise DataError(f"{where}: set is '{sorted(wrong)[0]}'; it must be '{DEVELOPMENT}' or '{EXTERNAL}'.")
    return cells


def label_codes(labels: pd.Series, class_names: tuple[str, ...]) -> NDArray[np.int64]:
    """Turn class names into codes 0..k-1, shape (n_cells,), with ``NO_LABEL`` where a cell has none."""
    known = pd.Index(class_names, dtype="string")
    codes = np.asarray(known.get_indexer(pd.Index(labels, dtype="string")), np.int64)
    unknown = (codes == NO_LABEL) & labels.notna().to_numpy()
    if unknown.any():
        raise DataError(
            f"Label '{labels[unknown].iloc[0]}' is not a class of the study ({', '.join(class_names)}).\n"
            "Fix: correct the label, or add the class to study.yaml by importing again with --classes."
        )
    return codes


def view_columns(class_names: tuple[str, ...]) -> list[str]:
    """Name the columns of a table of predictions that hold means over views, one per class."""
    return [f"{VIEW_PREFIX}{name}" for name in class_names]


@dataclass(frozen=True)
class Predictions:
    """What one trained network says of some cells.

    ``prob_nk`` has shape (n_cells, n_classes), rows sum to 1, columns in the order of ``class_names``;
    ``label_n`` has shape (n_cells,) with codes, ``NO_LABEL`` where unknown. ``tta_nk``, of the shape of ``prob_nk``,
    holds the means over several views of each cell where the training asked for test-time augmentation.
    """

    cell_id: NDArray[np.str_]
    prob_nk: NDArray[np.float32]
    label_n: NDArray[np.int64]
    class_names: tuple[str, ...]
    model: str
    fold: int
    seed: int
    set: str
    tta_nk: NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        n, k = self.prob_nk.shape
        if len(self.cell_id) != n or len(self.label_n) != n or len(self.class_names) != k:
            raise DataError(
                f"Predictions of {self.model}: {len(self.cell_id)} ids, {n} x {k} probabilities do not fit."
            )
        if len(set(self.cell_id.tolist())) != n:
            raise DataError(f"Predictions of {self.model} name a cell twice.")
        for found_nk in (self.prob_nk,) if self.tta_nk is None else (self.prob_nk, self.tta_nk):
            if found_nk.shape != (n, k):
                raise DataError(f"Predictions of {self.model}: {n} x {k} probabilities, but {found_nk.shape} of views.")
            if not np.allclose(found_nk.sum(axis=1), 1.0, atol=1e-4) or (found_nk < 0).any():
                raise DataError(f"Predictions of {self.model}: the probabilities of a cell do not sum to 1.")

    def over_views(self) -> Self | None:
        """Return the same cells as seen by test-time augmentation; None where it was not used."""
        return None if self.tta_nk is None else replace(self, prob_nk=self.tta_nk, tta_nk=None)

    def save(self, path: Path) -> None:
        """Write a Parquet table with one row per cell and one ``prob_<class>`` column per class.

        Means over views follow, where there are any, as ``tta_<class>``.
        """
        names = np.asarray([*self.class_names, None], dtype=object)
        frame = pd.DataFrame({"cell_id": self.cell_id, "label": names[self.label_n]})
        for k, name in enumerate(self.class_names):
            frame[f"prob_{name}"] = self.prob_nk[:, k]
        if self.tta_nk is not None:
            for k, column in enumerate(view_columns(self.class_names)):
                frame[column] = self.tta_nk[:, k]
        frame = frame.assign(model=self.model, fold=self.fold, seed=self.seed, set=self.set)
        write_table(path, frame)

    @classmethod
    def load(cls, path: Path, class_names: tuple[str, ...]) -> Predictions:
        """Read what ``save`` wrote; raise ``DataError`` when it does not fit the classes."""
        frame, _ = read_table(path, what="predictions")
        columns, views = [f"prob_{name}" for name in class_names], view_columns(class_names)
        has_views = any(c in frame for c in views)
        needed = [*columns, *(views if has_views else ()), "cell_id", "label", "model", "fold", "seed", "set"]
        missing = [c for c in needed if c not in frame]
        if missing or frame.empty:
            raise DataError(f"{path} lacks {', '.join(missing) or 'rows'}; it is not a table of predictions.")
        first = frame.iloc[0]
        return cls(
            cell_id=frame["cell_id"].to_numpy(dtype=str),
            prob_nk=frame[columns].to_numpy(dtype=np.float32),
            label_n=label_codes(frame["label"].astype("string"), class_names),
            class_names=class_names,
            model=str(first["model"]),
            fold=int(first["fold"]),
            seed=int(first["seed"]),
            set=str(first["set"]),
            tta_nk=frame[views].to_numpy(dtype=np.float32) if has_views else None,
        )
