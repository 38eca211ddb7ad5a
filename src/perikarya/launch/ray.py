"""A Ray cluster: each job is a remote function, for which Ray chooses machine and process; one that dies costs a retry.

The remote function is a generator: what becomes known of a job comes back as lines of JSON, "started" when it runs and
not when it was submitted, then how far it is, last how it ended. So nothing is needed beside it that collects progress.
Ray carries words only: functions are imported by name over there, and files are found by their paths.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perikarya.errors import RunError
from perikarya.launch.board import Board
from perikarya.launch.jobs import Crew, Event, Job, Listener
from perikarya.launch.local import STOP_WAIT_S
from perikarya.launch.ray_cluster import connected, first_line, remote_options
from perikarya.launch.ray_work import INSTALL, work

if TYPE_CHECKING:
    from perikarya.settings import RayConfig

log = logging.getLogger(__name__)

_WINDOW = 500  # submitted at once where nobody says: enough to make a cluster grow, few enough to wait for quickly
_SILENCE_S = 60.0  # without anything running, after which the log says so


def run_on_ray(
    jobs: Sequence[Job],
    *,
    crew: Crew,
    settings: RayConfig,
    listener: Listener,
    n_at_once: int | None,
    threads: int,
    processes: int = 1,
) -> dict[str, str]:
    """Run jobs on a Ray cluster until each has ended.

    Parameters
    ----------
    jobs
        In the order they should be taken.
    crew
        Its module is imported on the machines of the cluster, and its ``open_worker`` called once per process.
    settings
        Which cluster, GPUs of a job, retries of a job whose process or machine died. A job that fails by itself is
        not tried again.
    listener
        Called with every event, in this thread. The message of ``started`` says where the job is done.
    n_at_once
        Jobs submitted at once; None: as many as the cluster takes.
    threads
        CPUs of each process of a job.
    processes
        Of a job; each takes a GPU where there are any and the settings say nothing else.

    Returns
    -------
    Job id -> why it failed, for the jobs that did.

    Raises
    ------
    ConfigError
        If Ray is not installed, or no machine of the cluster is as large as a job asks for.
    RunError
        If the cluster cannot be reached, or one of its machines lacks the folders of the run or the package.
    """
    with connected(settings) as ray:
        remote = ray.remote(**remote_options(ray, settings, threads=threads, processes=processes))(work)
        folders = [word for word in crew.arguments if Path(word).is_absolute() and Path(word).exists()]
        words = {"module": crew.module, "arguments": crew.arguments, "folders": folders, "run": time.time_ns()}
        text = json.dumps(words)

        def submit(job: Job) -> Any:
            return remote.options(name=job.id).remote(text, json.dumps({"id": job.id, **job.payload}))

        driver = _Driver(ray, submit, listener, board=Board(jobs), retries=settings.retries)
        return driver.run(n_at_once or _WINDOW)


@dataclass
class _Driver:
    ray: Any
    submit: Callable[[Job], Any]
    listener: Listener
    board: Board
    retries: int
    live: dict[Any, Job] = field(default_factory=dict)  # by the generator of its notes
    running: set[str] = field(default_factory=set)
    deaths: dict[str, int] = field(default_factory=dict)

    def run(self, n_at_once: int) -> dict[str, str]:
        try:
            while self._submit(n_at_once):
                for notes in self._with_news():
                    self._hear(notes)
            self._tell_failed(self.board.note_unreachable())
        finally:
            self._cancel()
        return dict(self.board.failed)

    def _submit(self, n_at_once: int) -> bool:
        """Fill up what is submitted; return whether anything is."""
        while len(self.live) < n_at_once and (job := self.board.take()) is not None:
            self.live[self.submit(job)] = job
        return bool(self.live)

    def _with_news(self) -> list[Any]:
        ready, rest = self.ray.wait(list(self.live), num_returns=1, timeout=_SILENCE_S, fetch_local=False)
        if not ready and not self.running:
            log.warning("%d jobs wait for a place in the Ray cluster ('ray status' there says why)", len(self.live))
        if ready and rest:
            ready += self.ray.wait(rest, num_returns=len(rest), timeout=0, fetch_local=False)[0]
        return list(ready)

    def _hear(self, notes: Any) -> None:
        job = self.live[notes]
        try:
            note = json.loads(self.ray.get(next(notes)))
        except self.ray.exceptions.RayError as error:
            self._forget(notes)
            self._bury(job, error)
            return
        kind, message = note["kind"], note.get("message", "")
        if kind == "unfit":
            raise RunError(message)
        if kind == "started":
            self.running.add(job.id)
        elif kind != "progress":
            self._forget(notes)
        if kind == "failed":
            self._tell_failed(self.board.note_failed(job.id, message))
            return
        if kind == "done":
            self.board.note_done(job.id)
        self.listener(Event(kind, job.id, note.get("done", 0), note.get("total", 0), message))

    def _forget(self, notes: Any) -> None:
        self.running.discard(self.live.pop(notes).id)

    def _bury(self, job: Job, error: Exception) -> None:
        """Take a job whose process or machine is gone up again, or give it up."""
        exceptions = self.ray.exceptions
        if isinstance(error, (exceptions.RayTaskError, exceptions.RuntimeEnvSetupError)):
            raise RunError(
                f"A machine of the Ray cluster cannot run Perikarya: {str(error).strip().splitlines()[-1]}\n"
                f"Fix: {INSTALL}."
            ) from error
        if isinstance(error, (exceptions.TaskCancelledError, exceptions.TaskUnschedulableError)):
            why = f"was cancelled in the cluster, or cannot be placed there: {first_line(error)}"
            self._tell_failed(self.board.note_failed(job.id, why))
            return
        why = _describe_end(exceptions, error)
        deaths = self.deaths[job.id] = self.deaths.get(job.id, 0) + 1
        if deaths > self.retries:
            message = f"its worker {why}, {deaths} times; see the log of the task and the memory of the machines"
            self._tell_failed(self.board.note_failed(job.id, message))
        else:
            self.board.put_back(job)
            self.listener(Event("died", job.id, message=why))

    def _tell_failed(self, fallen: list[tuple[str, str]]) -> None:
        for job_id, why in fallen:
            self.listener(Event("failed", job_id, message=why))

    def _cancel(self) -> None:
        """Ask what still runs to save its state; what does not end by then is killed."""
        if self.running:
            log.warning(
                "Stopping: %d running job(s) save their state, in %.0f s at most", len(self.running), STOP_WAIT_S
            )
        for notes in self.live:
            self.ray.cancel(notes)
        end = time.monotonic() + STOP_WAIT_S
        while self.live and (left_s := end - time.monotonic()) > 0:
            for notes in self.ray.wait(list(self.live), num_returns=1, timeout=left_s, fetch_local=False)[0]:
                try:
                    self.ray.get(next(notes))
                except (self.ray.exceptions.RayError, StopIteration):
                    self._forget(notes)
        for notes in self.live:
            self.ray.cancel(notes, force=True)


def _describe_end(exceptions: Any, error: Exception) -> str:
    if isinstance(error, exceptions.OutOfMemoryError):
        return "was stopped by Ray, for its machine ran out of memory"
    if isinstance(error, exceptions.NodeDiedError):
        return "was lost with its machine"
    if isinstance(error, exceptions.WorkerCrashedError):
        return "was killed or crashed (often: out of memory)"
    return f"was lost ({type(error).__name__}: {first_line(error)})"
