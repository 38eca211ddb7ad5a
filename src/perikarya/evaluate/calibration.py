"""Calibration of a run's networks on their validation folds, and what it brings on cells they never saw.

Every network is calibrated alone, on the cells that decided when its training stopped (fold k + 1), and applied to its
own test fold and to the external cells; labels of those are never looked at. Stopping on the same cells makes
validation probabilities a little better than they should be; a temperature is hardly moved by that, a network that
overfits its stopping fold is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd

from perikarya.config import EvaluateConfig
from perikarya.errors import DataError
from perikarya.evaluate.calibrators import METHODS, Calibration, fit_calibration
from perikarya.evaluate.cluster_sums import ClusterDraws, DrawnScores, Formulas, sum_columns
from perikarya.evaluate.metrics import (
    N_BINS,
    Floats,
    Ints,
    confidence_bins,
    confidence_gap,
    ratio,
    squared_error,
    true_class_loss,
)
from perikarya.evaluate.outputs import ModelScores, Scored, TaskOutput, model_scores
from perikarya.runs import TaskKey

NONE = "none"  # the probabilities as the network gave them
CHOSEN_BY = "loss"
SCORES = ("accuracy", "loss", "brier", "ece", "class_ece")
_N, _LOSS, _BRIER, _CORRECT, _GAPS = 0, 1, 2, 3, 4  # columns of the sums; then 15 gaps, then 15 gaps per class


@dataclass(frozen=True)
class CalibratedOutputs:
    """Tasks with calibrated probabilities, or the reason why there are none.

    Attributes
    ----------
    outputs
        As they came, with calibrated ``test``, ``external`` and ``validation`` (the last fitted to itself, for
        thresholds of abstention). Views of test-time augmentation are dropped: validation cells are seen in one view.
        Empty when one network could not be calibrated: the rest would be scored on other cells.
    fits
        The calibration of each network.
    reason
        Why ``outputs`` is empty, in a sentence; otherwise None.
    """

    outputs: list[TaskOutput] = field(default_factory=list)
    fits: dict[TaskKey, Calibration] = field(default_factory=dict)
    reason: str | None = None


def calibrate_outputs(outputs: Sequence[TaskOutput], method: str) -> CalibratedOutputs:
    """Calibrate each network on its validation predictions and apply that to its test and external predictions.

    Parameters
    ----------
    outputs
        Finished tasks, of one model or several.
    method
        A name in ``calibrators.METHODS``.

    Raises
    ------
    DataError
        If a validation cell is also tested: its label would help to score itself.
    """
    fits: dict[TaskKey, Calibration] = {}
    calibrated = []
    for output in outputs:
        validation = output.validation
        if validation is None:
            return CalibratedOutputs(
                reason=f"The run kept no predictions for the validation fold of {output.key}; train it again."
            )
        check_unseen(output)
        try:
            fit = fit_calibration(method, validation.prob_nk, validation.label_n)
        except DataError as refused:
            return CalibratedOutputs(reason=f"{output.key}: {str(refused).splitlines()[0]}")
        fits[output.key] = fit
        calibrated.append(
            replace(
                output,
                test=_applied(fit, output.test),
                external=_applied(fit, output.external),
                validation=_applied(fit, validation),
                test_tta=None,
                external_tta=None,
            )
        )
    return CalibratedOutputs(calibrated, fits)


def check_unseen(output: TaskOutput) -> None:
    """Raise ``DataError`` if a cell of a network's validation fold is also among those it is tested on."""
    if output.validation is None:
        return
    for part in (output.test, output.external):
        if part is not None and np.isin(part.row_n, output.validation.row_n).any():
            raise DataError(
                f"{output.key}: cells of the validation fold are also tested.\n"
                "A calibration fitted to them would look better than it is. Fix: delete the task and train it again."
            )


def _applied(fit: Calibration, scored: Scored | None) -> Scored | None:
    return None if scored is None else replace(scored, prob_nk=fit.apply(scored.prob_nk))


@dataclass(frozen=True)
class Tried:
    """One model under all methods of calibration.

    Attributes
    ----------
    by_entry
        Per entry of the comparison (the model and, on the external set, the ensemble of its networks, each calibrated
        alone before averaging) its scores by method; ``none`` first.
    fits
        Per method, the calibration of each network.
    refused
        Methods that could not be fitted, with the reason.
    """

    by_entry: dict[str, dict[str, ModelScores]]
    fits: dict[str, dict[TaskKey, Calibration]]
    refused: dict[str, str]


def try_methods(outputs: Sequence[TaskOutput]) -> Tried:
    """Calibrate the networks of one model by every method; see ``calibrate_outputs``."""
    results = {method: calibrate_outputs(outputs, method) for method in METHODS.names()}
    fitted = {method: result for method, result in results.items() if result.reason is None}
    as_given = [replace(o, test_tta=None, external_tta=None) for o in outputs]
    by_entry: dict[str, dict[str, ModelScores]] = {}
    for method, of_method in {NONE: as_given, **{m: r.outputs for m, r in fitted.items()}}.items():
        for scores in model_scores(of_method):
            by_entry.setdefault(scores.name, {})[method] = scores
    return Tried(
        by_entry,
        {method: result.fits for method, result in fitted.items()},
        {method: result.reason for method, result in results.items() if result.reason is not None},
    )


def calibrate_model(
    tried: Tried, cells: pd.DataFrame, class_names: tuple[str, ...], settings: EvaluateConfig
) -> dict[str, Any]:
    """Score what was tried on one model.

    Returns
    -------
    Ready for JSON: ``{"entries": {"<entry>": calibration_block}, "fits": {method: {"<task>": Calibration}},
    "refused": {method: reason}}``.
    """
    return {
        "entries": {
            name: calibration_block(by_method, cells, class_names, settings)
            for name, by_method in tried.by_entry.items()
        },
        "fits": {m: {str(key): fit.to_dict() for key, fit in fits.items()} for m, fits in tried.fits.items()},
        "refused": tried.refused,
    }


def calibration_block(
    scores_by_method: Mapping[str, ModelScores],
    cells: pd.DataFrame,
    class_names: tuple[str, ...],
    settings: EvaluateConfig,
) -> dict[str, Any]:
    """Score one model under several calibrations.

    Parameters
    ----------
    scores_by_method
        ``none`` and any names in ``calibrators.METHODS``, with the same cells.
    cells
        The cells table of the study.
    class_names
        Classes in their order.
    settings
        Draws and confidence of the intervals.

    Returns
    -------
    Ready for JSON: ``{"sets": {"cv": {method: B}, "external": {...}}, "advised": {"method", "set", "reason"}}`` with
    ``B = {"n_cells", "unit", "accuracy": V, "loss": V, "brier": V, "ece": V, "class_ece": V, "per_class":
    {class: {"ece": V}}, "difference": {score: {"estimate", "ci95"}}}``. ``brier`` is the sum over classes (0 to 2,
    Brier 1950); ``ece`` is of the largest probability, ``class_ece`` the mean over classes of the error of each class's
    probability (Kull et al. 2019, arXiv:1910.12656), both in 15 bins. ``difference`` is the method minus ``none``,
    paired by draw, below 0 where calibration helps; None for ``none`` itself. The advised method has the lowest
    cross-validated log loss; the external set has no say.
    """
    sets: dict[str, dict[str, Any]] = {}
    for set_name in ("cv", "external"):
        parts = {m: _parts(scores, set_name) for m, scores in scores_by_method.items()}
        if all(averaged for averaged, _ in parts.values()):
            sets[set_name] = _set_block(parts, cells, class_names, settings)
    return {"sets": sets, "advised": _advice(sets.get("cv"))}


def _parts(scores: ModelScores, set_name: str) -> tuple[list[Scored], list[Scored]]:
    return (scores.pooled, scores.tests) if set_name == "cv" else (scores.external, scores.external_folds)


def _set_block(
    parts: Mapping[str, tuple[list[Scored], list[Scored]]],
    cells: pd.DataFrame,
    class_names: tuple[str, ...],
    settings: EvaluateConfig,
) -> dict[str, Any]:
    draws = ClusterDraws.over(parts[NONE][0], cells, settings)
    formulas = _formulas(len(class_names))
    scored = {
        method: draws.score(averaged, folds, _calibration_sums, formulas) for method, (averaged, folds) in parts.items()
    }
    return {method: _method_block(draws, own, scored[NONE], class_names) for method, own in scored.items()}


def _method_block(
    draws: ClusterDraws, own: DrawnScores, as_given: DrawnScores, class_names: tuple[str, ...]
) -> dict[str, Any]:
    values = own.values()
    difference = None
    if own is not as_given:
        difference = dict(zip(SCORES, draws.differences(own, as_given), strict=False))
    per_class = {name: {"ece": value} for name, value in zip(class_names, values[len(SCORES) :], strict=True)}
    return {
        "n_cells": len(draws.row_n),
        "unit": draws.clusters.unit,
        **dict(zip(SCORES, values, strict=False)),
        "per_class": per_class,
        "difference": difference,
    }


def _formulas(n_classes: int) -> Formulas:
    share = (0.0, 1.0)
    bounds = {"accuracy": share, "loss": (0.0, np.inf), "brier": (0.0, 2.0), "ece": share, "class_ece": share}
    of_all = tuple(bounds[name] for name in SCORES)
    return Formulas(_calibration_scores, (*of_all, *[share] * n_classes), (_N,) * (len(SCORES) + n_classes))


def _calibration_scores(sums: Floats) -> Floats:
    """Return ``SCORES``, then the calibration error of each class, shape (n_scores, ...)."""
    n = sums[..., _N]
    gaps = sums[..., _GAPS:].reshape(*n.shape, -1, N_BINS)
    errors = np.moveaxis(ratio(np.abs(gaps).sum(-1), n[..., None]), -1, 0)
    means = [ratio(sums[..., column], n) for column in (_CORRECT, _LOSS, _BRIER)]
    return np.concatenate([np.stack([*means, errors[0], errors[1:].mean(0)]), errors[1:]])


def _calibration_sums(scored: Scored, cluster_n: Ints, n_clusters: int) -> Floats:
    """Sum cells, losses and gaps by cluster, shape (n_clusters, 4 + 15 * (1 + n_classes))."""
    label_n, prob_nk = scored.label_n, scored.prob_nk
    n_classes = prob_nk.shape[1]
    truth_nk = np.eye(n_classes)[label_n]
    correct = (prob_nk.argmax(axis=1) == label_n).astype(np.float64)
    per_cell = [np.ones(len(label_n)), true_class_loss(label_n, prob_nk), squared_error(label_n, prob_nk), correct]
    gaps = [_gaps_by_bin(prob_nk.max(axis=1), confidence_gap(label_n, prob_nk), cluster_n, n_clusters)]
    gaps += [
        _gaps_by_bin(prob_nk[:, k], prob_nk[:, k] - truth_nk[:, k], cluster_n, n_clusters) for k in range(n_classes)
    ]
    return np.hstack([sum_columns(np.stack(per_cell, axis=1), cluster_n, n_clusters), *gaps])


def _gaps_by_bin(prob_n: Floats, gap_n: Floats, cluster_n: Ints, n_clusters: int) -> Floats:
    bins = cluster_n * N_BINS + confidence_bins(prob_n)
    sums = np.bincount(bins, gap_n, minlength=n_clusters * N_BINS)
    return np.asarray(sums.reshape(n_clusters, N_BINS), np.float64)


def _advice(cv: Mapping[str, Any] | None) -> dict[str, Any]:
    """Choose the method with the lowest cross-validated log loss and say how sure that is."""
    if cv is None:
        return {
            "method": None,
            "set": None,
            "reason": "Methods are chosen on the development set, and nothing of it was tested here.",
        }
    best = min(cv, key=lambda method: float(cv[method][CHOSEN_BY]["mean"]))
    if best == NONE:
        return {"method": NONE, "set": "cv", "reason": "No calibration lowers the cross-validated log loss."}
    change = cv[best]["difference"][CHOSEN_BY]
    reason = f"It lowers the cross-validated log loss most, by {-change['estimate']:.3f}"
    if change["ci95"] is None:
        reason += "; too few animals for an interval."
    elif change["ci95"][1] < 0:
        reason += "."
    else:
        reason += ", which may be chance: the interval of the difference holds 0."
    return {"method": best, "set": "cv", "reason": reason}
