"""What limits a score: constructed cases for every verdict, and the pieces by hand."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from scipy.optimize import nnls
from tests.evaluate.phantom_features import coarse_pixels, measured_features

from perikarya.config import EvaluateConfig
from perikarya.data.phantom import make_phantom, read_truth
from perikarya.data.phantom_plan import PhantomSettings, record_labels
from perikarya.data.store import OpenStudy
from perikarya.errors import DataError
from perikarya.evaluate.ceiling import ceiling_from_joint, ceiling_from_readings, read_readings
from perikarya.evaluate.label_quality import LabelQuality, label_issues, out_of_sample
from perikarya.evaluate.outputs import ModelScores, Scored, TaskOutput
from perikarya.evaluate.power_law import draw_exponents, fit_power_law
from perikarya.evaluate.saturation import saturation_block
from perikarya.evaluate.verdict import Evidence, decide
from perikarya.runs import TaskKey
from perikarya.schema import label_codes

NAMES = ("normal", "intermediate", "pyknotic")
SETTINGS = EvaluateConfig(n_bootstrap=400)
N_FULL = 24


class World:
    """Cells of 40 animals whose recorded labels are wrong by chance, and networks of any skill."""

    def __init__(self, *, label_noise: float = 0.0, n_animals: int = 40, cells_each: int = 60, seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        n = n_animals * cells_each
        self.true_n = self.rng.integers(0, 3, n)
        self.label_n = self.read(label_noise)
        self.luck_n = self.rng.normal(0, 1, n)  # how hard a cell is, for all networks
        self.cells = pd.DataFrame(
            {
                "cell_id": [f"c{i}" for i in range(n)],
                "label": np.asarray(NAMES)[self.label_n],
                "subject": pd.array([f"s{i // cells_each:02d}" for i in range(n)], dtype="string"),
                "image_id": [f"i{i // 5}" for i in range(n)],
                "region": "CA1",
                "group": "sham",
                "set": "development",
            }
        )

    def read(self, noise: float) -> NDArray[np.int64]:
        """Let a reader grade all cells, who slips to another class at random."""
        n = len(self.true_n)
        slip = self.rng.random(n) < noise
        return np.where(slip, (self.true_n + self.rng.integers(1, 3, n)) % 3, self.true_n).astype(np.int64)

    def predict(self, error: float) -> Scored:
        """Return what a network says that misses the true class of a share of the cells, mostly of the hard ones."""
        n = len(self.true_n)
        difficulty = self.luck_n + self.rng.normal(0, 0.7, n)
        missed = difficulty > np.quantile(difficulty, 1 - error)
        said = np.where(missed, (self.true_n + self.rng.integers(1, 3, n)) % 3, self.true_n)
        prob = np.full((n, 3), 0.05)
        prob[np.arange(n), said] = 0.9
        unsure = 0.5 * missed * self.rng.random(n)  # a mistake is seldom as sure as a hit
        prob = (1 - unsure[:, None]) * prob + unsure[:, None] / 3
        return Scored(np.arange(n), self.label_n, prob)

    def model(self, name: str, error: float, *, n_subjects: float = N_FULL, repeats: int = 3) -> ModelScores:
        parts = [self.predict(error) for _ in range(repeats)]
        outputs = [
            TaskOutput(TaskKey(name, seed, 0), {"n_train_subjects": n_subjects}, part, None)
            for seed, part in enumerate(parts)
        ]
        return ModelScores(name, "network", outputs, parts, parts, [], [], base=name)

    def curve(self, name: str, *, a: float, b: float, c: float, at: Sequence[int] = (3, 6, 12)) -> list[ModelScores]:
        full = self.model(name, a + b * N_FULL**-c)
        return [full] + [self.model(f"{name}@{n}", a + b * n**-c, n_subjects=n) for n in at]

    def labels(self, scores: list[ModelScores]) -> LabelQuality:
        asked = out_of_sample(scores, leave_out=[s.base for s in scores if "@" in s.base])
        return label_issues(asked, self.cells, NAMES, settings=SETTINGS)

    def block(self, scores: list[ModelScores], **options: Any) -> dict[str, Any]:
        found = saturation_block(scores, self.cells, NAMES, settings=SETTINGS, **options)
        assert found is not None
        json.dumps(found, allow_nan=False)
        return found


# --- the verdict on constructed worlds


def test_a_steep_curve_under_clean_labels_is_limited_by_the_data() -> None:
    world = World()
    scores = world.curve("net", a=0.02, b=0.6, c=0.6)
    block = world.block(scores, labels=world.labels(scores[:1]))
    gain = 0.6 * (N_FULL**-0.6 - (2 * N_FULL) ** -0.6)
    assert block["verdict"] == "data"
    low, high = block["curves"]["net"]["gain"]["ci95"]
    assert low < gain < high
    assert "48 instead of 24" in block["sentence"]
    assert block["answers"]["at_label_ceiling"] in ("no", "unknown")


def test_a_perfect_network_on_noisy_labels_is_limited_by_the_labels_as_repeated_readings_show() -> None:
    world = World(label_noise=0.15)
    readings = np.stack([world.label_n, world.read(0.15)], axis=1)
    block = world.block(world.curve("net", a=0.0, b=0.02, c=1.0), readings_nr=readings)
    assert block["verdict"] == "labels"
    assert block["ceiling"]["source"] == "repeated readings"
    low, high = block["ceiling"]["ci95"]
    assert low < 0.85 < high


def test_confident_learning_says_the_same_where_the_curve_is_flat() -> None:
    world = World(label_noise=0.15)
    scores = world.curve("net", a=0.0, b=0.02, c=1.0)
    block = world.block(scores, labels=world.labels(scores[:1]))
    assert block["answers"]["more_animals_help"] == "no"
    assert block["verdict"] == "labels"
    assert "have some graded twice" in block["sentence"]


def test_a_network_far_ahead_of_all_others_means_that_networks_are_the_limit() -> None:
    world = World()
    scores = [world.model("strong", 0.10), world.model("weak", 0.20), world.model("weaker", 0.25)]
    block = world.block(scores)
    assert block["verdict"] == "networks"
    assert "strong" in block["sentence"]
    assert "weak by 10" in block["sentence"]
    low, high = block["networks"]["lead"]["ci95"]
    assert 0 < low < block["networks"]["lead"]["estimate"] < high


def test_equal_networks_are_no_reason_to_look_for_another() -> None:
    world = World()
    block = world.block([world.model(f"net{i}", 0.15) for i in range(4)])
    assert block["answers"]["another_network_helps"] == "no"
    assert block["networks"]["p"] > 0.01
    assert block["networks"]["tau"] < 0.01
    assert block["verdict"] == "undecided"


def test_one_network_without_a_curve_decides_nothing_and_says_what_is_missing() -> None:
    world = World()
    block = world.block([world.model("net", 0.15)])
    assert block["verdict"] == "undecided"
    assert len(block["missing"]) == 3
    for word in ("no learning curve", "nothing is known of the labels", "only one network"):
        assert word in block["sentence"]


# --- the rule itself


def evidence(**changes: Any) -> Evidence:
    """Everything known and every question answered with no."""
    settled: dict[str, Any] = {
        "metric": "balanced accuracy", "animals": "animals", "best": "net", "score": 0.80,
        "curve": curve_of(0.002, [0.0, 0.008]),
        "ceiling": {"source": "repeated readings", "estimate": 0.95, "ci95": [0.93, 0.97], "at_least": 0.90,
                    "n_cells": 500},
        "headroom": {"estimate": 0.15, "ci95": [0.13, 0.17]},
        "networks": networks_of(0.002, [-0.01, 0.014], p=0.6),
    }  # fmt: skip
    return Evidence(**{**settled, **changes})


def curve_of(gain: float, interval: list[float], n_repeats: int = 3) -> tuple[str, dict[str, Any]]:
    return "net", {
        "points": [{"n_subjects": 11.0, "error": 0.2}],
        "gain": {"estimate": gain, "ci95": interval},
        "now": {"n_subjects": 11.0},
        "doubled": {"n_subjects": 22.0},
        "n_repeats": n_repeats,
    }


def networks_of(lead: float, interval: list[float], p: float) -> dict[str, Any]:
    number = {"estimate": lead, "ci95": interval}
    return {"p": p, "lead": number, "beats_all": interval[0] > 0, "runner_up": "other", "scores": {}}


AT_CEILING = {"headroom": {"estimate": 0.005, "ci95": [-0.02, 0.03]}}
CONFIDENT = {"source": "confident learning", "estimate": 0.81, "ci95": [0.79, 0.83], "at_least": None, "n_cells": 500}
STEEP, FLAT, VAGUE = curve_of(0.03, [0.01, 0.05]), curve_of(0.002, [0.0, 0.008]), curve_of(0.015, [0.0, 0.06])
AHEAD = networks_of(0.05, [0.02, 0.08], p=0.001)

CASES: list[tuple[str, str, dict[str, Any]]] = [
    ("nothing limits that was asked for", "undecided", {}),
    ("a steep curve", "data", {"curve": STEEP}),
    ("a gain that may be nothing", "undecided", {"curve": VAGUE}),
    ("a gain that is only sure not to be negative", "undecided", {"curve": curve_of(0.015, [0.0005, 0.06])}),
    ("a sure gain of less than a point", "undecided", {"curve": curve_of(0.006, [0.004, 0.008])}),
    ("at the ceiling of repeated readings", "labels", AT_CEILING),
    ("below that ceiling by surely less than a point", "labels",
     {"headroom": {"estimate": 0.004, "ci95": [0.002, 0.006]}}),
    ("at that ceiling, even if the curve is steep", "labels", {**AT_CEILING, "curve": STEEP}),
    ("at a ceiling that is too vague", "undecided", {"headroom": {"estimate": 0.02, "ci95": [-0.06, 0.10]}}),
    ("at the ceiling of confident learning, flat", "labels", {**AT_CEILING, "ceiling": CONFIDENT}),
    ("at that ceiling, but the curve is steep", "data", {**AT_CEILING, "ceiling": CONFIDENT, "curve": STEEP}),
    ("at that ceiling, but the curve is vague", "undecided", {**AT_CEILING, "ceiling": CONFIDENT, "curve": VAGUE}),
    ("at that ceiling, but the curve may still be worth it", "undecided",
     {**AT_CEILING, "ceiling": CONFIDENT, "curve": curve_of(0.012, [0.0, 0.02])}),
    ("at that ceiling, without a curve", "undecided", {**AT_CEILING, "ceiling": CONFIDENT, "curve": None}),
    ("one network ahead of all", "networks", {"networks": AHEAD}),
    ("one network ahead and a steep curve", "data", {"networks": AHEAD, "curve": STEEP}),
    ("ahead by less than a point", "undecided", {"networks": networks_of(0.008, [0.004, 0.01], p=0.001)}),
    ("ahead where networks differ by chance", "undecided", {"networks": networks_of(0.05, [0.02, 0.08], p=0.2)}),
    ("nothing known", "undecided", {"curve": None, "ceiling": None, "headroom": None, "networks": None}),
]  # fmt: skip


@pytest.mark.parametrize(("case", "verdict", "changes"), CASES, ids=[c[0] for c in CASES])
def test_the_rule_decides_as_written(case: str, verdict: str, changes: dict[str, Any]) -> None:
    found = decide(evidence(**changes))
    assert found["verdict"] == verdict
    assert found["sentence"].startswith("Undecided" if verdict == "undecided" else "The limit is the")
    assert found["sentence"].endswith(".")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, ["the curve is flat", "what the pictures show"]),
        ({"curve": None}, ["no learning curve"]),
        ({"curve": VAGUE}, ["too uncertain", "1.5 points (interval 0.0 to 6.0)"]),
        ({"curve": curve_of(0.015, [0.0, 0.06], n_repeats=1)}, ["rests on 1 draw"]),
        (
            {"headroom": {"estimate": 0.03, "ci95": [0.01, 0.06]}},
            ["between 0.900 and 0.950", "more cells graded twice"],
        ),
        ({**AT_CEILING, "ceiling": CONFIDENT, "curve": VAGUE}, ["0.810 (0.790 to 0.830)", "some cells graded twice"]),
        ({"networks": None}, ["only one network"]),
    ],
)
def test_an_open_question_is_named_with_what_would_answer_it(changes: dict[str, Any], words: list[str]) -> None:
    sentence = decide(evidence(**changes))["sentence"]
    assert all(word in sentence for word in words), sentence


def test_the_sentence_holds_the_numbers_it_rests_on() -> None:
    assert decide(evidence(curve=STEEP))["sentence"] == (
        "The limit is the data: training on twice the animals (22 instead of 11) is expected to raise the balanced "
        "accuracy of net, now 0.800, by 3.0 points (interval 1.0 to 5.0)."
    )
    assert decide(evidence(**AT_CEILING))["sentence"] == (
        "The limit is the labels: net reaches a balanced accuracy of 0.800, and labels like these allow "
        "0.950 (0.930 to 0.970) (repeated readings, 500 cells)."
    )
    assert decide(evidence(networks=AHEAD))["sentence"] == (
        "The limit is the network: net (balanced accuracy 0.800) beats all others, other by 5.0 points (interval 2.0 "
        "to 8.0); look for stronger networks before more animals."
    )


def test_headroom_counts_from_the_agreement_of_readers_when_a_network_is_called_surely_below() -> None:
    """The ceiling lies between 0.90 and 0.95: what is surely 0.071 below 0.95 is surely two points below 0.90."""
    assert decide(evidence(headroom={"estimate": 0.08, "ci95": [0.071, 0.1]}))["answers"]["at_label_ceiling"] == "no"
    near = decide(evidence(headroom={"estimate": 0.05, "ci95": [0.03, 0.069]}))
    assert near["answers"]["at_label_ceiling"] == "unknown"


# --- power laws


def test_a_noiseless_power_law_is_recovered() -> None:
    n = np.array([3.0, 6.0, 12.0, 24.0])
    law = fit_power_law(n, (0.1 + 0.5 * n**-0.7)[None], np.ones(4))
    np.testing.assert_allclose([law.a[0], law.b[0], law.c[0]], [0.1, 0.5, 0.7], atol=0.01)
    np.testing.assert_allclose(law.error_at(np.array([48.0])), [[0.1 + 0.5 * 48**-0.7]], atol=1e-4)


def test_weights_decide_between_points_that_contradict_each_other() -> None:
    n = np.array([3.0, 6.0, 12.0, 24.0])
    error = np.array([[0.4, 0.3, 0.3, 0.2]])
    trusted = fit_power_law(n, error, np.array([1.0, 1.0, 1e6, 1.0])).error_at(n)
    assert trusted[0, 2] == pytest.approx(0.3, abs=1e-4)


def test_errors_never_rise_with_animals_nor_fall_below_zero() -> None:
    n = np.array([3.0, 6.0, 12.0, 24.0])
    rising = fit_power_law(n, np.array([[0.1, 0.2, 0.2, 0.3]]), np.ones(4))
    assert rising.b[0] == 0
    assert rising.a[0] == pytest.approx(0.2)
    falling = fit_power_law(n, np.array([[0.4, 0.1, 0.02, 0.0]]), np.ones(4))
    assert falling.a[0] >= 0
    assert falling.error_at(np.array([1e6]))[0, 0] >= 0


@pytest.mark.parametrize(
    "error", [[0.4, 0.1, 0.02, 0.0], [0.4, 0.3, 0.29, 0.3], [0.1, 0.2, 0.1, 0.2], [0.9, 0.5, 0.3, 0.2]]
)
def test_no_allowed_curve_fits_better(error: list[float]) -> None:
    """Against non-negative least squares over the same exponents."""
    n, weight = np.array([3.0, 6.0, 12.0, 24.0]), np.array([1.0, 2.0, 3.0, 4.0])
    law = fit_power_law(n, np.array([error]), weight)
    cost = float((weight * (law.error_at(n)[0] - error) ** 2).sum())
    root = np.sqrt(weight)
    columns = [np.stack([np.ones(4), n**-c], axis=1) * root[:, None] for c in np.linspace(0.05, 2.0, 118)]
    best = min(nnls(x, root * error)[1] ** 2 for x in columns)
    assert cost == pytest.approx(best, rel=1e-6, abs=1e-12)


def test_many_curves_are_fitted_as_each_alone() -> None:
    n = np.array([2.0, 5.0, 9.0, 20.0, 30.0])
    rng = np.random.default_rng(0)
    errors = 0.1 + 0.4 * n**-0.5 + rng.normal(0, 0.03, (20, 5))
    together = fit_power_law(n, errors, np.arange(1.0, 6.0))
    for i in range(20):
        alone = fit_power_law(n, errors[i : i + 1], np.arange(1.0, 6.0))
        assert together.c[i] == alone.c[0]
        assert together.error_at(n)[i] == pytest.approx(alone.error_at(n)[0])


def test_too_few_points_are_refused() -> None:
    error = np.array([[0.3, 0.2, 0.1]])
    with pytest.raises(DataError, match="3 points"):
        fit_power_law(np.array([3.0, 6.0, 12.0]), error, np.ones(3))
    with pytest.raises(DataError, match="2 points"):
        fit_power_law(np.array([3.0, 6.0, 6.0]), error, np.ones(3), c_b=np.array([0.5]))


def test_three_points_fix_the_exponent_and_the_interval_owns_up_to_it() -> None:
    world = World()
    three = world.block(world.curve("net", a=0.05, b=0.6, c=0.5, at=(3, 6)))["curves"]["net"]
    four = world.block(world.curve("net", a=0.05, b=0.6, c=0.5, at=(3, 6, 12)))["curves"]["net"]
    assert (three["n_parameters"], four["n_parameters"]) == (2, 3)
    assert three["c"]["estimate"] == 0.5
    low, high = three["c"]["ci95"]
    assert 0.24 < low < 0.3
    assert 0.9 < high <= 1.0
    low, high = three["gain"]["ci95"]
    assert low < 0.6 * (24**-0.5 - 48**-0.5) < high
    assert np.median(draw_exponents(10_000, seed=0)) == pytest.approx(0.5, abs=0.02)


def test_two_points_are_shown_but_not_fitted() -> None:
    world = World()
    curve = world.block(world.curve("net", a=0.05, b=0.6, c=0.5, at=(6,)))["curves"]["net"]
    assert [p["n_subjects"] for p in curve["points"]] == [6, N_FULL]
    assert curve["n_parameters"] is None
    assert "gain" not in curve


def test_points_of_a_curve_hold_the_error_of_that_many_animals() -> None:
    world = World()
    curve = world.block(world.curve("net", a=0.1, b=0.5, c=1.0))["curves"]["net"]
    for point in curve["points"]:
        expected = 0.1 + 0.5 / point["n_subjects"]
        assert point["error"] == pytest.approx(expected, abs=0.02)
        assert point["ci95"][0] < point["error"] < point["ci95"][1]
    assert curve["now"]["n_subjects"] == N_FULL
    assert curve["doubled"]["n_subjects"] == 2 * N_FULL


def test_repeats_that_disagree_widen_the_interval() -> None:
    world = World()
    steady = world.model("net", 0.2)
    wild = ModelScores(
        "net", "network", steady.outputs, [world.predict(e) for e in (0.1, 0.2, 0.3)], [], [], [], base="net"
    )
    width = {}
    for name, model in (("steady", steady), ("wild", wild)):
        score = world.block([model, world.model("other", 0.2)])["networks"]["scores"]["net"]
        width[name] = score["ci95"][1] - score["ci95"][0]
    assert width["wild"] > 2 * width["steady"]


# --- the spread between networks


def test_the_spread_beyond_chance_is_recovered() -> None:
    world = World(n_animals=60)
    errors = np.array([0.10, 0.14, 0.18, 0.22, 0.26])
    block = world.block([world.model(f"net{i}", float(e)) for i, e in enumerate(errors)])["networks"]
    assert block["tau"] == pytest.approx(errors.std(ddof=1), abs=0.012)
    assert block["p"] < 0.01
    assert block["range"] == pytest.approx(0.16, abs=0.03)
    assert (block["best"], block["runner_up"]) == ("net0", "net1")


def test_chance_alone_is_taken_off_the_spread() -> None:
    """Equal networks on few cells differ a good deal, and nearly all of it is chance."""
    beyond, seen = [], []
    for seed in range(12):
        world = World(n_animals=8, cells_each=12, seed=seed)
        block = world.block([world.model(f"net{i}", 0.3, repeats=1) for i in range(4)])["networks"]
        beyond.append(block["tau"] ** 2)
        seen.append(block["sd"] ** 2)
    assert np.mean(beyond) < 0.6 * np.mean(seen)


def test_points_of_a_curve_are_no_networks_of_their_own() -> None:
    world = World()
    block = world.block([*world.curve("one", a=0.1, b=0.5, c=1.0), world.model("two", 0.12)])
    assert set(block["networks"]["scores"]) == {"one", "two"}
    assert set(block["curves"]) == {"one"}


def test_networks_of_different_cells_are_compared_on_those_they_share() -> None:
    world = World()
    whole, part = world.model("whole", 0.1), world.model("part", 0.1)
    half = np.arange(len(world.cells)) < 1200
    part.pooled[:] = [p.inside(half) for p in part.pooled]
    shared = world.block([whole, part])["networks"]["scores"]["whole"]["mean"]
    inside = [p.inside(half) for p in whole.pooled]
    recall = [np.mean([(p.prob_nk.argmax(1) == k)[p.label_n == k].mean() for k in range(3)]) for p in inside]
    assert shared == pytest.approx(np.mean(recall))


def test_networks_that_share_no_cell_have_no_block() -> None:
    world = World()
    whole, part = world.model("whole", 0.1), world.model("part", 0.1)
    half = np.arange(len(world.cells)) < 1200
    whole.pooled[:] = [p.inside(~half) for p in whole.pooled]
    part.pooled[:] = [p.inside(half) for p in part.pooled]
    assert saturation_block([whole, part], world.cells, NAMES, settings=SETTINGS) is None


# --- ceilings


def test_accuracy_can_be_asked_for_instead() -> None:
    world = World(label_noise=0.1)
    block = world.block([world.model("a", 0.0), world.model("b", 0.0)], metric="accuracy")
    assert block["networks"]["scores"]["a"]["mean"] == pytest.approx((world.label_n == world.true_n).mean())


@pytest.mark.parametrize("n_readings", [2, 3])
@pytest.mark.parametrize("balanced", [True, False])
def test_the_ceiling_of_readers_who_slip_is_their_accuracy(balanced: bool, n_readings: int) -> None:
    world = World(label_noise=0.2)
    readings = np.stack([world.label_n, *(world.read(0.2) for _ in range(n_readings - 1))], axis=1)
    found = ceiling_from_readings(readings, world.cells, 3, balanced=balanced, settings=SETTINGS)
    assert found is not None
    assert found.estimate == pytest.approx(0.8, abs=0.02)
    assert found.ci95 is not None
    assert found.ci95[0] < 0.8 < found.ci95[1]
    assert found.at_least == pytest.approx(0.8**2 + 2 * 0.1**2, abs=0.03)


def test_the_bounds_hold_whatever_the_cells_are_like() -> None:
    """Cells of any doubtfulness: the best prediction of a reading lies between agreement and g(agreement)."""
    world = World(n_animals=200)
    prob_nk = world.rng.dirichlet([0.4, 0.4, 0.4], len(world.cells))
    drawn = (prob_nk.cumsum(axis=1)[:, None, :] < world.rng.random((len(prob_nk), 2, 1))).sum(axis=2)
    found = ceiling_from_readings(drawn, world.cells, 3, balanced=False, settings=SETTINGS)
    assert found is not None
    assert found.at_least is not None
    assert found.at_least < prob_nk.max(axis=1).mean() < found.estimate


def test_cells_read_once_do_not_count() -> None:
    world = World(label_noise=0.2)
    readings = np.stack([world.label_n, world.read(0.2)], axis=1)
    readings[500:, 1] = -1
    found = ceiling_from_readings(readings, world.cells, 3, balanced=False, settings=SETTINGS)
    assert found is not None
    assert found.n_cells == 500
    assert found.at_least == pytest.approx((readings[:500, 0] == readings[:500, 1]).mean())
    readings[:, 1] = -1
    assert ceiling_from_readings(readings, world.cells, 3, balanced=False, settings=SETTINGS) is None


def test_the_ceiling_of_confident_learning_is_the_share_of_labels_it_believes() -> None:
    world = World(label_noise=0.1)
    scores = [world.model("net", 0.0)]
    found = ceiling_from_joint(world.labels(scores).joint, balanced=False)
    assert found.estimate == pytest.approx(0.9, abs=0.015)
    assert found.ci95 is not None
    assert found.ci95[0] < 0.9 < found.ci95[1]


def test_readings_are_laid_beside_the_label_of_the_study(tmp_path: Path) -> None:
    world = World()
    path = tmp_path / "readings.csv"
    assert read_readings(path, world.cells, NAMES) is None
    path.write_text("cell_id,label,reader\nc1,pyknotic,B\nc0,normal,B\nc1,normal,C\n")
    readings = read_readings(path, world.cells, NAMES)
    assert readings is not None
    assert readings.shape == (len(world.cells), 3)
    assert readings[:, 0].tolist() == world.label_n.tolist()
    assert readings[:3, 1:].tolist() == [[0, -1], [2, 0], [-1, -1]]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("cell_id,label\nnobody,normal\n", "nobody"),
        ("cell_id,label\nc0,huge\n", "huge"),
        ("cell_id,grade\nc0,normal\n", "label"),
        ("cell_id,label\n", "one line per further reading"),
        ("cell_id,label\nc0,\n", "one line per further reading"),
        ("", "not a readable table"),
    ],
)
def test_a_damaged_table_of_readings_is_refused(content: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "readings.csv"
    path.write_text(content)
    with pytest.raises(DataError, match=message):
        read_readings(path, World().cells, NAMES)


def test_readings_of_another_study_are_refused() -> None:
    world = World()
    with pytest.raises(DataError, match="do not belong together"):
        world.block([world.model("net", 0.1)], readings_nr=np.zeros((3, 2), np.int64))


# --- phantoms, whose ceiling is known


def linear_curve(opened: OpenStudy, feature_nf: NDArray[np.float64], *, at: Sequence[int]) -> list[ModelScores]:
    """Cross-validate a linear classifier over animals, three times, on all of them and on some."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    subject = opened.cells["subject"].to_numpy(dtype=str)
    names = np.unique(subject)
    fold_of = {name: i % 5 for i, name in enumerate(names)}
    fold_n = np.array([fold_of[s] for s in subject])
    scores = []
    for n in (None, *at):
        parts = []
        for seed in range(3):
            prob = np.zeros((len(subject), 3))
            for fold in range(5):
                order = np.random.default_rng([seed, fold]).permutation([s for s in names if fold_of[s] != fold])
                train, test = np.isin(subject, order[:n]), fold_n == fold
                model = make_pipeline(StandardScaler(), LogisticRegression(C=0.03, max_iter=500))
                model.fit(feature_nf[train], opened.labels[train])
                prob[test] = model.predict_proba(feature_nf[test])
            parts.append(Scored(np.arange(len(subject)), opened.labels, prob))
        name = "linear" if n is None else f"linear@{n}"
        result = {"n_train_subjects": n or len(names) * 4 / 5}
        outputs = [TaskOutput(TaskKey(name, s, 0), result, p, None) for s, p in enumerate(parts)]
        scores.append(ModelScores(name, "network", outputs, parts, parts, [], [], base=name))
    return scores


def phantom_block(
    opened: OpenStudy, scores: list[ModelScores], *, readings_nr: NDArray[np.int64] | None = None
) -> dict[str, Any]:
    names = opened.study.class_names
    labels = label_issues(out_of_sample(scores[:1]), opened.cells, names, settings=SETTINGS)
    found = saturation_block(
        scores, opened.cells, names, settings=SETTINGS, labels=labels, readings_nr=readings_nr, metric="accuracy"
    )
    assert found is not None
    return found


@pytest.mark.slow
def test_on_a_phantom_with_many_wrong_labels_the_labels_are_the_limit(tmp_path: Path) -> None:
    settings = PhantomSettings(n_cells=2000, difficulty=0.05, label_noise=0.25, n_external_subjects=0, window_px=64)
    opened = make_phantom(tmp_path / "study", settings=settings)
    scores = linear_curve(opened, measured_features(opened.read_crops(np.arange(2000))), at=(2, 4, 8))
    truth = read_truth(opened.root)
    true_n = label_codes(truth["true_class"].astype("string"), opened.study.class_names)
    others = [record_labels(true_n, label_noise=0.25, rng=np.random.default_rng(seed)) for seed in (8, 9)]
    for readings_nr in (None, np.stack([opened.labels, *others], axis=1)):
        block = phantom_block(opened, scores, readings_nr=readings_nr)
        assert block["verdict"] == "labels", (block["sentence"], block["headroom"])
        ceiling, right = block["ceiling"], (truth["true_class"] == truth["recorded_class"]).mean()
        bounds = ceiling["ci95"] if readings_nr is None else (ceiling["at_least"], ceiling["estimate"])
        assert bounds[0] < right < bounds[1]


@pytest.mark.slow
def test_on_a_phantom_with_few_animals_the_data_are_the_limit_and_the_gain_comes_true(tmp_path: Path) -> None:
    """The curve is fitted on up to 12 of 24 training animals; the other half shows what twice as many bring."""
    settings = PhantomSettings(n_cells=1500, difficulty=0.3, n_subjects=30, n_external_subjects=0, window_px=64)
    opened = make_phantom(tmp_path / "study", settings=settings)
    feature_nf = coarse_pixels(opened.read_crops(np.arange(1500)))
    doubled, *points = linear_curve(opened, feature_nf, at=(2, 4, 7, 12))
    at_hand = replace(points.pop(), name="linear", base="linear")
    block = phantom_block(opened, [at_hand, *points])
    assert block["verdict"] == "data", block["sentence"]
    error = np.mean([(p.prob_nk.argmax(axis=1) != p.label_n).mean() for p in doubled.pooled])
    foretold = block["curves"]["linear"]["doubled"]
    assert foretold["n_subjects"] == 24
    assert foretold["error"]["ci95"][0] < error < foretold["error"]["ci95"][1]
    assert foretold["error"]["estimate"] == pytest.approx(error, abs=0.02)
