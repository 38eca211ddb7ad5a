"""Signals that ask this process to end, held back until its work has come to an orderly end."""

from __future__ import annotations

import os
import signal
import threading
from contextlib import AbstractContextManager
from types import FrameType, TracebackType
from typing import Any

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopped(BaseException):
    """A person or the system asked this process to end. No error: nothing that handles errors may catch it."""

    def __init__(self, signum: int) -> None:
        super().__init__(f"stopped by {signal.Signals(signum).name}")
        self.exit_code = 128 + signum


def stop_by_signals() -> None:
    """Let signals that ask this process to end raise ``Stopped``: files are closed and half-written ones removed."""
    owner = os.getpid()

    def handle(signum: int, frame: FrameType | None) -> None:  # noqa: ARG001 - signal handlers are called so
        if os.getpid() != owner:
            os._exit(128 + signum)  # a forked copy, which Ctrl-C reaches too and which has nothing to tidy up
        for heeded in _heeded():
            signal.signal(heeded, signal.SIG_DFL)  # a second one ends the process while it is tidying up
        raise Stopped(signum)

    for signum in _heeded():
        signal.signal(signum, handle)


def _heeded() -> list[signal.Signals]:
    """Return the signals that this process was not started to ignore, as under nohup or in a shell's background."""
    return [signum for signum in STOP_SIGNALS if signal.getsignal(signum) is not signal.SIG_IGN]


class HeldSignals(AbstractContextManager["HeldSignals"]):
    """Notes SIGINT and SIGTERM while it is entered; ``pass_on`` lets them take their usual course afterwards.

    ``fd`` becomes readable with each of them, so that a waiting ``select`` hears of it. Ignored signals stay ignored;
    outside the main thread nothing is held.
    """

    def __init__(self) -> None:
        self.seen: list[int] = []
        self._former: dict[int, Any] = {}

    def __enter__(self) -> HeldSignals:
        self.fd, self._write_fd = os.pipe()
        os.set_blocking(self._write_fd, False)
        if threading.current_thread() is threading.main_thread():
            self._former = {signum: signal.signal(signum, self._note) for signum in _heeded()}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for signum, handler in self._former.items():
            signal.signal(signum, handler)
        os.close(self.fd)
        os.close(self._write_fd)

    def _note(self, signum: int, frame: FrameType | None) -> None:  # noqa: ARG002
        self.seen.append(signum)
        os.write(self._write_fd, b"!")

    def drain(self) -> None:
        """Make ``fd`` wait for the next signal."""
        os.read(self.fd, 64)

    def pass_on(self) -> None:
        """Raise the first signal that was held, if any, for whoever handled it before."""
        if self.seen:
            signal.raise_signal(self.seen[0])
