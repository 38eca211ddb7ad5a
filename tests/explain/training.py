"""Train in this process, without workers."""

from __future__ import annotations

from pathlib import Path

from perikarya.config import ExperimentConfig
from perikarya.experiment.plan import Plan, make_plan
from perikarya.experiment.settle import resolve_config
from perikarya.experiment.task import run_embedding, run_task
from perikarya.runs import RunFolder


def train(config: ExperimentConfig, out: Path) -> Plan:
    """Run all tasks of an experiment."""
    plan = make_plan(resolve_config(config, on_gpu=False), RunFolder(out))
    for model in plan.config.models:
        if model.strategy == "head":
            run_embedding(plan, model.name, lambda done, total: None)
    for key in plan.tasks:
        run_task(plan, key, lambda done, total: None)
    return plan
