"""Fewer animals for learning curves."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pandas as pd
import pytest

from perikarya.data.subsets import nested_subset
from perikarya.errors import ConfigError


@pytest.fixture
def cells() -> pd.DataFrame:
    n = 240
    return pd.DataFrame(
        {
            "cell_id": [f"c{i:03d}" for i in range(n)],
            "subject": [f"sheep{i % 8}" for i in range(n)],
            "image_id": [f"image{i % 24}" for i in range(n)],
        }
    )


ROWS = np.arange(0, 240, dtype=np.int64)[::-1].copy()


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_subset_holds_whole_animals_and_is_part_of_every_larger_one(cells: pd.DataFrame, seed: int) -> None:
    subsets = [nested_subset(cells, ROWS, group_by="subject", n_groups=n, seed=seed, fold=1) for n in range(1, 9)]
    for n, subset in enumerate(subsets, start=1):
        kept = cells["subject"].iloc[subset]
        assert kept.nunique() == n
        assert len(subset) == cells["subject"].isin(kept.unique()).sum()
    for smaller, larger in pairwise(subsets):
        assert set(smaller) < set(larger)
    np.testing.assert_array_equal(subsets[-1], ROWS)


def test_rows_outside_the_training_stay_outside(cells: pd.DataFrame) -> None:
    rows = np.flatnonzero(cells["subject"] != "sheep3")
    subset = nested_subset(cells, rows, group_by="subject", n_groups=5, seed=0, fold=0)
    assert set(subset) <= set(rows)


def test_seeds_and_folds_draw_other_animals_and_the_same_ones_again(cells: pd.DataFrame) -> None:
    def drawn(seed: int, fold: int) -> frozenset[str]:
        subset = nested_subset(cells, ROWS, group_by="subject", n_groups=3, seed=seed, fold=fold)
        return frozenset(cells["subject"].iloc[subset])

    assert drawn(0, 0) == drawn(0, 0)
    assert len({drawn(seed, fold) for seed in range(4) for fold in range(4)}) > 4


def test_images_are_the_groups_where_animals_are_unknown(cells: pd.DataFrame) -> None:
    subset = nested_subset(cells.assign(subject=None), ROWS, group_by="image_id", n_groups=5, seed=0, fold=0)
    assert cells["image_id"].iloc[subset].nunique() == 5


def test_single_cells_are_the_groups_where_folds_are_drawn_over_cells(cells: pd.DataFrame) -> None:
    assert len(nested_subset(cells, ROWS, group_by="cell", n_groups=7, seed=0, fold=0)) == 7


def test_more_animals_than_there_are_is_refused_with_the_largest_number(cells: pd.DataFrame) -> None:
    with pytest.raises(ConfigError, match="leaves 8 to train on"):
        nested_subset(cells, ROWS, group_by="subject", n_groups=9, seed=0, fold=0)
