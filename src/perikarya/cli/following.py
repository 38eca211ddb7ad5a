"""Work that goes on without the command line: what was submitted to a cluster, and how far a run is."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.table import Table

from perikarya.cli.console import console
from perikarya.experiment.status import STATES, TaskStatus, run_status, seconds_left
from perikarya.launch.slurm import JobState, Submission, ask_cluster
from perikarya.runs import RunFolder

_MAX_SENTENCES = 12  # about tasks in trouble; equal ones count as one
_TOLD = ("failed", "interrupted")


def show_submission(done: Submission, run: RunFolder, *, dry_run: bool) -> None:
    """Print what was submitted and what to type next, or with ``dry_run`` the scripts that would be submitted."""
    if dry_run:
        for path, text in zip(done.scripts, done.texts, strict=True):
            console.print(f"# ---- {path}", markup=False)
            console.print(text, markup=False)
        live = f", {done.n_live} are in the queue already" if done.n_live else ""
        console.print(f"# {done.n_jobs} job(s) would be submitted{live}. Nothing was written.", markup=False)
        return
    if done.n_live:
        console.print(f"{done.n_live} job(s) are in the queue already and stay there.")
    if done.n_jobs:
        console.print(f"{done.n_jobs} job(s) submitted as {', '.join(done.job_ids)}.", markup=False)
        console.print(f"Their scripts: {done.scripts[0].parent}", markup=False)
    console.print(
        f"How far they are: perikarya status {run.root}   (or: squeue --me)\n"
        + (f"To stop them:     scancel {' '.join(done.job_ids)}\n" if done.job_ids else "")
        + f"The report, when all have ended: {run.report}",
        markup=False,
    )


def status_command(run: Path, *, as_json: bool = False) -> None:
    """Print one line per model, how long it takes still, and in a few lines what happened to tasks in trouble."""
    if not RunFolder(run).config.is_file() and _is_prediction(run):
        from perikarya.cli.sharding import show_prediction_status

        show_prediction_status(run, as_json=as_json)
        return
    folder = RunFolder(run)
    cluster = ask_cluster(folder.root)
    tasks = run_status(folder, cluster=cluster.jobs)
    if as_json:
        print_json(folder, tasks)
        return
    if cluster.unasked:
        console.print(cluster.unasked, markup=False)
    _show_tasks(tasks)
    _show_features(cluster.jobs, tasks)
    for sentence in trouble(tasks):
        console.print(sentence, markup=False)
    console.print(" ".join(_end(folder, tasks, is_busy=cluster.is_busy)), markup=False)


def trouble(tasks: Sequence[TaskStatus]) -> list[str]:
    """Say what happened to tasks that failed, were interrupted or wait again; equal sentences but for numbers once."""
    told = [t for t in tasks if t.state in _TOLD or (t.state == "waiting" and t.progress is not None)]
    kinds = Counter((t.state, _alike(t.note)) for t in told)
    first = {(t.state, _alike(t.note)): t for t in reversed(told)}
    lines = []
    for kind, n in kinds.most_common(_MAX_SENTENCES):
        task = first[kind]
        what = str(task.key) if n == 1 else f"{n} tasks, such as {task.key}"
        lines.append(f"{what}: {task.state}; {task.note}" if task.note else f"{what}: {task.state}")
    left = sum(n for _, n in kinds.most_common()[_MAX_SENTENCES:])
    return [*lines, f"… and {left} more in other words (--json lists all)"] if left else lines


def print_json(run: RunFolder, tasks: Sequence[TaskStatus]) -> None:
    """Print for other programs: counts, shares, seconds left, and every task that is not done."""
    content: dict[str, Any] = {
        "schema_version": 1,
        "run": str(run.root),
        "counts": _counts(tasks),
        "share_done": round(_share(tasks), 4),
        "seconds_left": seconds_left(tasks),
        "models": {
            model: _counts(own) | {"share_done": round(_share(own), 4)} for model, own in _by_model(tasks).items()
        },
        "tasks": [
            {**asdict(t.key), "state": t.state, "share_done": round(t.share, 4), "note": t.note}
            for t in tasks
            if t.state != "done"
        ],
    }
    console.file.write(json.dumps(content, indent=1) + "\n")


def _is_prediction(folder: Path) -> bool:
    from perikarya.predict.shards import has_plan

    return has_plan(folder)


def _show_tasks(tasks: Sequence[TaskStatus]) -> None:
    shown = [s for s in STATES if s == "done" or any(t.state == s for t in tasks)]
    table = Table("model", "tasks", *shown, "%", box=None, header_style="bold")
    for model, own in _by_model(tasks).items():
        counts = _counts(own)
        table.add_row(model, str(len(own)), *(str(counts[s] or "-") for s in shown), f"{100 * _share(own):.0f}")
    console.print(table)


def _show_features(jobs: dict[str, JobState], tasks: Sequence[TaskStatus]) -> None:
    """Tell of the jobs beside the tasks: those that compute features, for which tasks wait."""
    keys = {str(t.key) for t in tasks}
    for name, job in jobs.items():
        if name not in keys and job.kind != "ended":
            console.print(f"{name}: {job.sentence}", markup=False)


def _end(run: RunFolder, tasks: Sequence[TaskStatus], *, is_busy: bool) -> list[str]:
    """Say how much is done, how long the rest takes, and what happens next or has to be typed."""
    counts, left = _counts(tasks), seconds_left(tasks)
    end = [f"{counts['done']} of {len(tasks)} tasks are done."]
    if left is not None:
        end.append(f"About {spoken(left)} left, with {counts['running']} task(s) at once as now.")
    if counts["done"] == len(tasks):
        if is_busy:
            end.append("The report is being written.")
        elif run.report.is_file():
            end.append(f"Report: {run.report}")
        else:
            end.append(f"For the report: perikarya report {run.root}")
    elif is_busy:
        if counts["interrupted"]:
            end.append("What was broken off is submitted again when all have ended.")
    elif counts["failed"] + counts["interrupted"]:
        end.append("The same 'perikarya train' command goes on with what failed or was interrupted.")
    return end


def spoken(seconds: float) -> str:
    """Write a duration as people say it."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    if seconds < 90 * 60:
        return f"{round(seconds / 60)} min"
    return f"{seconds / 3600:.1f} h" if seconds < 36 * 3600 else f"{seconds / 86_400:.1f} days"


def _alike(note: str) -> str:
    """Return what is the same in sentences about several tasks: no numbers, no path of a log."""
    return re.sub(r"\d+", "#", re.sub(r"; see /\S+", "", note))


def _by_model(tasks: Sequence[TaskStatus]) -> dict[str, list[TaskStatus]]:
    found: dict[str, list[TaskStatus]] = {}
    for task in tasks:
        found.setdefault(task.key.model, []).append(task)
    return found


def _counts(tasks: Sequence[TaskStatus]) -> dict[str, int]:
    counts = Counter(t.state for t in tasks)
    return {state: counts[state] for state in STATES}


def _share(tasks: Sequence[TaskStatus]) -> float:
    return sum(t.share for t in tasks) / len(tasks) if tasks else 0.0
