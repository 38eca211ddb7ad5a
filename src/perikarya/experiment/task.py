"""One task: a model, a seed and a test fold, from rows to files. ``result.json`` is written last and whole."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable
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
from perikarya.evaluate.outputs import HISTORY_FILE, PREDICTION_FILES, PredictionSet
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
from perikarya.runs import (
    RESULT_FILE,
    TaskKey,
    now,
    provenance,
    remove_parts,
    versions,
    write_bytes,
    write_json,
    write_text,
)
from perikarya.schema import DEVELOPMENT, EXTERNAL, SCHEMA_VERSION, Predictions
from perikarya.train.distributed import current_team
from perikarya.train.rows import FoldRows

MayWrite = Callable[[], None]
_LOG_LINES = 200  # of a finished task, kept in its result


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


def run_task(plan: Plan, key: TaskKey, progress: Progress, *, may_write: MayWrite = lambda: None) -> None:
    """Train, predict and write the files of one task; does nothing but tidy up when its result is there.

    Parameters
    ----------
    plan
        The run.
    key
        The task.
    progress
        Told of steps; may raise ``InterruptedWorkError``, after which the same call goes on from the saved state.
    may_write
        Called before the first file is written and once more before the result; raises where another process has
        taken over the task.
    """
    run, folder = plan.run, plan.run.task(key)
    if run.task_is_done(key):
        run.clear_task(key)
        return
    started = time.monotonic()
    folder.mkdir(parents=True, exist_ok=True)
    remove_parts(folder)
    model = plan.config.model(key.model)
    rows = fold_rows(plan, key)
    fit = fit_frozen if model.strategy == "head" else fit_network
    outcome = fit(Work(plan, key, model, rows), progress)
    predictions = _predict(plan.opened, rows, outcome, key)
    may_write()
    write_bytes(folder / "model.safetensors", outcome.weights)
    write_text(folder / HISTORY_FILE, pd.DataFrame(outcome.fitted.history).to_csv(index=False))
    for which, table in predictions.items():
        table.save(folder / PREDICTION_FILES[which])
    result = _result(plan, key, model, rows, outcome) | {
        "wall_s": round(time.monotonic() - started, 3),
        "ended": now(),
        "log": _last_lines(run.task_log(key)),
    }
    may_write()
    write_json(folder / RESULT_FILE, result)
    run.clear_task(key)


def _last_lines(path: Path) -> list[str]:
    """Return the end of a log; none where the task was not started by a worker, which keeps one."""
    if not path.is_file():
        return []
    return path.read_text(encoding="utf-8", errors="replace").splitlines()[-_LOG_LINES:]


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
    plan.run.features_log(model_name).unlink(missing_ok=True)


def _n_groups(plan: Plan, rows: NDArray[np.int64]) -> int | None:
    """Count the animals (or images) among some rows; None where folds are drawn over cells."""
    group_by = plan.folds.group_by
    return None if group_by == "cell" else int(plan.opened.cells[group_by].iloc[rows].nunique())


def _predict(opened: OpenStudy, rows: FoldRows, outcome: Trained, key: TaskKey) -> dict[PredictionSet, Predictions]:
    """Ask the network about cells it was not trained on; those of the stopping fold serve calibration."""
    wanted: list[tuple[PredictionSet, NDArray[np.int64], str, Predict | None]] = [
        ("test", rows.test, DEVELOPMENT, outcome.predict_tta),
        ("external", rows.external, EXTERNAL, outcome.predict_tta),
        ("validation", rows.stop, DEVELOPMENT, None),
    ]
    return {
        which: Predictions(
            cell_id=opened.cells["cell_id"].to_numpy(dtype=str)[row_n],
            prob_nk=outcome.predict(row_n),
            label_n=opened.labels[row_n],
            class_names=opened.study.class_names,
            model=key.model,
            fold=key.fold,
            seed=key.seed,
            set=set_name,
            tta_nk=None if predict_tta is None else predict_tta(row_n),
        )
        for which, row_n, set_name, predict_tta in wanted
        if len(row_n)
    }


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
        "processes": current_team().size,
        "device": str(device_of(None)),
        "platform": provenance()["platform"],
        "versions": versions(),
    }
