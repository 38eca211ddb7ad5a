"""A network of a finished run, read from its files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from perikarya.config import ExperimentConfig, ModelConfig
from perikarya.errors import RunError, WeightsError
from perikarya.models.build import CellNetwork, build_feature_extractor, restore_network
from perikarya.models.frozen_head import FrozenHead
from perikarya.models.weights import resolve_weights
from perikarya.runs import RunFolder, TaskKey

if TYPE_CHECKING:
    from torch import Tensor


def trained_network(
    run: RunFolder, key: TaskKey, config: ExperimentConfig, *, n_classes: int, weights_sha256: str
) -> CellNetwork:
    """Build the network of a finished task again, ready for inference: pixels of whole crops in, logits out.

    Parameters
    ----------
    run, key
        The run and the task.
    config
        The run's resolved configuration.
    n_classes
        Of the study.
    weights_sha256
        Of the pretrained weights the task started from; a head needs the very same ones.

    Raises
    ------
    RunError
        If the task's ``model.safetensors`` is missing or damaged.
    WeightsError
        If its tensors are not of that network, or the weights below a head are not here or not the same.
    """
    model = config.model(key.model)
    if model.input_px is None:
        raise RunError(f"Model {model.name} has no input size; {run.config} was not resolved by 'perikarya train'.")
    tensors = _read(run.task(key) / "model.safetensors")
    if model.strategy == "head":
        return _with_head(model, tensors, model.input_px, weights_sha256=weights_sha256)
    return restore_network(
        model.arch,
        tensors,
        n_classes=n_classes,
        channels=model.channels,
        input_px=model.input_px,
        ordinal=config.train_of(model).loss == "ordinal",
    )


def _with_head(model: ModelConfig, tensors: dict[str, Tensor], input_px: int, *, weights_sha256: str) -> FrozenHead:
    weights = resolve_weights(model.arch, model.weights)
    if weights.sha256 != weights_sha256:
        raise WeightsError(
            f"The weights of {model.arch} on this machine ({weights.source}, SHA-256 {weights.sha256[:12] or 'none'}) "
            f"are not those that the head of {model.name} was fitted on ({weights_sha256[:12] or 'none'}).\n"
            "On other features the head means nothing. Fix: get the weights the run was trained with, or train again."
        )
    torch.manual_seed(0)  # random weights, where they were asked for, are those of the cached features
    extractor = build_feature_extractor(model.arch, weights=weights, input_px=input_px)
    return FrozenHead(extractor, tensors, channels=model.channels).eval().requires_grad_(False)


def _read(path: Path) -> dict[str, Tensor]:
    try:
        tensors: dict[str, Tensor] = load_file(path)
    except (SafetensorError, OSError) as error:
        reason = "does not exist" if not path.exists() else f"cannot be read ({str(error).splitlines()[0]})"
        raise RunError(
            f"{path} {reason}; it should hold the trained network.\n"
            "Without its weights a network cannot be asked where it looks. "
            "Fix: copy the file from where the run was trained, or delete the task's folder and train it again."
        ) from None
    return tensors
