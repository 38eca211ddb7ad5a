"""Entries of a log of corrections, without the log."""

from __future__ import annotations

from itertools import count
from uuid import UUID

from perikarya.data.corrections import Entry


class Said:
    """Makes entries one after the other, as a log numbers them."""

    def __init__(self) -> None:
        self._seq = count(1)

    def label(self, cell_id: str, old: str | None, new: str | None) -> Entry:
        return self._entry("label", cell_id, old, new, None)

    def skip(self, cell_id: str) -> Entry:
        return self._entry("skip", cell_id, None, None, None)

    def undo(self, entry: Entry) -> Entry:
        return self._entry("undo", entry.cell_id, entry.new, entry.old, entry.id)

    def _entry(self, kind: str, cell_id: str, old: str | None, new: str | None, undoes: str | None) -> Entry:
        seq = next(self._seq)
        at = "2026-11-23T13:00:00+00:00"
        return Entry(seq, str(UUID(int=seq)), at, "ann", kind, cell_id, old, new, None, undoes)  # type: ignore[arg-type]
