"""Work that only sleeps and goes on where it was: ``python -m tests.slurm.sleeper FOLDER``."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from perikarya.errors import InterruptedWorkError
from perikarya.launch.jobs import Crew
from perikarya.launch.worker import main

STEP_S = 0.25


class Sleeper:
    """A job sleeps ``steps`` times; FOLDER/<id>.starts has the process of each start, .saved the step it came to."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def do(self, job: dict[str, Any], progress: Callable[[int, int], None]) -> None:
        with (self.folder / f"{job['id']}.starts").open("a", encoding="utf-8") as starts:
            starts.write(f"{os.getpid()}\n")
        saved = self.folder / f"{job['id']}.saved"
        for step in range(int(saved.read_text()) if saved.exists() else 0, job["steps"]):
            try:
                progress(step, job["steps"])
            except InterruptedWorkError:
                saved.write_text(str(step))
                raise
            time.sleep(STEP_S)
        (self.folder / f"{job['id']}.done").touch()

    def is_done(self, job: dict[str, Any]) -> bool:
        return (self.folder / f"{job['id']}.done").exists()

    def log_of(self, job: dict[str, Any]) -> Path:
        return self.folder / f"{job['id']}.log"


def sleepers(folder: Path) -> Crew:
    return Crew("tests.slurm.sleeper", (str(folder.resolve()),))


def open_worker(arguments: Sequence[str]) -> Sleeper:
    return Sleeper(Path(arguments[0]))


if __name__ == "__main__":
    main(open_worker)
