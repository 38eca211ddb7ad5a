"""Corrections of counts: what each undoes, what it refuses, and that no animal corrects itself."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.evaluate.quantify.worlds import CLASS_NAMES, ERRORS, bayes, exact_outputs, make_reference, sums_of

from perikarya.errors import DataError, UnknownNameError
from perikarya.evaluate.quantify.cells import one_hot
from perikarya.evaluate.quantify.correction import (
    CONDITION_LIMIT,
    METHODS,
    Sample,
    check_condition,
    make_correction,
    misclassification,
)
from perikarya.evaluate.quantify.reference import Reference
from perikarya.evaluate.stats import draw_counts

N_DRAWS = 300


def sample(prob_nk: NDArray[np.float64], vote_nk: NDArray[np.float64] | None = None) -> Sample:
    votes = one_hot(prob_nk.argmax(axis=1), 3) if vote_nk is None else vote_nk
    counts = draw_counts(len(prob_nk), n_draws=N_DRAWS, seed=5)
    return Sample.of_cells(prob_nk, votes, np.arange(len(prob_nk)), counts)


def some_reference(n_animals: int = 8, n_cells: int = 90) -> Reference:
    rng = np.random.default_rng(0)
    label_n = rng.choice(3, n_animals * n_cells, p=[0.4, 0.4, 0.2])
    return make_reference(label_n, [f"r{i % n_animals}" for i in range(len(label_n))])


def noisy_reference(seed: int = 0) -> Reference:
    rng = np.random.default_rng(seed)
    label_n = rng.choice(3, 800, p=[0.4, 0.4, 0.2])
    return make_reference(label_n, [f"r{i % 8}" for i in range(800)], bayes(label_n, rng, prior=[0.4, 0.4, 0.2]))


TARGET = np.repeat([0, 1, 2], [20, 60, 120])  # 10, 30, 60 percent


@pytest.mark.parametrize("method", ["adjusted", "probabilistic"])
def test_known_errors_are_undone_exactly(method: str) -> None:
    outputs = exact_outputs(TARGET)
    fitted = make_correction(method, some_reference(), n_draws=N_DRAWS, seed=1).without(None)
    found = fitted.correct(sample(outputs, outputs))
    for fractions in (found.bounded, found.free):
        np.testing.assert_allclose(fractions.point_k, [0.1, 0.3, 0.6], atol=1e-6)
        np.testing.assert_allclose(fractions.shared_bk, np.broadcast_to([0.1, 0.3, 0.6], (N_DRAWS, 3)), atol=1e-6)


def test_counting_gives_shares_of_labels_or_mean_probabilities_and_no_error_of_a_correction() -> None:
    prob = np.array([[0.6, 0.3, 0.1], [0.5, 0.4, 0.1], [0.1, 0.2, 0.7], [0.2, 0.5, 0.3]])
    votes = make_correction("none", None, n_draws=N_DRAWS, seed=1).without(None).correct(sample(prob)).bounded
    means = make_correction("mean", None, n_draws=N_DRAWS, seed=1).without(None).correct(sample(prob)).bounded
    np.testing.assert_allclose(votes.point_k, [0.5, 0.25, 0.25])
    np.testing.assert_allclose(means.point_k, [0.35, 0.35, 0.3])
    assert np.ptp(votes.shared_bk, axis=0).max() == 0
    assert np.ptp(votes.draws_bk, axis=0).min() > 0


def test_draws_of_counting_spread_as_a_multinomial_does() -> None:
    rng = np.random.default_rng(3)
    prob = one_hot(rng.choice(3, 200, p=[0.5, 0.3, 0.2]), 3)
    found = make_correction("none", None, n_draws=N_DRAWS, seed=1).without(None).correct(sample(prob)).bounded
    expected = np.sqrt(found.point_k * (1 - found.point_k) / 200)
    np.testing.assert_allclose(found.draws_bk.std(axis=0), expected, rtol=0.15)


@pytest.mark.parametrize("method", ["adjusted", "probabilistic", "em"])
def test_the_error_of_the_correction_shrinks_with_more_reference_animals_and_is_not_that_of_counting(
    method: str,
) -> None:
    rng = np.random.default_rng(4)
    label_n = rng.choice(3, 6400, p=[0.4, 0.4, 0.2])
    prob = bayes(label_n, rng, prior=[0.4, 0.4, 0.2])
    target = sample(bayes(TARGET, rng, prior=[0.4, 0.4, 0.2]))

    def spread(n_animals: int) -> tuple[float, float]:
        n = 100 * n_animals
        reference = make_reference(label_n[:n], [f"r{i % n_animals}" for i in range(n)], prob[:n])
        found = make_correction(method, reference, n_draws=N_DRAWS, seed=1).without(None).correct(target).free
        return float(found.shared_bk.std(axis=0).mean()), float(found.draws_bk.std(axis=0).mean())

    (few_shared, few), (many_shared, many) = spread(8), spread(64)
    assert 0.2 < many_shared / few_shared < 0.75  # one over the root of eight is 0.35
    assert many_shared < 0.7 * many < few
    assert few_shared < few


@pytest.mark.parametrize("method", METHODS)
def test_every_draw_is_a_mix_of_classes(method: str) -> None:
    rng = np.random.default_rng(6)
    target = sample(bayes(np.repeat([0, 1, 2], [30, 2, 0]), rng, prior=[0.4, 0.4, 0.2]))
    found = make_correction(method, noisy_reference(), n_draws=N_DRAWS, seed=1).without("r3").correct(target).bounded
    for shares in (found.point_k[None], found.draws_bk, found.shared_bk):
        assert (shares >= 0).all()
        np.testing.assert_allclose(shares.sum(axis=1), 1.0, atol=1e-9)


@pytest.mark.parametrize("method", ["adjusted", "probabilistic", "em"])
def test_an_animal_never_takes_part_in_its_own_correction(method: str) -> None:
    reference = noisy_reference()
    own = reference.unit_n == "r3"
    spoilt = make_reference(
        np.where(own, (reference.label_n + 1) % 3, reference.label_n), reference.unit_n, reference.prob_nk
    )
    target = sample(reference.prob_nk[own])
    kept, without = (
        make_correction(method, r, n_draws=N_DRAWS, seed=1).without("r3").correct(target).bounded
        for r in (reference, spoilt)
    )
    np.testing.assert_allclose(kept.point_k, without.point_k, atol=1e-7)
    np.testing.assert_allclose(kept.draws_bk, without.draws_bk, atol=1e-7)
    everyone = make_correction(method, spoilt, n_draws=N_DRAWS, seed=1).without(None).correct(target).bounded
    assert np.abs(everyone.point_k - without.point_k).max() > 1e-3


def test_the_matrix_is_that_of_the_other_animals_cells() -> None:
    reference = noisy_reference()
    fitted = make_correction("adjusted", reference, n_draws=N_DRAWS, seed=1).without("r5")
    others = reference.unit_n != "r5"
    for true in range(3):
        members = others & (reference.label_n == true)
        np.testing.assert_allclose(fitted.matrix_kk[true], reference.vote_nk[members].mean(axis=0))  # type: ignore[attr-defined]


def test_classes_that_are_predicted_alike_are_named_and_refused() -> None:
    errors = np.array([[0.9, 0.1, 0.0], [0.1, 0.46, 0.44], [0.1, 0.44, 0.46]])
    with pytest.raises(DataError, match="'intermediate' and 'pyknotic' are predicted nearly alike") as e:
        check_condition(errors, CLASS_NAMES)
    assert f"limit {CONDITION_LIMIT:g}" in str(e.value)
    assert check_condition(ERRORS, CLASS_NAMES) == pytest.approx(np.linalg.cond(ERRORS))


@pytest.mark.parametrize("method", ["adjusted", "probabilistic", "em"])
def test_a_network_that_guesses_corrects_nothing(method: str) -> None:
    label_n = np.arange(600) % 3
    guesses = np.full((600, 3), 1 / 3)
    reference = make_reference(label_n, [f"r{i % 7}" for i in range(600)], guesses)
    with pytest.raises(DataError, match="cannot tell the classes apart"):
        make_correction(method, reference, n_draws=N_DRAWS, seed=1).without(None)


def test_a_class_labelled_in_the_animal_alone_is_refused_and_named() -> None:
    label_n = np.array([0, 1, 2, 0, 1, 0, 1])
    reference = make_reference(label_n, ["a", "a", "a", "b", "b", "c", "c"])
    with pytest.raises(DataError, match="Class 'pyknotic' has no labelled reference cell outside"):
        make_correction("probabilistic", reference, n_draws=N_DRAWS, seed=1).without("a")
    only = make_reference(label_n, ["a"] * 7)
    with pytest.raises(DataError, match="Only animal a has labelled reference cells"):
        make_correction("probabilistic", only, n_draws=N_DRAWS, seed=1).without("a")


def test_a_draw_that_misses_a_rare_class_still_has_its_row() -> None:
    label_n = np.repeat([0, 1, 0, 1, 2, 0, 1], 20)
    reference = make_reference(label_n, np.repeat(["a", "a", "b", "b", "b", "c", "c"], 20).tolist())
    fitted = make_correction("probabilistic", reference, n_draws=N_DRAWS, seed=1).without(None)
    np.testing.assert_allclose(fitted.matrix_bkk.sum(axis=2), 1.0)  # type: ignore[attr-defined]
    found = fitted.correct(sample(exact_outputs(TARGET))).bounded
    assert np.isfinite(found.draws_bk).all()


@pytest.mark.parametrize("method", ["adjusted", "probabilistic", "em"])
def test_without_labelled_cells_only_counting_is_possible(method: str) -> None:
    with pytest.raises(DataError, match=r"--reference TABLE.*--correction none"):
        make_correction(method, None, n_draws=N_DRAWS, seed=1)


def test_an_unknown_method_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UnknownNameError, match=r"no correction called 'probabilstic'\. Did you mean 'probabilistic'"):
        make_correction("probabilstic", None, n_draws=N_DRAWS, seed=1)


@pytest.mark.parametrize("sd_stain", [0.0, 0.3])
def test_animals_own_deviation_is_what_sampling_cells_leaves_unexplained(sd_stain: float) -> None:
    """Many animals of one mix each: the variance of their mean output is that of sampling plus that of the animals."""
    rng = np.random.default_rng(8)
    n_animals, n_cells, prior = 400, 60, [0.4, 0.4, 0.2]
    label_n = np.tile(np.repeat([0, 1, 2], [24, 24, 12]), n_animals)
    stain_n = np.repeat(sd_stain * rng.standard_normal(n_animals), n_cells)
    prob = bayes(label_n + stain_n, rng, prior=prior)
    reference = make_reference(label_n, np.repeat([f"r{i:03d}" for i in range(n_animals)], n_cells).tolist(), prob)
    sums = sums_of(reference)
    matrix = sums.soft.sum_skk.sum(axis=0) / sums.n_sk.sum(axis=0)[:, None]
    found = sums.own_deviation(matrix, np.ones(n_animals), soft=True)
    again = bayes(label_n, rng, prior=prior).reshape(n_animals, n_cells, 3).mean(axis=1)  # the same without stain
    expected = np.cov(prob.reshape(n_animals, n_cells, 3).mean(axis=1).T) - np.cov(again.T)
    np.testing.assert_allclose(found, expected, atol=0.25 * abs(expected).max() if sd_stain else 1e-4)
    np.testing.assert_allclose(found.sum(axis=0), 0, atol=1e-9)


def test_an_animal_apart_widens_its_own_interval_but_not_the_error_all_share() -> None:
    rng = np.random.default_rng(9)
    label_n = np.tile(np.repeat([0, 1, 2], [40, 40, 20]), 30)
    units = np.repeat([f"r{i:02d}" for i in range(30)], 100).tolist()
    target = sample(bayes(TARGET, rng, prior=[0.4, 0.4, 0.2]))
    spread = []
    for sd_stain in (0.0, 0.4):
        stain_n = np.repeat(sd_stain * rng.standard_normal(30), 100)
        reference = make_reference(label_n, units, bayes(label_n + stain_n, rng, prior=[0.4, 0.4, 0.2]))
        found = make_correction("probabilistic", reference, n_draws=N_DRAWS, seed=1).without(None).correct(target).free
        spread.append((found.draws_bk.std(axis=0).mean(), found.shared_bk.std(axis=0).mean()))
    assert spread[1][0] > 1.5 * spread[0][0]
    assert spread[1][1] < 0.6 * spread[1][0]


def test_rows_of_the_matrix_sum_to_one() -> None:
    sums = np.array([[8.0, 2.0], [1.0, 3.0]])
    np.testing.assert_allclose(misclassification(sums, np.array([10.0, 4.0]), ("a", "b")), [[0.8, 0.2], [0.25, 0.75]])
