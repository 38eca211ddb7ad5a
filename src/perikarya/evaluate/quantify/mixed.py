"""The second opinion: models of single cells that know which animal each cell comes from.

They take the cells as predicted, **not corrected** for misclassification, so they test whether groups differ and not by
how much; the permutation test on corrected values per animal (``effects``) is the primary analysis. Both models refer
their statistic to Student's t with the degrees of freedom of a comparison between animals (animals minus two), not of
cells: for a balanced study that is exactly the F test of the nested analysis of variance.

An animal has one treatment, so all its cells share their expectation, and both models come down to sums per animal:
their solutions are those of the models of single cells (the tests compare them with statsmodels), for any number of
cells.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.stats import t as student_t

from perikarya.evaluate.metrics import Floats, Ints
from perikarya.evaluate.quantify.cells import ALL_REGIONS, SEVERITY, fraction_measure
from perikarya.evaluate.quantify.tally import Row, Tally
from perikarya.evaluate.stats import MIN_CLUSTERS, SAME

MIXED = "linear mixed model (REML, random intercept per animal)"
MARGINAL = "logistic GEE (exchangeable, bias-reduced errors)"
_LOG_RATIOS = np.linspace(np.log(1e-6), np.log(1e3), 22)  # variance between animals over variance within
_GEE_STEPS, _GEE_TOLERANCE = 200, 1e-10


@dataclass(frozen=True)
class AnimalSums:
    """A value of the cells of two groups, summed up by animal; all of shape (n_animals,).

    ``n_a`` cells, ``sum_a`` of the value, ``square_a`` of its square; ``is_group_a`` is false in the reference.
    """

    n_a: Floats
    sum_a: Floats
    square_a: Floats
    is_group_a: NDArray[np.bool_]

    @classmethod
    def of_cells(cls, value_n: Floats, is_group_n: Floats, animal_n: Ints) -> AnimalSums:
        """Sum up cells."""
        n_a = np.bincount(animal_n).astype(np.float64)
        sum_a, square_a = (np.asarray(np.bincount(animal_n, v), np.float64) for v in (value_n, value_n**2))
        return cls(n_a, sum_a, square_a, np.bincount(animal_n, is_group_n) > n_a / 2)

    @property
    def sides(self) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """The animals of the group and of the reference."""
        return self.is_group_a, ~self.is_group_a

    @property
    def mean_a(self) -> Floats:
        """The animals' means."""
        return np.asarray(self.sum_a / self.n_a)

    @property
    def within(self) -> float:
        """Squares of the cells around the means of their animals."""
        return float(np.maximum(self.square_a - self.sum_a * self.mean_a, 0.0).sum())


@dataclass(frozen=True)
class Fit:
    """A group effect and its standard error; ``likeness`` is the correlation of two cells of one animal."""

    estimate: float
    se: float
    likeness: float


class NotFittedError(Exception):
    """A model has no usable solution; the message is the reason. Never leaves this module."""


def mixed_models(tally: Tally, *, group: str, reference: str, confidence: float) -> list[dict[str, Any]]:
    """Compare two groups by both models in every region and in all regions together.

    Returns
    -------
    Per region two entries, ready for JSON: severity by a linear mixed model (``estimate``: difference of the expected
    severity, group minus reference) and the last class by a logistic GEE (``estimate``: log odds ratio, with
    ``odds_ratio``). A model that cannot be fitted has ``converged`` False, no numbers and a ``reason``.
    """
    own = [row for row in tally.rows if row.group in (group, reference)]
    found = []
    for region in dict.fromkeys([ALL_REGIONS, *(row.region for row in own)] if own else []):
        rows = [row for row in own if row.region == region]
        linear = _second_opinion(MIXED, _fit_linear, _severities(rows, group), confidence)
        logistic = _with_odds_ratio(_second_opinion(MARGINAL, _fit_logistic, _last_class(rows, group), confidence))
        found.append({"region": region, "measure": SEVERITY, **linear})
        found.append({"region": region, "measure": fraction_measure(tally.class_names[-1]), **logistic})
    return found


def _severities(rows: list[Row], group: str) -> AnimalSums:
    return _sums(rows, group, [row.severity for row in rows], [row.severity2 for row in rows])


def _last_class(rows: list[Row], group: str) -> AnimalSums:
    n_last = [float(row.n_last) for row in rows]
    return _sums(rows, group, n_last, n_last)


def _sums(rows: list[Row], group: str, sums: list[float], squares: list[float]) -> AnimalSums:
    n_cells = np.array([row.n_cells for row in rows], np.float64)
    return AnimalSums(n_cells, np.array(sums), np.array(squares), np.array([row.group == group for row in rows], bool))


def severity_model(value_n: Floats, is_group_n: Floats, animal_n: Ints, *, confidence: float) -> dict[str, Any]:
    """Regress a value per cell on its group, with a random intercept per animal.

    Parameters
    ----------
    value_n
        Shape (n_cells,), such as the expected severity of each cell.
    is_group_n
        Shape (n_cells,), 1 in the group and 0 in the reference.
    animal_n
        Shape (n_cells,), codes of the animals.
    confidence
        Of the interval.
    """
    return _second_opinion(MIXED, _fit_linear, AnimalSums.of_cells(value_n, is_group_n, animal_n), confidence)


def last_class_model(event_n: Floats, is_group_n: Floats, animal_n: Ints, *, confidence: float) -> dict[str, Any]:
    """Regress the log odds of an event per cell on its group; all cells of an animal are equally alike.

    Standard errors are those of Mancl & DeRouen (2001, doi:10.1111/j.0006-341X.2001.00126.x): the usual sandwich is
    too small for fewer than some forty animals. Arguments as in ``severity_model``, ``event_n`` being 0 or 1.
    """
    events = AnimalSums.of_cells(event_n, is_group_n, animal_n)
    return _with_odds_ratio(_second_opinion(MARGINAL, _fit_logistic, events, confidence))


def _with_odds_ratio(found: dict[str, Any]) -> dict[str, Any]:
    ratio = None
    if found["converged"]:
        with np.errstate(over="ignore"):
            low, high = np.exp(found["ci95"])
        ratio = {"estimate": float(np.exp(found["estimate"])), "ci95": [float(low), float(high)]}
        ratio = ratio if np.isfinite(high) else ratio | {"ci95": None}
    return found | {"odds_ratio": ratio}


def _second_opinion(name: str, fit: Callable[[AnimalSums], Fit], sums: AnimalSums, confidence: float) -> dict[str, Any]:
    n_animals = [int(side.sum()) for side in sums.sides]
    degrees = sum(n_animals) - 2
    found: dict[str, Any] = {
        "model": name,
        "corrected": False,
        "n_cells": int(sums.n_a.sum()),
        "n_animals": sum(n_animals),
    }
    try:
        if min(n_animals) < MIN_CLUSTERS:
            raise NotFittedError(f"not fitted: {n_animals[0]} and {n_animals[1]} animals, {MIN_CLUSTERS} are needed")
        fitted = fit(sums)
    except NotFittedError as error:
        numbers = dict.fromkeys(("estimate", "se", "ci95", "df", "p", "likeness"))
        return found | numbers | {"converged": False, "reason": str(error)}
    half = float(student_t.ppf(0.5 + confidence / 2, degrees)) * fitted.se
    return found | {
        "estimate": fitted.estimate,
        "se": fitted.se,
        "ci95": [fitted.estimate - half, fitted.estimate + half],
        "df": degrees,
        "p": float(2 * student_t.sf(abs(fitted.estimate / fitted.se), degrees)),
        "likeness": fitted.likeness,
        "converged": True,
        "reason": None,
    }


def _fit_linear(sums: AnimalSums) -> Fit:
    """Fit by REML: generalised least squares at the best ratio of the two variances; ordinary ones where it is 0.

    With a group that is constant within animals the likelihood needs sums per animal only (Searle, Casella & McCulloch
    1992, Variance Components, chapter 3), and the ratio is the one parameter that must be searched for.
    """
    if _at_ratio(sums, 0.0)[2] < SAME:
        raise NotFittedError("did not converge: the cells of a group do not differ at all")
    ratio = _best_ratio(sums)
    difference, weights, scale = _at_ratio(sums, ratio)
    return _usable(difference, float(np.sqrt(scale * sum(1 / w for w in weights))), ratio / (1 + ratio))


def _at_ratio(sums: AnimalSums, ratio: float) -> tuple[float, list[float], float]:
    """Return the difference of the groups' means, their weights, and the variance within animals, given the ratio."""
    weight_a = sums.n_a / (1 + sums.n_a * ratio)
    squares, centres = sums.within, []
    for side in sums.sides:
        centres.append(float(np.average(sums.mean_a[side], weights=weight_a[side])))
        squares += float((weight_a[side] * (sums.mean_a[side] - centres[-1]) ** 2).sum())
    weights = [float(weight_a[side].sum()) for side in sums.sides]
    return centres[0] - centres[1], weights, squares / (float(sums.n_a.sum()) - 2)


def _best_ratio(sums: AnimalSums) -> float:
    """Return the ratio of the variances, between over within, of the largest REML likelihood."""

    def loss(log_ratio: float) -> float:
        ratio = float(np.exp(log_ratio))
        _, weights, scale = _at_ratio(sums, ratio)
        logs = float(np.log1p(sums.n_a * ratio).sum()) + sum(float(np.log(w)) for w in weights)
        return (float(sums.n_a.sum()) - 2) * float(np.log(max(scale, np.finfo(float).tiny))) + logs

    losses = [loss(x) for x in _LOG_RATIOS]
    best = int(np.argmin(losses))
    if best == 0:
        return 0.0
    if best == len(_LOG_RATIOS) - 1:
        raise NotFittedError("did not converge: the likelihood has no clear maximum")
    bounds = (_LOG_RATIOS[best - 1], _LOG_RATIOS[best + 1])
    return float(np.exp(minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-7}).x))


def _fit_logistic(sums: AnimalSums) -> Fit:
    """Solve the estimating equations of Liang & Zeger (1986, doi:10.1093/biomet/73.1.13), by turns for means and ``a``.

    With likeness a, the sum of the cells' residuals of an animal of n cells weighs 1 / (1 + (n - 1) a); a group's share
    is then a weighted mean, and the moments of the residuals give a.
    """
    for side, name in zip(sums.sides, ("group", "reference"), strict=True):
        n_events, n = sums.sum_a[side].sum(), sums.n_a[side].sum()
        if n_events in (0.0, n):
            which = "all" if n_events else "no"
            raise NotFittedError(f"did not converge: {which} cells of the {name} are of the last class")
    likeness, before = 0.0, np.full(2, np.inf)
    for _ in range(_GEE_STEPS):
        weight_a = _alike(sums, likeness)
        share_g = np.array(
            [np.average(sums.mean_a[s], weights=(weight_a * sums.n_a)[s]) for s in sums.sides], np.float64
        )
        if np.abs(share_g - before).max() < _GEE_TOLERANCE:
            break
        likeness, before = _likeness(sums, share_g), share_g
    else:
        raise NotFittedError(f"did not converge: {_GEE_STEPS} steps were not enough")
    variance = 0.0
    for side, share in zip(sums.sides, share_g, strict=True):
        spread_a = share * (1 - share) * weight_a[side] * sums.n_a[side]
        residual_a = weight_a[side] * (sums.sum_a[side] - sums.n_a[side] * share)
        leverage_a = spread_a / spread_a.sum()
        variance += float(((residual_a / (1 - leverage_a)) ** 2).sum() / spread_a.sum() ** 2)
    odds = np.log(share_g / (1 - share_g))
    return _usable(float(odds[0] - odds[1]), float(np.sqrt(variance)), likeness)


def _alike(sums: AnimalSums, likeness: float) -> Floats:
    total_a = 1 + (sums.n_a - 1) * likeness
    if total_a.min() <= 0:
        raise NotFittedError("did not converge: cells of one animal are less alike than those of several")
    return np.asarray(1 / total_a)


def _likeness(sums: AnimalSums, share_g: Floats) -> float:
    """Estimate the correlation of two cells of an animal from the residuals, two degrees of freedom taken off."""
    share_a = np.where(sums.is_group_a, share_g[0], share_g[1])
    spread_a = share_a * (1 - share_a)
    total_a = (sums.sum_a - sums.n_a * share_a) ** 2 / spread_a
    square_a = (sums.sum_a * (1 - 2 * share_a) + sums.n_a * share_a**2) / spread_a
    n_pairs = float((sums.n_a * (sums.n_a - 1) / 2).sum())
    if n_pairs <= 2:
        raise NotFittedError("did not converge: hardly any animal has two cells")
    scale = float(square_a.sum()) / (float(sums.n_a.sum()) - 2)
    return float((total_a - square_a).sum()) / 2 / scale / (n_pairs - 2)


def _usable(estimate: float, se: float, likeness: float) -> Fit:
    if not (np.isfinite(estimate) and np.isfinite(se) and np.isfinite(likeness) and se > SAME):
        raise NotFittedError("did not converge: the standard error is not a positive number")
    return Fit(float(estimate), float(se), float(likeness))
