"""Predictions in Parquet files: one, or the parts of one table, read piece by piece."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from perikarya.errors import DataError
from perikarya.evaluate.quantify.cells import PLACES, PROB
from perikarya.runs import read_json

PARTS, PLAN, TABLE = "parts", "shards.json", "cells.parquet"  # in the folder of a prediction
ROWS_AT_ONCE = 131_072
MAX_COLUMNS = 10_000
MAX_LETTERS = 10_000  # of a name
_PART_NAME = re.compile(r"part-(\d+)-of-(\d+)\.parquet")
_WORDS = ("cell_id", *PLACES)
_SAID = ("model", "class_names")  # in the metadata of every part


@dataclass(frozen=True)
class ParquetTable:
    """The rows of one Parquet file or of several, in the order of the files; see ``tables.PredictionTable``."""

    where: str
    files: tuple[Path, ...]
    columns: tuple[str, ...]
    n_rows: int

    def frames(self, columns: Sequence[str]) -> Iterator[tuple[str, int, pd.DataFrame]]:
        """Iterate over some columns: the file, how many of its rows came before, and the next rows of it."""
        for path in self.files:
            n_before = 0
            try:
                with pq.ParquetFile(path, read_dictionary=[c for c in columns if c in _WORDS]) as file:
                    for batch in file.iter_batches(ROWS_AT_ONCE, columns=list(columns)):
                        _check_words(batch, path)
                        yield str(path), n_before, batch.to_pandas()
                        n_before += batch.num_rows
            except (pa.ArrowException, OSError, ValueError) as error:
                raise _damaged(path, error) from None


def _check_words(batch: pa.RecordBatch, path: Path) -> None:
    """Refuse names that are no names: a file of a few bytes can hold a word of gigabytes."""
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        words = column.dictionary if pa.types.is_dictionary(column.type) else column
        if not (pa.types.is_string(words.type) or pa.types.is_large_string(words.type)):
            continue
        longest = pc.max(pc.binary_length(words)).as_py() or 0
        if longest > MAX_LETTERS:
            raise DataError(
                f"{path}: column '{name}' holds a name of {longest} bytes; names have {MAX_LETTERS} at most."
            )


def open_parquet(files: Sequence[Path]) -> ParquetTable:
    """Open the parts of one table.

    Raises
    ------
    DataError
        If a file is missing or damaged, or two do not belong to one table.
    """
    first = _described(files[0])
    n_rows = first[2]
    for path in files[1:]:
        other = _described(path)
        _compare(files[0], first, path, other)
        n_rows += other[2]
    where = str(files[0]) if len(files) == 1 else str(files[0].parent)
    return ParquetTable(where, tuple(files), tuple(first[0].names), n_rows)


_Described = tuple[pa.Schema, dict[str, str], int]


def _described(path: Path) -> _Described:
    """Return columns, what the metadata says, and the number of rows."""
    try:
        with pq.ParquetFile(path) as file:
            schema, n_rows = file.schema_arrow, file.metadata.num_rows
    except FileNotFoundError:
        raise DataError(f"{path} does not exist; it should hold predictions of cells.") from None
    except (pa.ArrowException, OSError, ValueError) as error:
        raise _damaged(path, error) from None
    if len(schema.names) > MAX_COLUMNS:
        raise DataError(f"{path} has {len(schema.names)} columns; a table of predictions has {MAX_COLUMNS} at most.")
    told = {
        key.decode(errors="replace"): value.decode(errors="replace") for key, value in (schema.metadata or {}).items()
    }
    return schema, {key: told[key] for key in _SAID if key in told}, n_rows


def _damaged(path: Path, error: Exception) -> DataError:
    reason = (str(error).strip().splitlines() or ["empty"])[0]
    return DataError(f"{path} should hold predictions but cannot be read: {reason}")


def _compare(path: Path, one: _Described, other_path: Path, other: _Described) -> None:
    for what, a, b in (
        ("classes", *(", ".join(n for n in d[0].names if n.startswith(PROB)) for d in (one, other))),
        ("columns", *(", ".join(sorted(set(d[0].names) & {*_WORDS})) for d in (one, other))),
        *((said, one[1].get(said, "unknown"), other[1].get(said, "unknown")) for said in _SAID),
        *_types(one[0], other[0]),
    ):
        if a != b:
            raise DataError(
                f"{path} and {other_path} are not parts of one table: their {what} differ ({a}; {b}).\n"
                "Cells predicted by different models, or in another order of classes, must not be counted together.\n"
                "Fix: keep the parts of one prediction only in a folder, or name a single file."
            )


def _types(one: pa.Schema, other: pa.Schema) -> Iterator[tuple[str, str, str]]:
    for name in one.names:
        if name in other.names and (name in _WORDS or name.startswith(PROB)):
            kinds = [_kind(schema.field(name).type) for schema in (one, other)]
            if "null" not in kinds:
                yield f"types of '{name}'", kinds[0], kinds[1]


def _kind(of: pa.DataType) -> str:
    value = of.value_type if pa.types.is_dictionary(of) else of
    return "text" if pa.types.is_string(value) or pa.types.is_large_string(value) else str(value)


def find_parts(folder: Path) -> list[Path]:
    """Find the files of a prediction: its parts, its one table, or any Parquet files of a folder.

    Raises
    ------
    DataError
        If there are none, or not all that were planned.
    """
    found = sorted((folder / PARTS).glob("*.parquet"))
    if found or (folder / PLAN).is_file():
        return _all_parts(found, folder)
    if (folder / TABLE).is_file():
        return [folder / TABLE]
    found = sorted(folder.glob("*.parquet"))
    if not found:
        raise DataError(
            f"{folder} holds neither a run (config.yaml) nor predictions ({PARTS}/*.parquet, {TABLE} or other .parquet "
            "files).\nFix: name a run folder, the --out of 'perikarya predict', or a table of predictions."
        )
    return _all_parts(found, folder)


def _all_parts(found: list[Path], folder: Path) -> list[Path]:
    names = [_PART_NAME.fullmatch(path.name) for path in found]
    totals = sorted({int(name[2]) for name in names if name})
    planned = _planned(folder / PLAN)
    if len(totals) > 1 or (not all(names) and (totals or planned)):
        raise DataError(
            f"{found[0].parent} holds parts of several predictions: {_examples(found, names)}.\n"
            "Cells would be counted twice. Fix: keep the parts of one prediction only."
        )
    total = planned or (totals[0] if totals else len(found))
    if totals and totals[0] != total:
        raise DataError(
            f"{found[0]} is one of {totals[0]} parts, but {folder / PLAN} plans {total}.\n"
            "The parts belong to another prediction. Fix: predict again into a new folder."
        )
    if total > len(found):
        have = {int(name[1]) for name in names if name}
        missing = next(i for i in range(total) if i not in have)
        raise DataError(
            f"{folder} is not finished: {len(found)} of {total} parts are there; the first that is missing is "
            f"part-{missing:05d}-of-{total:05d}.parquet.\nFigures of some of the cells would pass for those of all.\n"
            f"Fix: give the same 'perikarya predict … --out {folder} --shards {total}' again; it makes the missing "
            "parts only."
        )
    return found


def _examples(found: Sequence[Path], names: Sequence[re.Match[str] | None]) -> str:
    kinds = {name[2] if name else None: path.name for path, name in zip(found, names, strict=True)}
    return ", ".join(sorted(kinds.values())[:3])


def _planned(path: Path) -> int | None:
    """Return how many shards the plan of a prediction has; None without a plan."""
    if not path.is_file():
        return None
    plan = read_json(path, what="the plan of a prediction")
    shards = plan.get("shards") if isinstance(plan, dict) else None
    if not isinstance(shards, list) or not shards:
        raise DataError(f"{path} is not the plan of a prediction. Fix: predict again into a new folder.")
    return len(shards)
