"""In which order cells are worth a person's look: disagreement, then doubt, and never two of a kind in a row.

The worth of a cell is the probability, as the networks that were not trained on it see it, that its record is wrong:
one minus the probability of its label (the self-confidence of confident learning, Northcutt, Jiang & Chuang 2021,
doi:10.1613/jair.1.12125, which ranks wrong labels best: docs/label_quality.md), and for a cell without a label one
minus the largest probability (least confidence, Lewis & Gale 1994, arXiv:cmp-lg/9407020). A confident contradiction
comes near 1, a toss-up between two classes near 1/2, agreement near 0.

By worth alone the head of the queue would be many cells of one kind, and a person learns little from the tenth of them.
So the queue is built one cell after the other, each time taking the one of largest *worth times distance* to the cells
taken before: the greedy choice of k-centre coresets (Sener & Savarese 2018, arXiv:1708.00489), weighted by worth.
Distances are shares of what is usual between neighbours and count up to 1: cells that are not unusually alike keep all
their worth, and a copy keeps a quarter of it, for its record is wrong all the same. On 2,504 red blood cells with 125
labels changed by chance the first 100 places hold 79 to 83 of the changed ones, as many as by worth alone; with ten
near-copies of twenty of them added, 79 to 83 different ones, where by worth alone there are 10
(benchmarks/review_queue.py).

Without any model all records are worth the same, those that lack a label come first, and chance decides before distance
does, so that nobody reads one animal after the other.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from perikarya.schema import NO_LABEL

N_SPREAD = 5_000  # cells at the head of the queue that are kept unlike; nobody reads more in one go
_LEAST_USUAL = 0.25  # of the distance between any two cells; see ``usual_distance``
_KEPT = 0.25  # of its worth, by a cell that is a copy of one before it
_BLOCK = 1_024  # rows of a distance matrix in memory at once
_SEED = 0

Floats = NDArray[np.float64]
Floats32 = NDArray[np.float32]


def worth_of(prob_nk: NDArray[np.floating[Any]], label_n: NDArray[np.integer[Any]]) -> Floats:
    """Return the probability that each record is wrong, shape (n_cells,).

    Parameters
    ----------
    prob_nk
        Held-out probabilities, shape (n_cells, n_classes); NaN rows where no network was asked.
    label_n
        Codes of the labels, shape (n_cells,), ``NO_LABEL`` where there is none.

    Returns
    -------
    Between 0 and 1; NaN where no network was asked.
    """
    own = np.take_along_axis(prob_nk, np.maximum(label_n, 0)[:, None].astype(np.intp), axis=1)[:, 0]
    return np.asarray(1.0 - np.where(label_n == NO_LABEL, prob_nk.max(axis=1), own), np.float64)


def worth_by_chance(label_n: NDArray[np.integer[Any]]) -> Floats:
    """Return what cells are worth where no model was asked, shape (n_cells,); those without a label more than others.

    Between 0 and 1; differences between others are by chance, from a fixed seed.
    """
    chance_n = np.random.default_rng(_SEED).random(len(label_n))
    return np.where(label_n == NO_LABEL, 0.99, 0.98) + 0.01 * chance_n


def queue_order(worth_n: Floats, points_nd: Floats32 | None = None) -> NDArray[np.int64]:
    """Order all cells by worth, the first ones so that each differs from those before it.

    Parameters
    ----------
    worth_n
        Shape (n_cells,); the order of equal ones is that of the rows. NaN comes last.
    points_nd
        What the likeness of the most worthy cells is measured in, shape (n_spread, n_dimensions), its rows in the
        order of ``by_worth(worth_n)[:n_spread]``; None: by worth alone.

    Returns
    -------
    Rows, shape (n_cells,).
    """
    order = by_worth(worth_n)
    if points_nd is None or len(points_nd) < 2:
        return order
    head = order[: len(points_nd)]
    spread = spread_order(np.nan_to_num(worth_n[head]), points_nd)
    return np.concatenate([head[spread], order[len(head) :]])


def by_worth(worth_n: Floats) -> NDArray[np.int64]:
    """Order all cells by worth alone, shape (n_cells,); equal ones in the order of the rows, NaN last."""
    return np.argsort(-worth_n, kind="stable").astype(np.int64)


def spread_order(worth_m: Floats, points_md: Floats32) -> NDArray[np.int64]:
    """Order cells by worth times distance to those before, greedily; shape (m,), positions.

    Takes m steps of m distances each: 5,000 cells in 32 dimensions take about a second.

    Parameters
    ----------
    worth_m
        Shape (m,), finite, 0 or more.
    points_md
        Shape (m, n_dimensions); Euclidean distances count.
    """
    m = len(worth_m)
    squares = (points_md**2).sum(axis=1)
    usual = usual_distance(points_md)
    nearness = np.full(m, np.inf, np.float32)  # squared distance to the nearest cell that was taken
    left = np.ones(m, np.bool_)
    taken = np.empty(m, np.int64)
    for i in range(m):
        kept = np.clip(np.sqrt(np.maximum(nearness, 0.0)) / usual, _KEPT, 1.0) if usual > 0 else 1.0
        gain = np.where(left, worth_m * kept, -1.0)
        best = int(gain.argmax())
        taken[i], left[best] = best, False
        np.minimum(nearness, squares + squares[best] - 2.0 * (points_md @ points_md[best]), out=nearness)
    return taken


def usual_distance(points_md: Floats32) -> float:
    """Return the median distance of cells to their nearest neighbour, and at least a quarter of that to any other.

    The latter, as root mean square, holds where most cells have copies, so that copies are not what is usual.
    """
    squares = (points_md**2).sum(axis=1)
    nearest = np.empty(len(points_md), np.float32)
    for start in range(0, len(points_md), _BLOCK):
        part = slice(start, start + _BLOCK)
        squared = squares[part, None] + squares[None] - 2.0 * (points_md[part] @ points_md.T)
        nearest[part] = np.partition(squared, 1, axis=1)[:, 1]  # its own distance, 0, is the first
    usual = float(np.median(np.sqrt(np.maximum(nearest, 0.0))))
    to_any = float(np.sqrt(2.0 * points_md.var(axis=0).sum()))
    return max(usual, _LEAST_USUAL * to_any)
