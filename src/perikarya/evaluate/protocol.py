"""What was measured and how, and what a reader must know before believing it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd

from perikarya.config import ExperimentConfig
from perikarya.evaluate.intervals import interval_words
from perikarya.evaluate.outputs import TaskOutput
from perikarya.evaluate.stats import UNIT_WORDS, interval_unit
from perikarya.runs import RunFolder, TaskKey
from perikarya.schema import DEVELOPMENT, EXTERNAL, Study, read_table

FEW_CLUSTERS = 10  # below, bootstrap intervals are too narrow, expanded or not
FEW_CELLS = 30  # below, one more error moves recall by over 3 points


def describe_study(study: Study, cells: pd.DataFrame) -> dict[str, Any]:
    """Return name, classes, scale and counts of a study, by set and class."""
    sets = {}
    for set_name in (DEVELOPMENT, EXTERNAL):
        part = cells[cells["set"] == set_name]
        if part.empty:
            continue
        counts = part["label"].value_counts()
        sets[set_name] = {
            "n_cells": len(part),
            "n_labelled": int(part["label"].notna().sum()),
            "n_subjects": int(part["subject"].nunique()) if part["subject"].notna().all() else None,
            "n_images": int(part["image_id"].nunique()),
            "n_per_class": {name: int(counts.get(name, 0)) for name in study.class_names},
        }
    return {
        "name": study.name,
        "class_names": list(study.class_names),
        "um_per_px": study.um_per_px,
        "window_px": study.window_px,
        "regions": list(study.regions),
        "groups": list(study.groups),
        "sets": sets,
    }


def describe_protocol(
    run: RunFolder,
    config: ExperimentConfig,
    outputs: Sequence[TaskOutput],
    cells: pd.DataFrame,
    *,
    missing: Sequence[TaskKey],
    models: dict[str, Any],
) -> dict[str, Any]:
    """Return how folds were drawn and intervals made, what is missing, and warnings in whole sentences."""
    plan = _fold_plan(run)
    units = {
        set_name: interval_unit(part)
        for set_name, part in (("cv", _labelled(cells, DEVELOPMENT)), ("external", _labelled(cells, EXTERNAL)))
        if any(model.get(set_name) for model in models.values()) and len(part)
    }
    return {
        "scheme": config.cv.scheme,
        "group_by": plan["group_by"],
        "n_folds": plan["n_folds"],
        "seeds": list(config.seeds),
        "folds": sorted({o.key.fold for o in outputs}),
        "unit": units.get("external", units.get("cv")),
        "interval_unit": units,
        "interval_method": {s: interval_words(unit, config.evaluate) for s, unit in units.items()},
        "n_bootstrap": config.evaluate.n_bootstrap,
        "confidence": config.evaluate.confidence,
        "bootstrap_seed": config.evaluate.seed,
        "warnings": list(dict.fromkeys(_warnings(plan, outputs, cells, units, missing))),
        "incomplete": [str(key) for key in missing],
    }


def _labelled(cells: pd.DataFrame, set_name: str) -> pd.DataFrame:
    return cells[(cells["set"] == set_name) & cells["label"].notna()]


def _fold_plan(run: RunFolder) -> dict[str, Any]:
    _, meta = read_table(run.folds, what="the fold plan")
    n_folds = meta.get("n_folds")
    return {
        "group_by": meta.get("group_by"),
        "n_folds": int(n_folds) if n_folds else None,
        "warning": meta.get("warning"),
    }


def _warnings(
    plan: dict[str, Any],
    outputs: Sequence[TaskOutput],
    cells: pd.DataFrame,
    units: dict[str, str],
    missing: Sequence[TaskKey],
) -> Iterator[str]:
    if missing:
        yield (
            f"{len(missing)} of {len(missing) + len(outputs)} trainings have not finished; "
            "the numbers below are those of the others and will change."
        )
    if plan["warning"]:
        yield plan["warning"]  # drawn over cells or images, subjects merged, cells left out: the plan knows
    for set_name, column_set in (("cv", DEVELOPMENT), ("external", EXTERNAL)):
        if set_name in units:
            yield from _set_warnings(
                set_name, units[set_name], _labelled(cells, column_set), cells[cells["set"] == column_set]
            )


def _set_warnings(set_name: str, unit: str, labelled: pd.DataFrame, everything: pd.DataFrame) -> Iterator[str]:
    where = {"cv": "the development set", "external": "the external set"}[set_name]
    if unit != "subject":
        yield (
            f"The animals of {where} are not known, so its intervals resample {UNIT_WORDS[unit]}. Cells of one animal "
            "resemble each other, so the true intervals are wider."
        )
    elif labelled["subject"].nunique() < FEW_CLUSTERS:
        yield (
            f"{where[0].upper()}{where[1:]} has {labelled['subject'].nunique()} subjects; intervals over "
            f"fewer than {FEW_CLUSTERS} tend to be too narrow."
        )
    counts = labelled["label"].value_counts()
    for name, n in counts[counts < FEW_CELLS].items():
        yield f"{where[0].upper()}{where[1:]} has only {n} cell(s) of class '{name}'; its scores are uncertain."
    n_unlabelled = len(everything) - len(labelled)
    if n_unlabelled:
        yield f"{n_unlabelled} cell(s) of {where} have no label and are not scored."
