"""Abstention: conformal coverage on simulated cells, curves against plain loops, a run recomputed with pandas."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binom
from tests.fake_run import CLASSES, FakeRun, make_fake_run

from perikarya.errors import DataError
from perikarya.evaluate.abstention import abstention_block
from perikarya.evaluate.conformal import ConformalSets, fit_conformal
from perikarya.evaluate.metrics import Floats, Ints
from perikarya.evaluate.outputs import ModelScores, Scored, TaskOutput, load_outputs, model_scores
from perikarya.evaluate.risk_coverage import (
    N_GROUPS,
    aurc,
    aurc_of_groups,
    aurc_of_sums,
    curve_of,
    risk_at,
    risk_sums,
    threshold_for,
)
from perikarya.evaluate.stats import draw_counts
from perikarya.settings import EvaluateConfig

SETTINGS = EvaluateConfig(n_bootstrap=300, threshold=0.6)
SHARES = np.array([0.7, 0.27, 0.03])  # the last class is rare, and hard


def simulated(rng: np.random.Generator, n: int) -> tuple[Floats, Ints]:
    """Exchangeable cells of unequal classes, of which a network tells the rare one apart badly."""
    label_n = rng.choice(3, n, p=SHARES)
    logit_nk = rng.normal(0, 1, (n, 3)) + np.log(SHARES)
    logit_nk[np.arange(n), label_n] += np.array([2.0, 1.5, 1.0])[label_n]
    raised = np.exp(logit_nk)
    return raised / raised.sum(axis=1, keepdims=True), label_n


# --- conformal sets ---------------------------------------------------------------------------------------------------


def test_class_conditional_sets_cover_every_class_where_marginal_sets_fail_the_rare_one() -> None:
    rng = np.random.default_rng(0)
    covered, expected, marginal, n_rare = np.zeros(3), np.zeros(3), 0.0, 0
    repeats = 200
    for _ in range(repeats):
        prob_nk, label_n = simulated(rng, 2000)
        new_nk, new_n = simulated(rng, 2000)
        fit = fit_conformal(prob_nk, label_n, coverage=0.9)
        in_set = fit.apply(new_nk)[np.arange(2000), new_n]
        for k in range(3):
            n = int((label_n == k).sum())
            covered[k] += in_set[new_n == k].mean() / repeats
            expected[k] += np.ceil((n + 1) * 0.9) / (n + 1) / repeats  # exact mean for exchangeable cells
        floor = np.sort(prob_nk[np.arange(2000), label_n])[::-1][int(np.ceil(2001 * 0.9)) - 1]
        marginal += (new_nk[new_n == 2, 2] >= floor).sum()
        n_rare += (new_n == 2).sum()
    # spread of one repeat: a Beta(r, n + 1 - r) coverage and a binomial test; standard error of the mean of 200
    for k, n in enumerate(2000 * SHARES):
        standard_error = np.sqrt(0.09 / n + 0.09 / n) / np.sqrt(repeats)
        assert abs(covered[k] - expected[k]) < 4 * standard_error, k
    assert marginal / n_rare < 0.6


def cells_of_animals(rng: np.random.Generator, *, animal_sd: float) -> tuple[Floats, Ints]:
    """Ten animals of 60 cells; each animal moves the logits of all its cells."""
    shift_n = np.repeat(rng.normal(0, animal_sd, 10), 60)
    label_n = rng.integers(0, 2, 600)
    prob_n = 1 / (1 + np.exp(-2 * (3.0 * label_n - 1.5 + rng.normal(0, 1, 600) + shift_n)))
    return np.stack([1 - prob_n, prob_n], axis=1), label_n


@pytest.mark.parametrize(("animal_sd", "strays"), [(0.0, False), (1.0, True)])
def test_coverage_of_other_animals_strays_from_the_promise_where_animals_differ(animal_sd: float, strays: bool) -> None:
    rng = np.random.default_rng(6)
    covered = []
    for _ in range(200):
        prob_nk, label_n = cells_of_animals(rng, animal_sd=animal_sd)
        new_nk, new_n = cells_of_animals(rng, animal_sd=animal_sd)
        in_set = fit_conformal(prob_nk, label_n, coverage=0.9).apply(new_nk)[np.arange(600), new_n]
        covered.append(in_set[new_n == 1].mean())
    independent_sd = np.sqrt(0.09 / 300 + 0.09 / 300)  # of the floor and of the cells it is tried on
    assert (np.std(covered) > 2 * independent_sd) == strays
    assert (np.mean(np.array(covered) < 0.85) > 0.15) == strays


def test_one_fit_covers_new_cells_within_binomial_error_of_what_it_was_fitted_to() -> None:
    rng = np.random.default_rng(1)
    prob_nk, label_n = simulated(rng, 50_000)
    new_nk, new_n = simulated(rng, 20_000)
    in_set = fit_conformal(prob_nk, label_n, coverage=0.9).apply(new_nk)[np.arange(20_000), new_n]
    for k in range(3):
        n = int((new_n == k).sum())
        low, high = binom.ppf([1e-4, 1 - 1e-4], n, 0.9)
        assert low - 0.02 * n <= in_set[new_n == k].sum() <= high + 0.02 * n


@pytest.mark.parametrize(("n", "rank"), [(9, 9), (19, 18), (10, 10), (99, 90), (100, 91)])
def test_the_floor_is_the_order_statistic_of_the_rule(n: int, rank: int) -> None:
    rng = np.random.default_rng(n)
    prob_n = rng.permutation(np.linspace(0.2, 0.9, n))
    prob_nk = np.stack([prob_n, 1 - prob_n], axis=1)
    fit = fit_conformal(prob_nk, np.zeros(n, np.int64), coverage=0.9)
    assert fit.floor[0] == sorted(prob_n, reverse=True)[rank - 1]
    assert fit.n_cells == (n, 0)


@pytest.mark.parametrize("n", [0, 1, 8])
def test_a_class_with_too_few_cells_is_in_every_set(n: int) -> None:
    prob_nk = np.tile([0.7, 0.3], (50, 1))
    label_n = np.arange(50) >= 50 - n
    fit = fit_conformal(prob_nk, label_n.astype(np.int64), coverage=0.9)
    assert fit.floor[1] == 0.0
    assert fit.apply(np.array([[1.0, 0.0]]))[0, 1]


def test_conformal_sets_survive_json_and_refuse_other_classes_and_damage() -> None:
    fit = fit_conformal(*simulated(np.random.default_rng(2), 500), coverage=0.9)
    content = json.loads(json.dumps(fit.to_dict(), allow_nan=False))
    assert ConformalSets.from_dict(content) == fit
    with pytest.raises(DataError, match="3 classes"):
        fit.apply(np.ones((2, 2)))
    with pytest.raises(DataError, match="damaged"):
        ConformalSets.from_dict(content | {"floor": None})


# --- risk and coverage ------------------------------------------------------------------------------------------------


def risks_in_a_loop(confidence: Floats, wrong: Floats) -> list[float]:
    order = sorted(range(len(wrong)), key=lambda i: -confidence[i])
    return [sum(wrong[i] for i in order[: m + 1]) / (m + 1) for m in range(len(order))]


def test_curve_and_area_are_those_of_a_loop_over_cells() -> None:
    rng = np.random.default_rng(3)
    confidence, wrong = rng.random(150), (rng.random(150) < 0.3).astype(float)
    risks = risks_in_a_loop(confidence, wrong)
    curve = curve_of(confidence, wrong)
    assert risk_at(curve, np.arange(1, 151) / 150) == pytest.approx(risks)
    assert aurc(curve) == pytest.approx(np.mean(risks))


def test_tied_cells_count_as_the_mean_over_their_orders() -> None:
    rng = np.random.default_rng(4)
    confidence, wrong = np.round(rng.random(60), 1), (rng.random(60) < 0.3).astype(float)
    loops = []
    for _ in range(4000):
        order = np.lexsort((rng.random(60), -confidence))
        loops.append(np.cumsum(wrong[order]) / np.arange(1, 61))
    curve = curve_of(confidence, wrong)
    assert np.abs(risk_at(curve, np.arange(1, 61) / 60) - np.mean(loops, axis=0)).max() < 0.03
    assert aurc(curve) == pytest.approx(np.mean(loops), abs=0.002)
    back = slice(None, None, -1)
    assert aurc(curve_of(confidence[back], wrong[back])) == aurc(curve)


@pytest.mark.parametrize("always", [0.0, 1.0])
def test_a_model_that_is_never_or_always_wrong_has_no_curve_to_speak_of(always: float) -> None:
    curve = curve_of(np.linspace(0.3, 1, 40), np.full(40, always))
    assert aurc(curve) == pytest.approx(always)


def test_confidence_that_says_nothing_has_its_error_rate_as_area() -> None:
    curve = curve_of(np.full(50, 0.7), (np.arange(50) < 10).astype(float))
    assert aurc(curve) == pytest.approx(0.2)
    assert risk_at(curve, np.array([0.1, 0.5, 1.0])) == pytest.approx([0.2] * 3)


def test_areas_of_draws_are_those_of_copied_cells_up_to_grouping() -> None:
    rng = np.random.default_rng(5)
    n, n_clusters = 3000, 12
    prob_nk = rng.dirichlet([1, 1, 1], n)
    label_n = np.where(rng.random(n) < prob_nk.max(axis=1), prob_nk.argmax(axis=1), 0)
    cluster_n = rng.integers(0, n_clusters, n)
    counts = draw_counts(n_clusters, n_draws=20, seed=0)
    scored = Scored(np.arange(n), label_n, prob_nk)
    ours = aurc_of_sums(counts @ risk_sums(scored, cluster_n, n_clusters))[0]
    for draw, area in zip(counts, ours, strict=True):
        taken = np.repeat(np.arange(n), draw[cluster_n].astype(int))
        exact = aurc(curve_of(prob_nk[taken].max(axis=1), prob_nk[taken].argmax(axis=1) != label_n[taken]))
        assert area == pytest.approx(exact, abs=1e-3)
    assert risk_sums(scored, cluster_n, n_clusters)[:, :N_GROUPS].sum() == n


def test_groups_of_falling_confidence_hold_equal_numbers_of_cells() -> None:
    top_n = np.linspace(0.51, 0.99, 4 * N_GROUPS)
    scored = Scored(np.arange(len(top_n)), np.zeros(len(top_n), int), np.stack([top_n, 1 - top_n], axis=1))
    sums = risk_sums(scored, np.zeros(len(top_n), int), 1)
    np.testing.assert_array_equal(sums[0, :N_GROUPS], 4)
    sure_and_wrong = Scored(scored.row_n, (top_n > 0.98).astype(int), scored.prob_nk)
    assert risk_sums(sure_and_wrong, np.zeros(len(top_n), int), 1)[0, N_GROUPS] > 0, "the first group is the surest"


def test_groups_without_cells_add_nothing() -> None:
    with_empty = aurc_of_groups(np.array([0.0, 2, 0, 3]), np.array([0.0, 1, 0, 2]))
    assert with_empty == pytest.approx(float(aurc_of_groups(np.array([2.0, 3]), np.array([1.0, 2]))))


@pytest.mark.parametrize("seed", range(5))
def test_the_threshold_keeps_most_cells_below_the_error(seed: int) -> None:
    rng = np.random.default_rng(seed)
    confidence = np.round(rng.random(200), 2)
    wrong = (rng.random(200) > 0.3 + confidence).astype(float)
    kept = {t: confidence >= t for t in np.unique(confidence)}
    allowed = [t for t, k in kept.items() if wrong[k].mean() <= 0.1 and k.sum() >= 30]
    assert threshold_for(confidence, wrong, error=0.1) == min(allowed)


def test_a_threshold_of_zero_keeps_all_and_none_is_said() -> None:
    confidence = np.linspace(0.5, 1, 80)
    assert threshold_for(confidence, np.zeros(80), error=0.05) == 0.0
    assert threshold_for(confidence, np.ones(80), error=0.05) is None


@pytest.mark.parametrize(("n", "found"), [(59, None), (60, 0.0)])
def test_too_few_cells_without_an_error_show_no_small_error(n: int, found: float | None) -> None:
    assert threshold_for(np.linspace(0.5, 1, n), np.zeros(n), error=0.05) == found


# --- on a run ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def fake(tmp_path_factory: pytest.TempPathFactory) -> FakeRun:
    return make_fake_run(tmp_path_factory.mktemp("abstention"), models=("beta",), seeds=(0, 1), n_cells=900)


def sharpened(rng: np.random.Generator, scored: Scored) -> Scored:
    """Raise the probability of the true class of most cells, so that the model is worth deciding with."""
    raised = scored.prob_nk.copy()
    known = rng.random(len(raised)) < 0.85
    raised[known, scored.label_n[known]] += rng.exponential(2.0, known.sum())
    return replace(scored, prob_nk=raised / raised.sum(axis=1, keepdims=True))


@pytest.fixture(scope="module")
def outputs(fake: FakeRun) -> list[TaskOutput]:
    rng = np.random.default_rng(0)
    return [
        replace(o, **{part: sharpened(rng, getattr(o, part)) for part in ("test", "external", "validation")})
        for o in load_outputs(fake.run, fake.tasks, fake.opened.cells, CLASSES)
    ]


@pytest.fixture(scope="module")
def block(fake: FakeRun, outputs: list[TaskOutput]) -> dict[str, Any]:
    found = abstention_block(model_scores(outputs)[0], fake.opened.cells, CLASSES, SETTINGS)
    return json.loads(json.dumps(found, allow_nan=False))


PROB = [f"prob_{name}" for name in CLASSES]


def tables(fake: FakeRun, outputs: list[TaskOutput], part: str) -> list[pd.DataFrame]:
    """Per network, in the order of the tasks, its predictions with the animals."""
    frames = []
    for output in outputs:
        scored = getattr(output, part)
        frame = pd.DataFrame(scored.prob_nk, columns=PROB)
        cells = fake.opened.cells.iloc[scored.row_n]
        frames.append(frame.assign(subject=cells["subject"].to_numpy(str), label=cells["label"].to_numpy(str)))
    return frames


def with_sets(fake: FakeRun, outputs: list[TaskOutput], part: str) -> list[pd.DataFrame]:
    """Prediction sets by hand: for each network and class, the order statistic of its validation fold."""
    found = []
    for validation, frame in zip(tables(fake, outputs, "validation"), tables(fake, outputs, part), strict=True):
        size, covered = np.zeros(len(frame)), np.zeros(len(frame), bool)
        for column, class_name in zip(PROB, CLASSES, strict=True):
            own = sorted(validation.loc[validation["label"] == class_name, column].astype(float), reverse=True)
            inside = frame[column].astype(float) >= own[int(np.ceil(0.9 * (len(own) + 1))) - 1]
            size += inside
            covered |= (inside & (frame["label"] == class_name)).to_numpy()
        found.append(frame.assign(size=size, covered=covered))
    return found


@pytest.mark.parametrize(("set_name", "part"), [("cv", "test"), ("external", "external")])
def test_conformal_numbers_of_a_run_are_those_of_pandas(
    fake: FakeRun, outputs: list[TaskOutput], block: dict[str, Any], set_name: str, part: str
) -> None:
    frames, ours = with_sets(fake, outputs, part), block["conformal"]["sets"][set_name]
    scores = {
        "coverage": lambda f: f["covered"].mean(),
        "set_size": lambda f: f["size"].mean(),
        "decided": lambda f: (f["size"] == 1).mean(),
        "empty": lambda f: (f["size"] == 0).mean(),
        "several": lambda f: (f["size"] > 1).mean(),
        "accuracy_decided": lambda f: f.loc[f["size"] == 1, "covered"].mean(),
    }
    for name, score in scores.items():
        assert ours[name]["mean"] == pytest.approx(score(pd.concat(frames))), name
        assert ours[name]["sd_folds"] == pytest.approx(np.std([score(f) for f in frames], ddof=1)), name
    for name in CLASSES:
        of_class = pd.concat(frames).query("label == @name")["covered"].mean()
        assert ours["per_class"][name]["mean"] == pytest.approx(of_class)
    by_animal = pd.concat(frames).groupby("subject")["covered"].mean()
    assert [mean for _, mean in ours["by_subject"]["points"]] == pytest.approx(sorted(by_animal))
    assert sum(n for n, _ in ours["by_subject"]["points"]) == {"cv": 900, "external": 240}[set_name]
    assert ours["by_subject"]["n_below"] == (by_animal < 0.9).sum()


def test_intervals_hold_the_spread_of_coverage_over_drawn_animals(
    fake: FakeRun, outputs: list[TaskOutput], block: dict[str, Any]
) -> None:
    frames = with_sets(fake, outputs, "external")
    animals = sorted(frames[0]["subject"].unique())
    by_animal = [f.groupby("subject")["covered"].agg(["sum", "size"]).loc[animals].to_numpy() for f in frames]
    counts = draw_counts(len(animals), n_draws=300, seed=0)
    drawn = np.mean([(c := counts @ sums)[:, 0] / c[:, 1] for sums in by_animal], axis=0)
    low, high = block["conformal"]["sets"]["external"]["coverage"]["ci95"]
    plain = np.quantile(drawn, [0.025, 0.975])  # ours is wider, for there are few animals
    assert low < plain[0] < plain[1] < high
    assert high - low < 2 * (plain[1] - plain[0])


@pytest.mark.parametrize(("set_name", "part"), [("cv", "test"), ("external", "external")])
def test_thresholds_come_from_validation_and_their_results_from_held_out_cells(
    fake: FakeRun, outputs: list[TaskOutput], block: dict[str, Any], set_name: str, part: str
) -> None:
    for target in block["targets"]:
        frames = []
        for validation, frame, threshold in zip(
            tables(fake, outputs, "validation"), tables(fake, outputs, part), target["thresholds"], strict=True
        ):
            prob, label = validation[PROB].to_numpy(float), pd.Categorical(validation["label"], CLASSES).codes
            wrong, confidence = prob.argmax(axis=1) != label, prob.max(axis=1)
            kept = {t: confidence >= t for t in [0.0, *np.unique(confidence)]}
            enough = 3 / target["error"] - 1e-9
            best = [t for t, k in kept.items() if wrong[k].mean() <= target["error"] and k.sum() >= enough]
            assert threshold == (pytest.approx(min(best)) if best else None)
            limit = np.inf if threshold is None else threshold
            held = frame[PROB].to_numpy(float)
            is_wrong = held.argmax(axis=1) != pd.Categorical(frame["label"], CLASSES).codes
            frames.append(frame.assign(kept=held.max(axis=1) >= limit, wrong=is_wrong))
        ours = target["sets"][set_name]
        decisions = pd.concat(frames)
        assert ours["kept"]["mean"] == pytest.approx(decisions["kept"].mean())
        assert ours["error"]["mean"] == pytest.approx(decisions.loc[decisions["kept"], "wrong"].mean())
    assert [t["error"] for t in block["targets"]] == [0.05, 0.10]


def test_the_set_threshold_abstains_below_it(fake: FakeRun, outputs: list[TaskOutput], block: dict[str, Any]) -> None:
    frame = pd.concat(tables(fake, outputs, "external"))
    prob = frame[PROB].to_numpy(float)
    kept = prob.max(axis=1) >= 0.6
    wrong = prob.argmax(axis=1) != pd.Categorical(frame["label"], CLASSES).codes
    ours = block["threshold"]["sets"]["external"]
    assert block["threshold"]["at"] == 0.6
    assert ours["kept"]["mean"] == pytest.approx(kept.mean())
    assert ours["error"]["mean"] == pytest.approx(wrong[kept].mean())


def test_curves_of_a_run_are_means_over_its_networks(
    fake: FakeRun, outputs: list[TaskOutput], block: dict[str, Any]
) -> None:
    curves = []
    for frame in tables(fake, outputs, "external"):
        prob = frame[PROB].to_numpy(float)
        curves.append(curve_of(prob.max(axis=1), prob.argmax(axis=1) != pd.Categorical(frame["label"], CLASSES).codes))
    ours = block["risk_coverage"]["external"]
    assert ours["aurc"]["mean"] == pytest.approx(np.mean([aurc(c) for c in curves]))
    assert ours["aurc"]["sd_folds"] == pytest.approx(np.std([aurc(c) for c in curves], ddof=1))
    assert ours["aurc"]["ci95"][0] < ours["aurc"]["mean"] < ours["aurc"]["ci95"][1]
    assert ours["share_kept"][-1] == 1.0
    assert ours["error"][-1] == pytest.approx(np.mean([c.wrong_g[-1] / c.kept_g[-1] for c in curves]))


def relabelled(scored: Scored) -> Scored:
    return replace(scored, label_n=np.random.default_rng(0).permutation(scored.label_n))


def test_labels_of_held_out_cells_move_no_floor_and_no_threshold(
    fake: FakeRun, outputs: list[TaskOutput], block: dict[str, Any]
) -> None:
    shuffled = [replace(o, test=relabelled(o.test), external=relabelled(o.external)) for o in outputs]
    other = abstention_block(model_scores(shuffled)[0], fake.opened.cells, CLASSES, SETTINGS)
    other = json.loads(json.dumps(other))
    assert other["conformal"]["fits"] == block["conformal"]["fits"]
    assert [t["thresholds"] for t in other["targets"]] == [t["thresholds"] for t in block["targets"]]
    assert other["conformal"]["sets"]["cv"]["coverage"] != block["conformal"]["sets"]["cv"]["coverage"]


def test_without_unseen_cells_there_are_curves_but_nothing_fitted(fake: FakeRun, outputs: list[TaskOutput]) -> None:
    network, ensemble = model_scores(outputs)
    older = replace(network, outputs=[replace(o, validation=None) for o in outputs])
    for scores, word in ((ensemble, "ensemble"), (replace(network, tta=True), "view"), (older, "kept no predictions")):
        found = abstention_block(scores, fake.opened.cells, CLASSES, SETTINGS)
        assert word in found["reason"]
        assert found["conformal"] is None
        assert found["targets"] == []
        assert 0 <= found["risk_coverage"]["external"]["aurc"]["mean"] < 0.2
        assert found["threshold"]["sets"]["external"]["kept"]["mean"] > 0
    assert set(abstention_block(ensemble, fake.opened.cells, CLASSES, SETTINGS)["risk_coverage"]) == {"external"}


def test_cells_that_were_fitted_to_cannot_be_tested(fake: FakeRun, outputs: list[TaskOutput]) -> None:
    leaking = [replace(outputs[0], external=outputs[0].validation)]
    scores = ModelScores("x", "network", leaking, [], [], [outputs[0].validation], [], base="x")
    with pytest.raises(DataError, match="also tested"):
        abstention_block(scores, fake.opened.cells, CLASSES, SETTINGS)


def test_a_threshold_of_zero_is_no_threshold_and_unknown_animals_have_no_coverage(
    fake: FakeRun, outputs: list[TaskOutput]
) -> None:
    nameless = fake.opened.cells.assign(subject=None)
    found = abstention_block(model_scores(outputs)[0], nameless, CLASSES, EvaluateConfig(n_bootstrap=100))
    assert found["threshold"] is None
    assert found["conformal"]["sets"]["cv"]["by_subject"] is None
    assert found["conformal"]["sets"]["cv"]["coverage"]["ci95"] is not None


def test_a_model_that_may_decide_nothing_has_no_error(fake: FakeRun, outputs: list[TaskOutput]) -> None:
    wrong = [
        replace(o, validation=replace(o.validation, label_n=(o.validation.prob_nk.argmax(axis=1) + 1) % 3))
        for o in outputs
    ]
    target = abstention_block(model_scores(wrong)[0], fake.opened.cells, CLASSES, SETTINGS)["targets"][0]
    assert set(target["thresholds"]) == {None}
    assert target["sets"]["cv"]["kept"]["mean"] == 0
    assert target["sets"]["cv"]["error"] == {"mean": None, "sd_folds": None, "ci95": None}
