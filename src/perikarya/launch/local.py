"""Worker processes on this machine, each supervised: one that dies costs the task it was on, nothing else.

The supervisor starts ``n_workers`` processes once, hands each a job at a time as a JSON line on its standard input and
reads events as JSON lines from a pipe of their own. A worker whose input ends (the supervisor has died, however)
stops at once. Nothing pickled crosses between processes.
"""

from __future__ import annotations

import json
import logging
import os
import selectors
import signal
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import IO, Any

from perikarya.errors import RunError
from perikarya.launch.jobs import Crew, Event, Job, Listener

log = logging.getLogger(__name__)

MAX_DEATHS = 3  # of workers on one and the same job, before it counts as failed
_STOP_WAIT_S = 5.0


@dataclass
class _Slot:
    index: int
    process: subprocess.Popen[bytes]
    events: IO[bytes]
    job: Job | None = None
    buffer: bytes = b""


@dataclass
class _Board:
    """Which jobs wait, which are done, which failed."""

    waiting: list[Job]
    done: set[str] = field(default_factory=set)
    failed: dict[str, str] = field(default_factory=dict)
    deaths: dict[str, int] = field(default_factory=dict)

    def next_ready(self) -> Job | None:
        for job in self.waiting:
            if job.needs <= self.done:
                self.waiting.remove(job)
                return job
        return None

    def drop_hopeless(self) -> list[tuple[Job, str]]:
        hopeless = [(j, next(iter(j.needs & self.failed.keys()))) for j in self.waiting if j.needs & self.failed.keys()]
        for job, cause in hopeless:
            self.waiting.remove(job)
            self.failed[job.id] = f"needs '{cause}', which failed"
        return hopeless


def run_jobs(
    jobs: Iterable[Job],
    *,
    crew: Crew,
    n_workers: int,
    listener: Listener,
    threads: int,
    keep_fds: Sequence[int] = (),
    gpus: Sequence[str] = (),
) -> dict[str, str]:
    """Run jobs on supervised workers until each has ended.

    Parameters
    ----------
    jobs
        In the order they should be taken.
    crew
        How a worker is started; ``--events-fd N`` is appended. It reads jobs from its standard input.
    n_workers
        Processes at once.
    listener
        Called with every event, in this thread.
    threads
        CPU threads of each worker.
    keep_fds
        Files the workers inherit, such as the lock of the run folder.
    gpus
        Names of the GPUs, shared out over the workers in turn; none on a CPU.

    Returns
    -------
    Job id -> why it failed, for the jobs that did.
    """
    env = {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
    # threads that wait must not spin: on a machine that does other work too, spinning costs many times the work itself
    env["OMP_WAIT_POLICY"] = os.environ.get("OMP_WAIT_POLICY", "PASSIVE")
    supervisor = _Supervisor(crew.command(), listener, env=env, gpus=gpus, keep_fds=keep_fds, board=_Board(list(jobs)))
    return supervisor.run(n_workers)


class _Supervisor:
    def __init__(
        self,
        command: Sequence[str],
        listener: Listener,
        *,
        env: dict[str, str],
        gpus: Sequence[str],
        keep_fds: Sequence[int],
        board: _Board,
    ) -> None:
        self.command, self.listener, self.env, self.gpus, self.keep_fds = command, listener, env, gpus, keep_fds
        self.board = board
        self.selector = selectors.DefaultSelector()
        self.slots: list[_Slot] = []

    def run(self, n_workers: int) -> dict[str, str]:
        try:
            for index in range(min(n_workers, len(self.board.waiting))):
                self._start(index)
            self._hand_out()
            while any(slot.job for slot in self.slots):
                for key, _ in self.selector.select():
                    self._read(key.data)
                self._hand_out()
            for job in self.board.waiting:  # a circle of needs; cannot be started by anyone
                self.board.failed[job.id] = f"needs {', '.join(sorted(job.needs))}, which never ended"
        finally:
            self._stop_all()
        return dict(self.board.failed)

    def _start(self, index: int) -> None:
        read_fd, write_fd = os.pipe()
        env = {**os.environ, **self.env}
        if self.gpus:
            env["CUDA_VISIBLE_DEVICES"] = self.gpus[index % len(self.gpus)]
        process = subprocess.Popen(  # noqa: S603 - our own interpreter and module, no shell
            [*self.command, "--events-fd", str(write_fd)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            pass_fds=[write_fd, *self.keep_fds],
            env=env,
            start_new_session=True,  # Ctrl-C goes to the supervisor, which stops its workers in order
        )
        os.close(write_fd)
        slot = _Slot(index, process, os.fdopen(read_fd, "rb", buffering=0))
        self.slots.append(slot)
        self.selector.register(slot.events, selectors.EVENT_READ, slot)

    def _hand_out(self) -> None:
        for job, cause in self.board.drop_hopeless():
            self.listener(Event("failed", job.id, message=f"needs '{cause}', which failed"))
        for slot in self.slots:
            ready = self.board.next_ready() if slot.job is None else None
            if ready is not None:
                self._give(slot, ready)

    def _give(self, slot: _Slot, job: Job) -> None:
        slot.job = job
        self.listener(Event("started", job.id))
        if slot.process.stdin is None:
            raise RunError("A worker has no input to take jobs from.")
        try:
            slot.process.stdin.write(json.dumps({"id": job.id, **job.payload}).encode() + b"\n")
            slot.process.stdin.flush()
        except BrokenPipeError:
            log.debug("worker %d died before it took %s", slot.index, job.id)  # its events pipe tells, too

    def _read(self, slot: _Slot) -> None:
        content = os.read(slot.events.fileno(), 65536)
        if not content:
            self._bury(slot)
            return
        *lines, slot.buffer = (slot.buffer + content).split(b"\n")
        for line in lines:
            self._take(slot, json.loads(line))

    def _take(self, slot: _Slot, note: dict[str, Any]) -> None:
        event = Event(note["kind"], note["id"], note.get("done", 0), note.get("total", 0), note.get("message", ""))
        if event.kind == "done":
            self.board.done.add(event.job_id)
            slot.job = None
        elif event.kind == "failed":
            self.board.failed[event.job_id] = event.message
            slot.job = None
        self.listener(event)

    def _bury(self, slot: _Slot) -> None:
        self.selector.unregister(slot.events)
        slot.events.close()
        code = slot.process.wait()
        if slot.process.stdin is not None:
            slot.process.stdin.close()
        self.slots.remove(slot)
        job = slot.job
        if job is not None:
            why = _describe_end(code)
            log.warning("worker %d %s while on %s", slot.index, why, job.id)
            self.board.deaths[job.id] = self.board.deaths.get(job.id, 0) + 1
            if self.board.deaths[job.id] >= MAX_DEATHS:
                message = (
                    f"its worker {why}, {MAX_DEATHS} times; see the log of the task and the memory of this machine"
                )
                self.board.failed[job.id] = message
                self.listener(Event("failed", job.id, message=message))
            else:
                self.board.waiting.insert(0, job)
                self.listener(Event("died", job.id, message=why))
        if self.board.waiting:
            self._start(slot.index)

    def _stop_all(self) -> None:
        for slot in self.slots:
            if slot.process.stdin is not None:
                slot.process.stdin.close()
        for slot in self.slots:
            try:
                slot.process.wait(timeout=_STOP_WAIT_S)
            except subprocess.TimeoutExpired:
                slot.process.kill()
                slot.process.wait()
            slot.events.close()
        self.selector.close()


def _describe_end(code: int) -> str:
    if code < 0:
        name = signal.Signals(-code).name
        hint = " (often: out of memory)" if -code == signal.SIGKILL else ""
        return f"was killed by {name}{hint}"
    return f"ended with exit code {code}"
