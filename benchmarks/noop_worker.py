"""Work that is nothing at all, for scheduling.py: what an engine costs beside the work.

``python -m noop_worker FOLDER`` with the folder of the benchmarks on PYTHONPATH; a job leaves an empty log there.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from perikarya.launch.jobs import Crew
from perikarya.launch.worker import Progress, main


class Noop:
    """Does nothing."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def do(self, job: dict[str, Any], progress: Progress) -> None:  # noqa: ARG002 - of the protocol
        """Do nothing, and say that it is done."""
        progress(1, 1)

    def is_done(self, job: dict[str, Any]) -> bool:  # noqa: ARG002 - of the protocol
        """Tell that it is not done, so that it is."""
        return False

    def log_of(self, job: dict[str, Any]) -> Path:
        """Name the log of a job."""
        return self.folder / "log" / str(job["id"])


def noop_crew(folder: Path) -> Crew:
    """Say how workers that do nothing are started."""
    return Crew("noop_worker", (str(folder.resolve()),))


def open_worker(arguments: Sequence[str]) -> Noop:
    """Make the worker that ``noop_crew`` describes."""
    return Noop(Path(arguments[0]))


if __name__ == "__main__":
    main(open_worker)
