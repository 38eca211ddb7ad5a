"""Slurm's own programs, called without a shell; what they print becomes rows, what they refuse a sentence."""

from __future__ import annotations

import logging
import os
import re
import shutil
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from perikarya.errors import RunError
from perikarya.launch.slurm.refusals import explain

log = logging.getLogger(__name__)

_TIMEOUT_S = 300.0  # sbatch alone tries for two minutes when the cluster's list of jobs is full
_PAUSES_S = (1.0, 3.0, 10.0)  # between tries when the controller does not answer
_NO_ANSWER = re.compile(r"socket timed out|unable to contact|connection refused|zero bytes were transmitted", re.I)

# outlive the call, or belong to a job from within which one submits; they would override what a script says
_FOREIGN = re.compile(r"^(SBATCH_|SLURM_(?!CONF$|CLUSTERS$))")

ACTIVE = frozenset(
    {
        "PENDING", "RUNNING", "SUSPENDED", "COMPLETING", "CONFIGURING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD",
        "RESIZING", "SIGNALING", "SPECIAL_EXIT", "STAGE_OUT", "STOPPED", "RESV_DEL_HOLD",
    }
)  # fmt: skip
QUEUE_COLUMNS = {
    "ArrayJobID": 24, "ArrayTaskID": 24, "State": 24, "RestartCnt": 12, "exit_code": 12, "NodeList": 64,
    "StartTime": 24, "Reason": 64, "Name": 160,
}  # fmt: skip
_ACCOUNT_COLUMNS = (
    "JobID",
    "State",
    "ExitCode",
    "NodeList",
    "Start",
    "End",
    "MaxRSS",
    "ReqMem",
    "TimelimitRaw",
    "Reason",
)
_NEVER = ("", "None", "Unknown")  # how sacct writes a time that has not come


@dataclass(frozen=True)
class QueueRow:
    """One element as the controller knows it, until some minutes after its end; ``status`` is that of ``wait``."""

    array_id: str
    index: int | None
    state: str
    n_restarts: int
    status: int
    node: str
    start: str
    reason: str
    name: str

    @property
    def cluster_id(self) -> str:
        """As Slurm's programs take it."""
        return self.array_id if self.index is None else f"{self.array_id}_{self.index}"

    @property
    def is_live(self) -> bool:
        """Whether it may still run."""
        return self.state in ACTIVE


@dataclass(frozen=True)
class AccountRow:
    """One start of an element, or its wait or end without one, as the accounts have it.

    ``state`` may go on, such as ``CANCELLED by 1000``; ``exit_code`` is ``code:signal``; ``max_rss`` is the most
    memory its processes were seen to use, with a unit as Slurm writes it.
    """

    state: str
    exit_code: str
    node: str
    start: str
    end: str
    max_rss: str
    asked_mem: str
    limit_min: str
    reason: str

    @property
    def has_started(self) -> bool:
        """Whether it ever came to a node."""
        return self.start not in _NEVER and self.node != "None assigned"

    @property
    def has_ended(self) -> bool:
        """Whether this start is over."""
        return self.end not in _NEVER


def require_slurm() -> None:
    """Raise ``RunError`` where Slurm's programs are not at hand."""
    if shutil.which("sbatch") is None:
        raise RunError(
            "There is no 'sbatch' on this machine, so nothing can be submitted to Slurm.\n"
            "Fix: run this on a login node of the cluster (perhaps after 'module load slurm'), or use --engine local."
        )


def sbatch(script: Path, *, dependency: str, lock_fd: int) -> str:
    """Submit a script; return the id the cluster gave it.

    ``lock_fd`` is inherited: whoever waits for that lock also waits for an sbatch whose caller was killed.
    """
    words = ["sbatch", "--parsable", *([f"--dependency={dependency}"] if dependency else []), str(script)]
    return call(words, keep_fds=(lock_fd,)).strip().split(";")[0]


def scancel(cluster_ids: Sequence[str]) -> None:
    """Cancel jobs; those that have ended meanwhile are no error to Slurm."""
    if cluster_ids:
        call(["scancel", *cluster_ids])


def queue(names: Sequence[str]) -> list[QueueRow]:
    """List the elements of all jobs so named that the controller still knows, ended ones too, by their ids."""
    if not names:
        return []
    columns = ",".join(f"{name}:{width}" for name, width in QUEUE_COLUMNS.items())
    shown = ["--array", "--states=all", "--noheader", f"--Format={columns}", f"--name={','.join(names)}"]
    return sorted(parse_queue(call(["squeue", *shown])), key=lambda row: (int(row.array_id), row.index or 0))


def parse_queue(text: str) -> list[QueueRow]:
    """Read what ``queue`` asks for: columns of fixed width."""
    rows = []
    for line in text.splitlines():
        cells, at = [], 0
        for width in QUEUE_COLUMNS.values():
            cells.append(line[at : at + width].strip())
            at += width
        array_id, index, state, restarts, status, *others = cells
        number = int(index) if index.isdigit() else None
        rows.append(QueueRow(array_id, number, state, _whole(restarts), _whole(status), *others))
    return rows


def accounts(cluster_ids: Sequence[str], *, since: str) -> dict[str, list[AccountRow]]:
    """List what the accounts know of jobs: id of the element -> its starts, oldest first.

    Nothing where the cluster keeps no accounts or they do not answer; ``since`` is a date they need to look back to.
    """
    if not cluster_ids or shutil.which("sacct") is None:
        return {}
    columns = f"--format={','.join(_ACCOUNT_COLUMNS)}"
    asked = ["--noheader", "--parsable2", "--duplicates", f"--starttime={since}", columns]
    try:
        text = call(["sacct", *asked, f"--jobs={','.join(cluster_ids)}"])
    except RunError as error:
        log.log(logging.DEBUG if "disabled" in str(error) else logging.WARNING, "%s", error)
        return {}
    return parse_accounts(text)


def parse_accounts(text: str) -> dict[str, list[AccountRow]]:
    """Read what ``accounts`` asks for; the memory of a start is that of its largest step, which follow it."""
    found: dict[str, list[AccountRow]] = {}
    last: AccountRow | None = None
    for line in text.splitlines():
        job, *cells = line.split("|")
        job, _, step = job.partition(".")
        row = AccountRow(*cells)
        if not step:
            last = row
            for one in _elements(job):
                found.setdefault(one, []).append(row)
        elif last is not None and memory_mib(row.max_rss) > memory_mib(last.max_rss):
            last = replace(last, max_rss=row.max_rss)
            found[job][-1] = last
    return found


def _elements(job: str) -> list[str]:
    """Spell out the elements that wait together: ``7_[0-2,5%1]`` -> 7_0, 7_1, 7_2, 7_5."""
    match = re.fullmatch(r"(\d+)_\[([\d,-]+)(?:%\d+)?\]", job)
    if match is None:
        return [job]
    ranges = [part.partition("-") for part in match[2].split(",")]
    return [f"{match[1]}_{i}" for low, _, high in ranges for i in range(int(low), int(high or low) + 1)]


def ids_by_name(names: Sequence[str], *, since: str) -> dict[str, str]:
    """Look for jobs by their names, in the queue and in the accounts; name -> id."""
    found = {row.name: row.array_id for row in queue(names)}
    missing = [name for name in names if name not in found]
    if missing and shutil.which("sacct") is not None:
        shown = ["--allocations", "--noheader", "--parsable2", f"--starttime={since}", "--format=JobID,JobName"]
        for line in call(["sacct", *shown, f"--name={','.join(missing)}"]).splitlines():
            job, name = line.split("|", 1)
            found[name] = job.partition("_")[0]
    return found


def memory_mib(text: str) -> float:
    """Read an amount of memory as Slurm writes it (``320608K``, ``1.5G``, ``500Mn``), in MiB; 0 for none."""
    match = re.match(r"([\d.]+)([KMGT]?)", text)
    if match is None:
        return 0.0
    return float(match[1]) * {"K": 1 / 1024, "": 1.0, "M": 1.0, "G": 1024.0, "T": 1024.0**2}[match[2]]


def call(words: Sequence[str], *, keep_fds: Sequence[int] = ()) -> str:
    """Run one of Slurm's programs, again where the controller does not answer; return what it printed.

    Raises
    ------
    RunError
        If it is absent, hangs, does not answer or refuses.
    """
    for pause in (*_PAUSES_S, None):
        try:
            done = subprocess.run(  # noqa: S603 - Slurm's programs by name, no shell
                list(words),
                capture_output=True,
                text=True,
                timeout=_TIMEOUT_S,
                pass_fds=keep_fds,
                env=_environment(),
                check=False,
            )
        except FileNotFoundError:
            raise RunError(f"There is no '{words[0]}' on this machine, which belongs to Slurm.") from None
        except subprocess.TimeoutExpired:
            raise RunError(f"'{words[0]}' did not answer within {_TIMEOUT_S:.0f} s.\nFix: try again later.") from None
        if done.returncode == 0:
            return done.stdout
        if pause is None or not _NO_ANSWER.search(done.stderr):
            break
        log.warning("Slurm's controller does not answer; trying again in %.0f s", pause)
        time.sleep(pause)
    raise RunError(explain(words[0], done.stderr.strip()))


def _environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not _FOREIGN.match(name)}
    return {**kept, "SLURM_TIME_FORMAT": "standard"}


def _whole(text: str) -> int:
    return int(text) if text.isdigit() else 0
