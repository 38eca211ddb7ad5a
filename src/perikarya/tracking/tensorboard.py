"""TensorBoard: one event file per task with its curves and settings, one per run with its numbers and figures.

The files are written whole by TensorBoard's own record writer; neither TensorFlow nor torch is needed.
"""

from __future__ import annotations

import io
import shlex
import time
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

from perikarya.runs import RunFolder, write_bytes
from perikarya.tracking.base import RunRecord, TaskRecord

_PREFIX = "events.out.tfevents."  # what TensorBoard looks for; the digest of what is inside follows
_DIGEST_CHARS = 16


def default_folder(run: RunFolder) -> Path:
    """Return where event files go unless told: a folder beside the run, shared with the runs there."""
    return run.root.resolve().parent / "tensorboard"


class TensorBoardTracker:
    """Writes below ``LOGDIR/<run>/``; a folder's name is the run's, with a number where another run has taken it."""

    def __init__(self, run: RunFolder, logdir: Path) -> None:
        self.logdir = logdir
        self._name = run.root.resolve().name
        self._root: Path | None = None

    def known(self, digests: Collection[str]) -> set[str]:
        """Find the tasks' event files by their names, and with them the folder this run, or a copy of it, was given."""
        if self._root is None:
            names = {_event_name(d) for d in digests}
            mine = [p for p in self.logdir.glob(f"*/*/*/*/{_PREFIX}*") if p.name in names]
            self._root = mine[0].parents[3] if mine else self._free_folder()
        there = {path.name for path in self._root.glob(f"*/*/*/{_PREFIX}*")}
        return {d for d in digests if _event_name(d) in there}

    def log_task(self, task: TaskRecord) -> None:
        """Write the event file of a task; one of an earlier training of the same task goes."""
        from tensorboard.plugins.hparams.summary_v2 import hparams_pb  # its 'api' needs TensorFlow

        key = task.key
        folder = self._folder() / key.model / f"seed{key.seed}" / f"fold{key.fold}"
        settings = hparams_pb(task.settings, trial_id=task.name, start_time_secs=task.started_s)
        events = [_event(task.started_s, settings)]
        names = [c for c in task.curves if c != "epoch"]
        for i, row in enumerate(task.curves.to_dict("records")):
            found = {str(n): float(row[n]) for n in names if row[n] == row[n]}  # NaN: a class without cells
            events.append(_event(task.time_of(i), _scalars(found), step=int(row["epoch"])))
        events.append(_event(task.ended_s, _scalars(task.numbers)))
        _replace(folder, task.digest, events)

    def log_run(self, run: RunRecord) -> None:
        """Write the event file of the run as a whole, unless it holds the same already."""
        folder = self._folder() / "results"
        if not run.digest or (folder / _event_name(run.digest)).is_file():
            return
        now_s = time.time()
        events = [_event(now_s, _scalars(run.numbers))]
        events += [_event(now_s, _picture(path)) for path in run.figures]
        _replace(folder, run.digest, events)

    def how_to_look(self) -> str:
        """Name the command."""
        return f"tensorboard --logdir {shlex.quote(str(self.logdir))}"

    def _folder(self) -> Path:
        if self._root is None:
            self._root = self._free_folder()
        return self._root

    def _free_folder(self) -> Path:
        n, folder = 2, self.logdir / self._name
        while folder.exists():
            n, folder = n + 1, self.logdir / f"{self._name}-{n}"
        return folder


def _event_name(digest: str) -> str:
    return _PREFIX + digest[:_DIGEST_CHARS]


def _replace(folder: Path, digest: str, events: Iterable[Any]) -> None:
    """Write an event file whole and make it the only one of its folder."""
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.summary.writer.record_writer import RecordWriter

    content = io.BytesIO()
    writer = RecordWriter(content)
    for event in [Event(wall_time=0.0, file_version="brain.Event:2"), *events]:
        writer.write(event.SerializeToString())
    staged = folder / "staged"  # TensorBoard reads whatever has its prefix in its name, half-written files too
    write_bytes(staged, content.getvalue())
    for old in folder.glob(f"{_PREFIX}*"):
        old.unlink()
    staged.replace(folder / _event_name(digest))


def _event(wall_s: float, summary: Any, *, step: int = 0) -> Any:
    from tensorboard.compat.proto.event_pb2 import Event

    return Event(wall_time=wall_s, step=step, summary=summary)


def _scalars(numbers: dict[str, float]) -> Any:
    from tensorboard.compat.proto.summary_pb2 import Summary

    return Summary(value=[Summary.Value(tag=name, simple_value=value) for name, value in numbers.items()])


def _picture(path: Path) -> Any:
    from PIL import Image
    from tensorboard.compat.proto.summary_pb2 import Summary

    with Image.open(path) as picture:
        width, height = picture.size
    shown = Summary.Image(height=height, width=width, colorspace=4, encoded_image_string=path.read_bytes())
    return Summary(value=[Summary.Value(tag=f"figures/{path.stem}", image=shown)])
