"""What a worker process runs: ``python -m perikarya.experiment.worker RUN --study STUDY --threads N ...``."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from perikarya.experiment.plan import Plan, load_run_config, make_plan
from perikarya.launch.jobs import Crew
from perikarya.launch.worker import main
from perikarya.runs import RunFolder, TaskKey

Progress = Callable[[int, int], None]


def training_crew(run: RunFolder, study: Path, *, threads: int) -> Crew:
    """Say how workers for the tasks of a run are started."""
    arguments = (str(run.root.resolve()), "--study", str(study.resolve()), "--threads", str(threads))
    return Crew("perikarya.experiment.worker", arguments)


class TaskWorker:
    """Trains tasks and computes features; the run's configuration is read once, with the first job."""

    def __init__(self, run: RunFolder, *, study: str, threads: int) -> None:
        self.run, self.study, self.threads = run, study, threads
        self._plan: Plan | None = None

    def do(self, job: dict[str, Any], progress: Progress) -> None:
        """Train one task, or compute the features of one model."""
        from perikarya.experiment import task  # torch loads while the supervisor already waits for it

        if self._plan is None:
            _limit_threads(self.threads)
            config = load_run_config(self.run).model_copy(update={"study": self.study})
            self._plan = make_plan(config, self.run)
        if job["kind"] == "embed":
            task.run_embedding(self._plan, job["model"], progress)
        else:
            task.run_task(self._plan, _key(job), progress)

    def is_done(self, job: dict[str, Any]) -> bool:
        """Tell whether a task has its result; features are looked for where they are computed."""
        return job["kind"] == "task" and self.run.task_is_done(_key(job))

    def log_of(self, job: dict[str, Any]) -> Path:
        """Name the log of a job."""
        if job["kind"] == "embed":
            return self.run.root / f"embed-{job['model']}.log"
        return self.run.task(_key(job)) / "task.log"


def open_worker(arguments: Sequence[str]) -> TaskWorker:
    """Make the worker that ``training_crew`` describes."""
    parser = argparse.ArgumentParser()
    parser.add_argument("run", type=Path)
    parser.add_argument("--study", required=True)
    parser.add_argument("--threads", type=int, required=True)
    found = parser.parse_args(arguments)
    return TaskWorker(RunFolder(found.run), study=found.study, threads=found.threads)


def _key(job: dict[str, Any]) -> TaskKey:
    return TaskKey(job["model"], job["seed"], job["fold"])


def _limit_threads(threads: int) -> None:
    import cv2
    import torch

    torch.set_num_threads(threads)
    cv2.setNumThreads(1)


if __name__ == "__main__":
    main(open_worker)
