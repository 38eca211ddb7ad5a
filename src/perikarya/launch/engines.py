"""The engines that stay until the work is done: processes of this machine, or a Ray cluster."""

from __future__ import annotations

from collections.abc import Sequence

from perikarya.config import LaunchConfig
from perikarya.launch.jobs import Crew, Job, Listener
from perikarya.launch.local import run_jobs


def run_live(
    jobs: Sequence[Job],
    *,
    crew: Crew,
    launch: LaunchConfig,
    listener: Listener,
    n_workers: int,
    threads: int,
    gpus: Sequence[str] = (),
    keep_fds: Sequence[int] = (),
) -> dict[str, str]:
    """Run jobs where ``launch.engine`` says until each has ended; return job id -> why it failed.

    Parameters are those of ``launch.local.run_jobs``; ``keep_fds`` and ``gpus`` mean something on this machine only.
    """
    if launch.engine == "ray":
        from perikarya.launch.ray import run_on_ray

        return run_on_ray(
            jobs, crew=crew, settings=launch.ray, listener=listener, n_at_once=launch.jobs, threads=threads
        )
    return run_jobs(
        jobs, crew=crew, n_workers=n_workers, listener=listener, threads=threads, keep_fds=keep_fds, gpus=gpus
    )
