"""Which rows of a study one training uses, and what it brings back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class FoldRows:
    """Row numbers of the study's table: who trains, who stops, who tests; ``external`` is only ever predicted."""

    train: Rows
    stop: Rows
    test: Rows
    external: Rows


@dataclass
class Fitted:
    """A trained network or head, and how it got there.

    ``history`` has one mapping per epoch (or per penalty); ``tensors`` holds what goes into ``model.safetensors``.
    """

    history: list[dict[str, float]]
    best_epoch: int
    tensors: dict[str, Any]
    n_params: int


def loss_and_accuracy(
    prob_nk: NDArray[np.float64], label_n: NDArray[np.int64], class_names: tuple[str, ...], *, prefix: str
) -> dict[str, float]:
    """Return cross-entropy and accuracy overall and per class, named as the columns of ``history.csv``.

    A class without cells yields NaN.
    """
    hit_n = prob_nk.argmax(axis=1) == label_n
    loss_n = -np.log(np.clip(prob_nk[np.arange(len(label_n)), label_n], 1e-12, None))
    out = {f"{prefix}_loss": float(loss_n.mean()), f"{prefix}_accuracy": float(hit_n.mean())}
    for k, name in enumerate(class_names):
        of_class = label_n == k
        out[f"{prefix}_loss_{name}"] = float(loss_n[of_class].mean()) if of_class.any() else float("nan")
        out[f"{prefix}_accuracy_{name}"] = float(hit_n[of_class].mean()) if of_class.any() else float("nan")
    return out


def class_weights(label_n: NDArray[np.int64], n_classes: int, *, method: str) -> NDArray[np.float32]:
    """Return one weight per class: all 1, or ``balanced``: inverse to the class's share, mean 1 over cells."""
    if method == "none":
        return np.ones(n_classes, np.float32)
    counts = np.bincount(label_n, minlength=n_classes)
    present = counts > 0
    weights = np.zeros(n_classes)
    weights[present] = len(label_n) / (present.sum() * counts[present])
    return weights.astype(np.float32)
