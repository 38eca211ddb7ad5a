"""Models of cells in animals against the nested analysis of variance, dense likelihoods and hand-made sandwiches."""

from __future__ import annotations

import json

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats
from scipy.optimize import minimize
from statsmodels.genmod.cov_struct import Exchangeable
from statsmodels.genmod.families import Binomial
from statsmodels.genmod.generalized_estimating_equations import GEE
from statsmodels.regression.mixed_linear_model import MixedLM, MixedLMParams

from perikarya.evaluate.quantify import mixed
from perikarya.evaluate.quantify.cells import PredictedCells
from perikarya.evaluate.quantify.mixed import last_class_model, mixed_models, severity_model
from perikarya.evaluate.quantify.tally import Tally, rows_of

Values = NDArray[np.float64]
Codes = NDArray[np.int64]


def study(
    *, n_animals: int = 10, n_cells: int | None = 20, between: float = 0.1, within: float = 0.2, seed: int = 0
) -> tuple[Values, Values, Codes]:
    """Return values, group and animal of cells; ``n_cells`` None: between 5 and 40 per animal."""
    rng = np.random.default_rng(seed)
    n = np.full(n_animals, n_cells) if n_cells else rng.integers(5, 41, n_animals)
    animal = np.repeat(np.arange(n_animals), n)
    value = 0.4 + rng.normal(0, between, n_animals)[animal] + rng.normal(0, within, len(animal))
    return value, (animal < n_animals // 2).astype(float), animal


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("unit", [1.0, 1e-3])
def test_a_balanced_study_gives_the_f_test_of_the_nested_analysis_of_variance(seed: int, unit: float) -> None:
    value, is_group, animal = study(between=0.2, seed=seed)
    value = value * unit
    mean = value.reshape(10, 20).mean(axis=1)
    groups = mean[:5], mean[5:]
    between_ss = 20 * sum(((g - g.mean()) ** 2).sum() for g in groups)
    group_ss = 20 * 5 * sum((g.mean() - mean.mean()) ** 2 for g in groups)
    f = group_ss / (between_ss / 8)
    found = severity_model(value, is_group, animal, confidence=0.95)
    assert found["estimate"] == pytest.approx(groups[0].mean() - groups[1].mean())
    assert (found["estimate"] / found["se"]) ** 2 == pytest.approx(f, rel=1e-4)
    assert found["p"] == pytest.approx(stats.f.sf(f, 1, 8), rel=1e-4)
    assert found["df"] == 8
    within_ms = ((value.reshape(10, 20) - mean[:, None]) ** 2).sum() / 190
    variance_between = (between_ss / 8 - within_ms) / 20
    assert found["likeness"] == pytest.approx(variance_between / (variance_between + within_ms), rel=1e-3)


@pytest.mark.parametrize("seed", [0, 1, 2, 3])
def test_an_unbalanced_study_gives_the_maximum_of_the_dense_restricted_likelihood(seed: int) -> None:
    value, is_group, animal = study(n_cells=None, between=0.15, seed=seed)
    design = np.column_stack([np.ones(len(value)), is_group])
    same_animal = (animal[:, None] == animal[None]).astype(float)

    def fitted(logs: Values) -> tuple[float, Values, Values]:
        covariance = np.exp(logs[0]) * same_animal + np.exp(logs[1]) * np.eye(len(value))
        inverse = np.linalg.inv(covariance)
        information = design.T @ inverse @ design
        beta = np.linalg.solve(information, design.T @ inverse @ value)
        rest = value - design @ beta
        loss = np.linalg.slogdet(covariance)[1] + np.linalg.slogdet(information)[1] + rest @ inverse @ rest
        return loss, beta, np.sqrt(np.diag(np.linalg.inv(information)))

    best = minimize(lambda x: fitted(x)[0], np.log([0.02, 0.04]), method="Nelder-Mead", options={"xatol": 1e-6})
    _, beta, se = fitted(best.x)
    found = severity_model(value, is_group, animal, confidence=0.95)
    assert found["estimate"] == pytest.approx(beta[1], abs=1e-5)
    assert found["se"] == pytest.approx(se[1], rel=1e-3)
    half = stats.t.ppf(0.975, 8) * se[1]
    assert found["ci95"] == pytest.approx([beta[1] - half, beta[1] + half], rel=2e-3)


def test_animals_no_more_different_than_chance_give_least_squares() -> None:
    value, is_group, animal = study(seed=1)
    value = value - np.bincount(animal, value)[animal] / 20 + 0.1 * is_group  # all animals of a group alike
    found = severity_model(value, is_group, animal, confidence=0.95)
    expected = stats.linregress(is_group, value)
    assert found["converged"]
    assert found["likeness"] == 0
    assert (found["estimate"], found["se"]) == pytest.approx((expected.slope, expected.stderr))
    assert found["p"] == pytest.approx(2 * stats.t.sf(expected.slope / expected.stderr, 8)), "animals are the sample"


def test_a_balanced_logistic_model_is_the_bias_reduced_sandwich_of_the_animals_shares() -> None:
    value, is_group, animal = study(between=0.15, seed=3)
    event = (value > 0.45).astype(float)
    share = event.reshape(10, 20).mean(axis=1)
    sides = share[:5], share[5:]
    p = [s.mean() for s in sides]
    # each animal's residual is divided by 1 - its leverage, a fifth of its group's mean
    variance = [
        ((s - s.mean()) ** 2).sum() / (1 - 1 / 5) ** 2 / 25 / (q * (1 - q)) ** 2 for s, q in zip(sides, p, strict=True)
    ]
    found = last_class_model(event, is_group, animal, confidence=0.95)
    assert found["estimate"] == pytest.approx(np.log(p[0] / (1 - p[0])) - np.log(p[1] / (1 - p[1])), abs=1e-6)
    assert found["se"] == pytest.approx(np.sqrt(sum(variance)), rel=1e-4)
    assert found["p"] == pytest.approx(2 * stats.t.sf(abs(found["estimate"] / found["se"]), 8))
    assert found["odds_ratio"]["estimate"] == pytest.approx(np.exp(found["estimate"]))
    assert found["odds_ratio"]["ci95"] == pytest.approx(np.exp(found["ci95"]))


def numberless(found: dict[str, object]) -> bool:
    return not found["converged"] and all(found[k] is None for k in ("estimate", "se", "ci95", "p", "df", "likeness"))


@pytest.mark.parametrize(("share", "word"), [(0.0, "no"), (1.0, "all")])
def test_a_group_without_or_with_nothing_but_the_last_class_has_no_odds_ratio(share: float, word: str) -> None:
    value, is_group, animal = study()
    event = np.where(is_group == 1, share, value > 0.4)
    found = last_class_model(event, is_group, animal, confidence=0.95)
    assert numberless(found)
    assert found["reason"] == f"did not converge: {word} cells of the group are of the last class"
    assert found["odds_ratio"] is None


def test_cells_that_do_not_differ_have_no_model() -> None:
    value, is_group, animal = study()
    found = severity_model(np.where(is_group == 1, 0.5, 0.2), is_group, animal, confidence=0.95)
    assert numberless(found)
    assert "do not differ" in str(found["reason"])
    assert value is not None


def test_two_animals_in_a_group_are_too_few() -> None:
    value, is_group, animal = study(n_animals=4)
    for model in (severity_model, last_class_model):
        found = model((value > 0.4).astype(float), is_group, animal, confidence=0.95)
        assert numberless(found)
        assert found["reason"] == "not fitted: 2 and 2 animals, 3 are needed"


def test_a_standard_error_that_does_not_exist_is_a_reason() -> None:
    with pytest.raises(mixed.NotFittedError, match="standard error"):
        mixed._usable(0.1, float("nan"), 0.1)


def test_animals_of_few_and_extreme_cells_never_raise_nor_warn() -> None:
    rng = np.random.default_rng(0)
    for _ in range(40):
        n = rng.integers(1, 4, 7)
        animal = np.repeat(np.arange(7), n)
        value = rng.choice([0.0, 0.5, 1.0], len(animal), p=[0.9, 0.05, 0.05])
        is_group = (animal < 3).astype(float)
        for model in (severity_model, last_class_model):
            found = model((value > 0.4).astype(float), is_group, animal, confidence=0.95)
            assert found["converged"] or found["reason"]
            json.dumps(found, allow_nan=False)


def tally(cells: PredictedCells) -> Tally:
    return Tally(rows_of(cells, groups=(), regions=(), seed=0), cells.class_names)


@pytest.mark.filterwarnings("ignore:.*boundary of the parameter space")
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("between", [0.1, 0.3])
def test_both_models_are_those_of_statsmodels_on_single_cells(seed: int, between: float) -> None:
    value, is_group, animal = study(n_cells=None, between=between, seed=seed)
    design = np.column_stack([np.ones(len(value)), is_group])
    linear = severity_model(value, is_group, animal, confidence=0.95)
    start = MixedLMParams.from_components(fe_params=np.zeros(2), cov_re=np.array([[between**2 / 0.04]]))
    peer = MixedLM(value, design, groups=animal).fit(start_params=start, reml=True, method="bfgs")
    assert linear["estimate"] == pytest.approx(peer.fe_params[1], abs=1e-5)
    assert linear["se"] == pytest.approx(peer.bse_fe[1], rel=5e-3)  # its errors hold those of the variances as well
    likeness = peer.cov_re[0, 0] / (peer.cov_re[0, 0] + peer.scale)
    assert linear["likeness"] == pytest.approx(likeness, abs=1e-4)

    event = (value > 0.5).astype(float)
    logistic = last_class_model(event, is_group, animal, confidence=0.95)
    gee = GEE(event, design, groups=animal, family=Binomial(), cov_struct=Exchangeable())
    other = gee.fit(maxiter=200, ctol=1e-10, cov_type="bias_reduced")
    assert logistic["estimate"] == pytest.approx(other.params[1], abs=1e-6)
    assert logistic["se"] == pytest.approx(other.bse[1], rel=1e-5)
    assert logistic["likeness"] == pytest.approx(other.cov_struct.dep_params, abs=1e-6)


def test_animals_whose_cells_do_not_differ_have_no_ratio_of_variances() -> None:
    _, is_group, animal = study()
    found = severity_model(0.1 * animal, is_group, animal, confidence=0.95)
    assert numberless(found)
    assert found["reason"] == "did not converge: the likelihood has no clear maximum"


def predicted(*, regions: bool = True, groups: bool = True) -> PredictedCells:
    rng = np.random.default_rng(0)
    subject = np.repeat([f"{g}{i}" for g in "abc" for i in range(4)], 24).astype(object)
    group = np.array([s[0] for s in subject], object)
    region = np.tile(np.array(["DG", "CA1", None], object), len(subject) // 3)
    prob = rng.dirichlet([2, 2, 1], len(subject))
    nothing = np.full(len(subject), -1)
    return PredictedCells(
        prob, nothing, subject, region if regions else None, group if groups else None, subject, ("no", "mid", "last")
    )


def test_each_region_is_modelled_from_its_own_cells_of_the_two_groups() -> None:
    cells = predicted()
    found = mixed_models(tally(cells), group="c", reference="a", confidence=0.9)
    assert [(f["region"], f["measure"]) for f in found] == [
        (r, m) for r in ("all", "DG", "CA1") for m in ("severity", "fraction_last")
    ]
    assert [f["n_cells"] for f in found[::2]] == [192, 64, 64], "cells of an unknown region count in all regions"
    assert all(f["n_animals"] == 8 and f["corrected"] is False for f in found)
    kept = (cells.region_n == "CA1") & (cells.group_n != "b")
    animal = np.unique(cells.subject_n[kept].astype(str), return_inverse=True)[1]
    is_group = (cells.group_n[kept] == "c").astype(float)
    severity = 0.5 * cells.prob_nk[kept, 1] + cells.prob_nk[kept, 2]
    expected = severity_model(severity, is_group, animal, confidence=0.9)
    for key, value in expected.items():
        assert found[4][key] == (value if isinstance(value, str) else pytest.approx(value))
    last = (cells.prob_nk[kept].argmax(axis=1) == 2).astype(float)
    assert found[5]["estimate"] == pytest.approx(last_class_model(last, is_group, animal, confidence=0.9)["estimate"])


def test_without_regions_there_is_one_model_of_all_cells_and_without_groups_none() -> None:
    assert [
        f["region"] for f in mixed_models(tally(predicted(regions=False)), group="c", reference="a", confidence=0.9)
    ] == [
        "all",
        "all",
    ]
    assert mixed_models(tally(predicted(groups=False)), group="c", reference="a", confidence=0.9) == []
