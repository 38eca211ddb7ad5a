"""Columns that cells are filtered, sorted and coloured by: categories as codes, numbers as they are."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from perikarya.errors import ConfigError
from perikarya.review.schemas import CategoryFilter, NumberFilter
from perikarya.schema import NO_LABEL

NO, YES = 0, 1  # codes of a column that says no or yes
NO_YES = ("no", "yes")
NONE = ""  # what filters call cells without a value
MAX_VALUES = 1_000  # of a category; more are no choice for a person, and found by the text of their names

Codes = NDArray[np.int32]
Rows = NDArray[np.int64]


@dataclass(frozen=True)
class CategoryColumn:
    """A category of each cell: ``codes``, shape (n_cells,), index ``values``; ``NO_LABEL`` where there is none."""

    key: str
    title: str
    values: tuple[str, ...]
    codes: Codes

    def describe(self) -> dict[str, Any]:
        """Return the ``Column`` of the service."""
        values = list(self.values)
        return {"key": self.key, "title": self.title, "kind": "category", "values": values, "range": None}

    def encoded(self) -> str:
        """Return base64 of little-endian int32."""
        return base64.b64encode(self.codes.astype("<i4").tobytes()).decode("ascii")

    def matches(self, wanted: CategoryFilter | NumberFilter) -> NDArray[np.bool_]:
        """Tell which cells have one of the wanted values, shape (n_cells,); names that do not occur match nothing."""
        if not isinstance(wanted, CategoryFilter):
            raise ConfigError(
                f"'{self.key}' is a category; it has no smallest and largest value.\nFix: ask for 'values'."
            )
        names = set(wanted.values)
        is_wanted = np.array([*(name in names for name in self.values), NONE in names], np.bool_)
        return np.asarray(is_wanted[self.codes])  # the last one answers for code -1

    def sort_key(self, rows: Rows, *, descending: bool) -> NDArray[np.float64]:
        """Return what orders some cells by their value; those without any come last."""
        codes = self.codes[rows]
        return np.where(codes == NO_LABEL, np.inf, -codes if descending else codes)


@dataclass(frozen=True)
class NumberColumn:
    """A number of each cell: ``numbers``, shape (n_cells,), float32, NaN where it is unknown."""

    key: str
    title: str
    numbers: NDArray[np.float32]

    def describe(self) -> dict[str, Any]:
        """Return the ``Column`` of the service."""
        known = self.numbers[np.isfinite(self.numbers)]
        span = [float(known.min()), float(known.max())] if len(known) else None
        return {"key": self.key, "title": self.title, "kind": "number", "values": [], "range": span}

    def encoded(self) -> str:
        """Return base64 of little-endian float32."""
        return base64.b64encode(self.numbers.astype("<f4").tobytes()).decode("ascii")

    def matches(self, wanted: CategoryFilter | NumberFilter) -> NDArray[np.bool_]:
        """Tell which cells lie between the bounds, shape (n_cells,); cells without a number only where none is set."""
        if not isinstance(wanted, NumberFilter):
            raise ConfigError(f"'{self.key}' is a number; it has no names.\nFix: ask for 'min' and 'max'.")
        kept = np.ones(len(self.numbers), np.bool_)
        # a bound that came from a value of this column must include it: compare as the column is kept
        if wanted.min is not None:
            kept &= self.numbers >= _as_float32(wanted.min)
        if wanted.max is not None:
            kept &= self.numbers <= _as_float32(wanted.max)
        return kept

    def sort_key(self, rows: Rows, *, descending: bool) -> NDArray[np.float64]:
        """Return what orders some cells by their number; those without any come last."""
        numbers = self.numbers[rows].astype(np.float64)
        return np.where(np.isnan(numbers), np.inf, -numbers if descending else numbers)


Column = CategoryColumn | NumberColumn


def coded(texts: pd.Series) -> tuple[tuple[str, ...], Codes]:
    """Return the texts that occur, in the order people count, and the code of each row; empty text is none."""
    codes, found = pd.factorize(texts)
    names = [str(name) for name in found]
    order = sorted(range(len(names)), key=lambda i: _natural(names[i]))
    order = [i for i in order if names[i] != NONE]
    place = np.full(len(names) + 1, NO_LABEL, np.int32)  # the last one answers for code -1
    place[order] = np.arange(len(order), dtype=np.int32)
    return tuple(names[i] for i in order), place[codes]


def no_yes(key: str, title: str, is_so: NDArray[np.bool_], *, known: NDArray[np.bool_] | None = None) -> CategoryColumn:
    """Return a column that says no or yes, and none where it is not known; all of shape (n_cells,)."""
    codes = np.where(is_so, YES, NO).astype(np.int32)
    return CategoryColumn(key, title, NO_YES, codes if known is None else np.where(known, codes, np.int32(NO_LABEL)))


def order_rows(rows: Rows, columns: Sequence[tuple[Column, bool]]) -> Rows:
    """Sort rows by columns, the first one first, each with whether it descends; equal rows keep their order."""
    if not columns:
        return rows
    keys = [column.sort_key(rows, descending=descending) for column, descending in reversed(columns)]
    return rows[np.lexsort(keys)]


def _natural(text: str) -> list[tuple[int, int, str]]:
    """Order texts as people count: animal2 before animal10."""
    parts = re.split(r"([0-9]{1,18})", text.casefold())
    return [(0, int(p), "") if i % 2 else (1, 0, p) for i, p in enumerate(parts)] + [(1, 0, text)]


def _as_float32(bound: float) -> np.float32:
    with np.errstate(over="ignore"):  # beyond its range: infinite, which bounds nothing
        return np.float32(bound)
