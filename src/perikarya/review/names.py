"""What cells are called and belong to: their identity, image, subject, region, group and set."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from perikarya.review.columns import MAX_VALUES, CategoryColumn, coded
from perikarya.schema import NO_LABEL

_TITLES = {"subject": "subject", "region": "region", "group": "group", "set": "set", "image_id": "image"}
_SEARCHED = ("image_id", "subject")  # beside the identity


class CellNames:
    """The words of a table of cells.

    Attributes
    ----------
    cell_ids
        Identities in the order of the table.
    """

    def __init__(self, cells: pd.DataFrame) -> None:
        self.cell_ids = [str(name) for name in cells["cell_id"]]
        self._columns = {key: CategoryColumn(key, title, *coded(cells[key])) for key, title in _TITLES.items()}
        self._folded = [name.casefold() for name in self.cell_ids]

    def columns(self) -> list[CategoryColumn]:
        """Return the columns a person can choose from: not those without any value or with too many."""
        return [column for column in self._columns.values() if 0 < len(column.values) <= MAX_VALUES]

    def of(self, row: int) -> dict[str, str | None]:
        """Return the words of one cell; None where one is unknown, "" for an image without a name."""
        words = {key: _value(column, row) for key, column in self._columns.items()}
        return words | {"image_id": words["image_id"] or ""}

    def holding(self, text: str) -> NDArray[np.bool_]:
        """Tell whose identity, image or subject holds a text as it is, but for its case; shape (n_cells,)."""
        folded = text.casefold()
        found = np.fromiter((folded in name for name in self._folded), np.bool_, len(self._folded))
        for column in (self._columns[key] for key in _SEARCHED):
            holds = np.array([*(folded in name.casefold() for name in column.values), False], np.bool_)
            found |= holds[column.codes]  # the last one answers for code -1
        return found


def _value(column: CategoryColumn, row: int) -> str | None:
    code = int(column.codes[row])
    return None if code == NO_LABEL else column.values[code]
