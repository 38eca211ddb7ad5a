"""Large predictions: shards worked on by any engine, and how far they are, read from the folder alone."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from perikarya.config import LaunchConfig
from perikarya.launch.engines import run_live, share_out
from perikarya.launch.jobs import Event, Job
from perikarya.launch.logs import error_in_log, logged
from perikarya.launch.slurm import refuse_live_jobs
from perikarya.predict.finishing import PREDICT_LOG, ShardsDone, finish_shards
from perikarya.predict.parts import part_is_done, shard_part
from perikarya.predict.pieces import n_rows_of, shard_pieces
from perikarya.predict.shards import ShardPlan, continued, read_plan, settle_plan
from perikarya.predict.worker import shard_crew, shard_job, shard_log
from perikarya.runs import lock_run, logging_to

if TYPE_CHECKING:
    from perikarya.launch.slurm.states import JobState
    from perikarya.launch.slurm.submit import Submission

State = Literal["done", "running", "queued", "started", "failed", "waiting"]

log = logging.getLogger(__name__)


class ShardListener:
    """What a prediction in shards tells while it goes on; the command line draws it, the default keeps silent."""

    def planned(self, plan: ShardPlan, waiting: Sequence[int]) -> None:
        """All shards are known; those that are not ``waiting`` are done already."""

    def event(self, event: Event) -> None:
        """Something happened to one shard, called as its part is."""


@dataclass(frozen=True)
class ShardStatus:
    """One shard: its state, how many of its cells are done, as far as that is known, and a sentence where one helps."""

    name: str
    state: State
    n_cells: int
    n_done: int
    note: str = ""


def run_shards(
    plan: ShardPlan,
    out: Path,
    launch: LaunchConfig,
    *,
    gpus: Sequence[str],
    listener: ShardListener,
) -> tuple[ShardsDone, dict[str, str]]:
    """Predict the shards that are missing, here or on a Ray cluster, and sum up.

    Parameters
    ----------
    plan
        What is predicted.
    out
        The folder; a prediction by the same plan goes on in it.
    launch
        The engine, how many shards at once, and CPU threads of a worker. Each worker is one process.
    gpus
        Names of the GPUs of this machine that the model can be computed on.
    listener
        Told of every step.

    Returns
    -------
    What came of it, and shard -> why it failed.

    Raises
    ------
    RunError
        If the folder holds another prediction, or another process or the cluster works on it.
    """
    with lock_run(out) as lock, logging_to(out / PREDICT_LOG, logger="perikarya"):
        refuse_live_jobs(out)
        plan = settle_plan(plan, out)
        waiting = missing_shards(plan, out)
        listener.planned(plan, waiting)
        log.info("%s: %d shard(s) to predict, %d kept", out, len(waiting), len(plan.shards) - len(waiting))
        share = share_out(launch, gpus)
        failed = run_live(
            _jobs(plan, waiting),
            crew=shard_crew(out, threads=share.threads),
            launch=launch,
            share=share,
            listener=logged(listener.event),
            keep_fds=[lock.fileno()],
        )
        return finish_shards(out), failed


def submit_shards(plan: ShardPlan, out: Path, launch: LaunchConfig, *, dry_run: bool) -> Submission | None:
    """Submit the shards that are missing to Slurm, with a last job that sums up; nothing is waited for.

    Returns
    -------
    What was submitted, or would be; None where no shard is missing.

    Raises
    ------
    RunError
        If the folder holds another prediction, or the cluster refuses.
    """
    from perikarya.launch.slurm.submit import submit_jobs

    def submitted(plan: ShardPlan) -> Submission | None:
        jobs = _jobs(plan, missing_shards(plan, out))
        if not jobs:
            return None
        return submit_jobs(
            out,
            name=f"predict-{out.resolve().name}",
            jobs=jobs,
            crew=shard_crew(out, threads=share_out(launch).threads),
            finale=("-m", "perikarya.predict.finishing", str(out.resolve())),
            launch=launch,
            dry_run=dry_run,
        )

    if dry_run:
        return submitted(continued(plan, out))
    with lock_run(out), logging_to(out / PREDICT_LOG, logger="perikarya"):
        return submitted(settle_plan(plan, out))


def missing_shards(plan: ShardPlan, out: Path) -> list[int]:
    """List the shards whose parts are not there, or follow from something else than the plan says."""
    return [i for i in range(len(plan.shards)) if not part_is_done(out, plan, i)]


def prediction_status(out: Path, *, cluster: Mapping[str, JobState] | None = None) -> list[ShardStatus]:
    """Return how far each shard of a prediction is.

    Parameters
    ----------
    out
        The folder.
    cluster
        What Slurm says of its jobs, by id (``launch.slurm.ask_cluster``).

    Raises
    ------
    RunError
        If the folder holds no plan of shards.
    """
    plan = read_plan(out)
    jobs = cluster or {}
    return [_status(plan, out, i, jobs.get(plan.name(i))) for i in range(len(plan.shards))]


def _status(plan: ShardPlan, out: Path, index: int, job: JobState | None) -> ShardStatus:
    name, n_cells = plan.name(index), plan.shards[index].n_cells
    if part_is_done(out, plan, index):
        return ShardStatus(name, "done", n_cells, n_rows_of(shard_part(out, plan, index)))
    n_done = sum(map(n_rows_of, shard_pieces(out, plan, index)))
    if job is not None and job.kind in ("running", "queued", "requeued"):
        return ShardStatus(name, "running" if job.kind == "running" else "queued", n_cells, n_done, job.sentence)
    error = error_in_log(shard_log(out, plan, index))
    if job is not None and job.kind == "failed":
        return ShardStatus(name, "failed", n_cells, n_done, " ".join(filter(None, (job.sentence, error))))
    if error:
        return ShardStatus(name, "failed", n_cells, n_done, error)
    if shard_log(out, plan, index).is_file():
        return ShardStatus(name, "started", n_cells, n_done, "is worked on, or was stopped; the same command goes on")
    return ShardStatus(name, "waiting", n_cells, n_done)


def _jobs(plan: ShardPlan, indices: Sequence[int]) -> list[Job]:
    return [shard_job(plan, i) for i in indices]
