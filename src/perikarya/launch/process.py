"""One worker process of this machine and the three pipes to it: its jobs, its events, and what it prints."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import IO, Any

from perikarya.launch.jobs import Job

_CHUNK = 65536
_MAX_CHUNKS = 16
_TAIL = 4000  # characters kept of what a worker prints


class WorkerProcess:
    """A process that reads jobs as JSON lines from its standard input and writes events as JSON lines.

    Parameters
    ----------
    command
        What is started; ``--events-fd N`` is appended.
    env
        Changes of the environment.
    keep_fds
        Files it inherits.

    Raises
    ------
    OSError
        If it cannot be started.
    """

    def __init__(self, command: Sequence[str], *, env: Mapping[str, str], keep_fds: Sequence[int]) -> None:
        self.ready = False
        self._buffer, self._printed = b"", b""
        self.events_fd, write_fd = os.pipe()
        try:
            self._process = subprocess.Popen(  # noqa: S603 - our own interpreter and module, no shell
                [*command, "--events-fd", str(write_fd)],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                bufsize=0,
                pass_fds=[write_fd, *keep_fds],
                env={**os.environ, **env},
                start_new_session=True,  # Ctrl-C goes to the supervisor, which stops its workers in order
            )
        except OSError:
            os.close(self.events_fd)
            raise
        finally:
            os.close(write_fd)
        self._jobs, self._prints = _open_pipes(self._process)
        for fd in (self.events_fd, self.prints_fd):
            os.set_blocking(fd, False)

    @property
    def pid(self) -> int:
        """The number of the process."""
        return self._process.pid

    @property
    def prints_fd(self) -> int:
        """Where what it prints can be read."""
        return self._prints.fileno()

    @property
    def ended(self) -> bool:
        """Whether it has died, even where children of it still hold its pipes."""
        return self._process.poll() is not None

    def give(self, job: Job) -> None:
        """Hand it a job; one that has died takes nothing, which its end tells."""
        self._send({"id": job.id, **job.payload})

    def ask_to_stop(self) -> None:
        """Ask it to save the state of its job at the next step and end."""
        self._send({"stop": True})

    def _send(self, note: dict[str, Any]) -> None:
        with suppress(BrokenPipeError):
            rest = json.dumps(note).encode() + b"\n"
            while rest:
                rest = rest[self._jobs.write(rest) :]

    def read_events(self) -> tuple[list[dict[str, Any]], bool]:
        """Return what it has told by now, and whether that was the last."""
        content, last = _read(self.events_fd)
        *lines, self._buffer = (self._buffer + content).split(b"\n")
        return [json.loads(line) for line in lines], last

    def read_prints(self) -> bool:
        """Keep the end of what it has printed by now; return whether that was the last."""
        content, last = _read(self.prints_fd)
        self._printed = (self._printed + content)[-_TAIL:]
        return last

    @property
    def printed(self) -> str:
        """The end of what it printed, as text."""
        return self._printed.decode("utf-8", errors="replace").strip()

    def let_go(self) -> None:
        """End its input: an idle worker ends at once, a busy one within seconds."""
        self._jobs.close()

    def kill(self) -> None:
        """End it and whatever it has started."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def bury(self, *, patience_s: float = 0) -> int:
        """Wait so long for its end, then force it; return its exit code. Nothing it has started is left behind."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=patience_s)
        self.kill()
        code = self._process.wait()
        self.read_prints()
        self._jobs.close()
        self._prints.close()
        os.close(self.events_fd)
        return code


def _open_pipes(process: subprocess.Popen[bytes]) -> tuple[IO[bytes], IO[bytes]]:
    if process.stdin is None or process.stderr is None:
        raise ValueError("a worker is started with pipes")
    return process.stdin, process.stderr


def _read(fd: int) -> tuple[bytes, bool]:
    """Return what is in a pipe, and whether its other end is closed; some, where more is written all the time."""
    parts: list[bytes] = []
    while len(parts) < _MAX_CHUNKS:
        try:
            part = os.read(fd, _CHUNK)
        except BlockingIOError:
            return b"".join(parts), False
        if not part:
            return b"".join(parts), True
        parts.append(part)
    return b"".join(parts), False
