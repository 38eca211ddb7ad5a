"""Work shared by the cores of one machine: copies of this process, which see its data without copying them."""

from __future__ import annotations

import ctypes
import logging
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkProcess
from typing import Generic, TypeVar

from threadpoolctl import threadpool_limits

Item = TypeVar("Item")
Result = TypeVar("Result")

log = logging.getLogger(__name__)

_PR_SET_PDEATHSIG = 1  # of <linux/prctl.h>
PATIENCE_S = 300.0  # without any result, after which workers are taken to hang


def n_cores() -> int:
    """Return how many cores this process may use, which a cluster or container may have limited."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def map_forked(
    function: Callable[[Item], Result], items: Sequence[Item], *, n_workers: int | None = None
) -> list[Result]:
    """Apply a function to each item, several at a time, and return the results in order; see ``ForkedWork``."""
    return ForkedWork(function, items, n_workers=n_workers).results()


class ForkedWork(Generic[Item, Result]):
    """A function applied to each item by workers, while this process may do something else.

    Workers are forked, so the function may close over anything; only results are sent, and must be picklable. What a
    worker that was killed, or hangs, leaves undone is done here. Without fork (Windows, macOS), or with one worker,
    ``results`` does everything here.

    Parameters
    ----------
    function
        Must not depend on the order of the calls, nor use OpenCV, whose threads do not survive a fork.
    items
        Any; the costly ones first, for a worker takes the next when it is free.
    n_workers
        None: one per core.
    """

    def __init__(
        self, function: Callable[[Item], Result], items: Sequence[Item], *, n_workers: int | None = None
    ) -> None:
        self._function, self._items = function, items
        self._results: dict[int, Result] = {}
        self._failures: dict[int, BaseException] = {}
        self._waiting = list(range(len(items)))[::-1]
        self._workers: dict[Connection, ForkProcess] = {}
        self._dispatcher: threading.Thread | None = None
        n_workers = min(n_workers or n_cores(), len(items))
        if n_workers > 1 and sys.platform == "linux":
            self._fork(n_workers)

    def results(self) -> list[Result]:
        """Wait for all results and return them in the order of the items.

        Raises
        ------
        Exception
            What the function raised, for the first item in order that failed.
        """
        if self._dispatcher is not None:
            self._dispatcher.join()
        if self._failures:
            raise self._failures[min(self._failures)]
        for i, item in enumerate(self._items):
            if i not in self._results:
                if self._dispatcher is not None:
                    log.warning("a worker was killed or hung; item %d is done again", i)
                self._results[i] = self._function(item)
        return [self._results[i] for i in range(len(self._items))]

    def _fork(self, n_workers: int) -> None:
        context = multiprocessing.get_context("fork")
        for _ in range(n_workers):
            ours, theirs = context.Pipe()
            worker = context.Process(
                target=_serve, args=(theirs, self._function, self._items, os.getpid()), daemon=True
            )
            worker.start()
            theirs.close()
            self._workers[ours] = worker
            ours.send(self._waiting.pop())
        self._dispatcher = threading.Thread(target=self._dispatch, daemon=True)
        self._dispatcher.start()

    def _dispatch(self) -> None:
        while self._workers:
            ready = wait(list(self._workers), timeout=PATIENCE_S)
            for connection in [c for c in self._workers if c in ready or not ready]:
                if ready and self._receive(connection) and self._waiting and not self._failures:
                    connection.send(self._waiting.pop())
                else:  # it is idle, dead, or hangs
                    worker = self._workers.pop(connection)
                    worker.kill()
                    worker.join()
                    connection.close()

    def _receive(self, connection: Connection) -> bool:
        """Take what a worker sends; return whether it lives."""
        try:
            i, result, failure = connection.recv()
        except (EOFError, OSError):
            return False
        if failure is not None:
            self._failures[i] = failure
        else:
            self._results[i] = result
        return True


def _serve(connection: Connection, function: Callable[[Item], Result], items: Sequence[Item], parent: int) -> None:
    """Work off the items whose numbers come in, until killed; with one thread, for there is a worker per core."""
    _end_with(parent)
    with threadpool_limits(1):
        while True:
            i = connection.recv()
            try:
                result = function(items[i])
            except Exception as error:  # noqa: BLE001  # sent to the caller, who raises it
                connection.send((i, None, error))
            else:
                connection.send((i, result, None))


def _end_with(parent: int) -> None:
    """Let the kernel end this process with the thread that forked it: it would wait, and hold locks, for ever."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it has died in between
        os._exit(1)
