"""Power of the next study against statsmodels, and the spread between animals by hand."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from statsmodels.stats.power import TTestIndPower
from tests.evaluate.quantify.test_effects import make_damage

from perikarya.evaluate.quantify.cells import AnimalDamage
from perikarya.evaluate.quantify.power import (
    CIRCULAR,
    GROUP_SIZES,
    POWERS,
    animals_per_group,
    detectable_effect,
    power_block,
    power_of,
    sd_interval,
)
from perikarya.settings import QuantifyConfig

SETTINGS = QuantifyConfig()


@pytest.mark.parametrize("effect", [0.0, 0.1, 0.5, 1.3, 3.0])
@pytest.mark.parametrize("n", [2, 4, 11, 60])
@pytest.mark.parametrize("level", [0.05, 0.01])
def test_power_is_that_of_statsmodels_and_of_an_integral(effect: float, n: int, level: float) -> None:
    degrees, limit = 2 * n - 2, stats.t.ppf(1 - level / 2, 2 * n - 2)
    spread = np.sqrt(stats.chi2.ppf((np.arange(200_000) + 0.5) / 200_000, degrees) / degrees)
    centre = effect * np.sqrt(n / 2)
    found = stats.norm.sf(limit * spread - centre) + stats.norm.cdf(-limit * spread - centre)
    assert power_of(effect, n, level=level) == pytest.approx(found.mean(), abs=1e-5)
    expected = TTestIndPower().power(effect, n, level)  # not a number where the wrong side has almost no weight
    assert power_of(effect, n, level=level) == pytest.approx(expected, abs=1e-7) or np.isnan(expected)
    assert power_of(-effect, n, level=level) == power_of(effect, n, level=level)


@pytest.mark.parametrize("effect", [0.2, 0.37, 0.8, 1.5, 2.4])
@pytest.mark.parametrize("power", POWERS)
def test_the_number_of_animals_is_that_of_statsmodels_rounded_up(effect: float, power: float) -> None:
    expected = TTestIndPower().solve_power(effect, power=power, alpha=0.05)
    assert animals_per_group(effect, power=power, level=0.05) == math.ceil(float(expected))


@pytest.mark.parametrize("effect", [0.17, 0.29, 0.55, 1.0, 2.0, 4.5, 9.0, 40.0])
@pytest.mark.parametrize("power", [0.2, 0.5, 0.8, 0.95])
def test_one_animal_fewer_would_not_do(effect: float, power: float) -> None:
    n = animals_per_group(effect, power=power, level=0.05)
    assert n is not None
    assert power_of(effect, n, level=0.05) >= power
    assert n == 2 or power_of(effect, n - 1, level=0.05) < power


def test_an_effect_no_study_could_find_has_no_number_of_animals() -> None:
    assert animals_per_group(0.0, power=0.8, level=0.05) is None
    assert animals_per_group(0.1, power=0.8, level=0.05) is None
    assert animals_per_group(0.13, power=0.8, level=0.05) == 930


@pytest.mark.parametrize("n", [4, 9, 20])
def test_the_detectable_effect_is_that_of_statsmodels(n: int) -> None:
    expected = TTestIndPower().solve_power(nobs1=n, power=0.8, alpha=0.05)
    assert detectable_effect(n, power=0.8, level=0.05) == pytest.approx(float(expected), abs=1e-5)


def test_the_interval_of_a_spread_covers_it_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    sds = rng.normal(0, 0.3, (4000, 6)).std(axis=1, ddof=1)
    held = [low <= 0.3 <= high for low, high in (sd_interval(sd, 5, level=0.05) for sd in sds)]
    assert np.mean(held) == pytest.approx(0.95, abs=0.014)


@pytest.fixture(scope="module")
def damage() -> AnimalDamage:
    return make_damage(groups={"sham": 5, "ischemia": 7}, seed=2)


@pytest.fixture(scope="module")
def block(damage: AnimalDamage) -> dict[str, Any]:
    return power_block(damage, SETTINGS, differences=(0.07,))


def plan_of(block: dict[str, Any], region: str, measure: str = "severity") -> dict[str, Any]:
    (comparison,) = block["comparisons"]
    return next(p for p in comparison["plans"] if (p["region"], p["measure"]) == (region, measure))


@pytest.mark.parametrize("region", ["all", "CA1"])
@pytest.mark.parametrize("measure", ["severity", "fraction_pyknotic"])
def test_the_spread_is_pooled_within_the_groups_of_a_region(
    damage: AnimalDamage, block: dict[str, Any], region: str, measure: str
) -> None:
    rows = damage.table[damage.table["region"] == region]
    sham, ischemia = (rows.loc[rows["group"] == g, measure].to_numpy() for g in ("sham", "ischemia"))
    sd = math.sqrt((4 * sham.var(ddof=1) + 6 * ischemia.var(ddof=1)) / 10)
    plan = plan_of(block, region, measure)
    assert plan["sd"]["estimate"] == pytest.approx(sd)
    ends = [sd * math.sqrt(10 / stats.chi2.ppf(q, 10)) for q in (0.975, 0.025)]
    assert plan["sd"]["ci95"] == pytest.approx(ends)
    difference = ischemia.mean() - sham.mean()
    asked = [(a["what"], pytest.approx(a["difference"]), a["power"]) for a in plan["animals_per_group"]]
    assert asked == [
        (what, d, power)
        for what, d in (("observed", difference), ("half of the observed", difference / 2), ("given", 0.07))
        for power in (0.8, 0.9)
    ]
    given = plan["animals_per_group"][4]
    solved = [TTestIndPower().solve_power(0.07 / s, power=0.8, alpha=0.05) for s in (sd, *ends)]
    assert [given["n"], *given["ci95"]] == [max(2, math.ceil(float(n))) for n in solved]
    assert [d["n"] for d in plan["detectable"]] == list(GROUP_SIZES) == list(range(4, 21))
    at_ten = plan["detectable"][6]
    effect = float(TTestIndPower().solve_power(nobs1=10, power=0.8, alpha=0.05))
    assert at_ten["difference"] == pytest.approx(effect * sd, rel=1e-4)
    assert at_ten["ci95"] == pytest.approx([effect * e for e in ends], rel=1e-4)


def test_the_block_warns_of_circular_power_and_json_can_hold_it(block: dict[str, Any]) -> None:
    assert block["warning"] == CIRCULAR
    assert "Hoenig & Heisey 2001" in CIRCULAR
    assert json.loads(json.dumps(block, allow_nan=False)) == block


def counted_animals(n_cells: int, *, seed: int = 0) -> AnimalDamage:
    """Return many animals that differ by nothing but which of their cells were counted."""
    rng = np.random.default_rng(seed)
    fraction = rng.multinomial(n_cells, [0.5, 0.3, 0.2], 600) / n_cells
    table = pd.DataFrame(fraction, columns=["fraction_a", "fraction_b", "fraction_c"])
    table = table.assign(severity=fraction @ [0, 0.5, 1], n_cells=n_cells, region="all")
    table["subject"] = [f"s{i}" for i in range(600)]
    table["group"] = np.where(np.arange(600) < 300, "sham", "treated")
    return AnimalDamage(table, {}, {})


@pytest.mark.parametrize("measure", ["severity", "fraction_c"])
def test_a_spread_that_is_all_counting_shrinks_with_more_cells(measure: str) -> None:
    now = plan_of(power_block(counted_animals(25), SETTINGS), "all", measure)
    assert now["counting_share"] == pytest.approx(1, abs=0.1)
    assert now["cells_per_animal"] == 25
    more = plan_of(power_block(counted_animals(25), SETTINGS, cells_per_animal=100), "all", measure)
    counted = plan_of(power_block(counted_animals(100), SETTINGS), "all", measure)
    assert more["sd"]["estimate"] == pytest.approx(counted["sd"]["estimate"], rel=0.12)
    assert more["cells_per_animal"] == 100


def test_a_spread_between_animals_does_not_shrink_with_more_cells() -> None:
    table = counted_animals(10_000).table
    table["severity"] += np.random.default_rng(1).normal(0, 0.2, len(table))
    now, more = (
        plan_of(power_block(AnimalDamage(table, {}, {}), SETTINGS, cells_per_animal=n), "all") for n in (None, 10**6)
    )
    assert now["counting_share"] < 0.001
    assert more["sd"]["estimate"] == pytest.approx(now["sd"]["estimate"], rel=0.001)


def test_two_animals_or_equal_ones_give_no_plan_but_a_reason() -> None:
    few = plan_of(power_block(make_damage(groups={"sham": 2, "ischemia": 5}), SETTINGS), "all")
    assert few["sd"] is None
    assert few["animals_per_group"] == []
    assert "3 of them in each group" in few["reason"]
    table = make_damage(groups={"sham": 4, "ischemia": 4}).table.assign(severity=0.25)
    same = plan_of(power_block(AnimalDamage(table, {}, {}), SETTINGS), "all")
    assert same["detectable"] == []
    assert "do not differ" in same["reason"]
