"""Uncertainty: the bootstrap over clusters and, where nothing ties cells together, Wilson's interval.

Cells of one animal share its brain, its stain and its grader, so they are not independent. A bootstrap draw therefore
takes whole animals with replacement (Field & Welsh 2007, doi:10.1111/j.1467-9868.2007.00593.x). No draw copies a cell:
each is a row of counts, how often every cluster was taken, and all metrics follow from sums per cluster.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from functools import lru_cache

import numpy as np
import pandas as pd
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
    squared_error,
    true_class_loss,
)
from perikarya.evaluate.ranks import rank_cells, rank_draws

SUBJECT, IMAGE, CELL = "subject", "image_id", "cell"
UNIT_WORDS = {SUBJECT: "subjects", IMAGE: "images", CELL: "cells"}
MIN_CLUSTERS = 3  # two clusters give a range, not an interval
MIN_DEFINED = 0.9  # share of draws in which a score must exist: a class seen in fewer than three clusters falls below
SAME = 1e-12  # draws that differ by less differ by rounding only
CHUNK_VALUES = 4_000_000  # counts a chunk of draws may hold: 32 MB

Strata = tuple[int, ...]  # per cluster, the stratum it is drawn within


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


def strata_of(cells: pd.DataFrame, clusters: Clusters) -> Strata:
    """Give each cluster a stratum, its treatment group, for draws that keep the number of clusters of every group.

    A cluster with cells of several groups belongs to the stratum of just those groups, and cells without a group are
    a group of their own. A stratum of one cluster would be drawn the same each time and hide its uncertainty; such
    strata are joined, the last one left with the smallest other (collapsed strata of survey sampling).
    """
    group_n, names = pd.factorize(cells["group"].astype(object).where(cells["group"].notna(), ""), sort=True)
    absent_sg = np.ones((clusters.n_clusters, len(names)), bool)
    absent_sg[clusters.code_n, group_n] = False
    _, stratum_s = np.unique(absent_sg, axis=0, return_inverse=True)  # in the order of the groups' names
    stratum_s = stratum_s.ravel()
    sizes = np.bincount(stratum_s)
    alone = np.flatnonzero(sizes == 1)
    if len(alone) == 1 and len(sizes) > 1:
        sizes[alone] = clusters.n_clusters
        alone = np.append(alone, sizes.argmin())
    stratum_s[np.isin(stratum_s, alone)] = alone[0] if len(alone) else 0
    return tuple(np.unique(stratum_s, return_inverse=True)[1].tolist())


@lru_cache(maxsize=8)
def draw_counts(n_clusters: int, *, n_draws: int, seed: int, strata: Strata | None = None) -> Floats:
    """Draw clusters with replacement, within strata where they are given.

    Returns
    -------
    Shape (n_draws, n_clusters), read-only: how often each draw takes each cluster; rows sum to ``n_clusters``.
    Equal arguments give equal draws, so that scores of several models can be compared draw by draw.
    """
    counts = np.concatenate(list(_draws(n_clusters, n_draws, seed, strata)))
    counts.setflags(write=False)
    return counts


def draw_chunks(n_clusters: int, *, n_draws: int, seed: int, strata: Strata | None = None) -> Iterator[Floats]:
    """Yield the rows of ``draw_counts`` in chunks of at most 32 MB, for clusters too many to hold all draws at once."""
    if n_clusters * n_draws <= CHUNK_VALUES:
        yield draw_counts(n_clusters, n_draws=n_draws, seed=seed, strata=strata)
    else:
        yield from _draws(n_clusters, n_draws, seed, strata)


def _draws(n_clusters: int, n_draws: int, seed: int, strata: Strata | None) -> Iterator[Floats]:
    rng = np.random.default_rng([seed, n_clusters])
    stratum_s = np.asarray(strata if strata is not None else np.zeros(n_clusters), np.int64)
    members = [np.flatnonzero(stratum_s == h) for h in np.unique(stratum_s)]
    step = max(1, CHUNK_VALUES // n_clusters)
    for start in range(0, n_draws, step):
        n_rows = min(step, n_draws - start)
        counts = np.empty((n_rows, n_clusters))
        for inside in members:
            m = len(inside)
            taken = rng.integers(0, m, (n_rows, m))
            taken += m * np.arange(n_rows)[:, None]
            counts[:, inside] = np.bincount(taken.ravel(), minlength=n_rows * m).reshape(n_rows, m)
        yield counts


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
    return tally_chunks(label_n, prob_nk, cluster_n, [counts_bs], n_clusters=counts_bs.shape[1])


def tally_chunks(
    label_n: Ints, prob_nk: Floats, cluster_n: Ints, chunks: Iterable[Floats], *, n_clusters: int
) -> Tally:
    """Sum up draws that come in chunks of shape (some draws, n_clusters); otherwise as ``tally_draws``."""
    check_scores(label_n, prob_nk)
    n_classes = prob_nk.shape[1]

    def sums(kind_n: Ints, n_kinds: int, value_n: Floats | None = None) -> Floats:
        total = np.bincount(cluster_n * n_kinds + kind_n, value_n, minlength=n_clusters * n_kinds)
        return np.asarray(total.reshape(n_clusters, n_kinds), np.float64)

    kinds = label_n * n_classes + prob_nk.argmax(axis=1)
    confusion = sums(kinds, n_classes**2)
    loss = sums(label_n, n_classes, true_class_loss(label_n, prob_nk))
    gap = sums(confidence_bins(prob_nk.max(axis=1)), N_BINS, confidence_gap(label_n, prob_nk))
    square = sums(np.zeros_like(label_n), 1, squared_error(label_n, prob_nk))[:, 0]
    ranked = [rank_cells(label_n == k, prob_nk[:, k], cluster_n) for k in range(n_classes)]

    def tally(counts_bs: Floats) -> Tally:
        orders = [rank_draws(r, counts_bs) for r in ranked]
        return Tally(
            confusion=(counts_bs @ confusion).reshape(-1, n_classes, n_classes),
            loss_sum=counts_bs @ loss,
            gap_sum=counts_bs @ gap,
            square_sum=counts_bs @ square,
            auc=np.stack([auc for auc, _ in orders], axis=1),
            ap=np.stack([ap for _, ap in orders], axis=1),
        )

    return _joined([tally(counts_bs) for counts_bs in chunks])


def _joined(tallies: list[Tally]) -> Tally:
    names = [f.name for f in fields(Tally)]
    return Tally(**{name: np.concatenate([getattr(t, name) for t in tallies]) for name in names})


def percentile_interval(
    draws_b: Floats, *, confidence: float, n_clusters: int, n_strata: int = 1
) -> tuple[float, float] | None:
    """Return the expanded percentile interval of the draws in which a number, such as a difference, exists.

    Plain percentiles are too narrow for few clusters, as a normal interval without Student's t would be; so the tails
    are taken further out, as for a mean of ``n_clusters`` values (Hesterberg 2015, The American Statistician 69:371).
    Scores have bounds and skewed draws; theirs are in ``evaluate.intervals``.

    None where it is missing from more than a tenth of them, for the few clusters that decide it say nothing of
    others, where all draws agree: resampling cannot tell how far a perfect score is from certain; and where there are
    no more clusters than strata.
    """
    defined = draws_b[~np.isnan(draws_b)]
    df = n_clusters - n_strata
    if len(draws_b) == 0 or len(defined) < MIN_DEFINED * len(draws_b) or df < 1:
        return None
    if float(np.ptp(defined)) < SAME:
        return None
    quantile = float(student_t.ppf(0.5 + confidence / 2, df))
    tail = float(norm.cdf(-np.sqrt(n_clusters / df) * quantile))
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
