"""How far the jobs of a run are, and how long the rest of them takes, judged by those that have ended."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from perikarya.launch.jobs import Event, Job

Kind = tuple[str, str]  # jobs of one kind take about the same time


@dataclass
class RunningJob:
    """A job that is being done now, by whom, since when and how far."""

    id: str
    kind: Kind
    where: str
    started_s: float
    done: int = 0
    total: int = 0
    first_told: tuple[float, float] | None = None  # time and share of the first progress: it may go on from a state

    @property
    def share(self) -> float:
        """How much of it is done, from 0 to 1."""
        return self.done / self.total if self.total else 0.0


class Pace:
    """Follows the events of a run; what it costs does not grow with the number of jobs.

    Parameters
    ----------
    jobs
        All jobs of the run.
    clock
        Seconds that only grow.
    """

    def __init__(self, jobs: Iterable[Job], *, clock: Callable[[], float] = time.monotonic) -> None:
        self._kinds = {job.id: _kind(job) for job in jobs}
        self._clock = clock
        self._waiting = Counter(self._kinds.values())
        self._n_took: Counter[Kind] = Counter()
        self._sum_took_s: dict[Kind, float] = {}
        self._n_at_once = 1
        self.began_s = clock()
        self.running: dict[str, RunningJob] = {}
        self.n_jobs = len(self._kinds)
        self.n_done = self.n_failed = 0

    @property
    def n_ended(self) -> int:
        """How many jobs ended, well or not."""
        return self.n_done + self.n_failed

    @property
    def n_waiting(self) -> int:
        """How many jobs nobody is doing yet."""
        return self.n_jobs - self.n_ended - len(self.running)

    def note(self, event: Event) -> float | None:
        """Take in an event; return how long the job took, in seconds, where it ended well."""
        now_s = self._clock()
        job = self.running.get(event.job_id)
        if event.kind == "started":
            self._start(event, now_s)
        elif event.kind == "progress":
            if job is not None:
                job.done, job.total = event.done, event.total
                job.first_told = job.first_told or (now_s, job.share)
        else:
            return self._end(event, job, now_s)
        return None

    def _start(self, event: Event, now_s: float) -> None:
        kind = self._kinds[event.job_id]
        self._waiting[kind] -= 1
        self.running[event.job_id] = RunningJob(event.job_id, kind, event.message, now_s)
        self._n_at_once = max(self._n_at_once, len(self.running))

    def _end(self, event: Event, job: RunningJob | None, now_s: float) -> float | None:
        kind = self._kinds[event.job_id]
        if self.running.pop(event.job_id, None) is None:
            self._waiting[kind] -= 1  # failed before it was started, for what it needs failed
        if event.kind == "died":
            self._waiting[kind] += 1
            self._n_at_once = max(1, len(self.running))  # fewer may work from now on
            return None
        if event.kind == "failed":
            self.n_failed += 1
            return None
        self.n_done += 1
        took_s = now_s - (job.started_s if job else now_s)
        self._n_took[kind] += 1
        self._sum_took_s[kind] = self._sum_took_s.get(kind, 0.0) + took_s
        return took_s

    def left_of(self, job: RunningJob) -> float | None:
        """Estimate the seconds until a running job ends; None while nothing tells."""
        mean_s = self._mean(job.kind)
        elapsed_s = self._clock() - job.started_s
        if mean_s is not None and elapsed_s < mean_s:
            return mean_s - elapsed_s  # trainings end early as a rule, which their progress cannot know
        return self._left_by_progress(job)

    def left(self) -> float | None:
        """Estimate the seconds until all jobs have ended; None while nothing tells."""
        running = list(self.running.values())
        expected_s = {
            kind: _nan(self._expected(kind, running))
            for kind in {*(k for k, n in self._waiting.items() if n), *(job.kind for job in running)}
        }
        left_s = [self._left_or(job, expected_s[job.kind]) for job in running]
        total_s = sum(n * expected_s[kind] for kind, n in self._waiting.items() if n) + sum(left_s)
        if math.isnan(total_s):
            return None
        return max([total_s / self._n_at_once, *left_s])

    def _left_or(self, job: RunningJob, expected_s: float) -> float:
        left_s = self.left_of(job)
        return max(0.0, expected_s - self.elapsed_of(job)) if left_s is None else left_s

    def elapsed(self) -> float:
        """Return the seconds since the jobs were planned."""
        return self._clock() - self.began_s

    def elapsed_of(self, job: RunningJob) -> float:
        """Return the seconds since a job was started."""
        return self._clock() - job.started_s

    def _mean(self, kind: Kind) -> float | None:
        n = self._n_took[kind]
        return self._sum_took_s[kind] / n if n else None

    def _expected(self, kind: Kind, running: list[RunningJob]) -> float | None:
        """Return what a job of a kind takes: as those before it, as one that runs, or as jobs of other kinds."""
        mean_s = self._mean(kind)
        if mean_s is not None:
            return mean_s
        for job in running:
            left_s = self._left_by_progress(job) if job.kind == kind else None
            if left_s is not None:
                return self.elapsed_of(job) + left_s
        return sum(self._sum_took_s.values()) / self.n_done if self.n_done else None

    def _left_by_progress(self, job: RunningJob) -> float | None:
        if job.first_told is None:
            return None
        told_s, told_share = job.first_told
        gained = job.share - told_share
        return (self._clock() - told_s) / gained * (1 - job.share) if gained > 0 else None


def _kind(job: Job) -> Kind:
    return str(job.payload.get("kind", "")), str(job.payload.get("model", ""))


def _nan(seconds: float | None) -> float:
    return math.nan if seconds is None else seconds


def in_words(seconds: float) -> str:
    """Say a rough time, no finer than an estimate deserves: "40 s", "5 min", "3 h", "2 days"."""
    if seconds < 60:
        return f"{max(10, 10 * math.ceil(seconds / 10))} s"
    for unit_s, name, until in ((60, "min", 90), (3600, "h", 48)):
        if seconds / unit_s < until:
            return f"{max(1, round(seconds / unit_s))} {name}"
    return f"{round(seconds / 86400)} days"


def as_clock(seconds: float | None) -> str:
    """Write a time as hours, minutes and seconds; "-" where it is not known."""
    if seconds is None:
        return "-"
    minutes, whole_s = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{whole_s:02}"
