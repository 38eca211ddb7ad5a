"""The jobs of a run while they are done: which can be taken, which wait for others, which ended and how."""

from __future__ import annotations

import heapq
from collections.abc import Iterable

from perikarya.launch.jobs import Job


class Board:
    """Jobs in the order they should be taken; every step costs the same for ten jobs and for a million.

    Parameters
    ----------
    jobs
        Their ids are unique. A job whose needs are never done is never given out.
    """

    def __init__(self, jobs: Iterable[Job]) -> None:
        self._jobs = {job.id: job for job in jobs}
        self._rank = {job_id: rank for rank, job_id in enumerate(self._jobs)}
        self._missing = {job.id: set(job.needs) for job in self._jobs.values() if job.needs}
        self._needed_by: dict[str, list[str]] = {}
        for job_id, needs in self._missing.items():
            for need in needs:
                self._needed_by.setdefault(need, []).append(job_id)
        self._ready = [(rank, job_id) for job_id, rank in self._rank.items() if job_id not in self._missing]
        self.failed: dict[str, str] = {}

    @property
    def has_ready(self) -> bool:
        """Whether a job can be taken now."""
        return bool(self._ready)

    @property
    def n_waiting(self) -> int:
        """How many jobs nobody has taken yet, those included that wait for others."""
        return len(self._ready) + len(self._missing)

    def take(self) -> Job | None:
        """Take the first job whose needs are done; None where there is none just now."""
        if not self._ready:
            return None
        return self._jobs[heapq.heappop(self._ready)[1]]

    def put_back(self, job: Job) -> None:
        """Put a job that was taken back in its place."""
        heapq.heappush(self._ready, (self._rank[job.id], job.id))

    def note_done(self, job_id: str) -> None:
        """Note that a job ended well; what waited for nothing else can be taken from now on."""
        for waiting in self._needed_by.pop(job_id, []):
            missing = self._missing.get(waiting)
            if missing is None:
                continue  # it failed, for another of its needs did
            missing.discard(job_id)
            if not missing:
                del self._missing[waiting]
                self.put_back(self._jobs[waiting])

    def note_failed(self, job_id: str, why: str) -> list[tuple[str, str]]:
        """Note that a job failed; return it and all that cannot be done now, each with the reason."""
        fallen = [(job_id, why)]
        for cause, _ in fallen:  # grows while it is walked
            waiting = [w for w in self._needed_by.pop(cause, []) if self._missing.pop(w, None) is not None]
            fallen.extend((w, f"needs '{cause}', which failed") for w in waiting)
        self.failed.update(fallen)
        return fallen

    def note_unreachable(self) -> list[tuple[str, str]]:
        """Note that whatever still waits can never be done (a circle of needs); return it with the reasons."""
        fallen = [(job_id, f"needs {', '.join(sorted(m))}, which never ended") for job_id, m in self._missing.items()]
        self._missing.clear()
        self.failed.update(fallen)
        return fallen
