"""Finished tasks to MLflow or TensorBoard on the command line: ``perikarya track``."""

from __future__ import annotations

import time
from pathlib import Path

from perikarya.cli.console import console
from perikarya.errors import UnknownNameError
from perikarya.experiment.plan import load_run_config, task_keys
from perikarya.runs import RunFolder, TaskKey
from perikarya.tracking import TRACKERS, TrackerName, open_tracker
from perikarya.tracking.base import sync

_PAUSE_S = 20.0


def track_command(run: Path, *, to: str, uri: str | None = None, watch: bool = False) -> None:
    """Log what a tracker lacks of a run; with ``watch``, until all tasks are done and the report is written."""
    name = _tracker_name(to)
    folder = RunFolder(run)
    load_run_config(folder)  # a folder that is no run is told before a database is made
    known: dict[TaskKey, str] = {}
    n_logged, over = 0, False
    with console.status(f"Logging to {name}") as status:
        tracker = open_tracker(folder, name, uri)
        while not over:
            over = not watch or _is_over(folder)  # looked at first: what is written after the log is for the next round
            n_logged += sync(folder, tracker, known=known)
            status.update(f"Logging to {name}: {len(known)} task(s) so far; Ctrl-C stops the watch, not the run")
            if not over:
                time.sleep(_PAUSE_S)
    console.print(f"{n_logged} task(s) logged now, {len(known) - n_logged} before.")
    console.print(f"To look: {tracker.how_to_look()}", markup=False)


def _tracker_name(to: str) -> TrackerName:
    for name in TRACKERS:
        if name == to:
            return name
    raise UnknownNameError("tracker", to, TRACKERS)


def _is_over(run: RunFolder) -> bool:
    return run.report.is_file() and all(run.task_is_done(key) for key in task_keys(load_run_config(run)))
