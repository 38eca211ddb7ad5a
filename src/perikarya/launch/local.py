"""Worker processes on this machine, each supervised: one that dies costs the job it was on, nothing else.

The supervisor keeps ``n_workers`` processes, hands each a job at a time and hears of it through pipes. A worker whose
input ends (the supervisor has died, however) saves its state and stops within seconds. Nothing pickled crosses between
processes.
"""

from __future__ import annotations

import logging
import selectors
import signal
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from perikarya.errors import InterruptedWorkError, RunError
from perikarya.launch.board import Board
from perikarya.launch.ends import MemoryWatch, describe_end
from perikarya.launch.jobs import Crew, Event, Job, Listener, thread_variables
from perikarya.launch.process import WorkerProcess
from perikarya.launch.stopping import HeldSignals

log = logging.getLogger(__name__)

MAX_DEATHS = 3  # of workers on one and the same job, before it counts as failed
MAX_FAILED_STARTS = 3  # in a row, before no more are tried
STOP_WAIT_S = 10.0  # for workers that were asked to stop; the longest step whose state is still saved
_EXIT_WAIT_S = 5.0  # for workers that have nothing to do
_LOOK_EVERY_S = 1.0  # for workers that have died while a child of theirs holds the pipe whose end would tell
_LONGEST_PAUSE_S = 30.0


@dataclass
class _Place:
    """Room for one worker, with its GPU; it is filled anew when its worker dies."""

    index: int
    where: str
    env: Mapping[str, str]
    worker: WorkerProcess | None = None
    job: Job | None = None
    not_before: float = 0.0  # monotonic time of the next start
    n_deaths: int = 0  # since a job last ended here

    @property
    def idle(self) -> bool:
        return self.worker is not None and self.worker.ready and self.job is None

    def pause(self) -> None:
        """Put off the next start, each time longer: what kills workers at once must not keep the machine busy."""
        self.n_deaths += 1
        wait_s = 0.25 * 2 ** (self.n_deaths - 2) if self.n_deaths > 1 else 0.0
        self.not_before = time.monotonic() + min(_LONGEST_PAUSE_S, wait_s)


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

    SIGINT (Ctrl-C) and SIGTERM ask the workers to save their state and stop; once they have, or ``STOP_WAIT_S`` is
    over, or the signal came a second time, it takes its usual course (``KeyboardInterrupt`` for Ctrl-C).

    Parameters
    ----------
    jobs
        In the order they should be taken; their ids are unique.
    crew
        How a worker is started; ``--events-fd N`` is appended. It reads jobs from its standard input.
    n_workers
        Processes at once; one fewer each time the memory of the machine runs out.
    listener
        Called with every event, in this thread. The message of ``started`` says where the job is done.
    threads
        CPU threads of each worker.
    keep_fds
        Files the workers inherit, such as the lock of the run folder.
    gpus
        Names of the GPUs, shared out over the workers in turn; none on a CPU.

    Returns
    -------
    Job id -> why it failed, for the jobs that did.

    Raises
    ------
    RunError
        If no worker can be started.
    """
    env = thread_variables(threads)
    env["PYTHONFAULTHANDLER"] = "1"  # a crash in native code names the line of Python that called it
    board = Board(jobs)
    places = [_place(index, env, gpus) for index in range(min(n_workers, board.n_waiting))]
    with HeldSignals() as signals, selectors.DefaultSelector() as selector:
        supervisor = _Supervisor(
            crew.command(), listener, board=board, places=places, keep_fds=keep_fds, selector=selector
        )
        selector.register(signals.fd, selectors.EVENT_READ, signals.drain)
        try:
            while not signals.seen and supervisor.go_on():
                pass
            if signals.seen:
                supervisor.stop(signals)
        finally:
            supervisor.end_workers()
    signals.pass_on()
    if signals.seen:  # whoever handles it here goes on; the work does not
        raise InterruptedWorkError("The work was stopped; what was finished is kept, and the same command goes on.")
    return dict(board.failed)


def _place(index: int, env: Mapping[str, str], gpus: Sequence[str]) -> _Place:
    if not gpus:
        return _Place(index, f"{index + 1}, CPU", env)
    gpu = gpus[index % len(gpus)]
    return _Place(index, f"{index + 1}, GPU {gpu}", {**env, "CUDA_VISIBLE_DEVICES": gpu})


class _Supervisor:
    """Keeps the places filled, the workers busy, and the listener informed."""

    def __init__(
        self,
        command: Sequence[str],
        listener: Listener,
        *,
        board: Board,
        places: list[_Place],
        keep_fds: Sequence[int],
        selector: selectors.BaseSelector,
    ) -> None:
        self.command, self.listener, self.keep_fds, self.selector = command, listener, keep_fds, selector
        self.board, self.places = board, places
        self.memory = MemoryWatch()
        self.deaths: dict[str, int] = {}  # of workers, by the job they were on
        self.n_failed_starts = 0  # in a row
        self.stopping = False
        self.looked = time.monotonic()

    def go_on(self) -> bool:
        """Start what can be started and wait until something happens; return whether there is more to do."""
        if not self._n_busy() and not self.board.has_ready:
            self._tell_failed(self.board.note_unreachable())
            return False
        self._fill_places()
        self._hand_out()
        self._wait()
        return True

    def _wait(self) -> None:
        now = time.monotonic()
        starts = [p.not_before - now for p in self.places if p.worker is None]
        for key, _ in self.selector.select(timeout=max(0.0, min([_LOOK_EVERY_S, *(s for s in starts if s > 0)]))):
            key.data()
        if time.monotonic() - self.looked >= _LOOK_EVERY_S:
            self.looked = time.monotonic()
            for place in list(self.places):
                if place.worker is not None and place.worker.ended:
                    self._read_events(place)
                    self._bury(place)

    def _fill_places(self) -> None:
        filled = [p for p in self.places if p.worker is not None]
        n_wanted = self.board.n_waiting + self._n_busy()
        empty = [p for p in self.places if p.worker is None and p.not_before <= time.monotonic()]
        for place in empty[: max(0, n_wanted - len(filled))]:
            self._start(place)

    def _start(self, place: _Place) -> None:
        try:
            worker = WorkerProcess(self.command, env=place.env, keep_fds=self.keep_fds)
        except OSError as error:
            self._note_failed_start(place, f"{error.filename or self.command[0]}: {error.strerror}")
            return
        place.worker = worker
        self.selector.register(worker.events_fd, selectors.EVENT_READ, partial(self._read_events, place))
        self.selector.register(worker.prints_fd, selectors.EVENT_READ, partial(self._read_prints, place))

    def _note_failed_start(self, place: _Place, why: str) -> None:
        """Try again later; where it keeps failing, go on with fewer workers, and with none say why."""
        log.info("worker %d could not start: %s", place.index + 1, why)
        self.n_failed_starts += 1
        place.pause()
        if self.n_failed_starts < MAX_FAILED_STARTS or self.stopping:
            return
        self.places.remove(place)
        if not any(p.worker is not None for p in self.places):
            raise RunError(
                f"No worker can be started to do the work: {why}\n"
                "Nothing was lost; the same command goes on when this is mended.\n"
                "Fix: see what the line above names; an import that fails needs the package installed again."
            )
        log.warning("Worker %d cannot be started; the other %d do the work. %s", place.index + 1, len(self.places), why)

    def _hand_out(self) -> None:
        for place in self.places:
            if place.idle and place.worker is not None:
                job = self.board.take()
                if job is None:
                    return
                place.job = job
                self.listener(Event("started", job.id, message=place.where))
                place.worker.give(job)

    def _read_prints(self, place: _Place) -> None:
        if place.worker is not None and place.worker.read_prints():
            self.selector.unregister(place.worker.prints_fd)

    def _read_events(self, place: _Place) -> None:
        if place.worker is None:
            return
        notes, last = place.worker.read_events()
        for note in notes:
            self._take(place, note)
        if last:
            self._bury(place, patience_s=1.0)

    def _take(self, place: _Place, note: dict[str, Any]) -> None:
        kind = note["kind"]
        if kind == "ready":
            if place.worker is not None:
                place.worker.ready = True
            self.n_failed_starts = 0
        elif kind == "progress":
            self.listener(Event("progress", note["id"], note["done"], note["total"]))
        elif kind == "stopped":
            self._give_back(place, "was asked to stop, and has saved the state")
        else:
            place.job, place.n_deaths = None, 0
            if kind == "done":
                self.board.note_done(note["id"])
                self.listener(Event("done", note["id"]))
            else:
                self._tell_failed(self.board.note_failed(note["id"], note["message"]))

    def _tell_failed(self, fallen: list[tuple[str, str]]) -> None:
        for job_id, why in fallen:
            self.listener(Event("failed", job_id, message=why))

    def _give_back(self, place: _Place, why: str) -> None:
        """Let another worker go on with the job of a place."""
        if place.job is not None:
            job, place.job = place.job, None
            self.board.put_back(job)
            if not self.stopping:
                self.listener(Event("died", job.id, message=why))

    def _bury(self, place: _Place, *, patience_s: float = 0) -> None:
        worker, place.worker = place.worker, None
        if worker is None:
            return
        for fd in (worker.events_fd, worker.prints_fd):
            if fd in self.selector.get_map():
                self.selector.unregister(fd)
        code = worker.bury(patience_s=patience_s)
        for_memory = self.memory.ended_one() if code == -signal.SIGKILL else False
        why = describe_end(code, for_memory=for_memory)
        if worker.printed:
            log.info("worker %d %s; it had printed:\n%s", place.index + 1, why, worker.printed)
        if not worker.ready:
            self._note_failed_start(place, _last_words(worker.printed) or f"it {why}")
            return
        place.pause()
        if for_memory and len(self.places) > 1:
            self.places.remove(place)
            self._give_back(place, f"{why}, so {len(self.places)} at once are done from now on")
        elif place.job is not None:
            self._count_death(place, place.job, why)

    def _count_death(self, place: _Place, job: Job, why: str) -> None:
        n_deaths = self.deaths[job.id] = self.deaths.get(job.id, 0) + 1
        if n_deaths < MAX_DEATHS:
            self._give_back(place, why)
            return
        place.job = None
        message = f"its worker {why}, {MAX_DEATHS} times one after another; the log of the task may tell more"
        self._tell_failed(self.board.note_failed(job.id, message))

    def stop(self, signals: HeldSignals) -> None:
        """Ask all workers to save their state and end; wait for them a little, unless a second signal comes."""
        self.stopping = True
        n_busy = self._n_busy()
        if n_busy:
            log.warning(
                "Stopping: %d running job(s) save their state, in %.0f s at most; Ctrl-C again ends them at once.",
                n_busy,
                STOP_WAIT_S,
            )
        for place in self.places:
            if place.worker is not None:
                place.worker.ask_to_stop()
        deadline = time.monotonic() + STOP_WAIT_S
        while self._n_busy() and len(signals.seen) < 2 and time.monotonic() < deadline:
            self._wait()

    def _n_busy(self) -> int:
        return sum(place.job is not None for place in self.places)

    def end_workers(self) -> None:
        """End what is left: idle workers in their own time, and at once those that would not stop."""
        workers = [place.worker for place in self.places if place.worker is not None]
        deadline = time.monotonic() + (0.0 if self._n_busy() and self.stopping else _EXIT_WAIT_S)
        for worker in workers:
            worker.let_go()
        for worker in workers:
            worker.bury(patience_s=max(0.0, deadline - time.monotonic()))


def _last_words(printed: str) -> str:
    """Return what a process said before it ended: its sentence, or the last line of a traceback."""
    return printed.splitlines()[-1] if "Traceback (most recent call last)" in printed else printed
