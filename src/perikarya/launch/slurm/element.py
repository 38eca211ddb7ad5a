"""One element of a Slurm array: does its lines of a jobs file, and is requeued before its time is over.

What was measured on Slurm 22.05: SIGUSR1 comes before the time limit (``--signal``), and also with preemption where the
cluster is so configured; then the state is saved and the element asks to be requeued, which does no harm where Slurm
requeues it anyway. SIGTERM alone comes with ``scancel``, preemption and the shutdown of a machine; then the state is
saved and Slurm decides, for a cancelled job that requeued itself could not be stopped by anybody.
"""

from __future__ import annotations

import itertools
import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from perikarya.errors import InterruptedWorkError, RunError
from perikarya.launch.slurm.notices import Notices
from perikarya.launch.worker import Worker, attempt
from perikarya.runs import heard_by, logging_to, read_json, write_json

log = logging.getLogger(__name__)

REQUEUE_ME = 75  # where scontrol is not at hand, such as in a container: whoever started this should ask Slurm
STOPPED = 143  # as a shell names the end by SIGTERM
_DEFAULT_MAX_RESTARTS = 20
_SCONTROL_WAIT_S = 60.0


@dataclass(frozen=True)
class Place:
    """What the environment tells an element of itself; ``name`` is as Slurm's programs take it, empty elsewhere."""

    name: str
    n_restarts: int
    max_restarts: int

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Place:
        """Read what Slurm and the script have set."""
        array, index = environment.get("SLURM_ARRAY_JOB_ID"), environment.get("SLURM_ARRAY_TASK_ID")
        return cls(
            name=f"{array}_{index}" if array and index else environment.get("SLURM_JOB_ID", ""),
            n_restarts=int(environment.get("SLURM_RESTART_COUNT", "0")),
            max_restarts=int(environment.get("PERIKARYA_MAX_RESTARTS", str(_DEFAULT_MAX_RESTARTS))),
        )


def do_listed(worker: Worker, *, jobs_file: Path, first: int, count: int, own_log: Path | None) -> int:
    """Do some jobs of a file one after another, those that are not done yet; return the exit code of the process.

    Parameters
    ----------
    worker
        What does them.
    jobs_file
        One job per line, as JSON.
    first, count
        Which lines, from 0; fewer at the end of the file.
    own_log
        Where Slurm keeps what this process prints; removed when all went well.

    Returns
    -------
    0 when all are done; 1 when one failed; ``STOPPED`` after SIGTERM or once requeued; ``REQUEUE_ME`` where it could
    not ask for that itself.
    """
    place = Place.from_environment(os.environ)
    memory = _Memory(own_log.with_suffix(".restart.json") if own_log else None)
    element = _Element(worker, place, memory)
    with _printed(), element.notices:
        try:
            code = element.run(list(read_jobs(jobs_file, first, count)))
        except RunError as error:
            log.error("%s", error)
            code = 1
    if code == 0:
        memory.forget()
        if own_log is not None:
            own_log.unlink(missing_ok=True)
    return code


def read_jobs(path: Path, first: int, count: int) -> Iterator[dict[str, Any]]:
    """Yield some jobs of a file.

    Raises
    ------
    RunError
        If the file is not there.
    """
    try:
        with path.open(encoding="utf-8") as lines:
            yield from map(json.loads, itertools.islice(lines, first, first + count))
    except FileNotFoundError:
        raise RunError(
            f"{path} is missing, so this job does not know what to do.\n"
            "Fix: submit again with the same command; and let the machines of the cluster see this folder."
        ) from None


def requeue(name: str) -> str | None:
    """Ask Slurm to put a running element back into the queue; return None when it will, else why not."""
    try:
        done = subprocess.run(  # noqa: S603 - Slurm's program by name, no shell
            ["scontrol", "requeue", name],  # noqa: S607 - where it lies differs between clusters
            capture_output=True,
            text=True,
            timeout=_SCONTROL_WAIT_S,
            check=False,
        )
    except FileNotFoundError:
        return "there is no scontrol here, as in most containers"
    except subprocess.TimeoutExpired:
        return f"scontrol did not answer within {_SCONTROL_WAIT_S:.0f} s"
    return None if done.returncode == 0 else done.stderr.strip() or f"scontrol ended with {done.returncode}"


class _Element:
    def __init__(self, worker: Worker, place: Place, memory: _Memory) -> None:
        self.worker, self.place, self.memory = worker, place, memory
        self.notices = Notices(place.name, when_late=self._requeue_late)
        self.job: dict[str, Any] = {}
        self.began = -1

    def run(self, jobs: Iterable[dict[str, Any]]) -> int:
        """Do jobs until none is left or Slurm wants its machine back; return the exit code."""
        failed = 0
        for job in jobs:
            if self.worker.is_done(job):
                log.info("%s is done already", job["id"])
                continue
            self.job, self.began = job, -1
            try:
                failed += self._do() is not None
            except InterruptedWorkError as asked:
                if not self.notices.stop.asked:  # a newer worker has the job, and will have those that follow
                    log.warning("%s: %s", job["id"], asked)
                    return 1
                return self._leave()
        return 1 if failed else 0

    def _do(self) -> str | None:
        self.notices.stop.check()
        hopeless = self._hopeless()
        if hopeless:
            with logging_to(self.worker.log_of(self.job)):
                log.error("%s", hopeless)
            self.memory.forget()
            return hopeless
        log.info("%s is started", self.job["id"])
        why = attempt(self.worker, self.job, self._progress)
        if why is None:
            log.info("%s is done", self.job["id"])
        else:
            log.error("%s failed: %s", self.job["id"], why)
        return why

    def _progress(self, done: int, total: int) -> None:  # noqa: ARG002 - the signature of all progress
        if self.began < 0:
            self.began = done
        self.notices.stop.check()

    def _hopeless(self) -> str | None:
        """Say why a job is not tried once more, where that would only cost time."""
        n, most = self.place.n_restarts, self.place.max_restarts
        if n > most:
            return (
                f"Slurm has restarted this job {n} times; launch.slurm.max_restarts allows {most}.\n"
                "Fix: see why in the logs and in 'perikarya status'; the same command tries it again."
            )
        if self.memory.in_vain(self.job["id"]):
            return (
                "Twice the time limit came before anything of this job could be saved, so it would never end.\n"
                "Fix: raise launch.slurm.time, or launch.slurm.signal_s where one step takes longer than that; "
                "then the same command goes on."
            )
        return None

    def _leave(self) -> int:
        """Make way for Slurm; what is done is saved."""
        with logging_to(self.worker.log_of(self.job)):
            if not self.notices.may_requeue():
                log.info("Slurm ends this job: it is cancelled, preempted, or its machine is shut down")
                return STOPPED
            if self.notices.at_time_limit:
                self.memory.note_stop(self.job["id"], self.began)
            return self._requeue()

    def _requeue(self) -> int:
        why_not = requeue(self.place.name) if self.place.name else "this is no job of Slurm"
        if why_not is None:
            log.info("saved and requeued, to go on from here")
            return STOPPED
        log.warning(
            "Saved, but not requeued by itself: %s. It ends with exit code %d, on which the script of this job may "
            "ask for that; else the same command as before submits it again.",
            why_not,
            REQUEUE_ME,
        )
        return REQUEUE_ME

    def _requeue_late(self) -> None:
        """Ask from another thread, while a step takes so long that the time limit would come first."""
        log.warning("no step has ended since Slurm's warning; requeued without it, to go on from what was saved before")
        if self.notices.at_time_limit:
            self.memory.note_stop(self.job.get("id", ""), self.began)
        if self._requeue() == REQUEUE_ME:
            os._exit(REQUEUE_ME)


class _Memory:
    """What an element keeps for its next start: where the job began that the time limit stopped, and if in vain."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._stop = self._read()

    def in_vain(self, job_id: str) -> bool:
        """Tell whether the last two starts of a job began at the same place and ended at the time limit."""
        return self._stop is not None and self._stop.job == job_id and self._stop.in_vain

    def note_stop(self, job_id: str, began: int) -> None:
        """Take down that the time limit stopped a job, and at which of its steps this start began."""
        before = self._stop
        same = before is not None and before.job == job_id
        stop = _Stop(job_id, began, in_vain=same and before is not None and began <= before.began)
        if self._path is not None:
            write_json(self._path, asdict(stop))

    def forget(self) -> None:
        """Start anew."""
        self._stop = None
        if self._path is not None:
            self._path.unlink(missing_ok=True)

    def _read(self) -> _Stop | None:
        if self._path is None or not self._path.exists():
            return None
        return _Stop(**read_json(self._path, what="where a job of Slurm was stopped"))


@dataclass(frozen=True)
class _Stop:
    job: str
    began: int
    in_vain: bool


def _printed() -> AbstractContextManager[None]:
    """Print what elements say, which is what Slurm's log of them holds."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    return heard_by(handler, logger="perikarya.launch.slurm")
