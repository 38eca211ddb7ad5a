"""Make probabilities mean what they say: temperature, vector and isotonic scaling, from probabilities alone.

Logits are log p, so a model needs to hand over nothing but its probabilities. Temperature scaling (Guo et al. 2017,
arXiv:1706.04599) divides all logits by one number and never changes the predicted class; vector scaling gives every
class a scale and an offset (Platt's two numbers, per class); isotonic scaling replaces each class's probability by a
rising step curve, class against the others, then makes rows sum to 1 (Zadrozny & Elkan 2002,
doi:10.1145/775047.775151).

What keeps a fit from saying more than its cells can: scales and offsets carry a normal prior (``PRIOR_SD``), so that
classes which happen to be told apart perfectly do not send the scale to infinity; a step of an isotonic curve stays
1 / (n + 2) away from 0 and 1 (Laplace's rule of succession); too few cells are refused; and a class with too few cells
is left out of the fit (``Calibration.unfitted``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.optimize import isotonic_regression, minimize

from perikarya.errors import DataError
from perikarya.evaluate.calibration_map import Calibration as Calibration
from perikarya.evaluate.calibration_map import Curve, log_of, softmax
from perikarya.evaluate.metrics import Floats, Ints, check_scores
from perikarya.registry import Registry

MIN_CELLS_OF_CLASS = 10  # two numbers per class ask for several cells each; vector and isotonic scaling
PRIOR_SD = 1.0  # of a log scale and of an offset: within a factor of seven for 95 %, the weight of a cell or two
DECIMALS = 7  # of probabilities, stored as float32: what differs by less is equal to an isotonic curve


@dataclass(frozen=True)
class Method:
    """A way to calibrate: its name in words, the fewest cells it takes and the fit itself."""

    title: str
    min_cells: int
    fit: Callable[[Floats, Ints], Calibration]


METHODS: Registry[Method] = Registry("method of calibration")


def fit_calibration(method: str, prob_nk: Floats, label_n: Ints) -> Calibration:
    """Fit a calibration to labelled cells the network was not trained on.

    Parameters
    ----------
    method
        A name in ``METHODS``.
    prob_nk
        Shape (n_cells, n_classes), rows sum to 1.
    label_n
        Shape (n_cells,), codes of the true classes.

    Raises
    ------
    DataError
        If the cells are too few: the fit would follow their chance.
    UnknownNameError
        If there is no such method.
    """
    chosen = METHODS.get(method)
    check_scores(label_n, prob_nk)
    if len(label_n) < chosen.min_cells:
        raise DataError(
            f"{len(label_n)} validation cell(s) are too few for {chosen.title.lower()}, which takes at least "
            f"{chosen.min_cells}: it would follow their chance.\nFix: fewer folds, or more labelled cells."
        )
    return chosen.fit(np.asarray(prob_nk, np.float64), label_n)


def _fit_temperature(prob_nk: Floats, label_n: Ints) -> Calibration:
    n_classes = prob_nk.shape[1]
    log_scale, _ = _fit_scales(log_of(prob_nk), label_n, shared=True)
    scale = (float(np.exp(log_scale[0])),) * n_classes
    return Calibration("temperature", len(label_n), scale, (0.0,) * n_classes)


def _fit_vector(prob_nk: Floats, label_n: Ints) -> Calibration:
    """Fit among the classes with enough cells, for of the others nothing can be said."""
    fitted = _fitted_classes(label_n, prob_nk.shape[1])
    used = np.isin(label_n, fitted)
    log_scale, offset = _fit_scales(
        log_of(prob_nk[used][:, fitted]), np.searchsorted(fitted, label_n[used]), shared=False
    )
    scales, offsets = np.full(prob_nk.shape[1], log_scale.mean()), np.zeros(prob_nk.shape[1])
    scales[fitted], offsets[fitted] = log_scale, offset
    return Calibration(
        "vector",
        len(label_n),
        tuple(np.exp(scales).tolist()),
        tuple(offsets.tolist()),
        unfitted=_others(fitted, prob_nk.shape[1]),
    )


def _fit_isotonic(prob_nk: Floats, label_n: Ints) -> Calibration:
    n_classes = prob_nk.shape[1]
    fitted = _fitted_classes(label_n, n_classes)
    as_it_is: Curve = ((0.0, 1.0), (0.0, 1.0))
    return Calibration(
        "isotonic",
        len(label_n),
        curves=tuple(_rising(prob_nk[:, k], label_n == k) if k in fitted else as_it_is for k in range(n_classes)),
        unfitted=_others(fitted, n_classes),
    )


METHODS.add("temperature", Method("Temperature scaling", 30, _fit_temperature))
METHODS.add("vector", Method("Vector scaling", 100, _fit_vector))
METHODS.add("isotonic", Method("Isotonic scaling", 100, _fit_isotonic))


def _fitted_classes(label_n: Ints, n_classes: int) -> Ints:
    fitted = np.flatnonzero(np.bincount(label_n, minlength=n_classes) >= MIN_CELLS_OF_CLASS)
    if len(fitted) < 2:
        raise DataError(
            f"Only {len(fitted)} class(es) have {MIN_CELLS_OF_CLASS} validation cells or more; calibration per class "
            "needs two.\nFix: temperature scaling, fewer folds, or more labelled cells."
        )
    return fitted.astype(np.int64)


def _others(fitted: Ints, n_classes: int) -> tuple[int, ...]:
    return tuple(sorted(set(range(n_classes)) - set(fitted.tolist())))


def _fit_scales(logit_nk: Floats, label_n: Ints, *, shared: bool) -> tuple[Floats, Floats]:
    """Find log scales and offsets of the largest posterior: log loss plus the prior's squares.

    ``shared``: one scale for all classes and no offsets. Returns two arrays of shape (n_classes,).
    """
    n_classes = logit_nk.shape[1]
    truth_nk = np.eye(n_classes)[label_n]

    def split(free: Floats) -> tuple[Floats, Floats]:
        return (np.repeat(free, n_classes), np.zeros(n_classes)) if shared else (free[:n_classes], free[n_classes:])

    def loss(free: Floats) -> tuple[float, Floats]:
        log_scale, offset = split(free)
        scaled = np.exp(log_scale) * logit_nk
        prob = softmax(scaled + offset)
        excess = prob - truth_nk
        likelihood = np.maximum(np.take_along_axis(prob, label_n[:, None], axis=1), np.finfo(float).tiny)
        by_scale = (excess * scaled).sum(axis=0)
        slope = np.array([by_scale.sum()]) if shared else np.concatenate([by_scale, excess.sum(axis=0)])
        return float(-np.log(likelihood).sum() + 0.5 * (free**2).sum() / PRIOR_SD**2), slope + free / PRIOR_SD**2

    bounds = [(-5.0, 5.0)] * (1 if shared else n_classes) + [(None, None)] * (0 if shared else n_classes)
    found = minimize(loss, np.zeros(len(bounds)), jac=True, method="L-BFGS-B", bounds=bounds)
    return split(np.asarray(found.x, np.float64))


def _rising(prob_n: Floats, positive_n: Floats) -> Curve:
    """Fit the rising curve nearest to the labels by pooling adjacent violators; equal probabilities share a value."""
    x, group_n = np.unique(np.round(prob_n, DECIMALS), return_inverse=True)
    weight = np.bincount(group_n)
    share = np.bincount(group_n, positive_n) / weight
    y = isotonic_regression(share, weights=weight).x
    room = 1.0 / (len(prob_n) + 2)
    y = np.clip(y, room, 1.0 - room)
    level = np.zeros(len(y), bool)
    level[1:-1] = (y[1:-1] == y[:-2]) & (y[1:-1] == y[2:])  # corners alone carry the curve
    return tuple(x[~level].tolist()), tuple(y[~level].tolist())
