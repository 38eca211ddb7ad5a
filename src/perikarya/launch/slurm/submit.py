"""Submit jobs to Slurm and be done: the command ends, the cluster works on.

Each script has a name that nobody else uses, and is on record under it before sbatch is called. A command that is
killed in between leaves a record without the cluster's id; the next one asks the cluster for that name. So nothing is
lost and nothing is submitted twice.
"""

from __future__ import annotations

import re
import secrets
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from perikarya.errors import RunError
from perikarya.launch.jobs import Crew, Job
from perikarya.launch.slurm import client
from perikarya.launch.slurm.arrays import Array, arrange
from perikarya.launch.slurm.limits import ask_limits, check_number, check_time
from perikarya.launch.slurm.record import (
    FINALE,
    SubmissionRecord,
    SubmittedScript,
    job_ids,
    read_submissions,
    slurm_folder,
    submission_folder,
    write_jobs,
    write_submissions,
)
from perikarya.launch.slurm.scripts import array_script, finale_script
from perikarya.runs import lock_run, now, write_text
from perikarya.settings import LaunchConfig

_MAX_NEEDED_ELEMENTS = 50  # of one array, named singly in a dependency; above, the whole array is waited for


@dataclass(frozen=True)
class Submission:
    """What was submitted or, with ``dry_run``, would be.

    ``n_jobs`` jobs are in the new ``scripts``, whose contents are ``texts`` and whose ids on the cluster are
    ``job_ids``; ``n_live`` others are in the queue already by an earlier command.
    """

    scripts: tuple[Path, ...]
    texts: tuple[str, ...]
    job_ids: tuple[str, ...]
    n_jobs: int
    n_live: int


@dataclass(frozen=True)
class _Batch:
    """What one command submits: ``texts`` by label in the order of submission; ``live`` is job id -> its element."""

    folder: Path
    arrays: list[Array]
    texts: dict[str, str]
    record: SubmissionRecord
    live: dict[str, str]
    throttled: bool

    @property
    def own(self) -> Path:
        return submission_folder(self.folder, self.record.number)

    def describe(self, cluster_ids: Sequence[str], n_asked: int) -> Submission:
        scripts = tuple(self.own / f"{label}.sh" for label in self.texts)
        n_jobs = sum(len(array.jobs) for array in self.arrays)
        return Submission(scripts, tuple(self.texts.values()), tuple(cluster_ids), n_jobs, n_asked - n_jobs)


def submit_jobs(
    folder: Path,
    *,
    name: str,
    jobs: Sequence[Job],
    crew: Crew,
    finale: Sequence[str],
    launch: LaunchConfig,
    dry_run: bool = False,
) -> Submission:
    """Submit jobs as Slurm arrays, and something to be done once at the end.

    Jobs that are still in the queue by an earlier command for the same folder are not submitted again. When the
    command is killed half-way or the cluster refuses some of it, the same command submits what is missing.

    Parameters
    ----------
    folder
        Where the work belongs, seen by the nodes under the same path; ``folder/slurm`` gets scripts, logs and record.
    name
        Shown in the queue.
    jobs
        What is to be done; those with needs start when what they need has ended well.
    crew
        How a worker is started.
    finale
        Words after the interpreter, run when all has ended, well or not; none: nothing.
    launch
        How many at once and what each asks for.
    dry_run
        Submit and write nothing; the texts are what would be submitted.

    Raises
    ------
    RunError
        If Slurm is not there, does not answer or refuses.
    """
    folder = folder.resolve()
    if dry_run:
        return _plan(folder, name=name, jobs=jobs, crew=crew, finale=finale, launch=launch).describe((), len(jobs))
    client.require_slurm()
    check_time(launch.slurm)
    with lock_run(slurm_folder(folder)) as lock:
        _settle(folder)
        batch = _plan(folder, name=name, jobs=jobs, crew=crew, finale=finale, launch=launch)
        cluster_ids = _send(batch, lock_fd=lock.fileno()) if batch.texts else []
        return batch.describe(cluster_ids, len(jobs))


def _settle(folder: Path) -> None:
    """Ask the cluster for scripts on record without an id: a command was killed before or after it called sbatch."""
    submissions = read_submissions(folder)
    open_names = [script.job_name for one in submissions for script in one.scripts if script.cluster_id is None]
    if not open_names:
        return
    ids = client.ids_by_name(open_names, since=submissions[0].day_before)
    settled = []
    for one in submissions:
        known = (replace(s, cluster_id=s.cluster_id or ids.get(s.job_name)) for s in one.scripts)
        settled.append(replace(one, scripts=tuple(script for script in known if script.cluster_id)))
    write_submissions(folder, settled)


def _plan(
    folder: Path, *, name: str, jobs: Sequence[Job], crew: Crew, finale: Sequence[str], launch: LaunchConfig
) -> _Batch:
    submissions = read_submissions(folder)
    live, finale_waits = _live(folder, submissions)
    limits = ask_limits()
    arrays = arrange([job for job in jobs if job.id not in live], launch, max_elements=limits.array_elements)
    check_number(sum(array.n_elements for array in arrays), limits)
    number = 1 + max((one.number for one in submissions), default=0)
    own, token = submission_folder(folder, number), secrets.token_hex(4)

    def unique(label: str) -> str:
        return f"{re.sub(r'[^A-Za-z0-9._-]+', '-', name)[:60]}-{label}-{token}"

    texts = {
        a.label: array_script(a, job_name=unique(a.label), folder=own, crew=crew, launch=launch, python=sys.executable)
        for a in arrays
    }
    scripts = [SubmittedScript(a.label, unique(a.label), len(a.jobs), a.per_element) for a in arrays]
    if finale and (arrays or not finale_waits):
        texts[FINALE] = finale_script(finale, job_name=unique(FINALE), folder=own, launch=launch, python=sys.executable)
        scripts.append(SubmittedScript(FINALE, unique(FINALE), 0, 1))
    record = SubmissionRecord(number, now(), launch.slurm.signal_s, tuple(scripts))
    return _Batch(folder, arrays, texts, record, live, throttled=launch.jobs is not None)


def _live(folder: Path, submissions: Sequence[SubmissionRecord]) -> tuple[dict[str, str], bool]:
    """Return job id -> its element, of jobs still in the queue, and whether the newest finale still is there."""
    rows = client.queue([script.job_name for one in submissions for script in one.scripts])
    # by name, not by id: somebody may have submitted a script once more by hand
    places = {(row.name, row.index): row.cluster_id for row in rows if row.is_live}
    found: dict[str, str] = {}
    finale_waits = False
    for one in submissions:
        finale_waits = False
        for script in one.scripts:
            finale_waits = finale_waits or (script.label == FINALE and (script.job_name, None) in places)
            for i, job in enumerate(job_ids(folder, one.number, script)):
                if place := places.get((script.job_name, i // script.per_element)):
                    found[job] = place
    return found, finale_waits


def _send(batch: _Batch, *, lock_fd: int) -> list[str]:
    """Write the scripts, call sbatch for each and keep record; return the cluster's ids."""
    earlier = read_submissions(batch.folder)
    _write_scripts(batch)
    write_submissions(batch.folder, [*earlier, batch.record])
    places, ids = dict(batch.live), dict[str, str]()
    arrays = {array.label: array for array in batch.arrays}
    for label in batch.texts:
        array = arrays.get(label)
        dependency = _all_ended(places) if array is None else _dependency(array, places, ids, batch)
        try:
            ids[label] = client.sbatch(batch.own / f"{label}.sh", dependency=dependency, lock_fd=lock_fd)
        except RunError as error:
            raise _give_up(batch, earlier, ids, error) from error
        write_submissions(batch.folder, [*earlier, _with_ids(batch.record, ids)])
        if array is not None:
            places |= {job.id: f"{ids[label]}_{i // array.per_element}" for i, job in enumerate(array.jobs)}
    if FINALE in ids:  # it waits for what an earlier one waits for, too
        _cancel_finales(earlier)
    return list(ids.values())


def _write_scripts(batch: _Batch) -> None:
    shutil.rmtree(batch.own, ignore_errors=True)  # of a command that was killed before it had a record
    (batch.own / "log").mkdir(parents=True)
    for array in batch.arrays:
        write_jobs(batch.own / f"{array.label}.jobs.jsonl", array.jobs)
    for label, text in batch.texts.items():
        write_text(batch.own / f"{label}.sh", text)


def _dependency(array: Array, places: dict[str, str], ids: dict[str, str], batch: _Batch) -> str:
    """Spell out what an array waits for, as sbatch takes it."""
    by_array: dict[str, list[str]] = {}
    for place in sorted({places[job] for job in array.needs if job in places}):
        by_array.setdefault(place.partition("_")[0], []).append(place)
    words = [f"afterok:{':'.join(p if len(p) <= _MAX_NEEDED_ELEMENTS else [a])}" for a, p in by_array.items()]
    follows = [ids[label] for label in array.follows]
    if batch.throttled and not follows:
        follows = _array_ids(batch.live)
    return ",".join([*words, *([f"afterany:{':'.join(follows)}"] if follows else [])])


def _all_ended(places: dict[str, str]) -> str:
    ids = _array_ids(places)
    return f"afterany:{':'.join(ids)}" if ids else ""


def _array_ids(places: dict[str, str]) -> list[str]:
    return sorted({place.partition("_")[0] for place in places.values()}, key=int)


def _give_up(batch: _Batch, earlier: Sequence[SubmissionRecord], ids: dict[str, str], error: RunError) -> RunError:
    """Leave nothing behind when nothing was submitted, else what the same command goes on from."""
    if not ids:
        write_submissions(batch.folder, earlier)
        shutil.rmtree(batch.own)
        return RunError(f"Nothing was submitted. {error}")
    n_sent = sum(len(array.jobs) for array in batch.arrays if array.label in ids)
    n_jobs = sum(len(array.jobs) for array in batch.arrays)
    return RunError(
        f"{n_sent} of {n_jobs} jobs were submitted and will run; the same command submits the rest. {error}"
    )


def _with_ids(record: SubmissionRecord, ids: dict[str, str]) -> SubmissionRecord:
    return replace(record, scripts=tuple(replace(s, cluster_id=ids.get(s.label)) for s in record.scripts))


def _cancel_finales(submissions: Sequence[SubmissionRecord]) -> None:
    finales = [script for one in submissions for script in one.scripts if script.label == FINALE]
    rows = client.queue([script.job_name for script in finales])
    client.scancel([row.cluster_id for row in rows if row.state == "PENDING"])
