"""Calibration against scikit-learn, scipy by another road, closed cases and the plain rule: no test label is seen."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy.optimize import minimize
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression
from tests.evaluate.test_metrics import overall_by_sklearn
from tests.fake_run import CLASSES, FakeRun, make_fake_run

from perikarya.errors import DataError, UnknownNameError
from perikarya.evaluate.calibration import calibrate_model, calibrate_outputs, calibration_block, try_methods
from perikarya.evaluate.calibrators import METHODS, Calibration, fit_calibration
from perikarya.evaluate.metrics import Floats, Ints
from perikarya.evaluate.outputs import Scored, TaskOutput, load_outputs, model_scores
from perikarya.evaluate.stats import draw_counts
from perikarya.evaluate.summary import measure
from perikarya.settings import EvaluateConfig

SETTINGS = EvaluateConfig(n_bootstrap=300)


def softmax(logit_nk: Floats) -> Floats:
    raised = np.exp(logit_nk - logit_nk.max(axis=1, keepdims=True))
    return np.asarray(raised / raised.sum(axis=1, keepdims=True))


def cells_that_mean_it(n: int, n_classes: int, *, seed: int, spread: float = 1.0) -> tuple[Floats, Floats, Ints]:
    """Logits, their probabilities and labels drawn with just these probabilities."""
    rng = np.random.default_rng(seed)
    logit_nk = rng.normal(0, spread, (n, n_classes))
    prob_nk = softmax(logit_nk)
    label_n = (rng.random((n, 1)) > prob_nk.cumsum(axis=1)[:, :-1]).sum(axis=1)
    return logit_nk, prob_nk, label_n


def log_loss(prob_nk: Floats, label_n: Ints) -> float:
    return float(-np.log(prob_nk[np.arange(len(label_n)), label_n]).mean())


@pytest.mark.parametrize("factor", [3.0, 1.0, 0.5])
def test_logits_multiplied_by_a_number_have_that_temperature(factor: float) -> None:
    logit_nk, honest_nk, label_n = cells_that_mean_it(20_000, 4, seed=0)
    fit = fit_calibration("temperature", softmax(factor * logit_nk), label_n)
    assert 1 / fit.scale[0] == pytest.approx(factor, rel=0.03)
    assert np.abs(fit.apply(softmax(factor * logit_nk)) - honest_nk).max() < 0.02


def test_temperature_is_where_a_grid_search_finds_the_least_loss() -> None:
    logit_nk, _, label_n = cells_that_mean_it(3000, 3, seed=1)
    prob_nk = softmax(1.7 * logit_nk)
    grid = np.linspace(0.5, 4, 3501)
    losses = [log_loss(softmax(np.log(prob_nk) / t), label_n) for t in grid]
    fit = fit_calibration("temperature", prob_nk, label_n)
    assert 1 / fit.scale[0] == pytest.approx(grid[int(np.argmin(losses))], abs=0.01)
    assert len(set(fit.scale)) == 1
    assert set(fit.offset) == {0.0}


def test_temperature_never_changes_the_predicted_class() -> None:
    logit_nk, _, label_n = cells_that_mean_it(500, 5, seed=2)
    prob_nk = softmax(4 * logit_nk)
    calibrated = fit_calibration("temperature", prob_nk, label_n).apply(prob_nk)
    assert (calibrated.argmax(axis=1) == prob_nk.argmax(axis=1)).all()


def test_vector_scaling_of_two_classes_is_logistic_regression_on_log_probabilities() -> None:
    logit_nk, _, label_n = cells_that_mean_it(6000, 2, seed=3, spread=1.5)
    prob_nk = softmax(logit_nk * [2.0, 0.7] + [0.5, -0.5])
    ours = fit_calibration("vector", prob_nk, label_n).apply(prob_nk)
    features = np.log(prob_nk)
    theirs = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000).fit(features, label_n).predict_proba(features)
    assert np.abs(ours - theirs).max() < 0.005


def test_vector_scaling_of_three_classes_is_the_optimum_another_optimizer_finds() -> None:
    logit_nk, _, label_n = cells_that_mean_it(8000, 3, seed=4)
    log_prob_nk = np.log(softmax(logit_nk * [2.5, 1.0, 0.6] + [0.8, 0.0, -0.4]))

    def loss(free: Floats) -> float:
        return log_loss(softmax(log_prob_nk * free[:3] + np.append(0.0, free[3:])), label_n)

    plain = minimize(loss, [1.0, 1, 1, 0, 0], method="Nelder-Mead", options={"maxiter": 6000, "xatol": 1e-6})
    ours = fit_calibration("vector", np.exp(log_prob_nk), label_n)
    assert log_loss(ours.apply(np.exp(log_prob_nk)), label_n) == pytest.approx(plain.fun, abs=2e-5)
    assert np.allclose(ours.scale, plain.x[:3], atol=0.03)


@pytest.mark.parametrize("ties", [False, True])
def test_isotonic_curves_are_those_of_scikit_learn_cut_by_the_rule_of_succession(ties: bool) -> None:
    logit_nk, _, label_n = cells_that_mean_it(400, 3, seed=5)
    prob_nk = softmax(2 * logit_nk)
    prob_nk = np.round(prob_nk, 1 if ties else 6)
    new_nk = softmax(np.random.default_rng(6).normal(0, 3, (300, 3)))  # beyond the range that was fitted, too
    raised = np.empty_like(new_nk)
    for k in range(3):
        theirs = IsotonicRegression(y_min=1 / 402, y_max=401 / 402, out_of_bounds="clip")
        raised[:, k] = theirs.fit(prob_nk[:, k], label_n == k).predict(new_nk[:, k])
    ours = fit_calibration("isotonic", prob_nk, label_n).apply(new_nk)
    assert np.allclose(ours, raised / raised.sum(axis=1, keepdims=True), atol=1e-6)


def test_probabilities_that_differ_by_rounding_share_one_step() -> None:
    prob_n = np.repeat([0.2, 0.6], 100) + np.tile([0.0, 1e-9], 100)
    label_n = np.tile([0, 1], 100)
    fit = fit_calibration("isotonic", np.stack([1 - prob_n, prob_n], axis=1), label_n)
    assert all(len(before) == 2 and after == (0.5, 0.5) for before, after in fit.curves)


@pytest.mark.parametrize("method", METHODS.names())
def test_every_method_mends_overconfidence_on_cells_it_was_not_fitted_to(method: str) -> None:
    logit_nk, _, label_n = cells_that_mean_it(4000, 4, seed=7)
    prob_nk = softmax(3 * logit_nk)
    fit = fit_calibration(method, prob_nk[:2000], label_n[:2000])
    after = fit.apply(prob_nk[2000:])
    assert np.allclose(after.sum(axis=1), 1)
    assert overall_by_sklearn(label_n[2000:], after)["ece"] < 0.04
    assert overall_by_sklearn(label_n[2000:], prob_nk[2000:])["ece"] > 0.2


@pytest.mark.parametrize("method", METHODS.names())
@pytest.mark.parametrize("sure", [0.6, 1.0])
def test_perfect_separation_leaves_some_doubt(method: str, sure: float) -> None:
    label_n = np.arange(120) % 3
    prob_nk = np.full((120, 3), (1 - sure) / 2)
    prob_nk[np.arange(120), label_n] = sure
    fit = fit_calibration(method, prob_nk, label_n)
    after = fit.apply(prob_nk)
    assert np.isfinite([*fit.scale, *fit.offset]).all()
    assert (after.argmax(axis=1) == label_n).all()
    if sure < 1:  # certainty cannot be had from 120 cells at 60 %
        assert 0.9 < after.max() < 0.9999


@pytest.mark.parametrize("method", METHODS.names())
@pytest.mark.parametrize("n_of_last", [0, 3])
def test_a_class_that_the_fold_lacks_keeps_its_chance(method: str, n_of_last: int) -> None:
    logit_nk, _, label_n = cells_that_mean_it(2000, 4, seed=8)
    few = np.flatnonzero(label_n == 3)[:n_of_last]
    kept = np.append(np.flatnonzero(label_n != 3), few)
    prob_nk = softmax(2 * logit_nk)
    fit = fit_calibration(method, prob_nk[kept], label_n[kept])
    of_last = fit.apply(prob_nk)[prob_nk[:, 3] > 0.9, 3]
    assert (of_last > 0.5).all()
    if method != "temperature":
        assert fit.unfitted == (3,)
    if method == "vector":
        assert fit.scale[3] == pytest.approx(np.prod(fit.scale[:3]) ** (1 / 3))
        assert fit.offset[3] == 0.0


@pytest.mark.parametrize("method", METHODS.names())
def test_too_few_cells_are_refused_with_their_number(method: str) -> None:
    _, prob_nk, label_n = cells_that_mean_it(METHODS.get(method).min_cells, 3, seed=9)
    fit_calibration(method, prob_nk, label_n)
    with pytest.raises(DataError, match=f"{len(label_n) - 1} validation cell"):
        fit_calibration(method, prob_nk[1:], label_n[1:])


def test_one_class_alone_cannot_be_calibrated_per_class() -> None:
    _, prob_nk, _ = cells_that_mean_it(200, 3, seed=10)
    with pytest.raises(DataError, match="needs two"):
        fit_calibration("vector", prob_nk, np.zeros(200, np.int64))


def test_an_unknown_method_is_named_with_the_known_ones() -> None:
    with pytest.raises(UnknownNameError, match="temperature"):
        fit_calibration("temprature", np.full((40, 2), 0.5), np.zeros(40, np.int64))


@pytest.mark.parametrize("method", METHODS.names())
def test_a_calibration_survives_json_to_the_last_digit(method: str) -> None:
    _, prob_nk, label_n = cells_that_mean_it(300, 3, seed=11)
    fit = fit_calibration(method, prob_nk, label_n)
    again = Calibration.from_dict(json.loads(json.dumps(fit.to_dict(), allow_nan=False)))
    assert again == fit
    assert np.array_equal(again.apply(prob_nk), fit.apply(prob_nk))


@pytest.mark.parametrize(
    "change",
    [
        {"scale": None},
        {"scale": [1.0]},
        {"scale": [float("nan"), 1.0, 1.0]},
        {"curves": [[[0.0, 1.0], [0.0]]]},
        {"scale": [], "offset": [], "curves": [[[1.0, 0.0], [0.0, 1.0]]] * 3},
        {"scale": [], "offset": []},
    ],
)
def test_a_damaged_calibration_is_refused(change: dict[str, Any]) -> None:
    _, prob_nk, label_n = cells_that_mean_it(300, 3, seed=12)
    content = fit_calibration("vector", prob_nk, label_n).to_dict() | change
    with pytest.raises(DataError, match="stored calibration"):
        Calibration.from_dict(content)


def test_probabilities_of_other_classes_are_refused() -> None:
    _, prob_nk, label_n = cells_that_mean_it(300, 3, seed=13)
    with pytest.raises(DataError, match="3 classes"):
        fit_calibration("temperature", prob_nk, label_n).apply(prob_nk[:, :2])


# --- on a run ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def fake(tmp_path_factory: pytest.TempPathFactory) -> FakeRun:
    return make_fake_run(tmp_path_factory.mktemp("calibration"), models=("beta",), seeds=(0, 1), n_cells=900)


@pytest.fixture(scope="module")
def outputs(fake: FakeRun) -> list[TaskOutput]:
    return load_outputs(fake.run, fake.tasks, fake.opened.cells, CLASSES)


def with_other_labels(scored: Scored | None) -> Scored | None:
    return None if scored is None else replace(scored, label_n=np.random.default_rng(0).permutation(scored.label_n))


@pytest.mark.parametrize("method", ["temperature", "vector"])
def test_labels_of_test_and_external_cells_do_not_touch_the_fit(outputs: list[TaskOutput], method: str) -> None:
    shuffled = [replace(o, test=with_other_labels(o.test), external=with_other_labels(o.external)) for o in outputs]
    first, second = calibrate_outputs(outputs, method), calibrate_outputs(shuffled, method)
    assert first.reason is None
    assert first.fits == second.fits
    for a, b in zip(first.outputs, second.outputs, strict=True):
        assert np.array_equal(a.test.prob_nk, b.test.prob_nk)
        assert np.array_equal(a.external.prob_nk, b.external.prob_nk)


def test_each_network_is_calibrated_on_its_own_validation_fold(outputs: list[TaskOutput]) -> None:
    result = calibrate_outputs(outputs, "temperature")
    for before, after in zip(outputs, result.outputs, strict=True):
        alone = fit_calibration("temperature", before.validation.prob_nk, before.validation.label_n)
        assert result.fits[before.key] == alone
        assert np.array_equal(after.test.prob_nk, alone.apply(before.test.prob_nk))
        assert np.array_equal(after.external.prob_nk, alone.apply(before.external.prob_nk))
        assert np.array_equal(after.validation.prob_nk, alone.apply(before.validation.prob_nk))
        assert np.array_equal(after.test.row_n, before.test.row_n)
    assert len({fit.scale for fit in result.fits.values()}) == len(outputs)


def test_views_that_were_not_calibrated_do_not_pass_for_calibrated(fake: FakeRun, outputs: list[TaskOutput]) -> None:
    seen = [replace(o, test_tta=o.test, external_tta=o.external) for o in outputs]
    calibrated = calibrate_outputs(seen, "temperature").outputs
    assert all(o.test_tta is None and o.external_tta is None for o in calibrated)
    entries = calibrate_model(try_methods(seen), fake.opened.cells, CLASSES, SETTINGS)["entries"]
    assert set(entries) == {"beta", "beta (ensemble)"}


def test_a_run_without_validation_predictions_is_not_calibrated_and_says_why(outputs: list[TaskOutput]) -> None:
    older = [*outputs[:-1], replace(outputs[-1], validation=None)]
    result = calibrate_outputs(older, "temperature")
    assert result.outputs == []
    assert "kept no predictions" in result.reason
    assert str(outputs[-1].key) in result.reason


def test_a_fold_too_small_for_a_method_is_a_reason_not_a_crash(fake: FakeRun, outputs: list[TaskOutput]) -> None:
    some = np.zeros(len(fake.opened.cells), bool)
    some[outputs[0].validation.row_n[:50]] = True
    small = [replace(outputs[0], validation=outputs[0].validation.inside(some)), *outputs[1:]]
    found = calibrate_model(try_methods(small), fake.opened.cells, CLASSES, SETTINGS)
    assert set(found["refused"]) == {"vector", "isotonic"}
    assert "50 validation cell(s) are too few" in found["refused"]["vector"]
    assert set(found["fits"]) == {"temperature"}
    assert set(found["entries"]["beta"]["sets"]["cv"]) == {"none", "temperature"}


@pytest.mark.parametrize("part", ["test", "external"])
def test_cells_that_are_both_fitted_to_and_tested_are_refused(outputs: list[TaskOutput], part: str) -> None:
    leaking = replace(outputs[0], **{part: outputs[0].validation})
    with pytest.raises(DataError, match="also tested"):
        calibrate_outputs([leaking], "temperature")


@pytest.fixture(scope="module")
def found(fake: FakeRun, outputs: list[TaskOutput]) -> dict[str, Any]:
    result = calibrate_model(try_methods(outputs), fake.opened.cells, CLASSES, SETTINGS)
    return json.loads(json.dumps(result, allow_nan=False))


def class_ece_in_plain_python(label_n: Ints, prob_n: Floats, k: int) -> float:
    total = 0.0
    for i in range(15):
        inside = [j for j, p in enumerate(prob_n) if i / 15 < p <= (i + 1) / 15 or (i == 0 and p == 0)]
        total += abs(sum(prob_n[j] - float(label_n[j] == k) for j in inside))
    return total / len(label_n)


@pytest.mark.parametrize(
    "settings",
    [SETTINGS, EvaluateConfig(n_bootstrap=300, interval="bca"), EvaluateConfig(n_bootstrap=300, stratify="group")],
    ids=["percentile", "bca", "stratified"],
)
def test_scores_and_intervals_are_those_of_the_main_table(
    fake: FakeRun, outputs: list[TaskOutput], settings: EvaluateConfig
) -> None:
    scores = model_scores(calibrate_outputs(outputs, "vector").outputs)[0]
    by_method = {"none": model_scores(outputs)[0], "vector": scores}
    sets = calibration_block(by_method, fake.opened.cells, CLASSES, settings)["sets"]
    for set_name, parts, folds in (
        ("cv", scores.pooled, scores.tests),
        ("external", scores.external, scores.external_folds),
    ):
        ours = sets[set_name]["vector"]
        measured = measure(parts, folds, fake.opened.cells, class_names=CLASSES, settings=settings).block
        for name in ("accuracy", "loss", "ece", "brier"):
            assert ours[name]["mean"] == pytest.approx(measured[name]["mean"], abs=1e-12)
            assert ours[name]["sd_folds"] == pytest.approx(measured[name]["sd_folds"], abs=1e-12)
            assert ours[name]["ci95"] == pytest.approx(measured[name]["ci95"], abs=1e-9)
        assert ours["n_cells"] == measured["n_cells"]
        assert ours["unit"] == measured["unit"]


@pytest.mark.parametrize("set_name", ["cv", "external"])
def test_errors_of_class_probabilities_are_those_of_plain_python(
    outputs: list[TaskOutput], found: dict[str, Any], set_name: str
) -> None:
    scores = model_scores(calibrate_outputs(outputs, "temperature").outputs)[0]
    parts = scores.pooled if set_name == "cv" else scores.external
    block = found["entries"]["beta"]["sets"][set_name]["temperature"]
    by_class = [np.mean([class_ece_in_plain_python(p.label_n, p.prob_nk[:, k], k) for p in parts]) for k in range(3)]
    for name, expected in zip(CLASSES, by_class, strict=True):
        assert block["per_class"][name]["ece"]["mean"] == pytest.approx(expected, abs=1e-9)
    assert block["class_ece"]["mean"] == pytest.approx(np.mean(by_class), abs=1e-9)


def test_differences_are_those_of_pairs_of_scores_on_the_same_drawn_animals(
    fake: FakeRun, outputs: list[TaskOutput], found: dict[str, Any]
) -> None:
    block = found["entries"]["beta"]["sets"]["cv"]
    pairs = (model_scores(outputs)[0], model_scores(calibrate_outputs(outputs, "vector").outputs)[0])
    subjects = fake.opened.cells["subject"].to_numpy(dtype=str)
    animals = sorted(set(subjects[pairs[0].pooled[0].row_n]))
    drawn = []
    for counts in draw_counts(len(animals), n_draws=300, seed=0):
        of_seed = []
        for before, after in zip(pairs[0].pooled, pairs[1].pooled, strict=True):
            order = [np.flatnonzero(subjects[before.row_n] == a) for a in animals]
            taken = np.concatenate([np.tile(i, int(c)) for i, c in zip(order, counts, strict=True)]).astype(int)
            of_seed.append(
                log_loss(np.maximum(after.prob_nk[taken], 1e-7), after.label_n[taken])
                - log_loss(np.maximum(before.prob_nk[taken], 1e-7), before.label_n[taken])
            )
        drawn.append(np.mean(of_seed))
    difference = block["vector"]["difference"]["loss"]
    assert difference["estimate"] == pytest.approx(block["vector"]["loss"]["mean"] - block["none"]["loss"]["mean"])
    low, high = difference["ci95"]  # expanded percentiles: a little outside the plain ones
    plain = np.quantile(drawn, [0.025, 0.975])
    assert low <= plain[0] <= plain[1] <= high
    assert min(drawn) <= low <= high <= max(drawn)
    assert block["none"]["difference"] is None


def flat(label_n: Ints, sure: float) -> Floats:
    """Probabilities that are always ``sure`` of the true class."""
    prob_nk = np.full((len(label_n), 3), (1 - sure) / 2)
    prob_nk[np.arange(len(label_n)), label_n] = sure
    return prob_nk


def test_the_external_set_has_no_say_in_what_is_advised(fake: FakeRun, outputs: list[TaskOutput]) -> None:
    def sure(in_cv: float, on_external: float) -> Any:
        changed = [
            replace(
                o,
                test=replace(o.test, prob_nk=flat(o.test.label_n, in_cv)),
                external=replace(o.external, prob_nk=flat(o.external.label_n, on_external)),
            )
            for o in outputs
        ]
        return model_scores(changed)[0]

    by_method = {"none": sure(0.5, 0.6), "temperature": sure(0.8, 0.5), "vector": sure(0.7, 0.9)}
    block = calibration_block(by_method, fake.opened.cells, CLASSES, SETTINGS)
    assert block["advised"]["method"] == "temperature"
    assert f"by {np.log(0.8 / 0.5):.3f}" in block["advised"]["reason"]
    block = calibration_block(by_method | {"none": sure(0.9, 0.1)}, fake.opened.cells, CLASSES, SETTINGS)
    assert block["advised"]["method"] == "none"


def test_without_a_tested_development_set_nothing_is_advised(fake: FakeRun, outputs: list[TaskOutput]) -> None:
    single = [replace(o, test=None) for o in outputs]
    entry = calibrate_model(try_methods(single), fake.opened.cells, CLASSES, SETTINGS)["entries"]["beta"]
    assert set(entry["sets"]) == {"external"}
    assert entry["advised"]["method"] is None
    assert "development" in entry["advised"]["reason"]
