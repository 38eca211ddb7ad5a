"""What is missing of a run, as jobs that any engine takes."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from perikarya.config import ExperimentConfig
from perikarya.errors import PerikaryaError
from perikarya.experiment.plan import Plan, Sources, make_plan
from perikarya.launch.jobs import Job
from perikarya.models.feature_cache import features_path
from perikarya.runs import RunFolder, TaskKey


def planned_or_nothing(config: ExperimentConfig, run: RunFolder, sources: Sources) -> Plan:
    """Plan a run; a folder that was made for a run that is refused goes away again."""
    try:
        return make_plan(config, run, sources=sources)
    except PerikaryaError:
        if {path.name for path in run.root.iterdir()} <= {".lock", run.log.name}:
            shutil.rmtree(run.root)
        raise


def missing_jobs(plan: Plan) -> list[Job]:
    """Return the tasks of a run that are not done, and before them the features that some of them need."""
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
            file = str(path.relative_to(plan.opened.root))
            jobs.append(Job(by_file[path], {"kind": "embed", "model": model.name, "file": file}))
        needs[model.name] = frozenset({by_file[path]})
    for key in todo:
        payload = {"kind": "task", "model": key.model, "seed": key.seed, "fold": key.fold}
        jobs.append(Job(str(key), payload, needs.get(key.model, frozenset())))
    return jobs


def key_of(payload: Mapping[str, Any]) -> TaskKey:
    """Return which task a job trains."""
    return TaskKey(payload["model"], payload["seed"], payload["fold"])


def log_of(run: RunFolder, payload: Mapping[str, Any]) -> Path:
    """Name the log of a job, of a task or of features."""
    return run.features_log(payload["model"]) if payload["kind"] == "embed" else run.task_log(key_of(payload))
