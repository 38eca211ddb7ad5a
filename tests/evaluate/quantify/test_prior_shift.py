"""Prior shift: the mix is found, probabilities are calibrated first, and the draws are those of fitting anew."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import minimize
from tests.evaluate.quantify.worlds import CLASS_NAMES, bayes, make_reference, sums_of

from perikarya.evaluate.quantify.cells import one_hot
from perikarya.evaluate.quantify.correction import Sample
from perikarya.evaluate.quantify.prior_shift import PriorShift, odds, saerens
from perikarya.evaluate.quantify.reference import Reference
from perikarya.evaluate.stats import draw_counts

PRIOR = (0.5, 0.3, 0.2)


def reference(
    n: int = 4000, *, seed: int = 0, n_animals: int = 20, boldness: float = 1.0, learnt: tuple[float, ...] = PRIOR
) -> Reference:
    rng = np.random.default_rng(seed)
    label_n = rng.choice(3, n, p=PRIOR)
    prob = bayes(label_n, rng, prior=learnt, boldness=boldness)
    return make_reference(label_n, [f"r{i % n_animals:02d}" for i in range(n)], prob)


def target(n: int, mix: tuple[float, ...], *, boldness: float = 1.0, learnt: tuple[float, ...] = PRIOR) -> Sample:
    rng = np.random.default_rng(9)
    label_n = rng.choice(3, n, p=mix)
    prob = bayes(label_n, rng, prior=learnt, boldness=boldness)
    return Sample.of_cells(
        prob, one_hot(prob.argmax(axis=1), 3), np.arange(n) % 300, draw_counts(300, n_draws=200, seed=3)
    )


def test_em_ends_at_the_most_likely_mix() -> None:
    likelihood = np.random.default_rng(1).gamma(1.0, size=(300, 4))
    found = saerens(likelihood)
    best = minimize(
        lambda z: -np.log(likelihood @ (np.exp(z) / np.exp(z).sum())).sum(), np.zeros(4), method="BFGS", tol=1e-10
    )
    np.testing.assert_allclose(found, np.exp(best.x) / np.exp(best.x).sum(), atol=1e-4)


def test_em_takes_the_steps_of_saerens() -> None:
    """Their rule by hand: posteriors times new over old prior, normalised, averaged."""
    prob = bayes(np.repeat([0, 1, 2], [5, 20, 40]), np.random.default_rng(2), prior=PRIOR)
    share = np.array(PRIOR)
    for _ in range(3000):
        joint = prob * share / np.array(PRIOR)
        share = (joint / joint.sum(axis=1, keepdims=True)).mean(axis=0)
    np.testing.assert_allclose(saerens(prob / np.array(PRIOR)), share, atol=1e-5)


@pytest.mark.parametrize(
    ("boldness", "learnt"), [(1.0, PRIOR), (3.0, PRIOR), (0.5, PRIOR), (1.0, (1 / 3, 1 / 3, 1 / 3))]
)
def test_the_mix_is_found_whatever_confidence_or_mix_the_network_learnt(
    boldness: float, learnt: tuple[float, ...]
) -> None:
    mix = (0.1, 0.3, 0.6)
    shift = PriorShift(sums_of(reference(boldness=boldness, learnt=learnt)), n_draws=200, seed=1)
    found = shift.without(None).correct(target(6000, mix, boldness=boldness, learnt=learnt)).bounded
    np.testing.assert_allclose(found.point_k, mix, atol=0.03)


def test_uncalibrated_em_would_miss_it() -> None:
    mix = (0.1, 0.3, 0.6)
    bold = target(6000, mix, boldness=3.0)
    assert np.abs(saerens(bold.cells()[0] / np.array(PRIOR)) - mix).max() > 0.05


def test_calibration_is_multinomial_regression_on_log_probabilities() -> None:
    ref = reference(800, boldness=2.0)
    fitted = PriorShift(sums_of(ref), n_draws=2, seed=1)
    log_nk = np.log(ref.prob_nk.clip(1e-6))

    def loss(scale: np.ndarray) -> float:
        logit = scale[0] * log_nk + scale[1:]
        likelihood = logit[np.arange(800), ref.label_n] - np.log(np.exp(logit).sum(axis=1))
        return float(-likelihood.sum() + 0.5 * ((scale - [1, 0, 0, 0]) ** 2).sum())

    best = minimize(loss, np.array([1.0, 0, 0, 0]), method="BFGS", tol=1e-10)
    np.testing.assert_allclose(fitted._everyone, best.x, atol=1e-4)
    assert fitted._everyone[0] == pytest.approx(0.5, abs=0.1), "a doubled logit is halved"


def test_draws_are_those_of_calibrating_and_fitting_every_draw_anew() -> None:
    ref, cells = reference(1600), target(400, (0.2, 0.5, 0.3))
    n_draws = 30
    names, unit_n = ref.units
    counts = draw_counts(len(names), n_draws=n_draws, seed=1)
    found = PriorShift(sums_of(ref), n_draws=n_draws, seed=1).without(None)
    prob_nk, part_n = cells.cells()
    one_step = found.correct(replace(cells, counts_bu=cells.counts_bu[:n_draws])).bounded
    anew, anew_both = [], []
    for b in range(n_draws):
        rows = np.concatenate([np.repeat(np.flatnonzero(unit_n == s), int(counts[b, s])) for s in range(len(names))])
        drawn = Reference(ref.label_n[rows], ref.prob_nk[rows], ref.vote_nk[rows], ref.unit_n[rows], CLASS_NAMES)
        scale = PriorShift(sums_of(drawn), n_draws=2, seed=1).without(None).scale_p
        likelihood = odds(np.log(prob_nk.clip(1e-6)), scale)
        anew.append(saerens(likelihood))
        anew_both.append(saerens(np.repeat(likelihood, cells.counts_bu[b][part_n].astype(int), axis=0)))
    spread = np.std(anew_both, axis=0).mean()
    assert np.abs(one_step.shared_bk - anew).mean() < 0.05 * spread
    assert np.abs(one_step.draws_bk - anew_both).mean() < 0.1 * spread


def test_a_class_that_is_not_there_stays_at_the_border_in_most_draws() -> None:
    ref, cells = reference(), target(400, (0.6, 0.4, 0.0))
    found = PriorShift(sums_of(ref), n_draws=200, seed=1).without(None).correct(cells).bounded
    assert found.point_k[2] < 0.02
    assert np.quantile(found.draws_bk[:, 2], 0.975) < 0.05
    assert (found.draws_bk >= 0).all()
