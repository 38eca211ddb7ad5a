"""How far a running task is: a small file in its folder, from which 'perikarya status' tells the time left."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from perikarya.errors import RunError
from perikarya.runs import read_json, write_json

PROGRESS_FILE = "progress.json"
_WRITE_EVERY_S = 5.0  # tasks that take no longer never write any


@dataclass(frozen=True)
class TaskProgress:
    """Steps ``done`` of ``total`` at ``time``, of which ``first`` were done at ``since`` (both seconds since 1970)."""

    done: int
    total: int
    first: int
    since: float
    time: float

    @property
    def share(self) -> float:
        """How much of the task is done, 0 to 1."""
        return self.done / self.total if self.total else 0.0

    @property
    def whole_s(self) -> float | None:
        """How long the whole task takes at the speed of the present worker; None before that is known."""
        steps = self.done - self.first
        return (self.time - self.since) / steps * self.total if steps > 0 and self.time > self.since else None


class ProgressFile:
    """Writes how far a task is, every few seconds at most."""

    def __init__(self, path: Path, *, every_s: float = _WRITE_EVERY_S) -> None:
        self._path, self._every_s = path, every_s
        self._now: TaskProgress | None = None
        self._written = time.time()

    def note(self, done: int, total: int) -> None:
        """Take down how far the task is."""
        clock = time.time()
        if self._now is None:
            self._now = TaskProgress(done, total, first=done, since=clock, time=clock)
        self._now = replace(self._now, done=done, total=total, time=clock)
        if clock - self._written >= self._every_s:
            self._written = clock
            write_json(self._path, asdict(self._now))


def read_progress(path: Path) -> TaskProgress | None:
    """Read how far a task is; None where that is not known."""
    try:
        return TaskProgress(**read_json(path, what="how far a task is"))
    except (RunError, OSError, TypeError):
        return None
