"""A blind round, as the page sees it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

SKIPPED = -1  # the code of a cell that was read without a decision


@dataclass(frozen=True)
class Round:
    """A round as the page sees it.

    Attributes
    ----------
    rows
        Rows of the study's table in the order they are read.
    read
        By place, the code read last, ``SKIPPED``, or None where nothing was read yet.
    """

    round: str
    reader: str
    started: str
    rows: tuple[int, ...]
    read: tuple[int | None, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return it as the service sends it."""
        return {
            "round": self.round,
            "reader": self.reader,
            "started": self.started,
            "rows": list(self.rows),
            "read": list(self.read),
        }
