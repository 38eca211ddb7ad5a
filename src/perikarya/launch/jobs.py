"""The words every engine speaks: jobs, what becomes known of them, and how a worker for them is started."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class Job:
    """A piece of work: ``payload`` is what the worker gets, ``needs`` are the ids of jobs that must end well first."""

    id: str
    payload: dict[str, Any]
    needs: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Event:
    """What became known of a job: it was started, came on, ended well, failed, or its worker died."""

    kind: Literal["started", "progress", "done", "failed", "died"]
    job_id: str
    done: int = 0
    total: int = 0
    message: str = ""


Listener = Callable[[Event], None]


@dataclass(frozen=True)
class Crew:
    """How workers for a kind of work are started, on whatever machine.

    ``module`` is run as ``python -m module *arguments`` and calls ``launch.worker.main``; it also holds
    ``open_worker(arguments) -> Worker``, which engines call that bring a Python process of their own (Ray).
    ``arguments`` are words only, with absolute paths: nothing pickled crosses machines.
    """

    module: str
    arguments: tuple[str, ...]

    def command(self, python: str = sys.executable) -> list[str]:
        """Return the words that start a worker; each engine appends where its jobs come from."""
        return [python, "-m", self.module, *self.arguments]


def thread_variables(threads: int) -> dict[str, str]:
    """Return the environment in which numpy, torch and OpenMP use so many CPU threads; it counts when they load."""
    return {
        **{name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")},
        # threads that wait must not spin: beside other work, spinning costs many times the work itself
        "OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "PASSIVE"),
    }
