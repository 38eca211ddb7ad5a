"""The check of the assumption: planted changes are found, none is found where there is none."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tests.evaluate.quantify.worlds import bayes, make_reference, sums_of

from perikarya.evaluate.quantify.reference import Reference
from perikarya.evaluate.quantify.transfer import compare_errors

PRIOR = [0.4, 0.4, 0.2]


def animals(
    seed: int, *, n_animals: int = 12, mix: tuple[float, ...] = (0.4, 0.4, 0.2), shift: float = 0.0
) -> Reference:
    rng = np.random.default_rng(seed)
    label_n = rng.choice(3, 80 * n_animals, p=mix)
    prob = bayes(label_n + shift, rng, prior=PRIOR)
    return make_reference(label_n, [f"{seed}-{i % n_animals}" for i in range(len(label_n))], prob)


def compared(here: Reference, there: Reference, *, soft: bool) -> dict[str, Any]:
    return compare_errors(sums_of(here), sums_of(there), soft=soft, n_draws=400, confidence=0.95, seed=0)


@pytest.mark.parametrize("soft", [False, True])
def test_another_mix_of_classes_is_no_change_of_errors(soft: bool) -> None:
    alarms = [
        compared(animals(2 * i), animals(2 * i + 1, mix=(0.1, 0.3, 0.6)), soft=soft)["differs"] for i in range(20)
    ]
    assert sum(bool(a) for a in alarms) <= 3  # one in twenty expected


@pytest.mark.parametrize("soft", [False, True])
def test_another_stain_is_found_and_the_classes_are_named(soft: bool) -> None:
    found = compared(animals(0), animals(1, shift=0.3), soft=soft)
    assert "normal" in found["differs"]
    first = found["classes"][0]
    assert first["class"] == "normal"
    assert first["difference"] == pytest.approx(first["target"] - first["reference"])
    assert first["ci95"][0] <= first["difference"] <= first["ci95"][1] < 0


def test_recall_and_mean_probability_are_those_of_the_cells() -> None:
    here, there = animals(0), animals(1)
    members = there.label_n == 2
    recall = compared(here, there, soft=False)
    assert recall["measure"] == "recall"
    assert recall["classes"][2]["target"] == pytest.approx((there.prob_nk[members].argmax(axis=1) == 2).mean())
    soft = compared(here, there, soft=True)
    assert soft["measure"] == "mean probability of the true class"
    assert soft["classes"][2]["target"] == pytest.approx(there.prob_nk[members, 2].mean())
    assert (soft["n_animals"], soft["n_cells"]) == (12, 960)


def test_classes_of_few_animals_have_no_interval_and_absent_ones_no_number() -> None:
    found = compared(animals(0), animals(1, n_animals=2, mix=(0.5, 0.5, 0.0)), soft=False)
    assert [c["ci95"] for c in found["classes"]] == [None] * 3
    assert found["classes"][0]["difference"] is not None
    assert found["classes"][2]["target"] is None
    assert found["classes"][2]["difference"] is None
    assert found["differs"] == []
