"""Effects of a treatment against scipy, statsmodels and plain loops; animals, never cells, are the sample."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from scipy import stats
from statsmodels.stats.multitest import multipletests

from perikarya.errors import DataError, UnknownNameError
from perikarya.evaluate.quantify.cells import AnimalDamage
from perikarya.evaluate.quantify.effects import TwoGroups, effect_sizes, group_order, treatment_effects
from perikarya.evaluate.quantify.permutation import permutation_test
from perikarya.evaluate.quantify.tally import Tally
from perikarya.settings import QuantifyConfig

SETTINGS = QuantifyConfig(n_bootstrap=400, n_permutations=1000)
CLASSES = ("normal", "intermediate", "pyknotic")
NO_CELLS = Tally([], CLASSES)
Values = NDArray[np.float64]


def two_groups(group: Values, reference: Values, *, shared: tuple[Values, Values] | None = None) -> TwoGroups:
    drawn = shared or (group[None], reference[None])
    return TwoGroups(group, reference, *drawn)


def make_damage(
    *, groups: dict[str, int] | None = None, regions: tuple[str, ...] = ("all", "CA1", "DG"), seed: int = 0
) -> AnimalDamage:
    rng = np.random.default_rng(seed)
    rows = []
    for position, (name, n) in enumerate((groups or {"ischemia": 5, "sham": 5, "treated": 5}).items()):
        for animal in range(n):
            for region in regions:
                fraction = rng.dirichlet([4, 3, 2 + 2 * position])
                rows.append((f"{name}{animal}", name, region, 50, *fraction, fraction @ [0, 0.5, 1]))
    columns = ["subject", "group", "region", "n_cells", *(f"fraction_{c}" for c in CLASSES), "severity"]
    return AnimalDamage(pd.DataFrame(rows, columns=columns), {}, {})


def welch(group: Values, reference: Values) -> float:
    with np.errstate(all="ignore"):
        return abs(float(stats.ttest_ind(group, reference, equal_var=False).statistic))


@pytest.mark.parametrize(("n_group", "n_reference"), [(4, 4), (3, 5), (6, 4)])
@pytest.mark.parametrize("shift", [0.0, 1.0])
def test_the_exact_permutation_test_is_that_of_scipy(n_group: int, n_reference: int, shift: float) -> None:
    rng = np.random.default_rng(n_group)
    group, reference = rng.normal(shift, 2.0, n_group), rng.normal(0, 1, n_reference)
    expected = stats.permutation_test((group, reference), welch, n_resamples=np.inf, alternative="greater")
    found = permutation_test(group, reference, n_permutations=10_000, seed=0)
    assert found["exact"]
    assert found["n_labelings"] == len(expected.null_distribution)
    assert found["p"] == pytest.approx(expected.pvalue)


def test_too_many_labelings_are_drawn_at_random_and_count_the_observed_one() -> None:
    rng = np.random.default_rng(1)
    group, reference = rng.normal(0.9, 1, 8), rng.normal(0, 1, 7)
    exact = permutation_test(group, reference, n_permutations=10_000, seed=0)
    drawn = permutation_test(group, reference, n_permutations=5000, seed=0)
    assert exact["exact"]
    assert not drawn["exact"]
    assert drawn["p"] == pytest.approx(exact["p"], abs=4 * np.sqrt(exact["p"] / 5000))
    apart = permutation_test(group + 100, reference, n_permutations=200, seed=0)
    assert apart["p"] == apart["p_smallest"] == 1 / 201


@pytest.mark.parametrize(("n_group", "n_reference", "smallest"), [(4, 4, 2 / 70), (3, 5, 1 / 56), (3, 3, 2 / 20)])
def test_the_smallest_p_is_reached_by_groups_that_do_not_overlap(
    n_group: int, n_reference: int, smallest: float
) -> None:
    found = permutation_test(np.arange(n_group) + 10.0, np.arange(n_reference) + 0.0, n_permutations=10_000, seed=0)
    assert found["p_smallest"] == pytest.approx(smallest)
    assert found["p"] == pytest.approx(smallest)


def test_animals_that_are_all_equal_differ_in_nothing() -> None:
    same = np.full(4, 0.3)
    assert permutation_test(same, same, n_permutations=100, seed=0)["p"] == 1.0
    found = permutation_test(same + 0.1, same, n_permutations=100, seed=0)
    assert found["p"] == pytest.approx(2 / 70), "two constant groups are as far apart as can be"


def test_units_do_not_change_a_p_value() -> None:
    rng = np.random.default_rng(3)
    group, reference = rng.normal(0.5, 1, 5), rng.normal(0, 1, 5)
    p = permutation_test(group, reference, n_permutations=1000, seed=0)["p"]
    assert permutation_test(1e-6 * group + 7, 1e-6 * reference + 7, n_permutations=1000, seed=0)["p"] == p


def test_sizes_of_an_effect_are_those_of_a_hand_calculation() -> None:
    found = effect_sizes(
        two_groups(np.array([0.5, 0.4, 0.3]), np.array([0.1, 0.3, 0.2])), n_draws=200, confidence=0.95, seed=0
    )
    assert found["difference"]["estimate"] == pytest.approx(0.2)
    assert found["ratio"]["estimate"] == pytest.approx(2.0)
    assert found["cliffs_delta"]["estimate"] == pytest.approx(8 / 9)  # eight pairs of nine won, one tied


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_cliffs_delta_is_that_of_a_loop_over_pairs_and_of_mann_whitney(seed: int) -> None:
    rng = np.random.default_rng(seed)
    group, reference = rng.integers(0, 6, 7) / 6, rng.integers(0, 5, 5) / 6
    loop = np.mean([np.sign(a - b) for a in group for b in reference])
    u = stats.mannwhitneyu(group, reference).statistic
    found = effect_sizes(two_groups(group, reference), n_draws=100, confidence=0.95, seed=0)["cliffs_delta"]
    assert found["estimate"] == pytest.approx(loop)
    assert found["estimate"] == pytest.approx(2 * u / (7 * 5) - 1)


@pytest.mark.parametrize(("n_group", "n_reference", "tolerance"), [(40, 25, 0.06), (6, 6, 0.12), (5, 12, 0.15)])
def test_the_interval_of_a_difference_is_near_welchs_for_normal_values(
    n_group: int, n_reference: int, tolerance: float
) -> None:
    group = stats.norm.ppf((np.arange(n_group) + 0.5) / n_group, 0.5, 0.2)
    reference = stats.norm.ppf((np.arange(n_reference) + 0.5) / n_reference, 0.3, 0.1)
    expected = stats.ttest_ind(group, reference, equal_var=False).confidence_interval()
    low, high = effect_sizes(two_groups(group, reference), n_draws=20_000, confidence=0.95, seed=0)["difference"][
        "ci95"
    ]
    width = expected.high - expected.low
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=tolerance * width)


def test_an_error_that_both_groups_share_cancels_in_a_difference_and_one_that_scales_with_it_does_not() -> None:
    rng = np.random.default_rng(5)
    group, reference = rng.normal(0.6, 0.01, 8), rng.normal(0.2, 0.01, 8)
    added = rng.normal(0, 0.1, (3000, 1))
    scaled = rng.normal(1, 0.1, (3000, 1))

    def width(shared: tuple[Values, Values] | None, measure: str = "difference") -> float:
        found = effect_sizes(two_groups(group, reference, shared=shared), n_draws=3000, confidence=0.95, seed=0)
        low, high = found[measure]["ci95"]
        return float(high - low)

    alone = width(None)
    assert width((group + added, reference + added)) == pytest.approx(alone, rel=0.02)
    assert width((group * scaled, reference * scaled)) == pytest.approx(2 * 1.96 * 0.04, rel=0.1)
    assert width((group * scaled, reference * scaled), "ratio") == pytest.approx(width(None, "ratio"), rel=0.25)


def test_a_reference_without_damage_has_no_ratio() -> None:
    found = effect_sizes(two_groups(np.array([0.1, 0.2, 0.3]), np.zeros(3)), n_draws=100, confidence=0.95, seed=0)
    assert found["ratio"] == {"estimate": None, "ci95": None}
    assert found["difference"]["ci95"] is not None


def test_a_ratio_never_falls_below_zero() -> None:
    group = np.array([-0.02, -0.01, 0.01, -0.03])  # a corrected fraction may
    found = effect_sizes(two_groups(group, group + 0.4), n_draws=300, confidence=0.95, seed=0)["ratio"]
    assert found["estimate"] == 0
    assert found["ci95"][0] == 0


@pytest.fixture(scope="module")
def effects() -> dict[str, Any]:
    settings = SETTINGS.model_copy(update={"control": "sham"})
    return treatment_effects(make_damage(), NO_CELLS, settings)


def test_every_pair_of_groups_is_compared_and_the_control_is_always_the_reference(effects: dict[str, Any]) -> None:
    pairs = [(c["group"], c["reference"]) for c in effects["comparisons"]]
    assert pairs == [("ischemia", "sham"), ("treated", "sham"), ("treated", "ischemia")]
    assert effects["groups"] == {"sham": 5, "ischemia": 5, "treated": 5}


def test_each_region_and_measure_has_one_effect_that_json_can_hold(effects: dict[str, Any]) -> None:
    assert json.loads(json.dumps(effects, allow_nan=False)) == effects
    for comparison in effects["comparisons"]:
        keys = [(e["measure"], e["region"]) for e in comparison["effects"]]
        assert keys == [(m, r) for m in ("severity", "fraction_pyknotic") for r in ("all", "CA1", "DG")]


def test_an_effect_is_computed_from_the_animals_of_its_region(effects: dict[str, Any]) -> None:
    table = make_damage().table
    for comparison in effects["comparisons"]:
        for effect in comparison["effects"]:
            rows = table[table["region"] == effect["region"]].set_index("group")[effect["measure"]]
            a, b = rows[comparison["group"]].to_numpy(), rows[comparison["reference"]].to_numpy()
            assert effect["difference"]["estimate"] == pytest.approx(a.mean() - b.mean())
            assert effect["mean_group"] == pytest.approx(a.mean())
            assert effect["p"] == permutation_test(a, b, n_permutations=1000, seed=0)["p"]
            sizes = effect_sizes(two_groups(a, b), n_draws=400, confidence=0.95, seed=0)
            assert {name: effect[name] for name in sizes} == sizes


def test_regions_are_corrected_as_statsmodels_does_and_all_regions_together_stand_apart() -> None:
    damage = make_damage(groups={"sham": 6, "ischemia": 6}, regions=("all", "CA1", "CA3", "CA4", "DG"), seed=4)
    for measure in ("severity", "fraction_pyknotic"):
        found = [
            e
            for e in treatment_effects(damage, NO_CELLS, SETTINGS)["comparisons"][0]["effects"]
            if e["measure"] == measure
        ]
        assert found[0]["p_holm"] == found[0]["p"]
        expected = multipletests([e["p"] for e in found[1:]], method="holm")[1]
        assert [e["p_holm"] for e in found[1:]] == pytest.approx(expected)


def test_the_order_of_the_rows_does_not_matter() -> None:
    damage = make_damage()
    draws = {"severity": np.random.default_rng(0).normal(0.5, 0.1, (50, len(damage.table)))}
    order = np.random.default_rng(1).permutation(len(damage.table))
    groups = ("sham", "ischemia", "treated")
    first = treatment_effects(AnimalDamage(damage.table, {}, draws), NO_CELLS, SETTINGS, group_names=groups)
    shuffled = AnimalDamage(damage.table.iloc[order], {}, {"severity": draws["severity"][:, order]})
    second = treatment_effects(shuffled, NO_CELLS, SETTINGS, group_names=groups)
    by_place = [
        {(e["measure"], e["region"]): (e["difference"], e["p"]) for c in r["comparisons"] for e in c["effects"]}
        for r in (first, second)
    ]
    assert by_place[0] == by_place[1]
    plain = treatment_effects(damage, NO_CELLS, SETTINGS, group_names=groups)
    assert plain["comparisons"][0]["effects"][0]["difference"] != first["comparisons"][0]["effects"][0]["difference"]


def test_two_animals_are_too_few_for_a_test_but_have_a_difference() -> None:
    effect = treatment_effects(make_damage(groups={"sham": 5, "ischemia": 2}), NO_CELLS, SETTINGS)["comparisons"][0][
        "effects"
    ][0]
    assert effect["p"] is None
    assert effect["p_holm"] is None
    assert effect["difference"]["estimate"] is not None
    assert effect["difference"]["ci95"] is None
    assert "2 and 5 animals" in effect["reason"]


def test_a_region_seen_in_one_group_only_has_no_effect() -> None:
    table = make_damage(groups={"sham": 4, "ischemia": 4}).table
    table = table[(table["region"] != "DG") | (table["group"] == "sham")]
    found = treatment_effects(AnimalDamage(table, {}, {}), NO_CELLS, SETTINGS)["comparisons"][0]["effects"]
    missing = next(e for e in found if e["region"] == "DG")
    assert missing["difference"] == {"estimate": None, "ci95": None}
    assert missing["mean_group"] is None
    assert missing["reason"] is not None


def test_values_that_do_not_exist_and_animals_without_a_group_are_left_out() -> None:
    table = make_damage(groups={"sham": 5, "ischemia": 5, "unknown": 2}).table
    table["group"] = table["group"].where(table["group"] != "unknown", None)
    table.loc[(table["subject"] == "sham0") & (table["region"] == "CA1"), "severity"] = np.nan
    found = treatment_effects(AnimalDamage(table, {}, {}), NO_CELLS, SETTINGS)
    assert found["n_animals_without_group"] == 2
    by_region = {e["region"]: e for e in found["comparisons"][0]["effects"] if e["measure"] == "severity"}
    assert by_region["CA1"]["n_reference"] == 4
    assert by_region["DG"]["n_reference"] == 5


def test_one_group_alone_is_not_compared() -> None:
    found = treatment_effects(make_damage(groups={"sham": 4}), NO_CELLS, SETTINGS)
    assert found["comparisons"] == []
    assert "two groups" in found["reason"]


def test_an_animal_in_two_groups_is_refused() -> None:
    table = make_damage(groups={"sham": 4, "ischemia": 4}).table
    table.loc[0, "group"] = "ischemia"
    with pytest.raises(DataError, match=r"Animal sham0 belongs to more than one group \(ischemia, sham\)"):
        treatment_effects(AnimalDamage(table, {}, {}), NO_CELLS, SETTINGS)


def test_an_animal_that_stands_twice_in_a_region_is_refused() -> None:
    table = make_damage().table
    with pytest.raises(DataError, match="has two rows of damage in region all"):
        group_order(pd.concat([table, table.iloc[:1]]), None)


def test_an_unknown_control_is_refused_and_names_the_groups() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'sham'"):
        group_order(make_damage().table, "shame")


def test_the_order_of_the_study_decides_which_group_is_the_reference() -> None:
    assert group_order(make_damage().table, None, ("treated", "absent", "sham")) == ["treated", "sham", "ischemia"]
    assert group_order(make_damage().table, "sham", ("treated",))[0] == "sham"


def test_a_comparison_holds_its_groups_effects_and_models() -> None:
    for comparison in treatment_effects(make_damage(), NO_CELLS, SETTINGS)["comparisons"]:
        assert set(comparison) == {"group", "reference", "effects", "models"}
