"""Labels as they are now: those of the study's table with what people have corrected since."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from perikarya.data.corrections import present_labels
from perikarya.data.store import OpenStudy
from perikarya.schema import label_codes

if TYPE_CHECKING:
    from perikarya.data.corrections import Entry

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Labels:
    """Labels at one moment; never changed, so that a question is answered from one state throughout.

    Attributes
    ----------
    codes
        Present label of each cell, shape (n_cells,); ``NO_LABEL`` without.
    reviewed
        Whether a person has confirmed or changed it, shape (n_cells,).
    revision
        Place in the log of the last correction that is in here.
    """

    codes: NDArray[np.int32]
    reviewed: NDArray[np.bool_]
    revision: int

    def counts(self, n_classes: int, rows: NDArray[np.int64] | None = None) -> list[int]:
        """Count cells by present label, of some rows or of all; those without a label come last."""
        codes = self.codes if rows is None else self.codes[rows]
        return [int(n) for n in np.bincount(np.where(codes < 0, n_classes, codes), minlength=n_classes + 1)]

    def n_reviewed(self, rows: NDArray[np.int64] | None = None) -> int:
        """Count the cells a person has confirmed or changed, of some rows or of all."""
        return int(np.count_nonzero(self.reviewed if rows is None else self.reviewed[rows]))


def cell_index(opened: OpenStudy) -> pd.Index[Any]:
    """Return the identities of the cells, in the order of the table, to find rows by."""
    index: pd.Index[Any] = pd.Index(opened.cells["cell_id"].to_numpy(object))
    return index


class PresentLabels:
    """Follows the log of corrections; may be asked and told by several threads.

    Attributes
    ----------
    index
        Identities of the cells, in the order of the table.
    imported
        Codes of the labels in the study's table, shape (n_cells,).
    now
        The labels as they are.
    """

    def __init__(self, opened: OpenStudy) -> None:
        self._opened = opened
        self.index = cell_index(opened)
        self._history: dict[str, tuple[Entry, ...]] = {}
        self._lock = threading.Lock()
        self.imported = opened.labels.astype(np.int32)
        self.now = Labels(self.imported, np.zeros(len(self.imported), np.bool_), 0)

    def row_of(self, cell_id: str) -> int | None:
        """Return the row of a cell; None where the study has no such cell."""
        row = int(self.index.get_indexer(pd.Index([cell_id], dtype=object))[0])
        return None if row < 0 else row

    def history(self, cell_id: str) -> tuple[Entry, ...]:
        """Return what was said of one cell, the first entry first."""
        return self._history.get(cell_id, ())

    def take_in(self, entries: Iterable[Entry]) -> None:
        """Let corrections count, in the order of the log; those that are in already change nothing."""
        with self._lock:
            new: dict[str, list[Entry]] = {}
            for entry in entries:
                if entry.seq > self.now.revision:
                    new.setdefault(entry.cell_id, []).append(entry)
            if new:
                self._apply(new)

    def _apply(self, new: dict[str, list[Entry]]) -> None:
        revision = max(entry.seq for some in new.values() for entry in some)
        rows = self.index.get_indexer(pd.Index(list(new), dtype=object))
        if (rows < 0).any():
            log.warning("%d corrected cells are not in %s", (rows < 0).sum(), self._opened.root)
        for cell_id, some in new.items():
            self._history[cell_id] = (*self.history(cell_id), *some)
        rows = rows[rows >= 0]
        touched = self._opened.cells.iloc[rows]
        said = [entry for cell_id in touched["cell_id"] for entry in self._history[cell_id]]
        labels, is_reviewed = present_labels(touched, said)
        codes, reviewed = self.now.codes.copy(), self.now.reviewed.copy()
        codes[rows] = label_codes(pd.Series(labels, dtype="string"), self._opened.study.class_names)
        reviewed[rows] = is_reviewed
        self.now = Labels(codes, reviewed, revision)
