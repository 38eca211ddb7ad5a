"""Work that rehearses what can happen to a worker; every engine is tested with it.

``python -m tests.launch.rehearsal FOLDER`` with the root of the repository on PYTHONPATH. A job is done when its file
is in FOLDER/done; one that was asked to stop leaves the step it came to in FOLDER/saved.
Payloads: {id, do, steps, sleep_s}; do: work, die, die-once, be-killed, die-leaving-a-child, crash, raise, refuse.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from perikarya.errors import InterruptedWorkError, RunError
from perikarya.launch.jobs import Crew
from perikarya.launch.worker import main

ROOT = Path(__file__).parents[2]


class Rehearsal:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for part in ("done", "log", "started"):
            (folder / part).mkdir(parents=True, exist_ok=True)
        seen = {name: os.environ.get(name) for name in ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS")}
        (folder / f"worker-{os.getpid()}").write_text(json.dumps(seen))

    def do(self, job: dict[str, Any], progress: Callable[[int, int], None]) -> None:
        with (self.folder / "started" / job["id"]).open("a", encoding="utf-8") as starts:
            starts.write(f"{os.getpid()}\n")
        if job["do"] == "die-once" and not (self.folder / "died").exists():
            (self.folder / "died").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if job["do"] == "be-killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if job["do"] == "die":
            os._exit(7)
        if job["do"] == "die-leaving-a-child":
            if os.fork() == 0:
                time.sleep(60)  # it holds copies of all pipes meanwhile
            os.kill(os.getpid(), signal.SIGKILL)
        if job["do"] == "crash":
            ctypes.string_at(0)
        if job["do"] == "raise":
            raise ValueError("no good")
        if job["do"] == "refuse":
            raise RunError("It is not as it must be. Fix: mend it.")
        n_steps = int(job.get("steps", 1))
        for step in range(n_steps):
            self._progress(progress, job["id"], step, n_steps)
            time.sleep(float(job.get("sleep_s", 0)))
        progress(n_steps, n_steps)
        with (self.folder / "order").open("a", encoding="utf-8") as order:
            order.write(job["id"] + "\n")
        (self.folder / "done" / job["id"]).touch()

    def _progress(self, progress: Callable[[int, int], None], job_id: str, step: int, n_steps: int) -> None:
        try:
            progress(step, n_steps)
        except InterruptedWorkError:
            (self.folder / "saved").mkdir(exist_ok=True)
            (self.folder / "saved" / job_id).write_text(str(step))
            raise

    def is_done(self, job: dict[str, Any]) -> bool:
        return (self.folder / "done" / job["id"]).is_file()

    def log_of(self, job: dict[str, Any]) -> Path:
        return self.folder / "log" / job["id"]


def rehearsal_crew(folder: Path) -> Crew:
    return Crew("tests.launch.rehearsal", (str(folder.resolve()),))


def open_worker(arguments: Sequence[str]) -> Rehearsal:
    if "--refuse" in arguments:
        raise RunError("The folder is not as it must be.\nFix: mend it.")
    return Rehearsal(Path(arguments[0]))


if __name__ == "__main__":
    main(open_worker)
