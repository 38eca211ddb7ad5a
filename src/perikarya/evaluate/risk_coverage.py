"""The error of the cells that are kept against the share that is kept, most confident first.

Cells of equal confidence cannot be told apart, so keeping some of them keeps their errors in proportion: every number
here is the mean over all orders of tied cells and does not depend on the order of rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import digamma

from perikarya.evaluate.metrics import Floats, Ints
from perikarya.evaluate.outputs import Scored

N_GROUPS = 100  # of confidence, in which the cells of bootstrap draws are ordered


@dataclass(frozen=True)
class RiskCurve:
    """Cells and errors by confidence, from the highest to the lowest, one entry per distinct confidence.

    All of shape (n_distinct,): ``confidence_g``, and how many cells and errors have at least that (cumulated).
    """

    confidence_g: Floats
    kept_g: Floats
    wrong_g: Floats


def curve_of(confidence_n: Floats, wrong_n: Floats) -> RiskCurve:
    """Return the curve of some cells; ``wrong_n`` is 1 for an error and 0 otherwise, shape (n_cells,)."""
    falling_g, group_n = np.unique(-confidence_n, return_inverse=True)
    kept = np.cumsum(np.bincount(group_n)).astype(np.float64)
    return RiskCurve(-falling_g, kept, np.cumsum(np.bincount(group_n, wrong_n)))


def risk_at(curve: RiskCurve, share: Floats) -> Floats:
    """Return the error of the most confident ``share`` of the cells (above 0, up to 1); shape as ``share``."""
    n_kept = share * curve.kept_g[-1]
    return np.asarray(np.interp(n_kept, np.append(0.0, curve.kept_g), np.append(0.0, curve.wrong_g)) / n_kept)


def aurc(curve: RiskCurve) -> float:
    """Return the area under the curve: the mean error over keeping 1, 2, ... all cells (Geifman & El-Yaniv 2017).

    arXiv:1705.08500; 0 is a model that is never wrong. A model whose confidence says nothing has its error rate.
    """
    cells_g, wrong_g = np.diff(curve.kept_g, prepend=0.0), np.diff(curve.wrong_g, prepend=0.0)
    return float(aurc_of_groups(cells_g, wrong_g))


def aurc_of_groups(cells: Floats, wrong: Floats) -> Floats:
    """Return the area under the curve from cells and errors in groups of falling confidence.

    Parameters
    ----------
    cells
        Shape (..., n_groups); weights need not be whole.
    wrong
        Shape (..., n_groups), errors among them.

    Returns
    -------
    Shape (...). A group of m cells with e errors that follows n cells with E errors adds, over j = 1..m, the expected
    errors (E + j e / m) / (n + j), which is e + (E - n e / m) (H(n + m) - H(n)) with harmonic numbers H.
    """
    after = np.cumsum(cells, axis=-1)
    wrong_before = np.cumsum(wrong, axis=-1) - wrong
    rate = np.divide(wrong, cells, out=np.zeros_like(after), where=cells > 0)
    grown = np.diff(digamma(after + 1.0), axis=-1, prepend=digamma(1.0))  # harmonic numbers, but for a constant
    summed = (wrong + (wrong_before - (after - cells) * rate) * grown).sum(-1)
    return np.asarray(summed / np.maximum(after[..., -1], 1.0))


def risk_sums(scored: Scored, cluster_n: Ints, n_clusters: int) -> Floats:
    """Count cells and errors by cluster in groups of falling confidence, then all cells.

    Returns shape (n_clusters, 2 * N_GROUPS + 1).
    """
    confidence = scored.prob_nk.max(axis=1)
    wrong = (scored.prob_nk.argmax(axis=1) != scored.label_n).astype(np.float64)
    edges = np.quantile(confidence, np.arange(1, N_GROUPS) / N_GROUPS)
    group = N_GROUPS - 1 - np.searchsorted(edges, confidence, side="right")
    place = cluster_n * N_GROUPS + group
    tables = [np.bincount(place, values, minlength=n_clusters * N_GROUPS) for values in (None, wrong)]
    n_cells = np.bincount(cluster_n, minlength=n_clusters)[:, None]
    return np.hstack([*(t.reshape(n_clusters, N_GROUPS) for t in tables), n_cells]).astype(np.float64)


def aurc_of_sums(sums: Floats) -> Floats:
    """Return the area under the curve from what ``risk_sums`` counted, shape (..., 2 * N_GROUPS + 1) to (1, ...)."""
    return aurc_of_groups(sums[..., :N_GROUPS], sums[..., N_GROUPS:-1])[None]


def threshold_for(confidence_n: Floats, wrong_n: Floats, *, error: float) -> float | None:
    """Return the confidence that keeps most cells with an error of at most ``error``; 0 where all may be kept.

    None where nothing does, or where fewer than 3 / ``error`` cells are kept: with none of n cells wrong, the error may
    still be as large as 3 / n (rule of three, Hanley & Lippman-Hand 1983, doi:10.1001/jama.1983.03330370053031).
    """
    curve = curve_of(confidence_n, wrong_n)
    good = np.flatnonzero((curve.wrong_g <= error * curve.kept_g) & (curve.kept_g * error >= 3.0))
    if len(good) == 0:
        return None
    return 0.0 if good[-1] == len(curve.kept_g) - 1 else float(curve.confidence_g[good[-1]])
