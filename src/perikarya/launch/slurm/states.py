"""What became of submitted jobs, in plain words: one call of squeue, at most one of sacct, whatever their number."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from perikarya.errors import RunError
from perikarya.launch.slurm import client
from perikarya.launch.slurm.client import AccountRow, QueueRow
from perikarya.launch.slurm.reasons import Cause, why_it_ended, why_it_waits, why_it_was_stopped
from perikarya.launch.slurm.record import SubmissionRecord, SubmittedScript, job_ids, log_path, read_submissions

log = logging.getLogger(__name__)

Kind = Literal["queued", "running", "requeued", "ended", "failed", "unknown"]

_ENDED_WELL = "COMPLETED"
_ON_A_NODE = frozenset({"RUNNING", "COMPLETING", "CONFIGURING", "SUSPENDED", "STAGE_OUT", "STOPPED", "SIGNALING"})


@dataclass(frozen=True)
class JobState:
    """What the cluster says of one job; whether its work is done, only its files say.

    ``node`` is where it runs or ran last; ``n_starts`` counts each start, ``cause`` says why it was last stopped or
    failed, in one word for programs.
    """

    kind: Kind
    sentence: str
    node: str | None
    n_starts: int
    cluster_id: str
    cause: Cause = ""


@dataclass(frozen=True)
class _Element:
    """Where a job was submitted: the newest submission counts."""

    job_name: str
    array_id: str
    index: int
    log: Path
    signal_s: int

    @property
    def key(self) -> tuple[str, int]:
        return self.job_name, self.index

    @property
    def cluster_id(self) -> str:
        return f"{self.array_id}_{self.index}"

    def as_found(self, row: QueueRow | None) -> _Element:
        """Take over the id of a script that somebody submitted once more by hand."""
        return self if row is None or row.array_id == self.array_id else replace(self, array_id=row.array_id)


def job_states(folder: Path) -> dict[str, JobState]:
    """Ask the cluster about all jobs that were submitted for a folder; return job id -> what is known of it."""
    folder = folder.resolve()
    submissions = read_submissions(folder)
    elements = _elements(folder, submissions)
    if not elements:
        return {}
    rows = {(row.name, row.index): row for row in client.queue(_names(submissions))}
    elements = {job: element.as_found(rows.get(element.key)) for job, element in elements.items()}
    open_ids = {element.array_id for element in elements.values() if _needs_accounts(rows.get(element.key))}
    starts = client.accounts(sorted(open_ids, key=int), since=submissions[0].day_before)
    return {
        job: _describe(element, rows.get(element.key), starts.get(element.cluster_id, []))
        for job, element in elements.items()
    }


def live_jobs(folder: Path) -> list[str]:
    """List the cluster's ids of all that may still run for a folder, the finale included."""
    return [row.cluster_id for row in client.queue(_names(read_submissions(folder.resolve()))) if row.is_live]


@dataclass(frozen=True)
class Cluster:
    """What Slurm says of a folder: its jobs by id, and whether any is left, the last one that sums up included.

    ``unasked`` is a sentence where it could not be asked.
    """

    jobs: dict[str, JobState]
    is_busy: bool
    unasked: str = ""


def ask_cluster(folder: Path) -> Cluster:
    """Ask Slurm about the jobs of a folder."""
    try:
        return Cluster(job_states(folder), bool(live_jobs(folder)))
    except RunError as error:
        unasked = f"Slurm cannot be asked from this machine; what follows is read from files alone. {error}"
        return Cluster({}, is_busy=False, unasked=unasked)


def refuse_live_jobs(folder: Path) -> None:
    """Raise ``RunError`` when jobs of a folder are still in the queue of a cluster.

    Where the cluster cannot be asked from this machine nothing is refused: work done twice gives the same files.
    """
    if not read_submissions(folder.resolve()):
        return
    if shutil.which("squeue") is None:
        log.warning("%s was submitted to Slurm, which cannot be asked from here whether jobs are left.", folder)
        return
    live = live_jobs(folder)
    if live:
        some = " ".join(live[:5]) + (" …" if len(live) > 5 else "")
        raise RunError(
            f"{len(live)} job(s) of {folder} are still in the queue of Slurm: {some}\n"
            "They and workers started now would do the same work.\n"
            "Fix: wait for them (perikarya status shows their progress), or cancel them: scancel "
            + " ".join(dict.fromkeys(name.partition("_")[0] for name in live))
        )


def _names(submissions: Sequence[SubmissionRecord]) -> list[str]:
    return [script.job_name for one in submissions for script in one.scripts]


def _elements(folder: Path, submissions: Sequence[SubmissionRecord]) -> dict[str, _Element]:
    found: dict[str, _Element] = {}
    for one in submissions:
        for script in one.scripts:
            if script.cluster_id is not None:
                found |= _elements_of(folder, one, script)
    return found


def _elements_of(folder: Path, one: SubmissionRecord, script: SubmittedScript) -> dict[str, _Element]:
    def element(index: int) -> _Element:
        log = log_path(folder, one.number, script.label, index)
        return _Element(script.job_name, script.cluster_id or "", index, log, one.signal_s)

    elements = [element(index) for index in range(script.n_elements)]
    return {job: elements[i // script.per_element] for i, job in enumerate(job_ids(folder, one.number, script))}


def _needs_accounts(row: QueueRow | None) -> bool:
    """Whether the queue leaves open what became of an element."""
    if row is None:
        return True
    return row.n_restarts > 0 or not (row.is_live or row.state == _ENDED_WELL)


def _describe(element: _Element, row: QueueRow | None, starts: Sequence[AccountRow]) -> JobState:
    """Put together what the queue says, which is newer, and what the accounts say, which is more."""
    past = [start for start in starts if start.has_started]
    if row is not None:
        return _describe_live(element, row, past) if row.is_live else _describe_ended(element, row.state, row, starts)
    if not starts:
        sentence = f"the cluster knows nothing of it any more; see {element.log} where it is there"
        return JobState("unknown", sentence, None, 0, element.cluster_id)
    state = starts[-1].state.split()[0]
    if state in client.ACTIVE:
        sentence = "no longer in the queue, but the accounts do not know its end yet"
        return JobState("unknown", sentence, None, len(past), element.cluster_id)
    return _describe_ended(element, state, None, starts)


def _describe_live(element: _Element, row: QueueRow, past: Sequence[AccountRow]) -> JobState:
    stopped = [start for start in past if start.has_ended]
    cause, why = why_it_was_stopped(stopped[-1], signal_s=element.signal_s) if stopped and row.n_restarts else ("", "")
    n = row.n_restarts
    if row.state in _ON_A_NODE:
        again = f" (start {n + 1}{': before, it ' if why else ''}{why})" if n else ""
        sentence = f"running on {row.node} since {row.start.replace('T', ' ')}{again}"
        return JobState("running", sentence, row.node or None, n + 1, element.cluster_id, cause)
    waits = why_it_waits(row.reason)
    if not n:
        return JobState("queued", waits, None, 0, element.cluster_id)
    times = "once" if n == 1 else f"{n} times"
    sentence = f"requeued {times}{', last as it ' if why else ''}{why}; {waits}"
    return JobState("requeued", sentence, None, n, element.cluster_id, cause)


def _describe_ended(element: _Element, state: str, row: QueueRow | None, starts: Sequence[AccountRow]) -> JobState:
    last = starts[-1] if starts else None
    node = (row.node if row is not None else "") or next((one.node for one in reversed(starts) if one.has_started), "")
    n_starts = max(sum(one.has_started for one in starts), row.n_restarts + bool(row.node) if row is not None else 0)
    if state == _ENDED_WELL:
        again = f", at start {n_starts}" if n_starts > 1 else ""
        return JobState("ended", f"ended on {node}{again}", node or None, n_starts, element.cluster_id)
    cause, why = why_it_ended(state, row, last)
    log = f"; see {element.log}" if cause in ("exit code", "signal") else ""
    return JobState("failed", f"{why}{log}", node or None, n_starts, element.cluster_id, cause)
