"""Areas under ROC curves and their differences without resampling: DeLong, for cells alone and for cells in animals.

The placement of a cell is the share of cells of the other kind that it is on the right side of, ties counting half:
for a positive, the negatives that score lower; for a negative, the positives that score higher. The mean placement
of either kind is the area. DeLong, DeLong & Clarke-Pearson (1988, Biometrics 44:837) take its variance from the
variance of the placements, as if cells were independent; Obuchowski (1997, Biometrics 53:567) from their sums per
cluster, because cells of one animal are right and wrong together.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm, rankdata
from scipy.stats import t as student_t

from perikarya.evaluate.metrics import Floats, Ints
from perikarya.evaluate.stats import MIN_CLUSTERS, SAME

_SIDES: tuple[Literal["left", "right"], ...] = ("left", "right")  # below a score, and below or equal to it


@dataclass(frozen=True)
class Areas:
    """Areas of several models on the same cells, with how they vary together.

    Attributes
    ----------
    area_m
        Shape (n_models,).
    covariance_mm
        Shape (n_models, n_models); NaN where too few cells or clusters hold either kind.
    df
        Degrees of freedom of Student's t; infinite for the normal distribution.
    """

    area_m: Floats
    covariance_mm: Floats
    df: float

    def interval(self, model: int, *, confidence: float) -> tuple[float, float] | None:
        """Return an interval of one area, on the logit scale so that it stays between 0 and 1 (Pepe 2003, ch. 5).

        None where the variance is unknown or the area 0 or 1.
        """
        area, variance = float(self.area_m[model]), float(self.covariance_mm[model, model])
        if not (np.isfinite(variance) and SAME < area < 1 - SAME):
            return None
        half = self._quantile(confidence) * np.sqrt(variance) / (area * (1 - area))
        low, high = 1 / (1 + np.exp(-(np.log(area / (1 - area)) + np.array([-half, half]))))
        return float(low), float(high)

    def difference(self, a: int, b: int, *, confidence: float) -> tuple[float, tuple[float, float] | None, float]:
        """Return area of ``a`` minus area of ``b``, its interval and two-sided p value (NaN where unknown)."""
        gap, error = float(self.area_m[a] - self.area_m[b]), self.error_of_difference(a, b)
        if not np.isfinite(error):
            return gap, None, float("nan")
        if error < SAME:  # the same placements throughout
            return gap, None, 1.0 if abs(gap) < SAME else float("nan")
        half = self._quantile(confidence) * error
        ratio = abs(gap) / error
        p = 2 * float(norm.sf(ratio) if np.isinf(self.df) else student_t.sf(ratio, self.df))
        return gap, (gap - half, gap + half), p

    def error_of_difference(self, a: int, b: int) -> float:
        """Return the standard error of area of ``a`` minus area of ``b``; NaN where unknown."""
        c = self.covariance_mm
        return float(np.sqrt(np.maximum(c[a, a] + c[b, b] - 2 * c[a, b], 0.0)))

    def _quantile(self, confidence: float) -> float:
        tail = 0.5 + confidence / 2
        return float(norm.ppf(tail) if np.isinf(self.df) else student_t.ppf(tail, self.df))


def placements(positive_n: NDArray[np.bool_], score_n: Floats) -> Floats:
    """Return the placement of each cell, shape (n_cells,), by mid-ranks (Sun & Xu 2014, IEEE SPL 21:1389).

    There must be a positive and a negative cell.
    """
    rank_n = rankdata(score_n)
    n_positive = int(positive_n.sum())
    placement_n = np.empty(len(score_n))
    placement_n[positive_n] = (rank_n[positive_n] - rankdata(score_n[positive_n])) / (len(score_n) - n_positive)
    placement_n[~positive_n] = 1.0 - (rank_n[~positive_n] - rankdata(score_n[~positive_n])) / n_positive
    return placement_n


def delong(positive_n: NDArray[np.bool_], placement_mn: Floats) -> Areas:
    """Return areas and covariance as if cells were independent, from placements of shape (n_models, n_cells)."""
    kinds = (placement_mn[:, positive_n], placement_mn[:, ~positive_n])
    covariance = np.zeros((len(placement_mn), len(placement_mn)))
    for v in kinds:
        n = v.shape[1]
        centred = v - v.mean(axis=1, keepdims=True)
        covariance += centred @ centred.T / ((n - 1) * n) if n > 1 else np.nan
    return Areas(kinds[0].mean(axis=1), covariance, np.inf)


def delong_clustered(positive_n: NDArray[np.bool_], placement_mn: Floats, cluster_n: Ints) -> Areas:
    """Return areas and covariance for cells in clusters (Obuchowski 1997).

    Student's t takes the place of her normal distribution, with one degree of freedom less than there are clusters
    with cells of the rarer kind: the method was made for many clusters. With one cell per cluster the covariance is
    that of ``delong``.
    """
    n_clusters = int(cluster_n.max()) + 1
    area_m = placement_mn[:, positive_n].mean(axis=1)
    sums, totals, present = [], [], []
    for kind in (positive_n, ~positive_n):
        n_s = np.bincount(cluster_n[kind], minlength=n_clusters)
        own = np.stack([np.bincount(cluster_n[kind], v[kind], minlength=n_clusters) for v in placement_mn])
        sums.append((own - np.outer(area_m, n_s)) / n_s.sum())
        totals.append(n_s)
        present.append(int((n_s > 0).sum()))
    found, rejected = sums
    if min(present) < MIN_CLUSTERS:
        return Areas(area_m, np.full((len(area_m), len(area_m)), np.nan), 0)
    cross = found @ rejected.T * n_clusters / (n_clusters - 1)
    covariance = cross + cross.T
    for own, n in zip(sums, present, strict=True):
        covariance += own @ own.T * n / (n - 1)
    return Areas(area_m, covariance, min(present) - 1)


def macro_clustered(label_n: Ints, placement_kmn: Floats, cluster_n: Ints) -> Areas:
    """Return the mean area over classes, each against the others, for cells in clusters.

    The variance sums, per cluster, how far its placements of all classes pull the mean area (the linearisation behind
    Obuchowski's estimate, with all clusters counted alike).

    Parameters
    ----------
    label_n
        Shape (n_cells,), codes of the true classes; each class has cells.
    placement_kmn
        Shape (n_classes, n_models, n_cells).
    cluster_n
        Shape (n_cells,), codes from 0.
    """
    n_classes, n_models, _ = placement_kmn.shape
    n_clusters = int(cluster_n.max()) + 1
    pull_ms = np.zeros((n_models, n_clusters))
    area_m = np.zeros(n_models)
    for k, placement_mn in enumerate(placement_kmn):
        positive_n = label_n == k
        area = placement_mn[:, positive_n].mean(axis=1)
        weight_n = np.where(positive_n, 1 / positive_n.sum(), 1 / (~positive_n).sum()) / n_classes
        for m in range(n_models):
            pull_ms[m] += np.bincount(cluster_n, weight_n * (placement_mn[m] - area[m]), minlength=n_clusters)
        area_m += area / n_classes
    factor = n_clusters / (n_clusters - 1) if n_clusters >= MIN_CLUSTERS else np.nan
    return Areas(area_m, pull_ms @ pull_ms.T * factor, n_clusters - 1)


def won_pairs(positive_n: NDArray[np.bool_], score_n: Floats, cluster_n: Ints, n_clusters: int) -> Floats:
    """Count, per pair of clusters, how often a positive of the first outscores a negative of the second, ties half.

    Returns
    -------
    Shape (n_clusters, n_clusters). In a draw that takes clusters c_s times, the area is the sum of c_s c_t times these
    counts, divided by the drawn numbers of positives and negatives.
    """
    negative = np.flatnonzero(~positive_n)
    negative = negative[np.argsort(score_n[negative], kind="stable")]
    below = np.zeros((len(negative) + 1, n_clusters))
    below[np.arange(1, len(negative) + 1), cluster_n[negative]] = 0.5
    np.cumsum(below, axis=0, out=below)
    positive = np.flatnonzero(positive_n)
    positive = positive[np.argsort(cluster_n[positive], kind="stable")]
    beaten_ps = sum(below[np.searchsorted(score_n[negative], score_n[positive], side=s)] for s in _SIDES)
    present, first = np.unique(cluster_n[positive], return_index=True)
    won_ss = np.zeros((n_clusters, n_clusters))
    won_ss[present] = np.add.reduceat(beaten_ps, first, axis=0)
    return won_ss
