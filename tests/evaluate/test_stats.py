"""The bootstrap against scores of explicitly resampled rows, and its coverage of a known truth."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from scipy.stats import binomtest, norm, t
from sklearn.metrics import average_precision_score, roc_auc_score
from tests.evaluate.test_metrics import overall_by_sklearn, per_class_by_sklearn, sample

from perikarya.evaluate import ranks
from perikarya.evaluate.metrics import OVERALL, PER_CLASS, tally_of
from perikarya.evaluate.stats import (
    clusters_of,
    draw_counts,
    interval_unit,
    percentile_interval,
    tally_draws,
    wilson_interval,
)


def resampled_rows(cluster: NDArray[np.int64], counts: NDArray[np.float64]) -> NDArray[np.int64]:
    taken = [np.flatnonzero(cluster == c) for c, n in enumerate(counts) for _ in range(int(n))]
    return np.concatenate(taken)


def tolerance(name: str) -> float:
    return 1e-6 if name in ("ap", "macro_ap") else 1e-12  # the shares of average precision are float32


@pytest.mark.parametrize("k", [2, 3, 5])
def test_each_draw_scores_as_its_rows_do_in_scikit_learn(k: int) -> None:
    label, prob = sample(300, k, seed=k)
    cluster = np.random.default_rng(k).integers(0, 10, 300)
    counts = draw_counts(10, n_draws=8, seed=k)
    tally = tally_draws(label, prob, cluster, counts)
    for b in range(len(counts)):
        rows = resampled_rows(cluster, counts[b])
        expected = overall_by_sklearn(label[rows], prob[rows])
        for name, metric in OVERALL.items():
            assert metric.compute(tally)[b] == pytest.approx(expected[name], abs=tolerance(name), nan_ok=True), name
        for c in range(k):
            expected = per_class_by_sklearn(label[rows], prob[rows], c)
            for name, metric in PER_CLASS.items():
                assert metric.compute(tally)[b, c] == pytest.approx(expected[name], abs=tolerance(name)), name


@pytest.mark.parametrize("most_clusters", [0, 10**9])
@pytest.mark.parametrize("chunk_values", [1, 1500, 10**7])
def test_auc_and_precision_by_product_and_by_pass_both_equal_scikit_learn(
    most_clusters: int, chunk_values: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranks, "MAX_PRODUCT_CLUSTERS", most_clusters)
    monkeypatch.setattr(ranks, "_CHUNK_VALUES", chunk_values)  # one group or draw at a time, some, all
    monkeypatch.setattr(ranks, "_TILE", 3)
    label, prob = sample(200, 2, seed=4, decimals=1)
    cluster = np.random.default_rng(4).integers(0, 40, 200)
    counts = draw_counts(40, n_draws=11, seed=0)
    auc, precision = ranks.rank_draws(ranks.rank_cells(label == 1, prob[:, 1], cluster), counts)
    for b in range(len(counts)):
        rows = resampled_rows(cluster, counts[b])
        assert auc[b] == pytest.approx(roc_auc_score(label[rows], prob[rows, 1]), abs=1e-12)
        assert precision[b] == pytest.approx(average_precision_score(label[rows], prob[rows, 1]), abs=1e-6)


def test_taking_every_cluster_once_gives_the_scores_of_the_sample() -> None:
    label, prob = sample(150, 3, seed=9)
    cluster = np.random.default_rng(9).integers(0, 7, 150)
    drawn, plain = tally_draws(label, prob, cluster, np.ones((1, 7))), tally_of(label, prob)
    for name, metric in [*OVERALL.items(), *PER_CLASS.items()]:
        np.testing.assert_allclose(metric.compute(drawn)[0], metric.compute(plain), atol=tolerance(name), err_msg=name)


def test_draws_without_a_class_are_undefined() -> None:
    label, prob = np.array([0, 0, 1, 1]), np.full((4, 2), 0.5)
    tally = tally_draws(label, prob, np.array([0, 0, 1, 1]), np.array([[2.0, 0.0], [1.0, 1.0]]))
    assert np.isnan(OVERALL.get("balanced_accuracy").compute(tally)).tolist() == [True, False]
    assert np.isnan(PER_CLASS.get("auc").compute(tally)[:, 0]).tolist() == [True, False]


def test_draws_take_as_many_clusters_as_there_are_and_repeat_for_a_seed() -> None:
    counts = draw_counts(12, n_draws=500, seed=3)
    assert (counts.sum(axis=1) == 12).all()
    draw_counts.cache_clear()
    np.testing.assert_array_equal(counts, draw_counts(12, n_draws=500, seed=3))
    assert not np.array_equal(counts, draw_counts(12, n_draws=500, seed=4))
    assert counts.var() == pytest.approx(11 / 12, abs=0.06)  # multinomial: n p (1 - p) with n = 12, p = 1/12


def test_an_interval_needs_three_clusters_worth_of_information() -> None:
    draws = np.linspace(0, 1, 100)
    assert percentile_interval(draws, confidence=0.9, n_clusters=10**6) == pytest.approx((0.05, 0.95), abs=1e-4)
    draws[:11] = np.nan
    assert percentile_interval(draws, confidence=0.9, n_clusters=9) is None
    assert percentile_interval(np.ones(100), confidence=0.9, n_clusters=9) is None, (
        "a perfect score is not a certain one"
    )


def test_few_clusters_widen_the_interval_as_students_t_does() -> None:
    """For a mean of normal values the expanded interval is the t interval."""
    draws = norm.ppf((np.arange(200_000) + 0.5) / 200_000)  # of a mean whose bootstrap spread is 1
    low, high = percentile_interval(draws, confidence=0.95, n_clusters=6) or (0, 0)
    half = t.ppf(0.975, 5) * np.sqrt(6 / 5)  # the bootstrap divides by n, the t interval by n - 1
    assert (low, high) == pytest.approx((-half, half), abs=0.02)


@pytest.mark.parametrize(("hits", "n"), [(43, 65), (811, 926), (0, 12), (12, 12)])
def test_wilson_equals_scipy(hits: int, n: int) -> None:
    expected = binomtest(hits, n).proportion_ci(method="wilson")
    assert wilson_interval(hits / n, n, confidence=0.95) == pytest.approx((expected.low, expected.high))


def test_wilson_of_nothing_is_nothing() -> None:
    assert wilson_interval(float("nan"), 0, confidence=0.95) is None


def test_the_unit_is_the_largest_known_source_of_likeness() -> None:
    cells = pd.DataFrame({"subject": ["a", "a", "b"], "image_id": ["i", "i", "j"]})
    assert interval_unit(cells) == "subject"
    assert interval_unit(cells.assign(subject=["a", None, "b"])) == "image_id"
    assert interval_unit(cells.assign(subject=None, image_id=["i", "j", "k"])) == "cell"
    assert clusters_of(cells, "subject").code_n.tolist() == [0, 0, 1]
    assert clusters_of(cells, "cell").n_clusters == 3


def test_resampling_subjects_covers_the_truth_where_resampling_cells_does_not() -> None:
    """200 studies of 15 subjects whose accuracies differ (true mean 0.8): how often is 0.8 inside?"""
    rng = np.random.default_rng(0)
    n_subjects, n_per, covered = 15, 40, {"subject": 0, "cell": 0}
    cluster = np.repeat(np.arange(n_subjects), n_per)
    weights = {
        "subject": draw_counts(n_subjects, n_draws=500, seed=1),
        "cell": draw_counts(n_subjects * n_per, n_draws=500, seed=1),
    }
    for _ in range(200):
        skill = rng.beta(8, 2, n_subjects)  # mean 0.8
        correct = (rng.random(n_subjects * n_per) < skill[cluster]).astype(float)
        per_subject = np.bincount(cluster, correct)
        for unit, hits in (("subject", per_subject), ("cell", correct)):
            interval = percentile_interval(
                weights[unit] @ hits / len(correct), confidence=0.95, n_clusters=weights[unit].shape[1]
            )
            assert interval is not None
            covered[unit] += interval[0] <= 0.8 <= interval[1]
    assert 0.9 * 200 <= covered["subject"] <= 0.99 * 200
    assert covered["cell"] <= 0.75 * 200
