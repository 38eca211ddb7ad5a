"""How far a run is, read from its folder and, where it was submitted to one, from the cluster; no result is read."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Literal

import psutil

from perikarya.experiment.claim import CLAIM_FILE, Owner, read_owner
from perikarya.experiment.plan import load_run_config, task_keys
from perikarya.experiment.progress import PROGRESS_FILE, TaskProgress, read_progress
from perikarya.launch.logs import error_in_log
from perikarya.launch.slurm import JobState
from perikarya.runs import RESULT_FILE, RunFolder, TaskKey

State = Literal["done", "running", "waiting", "interrupted", "failed"]
STATES: tuple[State, ...] = ("done", "running", "waiting", "interrupted", "failed")

_SILENCE_S = 120.0  # after which a worker of another machine is taken to be gone, where no cluster can be asked


@dataclass(frozen=True)
class TaskStatus:
    """One task and its state; ``note`` says what happened to it, ``progress`` how far it is where that is known."""

    key: TaskKey
    state: State
    note: str = ""
    progress: TaskProgress | None = None

    @property
    def share(self) -> float:
        """How much of the task is done, 0 to 1."""
        return 1.0 if self.state == "done" else self.progress.share if self.progress else 0.0


def run_status(run: RunFolder, *, cluster: Mapping[str, JobState] | None = None) -> list[TaskStatus]:
    """Return the state of every task, in the order they are run.

    Parameters
    ----------
    run
        The run.
    cluster
        What Slurm says of its jobs, by id (``launch.slurm.ask_cluster``): it knows better than files whether somebody
        works on a task.

    Raises
    ------
    RunError
        If the folder is not a run.
    """
    jobs = cluster or {}
    found, busy = [], set[str]()
    for key in task_keys(load_run_config(run)):
        job = jobs.get(str(key))
        task = _status(run, key, job)
        if job is not None and job.kind == "running" and task.state == "running":
            if job.cluster_id in busy:  # an element does its tasks one after another
                task = replace(task, state="waiting", note="")
            busy.add(job.cluster_id)
        found.append(task)
    return found


def seconds_left(tasks: Sequence[TaskStatus]) -> float | None:
    """Estimate how long a run takes still, from how fast its running tasks are; None where none tells.

    A task that waits is taken to last as long as those of its model that run, else as the mean of all that run; and
    as many are taken to run at once as do now.
    """
    running = [t for t in tasks if t.state == "running"]
    known = [(t.key.model, t.progress.whole_s) for t in running if t.progress is not None]
    whole_s = [(model, s) for model, s in known if s is not None]
    if not whole_s:
        return None
    of_model = {model: fmean(s for other, s in whole_s if other == model) for model, _ in whole_s}
    usual = fmean(s for _, s in whole_s)
    rest = sum((1 - t.share) * of_model.get(t.key.model, usual) for t in tasks if t.state in ("running", "waiting"))
    longest = max((1 - t.share) * of_model.get(t.key.model, usual) for t in running)
    return max(rest / len(running), longest)


def _status(run: RunFolder, key: TaskKey, job: JobState | None) -> TaskStatus:
    try:
        names = {entry.name for entry in os.scandir(run.task(key))}
    except FileNotFoundError:
        names = set()
    if RESULT_FILE in names:
        return TaskStatus(key, "done")
    progress = read_progress(run.task(key) / PROGRESS_FILE) if PROGRESS_FILE in names else None
    if job is not None and job.kind in ("queued", "requeued"):
        return TaskStatus(key, "waiting", job.sentence, progress)
    if job is not None and job.kind == "running":
        error = "" if CLAIM_FILE in names else error_in_log(run.task_log(key))  # of an element that went on to others
        return TaskStatus(key, "failed" if error else "running", error or job.sentence, progress)
    owner = read_owner(run.task(key) / CLAIM_FILE) if CLAIM_FILE in names else None
    if job is None and owner is not None and _seems_alive(owner, run.task(key)):
        return TaskStatus(key, "running", f"process {owner.pid} on {owner.host}", progress)
    error = error_in_log(run.task_log(key))
    if error:
        return TaskStatus(key, "failed", error, progress)
    return _stopped(key, job, progress, was_begun=bool(names))


def _stopped(key: TaskKey, job: JobState | None, progress: TaskProgress | None, *, was_begun: bool) -> TaskStatus:
    """Tell of a task that nobody works on, without an error of its own."""
    if job is not None and job.kind == "failed":
        by_fault = job.cause in ("memory", "exit code")
        return TaskStatus(key, "failed" if by_fault else "interrupted", job.sentence, progress)
    if was_begun:
        return TaskStatus(key, "interrupted", "the same command goes on with it", progress)
    return TaskStatus(key, "waiting")


def _seems_alive(owner: Owner, folder: Path) -> bool:
    if owner.host == socket.gethostname():
        try:
            return bool(psutil.Process(owner.pid).create_time() <= (folder / CLAIM_FILE).stat().st_mtime)
        except (psutil.Error, OSError):
            return False
    signs = [entry.stat().st_mtime for entry in os.scandir(folder)]
    return time.time() - max(signs, default=0) < _SILENCE_S
