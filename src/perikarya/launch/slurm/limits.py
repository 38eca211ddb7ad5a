"""What a cluster takes: asked before anything is submitted, for some of it Slurm would accept and never start."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass

from perikarya.errors import RunError
from perikarya.launch.slurm import client
from perikarya.settings import SlurmConfig


@dataclass(frozen=True)
class Limits:
    """Elements of one array, and jobs of everybody together, where each element counts."""

    array_elements: int = 1001  # Slurm's own defaults
    jobs: int = 10_000


def ask_limits() -> Limits:
    """Ask the controller; Slurm's defaults on a machine without Slurm."""
    if shutil.which("scontrol") is None:
        return Limits()
    config = client.call(["scontrol", "show", "config"])

    def smallest(default: int, *patterns: str) -> int:
        found = [re.search(pattern, config, re.MULTILINE) for pattern in patterns]
        return min((int(one[1]) for one in found if one), default=default)

    return Limits(
        array_elements=max(1, smallest(1001, r"^MaxArraySize\s*=\s*(\d+)", r"max_array_tasks=(\d+)")),
        jobs=smallest(10_000, r"^MaxJobCount\s*=\s*(\d+)"),
    )


def check_number(n_elements: int, limits: Limits) -> None:
    """Raise ``RunError`` where the cluster's list of jobs could never hold so many."""
    if n_elements >= limits.jobs:
        raise RunError(
            f"{n_elements} jobs are more than this cluster's queue holds for everybody together "
            f"(MaxJobCount: {limits.jobs}).\n"
            "Fix: let each job do several tasks with launch.slurm.tasks_per_job."
        )


def check_time(slurm: SlurmConfig) -> None:
    """Raise ``RunError`` where no partition asked for lets a job last so long; a QOS may, so then it is not judged."""
    if slurm.qos is not None:
        return
    wanted = slurm.partition.split(",") if slurm.partition else []
    lines = client.call(["sinfo", "--noheader", "--format=%P|%l"]).split()
    allowed = {name.rstrip("*"): limit for name, limit in (line.split("|") for line in lines)}
    default = [line.split("*")[0] for line in lines if "*|" in line]
    found = [name for name in wanted or default if name in allowed]
    longest = max((_limit_s(allowed[name]) for name in found), default=float("inf"))
    if seconds(slurm.time) > longest:
        raise RunError(
            f"launch.slurm.time is {slurm.time}, but partition {' or '.join(found)} lets a job last "
            f"{' or '.join(allowed[name] for name in found)} at most; Slurm would take the jobs and never start them.\n"
            "Fix: lower launch.slurm.time (a task goes on after it), or choose another launch.slurm.partition."
        )


def seconds(time: str) -> float:
    """Read a time as Slurm does: minutes, minutes:seconds, hours:minutes:seconds, or days-hours and so on."""
    days, dash, rest = time.rpartition("-")
    parts = [int(part) for part in rest.split(":")]
    if dash:
        hours, minutes, s = (*parts, 0, 0)[:3]
        return 86_400 * int(days) + 3600 * hours + 60 * minutes + s
    if len(parts) == 3:
        return 3600 * parts[0] + 60 * parts[1] + parts[2]
    return 60 * parts[0] + (parts[1] if len(parts) == 2 else 0)


def _limit_s(limit: str) -> float:
    return seconds(limit) if limit[0].isdigit() else float("inf")  # "infinite", "n/a"
