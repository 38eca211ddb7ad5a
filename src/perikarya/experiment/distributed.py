"""Train one task on several processes of this machine, one per GPU where there are any, through torch's launcher."""

from __future__ import annotations

import json
import logging
import os
import re
import selectors
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from typing import IO, Any

from perikarya.errors import InterruptedWorkError, RunError, TrainingError
from perikarya.experiment.rank import GO_ON, STOP
from perikarya.launch.ends import MemoryWatch, describe_end
from perikarya.launch.jobs import thread_variables
from perikarya.launch.local import MAX_DEATHS
from perikarya.runs import RunFolder, TaskKey

log = logging.getLogger(__name__)

Progress = Callable[[int, int], None]  # (done, total); may raise InterruptedWorkError
_LOOK_EVERY_S = 0.5  # whether the launcher still lives
_END_WAIT_S = 10.0  # for processes that were let go, before they are killed
_CHUNK = 65536
# how the launcher names the process that failed first, in its log
_FIRST_TO_FAIL = re.compile(r"exitcode: (-?\d+)\) local_rank: (\d+)")


def run_task_distributed(
    run: RunFolder,
    key: TaskKey,
    *,
    study: str,
    n_processes: int,
    threads: int,
    progress: Progress,
    may_write: Callable[[], object] = lambda: None,
) -> None:
    """Do what ``run_task`` does for a task that trains its network, on several processes.

    Parameters
    ----------
    run
        The run; it must have been planned.
    key
        The task.
    study
        Folder of the study.
    n_processes
        How many; on a machine with GPUs, as many of those that are visible are used, one each.
    threads
        CPU threads of each process.
    progress
        Called with (steps done, steps in all); where it raises ``InterruptedWorkError``, all processes save the state
        of the same step and end.
    may_write
        Called before files are written; may raise ``InterruptedWorkError``.

    Raises
    ------
    InterruptedWorkError
        If ``progress`` or ``may_write`` raised it, or the system asked the processes to end (SIGTERM).
    RunError
        If processes were killed time and again, or cannot start.
    TrainingError
        If the training itself cannot be done; the message is that of ``run_task``.

    Notes
    -----
    When one process is killed, the launcher ends the others, and all are started again after the last saved state.
    """
    if run.task_is_done(key):
        run.clear_task(key)
        return
    words = [str(run.root), "--study", study, "--task", json.dumps(asdict(key)), "--threads", str(threads)]
    command, memory = _command(n_processes, words), MemoryWatch()
    for death in range(1, MAX_DEATHS + 1):
        with _started(command, threads=threads) as group:
            asked = _attend(group, progress, may_write)
        if "done" in group.told:
            return
        _raise_what_they_told(group, asked)
        why = _how_they_ended(group, key, n_processes, memory)
        log.warning("%s (%d of %d times)", why, death, MAX_DEATHS)
    raise RunError(
        f"{why}, {MAX_DEATHS} times.\nThe others cannot go on without its share of each batch.\n"
        "Fix: see the memory of this machine; the same command goes on after the last saved state."
    )


def _raise_what_they_told(group: _Group, asked: InterruptedWorkError | None) -> None:
    """Raise what the processes told, or what asked them to stop; nothing where they were killed for no such reason."""
    if "failed" in group.told:
        raise TrainingError(group.told["failed"])
    if asked is not None:
        raise asked
    if "interrupted" in group.told:
        raise InterruptedWorkError(group.told["interrupted"])


def _how_they_ended(group: _Group, key: TaskKey, n_processes: int, memory: MemoryWatch) -> str:
    """Say which process was killed by what; raise ``RunError`` where none was, for it would happen again."""
    rank, code = group.first_to_fail or (None, group.process.returncode)
    which = "The launcher" if rank is None else f"Process {rank}"
    how = describe_end(code, for_memory=memory.ended_one())
    why = f"{which} of the {n_processes} processes that train {key} together {how}"
    if code < 0:
        return why
    said = group.told.get("crashed") or "the log of the task tells more"
    raise RunError(f"{why}: {said.splitlines()[0]}\nThe same command goes on after the last saved state.")


def _command(n_processes: int, words: Sequence[str]) -> list[str]:
    # standalone: a free port of its own for each task; the address, for machines that cannot look up their own name
    launcher = ["--standalone", "--local-addr", "127.0.0.1", "--nproc-per-node", str(n_processes)]
    return [sys.executable, "-m", "torch.distributed.run", *launcher, "-m", "perikarya.experiment.rank", *words]


class _Lines:
    """The whole lines that come out of a pipe."""

    def __init__(self, pipe: IO[bytes]) -> None:
        self._pipe, self._rest = pipe, b""

    def read(self) -> list[str] | None:
        """Return the lines that have come, or None when the pipe has ended."""
        content = os.read(self._pipe.fileno(), _CHUNK)
        if not content:
            return None
        *lines, self._rest = (self._rest + content).split(b"\n")
        return [line.decode("utf-8", errors="replace") for line in lines]


class _Group:
    """The launcher and its processes.

    ``told`` holds the first message of each kind (done, interrupted, failed, crashed); ``first_to_fail`` is
    (rank, exit code).
    """

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self.told: dict[str, str] = {}
        self.first_to_fail: tuple[int, int] | None = None

    def notes(self) -> Iterator[dict[str, Any]]:
        """Yield what the processes tell until all have ended; what they log goes to the log of this process."""
        outs = {self.process.stdout: self._notes_in, self.process.stderr: self._logged}
        with selectors.DefaultSelector() as selector:
            for pipe, take in outs.items():
                if pipe is not None:
                    selector.register(pipe, selectors.EVENT_READ, (_Lines(pipe), take))
            while selector.get_map():
                for ready, _ in selector.select(timeout=_LOOK_EVERY_S):
                    lines, take = ready.data
                    found = lines.read()
                    if found is None:
                        selector.unregister(ready.fileobj)
                    else:
                        yield from take(found)
                if self.process.poll() is not None:
                    self.let_go()  # a launcher that was killed leaves its processes behind

    def _notes_in(self, lines: list[str]) -> list[dict[str, Any]]:
        notes = [json.loads(line) for line in lines]
        for note in notes:
            self.told.setdefault(note["kind"], note.get("message", ""))
        return notes

    def _logged(self, lines: list[str]) -> list[dict[str, Any]]:
        for line in lines:
            log.info("%s", line)
            if self.first_to_fail is None and (found := _FIRST_TO_FAIL.search(line)):
                self.first_to_fail = int(found[2]), int(found[1])
        return []

    def say(self, word: str) -> None:
        """Say a word to the first process; one that is gone hears nothing, which its end tells."""
        if self.process.stdin is not None:
            with suppress(BrokenPipeError, ValueError):
                self.process.stdin.write(word.encode() + b"\n")
                self.process.stdin.flush()

    def let_go(self) -> None:
        """Close the input of the processes, upon which all end at once."""
        if self.process.stdin is not None:
            with suppress(BrokenPipeError):
                self.process.stdin.close()


@contextmanager
def _started(command: Sequence[str], *, threads: int) -> Iterator[_Group]:
    env = thread_variables(threads)
    if sys.platform == "linux":
        env["GLOO_SOCKET_IFNAME"] = "lo"  # the processes are on one machine, whose name need not resolve
    process = subprocess.Popen(  # noqa: S603 - our own interpreter and module, no shell
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, **env},
    )
    group = _Group(process)
    try:
        yield group
    finally:
        group.let_go()
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=_END_WAIT_S)
        process.kill()
        process.wait()
        for pipe in (process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()


def _attend(group: _Group, progress: Progress, may_write: Callable[[], object]) -> InterruptedWorkError | None:
    """Hear what the processes tell until they end; return what asked them to stop, if anything did."""
    asked: InterruptedWorkError | None = None
    for note in group.notes():
        if asked is not None:
            continue
        try:
            if note["kind"] == "progress":
                progress(note["done"], note["total"])
            elif note["kind"] == "may_write":
                may_write()
                group.say(GO_ON)
        except InterruptedWorkError as error:
            asked = error
            group.say(STOP)
    return asked
