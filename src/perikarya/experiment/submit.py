"""An experiment on a Slurm cluster: submitted, and what its jobs lost by no fault of their own submitted again."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from perikarya.config import ExperimentConfig, LaunchConfig
from perikarya.experiment.jobs import log_of, missing_jobs, planned_or_nothing
from perikarya.experiment.plan import Plan, find_sources, load_run_config, make_plan
from perikarya.experiment.settle import resolve_config
from perikarya.experiment.worker import training_crew
from perikarya.launch.engines import share_out
from perikarya.launch.jobs import Job
from perikarya.launch.logs import error_in_log
from perikarya.launch.slurm import JobState, Submission, job_states, submit_jobs
from perikarya.launch.slurm.record import slurm_folder
from perikarya.runs import RunFolder, lock_run, logging_to, read_json, write_json

log = logging.getLogger(__name__)

MAX_ROUNDS = 3  # of submitting the same task, until a person does so; as often as local workers may die on it
_SETTLED = ("failed", "ended")  # others may still run, or the cluster has forgotten how they ended
_A_PERSONS_WORD = ("cancelled", "memory")  # what cancelled a job would be defied, what was too large would be again


def submit_experiment(
    config: ExperimentConfig, out: Path, *, dry_run: bool = False, only: frozenset[str] | None = None, round_: int = 1
) -> Submission:
    """Plan an experiment and submit what is missing of it to Slurm; the run goes on when this has ended.

    Parameters
    ----------
    config
        The experiment; ``launch.slurm`` says what each job asks for. Whether networks are fine-tuned by default
        follows from the GPUs asked for there, not from those of this machine.
    out
        The run folder; an unfinished run in it is continued. All machines must see it under this path.
    dry_run
        Write and submit nothing; the texts of the scripts are returned.
    only
        Ids of the jobs to submit; None: all that are missing.
    round_
        How often the jobs have been submitted, this time included, since a person asked for it.

    Returns
    -------
    What was submitted; nothing when all tasks are done.

    Raises
    ------
    PerikaryaError
        If settings, study, weights or the run folder are not as they must be, or Slurm refuses.
    """
    run = RunFolder(out.resolve())
    config = resolve_config(config, on_gpu=config.launch.slurm.gpus > 0)
    if dry_run:
        return _submit(_rehearsed(config, run), only=only, round_=round_, dry_run=True)
    sources = find_sources(config)  # a missing study or weight is told before a folder is made
    with lock_run(run.root), logging_to(run.log, logger="perikarya"):
        plan = planned_or_nothing(config, run, sources)
        done = _submit(plan, only=only, round_=round_, dry_run=False)
        log.info("submitted %d jobs to Slurm: %s", done.n_jobs, ", ".join(done.job_ids) or "none")
    return done


def submit_lost(run: RunFolder, *, study: Path, round_: int) -> Submission | None:
    """Submit once more the jobs that ended without a result by no fault of their own; None when there are none.

    Killed by a signal, lost with a machine, preempted without being requeued: these are tried again, up to
    ``MAX_ROUNDS`` times in all. What failed with an error would fail again, as would what needed more memory; what a
    person cancelled stays cancelled.

    Parameters
    ----------
    run
        The run, all jobs of which have ended.
    study
        Where the study lies.
    round_
        In which its jobs were last submitted.

    Raises
    ------
    PerikaryaError
        If the cluster cannot be asked from this machine, or refuses.
    """
    if round_ >= MAX_ROUNDS:
        return None
    config = load_run_config(run).model_copy(update={"study": str(study), "launch": read_launch(run)})
    jobs = missing_jobs(make_plan(config, run))
    lost = find_lost(run, jobs, job_states(run.root)) if jobs else frozenset()
    return submit_experiment(config, run.root, only=lost, round_=round_ + 1) if lost else None


def find_lost(run: RunFolder, jobs: Sequence[Job], states: Mapping[str, JobState]) -> frozenset[str]:
    """Return the ids of those missing jobs that ended by no fault of their own, and of those that waited for them."""
    lost = {job.id for job in jobs if _is_lost(run, job, states.get(job.id))}
    missing = {job.id for job in jobs}
    return frozenset(job.id for job in jobs if job.id in lost and job.needs & missing <= lost)


def _is_lost(run: RunFolder, job: Job, state: JobState | None) -> bool:
    if state is None or state.kind not in _SETTLED or state.cause in _A_PERSONS_WORD:
        return False
    path = log_of(run, job.payload)
    if state.cause == "exit code" and not path.exists():
        return False  # it did not come as far as its work: what failed was the environment, which needs mending
    return not error_in_log(path)


def read_launch(run: RunFolder) -> LaunchConfig:
    """Read with which settings a run was last submitted; they are outside its configuration's hash."""
    return LaunchConfig.model_validate(read_json(_launch_file(run), what="how a run was submitted to Slurm"))


def _launch_file(run: RunFolder) -> Path:
    return slurm_folder(run.root) / "launch.json"


def _rehearsed(config: ExperimentConfig, run: RunFolder) -> Plan:
    """Plan a run without writing into its folder."""
    if run.config.exists():
        return make_plan(config, run)  # only compares
    with tempfile.TemporaryDirectory() as folder:
        return replace(make_plan(config, RunFolder(Path(folder))), run=run)


def _submit(plan: Plan, *, only: frozenset[str] | None, round_: int, dry_run: bool) -> Submission:
    jobs = [job for job in missing_jobs(plan) if only is None or job.id in only]
    if not jobs:
        return Submission((), (), (), 0, 0)
    launch, run = plan.config.launch, plan.run
    if not dry_run:
        write_json(_launch_file(run), launch.model_dump(mode="json"))
    crew = training_crew(plan, threads=share_out(launch).threads)
    finale = ("-m", "perikarya.cli.finale", str(run.root), "--study", str(plan.opened.root.resolve()))
    return submit_jobs(
        run.root,
        name=plan.config.name,
        jobs=jobs,
        crew=crew,
        finale=(*finale, "--round", str(round_)),
        launch=launch,
        dry_run=dry_run,
    )
