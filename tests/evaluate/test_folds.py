"""Ranks over folds, against scipy and the tables of Demsar 2006."""

from __future__ import annotations

import numpy as np
import pytest
from benchmarks.simulate_comparing import make_models
from scipy.stats import f as f_law
from scipy.stats import friedmanchisquare, t
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from perikarya.errors import DataError
from perikarya.evaluate.folds import compare_folds, corrected_t, friedman_nemenyi, network_scores
from perikarya.evaluate.outputs import Scored


@pytest.mark.parametrize("decimals", [1, 6])
def test_friedmans_statistic_is_scipys_also_with_ties(decimals: int) -> None:
    scores = np.round(np.random.default_rng(0).normal(0.8, 0.1, (12, 5)), decimals)
    found = friedman_nemenyi(scores, "abcde")
    expected = friedmanchisquare(*scores.T)
    assert found["chi2"] == pytest.approx(expected.statistic)
    assert found["p_chi2"] == pytest.approx(expected.pvalue)


def test_demsars_example() -> None:
    """Demsar 2006, section 3.2: four versions of C4.5 on 14 data sets; critical difference 1.25 at 5 %, 1.12 at 10 %.

    At 5 % nobody differs; at 10 % plain C4.5 differs from all but the one with its confidence tuned (figure 1). His
    average ranks come from unrounded scores, so those of the printed table lie up to half a rank in 14 beside them.
    """
    scores = np.array(
        [
            [0.763, 0.768, 0.771, 0.798], [0.599, 0.591, 0.590, 0.569], [0.954, 0.971, 0.968, 0.967],
            [0.628, 0.661, 0.654, 0.657], [0.882, 0.888, 0.886, 0.898], [0.936, 0.931, 0.916, 0.931],
            [0.661, 0.668, 0.609, 0.685], [0.583, 0.583, 0.563, 0.625], [0.775, 0.838, 0.866, 0.875],
            [1.000, 1.000, 1.000, 1.000], [0.940, 0.962, 0.965, 0.962], [0.619, 0.666, 0.614, 0.669],
            [0.972, 0.981, 0.975, 0.975], [0.957, 0.978, 0.946, 0.970],
        ]
    )  # fmt: skip
    names = ["C4.5", "+m", "+cf", "+m+cf"]
    at_5, at_10 = (friedman_nemenyi(scores, names, alpha=alpha) for alpha in (0.05, 0.10))
    assert at_5["ranks"] == pytest.approx({"+m+cf": 1.964, "+m": 2.0, "+cf": 2.893, "C4.5": 3.143}, abs=0.5 / 14)
    assert (at_5["cd"], at_10["cd"]) == pytest.approx((1.25, 1.12), abs=0.005)
    assert at_5["cliques"] == [["+m+cf", "+m", "+cf", "C4.5"]]
    assert at_10["cliques"] == [["+m+cf", "+m", "+cf"], ["+cf", "C4.5"]]
    assert at_5["f"] == pytest.approx(13 * at_5["chi2"] / (14 * 3 - at_5["chi2"]))
    assert at_5["p"] == pytest.approx(f_law.sf(at_5["f"], 3, 39))


@pytest.mark.parametrize(("k", "q"), [(3, 2.343), (4, 2.569), (5, 2.728), (10, 3.164)])
def test_the_critical_difference_rests_on_the_values_of_demsars_table(k: int, q: float) -> None:
    scores = np.random.default_rng(k).normal(size=(6, k))
    found = friedman_nemenyi(scores, [f"m{i}" for i in range(k)])
    assert found["cd"] / np.sqrt(k * (k + 1) / 36) == pytest.approx(q, abs=0.001)  # he cut the fourth digit


def test_rank_one_is_the_best_whichever_way_the_metric_points() -> None:
    scores = np.array([[0.9, 0.5, 0.7]] * 4)
    assert friedman_nemenyi(scores, "abc")["ranks"] == {"a": 1.0, "c": 2.0, "b": 3.0}
    assert friedman_nemenyi(scores, "abc", higher_is_better=False)["ranks"] == {"b": 1.0, "c": 2.0, "a": 3.0}


def test_blocks_that_all_agree_have_no_finite_f_and_blocks_without_differences_none_at_all() -> None:
    agree = friedman_nemenyi(np.array([[0.9, 0.5, 0.7]] * 4), "abc")
    assert (agree["f"], agree["p"]) == (None, 0.0)
    equal = friedman_nemenyi(np.full((4, 3), 0.5), "abc")
    assert (equal["chi2"], equal["f"], equal["p"]) == (0.0, 0.0, 1.0)


def test_cliques_are_the_largest_sets_within_the_critical_difference() -> None:
    """Two teams of three: far apart between teams, in turns within them."""
    rng = np.random.default_rng(0)
    scores = np.concatenate([rng.permuted([[9.0, 8, 7]] * 30, axis=1), rng.permuted([[3.0, 2, 1]] * 30, axis=1)], 1)
    found = friedman_nemenyi(scores, "abcxyz")
    assert [set(c) for c in found["cliques"]] == [set("abc"), set("xyz")]
    chain = friedman_nemenyi(scores + np.linspace(0, 5, 6)[::-1] * 10, "abcxyz")
    assert chain["cd"] < 2
    assert chain["cliques"] == [list("ab"), list("bc"), list("cx"), list("xy"), list("yz")]


@pytest.mark.parametrize("shape", [(2, 3), (3, 2)])
def test_fewer_than_three_models_or_blocks_are_refused(shape: tuple[int, int]) -> None:
    with pytest.raises(DataError, match="needs 3 models"):
        friedman_nemenyi(np.zeros(shape), "abc"[: shape[1]])


def test_the_corrected_t_test_counts_shared_training_cells() -> None:
    """Nadeau & Bengio 2003: five folds, a quarter as many cells tested as trained on."""
    d = np.array([0.02, 0.01, 0.03, 0.00, 0.02])
    statistic, p = corrected_t(d, test_per_train=0.25) or (0.0, 0.0)
    expected = 0.016 / np.sqrt((1 / 5 + 1 / 4) * d.var(ddof=1))
    assert statistic == pytest.approx(expected)
    assert p == pytest.approx(2 * t.sf(expected, 4))
    assert corrected_t(np.full(5, 0.1), test_per_train=0.25) is None
    assert corrected_t(np.array([0.1]), test_per_train=0.25) is None


def blocks(models: dict[str, list[Scored]], n: int) -> dict[str, dict[tuple[int, int], Scored]]:
    return {name: {(0, f): parts[f] for f in range(n)} for name, parts in models.items()}


def test_folds_that_not_all_models_tested_or_that_lack_a_class_are_left_out() -> None:
    models, _ = make_models(np.random.default_rng(1), skills=[1.0, 1.3, 2.0], n_parts=5)
    folds = blocks(models, 5)
    del folds["m1"][0, 0]
    two = folds["m0"][0, 1]
    folds["m0"][0, 1] = Scored(two.row_n, np.minimum(two.label_n, 1), two.prob_nk)
    found = compare_folds(folds, metric="balanced_accuracy", test_per_train=0.3, alpha=0.05)
    assert found["n_blocks"] == 3
    expected = [balanced_accuracy_score(p.label_n, p.prob_nk.argmax(axis=1)) for p in models["m2"][2:]]
    assert found["scores"]["m2"] == pytest.approx(expected)
    assert found["friedman"]["n_blocks"] == 3
    assert found["why"] is None
    mean = {name: np.mean(values) for name, values in found["scores"].items()}
    assert {p["a"] for p in found["pairs"]} == {max(mean, key=lambda n: mean[n])}
    for pair in found["pairs"]:
        d = np.subtract(found["scores"][pair["a"]], found["scores"][pair["b"]])
        assert pair["difference"] == pytest.approx(d.mean())
        assert (pair["t"], pair["p"]) == corrected_t(d, test_per_train=0.3)


def test_too_few_models_are_said_so_and_the_pair_is_still_compared() -> None:
    models, _ = make_models(np.random.default_rng(1), skills=[1.0, 1.3], n_parts=5)
    found = compare_folds(blocks(models, 5), metric="balanced_accuracy", test_per_train=0.3, alpha=0.05)
    assert found["friedman"] is None
    assert "there are 2 models and 5 such folds" in found["why"]
    assert len(found["pairs"]) == 1
    assert compare_folds({}, metric="balanced_accuracy", test_per_train=0.3, alpha=0.05)["n_blocks"] == 0


def test_networks_are_scored_one_by_one() -> None:
    models, _ = make_models(np.random.default_rng(2), skills=[1.0], n_parts=3)
    found = network_scores(models["m0"])
    for i, part in enumerate(models["m0"]):
        assert found["macro_auc"][i] == pytest.approx(
            np.mean([roc_auc_score(part.label_n == k, part.prob_nk[:, k]) for k in range(3)])
        )
    part = models["m0"][0]
    rare = Scored(part.row_n, np.minimum(part.label_n, 1), part.prob_nk)
    assert network_scores([rare])["balanced_accuracy"] == [None]
