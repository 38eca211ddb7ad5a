"""The worker's side of every engine: take jobs, do them, tell of them."""

from __future__ import annotations

import argparse
import json
import logging
import os
import queue
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

from perikarya.errors import InterruptedWorkError, PerikaryaError
from perikarya.runs import logging_to

log = logging.getLogger(__name__)

Progress = Callable[[int, int], None]  # (done, total); may raise InterruptedWorkError, after which work ends
_PROGRESS_EVERY_S = 0.2
# after the supervisor's death, to save the state; shorter than a new command waits for the lock of the run
_ORPHAN_WAIT_S = 2.0
ORPHANED = 3  # exit code of a worker that could not end its step in that time


class Worker(Protocol):
    """What does the jobs of one kind of work, in whatever process an engine starts for it."""

    def do(self, job: dict[str, Any], progress: Progress) -> None:
        """Do one job whole, given its payload; what an earlier attempt left is continued."""

    def is_done(self, job: dict[str, Any]) -> bool:
        """Tell from files alone whether a job has ended well, here or on another machine."""

    def log_of(self, job: dict[str, Any]) -> Path:
        """Name the file in which the log of a job, its traceback included, is kept while it goes on."""


OpenWorker = Callable[[Sequence[str]], Worker]


def main(open_worker: OpenWorker) -> None:
    """Be a worker process: of the local supervisor, or an element of a Slurm array."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--events-fd", type=int, help="of the local supervisor; jobs come on standard input")
    parser.add_argument("--jobs-file", type=Path, help="one job per line, of an array of Slurm")
    parser.add_argument("--first", type=int, default=0, help="line of the first job to do, from 0")
    parser.add_argument("--count", type=int, default=1, help="how many jobs to do, one after another")
    parser.add_argument("--own-log", type=Path, help="where Slurm keeps what this element prints")
    own, words = parser.parse_known_args()
    logging.captureWarnings(capture=True)  # into the log of the job
    try:
        worker = open_worker(words)
    except PerikaryaError as error:
        sys.exit(str(error))
    if own.jobs_file is None:
        serve(worker, events_fd=own.events_fd)
        os._exit(0)  # all is told and written; taking torch apart in order would take a second or two
    from perikarya.launch.slurm.element import do_listed

    sys.exit(do_listed(worker, jobs_file=own.jobs_file, first=own.first, count=own.count, own_log=own.own_log))


def attempt(worker: Worker, job: dict[str, Any], progress: Progress) -> str | None:
    """Do one job, its log kept where the worker says; return None when it ended well, else why it did not.

    The one place where any error is caught: the traceback goes to the log, the sentence to whoever wants to tell
    it, and the next job can be done.

    Raises
    ------
    InterruptedWorkError
        If ``progress`` asked the work to stop; its state is saved.
    """
    try:
        with logging_to(worker.log_of(job)):
            return _attempt_logged(worker, job, progress)
    except OSError as error:
        return _sentence(error)  # of the log itself: the disk is full, or the folder may not be written


def _attempt_logged(worker: Worker, job: dict[str, Any], progress: Progress) -> str | None:
    try:
        worker.do(job, progress)
    except InterruptedWorkError as asked:
        log.info("stopped: %s", asked)
        raise
    except PerikaryaError as error:
        log.error("%s", error)
        return str(error)
    except Exception as error:  # noqa: BLE001 - others must hear of it, and the other jobs must go on
        log.error("%s", traceback.format_exc())
        return _sentence(error)
    return None


def _sentence(error: Exception) -> str:
    """Say in plain words what an error without a sentence of its own means for the work."""
    text = f"{type(error).__name__}: {error}".rstrip(": ")
    # torch's error for a GPU has this name; on a CPU its allocator raises a RuntimeError
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in text:
        return (
            f"Memory ran out ({text.splitlines()[0]}).\n"
            "Fix: fewer jobs at once, or less per job (for training: train.micro_batch, train.checkpointing, input_px)."
        )
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename or 'A file'}: {error.strerror}.\nFix: check the path, the rights and the free space."
    return text


class StopRequest:
    """Whether work must stop soon; asked for from another thread or a signal, seen at the next step."""

    def __init__(self) -> None:
        self._why: str | None = None

    def ask(self, why: str) -> None:
        """Ask running work to save its state and end."""
        self._why = why

    @property
    def asked(self) -> bool:
        """Whether work was asked to stop."""
        return self._why is not None

    def check(self) -> None:
        """Raise ``InterruptedWorkError`` once work was asked to stop."""
        if self._why is not None:
            raise InterruptedWorkError(self._why)


class _Events:
    """Where a worker tells its supervisor of a job, one JSON object a line; nobody listening means to stop."""

    def __init__(self, fd: int, stop: StopRequest) -> None:
        os.set_inheritable(fd, False)
        self._fd, self._stop = fd, stop

    def tell(self, **note: Any) -> None:
        rest = json.dumps(note).encode() + b"\n"
        try:
            while rest:
                rest = rest[os.write(self._fd, rest) :]
        except BrokenPipeError:
            self._stop.ask("the supervisor is gone")


def serve(worker: Worker, *, events_fd: int) -> None:
    """Do jobs from standard input until it ends or stopping is asked for, and tell of them.

    A worker stops at the next step, its state saved, when it reads ``{"stop": true}``, when SIGTERM comes, or when its
    input ends: then the supervisor is gone, and nobody else would wait for it, so a step may not take long.
    """
    jobs: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
    stop = StopRequest()
    events = _Events(events_fd, stop)

    def on_sigterm(signum: int, frame: FrameType | None) -> None:  # noqa: ARG001 - signal handlers are called so
        stop.ask("the worker was asked to end (SIGTERM)")
        jobs.put(None)

    signal.signal(signal.SIGTERM, on_sigterm)
    threading.Thread(target=_listen, args=(jobs, stop), daemon=True).start()
    events.tell(kind="ready")
    while (job := jobs.get()) is not None and not stop.asked:
        _do(worker, job, events, stop)


def _listen(jobs: queue.SimpleQueue[dict[str, Any] | None], stop: StopRequest) -> None:
    for line in sys.stdin.buffer:
        note = json.loads(line)
        if note.get("stop"):
            stop.ask("the run was stopped")
            jobs.put(None)
            return  # whoever asked waits, and kills when tired of it
        jobs.put(note)
    stop.ask("the supervisor is gone")
    jobs.put(None)
    time.sleep(_ORPHAN_WAIT_S)  # this thread dies with the process
    os._exit(ORPHANED)


def _do(worker: Worker, job: dict[str, Any], events: _Events, stop: StopRequest) -> None:
    job_id = job["id"]
    told = 0.0

    def progress(done: int, total: int) -> None:
        nonlocal told
        if done < total:  # what is complete need only be written down
            stop.check()
        if done >= total or time.monotonic() - told > _PROGRESS_EVERY_S:
            told = time.monotonic()
            events.tell(kind="progress", id=job_id, done=done, total=total)

    try:
        why = attempt(worker, job, progress)
    except InterruptedWorkError as asked:
        events.tell(kind="stopped" if stop.asked else "failed", id=job_id, message=str(asked))
        return
    if why is None:
        events.tell(kind="done", id=job_id)
    else:
        events.tell(kind="failed", id=job_id, message=why)
