"""How often 95 % intervals hold the truth, by the simulation of benchmarks/simulate_coverage.py."""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd
import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def coverage() -> pd.DataFrame:
    sys.path.insert(0, str(BENCHMARKS))
    try:
        from simulate_coverage import simulate_coverage
    finally:
        sys.path.remove(str(BENCHMARKS))
    many = simulate_coverage(40, n_replicates=1500, methods=("bca", "cells"))
    few = simulate_coverage(12, n_replicates=1500, methods=("bca", "expanded", "cells"))
    return pd.concat([many, few]).set_index(["animals", "method", "score"])["coverage"].unstack("score")


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_intervals_over_forty_animals_hold_the_truth_as_often_as_they_say(coverage: pd.DataFrame) -> None:
    """Every score; 1,500 studies know a share of 0.94 to within 0.006 (standard error), and the seed is fixed."""
    assert coverage.loc[(40, "bca")].between(0.93, 0.97).all(), coverage.loc[(40, "bca")].to_dict()


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_over_twelve_animals_they_do_for_all_but_auc_and_there_come_close(coverage: pd.DataFrame) -> None:
    found = coverage.loc[(12, "bca")]
    assert found.drop("AUC of the rarest class").between(0.93, 0.97).all(), found.to_dict()
    assert found["AUC of the rarest class"] > 0.91
    assert coverage.loc[(12, "expanded"), "AUC of the rarest class"] < 0.88, "what the correction is for"


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("n_animals", [12, 40])
def test_intervals_that_take_cells_as_independent_fail(coverage: pd.DataFrame, n_animals: int) -> None:
    assert (coverage.loc[(n_animals, "cells")] < 0.7).all(), coverage.loc[(n_animals, "cells")].to_dict()
