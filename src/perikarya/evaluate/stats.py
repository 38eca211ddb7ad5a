"""Uncertainty: the bootstrap over clusters and, where nothing ties cells together, Wilson's interval.

Cells of one animal share its brain, its stain and its grader, so they are not independent. A bootstrap draw therefore
takes whole animals with replacement (Field & Welsh 2007, doi:10.1111/j.1467-9868.2007.00593.x). No draw copies a cell:
each is a row of counts, how often every cluster was taken, and all metrics follow from sums per cluster.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import norm
from scipy.stats import t as student_t

from perikarya.evaluate.metrics import (
    N_BINS,
    Floats,
    Ints,
    Tally,
    check_scores,
    confidence_bins,
    confidence_gap,
    true_class_loss,
)

SUBJECT, IMAGE, CELL = "subject", "image_id", "cell"
UNIT_WORDS = {SUBJECT: "subjects", IMAGE: "images", CELL: "cells"}
MIN_CLUSTERS = 3  # two clusters give a range, not an interval
MIN_DEFINED = 0.9  # share of draws in which a score must exist: a class seen in fewer than three clusters falls below
PAIR_COST = (
    120  # clusters squared per cell above which a pass over the cells is cheaper than pairs of clusters (measured)
)
SAME = 1e-12  # draws that differ by less differ by rounding only
_CHUNK_VALUES = 4_000_000  # values a chunk of draws may hold: 32 MB


@dataclass(frozen=True)
class Clusters:
    """Which cells were drawn together: ``code_n`` has shape (n_cells,), codes 0 to ``n_clusters`` - 1."""

    unit: str
    code_n: Ints
    n_clusters: int


def interval_unit(cells: pd.DataFrame) -> str:
    """Choose the experimental unit of some cells: subjects where all are known, else images, else the cells.

    Images tie cells together only where one holds several.
    """
    if len(cells) and cells["subject"].notna().all():
        return SUBJECT
    return IMAGE if cells["image_id"].nunique() < len(cells) else CELL


def clusters_of(cells: pd.DataFrame, unit: str) -> Clusters:
    """Number the clusters of some cells; the codes follow the sorted names, not the order of the rows."""
    if unit == CELL:
        return Clusters(unit, np.arange(len(cells), dtype=np.int64), len(cells))
    names, code_n = np.unique(cells[unit].to_numpy(dtype=str), return_inverse=True)
    return Clusters(unit, code_n.astype(np.int64), len(names))


@lru_cache(maxsize=4)
def draw_counts(n_clusters: int, *, n_draws: int, seed: int) -> Floats:
    """Draw clusters with replacement.

    Returns
    -------
    Shape (n_draws, n_clusters), read-only: how often each draw takes each cluster; rows sum to ``n_clusters``.
    Equal arguments give equal draws, so that scores of several models can be compared draw by draw.
    """
    rng = np.random.default_rng([seed, n_clusters])
    taken = rng.integers(0, n_clusters, (n_draws, n_clusters))
    taken += n_clusters * np.arange(n_draws)[:, None]
    counts = np.bincount(taken.ravel(), minlength=n_draws * n_clusters).reshape(n_draws, n_clusters).astype(np.float64)
    counts.setflags(write=False)
    return counts


def tally_draws(label_n: Ints, prob_nk: Floats, cluster_n: Ints, counts_bs: Floats) -> Tally:
    """Sum up each draw of clusters.

    Parameters
    ----------
    label_n
        Shape (n_cells,), codes of the true classes.
    prob_nk
        Shape (n_cells, n_classes).
    cluster_n
        Shape (n_cells,), codes of the clusters, below ``counts_bs.shape[1]``.
    counts_bs
        Shape (n_draws, n_clusters), how often each draw takes each cluster; any non-negative weights will do.
    """
    check_scores(label_n, prob_nk)
    n_classes, n_clusters = prob_nk.shape[1], counts_bs.shape[1]

    def per_draw(kind_n: Ints, n_kinds: int, value_n: Floats | None = None) -> Floats:
        sums = np.bincount(cluster_n * n_kinds + kind_n, value_n, minlength=n_clusters * n_kinds)
        return np.asarray(counts_bs @ sums.reshape(n_clusters, n_kinds).astype(np.float64))

    kinds = label_n * n_classes + prob_nk.argmax(axis=1)
    bins = confidence_bins(prob_nk.max(axis=1))
    auc = [auc_draws(label_n == k, prob_nk[:, k], cluster_n, counts_bs) for k in range(n_classes)]
    return Tally(
        confusion=per_draw(kinds, n_classes**2).reshape(-1, n_classes, n_classes),
        loss_sum=per_draw(label_n, n_classes, true_class_loss(label_n, prob_nk)),
        gap_sum=per_draw(bins, N_BINS, confidence_gap(label_n, prob_nk)),
        auc=np.stack(auc, axis=1),
    )


def auc_draws(positive_n: NDArray[np.bool_], score_n: Floats, cluster_n: Ints, counts_bs: Floats) -> Floats:
    """Return the area under the ROC curve of each draw, ties counting half, shape (n_draws,); NaN where undefined."""
    n_clusters = counts_bs.shape[1]
    n_positive = counts_bs @ np.bincount(cluster_n[positive_n], minlength=n_clusters).astype(np.float64)
    n_negative = counts_bs @ np.bincount(cluster_n[~positive_n], minlength=n_clusters).astype(np.float64)
    if n_clusters**2 <= PAIR_COST * len(positive_n):
        pairs_ss = _pair_matrix(positive_n, score_n, cluster_n, n_clusters)
        wins = np.einsum("bs,bs->b", counts_bs @ pairs_ss, counts_bs)
    else:
        wins = _wins_by_pass(positive_n, score_n, cluster_n, counts_bs)
    n_pairs = n_positive * n_negative
    return np.where(n_pairs > 0, wins / np.where(n_pairs > 0, n_pairs, 1.0), np.nan)


def _pair_matrix(positive_n: NDArray[np.bool_], score_n: Floats, cluster_n: Ints, n_clusters: int) -> Floats:
    """Count won pairs: [s, t] = positives of cluster s that outscore negatives of cluster t, ties half."""
    negative = np.flatnonzero(~positive_n)
    negative = negative[np.argsort(score_n[negative], kind="stable")]
    below = np.zeros((len(negative) + 1, n_clusters))
    below[np.arange(1, len(negative) + 1), cluster_n[negative]] = 1.0
    np.cumsum(below, axis=0, out=below)
    positive = np.flatnonzero(positive_n)
    first = np.searchsorted(score_n[negative], score_n[positive], side="left")
    last = np.searchsorted(score_n[negative], score_n[positive], side="right")
    member = np.zeros((len(positive), n_clusters))
    member[np.arange(len(positive)), cluster_n[positive]] = 0.5
    return np.asarray(member.T @ (below[first] + below[last]))


def _wins_by_pass(positive_n: NDArray[np.bool_], score_n: Floats, cluster_n: Ints, counts_bs: Floats) -> Floats:
    """Count won pairs of each draw by cumulated weights over the sorted negatives, some draws at a time."""
    negative = np.flatnonzero(~positive_n)
    negative = negative[np.argsort(score_n[negative], kind="stable")]
    positive = np.flatnonzero(positive_n)
    first = np.searchsorted(score_n[negative], score_n[positive], side="left")
    last = np.searchsorted(score_n[negative], score_n[positive], side="right")
    wins = np.empty(len(counts_bs))
    step = max(1, _CHUNK_VALUES // max(1, len(positive_n)))
    for start in range(0, len(counts_bs), step):
        weight = counts_bs[start : start + step]
        below = np.zeros((len(weight), len(negative) + 1))
        np.cumsum(weight[:, cluster_n[negative]], axis=1, out=below[:, 1:])
        won = below[:, first]
        won += below[:, last]
        wins[start : start + step] = 0.5 * np.einsum("bp,bp->b", weight[:, cluster_n[positive]], won)
    return wins


def percentile_interval(draws_b: Floats, *, confidence: float, n_clusters: int) -> tuple[float, float] | None:
    """Return the expanded percentile interval of the draws in which the score exists.

    Plain percentiles are too narrow for few clusters, as a normal interval without Student's t would be; so the tails
    are taken further out, as for a mean of ``n_clusters`` values (Hesterberg 2015, The American Statistician 69:371).

    None where it is missing from more than a tenth of them, for the few clusters that decide it say nothing of
    others, and where all draws agree: resampling cannot tell how far a perfect score is from certain.
    """
    defined = draws_b[~np.isnan(draws_b)]
    if len(draws_b) == 0 or len(defined) < MIN_DEFINED * len(draws_b):
        return None
    if float(np.ptp(defined)) < SAME:
        return None
    quantile = float(student_t.ppf(0.5 + confidence / 2, n_clusters - 1))
    tail = float(norm.cdf(-np.sqrt(n_clusters / (n_clusters - 1)) * quantile))
    low, high = np.quantile(defined, [tail, 1.0 - tail])
    return float(low), float(high)


def wilson_interval(share: float, n: float, *, confidence: float) -> tuple[float, float] | None:
    """Return Wilson's score interval of ``share`` of ``n`` independent trials (Wilson 1927); None without trials."""
    if n <= 0 or np.isnan(share):
        return None
    z = float(norm.ppf(0.5 + confidence / 2))
    centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * float(np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2)))
    return max(0.0, centre - half), min(1.0, centre + half)
