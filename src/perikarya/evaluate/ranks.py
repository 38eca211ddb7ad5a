"""Scores that depend on the order of the cells, for thousands of draws at once: ROC AUC and average precision.

Both follow from sums per cluster over groups of cells with equal score, so no draw ever copies a cell. With few
clusters the sums are multiplied with the counts of all draws (two matrix products per class); with many, some draws at
a time walk over the sorted cells. Neither way holds more than a few chunks of 32 MB.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from perikarya.evaluate.metrics import Floats, Ints

MAX_PRODUCT_CLUSTERS = 500  # with more, a pass over the cells is cheaper than products over clusters (measured)
_CHUNK_VALUES = 4_000_000  # values a chunk may hold: 32 MB
_TILE = 64  # groups of equal score per product, so that 2,000 draws of them stay in the cache
_TINY = np.float32(1e-30)  # stands for "no cell drawn at or above this score", where the numerator is 0


@dataclass(frozen=True)
class Ranked:
    """Cells from the highest score to the lowest; ``group_n`` numbers the groups of equal score from 0."""

    positive_n: NDArray[np.bool_]
    cluster_n: Ints
    group_n: Ints
    n_groups: int


def rank_cells(positive_n: NDArray[np.bool_], score_n: Floats, cluster_n: Ints) -> Ranked:
    """Sort cells by score.

    Parameters
    ----------
    positive_n
        Shape (n_cells,): the cells that should score high.
    score_n
        Shape (n_cells,).
    cluster_n
        Shape (n_cells,), codes of the clusters.
    """
    order = np.argsort(-score_n, kind="stable")
    score = score_n[order]
    group_n = np.zeros(len(order), np.int64)
    np.cumsum(score[1:] != score[:-1], out=group_n[1:])
    return Ranked(positive_n[order], cluster_n[order], group_n, int(group_n[-1]) + 1 if len(order) else 0)


def rank_draws(ranked: Ranked, counts_bs: Floats) -> tuple[Floats, Floats]:
    """Score the order of the cells in each draw of clusters.

    Parameters
    ----------
    ranked
        The cells of the sample, from ``rank_cells``; cluster codes are below ``counts_bs.shape[1]``.
    counts_bs
        Shape (n_draws, n_clusters), how often each draw takes each cluster; any non-negative weights will do.

    Returns
    -------
    ROC AUC and average precision, each of shape (n_draws,): the AUC with ties counting half, NaN without one cell of
    each kind; the precision over distinct scores, NaN without a positive cell, exact to about 1e-7 (float32 ratios).
    """
    positive_s, negative_s = _per_cluster(ranked, counts_bs.shape[1])
    n_positive, n_negative = counts_bs @ positive_s, counts_bs @ negative_s
    by_product = len(positive_s) <= MAX_PRODUCT_CLUSTERS
    wins, gains = (_by_product if by_product else _by_pass)(ranked, counts_bs)
    n_pairs = n_positive * n_negative
    auc = np.where(n_pairs > 0, wins / np.where(n_pairs > 0, n_pairs, 1.0), np.nan)
    precision = np.where(n_positive > 0, gains / np.where(n_positive > 0, n_positive, 1.0), np.nan)
    return auc, precision


def _per_cluster(ranked: Ranked, n_clusters: int) -> tuple[Floats, Floats]:
    positive = np.bincount(ranked.cluster_n[ranked.positive_n], minlength=n_clusters)
    everything = np.bincount(ranked.cluster_n, minlength=n_clusters)
    return positive.astype(np.float64), (everything - positive).astype(np.float64)


def _by_product(ranked: Ranked, counts_bs: Floats) -> tuple[Floats, Floats]:
    """Return won pairs and summed precision at each positive, by products of counts with sums per cluster."""
    n_clusters = counts_bs.shape[1]
    lost_ss = np.zeros((n_clusters, n_clusters))  # [s, t]: negatives of t above positives of s, ties half
    gains = np.zeros(len(counts_bs))
    counts32 = counts_bs.astype(np.float32)
    for positive_gs, found_gs, called_gs, above_gs in _sums_by_group(ranked, n_clusters):
        lost_ss += positive_gs.T @ above_gs
        gains += _gains(counts32, positive_gs, found_gs, called_gs)
    pairs_ss = np.outer(*_per_cluster(ranked, n_clusters)) - lost_ss
    return np.einsum("bs,bs->b", counts_bs @ pairs_ss, counts_bs), gains


def _sums_by_group(ranked: Ranked, n_clusters: int) -> Iterator[tuple[Floats, Floats, Floats, Floats]]:
    """Yield, for chunks of the groups that hold a positive, counts by cluster, each of shape (n_groups, n_clusters).

    Positives in the group; positives at or above it; cells at or above it; negatives above it, its own counting half.
    """
    step = max(1, _CHUNK_VALUES // (8 * n_clusters))
    edges = np.searchsorted(ranked.group_n, np.arange(0, ranked.n_groups + step, step))
    positives_before, negatives_before = np.zeros(n_clusters), np.zeros(n_clusters)
    for i, (low, high) in enumerate(pairwise(edges)):
        n_groups = min(step, ranked.n_groups - i * step)
        place = (ranked.group_n[low:high] - i * step) * n_clusters + ranked.cluster_n[low:high]
        positive = ranked.positive_n[low:high]
        positive_gs, negative_gs = (
            np.bincount(place[kind], minlength=n_groups * n_clusters).reshape(n_groups, n_clusters).astype(np.float64)
            for kind in (positive, ~positive)
        )
        found_gs = positives_before + np.cumsum(positive_gs, axis=0)
        false_gs = negatives_before + np.cumsum(negative_gs, axis=0)
        positives_before, negatives_before = found_gs[-1], false_gs[-1]
        used = positive_gs.any(axis=1)
        above_gs = false_gs[used] - 0.5 * negative_gs[used]
        yield positive_gs[used], found_gs[used], found_gs[used] + false_gs[used], above_gs


def _gains(counts32: NDArray[np.float32], positive_gs: Floats, found_gs: Floats, called_gs: Floats) -> Floats:
    """Sum, for each draw, the precision at every positive cell: its weight times found / called."""
    total = np.zeros(len(counts32))
    weight, found, called = (np.ascontiguousarray(x.T, np.float32) for x in (positive_gs, found_gs, called_gs))
    for start in range(0, weight.shape[1], _TILE):
        tile = slice(start, start + _TILE)
        denominator = counts32 @ called[:, tile]
        np.maximum(denominator, _TINY, out=denominator)
        share = counts32 @ found[:, tile]
        np.divide(share, denominator, out=share)
        total += np.einsum("bg,bg->b", counts32 @ weight[:, tile], share)
    return total


def _by_pass(ranked: Ranked, counts_bs: Floats) -> tuple[Floats, Floats]:
    """Return won pairs and summed precision at each positive, by cumulated weights of some draws at a time."""
    wins, gains = np.zeros(len(counts_bs)), np.zeros(len(counts_bs))
    last = np.append(np.flatnonzero(np.diff(ranked.group_n)), len(ranked.group_n) - 1)  # of each group
    step = max(1, _CHUNK_VALUES // max(1, 16 * len(ranked.group_n)))
    for start in range(0, len(counts_bs), step):
        chunk = slice(start, start + step)
        weight = counts_bs[chunk][:, ranked.cluster_n]
        called = np.cumsum(weight, axis=1)[:, last]
        weight *= ranked.positive_n
        found = np.cumsum(weight, axis=1)[:, last]
        new = np.diff(found, axis=1, prepend=0.0)
        false = called - found
        above = false - 0.5 * np.diff(false, axis=1, prepend=0.0)
        wins[chunk] = found[:, -1] * false[:, -1] - np.einsum("bg,bg->b", new, above)
        found /= np.maximum(called, _TINY)
        gains[chunk] = np.einsum("bg,bg->b", new, found)
    return wins, gains
