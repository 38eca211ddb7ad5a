"""The worker's side of the supervision: take jobs from standard input, do them, tell of them."""

from __future__ import annotations

import argparse
import json
import logging
import os
import queue
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any, Protocol

from perikarya.errors import PerikaryaError
from perikarya.runs import logging_to

log = logging.getLogger(__name__)

Progress = Callable[[int, int], None]  # (done, total); may raise InterruptedWorkError, after which work ends
_PROGRESS_EVERY_S = 0.2


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
    parser = argparse.ArgumentParser()
    parser.add_argument("--events-fd", type=int, help="of the local supervisor; jobs come on standard input")
    own, words = parser.parse_known_args()
    serve(open_worker(words), events_fd=own.events_fd)


def serve(worker: Worker, *, events_fd: int) -> None:
    """Do jobs from standard input until it ends, and tell of them.

    A job that raises is reported and the next is taken: the one place where any error is caught, for the
    traceback goes to the log and the sentence to the supervisor.
    """
    events = os.fdopen(events_fd, "w", encoding="utf-8", buffering=1)
    jobs: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
    busy = threading.Event()
    threading.Thread(target=_listen, args=(jobs, busy), daemon=True).start()
    while (job := jobs.get()) is not None:
        busy.set()
        with logging_to(worker.log_of(job)):
            _do(worker, job, events)
        busy.clear()


def _listen(jobs: queue.SimpleQueue[dict[str, Any] | None], busy: threading.Event) -> None:
    for line in sys.stdin.buffer:
        jobs.put(json.loads(line))
    jobs.put(None)
    if busy.is_set():
        os._exit(3)  # the supervisor is gone; finished parts are on disk, and nobody would take the rest


def _do(worker: Worker, job: dict[str, Any], events: IO[str]) -> None:
    job_id = job["id"]
    told = 0.0

    def progress(done: int, total: int) -> None:
        nonlocal told
        if done >= total or time.monotonic() - told > _PROGRESS_EVERY_S:
            told = time.monotonic()
            _tell(events, kind="progress", id=job_id, done=done, total=total)

    try:
        worker.do(job, progress)
    except PerikaryaError as error:
        log.error("%s", error)
        _tell(events, kind="failed", id=job_id, message=str(error))
    except Exception as error:  # noqa: BLE001 - the supervisor must hear of it, and the other tasks must go on
        log.error("%s", traceback.format_exc())
        _tell(events, kind="failed", id=job_id, message=f"{type(error).__name__}: {error}")
    else:
        _tell(events, kind="done", id=job_id)


def _tell(events: IO[str], **note: Any) -> None:
    events.write(json.dumps(note) + "\n")
    events.flush()
