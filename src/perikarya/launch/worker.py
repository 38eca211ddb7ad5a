"""The worker's side of the supervision: take jobs from standard input, do them, tell of them."""

from __future__ import annotations

import json
import logging
import os
import queue
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from perikarya.errors import PerikaryaError
from perikarya.runs import logging_to

log = logging.getLogger(__name__)

Progress = Callable[[int, int], None]
Work = Callable[[dict[str, Any], Progress], None]
_PROGRESS_EVERY_S = 0.2


def serve(work: Work, *, events_fd: int, log_of: Callable[[dict[str, Any]], Path]) -> None:
    """Do jobs until the input ends; ``work`` gets the payload and a function to call with (done, total).

    ``log_of`` names the file in which the log of a job, its traceback included, is kept.

    A job that raises is reported and the next is taken: the one place where any error is caught, for the
    traceback goes to the log and the sentence to the supervisor.
    """
    events = os.fdopen(events_fd, "w", encoding="utf-8", buffering=1)
    jobs: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
    busy = threading.Event()
    threading.Thread(target=_listen, args=(jobs, busy), daemon=True).start()
    while (job := jobs.get()) is not None:
        busy.set()
        with logging_to(log_of(job)):
            _do(work, job, events)
        busy.clear()


def _listen(jobs: queue.SimpleQueue[dict[str, Any] | None], busy: threading.Event) -> None:
    for line in sys.stdin.buffer:
        jobs.put(json.loads(line))
    jobs.put(None)
    if busy.is_set():
        os._exit(3)  # the supervisor is gone; finished parts are on disk, and nobody would take the rest


def _do(work: Work, job: dict[str, Any], events: IO[str]) -> None:
    job_id = job["id"]
    told = 0.0

    def progress(done: int, total: int) -> None:
        nonlocal told
        if done >= total or time.monotonic() - told > _PROGRESS_EVERY_S:
            told = time.monotonic()
            _tell(events, kind="progress", id=job_id, done=done, total=total)

    try:
        work(job, progress)
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
