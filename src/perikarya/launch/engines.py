"""The engines that stay until the work is done: processes of this machine, or a Ray cluster."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from perikarya.config import LaunchConfig
from perikarya.errors import ConfigError
from perikarya.launch.jobs import Crew, Job, Listener
from perikarya.launch.local import run_jobs
from perikarya.parallel import n_cores

_THREADS_ELSEWHERE = 4  # of a task on a cluster whose machines are not known yet


@dataclass(frozen=True)
class Share:
    """What there is for the work: so many workers at once, CPU threads of each process, GPUs of each worker in turn."""

    n_workers: int
    threads: int
    gpus: tuple[str, ...] = ()


def share_out(launch: LaunchConfig, gpus: Sequence[str] = ()) -> Share:
    """Share out the cores and GPUs of this machine, or say what a task asks of a cluster.

    Raises
    ------
    ConfigError
        If a task is to have more processes than there are GPUs for it.
    """
    n = launch.processes_per_task
    if launch.engine == "slurm":
        _refuse_too_few(n, launch.slurm.gpus, "launch.slurm.gpus")
        return Share(launch.jobs or 1, launch.threads or max(1, launch.slurm.cpus // n))
    if launch.engine == "ray" and (launch.ray.address or os.environ.get("RAY_ADDRESS")):
        return Share(launch.jobs or 1, launch.threads or _THREADS_ELSEWHERE)
    _refuse_too_few(n, len(gpus), "this machine")
    groups = tuple(",".join(gpus[i : i + n]) for i in range(0, len(gpus) - n + 1, n))
    n_workers = launch.jobs or max(1, len(groups))
    return Share(n_workers, launch.threads or max(1, n_cores() // (n_workers * n)), groups)


def _refuse_too_few(n_processes: int, n_gpus: int, where: str) -> None:
    if 0 < n_gpus < n_processes:
        raise ConfigError(
            f"launch.processes_per_task is {n_processes}, but {where} has {n_gpus} GPU(s) for a task.\n"
            "Each process needs one of its own. Fix: ask for as many GPUs, or for fewer processes."
        )


def run_live(
    jobs: Sequence[Job],
    *,
    crew: Crew,
    launch: LaunchConfig,
    share: Share,
    listener: Listener,
    keep_fds: Sequence[int] = (),
) -> dict[str, str]:
    """Run jobs where ``launch.engine`` says until each has ended; return job id -> why it failed.

    ``keep_fds`` are files the workers of this machine inherit, such as the lock of the run folder.
    """
    if launch.engine == "ray":
        from perikarya.launch.ray import run_on_ray

        return run_on_ray(
            jobs,
            crew=crew,
            settings=launch.ray,
            listener=listener,
            n_at_once=launch.jobs,
            threads=share.threads,
            processes=launch.processes_per_task,
        )
    return run_jobs(
        jobs,
        crew=crew,
        n_workers=share.n_workers,
        listener=listener,
        threads=share.threads,
        keep_fds=keep_fds,
        gpus=share.gpus,
    )
