"""Run an experiment on this machine: finished tasks are kept, failed ones told, results collected."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from perikarya.config import ExperimentConfig, QuantifyConfig
from perikarya.data.store import OpenStudy, open_study
from perikarya.errors import PerikaryaError, RunError
from perikarya.evaluate.ceiling import READINGS_FILE, read_readings
from perikarya.evaluate.collect import evaluate_run, write_results
from perikarya.evaluate.quantify.assemble import quantify_run
from perikarya.evaluate.quantify.export import FILES as DAMAGE_FILES
from perikarya.evaluate.quantify.export import write_damage
from perikarya.experiment.jobs import missing_jobs, planned_or_nothing
from perikarya.experiment.plan import Plan, find_sources, load_run_config, task_keys
from perikarya.experiment.settle import resolve_config
from perikarya.experiment.worker import training_crew
from perikarya.launch.engines import run_live, share_out
from perikarya.launch.hardware import visible_gpus
from perikarya.launch.jobs import Event, Job
from perikarya.launch.logs import logged
from perikarya.launch.slurm import refuse_live_jobs
from perikarya.runs import RunFolder, lock_run, logging_to, read_json

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Outcome:
    """How a run ended: the plan, job id -> reason for all that failed, and the results of what did not."""

    plan: Plan
    failed: dict[str, str]
    results: dict[str, Any]


class RunListener:
    """What a run tells while it goes on; the command line draws it, the default keeps silent."""

    def planned(self, jobs: list[Job], n_done: int) -> None:
        """All jobs are known; ``n_done`` tasks had ended before."""

    def event(self, event: Event) -> None:
        """Something happened to one job."""


def run_experiment(config: ExperimentConfig, out: Path, *, listener: RunListener) -> Outcome:
    """Run what is missing of an experiment and write ``results.json``.

    Parameters
    ----------
    config
        The experiment.
    out
        The run folder; an unfinished run in it is continued.
    listener
        Told of every step.

    Raises
    ------
    PerikaryaError
        If settings, study, weights or the run folder are not as they must be, or no task ended well.
    """
    run = RunFolder(out)
    gpus = visible_gpus()
    config = resolve_config(config, on_gpu=bool(config.launch.ray.gpus or gpus))
    sources = find_sources(config)  # a missing study or weight is told before a folder is made
    with lock_run(out) as lock, logging_to(run.log, logger="perikarya"):
        refuse_live_jobs(run.root)
        plan = planned_or_nothing(config, run, sources)
        run.clear_finished(plan.tasks)
        jobs = missing_jobs(plan)
        listener.planned(jobs, len(plan.tasks) - sum(1 for j in jobs if j.payload["kind"] == "task"))
        failed = _run(plan, jobs, listener, gpus=gpus, lock_fd=lock.fileno()) if jobs else {}
        if not any(run.task_is_done(key) for key in plan.tasks):
            first = next(iter(failed.items()), ("", "nothing to do"))
            raise RunError(f"No task of {out} ended well. {first[0]}: {first[1]}\nFix: see tasks/*/*/*/task.log there.")
        results = _evaluate(run, plan.opened, plan.config)
    return Outcome(plan=plan, failed=failed, results=results)


def evaluate_again(run: RunFolder, *, study: str | None = None) -> tuple[ExperimentConfig, dict[str, Any]]:
    """Compute ``results.json`` and the damage anew from the files of a run; needs no torch."""
    config = load_run_config(run)
    return config, _evaluate(run, open_study(Path(study or config.study)), config)


def _evaluate(run: RunFolder, opened: OpenStudy, config: ExperimentConfig) -> dict[str, Any]:
    """Write everything that follows from predictions; what cannot be quantified is told in the log."""
    cells, study, tasks = opened.cells, opened.study, task_keys(config)
    readings_nr = read_readings(opened.root / READINGS_FILE, cells, study.class_names)
    evaluation = evaluate_run(run, cells, study, config, tasks=tasks, readings_nr=readings_nr)
    write_results(run, evaluation)
    asked = config.model_copy(update={"quantify": _quantify_settings(run, config)})
    try:
        write_damage(quantify_run(run, cells, study, asked, tasks=tasks), run.root)
    except PerikaryaError as refused:
        log.warning("Damage was not quantified: %s", str(refused).splitlines()[0])
        for name in DAMAGE_FILES:
            (run.root / name).unlink(missing_ok=True)  # of an earlier state of the run
    return evaluation.results


def _quantify_settings(run: RunFolder, config: ExperimentConfig) -> QuantifyConfig:
    """Return the settings damage was last quantified with: a report keeps what 'perikarya quantify' was told."""
    path = run.root / DAMAGE_FILES[0]
    if not path.is_file():
        return config.quantify
    try:
        return QuantifyConfig.model_validate(read_json(path, what="the damage of a run")["settings"])
    except (RunError, KeyError, TypeError, ValidationError):
        log.warning("%s is damaged; damage is quantified anew as the configuration says", path)
        return config.quantify


def _run(plan: Plan, jobs: list[Job], listener: RunListener, *, gpus: list[str], lock_fd: int) -> dict[str, str]:
    launch = plan.config.launch
    share = share_out(launch, gpus)

    crew = training_crew(plan, threads=share.threads)
    return run_live(jobs, crew=crew, launch=launch, share=share, listener=logged(listener.event), keep_fds=[lock_fd])
