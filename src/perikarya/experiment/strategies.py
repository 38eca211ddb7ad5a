"""What a task does between its rows and its files: fit a head to frozen features, or train the network."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import save as serialize_numpy
from safetensors.torch import save as serialize_torch

from perikarya.config import ModelConfig
from perikarya.data.augment import resize_batch
from perikarya.data.resampling import epoch_rows
from perikarya.data.store import OpenStudy
from perikarya.data.synthetic import synthesise_crops, synthesise_features, with_synthetic
from perikarya.errors import RunError
from perikarya.experiment.plan import Plan
from perikarya.models.build import CellNetwork, build_feature_extractor, build_network, n_parameters
from perikarya.models.embed import embed
from perikarya.models.feature_cache import load_features
from perikarya.models.weights import WeightsFile
from perikarya.runs import TaskKey
from perikarya.settings import SMOTE_FAMILY
from perikarya.train.distributed import current_team
from perikarya.train.engine import finetune
from perikarya.train.head import fit_head, predict_head
from perikarya.train.inference import predict_rows
from perikarya.train.rows import Fitted, FoldRows
from perikarya.train.session import FineTuning

Progress = Callable[[int, int], None]  # (done, total)
Predict = Callable[[NDArray[np.int64]], NDArray[np.float32]]  # row numbers -> probabilities, (n_rows, n_classes)
_TIMED_SINGLE, _TIMED_BATCH = 12, 128  # cells in the two timings
_EMBED_BATCH = 64


@dataclass(frozen=True)
class Work:
    """What a strategy is given; ``rows.train`` are resampled, held-out rows never are."""

    plan: Plan
    key: TaskKey
    model: ModelConfig
    rows: FoldRows


@dataclass(frozen=True)
class Trained:
    """What a strategy hands back.

    ``weights`` is the content of ``model.safetensors``, ``predict`` maps rows to probabilities by one view of each
    cell, ``predict_tta`` by several where test-time augmentation is asked for; ``inference`` holds seconds per cell,
    alone and in a batch, of one view; ``n_synthetic`` counts invented training cells, ``n_train`` all of them.
    """

    fitted: Fitted
    weights: bytes
    predict: Predict
    inference: dict[str, float]
    n_train: int
    n_synthetic: int = 0
    predict_tta: Predict | None = None
    n_views: int = 1


def device_of(index: int | None) -> torch.device:
    """Return the GPU of that index, or the CPU where there is none."""
    return torch.device("cuda", index or 0) if torch.cuda.is_available() else torch.device("cpu")


def input_px_of(model: ModelConfig) -> int:
    """Return the side of a model's input; the configuration must have been made definite."""
    if model.input_px is None:
        raise RunError(f"Model {model.name} has no input size; its configuration was not resolved.")
    return model.input_px


def fit_frozen(work: Work, progress: Progress) -> Trained:
    """Fit a linear head to the cached features of the frozen network."""
    plan, model, opened = work.plan, work.model, work.plan.opened
    weights, input_px = plan.weights[model.name], input_px_of(model)
    features = load_features(opened, arch=model.arch, weights=weights, input_px=input_px, channels=model.channels)
    torch.manual_seed(0)  # the random weights, where they are asked for, that the cached features come from
    network = build_feature_extractor(model.arch, weights=weights, input_px=input_px)
    network = network.to(memory_format=torch.channels_last)

    def features_of(crops: NDArray[np.uint8]) -> NDArray[np.float16]:
        parts = [crops[i : i + _EMBED_BATCH] for i in range(0, len(crops), _EMBED_BATCH)]
        found = [embed(network, resize_batch(part, input_px), channels=model.channels) for part in parts]
        return np.concatenate(found) if found else np.empty((0, features.shape[1]), np.float16)

    resample, seed = plan.config.resample_of(model), seed_of(work.key)
    train, extra = work.rows.train, None
    if resample.method in SMOTE_FAMILY:
        train, extra = _invented(features, work, features_of)
    else:
        train = epoch_rows(opened.labels, train, config=resample, seed=seed, epoch=0)
    fitted = fit_head(
        features,
        labels=opened.labels,
        train=train,
        stop=work.rows.stop,
        class_names=opened.study.class_names,
        config=plan.config.head_of(model),
        progress=progress,
        extra=extra,
    )
    fitted.n_params += n_parameters(network)

    def from_crops(crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        found = features_of(crops)
        return predict_head(fitted.tensors, found, np.arange(len(found)))

    n_new = 0 if extra is None else len(extra[1])
    return Trained(
        fitted=fitted,
        weights=serialize_numpy(fitted.tensors, metadata=_label_of(model, weights)),
        predict=partial(predict_head, fitted.tensors, features),
        inference=_timings(opened, from_crops),
        n_train=len(train) + n_new,
        n_synthetic=n_new,
    )


def _invented(
    features: NDArray[np.float16], work: Work, features_of: Callable[[NDArray[np.uint8]], NDArray[np.float16]]
) -> tuple[NDArray[np.int64], tuple[NDArray[np.float32], NDArray[np.int64]]]:
    """Return the real rows to train on and the invented cells: between features, or of invented crops."""
    opened, config, seed = work.plan.opened, work.plan.config.resample_of(work.model), seed_of(work.key)
    if config.space == "pixels":
        crops = synthesise_crops(opened, work.rows.train, config=config, seed=seed)
        return crops.kept, (features_of(crops.crops_new).astype(np.float32), crops.labels_new)
    made = synthesise_features(
        features,
        opened.labels,
        work.rows.train,
        class_names=opened.study.class_names,
        config=config,
        seed=seed,
    )
    return made.kept, (made.features_new, made.labels_new)


def fit_network(work: Work, progress: Progress) -> Trained:
    """Train the network itself, all of it or the parts the strategy names."""
    plan, model, opened = work.plan, work.model, work.plan.opened
    settings, input_px = plan.config.train_of(model), input_px_of(model)
    network, job, fitted = train_network(work, progress)
    network.eval()

    def predict(wanted: NDArray[np.int64], *, views: int) -> NDArray[np.float32]:
        return predict_rows(network, opened, wanted, input_px=input_px, tta_n=views, device=job.device)

    return Trained(
        fitted=fitted,
        weights=serialize_torch(fitted.tensors, _label_of(model, plan.weights[model.name])),
        predict=partial(predict, views=1),
        predict_tta=partial(predict, views=settings.tta_views) if settings.tta_views > 1 else None,
        n_views=settings.tta_views,
        inference=_timings(opened, partial(_probabilities, network, input_px, job.device)),
        n_train=len(job.rows.train),
        n_synthetic=int((job.rows.train >= len(opened.cells)).sum()),
    )


def train_network(work: Work, progress: Progress) -> tuple[CellNetwork, FineTuning, Fitted]:
    """Build the network of a task and train it; in a team of processes, all of them do this."""
    plan, key, model, opened = work.plan, work.key, work.model, work.plan.opened
    settings, resample = plan.config.train_of(model), plan.config.resample_of(model)
    input_px, seed = input_px_of(model), seed_of(key)
    source, train = with_synthetic(opened, work.rows.train, config=resample, seed=seed)
    torch.manual_seed(seed)
    network = build_network(
        model.arch,
        n_classes=len(opened.study.class_names),
        weights=plan.weights[model.name],
        mask_init=model.mask_init,
        channels=model.channels,
        input_px=input_px,
        ordinal=settings.loss == "ordinal",
    )
    job = FineTuning(
        opened=opened,
        rows=FoldRows(train=train, stop=work.rows.stop, test=work.rows.test, external=work.rows.external),
        train=settings,
        augment=plan.config.augment_of(model),
        input_px=input_px,
        seed=seed,
        fingerprint=f"{plan.config.content_hash()}|{opened.data_hash}|{key}",
        device=device_of(current_team().rank),
        strategy=_as_strategy(model),
        resample=resample,
        train_source=source,
    )
    return network, job, finetune(network, job, state_path=plan.run.task(key) / "state.pt", progress=progress)


def _as_strategy(model: ModelConfig) -> Any:
    if model.strategy in ("auto", "head"):
        raise RunError(f"Model {model.name} has strategy '{model.strategy}', which trains no network.")
    return model.strategy


def _probabilities(
    network: CellNetwork, input_px: int, device: torch.device, crops: NDArray[np.uint8]
) -> NDArray[np.float32]:
    x_nchw = torch.from_numpy(resize_batch(crops, input_px)).permute(0, 3, 1, 2).to(device)
    with torch.inference_mode():
        out: NDArray[np.float32] = torch.softmax(network(x_nchw), dim=1).cpu().numpy()
    return out


def _label_of(model: ModelConfig, weights: WeightsFile) -> dict[str, str]:
    """Say what the tensors are of, and under which licence the weights they come from were published."""
    label = {
        "arch": model.arch,
        "strategy": model.strategy,
        "channels": model.channels,
        "input_px": model.input_px,
        "weights": weights.source,
        "weights_licence": weights.licence,
        "weights_sha256": weights.sha256,
    }
    # one entry only: safetensors writes several in an order that changes from process to process
    return {"perikarya": json.dumps(label, sort_keys=True)}


def seed_of(key: TaskKey) -> int:
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
