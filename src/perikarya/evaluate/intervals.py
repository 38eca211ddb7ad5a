"""Intervals of scores from few animals of unequal size.

A percentile interval of 8 or 12 animals is too narrow three times over: the bootstrap divides by n where n - 1 is due,
a normal quantile stands where Student's t is due, and an animal with many cells counts for more than one. On a bounded
scale it also leans the wrong way. So the quantiles of the draws are taken on the logit scale and moved away from the
estimate by the quotient of the two quantiles and of the jackknife's standard error and the draws'. For a mean of equal
animals this is the t interval; docs/uncertainty.md shows how often it holds the truth.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import norm
from scipy.stats import t as student_t

from perikarya.config import EvaluateConfig
from perikarya.evaluate.jackknife import Influence
from perikarya.evaluate.metrics import Floats, Ints
from perikarya.evaluate.stats import CELL, MIN_DEFINED, SAME, UNIT_WORDS

ONE_SIDED = 1.2816  # normal quantile: nine draws of ten lie on one side of the score


@dataclass(frozen=True)
class Resampled:
    """Scores of a sample and of its draws.

    Attributes
    ----------
    estimate_v
        Shape (n_scores,).
    draws_vb
        Shape (n_scores, n_draws); NaN where a draw has no such score.
    influence
        Standard errors and accelerations, from the jackknife.
    df_v
        Shape (n_scores,): effective number of clusters less the number of strata; below 1 counts as 1.
    """

    estimate_v: Floats
    draws_vb: Floats
    influence: Influence
    df_v: Floats


def interval_words(unit: str, settings: EvaluateConfig) -> str:
    """Say how the intervals of scores were made, for a protocol or a Methods paragraph."""
    kind = {"percentile": "percentile", "bca": "BCa"}[settings.interval]
    groups = " within treatment groups" if settings.stratify == "group" else ""
    drawn = f"{kind} bootstrap over {UNIT_WORDS[unit]}{groups}"
    if unit == CELL:
        return f"Wilson for accuracy, recall, specificity, precision and error rates; {drawn} for the others"
    return f"{drawn}, widened on the logit scale for few and unequal {UNIT_WORDS[unit]}"


def effective_clusters(cells_s: Ints) -> Floats:
    """Return how many clusters of equal size weigh as much as these: (sum n)^2 / sum n^2 over the first axis.

    Between 1 and the number of clusters that have any cell; 0 without cells (Kish 1965, Survey Sampling; for tests on
    clusters: Carter, Schnepel & Steigerwald 2017, doi:10.1162/REST_a_00639).
    """
    n = cells_s.astype(np.float64)
    return np.asarray(n.sum(axis=0) ** 2 / np.maximum((n**2).sum(axis=0), 1.0))


def score_intervals(scores: Resampled, bounds_v2: Floats, *, confidence: float, bca: bool) -> Floats:
    """Return an interval for each score.

    Parameters
    ----------
    scores
        The scores of the sample and of its draws.
    bounds_v2
        Shape (n_scores, 2): the least and the largest value of each; an infinite upper bound means a log scale.
    confidence
        Such as 0.95.
    bca
        Correct the quantiles for bias and changing spread (Efron 1987, doi:10.1080/01621459.1987.10478410).

    Returns
    -------
    Shape (n_scores, 2). NaN where a score is missing from more than a tenth of the draws or does not exist without one
    of the clusters, for the few clusters that decide it say nothing of others; where all draws agree, for resampling
    cannot tell how far a perfect score is from certain. A score whose draws lie nearly all on one side of it, as those
    of the calibration error do, for resampling adds noise to every bin, cannot be corrected by BCa, which would put
    both ends into one tail: the percentiles of its draws are moved with their median onto the score.
    """
    ordered = np.sort(scores.draws_vb, axis=1)  # NaN last
    n_defined = (~np.isnan(ordered)).sum(axis=1)
    spread = np.where(n_defined > 0, ordered[np.arange(len(ordered)), n_defined - 1] - ordered[:, 0], 0.0)
    z = float(norm.ppf(0.5 + confidence / 2))
    tails_v2 = np.tile(norm.cdf([-z, z]), (len(ordered), 1))
    origin_v = scores.estimate_v
    if bca:
        bias_v = _bias(scores, n_defined)
        one_sided = np.abs(bias_v) > ONE_SIDED
        tails_v2 = np.where(one_sided[:, None], tails_v2, _corrected_tails(scores, bias_v, z))
        origin_v = np.where(one_sided, _quantiles(ordered, n_defined, np.full((len(ordered), 2), 0.5))[:, 0], origin_v)
    usable = (
        (n_defined >= MIN_DEFINED * ordered.shape[1])
        & (spread >= SAME)
        & np.isfinite(scores.estimate_v)
        & np.isfinite(scores.influence.se_v)
        & np.isfinite(tails_v2).all(axis=1)
    )
    found = np.full((len(ordered), 2), np.nan)
    quantile_v2 = _quantiles(ordered[usable], n_defined[usable], tails_v2[usable])
    sd_v = np.nanstd(scores.draws_vb[usable], axis=1)
    factor_v = student_t.ppf(0.5 + confidence / 2, np.maximum(scores.df_v[usable], 1.0)) / z
    factor_v *= np.maximum(scores.influence.se_v[usable] / sd_v, 1.0)
    found[usable] = _stretched(
        scores.estimate_v[usable], quantile_v2, factor_v, bounds_v2[usable], origin_v=origin_v[usable]
    )
    return found


def _quantiles(ordered_vb: Floats, n_defined: Ints, tails_v2: Floats) -> Floats:
    place = tails_v2 * (n_defined[:, None] - 1)
    below = np.floor(place).astype(np.int64)
    above = np.minimum(below + 1, n_defined[:, None] - 1)
    low, high = np.take_along_axis(ordered_vb, below, axis=1), np.take_along_axis(ordered_vb, above, axis=1)
    return np.asarray(low + (place - below) * (high - low))


def _stretched(
    estimate_v: Floats, quantile_v2: Floats, factor_v: Floats, bounds_v2: Floats, *, origin_v: Floats
) -> Floats:
    """Put quantiles as far from the estimate as they are from the origin, times a factor, on the logit or log scale."""
    low, high = bounds_v2[:, :1], bounds_v2[:, 1:]

    def to_scale(x: Floats) -> Floats:
        return np.asarray(np.log(x - low) - np.where(np.isinf(high), 0.0, np.log(np.minimum(high, 1e300) - x)))

    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):  # a quantile at a bound stays there
        centre = to_scale(estimate_v[:, None])
        moved = np.exp(centre + factor_v[:, None] * (to_scale(quantile_v2) - to_scale(origin_v[:, None])))
        share = np.where(np.isinf(moved), 1.0, moved / (1.0 + moved))
        return np.where(np.isinf(high), low + moved, low + (np.minimum(high, 1e300) - low) * share)


def _bias(scores: Resampled, n_defined: Ints) -> Floats:
    """Return the normal quantile of the share of draws below each score, infinite where all lie on one side."""
    distance = scores.draws_vb - scores.estimate_v[:, None]
    below = (distance < -SAME).sum(axis=1) + 0.5 * (np.abs(distance) <= SAME).sum(axis=1)
    return np.asarray(norm.ppf(below / np.maximum(n_defined, 1)))


def _corrected_tails(scores: Resampled, bias_v: Floats, z: float) -> Floats:
    """Return the shares of draws below the lower and the upper end of BCa, shape (n_scores, 2)."""
    bias = np.where(np.isfinite(bias_v), bias_v, 0.0)[:, None]
    moved = bias + np.array([-z, z])
    rest = 1.0 - scores.influence.acceleration_v[:, None] * moved
    # beyond its pole the correction has left the draws at the end it was heading for
    return np.asarray(
        norm.cdf(np.where(rest > 0, bias + moved / np.where(rest > 0, rest, 1.0), np.inf * np.sign(moved)))
    )
