"""Run an experiment on this machine: finished tasks are kept, failed ones told, results collected."""

from __future__ import annotations

import logging
import os
import shutil
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
from perikarya.experiment.plan import Plan, Sources, find_sources, load_run_config, make_plan, task_keys
from perikarya.experiment.settle import resolve_config
from perikarya.experiment.worker import training_crew
from perikarya.launch.engines import run_live
from perikarya.launch.jobs import Event, Job
from perikarya.models.feature_cache import features_path
from perikarya.parallel import n_cores
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
    gpus = _gpus()
    config = resolve_config(config, on_gpu=bool(gpus))
    sources = find_sources(config)  # a missing study or weight is told before a folder is made
    with lock_run(out) as lock, logging_to(run.log, logger="perikarya"):
        plan = _planned(config, run, sources)
        jobs = _jobs(plan)
        listener.planned(jobs, len(plan.tasks) - sum(1 for j in jobs if j.payload["kind"] == "task"))
        failed = _run(plan, jobs, listener, gpus=gpus, lock_fd=lock.fileno()) if jobs else {}
        if not any(run.task_is_done(key) for key in plan.tasks):
            first = next(iter(failed.items()), ("", "nothing to do"))
            raise RunError(f"No task of {out} ended well. {first[0]}: {first[1]}\nFix: see tasks/*/*/*/task.log there.")
        results = _evaluate(run, plan.opened, plan.config)
    return Outcome(plan=plan, failed=failed, results=results)


def _planned(config: ExperimentConfig, run: RunFolder, sources: Sources) -> Plan:
    """Plan the run; a folder that was made for a run that is refused goes away again."""
    try:
        return make_plan(config, run, sources=sources)
    except PerikaryaError:
        if {path.name for path in run.root.iterdir()} <= {".lock", run.log.name}:
            shutil.rmtree(run.root)
        raise


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


def _jobs(plan: Plan) -> list[Job]:
    jobs: list[Job] = []
    todo = [key for key in plan.tasks if not plan.run.task_is_done(key)]
    needs: dict[str, frozenset[str]] = {}
    by_file: dict[Path, str] = {}  # two models that share their features need them computed once
    for model in plan.config.models:
        if model.strategy != "head" or not any(key.model == model.name for key in todo):
            continue
        path = features_path(
            plan.opened,
            arch=model.arch,
            weights=plan.weights[model.name],
            input_px=model.input_px or 0,
            channels=model.channels,
        )
        if path.exists():
            continue
        if path not in by_file:
            by_file[path] = f"features of {model.name}"
            jobs.append(Job(by_file[path], {"kind": "embed", "model": model.name}))
        needs[model.name] = frozenset({by_file[path]})
    for key in todo:
        payload = {"kind": "task", "model": key.model, "seed": key.seed, "fold": key.fold}
        jobs.append(Job(str(key), payload, needs.get(key.model, frozenset())))
    return jobs


def _run(plan: Plan, jobs: list[Job], listener: RunListener, *, gpus: list[str], lock_fd: int) -> dict[str, str]:
    launch = plan.config.launch
    n_workers = launch.jobs or max(1, len(gpus))
    threads = launch.threads or max(1, n_cores() // n_workers)
    crew = training_crew(plan.run, plan.opened.root, threads=threads)

    def tell(event: Event) -> None:
        if event.kind in ("failed", "died"):
            log.warning("%s %s: %s", event.job_id, event.kind, event.message)
        elif event.kind != "progress":
            log.info("%s %s", event.job_id, event.kind)
        listener.event(event)

    return run_live(
        jobs,
        crew=crew,
        launch=launch,
        listener=tell,
        n_workers=n_workers,
        threads=threads,
        gpus=gpus,
        keep_fds=[lock_fd],
    )


def _gpus() -> list[str]:
    """Names of the GPUs torch can use; torch is asked only where the driver has left a device file."""
    if not any(Path("/dev").glob("nvidia[0-9]*")):
        return []
    import torch

    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return visible.split(",") if visible else [str(i) for i in range(torch.cuda.device_count())]
