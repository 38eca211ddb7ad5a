"""Exchanging predictions, against doing it one by one with scikit-learn's scores."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
import pytest
from benchmarks.simulate_comparing import make_models
from numpy.typing import NDArray
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score

from perikarya.evaluate import permutation
from perikarya.evaluate.paired import PairedModels, pair_up
from perikarya.evaluate.permutation import COUNT_SCORES, Counts, Exchanges, exchange_p

SKLEARN: dict[str, Callable[..., Any]] = {
    "accuracy": accuracy_score,
    "balanced_accuracy": balanced_accuracy_score,
    "macro_f1": lambda y, p: f1_score(y, p, average="macro"),
}


def paired(**options: Any) -> PairedModels:
    entries, cells = make_models(np.random.default_rng(3), **options)
    models, _ = pair_up(entries, cells)
    assert models is not None
    return models


def means(models: PairedModels) -> Counts:
    counts = models.counts()
    return Counts(
        np.stack([c.found.mean(axis=0) for c in counts]), np.stack([c.predicted.mean(axis=0) for c in counts]),
        counts[0].true,
    )  # fmt: skip


def by_brute_force(models: PairedModels, a: int, b: int, name: str) -> float:
    """Exchange predicted classes cell by cell, for every choice of animals."""
    guess = [models.prob_mpnk[m][0].argmax(axis=1) for m in (a, b)]
    label, animal = models.label_n, models.clusters.code_n

    def distance(exchanged: NDArray[np.bool_]) -> float:
        first = np.where(exchanged[animal], guess[1], guess[0])
        second = np.where(exchanged[animal], guess[0], guess[1])
        return float(abs(SKLEARN[name](label, first) - SKLEARN[name](label, second)))

    n = models.clusters.n_clusters
    observed = distance(np.zeros(n, bool))
    return float(np.mean([distance(np.array(x)) >= observed - 1e-10 for x in product([False, True], repeat=n)]))


@pytest.mark.parametrize("name", COUNT_SCORES.names())
def test_exact_p_values_equal_a_full_enumeration(name: str) -> None:
    models = paired(skills=[1.0, 1.5, 1.2], n_animals=7, n_cells=120, own=0.5)
    exchanges = Exchanges.plan(7, n_wanted=128, seed=0)
    assert (exchanges.exact, exchanges.n) == (True, 128)
    pairs = [(0, 1), (1, 2), (2, 0)]
    found = exchange_p(means(models), pairs, score=COUNT_SCORES.get(name), exchanges=exchanges)
    np.testing.assert_allclose(found, [by_brute_force(models, a, b, name) for a, b in pairs], atol=1e-12)


@pytest.mark.parametrize("name", COUNT_SCORES.names())
def test_random_permutations_come_close_to_all_of_them(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(permutation, "_CHUNK_VALUES", 3000)  # several chunks
    models = paired(skills=[1.0, 1.5], n_animals=10, n_cells=200, own=0.5)
    score, counts = COUNT_SCORES.get(name), means(models)
    exact = exchange_p(counts, [(0, 1)], score=score, exchanges=Exchanges.plan(10, n_wanted=1024, seed=0))[0]
    drawn = Exchanges.plan(10, n_wanted=1023, seed=0)
    assert not drawn.exact
    found = exchange_p(counts, [(0, 1)], score=score, exchanges=drawn)[0]
    assert found == pytest.approx(exact, abs=4 * np.sqrt(exact * (1 - exact) / 1023) + 1 / 1024)
    assert found * 1024 == pytest.approx(round(found * 1024)), "(b + 1) / (n + 1)"


def test_all_permutations_are_half_enumerated_each_once() -> None:
    signs = np.concatenate(list(Exchanges.plan(5, n_wanted=32, seed=0).signs()))
    assert signs.shape == (16, 5)
    every = {tuple(s) for s in signs} | {tuple(-s) for s in signs}
    assert every == set(product([-1.0, 1.0], repeat=5))


def test_no_random_p_value_is_zero_and_the_smallest_is_known() -> None:
    exchanges = Exchanges.plan(30, n_wanted=999, seed=0)
    assert exchanges.p_values(np.array([0]))[0] == exchanges.smallest_p == pytest.approx(1 / 1000)
    assert Exchanges.plan(5, n_wanted=1000, seed=0).smallest_p == 2 / 32
    apart = Counts(np.array([np.full((5, 2), 9.0), np.zeros((5, 2))]), np.full((2, 5, 2), 9.0), np.full((5, 2), 9.0))
    exact = Exchanges.plan(5, n_wanted=1000, seed=0)
    assert exchange_p(apart, [(0, 1)], score=COUNT_SCORES.get("accuracy"), exchanges=exact)[0] == exact.smallest_p


def test_many_clusters_are_exchanged_in_blocks_that_share_them_evenly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(permutation, "MAX_BLOCKS", 8)
    models = paired(skills=[1.0, 1.5], n_animals=30, n_cells=300)
    exchanges = Exchanges.plan(30, n_wanted=256, seed=1)
    block = exchanges.units_of(30)
    assert sorted(np.bincount(block)) == [3, 3, 4, 4, 4, 4, 4, 4]
    assert (block != np.arange(30) % 8).any(), "drawn by chance, not by the order of names"
    merged = PairedModels(
        models.names, models.prob_mpnk, models.label_n,
        type(models.clusters)("subject", block[models.clusters.code_n], 8),
    )  # fmt: skip
    found = exchange_p(means(models), [(0, 1)], score=COUNT_SCORES.get("accuracy"), exchanges=exchanges)
    assert found[0] == pytest.approx(by_brute_force(merged, 0, 1, "accuracy"))


@pytest.mark.parametrize("name", COUNT_SCORES.names())
def test_scores_of_counts_are_those_of_scikit_learn(name: str) -> None:
    models = paired(skills=[1.0])
    counts = means(models)
    total = Counts(counts.found.sum(1), counts.predicted.sum(1), counts.true.sum(0))
    expected = SKLEARN[name](models.label_n, models.prob_mpnk[0][0].argmax(axis=1))
    assert COUNT_SCORES.get(name).compute(total)[0] == pytest.approx(expected, abs=1e-12)
