"""The second opinion: models of single cells that know which animal each cell comes from.

They take the cells as predicted, **not corrected** for misclassification, so they test whether groups differ and not by
how much; the permutation test on corrected values per animal (``effects``) is the primary analysis. Both models refer
their statistic to Student's t with the degrees of freedom of a comparison between animals (animals minus two), not of
cells: for a balanced study that is exactly the F test of the nested analysis of variance.

statsmodels takes seconds to import, so it is imported inside the functions.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.stats import t as student_t

from perikarya.evaluate.metrics import Floats, Ints
from perikarya.evaluate.quantify.cells import ALL_REGIONS, SEVERITY, PredictedCells, fraction_measure
from perikarya.evaluate.stats import MIN_CLUSTERS, SAME

MIXED = "linear mixed model (REML, random intercept per animal)"
MARGINAL = "logistic GEE (exchangeable, bias-reduced errors)"
_LOG_RATIOS = np.linspace(np.log(1e-6), np.log(1e3), 22)  # variance between animals over variance within


@dataclass(frozen=True)
class Fit:
    """A group effect and its standard error; ``likeness`` is the correlation of two cells of one animal."""

    estimate: float
    se: float
    likeness: float


class NotFittedError(Exception):
    """A model has no usable solution; the message is the reason. Never leaves this module."""


def mixed_models(cells: PredictedCells, *, group: str, reference: str, confidence: float) -> list[dict[str, Any]]:
    """Compare two groups by both models in every region and in all regions together.

    Returns
    -------
    Per region two entries, ready for JSON: severity by a linear mixed model (``estimate``: difference of the expected
    severity, group minus reference) and the last class by a logistic GEE (``estimate``: log odds ratio, with
    ``odds_ratio``). A model that cannot be fitted has ``converged`` False, no numbers and a ``reason``.
    """
    if cells.group_n is None:
        return []
    in_pair = (cells.group_n == group) | (cells.group_n == reference)
    regions = [] if cells.region_n is None else [r for r in dict.fromkeys(cells.region_n[in_pair]) if r is not None]
    found = []
    for region in [ALL_REGIONS, *regions]:
        kept = in_pair if region == ALL_REGIONS or cells.region_n is None else in_pair & (cells.region_n == region)
        _, animal_n = np.unique(cells.subject_n[kept].astype(str), return_inverse=True)
        is_group_n = (cells.group_n[kept] == group).astype(np.float64)
        n_classes = len(cells.class_names)
        prob_nk = cells.prob_nk[kept]
        severity_n = prob_nk @ (np.arange(n_classes) / (n_classes - 1))
        last_n = (prob_nk.argmax(axis=1) == n_classes - 1).astype(np.float64)
        linear = severity_model(severity_n, is_group_n, animal_n.astype(np.int64), confidence=confidence)
        logistic = last_class_model(last_n, is_group_n, animal_n.astype(np.int64), confidence=confidence)
        found.append({"region": region, "measure": SEVERITY, **linear})
        found.append({"region": region, "measure": fraction_measure(cells.class_names[-1]), **logistic})
    return found


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
    return _second_opinion(MIXED, _fit_linear, value_n, is_group_n, animal_n, confidence)


def last_class_model(event_n: Floats, is_group_n: Floats, animal_n: Ints, *, confidence: float) -> dict[str, Any]:
    """Regress the log odds of an event per cell on its group; all cells of an animal are equally alike.

    Standard errors are those of Mancl & DeRouen (2001, doi:10.1111/j.0006-341X.2001.00126.x): the usual sandwich is
    too small for fewer than some forty animals. Arguments as in ``severity_model``, ``event_n`` being 0 or 1.
    """
    found = _second_opinion(MARGINAL, _fit_logistic, event_n, is_group_n, animal_n, confidence)
    ratio = None
    if found["converged"]:
        with np.errstate(over="ignore"):
            low, high = np.exp(found["ci95"])
        ratio = {"estimate": float(np.exp(found["estimate"])), "ci95": [float(low), float(high)]}
        ratio = ratio if np.isfinite(high) else ratio | {"ci95": None}
    return found | {"odds_ratio": ratio}


def _second_opinion(
    name: str,
    fit: Callable[[Floats, Floats, Ints], Fit],
    value_n: Floats,
    is_group_n: Floats,
    animal_n: Ints,
    confidence: float,
) -> dict[str, Any]:
    n_animals = [len(np.unique(animal_n[is_group_n == side])) for side in (1.0, 0.0)]
    degrees = sum(n_animals) - 2
    found: dict[str, Any] = {"model": name, "corrected": False, "n_cells": len(value_n), "n_animals": sum(n_animals)}
    try:
        if min(n_animals) < MIN_CLUSTERS:
            raise NotFittedError(f"not fitted: {n_animals[0]} and {n_animals[1]} animals, {MIN_CLUSTERS} are needed")
        with _silence():
            fitted = fit(value_n, is_group_n, animal_n)
    except (NotFittedError, np.linalg.LinAlgError, ValueError) as error:
        reason = str(error) if isinstance(error, NotFittedError) else f"did not converge: {error}"
        numbers = dict.fromkeys(("estimate", "se", "ci95", "df", "p", "likeness"))
        return found | numbers | {"converged": False, "reason": reason}
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


@contextmanager
def _silence() -> Iterator[None]:
    """Drop warnings, for what they say is read from the results; leave the filters of the process as they were."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        import_module("statsmodels.tools.sm_exceptions")  # which switches its own warnings on when first imported
        warnings.simplefilter("ignore")
        yield


def _fit_linear(value_n: Floats, is_group_n: Floats, animal_n: Ints) -> Fit:
    """Fit by REML.

    The optimisers of statsmodels can end far from the maximum in this model (lbfgs of 0.15 does so for one simulated
    study in two), so the one parameter that is not linear, the ratio of the two variances, is searched for here;
    statsmodels starts there, and says whether it is the maximum. At a ratio of zero this is ordinary least squares.
    """
    from statsmodels.regression.linear_model import OLS
    from statsmodels.regression.mixed_linear_model import MixedLM, MixedLMParams

    design = np.column_stack([np.ones(len(value_n)), is_group_n])
    plain = OLS(value_n, design).fit()
    if plain.scale < SAME:
        raise NotFittedError("did not converge: the cells of a group do not differ at all")
    ratio = _best_ratio(value_n, is_group_n, animal_n)
    if ratio is None:
        return _usable(plain.params[1], plain.bse[1], 0.0)
    start = MixedLMParams.from_components(fe_params=np.zeros(2), cov_re=np.array([[ratio]]))
    mixed = MixedLM(value_n, design, groups=animal_n).fit(start_params=start, reml=True, method="bfgs")
    if not mixed.converged:
        raise NotFittedError("did not converge: the likelihood has no clear maximum")
    between = float(mixed.cov_re[0, 0])
    return _usable(mixed.fe_params[1], mixed.bse_fe[1], between / (between + mixed.scale))


def _best_ratio(value_n: Floats, is_group_n: Floats, animal_n: Ints) -> float | None:
    """Return the ratio of the variances, between over within, of the largest REML likelihood; None where it is zero.

    With a group that is constant within animals the likelihood needs sums per animal only (Searle, Casella & McCulloch
    1992, Variance Components, chapter 3).
    """
    n_cells = np.bincount(animal_n).astype(np.float64)
    mean = np.bincount(animal_n, value_n) / n_cells
    is_group = np.bincount(animal_n, is_group_n) / n_cells > 0.5
    within = float(((value_n - mean[animal_n]) ** 2).sum())

    def loss(log_ratio: float) -> float:
        total = 1 + n_cells * np.exp(log_ratio)
        weight = n_cells / total
        squares, logs = within, float(np.log(total).sum())
        for side in (is_group, ~is_group):
            centre = np.average(mean[side], weights=weight[side])
            squares += float((weight[side] * (mean[side] - centre) ** 2).sum())
            logs += float(np.log(weight[side].sum()))
        return float((len(value_n) - 2) * np.log(squares) + logs)

    losses = [loss(x) for x in _LOG_RATIOS]
    best = int(np.argmin(losses))
    if best == 0:
        return None
    low, high = _LOG_RATIOS[best - 1], _LOG_RATIOS[min(best + 1, len(_LOG_RATIOS) - 1)]
    return float(np.exp(minimize_scalar(loss, bounds=(low, high), method="bounded", options={"xatol": 1e-7}).x))


def _fit_logistic(event_n: Floats, is_group_n: Floats, animal_n: Ints) -> Fit:
    from statsmodels.genmod.cov_struct import Exchangeable
    from statsmodels.genmod.families import Binomial
    from statsmodels.genmod.generalized_estimating_equations import GEE

    for side, name in ((1.0, "group"), (0.0, "reference")):
        share = event_n[is_group_n == side].mean()
        if share in (0.0, 1.0):
            which = "all" if share else "no"
            raise NotFittedError(f"did not converge: {which} cells of the {name} are of the last class")
    design = np.column_stack([np.ones(len(event_n)), is_group_n])
    result = GEE(event_n, design, groups=animal_n, family=Binomial(), cov_struct=Exchangeable()).fit(
        maxiter=200, cov_type="bias_reduced"
    )
    if not result.converged:
        raise NotFittedError("did not converge: 200 steps were not enough")
    return _usable(result.params[1], result.bse[1], float(result.cov_struct.dep_params))


def _usable(estimate: float, se: float, likeness: float) -> Fit:
    if not (np.isfinite(estimate) and np.isfinite(se) and np.isfinite(likeness) and se > SAME):
        raise NotFittedError("did not converge: the standard error is not a positive number")
    return Fit(float(estimate), float(se), float(likeness))
