"""The set of models that might be the best, and Holm's correction for the number of comparisons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from perikarya.evaluate.metrics import Floats

_ROUNDING = 1e-12


def holm(p_m: Sequence[float] | Floats) -> Floats:
    """Correct p values for their number, step by step (Holm 1979); NaN stays NaN and does not count."""
    p = np.asarray(p_m, np.float64)
    corrected = np.full(p.shape, np.nan)
    known = np.flatnonzero(~np.isnan(p))
    order = known[np.argsort(p[known], kind="stable")]
    factors = np.arange(len(order), 0, -1)
    corrected[order] = np.minimum(1.0, np.maximum.accumulate(p[order] * factors))
    return corrected


def indistinguishable(
    scores: Mapping[str, float],
    p_against_best: Mapping[str, float],
    *,
    metric: str,
    alpha: float,
    smallest_p: float,
    unit: str,
    n_clusters: int,
) -> dict[str, Any]:
    """Name the models that might be the best: those a paired comparison with the observed best does not reject.

    The observed best is compared with each other model, Holm's correction covers these comparisons, and a model is
    rejected where its corrected p value is below or at alpha. The truly best model is left out by mistake with a
    probability of about alpha at most; the others in the set may still be worse by less than the data can show.

    Parameters
    ----------
    scores
        Model name to score; the higher, the better.
    p_against_best
        Uncorrected p value of each other model; NaN where none could be computed, which rejects nothing.
    metric
        Its name, for the record.
    alpha
        Level of the test.
    smallest_p
        The smallest p value the test can give; with few animals it may be above alpha, then nobody can be rejected.
    unit, n_clusters
        What was exchanged and how many of it, for the sentence.

    Returns
    -------
    ``{"metric", "best", "set": [names, best first], "rejected": [names], "alpha", "can_reject", "why"}``.
    """
    best = max(scores, key=lambda name: scores[name])
    others = sorted((n for n in scores if n != best), key=lambda name: -scores[name])
    corrected = holm([p_against_best[n] for n in others])
    rejected = [n for n, p in zip(others, corrected, strict=True) if p <= alpha]
    least = smallest_p * len(others)
    can_reject = bool(least <= alpha)
    return {
        "metric": metric,
        "best": best,
        "set": [best, *(n for n in others if n not in rejected)],
        "rejected": rejected,
        "alpha": alpha,
        "can_reject": can_reject,
        "why": _why(best, others, rejected, alpha, least if not can_reject else None, f"{n_clusters} {unit}"),
    }


def _why(best: str, others: Sequence[str], rejected: Sequence[str], alpha: float, least: float | None, of: str) -> str:
    if not others:
        return "There is no other model to compare with."
    if least is not None:
        of_them = f" over {len(others)} comparisons" if len(others) > 1 else ""
        return (
            f"With {of}, no p value{of_them} can fall below {min(least, 1.0):.2g}, however far apart two models are; "
            f"so none can be told from {best}."
        )
    level = f"at {100 * alpha:g} %, paired over {of}, corrected by Holm"
    models = "other model" if len(others) == 1 else f"{len(others)} other models"
    if len(rejected) == len(others):
        return f"{best} differs from {'the' if len(others) == 1 else 'each of the'} {models} ({level})."
    kept = len(others) - len(rejected)
    said = f"The {models}" if len(others) == 1 else f"{kept} of {models}"
    return f"{said} cannot be told from {best} ({level})."


def model_confidence_set(score_m: Floats, draws_bm: Floats, *, alpha: float, n_clusters: int) -> list[int]:
    """Return the positions of the model confidence set, best first (Hansen, Lunde & Nason 2011, Econometrica 79:453).

    As long as equality of all that remain is rejected, the worst by its t against their mean (T_max) is dropped. The
    set holds the best model with a probability of 1 - alpha, given many clusters; with few it is too small at times.

    Parameters
    ----------
    score_m
        Shape (n_models,), higher is better.
    draws_bm
        Shape (n_draws, n_models): the same scores in draws of clusters, paired.
    n_clusters
        How many there are; the bootstrap variance is widened by n / (n - 1).
    """
    kept = list(np.argsort(-score_m, kind="stable"))
    deviation_bm = (draws_bm - draws_bm.mean(axis=0)) * np.sqrt(n_clusters / (n_clusters - 1))
    while len(kept) > 1:
        gap_m = score_m[kept] - score_m[kept].mean()
        noise_bm = deviation_bm[:, kept] - deviation_bm[:, kept].mean(axis=1, keepdims=True)
        error_m = np.maximum(np.sqrt((noise_bm**2).mean(axis=0)), _ROUNDING)
        p = float(((-noise_bm / error_m).max(axis=1) >= (-gap_m / error_m).max()).mean())
        if p > alpha:
            break
        kept.pop(int(np.argmin(gap_m / error_m)))
    return [int(m) for m in kept]
