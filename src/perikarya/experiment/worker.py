"""What a worker process runs: ``python -m perikarya.experiment.worker RUN --study STUDY --threads N ...``."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from perikarya.errors import RunError
from perikarya.experiment.claim import CLAIM_FILE, Claim
from perikarya.experiment.jobs import key_of, log_of
from perikarya.experiment.plan import Plan, load_run_config, make_plan
from perikarya.experiment.progress import PROGRESS_FILE, ProgressFile
from perikarya.launch.jobs import Crew
from perikarya.launch.logs import log_start
from perikarya.launch.worker import main
from perikarya.runs import RunFolder, TaskKey

Progress = Callable[[int, int], None]
_LOOK_EVERY_S = 1.0  # whether somebody newer has the work


def training_crew(plan: Plan, *, threads: int) -> Crew:
    """Say how workers for the tasks of a run are started, on whatever machine."""
    arguments = (
        str(plan.run.root.resolve()),
        *("--study", str(plan.opened.root.resolve())),
        *("--config-hash", plan.config.content_hash()),
        *("--threads", str(threads)),
        *("--processes", str(plan.config.launch.processes_per_task)),
    )
    return Crew("perikarya.experiment.worker", arguments)


class TaskWorker:
    """Trains tasks and computes features; the run's configuration is read once, with the first job.

    Parameters
    ----------
    run
        The run.
    study
        Where the study lies on this machine.
    config_hash
        Of the configuration this worker was started for.
    threads
        CPU threads.
    processes
        That train one network together.
    """

    def __init__(self, run: RunFolder, *, study: str, config_hash: str, threads: int, processes: int = 1) -> None:
        self.run, self.study, self.config_hash = run, study, config_hash
        self.threads, self.processes = threads, processes
        self._plan: Plan | None = None

    def do(self, job: dict[str, Any], progress: Progress) -> None:
        """Train one task, or compute the features of one model.

        Raises
        ------
        InterruptedWorkError
            If ``progress`` asks for it, or a newer worker has taken the work.
        """
        log_start()
        if job["kind"] == "embed":
            self._embed(job, progress)
        else:
            self._train(key_of(job), progress)

    def is_done(self, job: dict[str, Any]) -> bool:
        """Tell whether a task has its result, or whether features lie where they are looked for."""
        if job["kind"] == "embed":
            return self._features(job).exists()
        return self.run.task_is_done(key_of(job))

    def log_of(self, job: dict[str, Any]) -> Path:
        """Name the log of a job."""
        return log_of(self.run, job)

    def _features(self, job: dict[str, Any]) -> Path:
        return Path(self.study) / str(job["file"])

    def _embed(self, job: dict[str, Any], progress: Progress) -> None:
        from perikarya.experiment.task import run_embedding  # torch loads while the supervisor already waits for it

        plan, file = self._planned(), self._features(job)
        with _claimed(file.parent, is_done=file.exists, name=f"{file.stem}.claim.json") as claim:

            def tell(done: int, total: int) -> None:
                claim.check(at_most_every_s=0 if done >= total else _LOOK_EVERY_S)
                progress(done, total)

            run_embedding(plan, job["model"], tell)

    def _train(self, key: TaskKey, progress: Progress) -> None:
        plan, folder = self._planned(), self.run.task(key)
        told = ProgressFile(folder / PROGRESS_FILE)
        with _claimed(folder, is_done=partial(self.run.task_is_done, key)) as claim:

            def tell(done: int, total: int) -> None:
                claim.check(at_most_every_s=_LOOK_EVERY_S)
                told.note(done, total)
                progress(done, total)

            if self.processes > 1 and plan.config.model(key.model).strategy != "head":
                from perikarya.experiment.distributed import run_task_distributed

                run_task_distributed(
                    self.run,
                    key,
                    study=self.study,
                    n_processes=self.processes,
                    threads=self.threads,
                    progress=tell,
                    may_write=claim.check,
                )
            else:
                from perikarya.experiment.task import run_task

                run_task(plan, key, tell, may_write=claim.check)

    def _planned(self) -> Plan:
        if self._plan is None:
            limit_threads(self.threads)
            config = load_run_config(self.run).model_copy(update={"study": self.study})
            if config.content_hash() != self.config_hash:
                raise RunError(
                    f"{self.run.root} has the configuration {config.content_hash()}, and this worker was started for "
                    f"{self.config_hash}.\nResults of two configurations in one folder could not be told apart.\n"
                    "Fix: cancel the jobs that are left of the earlier run (perikarya status names them), and start "
                    "this one again."
                )
            self._plan = make_plan(config, self.run)
        return self._plan


@contextmanager
def _claimed(folder: Path, *, is_done: Callable[[], bool], name: str = CLAIM_FILE) -> Iterator[Claim]:
    claim = Claim.take(folder, is_done=is_done, name=name)
    try:
        yield claim
    finally:
        claim.release()


def open_worker(arguments: Sequence[str]) -> TaskWorker:
    """Make the worker that ``training_crew`` describes."""
    parser = argparse.ArgumentParser()
    parser.add_argument("run", type=Path)
    parser.add_argument("--study", required=True)
    parser.add_argument("--config-hash", required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--processes", type=int, default=1)
    found = parser.parse_args(arguments)
    return TaskWorker(
        RunFolder(found.run),
        study=found.study,
        config_hash=found.config_hash,
        threads=found.threads,
        processes=found.processes,
    )


def limit_threads(threads: int) -> None:
    """Let torch use so many threads in this process, and OpenCV one, for loaders work on many cells at once."""
    import cv2
    import torch

    torch.set_num_threads(threads)
    cv2.setNumThreads(1)


if __name__ == "__main__":
    main(open_worker)
