"""From a configuration to tasks: settings made definite, folds drawn, leakage refused, files of the run written."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import yaml

from perikarya.config import CvConfig, ExperimentConfig, ModelConfig, load_config
from perikarya.data.integrity import Finding, check_study
from perikarya.data.splits import FoldPlan, plan_folds, rows_of
from perikarya.data.store import OpenStudy, open_study
from perikarya.data.subsets import nested_subset
from perikarya.errors import DataError, RunError
from perikarya.models.weights import WeightsFile, resolve_weights
from perikarya.runs import RunFolder, TaskKey, read_json, write_json, write_text
from perikarya.schema import EXTERNAL

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Plan:
    """A run made definite: the resolved configuration, the study, the folds and the weights of each model."""

    run: RunFolder
    config: ExperimentConfig
    opened: OpenStudy
    folds: FoldPlan
    weights: dict[str, WeightsFile]

    @property
    def tasks(self) -> list[TaskKey]:
        """All tasks, models first, so that a first model is complete early."""
        return task_keys(self.config)


def task_keys(config: ExperimentConfig) -> list[TaskKey]:
    """Return the tasks of an experiment: models x seeds x folds."""
    folds = (0,) if config.cv.scheme == "single" else config.cv.folds or tuple(range(config.cv.n_folds))
    return [TaskKey(m.name, seed, fold) for m in config.models for seed in config.seeds for fold in folds]


@dataclass(frozen=True)
class Sources:
    """What a run starts from: the study, and the weights of each model by its name."""

    opened: OpenStudy
    weights: dict[str, WeightsFile]


def find_sources(config: ExperimentConfig) -> Sources:
    """Open the study and find all weights, before anything is written.

    Raises
    ------
    ConfigError, DataError, UnknownNameError, WeightsError
        If the study, a network or weights are not there, or a network cannot be trained as it is asked to.
    """
    opened = open_study(Path(config.study))
    for model in config.models:
        _refuse_untrainable(config, model)
    return Sources(opened, {m.name: resolve_weights(m.arch, m.weights) for m in config.models})


def _refuse_untrainable(config: ExperimentConfig, model: ModelConfig) -> None:
    """Try settings that not every network can follow; torch is loaded only where there are any."""
    train, strategy = config.train_of(model), model.strategy
    if strategy == "auto" or strategy == "head":  # written out, for the type checker narrows no 'in'
        return
    plain = train.layer_decay == 1 and train.last_blocks is None and not train.checkpointing
    if strategy == "finetune" and plain:
        return
    from perikarya.train.check import check_trainable

    check_trainable(model.arch, train=train, strategy=strategy)


def make_plan(config: ExperimentConfig, run: RunFolder, *, sources: Sources | None = None) -> Plan:
    """Check everything that can be checked before work starts, and write the run's configuration and folds.

    ``config`` is a definite one (``settle.resolve_config``); ``sources`` are those of ``find_sources`` where they are
    known already.

    Raises
    ------
    DataError, WeightsError
        If the study, its folds or weights are not as they must be.
    RunError
        If the folder holds a run of other settings or other data.
    """
    found = sources or find_sources(config)
    opened = found.opened
    _refuse_other_run(run, config)
    if run.config.exists():
        check_data_unchanged(run, opened)
        folds = FoldPlan.load(run.folds)
        rows_of(opened.cells["cell_id"], folds.frame["cell_id"])
    else:
        findings = check_study(opened).findings
        folds = draw_folds(opened, config.cv, findings)
        _refuse_too_few_groups(config, opened, folds)
        write_json(run.check, [asdict(finding) for finding in findings])
        folds.save(run.folds)
        write_text(run.config, _with_hash(config, opened))
    return Plan(run=run, config=config, opened=opened, folds=folds, weights=found.weights)


def _refuse_too_few_groups(config: ExperimentConfig, opened: OpenStudy, folds: FoldPlan) -> None:
    """Raise ``ConfigError`` where a model is to be trained on more animals than a fold leaves."""
    most = max((m.train_subjects or 0 for m in config.models), default=0)
    if not most:
        return
    for fold in sorted({key.fold for key in task_keys(config)}):
        roles = folds.roles_single() if config.cv.scheme == "single" else folds.roles(fold)
        train = rows_of(opened.cells["cell_id"], roles.train)
        nested_subset(opened.cells, train, group_by=folds.group_by, n_groups=most, seed=0, fold=fold)


# what the check calls a picture on two sides of a border: mended by where its cells go
_LINKS = ("duplicate-subjects", "duplicate-images")
_CROSSES_SETS = "leak-sets"
_TWO_LABELS = "two-labels"  # wrong in one of its two places, but no leak


def draw_folds(opened: OpenStudy, cv: CvConfig, findings: Sequence[Finding]) -> FoldPlan:
    """Divide the development set; what the check found to leak is refused or separated, as ``cv`` asks.

    Raises
    ------
    DataError
        If the study has problems that would make the figures wrong and that folds cannot mend.
    """
    errors = [f for f in findings if f.severity == "error"]
    hindrances = [f for f in errors if not is_settled(f, cv)]
    if hindrances and cv.duplicates != "ignore":
        raise DataError(_refusal(opened, hindrances))
    if cv.duplicates == "ignore":
        plan = plan_folds(opened.cells, cv=cv)
        ignored = f"{len(errors)} problems found by the study check were ignored, as asked; figures may be too good."
        return replace(plan, warning=" ".join(s for s in (plan.warning, ignored) if s)) if errors else plan
    external = set(opened.cells.loc[opened.cells["set"] == EXTERNAL, "cell_id"])
    left_out = {c for f in errors if f.code == _CROSSES_SETS for c in f.cells if c not in external}
    linked = [(f.cells[0], f.cells[1]) for f in errors if f.code in _LINKS]
    return plan_folds(opened.cells, cv=cv, linked=linked, left_out=left_out)


def is_settled(finding: Finding, cv: CvConfig) -> bool:
    """Tell whether the division itself takes care of a finding: same pictures that are kept on one side."""
    return cv.duplicates == "separate" and finding.code in (*_LINKS, _CROSSES_SETS, _TWO_LABELS)


def _refusal(opened: OpenStudy, hindrances: list[Finding]) -> str:
    listed = "\n".join(f"  {f.sentence}" for f in hindrances[:5])
    more = f"\n  … and {len(hindrances) - 5} more" if len(hindrances) > 5 else ""
    mend = "mend the source and import it again"
    if all(f.code in (*_LINKS, _CROSSES_SETS, _TWO_LABELS) for f in hindrances):
        mend += (
            ", or keep the same pictures on one side with --set cv.duplicates=separate (subjects that share a picture "
            "share a fold; development cells whose picture is external are left out)"
        )
    return (
        f"{opened.root} has {len(hindrances)} problem(s) that would make the figures wrong:\n{listed}{more}\n"
        f"Fix: see 'perikarya study check {opened.root}'; {mend}."
    )


def open_findings(run: RunFolder, config: ExperimentConfig) -> list[Finding]:
    """Return what the check found when the run was planned, without what the folds have settled."""
    rows = read_json(run.check, what="what the study check found")
    findings = [Finding(**{**row, "cells": tuple(row["cells"])}) for row in rows]
    return [f for f in findings if not is_settled(f, config.cv)]


def _with_hash(config: ExperimentConfig, opened: OpenStudy) -> str:
    heading = f"# configuration {config.content_hash()}, data {opened.data_hash}; made definite by perikarya train\n"
    return heading + config.dump()


def load_run_config(run: RunFolder) -> ExperimentConfig:
    """Read the resolved configuration of a run folder.

    Raises
    ------
    RunError
        If the folder is not a run.
    """
    if not run.config.is_file():
        raise RunError(
            f"{run.root} is not a run folder (it has no config.yaml).\n"
            "Fix: name the folder given to 'perikarya train --out', or start the run."
        )
    return load_config(run.config)


def run_hashes(run: RunFolder) -> tuple[str, str]:
    """Return the hashes of configuration and data noted in the first line of a run's configuration."""
    first = run.config.read_text(encoding="utf-8").splitlines()[0]
    parts = first.removeprefix("# configuration ").split(";")[0].split(", data ")
    if len(parts) != 2:
        raise RunError(
            f"{run.config} has lost its first line, which names its hashes. Fix: start the run in a new folder."
        )
    return parts[0], parts[1]


def _refuse_other_run(run: RunFolder, config: ExperimentConfig) -> None:
    if not run.config.is_file():
        return
    old = load_run_config(run)
    if old.content_hash() != config.content_hash():
        raise RunError(
            f"{run.root} holds a run of other settings:\n{_differences(old, config)}\n"
            "Results of two configurations in one folder could not be told apart.\n"
            "Fix: choose another --out, or go back to the settings the run was started with."
        )


def _differences(old: ExperimentConfig, new: ExperimentConfig) -> str:
    before, after = _flat(old.model_dump(mode="json")), _flat(new.model_dump(mode="json"))
    changed = [
        k for k in {**before, **after} if before.get(k) != after.get(k) and not k.startswith(("launch", "study"))
    ]
    lines = [f"  {k}: was {before.get(k, 'absent')}, now {after.get(k, 'absent')}" for k in changed]
    return "\n".join(lines[:12] + ([f"  … and {len(lines) - 12} more"] if len(lines) > 12 else []))


def _flat(node: object, prefix: str = "") -> dict[str, str]:
    if isinstance(node, dict):
        return {k: v for key, value in node.items() for k, v in _flat(value, f"{prefix}{key}.").items()}
    if isinstance(node, list) and any(isinstance(x, dict) for x in node):
        return {k: v for i, value in enumerate(node) for k, v in _flat(value, f"{prefix}{i}.").items()}
    return {prefix.rstrip("."): yaml.safe_dump(node, default_flow_style=True).strip().removesuffix("...").strip()}


def check_data_unchanged(run: RunFolder, opened: OpenStudy) -> None:
    """Raise ``RunError`` when the study is no longer the one the run was planned on."""
    _, data_hash = run_hashes(run)
    if data_hash != opened.data_hash:
        raise RunError(
            f"The study {opened.root} has changed since {run.root} was started (data {data_hash}, now "
            f"{opened.data_hash}).\nTasks of both would be mixed. Fix: choose another --out for the changed study."
        )
