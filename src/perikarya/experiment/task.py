"""One task: a model, a seed and a test fold, from rows to files. ``result.json`` is written last and whole."""

from __future__ import annotations

import resource
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from perikarya.config import ModelConfig
from perikarya.data.resampling import resample_rows
from perikarya.data.splits import rows_of
from perikarya.data.store import OpenStudy
from perikarya.data.subsets import nested_subset
from perikarya.errors import RunError
from perikarya.evaluate.outputs import PREDICTION_FILES, PredictionSet
from perikarya.experiment.plan import Plan
from perikarya.experiment.strategies import (
    Predict,
    Progress,
    Trained,
    Work,
    device_of,
    fit_frozen,
    fit_network,
    input_px_of,
)
from perikarya.models.embed import compute_features
from perikarya.runs import TaskKey, provenance, versions, write_bytes, write_json, write_text
from perikarya.schema import DEVELOPMENT, EXTERNAL, SCHEMA_VERSION, Predictions
from perikarya.train.rows import FoldRows


def fold_rows(plan: Plan, key: TaskKey) -> FoldRows:
    """Return the rows of one task; training rows are resampled, held-out rows never are."""
    config, opened = plan.config, plan.opened
    single = config.cv.scheme == "single"
    roles = plan.folds.roles_single() if single else plan.folds.roles(key.fold)
    ids = opened.cells["cell_id"]
    train = rows_of(ids, roles.train)
    n_subjects = config.model(key.model).train_subjects
    if n_subjects is not None:
        train = nested_subset(
            opened.cells, train, group_by=plan.folds.group_by, n_groups=n_subjects, seed=key.seed, fold=key.fold
        )
    if len(train) < 2:
        raise RunError(f"{key}: {len(train)} cell(s) are left to train on. Fix: fewer folds, or more cells.")
    return FoldRows(
        train=resample_rows(opened.labels, train, config=config.resample_of(config.model(key.model)), seed=key.seed),
        stop=rows_of(ids, roles.stop),
        test=rows_of(ids, roles.test),
        external=np.flatnonzero((opened.cells["set"] == EXTERNAL).to_numpy()).astype(np.int64),
    )


def run_task(plan: Plan, key: TaskKey, progress: Progress) -> None:
    """Train, predict and write the files of one task; does nothing when its result is there."""
    if plan.run.task_is_done(key):
        return
    started = time.monotonic()
    folder = plan.run.task(key)
    folder.mkdir(parents=True, exist_ok=True)
    model = plan.config.model(key.model)
    rows = fold_rows(plan, key)
    fit = fit_frozen if model.strategy == "head" else fit_network
    outcome = fit(Work(plan, key, model, rows), progress)
    write_bytes(folder / "model.safetensors", outcome.weights)
    write_text(folder / "history.csv", pd.DataFrame(outcome.fitted.history).to_csv(index=False))
    _write_predictions(plan.opened, rows, outcome, key, folder)
    result = _result(plan, key, model, rows, outcome) | {"wall_s": round(time.monotonic() - started, 3)}
    write_json(folder / "result.json", result)
    (folder / "state.pt").unlink(missing_ok=True)


def run_embedding(plan: Plan, model_name: str, progress: Progress) -> None:
    """Compute the features of one model for the whole study, unless they are cached."""
    model = plan.config.model(model_name)
    compute_features(
        plan.opened,
        arch=model.arch,
        weights=plan.weights[model.name],
        input_px=input_px_of(model),
        progress=progress,
        channels=model.channels,
    )


def _n_groups(plan: Plan, rows: NDArray[np.int64]) -> int | None:
    """Count the animals (or images) among some rows; None where folds are drawn over cells."""
    group_by = plan.folds.group_by
    return None if group_by == "cell" else int(plan.opened.cells[group_by].iloc[rows].nunique())


def _write_predictions(opened: OpenStudy, rows: FoldRows, outcome: Trained, key: TaskKey, folder: Path) -> None:
    """Write what the network says of cells it was not trained on; those of the stopping fold serve calibration."""
    wanted: list[tuple[PredictionSet, NDArray[np.int64], str, Predict | None]] = [
        ("test", rows.test, DEVELOPMENT, outcome.predict),
        ("external", rows.external, EXTERNAL, outcome.predict),
        ("validation", rows.stop, DEVELOPMENT, outcome.predict),
        ("test_tta", rows.test, DEVELOPMENT, outcome.predict_tta),
        ("external_tta", rows.external, EXTERNAL, outcome.predict_tta),
    ]
    for which, row_n, set_name, predict in wanted:
        if predict is None or not len(row_n):
            continue
        Predictions(
            cell_id=opened.cells["cell_id"].to_numpy(dtype=str)[row_n],
            prob_nk=predict(row_n),
            label_n=opened.labels[row_n],
            class_names=opened.study.class_names,
            model=key.model,
            fold=key.fold,
            seed=key.seed,
            set=set_name,
        ).save(folder / PREDICTION_FILES[which])


def _result(plan: Plan, key: TaskKey, model: ModelConfig, rows: FoldRows, outcome: Trained) -> dict[str, Any]:
    weights = plan.weights[model.name]
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {
        "schema_version": SCHEMA_VERSION,
        "model": key.model,
        "arch": model.arch,
        "strategy": model.strategy,
        "input_px": model.input_px,
        "channels": model.channels,
        "fold": key.fold,
        "seed": key.seed,
        "config_hash": plan.config.content_hash(),
        "data_hash": plan.opened.data_hash,
        "best_epoch": outcome.fitted.best_epoch,
        "n_epochs": len(outcome.fitted.history),
        "n_train": outcome.n_train,
        "n_train_subjects": _n_groups(plan, rows.train),
        "n_synthetic": outcome.n_synthetic,
        "n_stop": len(rows.stop),
        "n_test": len(rows.test),
        "n_external": len(rows.external),
        "n_params": outcome.fitted.n_params,
        "n_views": outcome.n_views,
        "inference_s_per_cell": outcome.inference,
        "peak_memory_mib": round(peak_mib, 1),
        "weights": {"source": weights.source, "sha256": weights.sha256, "licence": weights.licence},
        "threads": torch.get_num_threads(),
        "device": str(device_of(None)),
        "platform": provenance()["platform"],
        "versions": versions(),
    }
