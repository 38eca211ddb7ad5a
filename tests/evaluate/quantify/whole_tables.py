"""Tables of predictions read whole; the package itself reads them piece by piece."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd

from perikarya.evaluate.quantify.tables import PredictedCells, TableCells, TableInMemory, open_predictions


def read_predictions(path: Path) -> pd.DataFrame:
    """Read a table of predictions, or its parts, into memory; raise ``DataError`` when it is missing or damaged."""
    table = open_predictions(path)
    if isinstance(table, TableInMemory):
        return table.frame
    frames = [frame for _, _, frame in table.frames(table.columns)]
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=list(table.columns))


def cells_of_table(frame: pd.DataFrame, class_names: tuple[str, ...], *, where: str) -> PredictedCells:
    """Check a table of predictions in memory and bring it to cells; see ``TableCells``."""
    (cells,) = TableCells(_Whole(frame, where), class_names).chunks()
    return cells


class _Whole(TableInMemory):
    """A table in memory that comes in one piece."""

    def frames(self, columns: Sequence[str]) -> Iterator[tuple[str, int, pd.DataFrame]]:
        yield self.where, 0, self.frame[list(columns)]
