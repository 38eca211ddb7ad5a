"""How far a run is, read from its folder alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from perikarya.experiment.plan import load_run_config, task_keys
from perikarya.runs import RunFolder, TaskKey

State = Literal["done", "interrupted", "failed", "waiting"]


@dataclass(frozen=True)
class TaskStatus:
    """One task and its state; ``note`` is the last line of its log where it failed."""

    key: TaskKey
    state: State
    note: str = ""


def run_status(run: RunFolder) -> list[TaskStatus]:
    """Return the state of every task, in the order they are run.

    Raises
    ------
    RunError
        If the folder is not a run.
    """
    return [_status(run, key) for key in task_keys(load_run_config(run))]


def _status(run: RunFolder, key: TaskKey) -> TaskStatus:
    if run.task_is_done(key):
        return TaskStatus(key, "done")
    last = _last_error(run, key)
    if last:
        return TaskStatus(key, "failed", last)
    if run.task(key).is_dir():
        return TaskStatus(key, "interrupted", "goes on with the same command, or is running")
    return TaskStatus(key, "waiting")


def _last_error(run: RunFolder, key: TaskKey) -> str:
    log = run.task(key) / "task.log"
    if not log.is_file():
        return ""
    lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    has_error = any(" ERROR " in line for line in lines[-60:])
    return lines[-1] if has_error and lines else ""
