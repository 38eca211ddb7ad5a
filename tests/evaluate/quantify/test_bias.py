"""A planted effect seen through a classifier whose errors differ between classes: biased as counted, not corrected."""

from __future__ import annotations

import pytest
from benchmarks.simulate_bias import World, simulate_bias, summarise, true_severity

pytestmark = pytest.mark.slow
N = 60


@pytest.mark.timeout(600)
def test_a_planted_effect_is_biased_when_counted_and_unbiased_when_corrected() -> None:
    found = summarise(simulate_bias(World(), n_simulations=N, n_draws=300))
    for method in ("none", "mean"):
        assert found.loc[method, "bias"] < -0.08, "a third of the effect is lost"
        assert found.loc[method, "effect_covered"] < 0.5
    for method in ("adjusted", "probabilistic", "em"):
        assert abs(found.loc[method, "bias"]) < 3 * found.loc[method, "bias_se"] < 0.03
        assert found.loc[method, "effect_covered"] > 0.87  # 95 percent of 60 studies, three standard errors below
        assert found.loc[method, "animals_covered"] > 0.92


@pytest.mark.timeout(600)
def test_few_cells_per_animal_and_animals_of_their_own_stain_leave_it_unbiased_and_intervals_hold() -> None:
    for world in (World(n_cells=20, overlap=0.8), World(sd_stain=0.25)):
        found = summarise(simulate_bias(world, n_simulations=N, n_draws=300, methods=("probabilistic",)))
        row = found.loc["probabilistic"]
        assert abs(row["bias"]) < 3 * row["bias_se"]
        assert row["effect_covered"] > 0.87
        assert row["animals_covered"] > 0.9


def test_the_truth_it_is_measured_by_is_the_mean_over_animals() -> None:
    import numpy as np

    world = World()
    animals = world.shares(world.damage[1] + world.sd_animal * np.random.default_rng(0).standard_normal(400_000))
    assert true_severity(world)[1] == pytest.approx((animals @ [0, 0.5, 1]).mean(), abs=1e-3)
