"""Simulated studies: tests of animals keep their level, a test of cells does not, and power is as calculated."""

from __future__ import annotations

import pandas as pd
import pytest
from benchmarks.simulate_effects import Design, planted, rates, simulate_power, simulate_shared_error, simulate_type_one

pytestmark = pytest.mark.slow


def rejected(studies: pd.DataFrame) -> dict[str, float]:
    table = rates(studies).set_index("test")
    return {str(test): float(rate) for test, rate in table["rejected"].items()}


@pytest.mark.parametrize("icc", [0.1, 0.2])
def test_permuting_animals_errs_in_three_to_seven_percent_of_null_studies_where_cells_err_in_more_than_twenty(
    icc: float,
) -> None:
    found = rejected(simulate_type_one(Design(icc=(icc, icc)), n_studies=3000, seed=1, models=False))
    assert 0.03 <= found["permutation"] <= 0.07
    assert 0.03 <= found["permutation_last"] <= 0.07
    assert found["chi_square"] > 0.2


def test_models_of_cells_in_animals_keep_their_level_and_intervals_hold_the_truth() -> None:
    """Of 700 studies at a rate of 5 %, 3.4 to 6.6 % reject in 95 of 100 runs; the GEE errs on the safe side."""
    studies = simulate_type_one(n_studies=700, seed=2)
    found = rejected(studies)
    assert 0.03 <= found["mixed"] <= 0.07
    assert 0.015 <= found["gee"] <= 0.07
    assert 0.92 <= studies["covered"].mean() <= 0.98
    assert studies[["mixed", "gee"]].notna().all(axis=None)


def test_where_spread_and_number_differ_between_groups_a_plain_difference_of_means_errs_more() -> None:
    design = Design(n_animals=(4, 10), icc=(0.3, 0.05))
    found = rejected(simulate_type_one(design, n_studies=1500, seed=3, models=False))
    assert found["plain_permutation"] > found["permutation"] + 0.03


@pytest.mark.parametrize("n_animals", [6, 10])
def test_a_planted_effect_is_found_as_often_as_calculated(n_animals: int) -> None:
    found = simulate_power(planted(n_animals), n_studies=1200, seed=4, models=False)
    assert 0.7 < found["calculated"] < 0.95
    assert found["permutation"] == pytest.approx(found["calculated"], abs=0.045)


def test_intervals_hold_the_truth_only_if_they_carry_the_error_that_all_animals_share() -> None:
    found = simulate_shared_error(6, n_studies=500, seed=5)
    assert found["carried"] >= 0.9
    assert found["no_error"] >= 0.9
    assert found["ignored"] < 0.85
