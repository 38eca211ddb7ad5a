"""What runs on the machines of a Ray cluster: one job of a run, in a process that is kept for the next."""

from __future__ import annotations

import json
import logging
import os
import queue
import socket
import threading
import time
from collections.abc import Callable, Iterator
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any

from perikarya.errors import PerikaryaError
from perikarya.launch.local import STOP_WAIT_S
from perikarya.launch.worker import StopRequest, Worker, attempt

_PROGRESS_EVERY_S = 0.5
_LOOK_EVERY_S = 0.2  # how often a waiting worker looks whether it was cancelled
_ENDS = ("done", "failed", "unfit")  # the kinds of a last line
INSTALL = "install the same version of perikarya, with its extra 'train', on every machine (or in the image)"


def work(crew: str, job: str) -> Iterator[str]:
    """Do one job; yield lines of JSON that tell of it, the last of which says how it ended.

    Ray cancels by a KeyboardInterrupt in the main thread; so the work is done in another, which then is asked to save
    its state.
    """
    notes: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
    stop = StopRequest()
    yield json.dumps({"kind": "started", "message": _place()})
    thread = threading.Thread(target=_do, args=(crew, json.loads(job), notes.put, stop), daemon=True)
    thread.start()
    try:
        kind = ""
        while kind not in _ENDS:
            try:
                note = notes.get(timeout=_LOOK_EVERY_S)
            except queue.Empty:
                continue
            kind = note["kind"]
            yield json.dumps(note)
    finally:  # the work has ended, or was cancelled: here, or while Ray sent a line
        stop.ask("the run was stopped")
        thread.join(STOP_WAIT_S)


def _place() -> str:
    """Say where this process runs, as a person would look for it."""
    gpus = os.environ.get("CUDA_VISIBLE_DEVICES")
    return f"{socket.gethostname()}, {f'GPU {gpus}' if gpus else 'CPU'}"


def _do(crew: str, job: dict[str, Any], tell: Callable[[dict[str, Any]], None], stop: StopRequest) -> None:
    told = 0.0

    def progress(done: int, total: int) -> None:
        nonlocal told
        stop.check()
        if done >= total or time.monotonic() - told > _PROGRESS_EVERY_S:
            told = time.monotonic()
            tell({"kind": "progress", "done": done, "total": total})

    try:
        worker = _opened(crew)
        # an earlier attempt may have ended well before its process or machine was lost
        why = None if worker.is_done(job) else attempt(worker, job, progress)
    except _UnfitError as error:
        tell({"kind": "unfit", "message": str(error)})
    except PerikaryaError as error:  # asked to stop, too
        tell({"kind": "failed", "message": str(error)})
    except BaseException as error:  # whoever waits must hear of it, even if opening ended the process
        tell({"kind": "failed", "message": f"The worker could not be opened. {type(error).__name__}: {error}"})
        raise
    else:
        tell({"kind": "done"} if why is None else {"kind": "failed", "message": why})


class _UnfitError(PerikaryaError):
    """A machine that cannot do any job of the run."""


@lru_cache(maxsize=1)
def _opened(crew: str) -> Worker:
    """Open the worker of this process for a run, once."""
    words = json.loads(crew)
    missing = [folder for folder in words["folders"] if not Path(folder).exists()]
    if missing:
        raise _UnfitError(
            f"The machine {socket.gethostname()} of the Ray cluster does not see {missing[0]}.\n"
            "Ray carries no files: study and run folder must be on storage that all machines share, at the same path.\n"
            "Fix: put them there, or take the machine out of the cluster."
        )
    try:
        module = import_module(words["module"])
    except ImportError as error:
        raise _UnfitError(
            f"The machine {socket.gethostname()} of the Ray cluster cannot import {words['module']}: {error}\n"
            f"Fix: {INSTALL}."
        ) from error
    logging.captureWarnings(capture=True)  # into the log of the job
    worker: Worker = module.open_worker(words["arguments"])
    return worker
