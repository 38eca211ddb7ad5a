"""The head route: a regularised linear classifier on frozen features.

One multinomial logistic regression per penalty, warm-started along the path from strong to weak; the penalty with
the best loss on the stopping fold is kept. scikit-learn does the fitting.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perikarya.config import HeadConfig
from perikarya.errors import TrainingError
from perikarya.train.rows import Fitted, class_weights, loss_and_accuracy

log = logging.getLogger(__name__)

_MAX_ITER = 300
_TOLERANCE = 1e-4
_BLOCK = 8192  # rows standardised at once at prediction


def fit_head(
    features: NDArray[np.float16],
    *,
    labels: NDArray[np.int64],
    train: NDArray[np.int64],
    stop: NDArray[np.int64],
    class_names: tuple[str, ...],
    config: HeadConfig,
    progress: Callable[[int, int], None],
    extra: tuple[NDArray[np.float32], NDArray[np.int64]] | None = None,
) -> Fitted:
    """Fit the head on the training rows and choose its penalty on the stopping rows.

    Parameters
    ----------
    features
        Shape (n_cells, n_features), float16, mapped.
    labels
        Shape (n_cells,), codes.
    train, stop
        Row numbers; training rows may repeat (resampling).
    extra
        Invented training cells: features, shape (n_new, n_features), in the units of ``features``, and their codes,
        shape (n_new,). They are trained on like the others; features are standardised by the real cells alone.

    Raises
    ------
    TrainingError
        If fewer than two classes are among the training cells.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    x_new, y_new = (None, np.empty(0, np.int64)) if extra is None else extra
    y_train, y_stop = np.concatenate([labels[train], y_new]), labels[stop]
    classes = np.unique(y_train)
    if len(classes) < 2:
        raise TrainingError("Only one class is among the training cells; there is nothing to tell apart.")
    mean, scale = _standardisation(features, train)
    x_train = _standardised(features, train, mean, scale, x_new=x_new)
    x_stop = _standardised(features, stop, mean, scale)
    weight_n = class_weights(y_train, len(class_names), method=config.class_weights)[y_train]
    model = LogisticRegression(max_iter=_MAX_ITER, tol=_TOLERANCE, warm_start=True)
    history: list[dict[str, float]] = []
    heads: list[tuple[NDArray[np.float32], NDArray[np.float32]]] = []
    for index, penalty in enumerate(sorted(config.penalties, reverse=True)):
        model.set_params(C=1.0 / (penalty * float(weight_n.sum())))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # an early stop only means a stronger penalty
            model.fit(x_train, y_train, sample_weight=weight_n)
        coef, intercept = _all_classes(model.coef_, model.intercept_, classes, len(class_names))
        row = {"epoch": float(index), "penalty": penalty}
        row |= loss_and_accuracy(_softmax(x_train @ coef.T + intercept), y_train, class_names, prefix="train")
        row |= loss_and_accuracy(_softmax(x_stop @ coef.T + intercept), y_stop, class_names, prefix="stop")
        history.append(row)
        heads.append((coef, intercept))
        progress(index + 1, len(config.penalties))
    best = min(range(len(heads)), key=lambda i: history[i]["stop_loss"])
    coef, intercept = heads[best]
    tensors = {"head.mean": mean, "head.scale": scale, "head.coef": coef, "head.intercept": intercept}
    return Fitted(history=history, best_epoch=best, tensors=tensors, n_params=coef.size + intercept.size)


def predict_head(
    tensors: dict[str, NDArray[np.float32]], features: NDArray[np.float16], rows: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Return probabilities of some rows, shape (len(rows), n_classes)."""
    out = np.empty((len(rows), len(tensors["head.intercept"])), np.float32)
    for start in range(0, len(rows), _BLOCK):
        block = rows[start : start + _BLOCK]
        x = _standardised(features, block, tensors["head.mean"], tensors["head.scale"])
        out[start : start + len(block)] = _softmax(x @ tensors["head.coef"].T + tensors["head.intercept"])
    return out


def _standardisation(
    features: NDArray[np.float16], rows: NDArray[np.int64]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mean and standard deviation of each feature, in blocks; constant features keep a scale of 1."""
    total = np.zeros(features.shape[1])
    squares = np.zeros(features.shape[1])
    for start in range(0, len(rows), _BLOCK):
        block = np.asarray(features[rows[start : start + _BLOCK]], np.float64)
        total += block.sum(axis=0)
        squares += (block**2).sum(axis=0)
    mean = total / len(rows)
    sd = np.sqrt(np.maximum(squares / len(rows) - mean**2, 0))
    sd[sd < 1e-6] = 1.0
    return mean.astype(np.float32), sd.astype(np.float32)


def _standardised(
    features: NDArray[np.float16],
    rows: NDArray[np.int64],
    mean: NDArray[np.float32],
    scale: NDArray[np.float32],
    *,
    x_new: NDArray[np.float32] | None = None,
) -> NDArray[np.float32]:
    n_new = 0 if x_new is None else len(x_new)
    x = np.empty((len(rows) + n_new, features.shape[1]), np.float32)
    for start in range(0, len(rows), _BLOCK):
        block = rows[start : start + _BLOCK]
        x[start : start + len(block)] = features[block]
    if x_new is not None:
        x[len(rows) :] = x_new
    x -= mean
    x /= scale
    return x


def _all_classes(
    coef: NDArray[Any], intercept: NDArray[Any], classes: NDArray[np.int64], n_classes: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Give classes without training cells a probability of practically 0, and two classes one row each."""
    if len(classes) == 2 and len(coef) == 1:
        coef, intercept = np.vstack([-coef / 2, coef / 2]), np.concatenate([-intercept / 2, intercept / 2])
    full = np.zeros((n_classes, coef.shape[1]), np.float32)
    offset = np.full(n_classes, -30.0, np.float32)
    full[classes], offset[classes] = coef, intercept
    return full, offset


def _softmax(logit_nk: NDArray[np.float32]) -> NDArray[np.float64]:
    z = logit_nk.astype(np.float64)
    z -= z.max(axis=1, keepdims=True)
    e = np.exp(z)
    out: NDArray[np.float64] = e / e.sum(axis=1, keepdims=True)
    return out
