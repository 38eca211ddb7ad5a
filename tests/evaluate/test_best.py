"""Holm's correction against statsmodels, and who might be the best."""

from __future__ import annotations

import numpy as np
import pytest
from statsmodels.stats.multitest import multipletests

from perikarya.evaluate.best import holm, indistinguishable, model_confidence_set

OF_20 = {"metric": "accuracy", "alpha": 0.05, "smallest_p": 1e-4, "unit": "subjects", "n_clusters": 20}


@pytest.mark.parametrize("n", [1, 2, 7, 40])
def test_holm_is_that_of_statsmodels(n: int) -> None:
    p = np.random.default_rng(n).random(n) ** 3
    np.testing.assert_allclose(holm(p), multipletests(p, method="holm")[1], atol=1e-15)
    with_unknown = np.append(np.nan, p)
    np.testing.assert_allclose(holm(with_unknown), np.append(np.nan, holm(p)), err_msg="unknown p values do not count")


def test_models_that_the_best_does_not_beat_after_correction_stay_in_the_set() -> None:
    """0.02 is below 5 %, but not a third of it; 0.001 is."""
    scores = {"a": 0.7, "b": 0.9, "c": 0.8, "d": 0.85}
    found = indistinguishable(scores, {"a": 0.001, "c": 0.03, "d": 0.2}, **OF_20)
    assert found["best"] == "b"
    assert found["set"] == ["b", "d", "c"]
    assert found["rejected"] == ["a"]
    assert found["why"].startswith("2 of 3 other models cannot be told from b")
    assert indistinguishable(scores, {"a": 0.001, "c": 0.025, "d": 0.05}, **OF_20)["set"] == ["b"], "level included"


def test_a_lone_winner_and_a_lone_model_are_named_as_such() -> None:
    found = indistinguishable({"a": 0.7, "b": 0.9}, {"a": 0.001}, **OF_20)
    assert (found["set"], found["rejected"]) == (["b"], ["a"])
    assert "b differs from the other model (" in found["why"]
    alone = indistinguishable({"a": 0.7}, {}, **OF_20)
    assert alone["set"] == ["a"]
    assert alone["why"] == "There is no other model to compare with."


@pytest.mark.parametrize(
    ("n_animals", "n_models", "possible"), [(5, 2, False), (6, 2, True), (8, 7, True), (8, 8, False)]
)
def test_with_few_animals_nobody_can_be_told_apart_and_it_says_so(
    n_animals: int, n_models: int, possible: bool
) -> None:
    """The smallest p value is 2 / 2^animals, and Holm multiplies it with the number of comparisons."""
    smallest = 2.0 ** (1 - n_animals)
    scores = {f"m{i}": float(i) for i in range(n_models)}
    p = {f"m{i}": smallest for i in range(n_models - 1)}
    about = {**OF_20, "smallest_p": smallest, "n_clusters": n_animals}
    found = indistinguishable(scores, p, **about)
    assert found["can_reject"] is possible
    assert len(found["set"]) == (1 if possible else n_models)
    assert (f"With {n_animals} subjects, no p value" in found["why"]) is not possible


def test_a_p_value_that_does_not_exist_rejects_nobody() -> None:
    assert indistinguishable({"a": 0.1, "b": 0.9}, {"a": np.nan}, **OF_20)["set"] == ["b", "a"]


def test_the_confidence_set_of_two_models_is_a_t_test_of_their_difference() -> None:
    """With two models T_max is |difference| / error, so the set breaks up at 1.96 errors."""
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 0.01, (40_000, 2))
    error = np.std(noise[:, 0] - noise[:, 1]) * np.sqrt(20 / 19)
    for gap, n_kept in ((1.9, 2), (2.03, 1)):
        score = np.array([0.8, 0.8 + gap * error])
        assert len(model_confidence_set(score, score + noise, alpha=0.05, n_clusters=20)) == n_kept


def test_the_confidence_set_drops_the_worst_first_and_lists_the_best_first() -> None:
    rng = np.random.default_rng(1)
    score = np.array([0.70, 0.90, 0.50, 0.895])
    draws = score + rng.normal(0, 0.01, (2000, 4)) + rng.normal(0, 0.1, (2000, 1))
    assert model_confidence_set(score, draws, alpha=0.05, n_clusters=20) == [1, 3]
    assert model_confidence_set(score, np.repeat(draws[:, :1], 4, axis=1), alpha=0.05, n_clusters=20) == [1]


@pytest.mark.slow
def test_the_confidence_set_holds_all_of_six_equal_models_in_19_of_20_studies() -> None:
    """All are best, so the first one must be in; normal scores of independent errors, known to the bootstrap."""
    rng = np.random.default_rng(2)
    sets = [
        model_confidence_set(rng.normal(0, 1, 6), rng.normal(0, 1, (999, 6)), alpha=0.05, n_clusters=10**6)
        for _ in range(2000)
    ]
    three_errors = 3 * np.sqrt(0.05 * 0.95 / 2000)
    assert np.mean([len(found) == 6 for found in sets]) == pytest.approx(0.95, abs=three_errors)
    assert np.mean([0 in found for found in sets]) > 0.95 - three_errors
