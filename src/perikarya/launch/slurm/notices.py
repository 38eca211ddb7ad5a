"""Slurm's signals to an element, heard at once even in the midst of a long computation."""

from __future__ import annotations

import logging
import os
import re
import select
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from types import FrameType, TracebackType
from typing import Any

from perikarya.launch.worker import StopRequest

log = logging.getLogger(__name__)

_SIGNALS = (signal.SIGUSR1, signal.SIGTERM)
_DEFAULT_SIGNAL_S = 60.0
_MARGIN_S = 8.0  # before the end, for the controller to hear of a requeue
_SQUEUE_WAIT_S = 10.0
_PREEMPTED_S = 30.0  # an end so much before the time limit is that of a preemption


class Notices(AbstractContextManager["Notices"]):
    """Hears SIGUSR1 (the end is near) and SIGTERM (it has come), and asks the running work to stop.

    Python's own handlers wait for the step of the main thread to end; a thread hears of signals at once through the
    wake-up file. It calls ``when_late`` where work has not stopped shortly before the end.

    Parameters
    ----------
    name
        The element, as Slurm's programs take it.
    when_late
        Called at most once, from that thread, and only where ``may_requeue`` was not asked before.
    """

    def __init__(self, name: str, *, when_late: Callable[[], None]) -> None:
        self._name, self._when_late = name, when_late
        self.stop = StopRequest()
        self._warned = self._ended = self._requeued = False
        self._lock = threading.Lock()
        self._end_is_known = threading.Event()
        self._at_time_limit = True
        self._former: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Notices:
        self._read_fd, self._write_fd = os.pipe()
        os.set_blocking(self._write_fd, False)
        self._former_fd = signal.set_wakeup_fd(self._write_fd, warn_on_full_buffer=False)
        for signum in _SIGNALS:
            self._former[signum] = signal.signal(signum, _heard_already)
        os.register_at_fork(after_in_child=self._be_deaf)
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        signal.set_wakeup_fd(self._former_fd)
        for signum, handler in self._former.items():
            signal.signal(signum, handler)
        self._former = {}
        os.close(self._write_fd)
        self._thread.join()
        os.close(self._read_fd)

    @property
    def at_time_limit(self) -> bool:
        """Whether the warning was that of the time limit, not of a preemption; ask only after a warning."""
        self._end_is_known.wait(2 * _SQUEUE_WAIT_S)
        return self._at_time_limit

    def may_requeue(self) -> bool:
        """Tell, once, whether it is for the asker to have the element requeued.

        It is not after SIGTERM, for then Slurm has decided what becomes of the job, nor when that was asked before.
        """
        with self._lock:
            allowed = self._warned and not self._ended and not self._requeued
            self._requeued |= allowed
            return allowed

    def _listen(self) -> None:
        deadline: float | None = None
        while True:
            wait_s = None if deadline is None else max(0.0, deadline - time.time())
            if not select.select([self._read_fd], [], [], wait_s)[0]:
                deadline = None
                if self.may_requeue():
                    self._when_late()
                continue
            heard = os.read(self._read_fd, 64)
            if not heard:
                return
            if signal.SIGTERM in heard:
                self._ended = True
                self.stop.ask("Slurm ends this job")
            elif signal.SIGUSR1 in heard and not self._warned:
                self._warned = True
                self.stop.ask("Slurm will end this job soon")
                deadline = self._learn_end() - _MARGIN_S

    def _learn_end(self) -> float:
        """Return when Slurm will end this job, in seconds since 1970, and learn whether that is its time limit."""
        now = time.time()
        end, left_s = _ask_squeue(self._name)
        if end is None:  # in a container; newer versions of Slurm say it in the environment too
            end = float(os.environ.get("SLURM_JOB_END_TIME", "0"))
        if end < now:
            end = now + float(os.environ.get("PERIKARYA_SIGNAL_S", str(_DEFAULT_SIGNAL_S)))
        self._at_time_limit = left_s is None or end - now > left_s - _PREEMPTED_S
        self._end_is_known.set()
        return end

    def _be_deaf(self) -> None:
        """Let a forked child end as it is told to, and not speak for its parent."""
        if self._former:
            signal.set_wakeup_fd(-1)
            for signum in _SIGNALS:
                signal.signal(signum, signal.SIG_DFL)


def _heard_already(signum: int, frame: FrameType | None) -> None:
    """Do nothing, but keep the signal from ending the process; the listening thread has been told of it."""


def _ask_squeue(name: str) -> tuple[float | None, float | None]:
    """Return when an element will end, in seconds since 1970, and how many seconds its time limit leaves; or None."""
    command = ["squeue", "--noheader", f"--jobs={name}", "--format=%e|%L"]
    env = {**os.environ, "SLURM_TIME_FORMAT": "%s"}
    try:
        done = subprocess.run(  # noqa: S603 - Slurm's program by name, no shell
            command, capture_output=True, text=True, timeout=_SQUEUE_WAIT_S, env=env, check=False
        )
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return None, None
    end, _, left = done.stdout.strip().partition("|")
    return (float(end) if end.isdigit() else None), seconds(left)


def seconds(duration: str) -> float | None:
    """Read a duration as Slurm writes it, days-hours:minutes:seconds; None where it is none, such as UNLIMITED."""
    found = re.fullmatch(r"(?:(\d+)-)?(?:(?:(\d+):)?(\d+):)?(\d+)", duration)
    if not found:
        return None
    days, hours, minutes, rest = (int(part or 0) for part in found.groups())
    return float(((days * 24 + hours) * 60 + minutes) * 60 + rest)
