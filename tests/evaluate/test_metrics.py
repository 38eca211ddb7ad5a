"""Scores against scikit-learn, an implementation that shares no line with ours."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn import metrics as sk

from perikarya.errors import DataError
from perikarya.evaluate.metrics import (
    N_BINS,
    OVERALL,
    PER_CLASS,
    auc_one,
    average_precision_one,
    confidence_bins,
    precision_recall_points,
    reliability_points,
    roc_points,
    tally_of,
)


def sample(n: int, k: int, seed: int, *, decimals: int = 2) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    rng = np.random.default_rng(seed)
    prob = np.round(rng.dirichlet(np.ones(k), n), decimals) + 1e-3  # rounding makes ties
    return rng.integers(0, k, n), prob / prob.sum(axis=1, keepdims=True)


def overall_by_sklearn(label: NDArray[np.int64], prob: NDArray[np.float64]) -> dict[str, float]:
    k = prob.shape[1]
    predicted = prob.argmax(axis=1)
    classes = list(range(k))
    steps = [abs(int(a) - int(b)) for a, b in zip(label, predicted, strict=True)]
    return {
        "accuracy": sk.accuracy_score(label, predicted),
        "balanced_accuracy": sk.recall_score(label, predicted, labels=classes, average="macro"),
        "macro_f1": sk.f1_score(label, predicted, labels=classes, average="macro", zero_division=0),
        "macro_auc": float(np.mean([sk.roc_auc_score(label == c, prob[:, c]) for c in classes])),
        "loss": math.fsum(-math.log(max(prob[i, c], 1e-7)) for i, c in enumerate(label)) / len(label),
        "ece": ece_in_plain_python(label, prob),
        "macro_ap": float(np.mean([sk.average_precision_score(label == c, prob[:, c]) for c in classes])),
        "brier": float(((np.eye(k)[label] - prob) ** 2).sum(axis=1).mean()),
        "kappa": sk.cohen_kappa_score(label, predicted, labels=classes),
        "qwk": sk.cohen_kappa_score(label, predicted, weights="quadratic", labels=classes),
        "adjacent_error": steps.count(1) / len(label),
        "severe_error": sum(s > 1 for s in steps) / len(label) if k > 2 else math.nan,
    }


def ece_in_plain_python(label: NDArray[np.int64], prob: NDArray[np.float64]) -> float:
    total = 0.0
    for i in range(N_BINS):
        low, high = i / N_BINS, (i + 1) / N_BINS
        inside = [j for j in range(len(label)) if low < max(prob[j]) <= high]
        if inside:
            confidence = sum(max(prob[j]) for j in inside) / len(inside)
            correct = sum(int(np.argmax(prob[j])) == label[j] for j in inside) / len(inside)
            total += abs(confidence - correct) * len(inside) / len(label)
    return total


def per_class_by_sklearn(label: NDArray[np.int64], prob: NDArray[np.float64], c: int) -> dict[str, float]:
    predicted = prob.argmax(axis=1)
    return {
        "recall": sk.recall_score(label == c, predicted == c),
        "specificity": sk.recall_score(label != c, predicted != c),
        "precision": sk.precision_score(label == c, predicted == c, zero_division=np.nan),
        "f1": sk.f1_score(label == c, predicted == c, zero_division=0),
        "auc": sk.roc_auc_score(label == c, prob[:, c]),
        "ap": sk.average_precision_score(label == c, prob[:, c]),
        "loss": float(np.mean([-math.log(max(prob[i, c], 1e-7)) for i in np.flatnonzero(label == c)])),
    }


@pytest.mark.parametrize("k", [2, 3, 5, 12])
def test_every_overall_metric_equals_scikit_learn(k: int) -> None:
    label, prob = sample(400, k, seed=k)
    tally, expected = tally_of(label, prob), overall_by_sklearn(label, prob)
    assert set(expected) == set(OVERALL.names()), "a metric without an independent check"
    for name, metric in OVERALL.items():
        assert metric.compute(tally) == pytest.approx(expected[name], abs=1e-12, nan_ok=True), name


@pytest.mark.parametrize("k", [2, 3, 12])
def test_every_class_metric_equals_scikit_learn(k: int) -> None:
    label, prob = sample(500, k, seed=10 + k)
    tally = tally_of(label, prob)
    for c in range(k):
        expected = per_class_by_sklearn(label, prob, c)
        assert set(expected) == set(PER_CLASS.names()), "a metric without an independent check"
        for name, metric in PER_CLASS.items():
            np.testing.assert_allclose(metric.compute(tally)[c], expected[name], atol=1e-12, err_msg=name)


def test_scores_of_an_absent_class_are_undefined_not_zero() -> None:
    label, prob = sample(200, 3, seed=3)
    tally = tally_of(label[label != 2], prob[label != 2])
    for name in ("recall", "f1", "auc", "ap", "loss"):
        assert np.isnan(PER_CLASS.get(name).compute(tally)[2]), name
    assert np.isfinite(PER_CLASS.get("specificity").compute(tally)[2])
    for name in ("balanced_accuracy", "macro_f1", "macro_auc", "macro_ap"):
        assert np.isnan(OVERALL.get(name).compute(tally)), name
    for name in ("accuracy", "brier", "kappa", "adjacent_error", "severe_error"):
        assert np.isfinite(OVERALL.get(name).compute(tally)), name


@pytest.mark.parametrize("absent", [None, 2])
def test_the_classification_report_of_scikit_learn_says_the_same(absent: int | None) -> None:
    label, prob = sample(300, 4, seed=21, decimals=1)
    label, prob = label[label != absent], prob[label != absent]
    tally = tally_of(label, prob)
    report = sk.classification_report(
        label, prob.argmax(axis=1), labels=range(4), output_dict=True, zero_division=np.nan
    )
    for c in set(range(4)) - {absent}:
        for ours, theirs in (("recall", "recall"), ("precision", "precision"), ("f1", "f1-score")):
            assert PER_CLASS.get(ours).compute(tally)[c] == pytest.approx(report[str(c)][theirs], abs=1e-12)
        assert tally.confusion[c].sum() == report[str(c)]["support"]
    assert OVERALL.get("loss").compute(tally) == pytest.approx(sk.log_loss(label, prob, labels=range(4)), abs=1e-12)
    brier = sk.brier_score_loss(label, prob, labels=range(4), scale_by_half=False)
    assert OVERALL.get("brier").compute(tally) == pytest.approx(brier, abs=1e-12)


def test_with_two_classes_no_error_is_severe_and_its_rate_is_undefined() -> None:
    label, prob = sample(50, 2, seed=2)
    tally = tally_of(label, prob)
    assert np.isnan(OVERALL.get("severe_error").compute(tally))
    accuracy, adjacent = (OVERALL.get(n).compute(tally) for n in ("accuracy", "adjacent_error"))
    assert adjacent == pytest.approx(1 - accuracy)


def test_the_brier_score_runs_from_zero_to_two() -> None:
    prob = np.eye(3)
    assert OVERALL.get("brier").compute(tally_of(np.array([0, 1, 2]), prob)) == 0
    assert OVERALL.get("brier").compute(tally_of(np.array([1, 2, 0]), prob)) == 2


def test_precision_of_a_class_never_predicted_is_undefined_and_its_f1_is_zero() -> None:
    prob = np.array([[0.9, 0.1], [0.8, 0.2]])
    tally = tally_of(np.array([0, 1]), prob)
    assert np.isnan(PER_CLASS.get("precision").compute(tally)[1])
    assert PER_CLASS.get("f1").compute(tally)[1] == 0


@pytest.mark.parametrize("name", ["kappa", "qwk"])
def test_kappa_of_one_class_only_is_undefined(name: str) -> None:
    tally = tally_of(np.zeros(4, np.int64), np.tile([0.9, 0.1], (4, 1)))
    assert np.isnan(OVERALL.get(name).compute(tally))


def test_a_certain_and_wrong_network_has_a_finite_loss() -> None:
    tally = tally_of(np.array([1, 0]), np.array([[1.0, 0.0], [1.0, 0.0]]))
    assert OVERALL.get("loss").compute(tally) == pytest.approx(-math.log(1e-7) / 2)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 6)), min_size=2, max_size=40))
def test_auc_is_the_share_of_won_pairs_and_the_area_under_the_roc_points(cells: list[tuple[bool, int]]) -> None:
    positive = np.array([c[0] for c in cells])
    score = np.array([c[1] for c in cells], dtype=float)
    if positive.all() or not positive.any():
        assert math.isnan(auc_one(positive, score))
        with pytest.raises(DataError, match="both kinds"):
            roc_points(positive, score)
        return
    pairs = [(s > t) + 0.5 * (s == t) for s in score[positive] for t in score[~positive]]
    assert auc_one(positive, score) == pytest.approx(sum(pairs) / len(pairs))
    false_rate, true_rate = roc_points(positive, score)
    assert np.trapezoid(true_rate, false_rate) == pytest.approx(auc_one(positive, score))
    assert (np.diff(false_rate) >= 0).all()
    assert (np.diff(true_rate) >= 0).all()


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 6), st.integers(5, 60), st.integers(0, 1000))
def test_scores_do_not_depend_on_the_order_of_cells_nor_on_seeing_each_twice(k: int, n: int, seed: int) -> None:
    label, prob = sample(n, k, seed)
    order = np.random.default_rng(seed).permutation(n)
    reference = tally_of(label, prob)
    shuffled, doubled = tally_of(label[order], prob[order]), tally_of(np.tile(label, 2), np.tile(prob, (2, 1)))
    for name, metric in [*OVERALL.items(), *PER_CLASS.items()]:
        value = metric.compute(reference)
        np.testing.assert_allclose(metric.compute(shuffled), value, atol=1e-9, err_msg=name)
        np.testing.assert_allclose(metric.compute(doubled), value, atol=1e-9, err_msg=name)


def test_perfect_predictions_get_perfect_scores() -> None:
    label = np.repeat([0, 1, 2], 5)
    tally = tally_of(label, np.eye(3)[label])
    zero = {"loss", "brier", "ece", "adjacent_error", "severe_error"}
    assert {n: float(m.compute(tally)) for n, m in OVERALL.items()} == {
        n: float(n not in zero) for n in OVERALL.names()
    }
    assert zero == {n for n, m in OVERALL.items() if not m.higher_is_better}


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 6)), min_size=1, max_size=40))
def test_average_precision_is_the_area_of_the_steps_of_scikit_learns_curve(cells: list[tuple[bool, int]]) -> None:
    positive = np.array([c[0] for c in cells])
    score = np.array([c[1] for c in cells], dtype=float)
    if not positive.any():
        assert math.isnan(average_precision_one(positive, score))
        with pytest.raises(DataError, match="cells of its class"):
            precision_recall_points(positive, score)
        return
    assert average_precision_one(positive, score) == pytest.approx(sk.average_precision_score(positive, score))
    precision, recall, _ = sk.precision_recall_curve(positive, score)
    found_recall, found_precision = precision_recall_points(positive, score)
    np.testing.assert_allclose(found_recall, recall[:-1][::-1])  # theirs ends in a point (0, 1) that is not data
    np.testing.assert_allclose(found_precision, precision[:-1][::-1])


def test_a_confidence_on_the_edge_of_two_bins_belongs_to_the_lower() -> None:
    assert confidence_bins(np.array([0.2, 0.201, 0.4, 0.8, 1.0])).tolist() == [2, 3, 5, 11, 14]


def test_reliability_points_hold_every_cell_once() -> None:
    label, prob = sample(300, 3, seed=1)
    confidence, correct, n = reliability_points(label, prob)
    assert n.sum() == 300
    assert (confidence * n).sum() == pytest.approx(prob.max(axis=1).sum())
    assert (correct * n).sum() == pytest.approx((prob.argmax(axis=1) == label).sum())


def test_labels_and_probabilities_that_do_not_fit_are_refused() -> None:
    prob = np.full((2, 2), 0.5)
    with pytest.raises(DataError, match="do not belong together"):
        tally_of(np.zeros(3, np.int64), prob)
    with pytest.raises(DataError, match="Labels run from"):
        tally_of(np.array([0, -1]), prob)
    with pytest.raises(DataError, match="not numbers"):
        tally_of(np.zeros(2, np.int64), np.array([[np.nan, 1.0], [0.5, 0.5]]))
