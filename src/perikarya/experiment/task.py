"""One task: a model, a seed and a test fold, from rows to files. ``result.json`` is written last and whole."""

from __future__ import annotations

import logging
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from safetensors.numpy import save as serialize_numpy
from safetensors.torch import save as serialize_torch

from perikarya.config import ModelConfig
from perikarya.data.augment import resize_batch
from perikarya.data.resampling import resample_rows
from perikarya.data.splits import rows_of
from perikarya.data.store import OpenStudy
from perikarya.errors import RunError
from perikarya.experiment.plan import Plan
from perikarya.models.build import build_feature_extractor, build_network, n_parameters
from perikarya.models.embed import compute_features, embed, load_features
from perikarya.runs import TaskKey, provenance, versions, write_bytes, write_json, write_text
from perikarya.schema import EXTERNAL, SCHEMA_VERSION, Predictions
from perikarya.train.engine import FineTuning, finetune, predict_rows
from perikarya.train.head import fit_head, predict_head
from perikarya.train.rows import Fitted, FoldRows

log = logging.getLogger(__name__)

Progress = Callable[[int, int], None]  # (done, total)
Predict = Callable[[NDArray[np.int64]], NDArray[np.float32]]  # row numbers -> probabilities
_TIMED_SINGLE, _TIMED_BATCH = 12, 128  # cells in the two timings


@dataclass(frozen=True)
class _Work:
    """What a strategy is given."""

    plan: Plan
    key: TaskKey
    model: ModelConfig
    rows: FoldRows


@dataclass(frozen=True)
class _Outcome:
    """What a strategy hands back: the fit, its weights as bytes, a way to predict rows, seconds per cell."""

    fitted: Fitted
    weights: bytes
    predict: Predict
    inference: dict[str, float]


def device_of(index: int | None) -> torch.device:
    """Return the GPU of that index, or the CPU where there is none."""
    return torch.device("cuda", index or 0) if torch.cuda.is_available() else torch.device("cpu")


def fold_rows(plan: Plan, key: TaskKey) -> FoldRows:
    """Return the rows of one task; training rows are resampled, held-out rows never are."""
    config, opened = plan.config, plan.opened
    single = config.cv.scheme == "single"
    roles = plan.folds.roles_single() if single else plan.folds.roles(key.fold)
    ids = opened.cells["cell_id"]
    train = rows_of(ids, roles.train)
    if len(train) < 2:
        raise RunError(f"{key}: {len(train)} cell(s) are left to train on. Fix: fewer folds, or more cells.")
    return FoldRows(
        train=resample_rows(opened.labels, train, config=config.resample, seed=key.seed),
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
    strategy = _head_strategy if model.strategy == "head" else _finetune_strategy
    outcome = strategy(_Work(plan, key, model, rows), progress)
    write_bytes(folder / "model.safetensors", outcome.weights)
    write_text(folder / "history.csv", pd.DataFrame(outcome.fitted.history).to_csv(index=False))
    for name, wanted, set_name in (("predictions", rows.test, "development"), ("external", rows.external, EXTERNAL)):
        if len(wanted):
            _predictions(plan.opened, wanted, outcome, key, set_name).save(folder / f"{name}.parquet")
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
        input_px=_input_px(model),
        progress=progress,
    )


def _input_px(model: ModelConfig) -> int:
    if model.input_px is None:
        raise RunError(f"Model {model.name} has no input size; its configuration was not resolved.")
    return model.input_px


def _head_strategy(work: _Work, progress: Progress) -> _Outcome:
    plan, model, rows = work.plan, work.model, work.rows
    weights, input_px = plan.weights[model.name], _input_px(model)
    features = load_features(plan.opened, arch=model.arch, weights=weights, input_px=input_px)
    fitted = fit_head(
        features,
        labels=plan.opened.labels,
        train=rows.train,
        stop=rows.stop,
        class_names=plan.opened.study.class_names,
        config=plan.config.head_of(model),
        progress=progress,
    )
    torch.manual_seed(0)
    network = build_feature_extractor(model.arch, weights=weights).to(memory_format=torch.channels_last)
    fitted.n_params += n_parameters(network)

    def from_crops(crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        found = embed(network, resize_batch(crops, input_px))
        return predict_head(fitted.tensors, found, np.arange(len(found)))

    return _Outcome(
        fitted=fitted,
        weights=serialize_numpy(fitted.tensors, metadata=_label_of(model)),
        predict=partial(predict_head, fitted.tensors, features),
        inference=_timings(plan.opened, from_crops),
    )


def _finetune_strategy(work: _Work, progress: Progress) -> _Outcome:
    plan, key, model = work.plan, work.key, work.model
    opened, device, input_px = plan.opened, device_of(None), _input_px(model)
    settings = plan.config.train_of(model)
    torch.manual_seed(_mix(key))
    network = build_network(
        model.arch,
        n_classes=len(opened.study.class_names),
        weights=plan.weights[model.name],
        mask_init=model.mask_init,
    )
    job = FineTuning(
        opened=opened,
        rows=work.rows,
        train=settings,
        augment=plan.config.augment,
        input_px=input_px,
        seed=_mix(key),
        fingerprint=f"{plan.config.content_hash()}|{opened.data_hash}|{key}",
        device=device,
    )
    fitted = finetune(network, job, state_path=plan.run.task(key) / "state.pt", progress=progress)

    def predict(wanted: NDArray[np.int64]) -> NDArray[np.float32]:
        return predict_rows(network, opened, wanted, input_px=input_px, tta_n=settings.tta_views, device=device)

    def from_crops(crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        x_nchw = torch.from_numpy(resize_batch(crops, input_px)).permute(0, 3, 1, 2).to(device)
        with torch.inference_mode():
            out: NDArray[np.float32] = torch.softmax(network(x_nchw), dim=1).cpu().numpy()
        return out

    network.eval()
    return _Outcome(fitted, serialize_torch(fitted.tensors, _label_of(model)), predict, _timings(opened, from_crops))


def _label_of(model: ModelConfig) -> dict[str, str]:
    # one entry only: safetensors writes several in an order that changes from process to process
    return {"perikarya": f"{model.strategy} {model.arch} {model.input_px}"}


def _mix(key: TaskKey) -> int:
    """Give each fold its own random numbers, the same ones for every model."""
    return int(np.random.SeedSequence([key.seed, key.fold]).generate_state(1)[0])


def _timings(opened: OpenStudy, from_crops: Callable[[NDArray[np.uint8]], NDArray[np.float32]]) -> dict[str, float]:
    """Time a cell from its crop to its probabilities, in seconds: alone (median) and in a batch, one view."""
    rows = np.arange(min(_TIMED_BATCH, len(opened.cells)))
    crops = opened.read_crops(rows)
    single = []
    for i in range(min(_TIMED_SINGLE, len(rows))):
        start = time.perf_counter()
        from_crops(crops[i : i + 1])
        single.append(time.perf_counter() - start)
    start = time.perf_counter()
    from_crops(crops)
    return {"batch1": float(np.median(single)), "batched": (time.perf_counter() - start) / len(rows)}


def _predictions(
    opened: OpenStudy, rows: NDArray[np.int64], outcome: _Outcome, key: TaskKey, set_name: str
) -> Predictions:
    return Predictions(
        cell_id=opened.cells["cell_id"].to_numpy(dtype=str)[rows],
        prob_nk=outcome.predict(rows),
        label_n=opened.labels[rows],
        class_names=opened.study.class_names,
        model=key.model,
        fold=key.fold,
        seed=key.seed,
        set=set_name,
    )


def _result(plan: Plan, key: TaskKey, model: ModelConfig, rows: FoldRows, outcome: _Outcome) -> dict[str, Any]:
    weights = plan.weights[model.name]
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {
        "schema_version": SCHEMA_VERSION,
        "model": key.model,
        "arch": model.arch,
        "strategy": model.strategy,
        "input_px": model.input_px,
        "fold": key.fold,
        "seed": key.seed,
        "config_hash": plan.config.content_hash(),
        "data_hash": plan.opened.data_hash,
        "best_epoch": outcome.fitted.best_epoch,
        "n_epochs": len(outcome.fitted.history),
        "n_train": len(rows.train),
        "n_stop": len(rows.stop),
        "n_test": len(rows.test),
        "n_external": len(rows.external),
        "n_params": outcome.fitted.n_params,
        "inference_s_per_cell": outcome.inference,
        "peak_memory_mib": round(peak_mib, 1),
        "weights": {"source": weights.source, "sha256": weights.sha256, "licence": weights.licence},
        "threads": torch.get_num_threads(),
        "device": str(device_of(None)),
        "platform": provenance()["platform"],
        "versions": versions(),
    }
