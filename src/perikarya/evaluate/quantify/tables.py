"""Tables of predictions made elsewhere or by ``perikarya predict``: what they must hold, read and checked.

A table is read piece by piece, as often as needed, so that its size does not matter.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from perikarya.errors import DataError
from perikarya.evaluate.metrics import Floats, Ints
from perikarya.evaluate.quantify.cells import PLACES, PROB, PredictedCells, texts_of
from perikarya.evaluate.quantify.duplicates import Named, find_duplicate
from perikarya.evaluate.quantify.gather import Gathered, look_over, predicted_cells
from perikarya.evaluate.quantify.parts import ROWS_AT_ONCE, find_parts, open_parquet
from perikarya.evaluate.quantify.reference import ReferenceSums, reference_of
from perikarya.schema import NO_LABEL, label_codes

_SUM_TOLERANCE = 1e-3
_NO_NAME = "<NA>"


class PredictionTable(Protocol):
    """Rows of predicted cells, read piece by piece."""

    @property
    def where(self) -> str:
        """What the table is called in messages."""
        ...

    @property
    def columns(self) -> Sequence[str]:
        """The names of its columns."""
        ...

    @property
    def n_rows(self) -> int:
        """How many cells there are."""
        ...

    def frames(self, columns: Sequence[str]) -> Iterator[tuple[str, int, pd.DataFrame]]:
        """Iterate over some columns, always in the same order of rows.

        Each piece comes with the name of the file, or the table, and how many of its rows came before.
        """
        ...


@dataclass(frozen=True)
class TableInMemory:
    """A table that is in memory already."""

    frame: pd.DataFrame
    where: str = "The table of predictions"

    @property
    def columns(self) -> Sequence[str]:
        """The names of its columns."""
        return [str(column) for column in self.frame.columns]

    @property
    def n_rows(self) -> int:
        """How many cells there are."""
        return len(self.frame)

    def frames(self, columns: Sequence[str]) -> Iterator[tuple[str, int, pd.DataFrame]]:
        """Iterate over some columns, a view of them at a time."""
        for start in range(0, len(self.frame), ROWS_AT_ONCE):
            yield self.where, start, self.frame[list(columns)].iloc[start : start + ROWS_AT_ONCE]


def open_predictions(path: Path) -> PredictionTable:
    """Open a Parquet or CSV table, or a folder with Parquet parts; of Parquet, no row is read yet.

    Raises
    ------
    DataError
        If it is missing or damaged, or its parts are not all there or do not belong together.
    """
    if path.is_dir():
        return open_parquet(find_parts(path))
    if path.suffix.lower() not in (".parquet", ".csv"):
        raise DataError(f"{path} is neither .parquet nor .csv; predictions are read from those, or from a run folder.")
    if path.suffix.lower() == ".parquet":
        return open_parquet([path])
    try:
        frame = pd.read_csv(path, dtype=dict.fromkeys((*PLACES, "cell_id"), "string"))
    except FileNotFoundError:
        raise DataError(f"{path} does not exist; it should hold predictions of cells.") from None
    except (ValueError, OSError) as error:  # pandas' own errors are ValueErrors
        reason = str(error).strip().splitlines()
        raise DataError(f"{path} should hold predictions but cannot be read: {(reason or ['empty'])[0]}") from None
    return TableInMemory(frame, str(path))


def class_names_of(table: PredictionTable | pd.DataFrame, *, where: str) -> tuple[str, ...]:
    """Return the classes of a table, in the order of its ``prob_<class>`` columns."""
    names = tuple(str(c)[len(PROB) :] for c in table.columns if str(c).startswith(PROB))
    if len(names) < 2:
        raise DataError(
            f"{where} has {len(names)} column(s) called 'prob_<class>'; two classes are needed at least, in order of "
            "severity.\nFix: write one column of probabilities per class."
        )
    return names


class PlacedTable:
    """A table whose subject, region, group, image and label come from the cells table of a study, by ``cell_id``."""

    def __init__(self, table: PredictionTable, cells: pd.DataFrame) -> None:
        if "cell_id" not in table.columns:
            raise DataError(f"{table.where} has no column 'cell_id', so its cells cannot be found in the study.")
        self._table, self.where, self.n_rows = table, table.where, table.n_rows
        self.columns = [*(c for c in table.columns if c not in PLACES), *PLACES]
        self._places = cells[list(PLACES)]
        self._index = pd.Index(cells["cell_id"].to_numpy(dtype=object))

    def frames(self, columns: Sequence[str]) -> Iterator[tuple[str, int, pd.DataFrame]]:
        """Iterate over some columns; see ``PredictionTable``."""
        own = [c for c in columns if c not in PLACES]
        for where, n_before, frame in self._table.frames(list(dict.fromkeys(["cell_id", *own]))):
            row_n = self._rows(frame)
            if (row_n < 0).any():
                self._refuse(str(texts_of(frame["cell_id"])[row_n.argmin()]))
            found = self._places.iloc[row_n].set_index(frame.index)
            yield where, n_before, frame[own].assign(**{c: found[c] for c in columns if c in PLACES})

    def _rows(self, frame: pd.DataFrame) -> Ints:
        return np.asarray(self._index.get_indexer(pd.Index(texts_of(frame["cell_id"]), dtype=object)), np.int64)

    def _refuse(self, example: str) -> None:
        n = sum(int((self._rows(frame) < 0).sum()) for _, _, frame in self._table.frames(["cell_id"]))
        raise DataError(
            f"{self.where}: {n} cell(s) are not in the study, such as {example}.\n"
            "Fix: name the study these predictions were made for (--study)."
        )


@dataclass(frozen=True)
class TableCells:
    """The cells of a table, checked while they are read.

    Raises
    ------
    DataError
        If a column is missing, there are no rows, a cell stands twice or, while cells are read, probabilities are none
        or a label is not a class.
    """

    table: PredictionTable
    class_names: tuple[str, ...]

    def __post_init__(self) -> None:
        missing = [c for c in ("subject", *self._prob) if c not in self.table.columns]
        if missing or not self.table.n_rows:
            raise DataError(
                f"{self.table.where} lacks {', '.join(missing) or 'rows'}.\nA table of predictions has columns "
                "subject, region, group and prob_<class> per class; or cell_id, with --study to look the rest up."
            )
        if "cell_id" in self.table.columns:
            self._refuse_duplicates()

    @cached_property
    def _prob(self) -> list[str]:
        return [f"{PROB}{name}" for name in self.class_names]

    def _refuse_duplicates(self) -> None:
        def names() -> Iterator[Named]:
            for where, _, frame in self.table.frames(["cell_id"]):
                name_n = texts_of(frame["cell_id"])
                yield where, np.where(pd.isna(name_n), _NO_NAME, name_n)

        found = find_duplicate(names, n_cells=self.table.n_rows)
        if found is not None:
            name, one, other = found
            where = self.table.where if one == other == self.table.where else f"{one} and {other}"
            raise DataError(
                f"{where} holds cell {name} twice; it would be counted twice.\n"
                "Fix: keep one row per cell, the mean over networks where there are several."
            )

    def chunks(self) -> Iterator[PredictedCells]:
        """Iterate over all cells."""
        columns = [c for c in (*PLACES, *self._prob) if c in self.table.columns]
        for where, n_before, frame in self.table.frames(columns):
            yield self._checked(frame, where, n_before)

    def _checked(self, frame: pd.DataFrame, where: str, n_before: int) -> PredictedCells:
        prob_nk, wrong_n = self._probabilities(frame)
        if wrong_n.any():
            n = sum(int(self._probabilities(f)[1].sum()) for _, _, f in self.table.frames(self._prob))
            raise DataError(
                f"{where}, row {n_before + int(wrong_n.argmax()) + 1}: {', '.join(self._prob)} are not probabilities "
                f"that sum to 1 ({n} such row(s)).\n"
                "Fix: write one probability per class, or 1 and 0 for bare decisions."
            )
        unknown = pd.Series(pd.NA, frame.index, "string")
        places = {c: frame.get(c, unknown) for c in PLACES}
        return predicted_cells(
            places,
            self.class_names,
            prob_nk=prob_nk / prob_nk.sum(axis=1, keepdims=True),
            vote_nk=None,
            label_n=_labels(places["label"], self.class_names),
        )

    def _probabilities(self, frame: pd.DataFrame) -> tuple[Floats, NDArray[np.bool_]]:
        prob_nk = frame[self._prob].apply(pd.to_numeric, errors="coerce").to_numpy(np.float64)
        return prob_nk, ~(np.abs(prob_nk.sum(axis=1) - 1.0) <= _SUM_TOLERANCE) | ~(prob_nk >= 0).all(axis=1)


def _labels(column: pd.Series, class_names: tuple[str, ...]) -> Ints:
    """Return the codes of labels; only the words that occur are looked up, of which there are few."""
    code_n, words = pd.factorize(texts_of(column))
    codes = label_codes(pd.Series(words, dtype="string"), class_names)
    return np.append(codes, NO_LABEL)[code_n]  # code -1, of what is missing, is the last


def gather_tables(
    table: PredictionTable,
    class_names: tuple[str, ...] | None = None,
    reference: PredictionTable | ReferenceSums | None = None,
    *,
    keep_cells: bool = True,
) -> Gathered:
    """Make cells of a table; its own labelled cells are the reference unless another one is given.

    Parameters
    ----------
    table
        The predictions.
    class_names
        In order of severity; None: the order of the columns.
    reference
        Labelled predictions, as a table or summed up.
    keep_cells
        Keep the reference cells in memory, which ``em`` needs.
    """
    cells = TableCells(table, class_names or class_names_of(table, where=table.where))
    own = reference is None
    survey, known, others = look_over(
        cells, lambda chunk: np.full(len(chunk.label_n), own), keep_cells=keep_cells and own
    )
    if isinstance(reference, ReferenceSums):
        known = reference
    elif reference is not None:
        known = reference_of(TableCells(reference, cells.class_names), keep_cells=keep_cells)
    return Gathered(cells, survey, known, others)
