"""What was submitted: FOLDER/slurm/submissions.json, written whole before and after every call of sbatch."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from pathlib import Path

from perikarya.errors import RunError
from perikarya.launch.jobs import Job
from perikarya.runs import read_json, write_json, write_text

SCHEMA_VERSION = 1
FINALE = "finale"  # label of the script that does none of the jobs but what comes after all


@dataclass(frozen=True)
class SubmittedScript:
    """A script and what became of it; ``job_name`` is unique, so that the cluster can be asked for it.

    ``cluster_id`` is None until sbatch has told it; ``n_jobs`` is 0 for the finale.
    """

    label: str
    job_name: str
    n_jobs: int
    per_element: int
    cluster_id: str | None = None

    @property
    def n_elements(self) -> int:
        """How many elements the array has; 0 for the finale, which is no array."""
        return math.ceil(self.n_jobs / self.per_element)


@dataclass(frozen=True)
class SubmissionRecord:
    """All that one command submitted; ``created`` is its time in UTC, ISO 8601.

    ``signal_s`` is how long before their time limit its elements are told of it.
    """

    number: int
    created: str
    signal_s: int
    scripts: tuple[SubmittedScript, ...]

    @property
    def day_before(self) -> str:
        """A date before all that concerns it, whatever the zone of the cluster's clock."""
        return (datetime.fromisoformat(self.created) - timedelta(days=1)).date().isoformat()


def slurm_folder(folder: Path) -> Path:
    """Name the folder of all that concerns Slurm."""
    return folder / "slurm"


def submission_folder(folder: Path, number: int) -> Path:
    """Name the folder of one submission's scripts, jobs and logs."""
    return slurm_folder(folder) / str(number)


def log_path(folder: Path, number: int, label: str, index: int | None) -> Path:
    """Name the log of an element, or of the finale."""
    return submission_folder(folder, number) / "log" / (f"{label}.log" if index is None else f"{label}-{index}.log")


def read_submissions(folder: Path) -> list[SubmissionRecord]:
    """Read what was submitted for a folder, oldest first; nothing when nothing was.

    Raises
    ------
    RunError
        If the record is damaged or was written by a newer version.
    """
    path = slurm_folder(folder) / "submissions.json"
    if not path.exists():
        return []
    found = read_json(path, what="what was submitted to Slurm")
    if found.get("schema_version") != SCHEMA_VERSION:
        raise RunError(
            f"{path} has version {found.get('schema_version')} but this perikarya reads version {SCHEMA_VERSION}.\n"
            "Fix: use the perikarya that submitted the jobs."
        )
    return [
        SubmissionRecord(**(one | {"scripts": tuple(SubmittedScript(**script) for script in one["scripts"])}))
        for one in found["submissions"]
    ]


def write_submissions(folder: Path, submissions: Sequence[SubmissionRecord]) -> None:
    """Write the whole record; no file where there is nothing to record."""
    path = slurm_folder(folder) / "submissions.json"
    if not submissions:
        path.unlink(missing_ok=True)
        return
    content = {"schema_version": SCHEMA_VERSION, "submissions": [asdict(one) for one in submissions]}
    write_json(path, content)


def write_jobs(path: Path, jobs: Sequence[Job]) -> None:
    """Write jobs as workers take them: a line of JSON each."""
    write_text(path, "".join(json.dumps({"id": job.id, **job.payload}) + "\n" for job in jobs))


def job_ids(folder: Path, number: int, script: SubmittedScript) -> list[str]:
    """Read which jobs a script does, in order."""
    if not script.n_jobs:
        return []
    path = submission_folder(folder, number) / f"{script.label}.jobs.jsonl"
    with path.open(encoding="utf-8") as lines:
        return [json.loads(line)["id"] for line in lines]
