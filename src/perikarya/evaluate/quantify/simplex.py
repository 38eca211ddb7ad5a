"""Small quadratic problems on the simplex, thousands at a time: shares that are not negative and sum to 1."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from perikarya.evaluate.metrics import Floats

_RIDGE = 1e-10  # relative to the matrix: a singular draw gets an answer instead of an exception
_TOLERANCE = 1e-10
_MAX_STEPS_PER_CLASS = 20


def minimise_on_simplex(quadratic_bkk: Floats, linear_bk: Floats) -> Floats:
    """Minimise p'Qp / 2 - c'p over all p with p >= 0 and sum 1, exactly, for every problem of a batch.

    A primal active-set method (Nocedal & Wright 2006, Numerical Optimization, algorithm 16.3), in step for the whole
    batch: go to the minimum on the classes that are free; where it lies outside, stop at the border and fix that class
    at 0; at a minimum inside, free the class whose multiplier is most negative, or end.

    Parameters
    ----------
    quadratic_bkk
        Shape (n_problems, n_classes, n_classes), positive semidefinite.
    linear_bk
        Shape (n_problems, n_classes).

    Returns
    -------
    Shape (n_problems, n_classes), rows sum to 1.
    """
    n_problems, n_classes = linear_bk.shape
    quadratic_bkk = _definite(quadratic_bkk)
    share_bk = np.full((n_problems, n_classes), 1.0 / n_classes)
    free_bk = np.ones((n_problems, n_classes), dtype=bool)
    open_b = np.arange(n_problems)
    for _ in range(_MAX_STEPS_PER_CLASS * n_classes):
        if not len(open_b):
            break
        share, free, done = _step(quadratic_bkk[open_b], linear_bk[open_b], share_bk[open_b], free_bk[open_b])
        share_bk[open_b], free_bk[open_b] = share, free
        open_b = open_b[~done]
    return np.asarray(share_bk / share_bk.sum(axis=1, keepdims=True))


def _step(
    quadratic_bkk: Floats, linear_bk: Floats, share_bk: Floats, free_bk: NDArray[np.bool_]
) -> tuple[Floats, NDArray[np.bool_], NDArray[np.bool_]]:
    """Move every problem by one step; return the shares, the free classes and which problems have ended."""
    target_bk, level_b = _free_minimum(quadratic_bkk, linear_bk, free_bk)
    blocks_bk = free_bk & (target_bk < 0)
    blocked_b = blocks_bk.any(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        reach_bk = np.where(blocks_bk, share_bk / (share_bk - target_bk), np.inf)
    first_b = reach_bk.argmin(axis=1)
    reach_b = np.where(blocked_b, reach_bk.min(axis=1), 1.0)
    share_bk = share_bk + reach_b[:, None] * (target_bk - share_bk)
    rows = np.arange(len(share_bk))
    free_bk = free_bk.copy()
    free_bk[rows[blocked_b], first_b[blocked_b]] = False
    share_bk = np.where(free_bk, np.maximum(share_bk, 0.0), 0.0)
    slope_bk = np.einsum("bij,bj->bi", quadratic_bkk, share_bk) - linear_bk - level_b[:, None]
    scale_b = np.abs(linear_bk).max(axis=1) + 1.0
    slope_bk = np.where(free_bk, np.inf, slope_bk)
    done_b = ~blocked_b & (slope_bk.min(axis=1) >= -_TOLERANCE * scale_b)
    freed_b = ~blocked_b & ~done_b
    free_bk[rows[freed_b], slope_bk.argmin(axis=1)[freed_b]] = True
    return share_bk, free_bk, done_b


def _free_minimum(quadratic_bkk: Floats, linear_bk: Floats, free_bk: NDArray[np.bool_]) -> tuple[Floats, Floats]:
    """Minimise over the free classes with sum 1 alone; return the minimum and the multiplier of the sum."""
    n_problems, n_classes = linear_bk.shape
    system = np.zeros((n_problems, n_classes + 1, n_classes + 1))
    system[:, :n_classes, :n_classes] = quadratic_bkk * (free_bk[:, :, None] & free_bk[:, None, :])
    diagonal = np.arange(n_classes)
    system[:, diagonal, diagonal] += ~free_bk
    system[:, :n_classes, n_classes] = -1.0 * free_bk
    system[:, n_classes, :n_classes] = free_bk
    right = np.concatenate([linear_bk * free_bk, np.ones((n_problems, 1))], axis=1)
    solved = np.linalg.solve(system, right[:, :, None])[:, :, 0]
    return solved[:, :n_classes], solved[:, n_classes]


def project(point_bk: Floats) -> Floats:
    """Return the nearest shares that are not negative and sum to 1, shape (n_problems, n_classes)."""
    identity = np.eye(point_bk.shape[1])
    return minimise_on_simplex(np.broadcast_to(identity, (len(point_bk), *identity.shape)), point_bk)


def sources(matrix_bkk: Floats, observed_bk: Floats) -> tuple[Floats, Floats]:
    """Find the true shares p behind observed shares: the least squares solution of C'p = observed.

    Parameters
    ----------
    matrix_bkk
        Shape (n_problems, n_classes, n_classes): [true, predicted], rows sum to 1.
    observed_bk
        Shape (n_problems, n_classes), rows sum to 1.

    Returns
    -------
    Twice shape (n_problems, n_classes), rows sum to 1: on the simplex, none negative, for a statement about one
    animal; and free, where few cells may give a negative share, for means over animals: what is cut off at 0 in single
    animals pulls their mean inwards.
    """
    quadratic_bkk = matrix_bkk @ matrix_bkk.transpose(0, 2, 1)
    linear_bk = np.einsum("bij,bj->bi", matrix_bkk, observed_bk)
    free_bk, _ = _free_minimum(_definite(quadratic_bkk), linear_bk, np.ones(linear_bk.shape, dtype=bool))
    inside_bk = free_bk.copy()
    outside_b = (free_bk < 0).any(axis=1)
    inside_bk[outside_b] = minimise_on_simplex(quadratic_bkk[outside_b], linear_bk[outside_b])
    return inside_bk, free_bk


def _definite(quadratic_bkk: Floats) -> Floats:
    trace_b = np.trace(quadratic_bkk, axis1=1, axis2=2)
    ridge_b = _RIDGE * trace_b + np.finfo(float).tiny
    return np.asarray(quadratic_bkk + ridge_b[:, None, None] * np.eye(quadratic_bkk.shape[1]))
