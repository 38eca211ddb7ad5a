"""Scores of a classifier: pure functions, arrays in and numbers out.

Every metric follows from a ``Tally``, a handful of sums over cells. A tally has the same fields for one sample and
for thousands of bootstrap draws (one more leading axis), so each formula is written once.

A score that does not exist is NaN, never 0: recall, F1 and AUC of a class without cells, precision of a class that is
never predicted. A mean over classes is NaN as soon as one of them is: over fewer classes it is another quantity.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from perikarya.errors import DataError
from perikarya.evaluate.calibration_map import SMALLEST_PROB as SMALLEST_PROB
from perikarya.registry import Registry

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

N_BINS = 15  # equal-width bins of the top-label confidence; Guo et al. 2017, arXiv:1706.04599


@dataclass(frozen=True)
class Tally:
    """Sums over cells from which all metrics follow.

    ``...`` stands for nothing (one sample) or for (n_draws,).

    Attributes
    ----------
    confusion
        Shape (..., n_classes, n_classes); rows are the truth, columns the prediction.
    loss_sum
        Shape (..., n_classes): sum of -ln(probability of the true class) over the cells of each class.
    gap_sum
        Shape (..., n_bins): sum of confidence minus correctness over the cells of each confidence bin.
    square_sum
        Shape (...): sum over cells of the squared differences between probabilities and truth (1 for the true class).
    auc
        Shape (..., n_classes): area under the ROC curve of each class against the others.
    ap
        Shape (..., n_classes): average precision of each class against the others.
    """

    confusion: Floats
    loss_sum: Floats
    gap_sum: Floats
    square_sum: Floats
    auc: Floats
    ap: Floats


@dataclass(frozen=True)
class Metric:
    """A score by name.

    Attributes
    ----------
    title
        Its name for people.
    compute
        Turns a tally into shape (...,) or, per class, (..., n_classes).
    higher_is_better
        Otherwise lower is.
    trials
        For successes / trials, which have a Wilson interval: the number of trials.
    bounds
        The least and the largest value it can have.
    rests_on
        ``cells``: all of them; ``class``: those of its class or, for a mean over classes, of the scarcest.
    """

    title: str
    compute: Callable[[Tally], Floats]
    higher_is_better: bool = True
    trials: Callable[[Tally], Floats] | None = None
    bounds: tuple[float, float] = (0.0, 1.0)
    rests_on: Literal["cells", "class"] = "cells"


def ratio(numerator: Floats, denominator: Floats) -> Floats:
    """Divide, NaN where there is nothing to divide by."""
    undefined = denominator == 0
    return np.where(undefined, np.nan, numerator / np.where(undefined, 1.0, denominator))


def _hits(confusion: Floats) -> Floats:
    return np.diagonal(confusion, axis1=-2, axis2=-1)


# einsum, for numpy's sum over a short last axis takes several times as long for thousands of draws
def _n_cells(tally: Tally) -> Floats:
    return np.asarray(np.einsum("...ij->...", tally.confusion))


def _n_true(tally: Tally) -> Floats:
    return np.asarray(np.einsum("...ij->...i", tally.confusion))


def _n_predicted(tally: Tally) -> Floats:
    return np.asarray(np.einsum("...ij->...j", tally.confusion))


def _n_other(tally: Tally) -> Floats:
    return np.asarray(_n_cells(tally)[..., None] - _n_true(tally))


def _mean(per_class: Floats) -> Floats:
    return np.asarray(np.einsum("...k->...", per_class) / per_class.shape[-1])


def accuracy(tally: Tally) -> Floats:
    """Share of cells whose predicted class is the true one."""
    return ratio(np.einsum("...ii->...", tally.confusion), _n_cells(tally))


def recall(tally: Tally) -> Floats:
    """Share of each class's cells that were found."""
    return ratio(_hits(tally.confusion), _n_true(tally))


def precision(tally: Tally) -> Floats:
    """Share of the cells predicted as each class that are of it."""
    return ratio(_hits(tally.confusion), _n_predicted(tally))


def f1(tally: Tally) -> Floats:
    """Harmonic mean of recall and precision, 2 TP / (2 TP + FP + FN); NaN for a class without cells."""
    n_true, n_predicted = _n_true(tally), _n_predicted(tally)
    score = ratio(2 * _hits(tally.confusion), n_true + n_predicted)
    return np.where(n_true == 0, np.nan, score)


def specificity(tally: Tally) -> Floats:
    """Share of the cells of other classes that were not predicted as each class."""
    n_other = _n_other(tally)
    false = _n_predicted(tally) - _hits(tally.confusion)
    return ratio(n_other - false, n_other)


def class_loss(tally: Tally) -> Floats:
    """Mean cross-entropy of each class's cells, in nats."""
    return ratio(tally.loss_sum, _n_true(tally))


def loss(tally: Tally) -> Floats:
    """Mean cross-entropy over all cells, in nats."""
    return ratio(np.einsum("...k->...", tally.loss_sum), _n_cells(tally))


def brier(tally: Tally) -> Floats:
    """Brier score (1950) over all classes: mean of the squared differences summed over the classes, from 0 to 2.

    With two classes it is twice the score of the one probability that other programs report.
    """
    return ratio(tally.square_sum, _n_cells(tally))


def ece(tally: Tally) -> Floats:
    """Expected calibration error: ``|confidence - accuracy|`` of each bin, weighted by its cells (Guo et al. 2017)."""
    return ratio(np.einsum("...k->...", np.abs(tally.gap_sum)), _n_cells(tally))


def kappa(tally: Tally) -> Floats:
    """Cohen's kappa (1960): agreement beyond chance where every miss costs the same; NaN as for ``qwk``."""
    return _kappa(tally, (_steps(tally) > 0).astype(np.float64))


def qwk(tally: Tally) -> Floats:
    """Quadratic weighted kappa (Cohen 1968): agreement beyond chance where a miss by two classes costs four.

    NaN where truth and prediction know one class only, for then chance agreement is complete.
    """
    return _kappa(tally, (_steps(tally) ** 2).astype(np.float64))


def _steps(tally: Tally) -> Ints:
    codes = np.arange(tally.confusion.shape[-1], dtype=np.int64)
    return np.abs(np.subtract.outer(codes, codes))


def _kappa(tally: Tally, cost: Floats) -> Floats:
    observed = _total(tally, cost) * _n_cells(tally)
    by_chance = np.einsum("...i,...i->...", _n_true(tally) @ cost, _n_predicted(tally))
    return 1.0 - ratio(observed, by_chance)


def _total(tally: Tally, cost: Floats) -> Floats:
    return np.asarray(np.einsum("...ij,ij->...", tally.confusion, cost))


def adjacent_error(tally: Tally) -> Floats:
    """Share of cells predicted one class above or below the true one, in the order of the classes."""
    return ratio(_total(tally, (_steps(tally) == 1).astype(np.float64)), _n_cells(tally))


def severe_error(tally: Tally) -> Floats:
    """Share of cells predicted two classes or more from the true one; NaN with two classes, where none can be."""
    if tally.confusion.shape[-1] < 3:
        return np.full_like(_n_cells(tally), np.nan)
    return ratio(_total(tally, (_steps(tally) > 1).astype(np.float64)), _n_cells(tally))


OVERALL: Registry[Metric] = Registry("overall metric")
OVERALL.add("accuracy", Metric("Accuracy", accuracy, trials=_n_cells))
OVERALL.add("balanced_accuracy", Metric("Balanced accuracy", lambda t: _mean(recall(t)), rests_on="class"))
OVERALL.add("macro_f1", Metric("Macro F1", lambda t: _mean(f1(t)), rests_on="class"))
OVERALL.add("macro_auc", Metric("Macro AUC", lambda t: _mean(t.auc), rests_on="class"))
OVERALL.add("macro_ap", Metric("Macro average precision", lambda t: _mean(t.ap), rests_on="class"))
OVERALL.add("loss", Metric("Log loss", loss, higher_is_better=False, bounds=(0.0, np.inf)))
OVERALL.add("brier", Metric("Brier score", brier, higher_is_better=False, bounds=(0.0, 2.0)))
OVERALL.add("ece", Metric("Calibration error", ece, higher_is_better=False))
OVERALL.add("kappa", Metric("Cohen's kappa", kappa, bounds=(-1.0, 1.0)))
OVERALL.add("qwk", Metric("Weighted kappa", qwk, bounds=(-1.0, 1.0)))
OVERALL.add("adjacent_error", Metric("Off by one class", adjacent_error, higher_is_better=False, trials=_n_cells))
OVERALL.add("severe_error", Metric("Off by two or more", severe_error, higher_is_better=False, trials=_n_cells))

PER_CLASS: Registry[Metric] = Registry("metric of a class")
PER_CLASS.add("recall", Metric("Recall", recall, trials=_n_true, rests_on="class"))
PER_CLASS.add("specificity", Metric("Specificity", specificity, trials=_n_other))
PER_CLASS.add("precision", Metric("Precision", precision, trials=_n_predicted, rests_on="class"))
PER_CLASS.add("f1", Metric("F1", f1, rests_on="class"))
PER_CLASS.add("auc", Metric("AUC", lambda t: t.auc, rests_on="class"))
PER_CLASS.add("ap", Metric("Average precision", lambda t: t.ap, rests_on="class"))
PER_CLASS.add("loss", Metric("Log loss", class_loss, higher_is_better=False, bounds=(0.0, np.inf), rests_on="class"))


def check_scores(label_n: Ints, prob_nk: Floats) -> None:
    """Raise ``DataError`` when labels and probabilities do not fit together or are not numbers."""
    n_classes = prob_nk.shape[1]
    if len(label_n) != len(prob_nk):
        raise DataError(f"{len(label_n)} labels and {len(prob_nk)} rows of probabilities do not belong together.")
    if len(label_n) and not (label_n.min() >= 0 and label_n.max() < n_classes):
        raise DataError(
            f"Labels run from {label_n.min()} to {label_n.max()}; with {n_classes} classes they must be "
            f"0 to {n_classes - 1}.\nFix: leave cells without a label out before scoring."
        )
    if not np.isfinite(prob_nk).all():
        row = int(np.flatnonzero(~np.isfinite(prob_nk).all(axis=1))[0])
        raise DataError(f"The probabilities of row {row} are not numbers; the network that made them diverged.")


def confusion(label_n: Ints, predicted_n: Ints, n_classes: int) -> Ints:
    """Count cells by true and predicted class, shape (n_classes, n_classes); rows are the truth."""
    flat = np.bincount(label_n * n_classes + predicted_n, minlength=n_classes**2)
    return flat.reshape(n_classes, n_classes).astype(np.int64)


def true_class_loss(label_n: Ints, prob_nk: Floats) -> Floats:
    """Return -ln(probability of the true class) of each cell, shape (n_cells,), probabilities cut at 1e-7."""
    return np.asarray(-np.log(np.maximum(prob_nk[np.arange(len(label_n)), label_n], SMALLEST_PROB)))


def confidence_bins(confidence_n: Floats) -> Ints:
    """Return the bin of each confidence, shape (n_cells,); bin i holds (i / n_bins, (i + 1) / n_bins]."""
    return np.asarray(np.clip(np.ceil(confidence_n * N_BINS) - 1, 0, N_BINS - 1), np.int64)


def confidence_gap(label_n: Ints, prob_nk: Floats) -> Floats:
    """Return top-label confidence minus correctness (0 or 1) of each cell, shape (n_cells,)."""
    return np.asarray(prob_nk.max(axis=1) - (prob_nk.argmax(axis=1) == label_n), np.float64)


def squared_error(label_n: Ints, prob_nk: Floats) -> Floats:
    """Return the squared differences between probabilities and truth, summed over classes, shape (n_cells,)."""
    true_prob = prob_nk[np.arange(len(label_n)), label_n]
    # sum of p^2 over all classes with p of the true class replaced by (1 - p)
    return np.asarray(np.einsum("nk,nk->n", prob_nk, prob_nk) + 1.0 - 2.0 * true_prob, np.float64)


def auc_one(positive_n: NDArray[np.bool_], score_n: Floats) -> float:
    """Return the chance that a positive outscores a negative, ties counting half; NaN without one of each.

    The Mann-Whitney statistic by mid-ranks (Hanley & McNeil 1982).
    """
    n_positive = int(positive_n.sum())
    n_negative = len(positive_n) - n_positive
    if n_positive == 0 or n_negative == 0:
        return float("nan")
    rank_sum = float(rankdata(score_n)[positive_n].sum())
    return (rank_sum - n_positive * (n_positive + 1) / 2) / (n_positive * n_negative)


def average_precision_one(positive_n: NDArray[np.bool_], score_n: Floats) -> float:
    """Return the mean precision over the positives, each at its own score as threshold; NaN without a positive.

    The step-wise area under the precision-recall curve, without interpolation; cells of equal score move together.
    """
    if not positive_n.any():
        return float("nan")
    recall_t, precision_t = precision_recall_points(positive_n, score_n)
    return float(np.sum(np.diff(recall_t, prepend=0.0) * precision_t))


def tally_of(label_n: Ints, prob_nk: Floats) -> Tally:
    """Sum up one sample.

    Parameters
    ----------
    label_n
        Shape (n_cells,), codes of the true classes.
    prob_nk
        Shape (n_cells, n_classes), rows sum to 1. The predicted class is the first of the largest.
    """
    check_scores(label_n, prob_nk)
    n_classes = prob_nk.shape[1]
    bins = confidence_bins(prob_nk.max(axis=1)) if len(label_n) else np.zeros(0, np.int64)
    predicted = prob_nk.argmax(axis=1).astype(np.int64)
    return Tally(
        confusion=confusion(label_n, predicted, n_classes).astype(np.float64),
        loss_sum=np.asarray(np.bincount(label_n, true_class_loss(label_n, prob_nk), n_classes), np.float64),
        gap_sum=np.asarray(np.bincount(bins, confidence_gap(label_n, prob_nk), N_BINS), np.float64),
        square_sum=np.asarray(squared_error(label_n, prob_nk).sum()),
        auc=np.array([auc_one(label_n == k, prob_nk[:, k]) for k in range(n_classes)]),
        ap=np.array([average_precision_one(label_n == k, prob_nk[:, k]) for k in range(n_classes)]),
    )


def roc_points(positive_n: NDArray[np.bool_], score_n: Floats) -> tuple[Floats, Floats]:
    """Return false and true positive rates from (0, 0) to (1, 1), one point per distinct score.

    Cells of equal score move together, so that the area under the points equals ``auc_one``.

    Raises
    ------
    DataError
        If there is no positive or no negative cell: the curve does not exist.
    """
    n_positive = int(positive_n.sum())
    n_negative = len(positive_n) - n_positive
    if n_positive == 0 or n_negative == 0:
        raise DataError(f"A ROC curve needs both kinds of cells; there are {n_positive} of and {n_negative} not.")
    found, called = _found_and_called(positive_n, score_n)
    return np.append(0.0, (called - found) / n_negative), np.append(0.0, found / n_positive)


def precision_recall_points(positive_n: NDArray[np.bool_], score_n: Floats) -> tuple[Floats, Floats]:
    """Return recall and precision at each distinct score as threshold, from the highest score to the lowest.

    Raises
    ------
    DataError
        If there is no positive cell: recall does not exist.
    """
    n_positive = int(positive_n.sum())
    if n_positive == 0:
        raise DataError(f"A precision-recall curve needs cells of its class; none of the {len(positive_n)} is.")
    found, called = _found_and_called(positive_n, score_n)
    return np.asarray(found / n_positive), np.asarray(found / called)


def _found_and_called(positive_n: NDArray[np.bool_], score_n: Floats) -> tuple[Ints, Ints]:
    """Count positives and cells at or above each distinct score, from the highest to the lowest."""
    order = np.argsort(-score_n, kind="stable")
    last_of_tie = np.append(np.flatnonzero(np.diff(score_n[order])), len(order) - 1)
    return np.cumsum(positive_n[order], dtype=np.int64)[last_of_tie], (last_of_tie + 1).astype(np.int64)


def reliability_points(label_n: Ints, prob_nk: Floats) -> tuple[Floats, Floats, Ints]:
    """Return mean confidence, accuracy and number of cells of each confidence bin that holds any."""
    confidence = prob_nk.max(axis=1)
    bins = confidence_bins(confidence)
    n = np.bincount(bins, minlength=N_BINS)
    used = n > 0
    correct = (prob_nk.argmax(axis=1) == label_n).astype(np.float64)
    mean_confidence = np.bincount(bins, confidence, minlength=N_BINS)[used] / n[used]
    share_correct = np.bincount(bins, correct, minlength=N_BINS)[used] / n[used]
    return mean_confidence, share_correct, n[used].astype(np.int64)
