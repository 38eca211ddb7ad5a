"""DeLong's covariance by double loops over cells, by a worked example, and against the bootstrap."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import norm, t
from sklearn.metrics import roc_auc_score
from tests.evaluate.counting import area

from perikarya.evaluate.delong import Areas, delong, delong_clustered, macro_clustered, placements, won_pairs

Array = NDArray[np.float64]


def kernel(x: float, y: float) -> float:
    return 1.0 if x > y else 0.5 if x == y else 0.0


def naive_components(positive: NDArray[np.bool_], score: Array) -> tuple[Array, Array]:
    """V10 of each positive and V01 of each negative, by comparing each with each (DeLong 1988, equations 4)."""
    found, rejected = score[positive], score[~positive]
    v10 = np.array([np.mean([kernel(x, y) for y in rejected]) for x in found])
    v01 = np.array([np.mean([kernel(x, y) for x in found]) for y in rejected])
    return v10, v01


def sample(rng: np.random.Generator, n: int = 60, n_models: int = 3) -> tuple[NDArray[np.bool_], Array]:
    positive = rng.random(n) < 0.4
    positive[:2] = True, False
    return positive, np.round(positive + rng.normal(0, 1, (n_models, n)), 1)  # with ties


def placed(positive: NDArray[np.bool_], score_mn: Array) -> Array:
    return np.stack([placements(positive, s) for s in score_mn])


def test_placements_are_the_shares_of_cells_on_the_wrong_side_of_each_cell() -> None:
    positive, score_mn = sample(np.random.default_rng(0))
    for score in score_mn:
        found = placements(positive, score)
        v10, v01 = naive_components(positive, score)
        np.testing.assert_allclose(found[positive], v10, atol=1e-12)
        np.testing.assert_allclose(found[~positive], v01, atol=1e-12)
        assert found[positive].mean() == pytest.approx(roc_auc_score(positive, score), abs=1e-12)


def test_an_example_worked_by_hand() -> None:
    """Positives 3, 2; negatives 2, 1, 0.

    V10 = (1, 5/6) and V01 = (3/4, 1, 1), so the area is 11/12; S10 = (1/12)^2 * 2 = 1/72,
    S01 = ((1/6)^2 + 2 * (1/12)^2) / 2 = 1/48, and the variance is 1/144 + 1/144 = 1/72.
    """
    positive = np.array([True, True, False, False, False])
    areas = delong(positive, placements(positive, np.array([3.0, 2.0, 2.0, 1.0, 0.0]))[None])
    assert areas.area_m[0] == pytest.approx(11 / 12)
    assert areas.covariance_mm[0, 0] == pytest.approx(1 / 72)


def test_the_covariance_is_that_of_a_naive_double_loop() -> None:
    positive, score_mn = sample(np.random.default_rng(1))
    parts = [naive_components(positive, s) for s in score_mn]
    s10 = np.cov(np.stack([v10 for v10, _ in parts]))
    s01 = np.cov(np.stack([v01 for _, v01 in parts]))
    areas = delong(positive, placed(positive, score_mn))
    np.testing.assert_allclose(areas.covariance_mm, s10 / positive.sum() + s01 / (~positive).sum(), atol=1e-14)
    gap, interval, p = areas.difference(0, 1, confidence=0.95)
    error = np.sqrt(np.array([1, -1, 0]) @ areas.covariance_mm @ np.array([1, -1, 0]))
    assert gap == pytest.approx(roc_auc_score(positive, score_mn[0]) - roc_auc_score(positive, score_mn[1]))
    assert p == pytest.approx(2 * norm.sf(abs(gap) / error))
    assert interval == pytest.approx((gap - 1.959964 * error, gap + 1.959964 * error), rel=1e-6)


def naive_obuchowski(positive: NDArray[np.bool_], score_mn: Array, cluster: NDArray[np.int64]) -> Array:
    """Obuchowski 1997, sums over clusters written out."""
    clusters = sorted(set(cluster.tolist()))
    n_models = len(score_mn)
    x10 = np.zeros((n_models, len(clusters)))
    x01 = np.zeros((n_models, len(clusters)))
    m_i = np.array([(positive & (cluster == c)).sum() for c in clusters])
    n_i = np.array([(~positive & (cluster == c)).sum() for c in clusters])
    area = np.zeros(n_models)
    for model, score in enumerate(score_mn):
        v10, v01 = naive_components(positive, score)
        area[model] = v10.mean()
        for i, c in enumerate(clusters):
            x10[model, i] = v10[cluster[positive] == c].sum()
            x01[model, i] = v01[cluster[~positive] == c].sum()
    big_m, big_n, total = m_i.sum(), n_i.sum(), len(clusters)
    i10, i01 = (m_i > 0).sum(), (n_i > 0).sum()
    covariance = np.zeros((n_models, n_models))
    for a, b in product(range(n_models), repeat=2):
        d10a, d10b = x10[a] - m_i * area[a], x10[b] - m_i * area[b]
        d01a, d01b = x01[a] - n_i * area[a], x01[b] - n_i * area[b]
        s10 = i10 / ((i10 - 1) * big_m) * (d10a * d10b).sum()
        s01 = i01 / ((i01 - 1) * big_n) * (d01a * d01b).sum()
        s11 = total / (total - 1) * (d10a * d01b).sum()
        s11_turned = total / (total - 1) * (d10b * d01a).sum()
        covariance[a, b] = s10 / big_m + s01 / big_n + (s11 + s11_turned) / (big_m * big_n)
    return covariance


def test_the_clustered_covariance_is_that_of_obuchowski_written_out() -> None:
    rng = np.random.default_rng(2)
    positive, score_mn = sample(rng)
    cluster = rng.integers(0, 9, 60)
    positive[cluster == 0] = False  # an animal without positives
    areas = delong_clustered(positive, placed(positive, score_mn), cluster)
    np.testing.assert_allclose(areas.covariance_mm, naive_obuchowski(positive, score_mn, cluster), atol=1e-14)
    assert areas.df == min(len(set(cluster[positive])), len(set(cluster[~positive]))) - 1
    gap, _, p = areas.difference(2, 0, confidence=0.95)
    assert p == pytest.approx(2 * t.sf(abs(gap) / areas.error_of_difference(2, 0), areas.df))


def test_with_one_cell_per_cluster_the_clustered_covariance_is_delongs() -> None:
    positive, score_mn = sample(np.random.default_rng(3))
    v = placed(positive, score_mn)
    np.testing.assert_allclose(
        delong_clustered(positive, v, np.arange(60)).covariance_mm, delong(positive, v).covariance_mm, atol=1e-15
    )


def test_the_macro_area_is_the_mean_over_classes_and_its_error_that_of_the_bootstrap_of_clusters() -> None:
    rng = np.random.default_rng(4)
    n_clusters, n = 40, 800
    cluster, label = rng.integers(0, n_clusters, n), rng.integers(0, 3, n)
    shift = rng.normal(0, 0.8, (2, n_clusters))
    severity_mn = label + shift[:, cluster] + rng.normal(0, 0.7, (2, n))
    score_mkn = -np.abs(severity_mn[:, None, :] - np.arange(3)[:, None])
    placement_kmn = np.stack([placed(label == k, score_mkn[:, k]) for k in range(3)])
    areas = macro_clustered(label, placement_kmn, cluster)
    expected = [np.mean([roc_auc_score(label == k, s[k]) for k in range(3)]) for s in score_mkn]
    np.testing.assert_allclose(areas.area_m, expected, atol=1e-12)
    draws = []
    for _ in range(300):
        rows = np.concatenate([np.flatnonzero(cluster == c) for c in rng.integers(0, n_clusters, n_clusters)])
        draws.append([np.mean([area(label[rows] == k, s[k, rows]) for k in range(3)]) for s in score_mkn])
    # 300 draws know a standard deviation to 4 %
    assert np.sqrt(areas.covariance_mm[0, 0]) == pytest.approx(np.std(draws, axis=0)[0], rel=0.15)
    assert areas.error_of_difference(0, 1) == pytest.approx(np.std(np.subtract(*np.transpose(draws))), rel=0.15)


def test_pairs_of_clusters_add_up_to_the_area_of_any_draw() -> None:
    rng = np.random.default_rng(5)
    positive, score_mn = sample(rng)
    cluster = rng.integers(0, 6, 60)
    positive[cluster == 3] = False
    won = won_pairs(positive, score_mn[0], cluster, 6)
    for s, u in product(range(6), repeat=2):
        pairs = product(score_mn[0][positive & (cluster == s)], score_mn[0][~positive & (cluster == u)])
        assert won[s, u] == pytest.approx(sum(kernel(x, y) for x, y in pairs), abs=1e-12)


def test_an_interval_of_an_area_stays_below_one_and_is_missing_for_a_perfect_area() -> None:
    covariance = np.diag([0.0004, 0.0])
    areas = Areas(np.array([0.99, 1.0]), covariance, 7)
    low, high = areas.interval(0, confidence=0.95) or (0.0, 0.0)
    logit = np.log(99) + np.array([-1, 1]) * t.ppf(0.975, 7) * 0.02 / (0.99 * 0.01)
    assert (low, high) == pytest.approx(tuple(1 / (1 + np.exp(-logit))))
    assert 0 < low < 0.99 < high < 1
    assert areas.interval(1, confidence=0.95) is None


def test_equal_predictions_do_not_differ_and_unknown_errors_give_no_p_value() -> None:
    areas = Areas(np.array([0.8, 0.8, 0.7]), np.full((3, 3), 0.01), 5)
    assert areas.difference(0, 1, confidence=0.95) == (0.0, None, 1.0)
    assert np.isnan(areas.difference(0, 2, confidence=0.95)[2]), "a difference without spread cannot be tested"


@pytest.mark.parametrize("n_with", [1, 2])
def test_a_class_in_fewer_than_three_clusters_has_no_clustered_error(n_with: int) -> None:
    cluster = np.repeat(np.arange(5), 4)
    positive = np.isin(cluster, range(n_with)) & (np.arange(20) % 2 == 0)
    score = np.random.default_rng(6).normal(size=20)
    areas = delong_clustered(positive, placements(positive, score)[None], cluster)
    assert np.isnan(areas.covariance_mm).all()
    assert areas.interval(0, confidence=0.95) is None
    assert areas.difference(0, 0, confidence=0.95)[1] is None
