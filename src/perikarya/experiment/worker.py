"""What a worker process runs: ``python -m perikarya.experiment.worker RUN --events-fd N``."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from perikarya.experiment.plan import Plan, load_run_config, make_plan
from perikarya.launch.worker import serve
from perikarya.runs import RunFolder, TaskKey

Progress = Callable[[int, int], None]


def main() -> None:
    """Read the run's configuration once, then do the jobs that come."""
    parser = argparse.ArgumentParser()
    parser.add_argument("run", type=Path)
    parser.add_argument("--study", required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--events-fd", type=int, required=True)
    arguments = parser.parse_args()
    run = RunFolder(arguments.run)
    _limit_threads(arguments.threads)
    plan: Plan | None = None

    def work(job: dict[str, Any], progress: Progress) -> None:
        nonlocal plan
        from perikarya.experiment import task  # torch loads while the supervisor already waits for it

        if plan is None:
            config = load_run_config(run).model_copy(update={"study": arguments.study})
            plan = make_plan(config, run)
        if job["kind"] == "embed":
            task.run_embedding(plan, job["model"], progress)
        else:
            task.run_task(plan, _key(job), progress)

    def log_of(job: dict[str, Any]) -> Path:
        return run.root / f"embed-{job['model']}.log" if job["kind"] == "embed" else run.task(_key(job)) / "task.log"

    serve(work, events_fd=arguments.events_fd, log_of=log_of)


def _key(job: dict[str, Any]) -> TaskKey:
    return TaskKey(job["model"], job["seed"], job["fold"])


def _limit_threads(threads: int) -> None:
    import cv2
    import torch

    torch.set_num_threads(threads)
    cv2.setNumThreads(1)


if __name__ == "__main__":
    main()
