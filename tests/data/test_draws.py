"""Rules of the random numbers: they follow from (seed, epoch, row), and no setting changes those of another."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np
import pytest
from tests.crops import keys, only

from perikarya.config import AugmentConfig
from perikarya.data.colour import stain_matrices
from perikarya.data.draws import N_PLACES, cell_keys, draw, uniforms

LATER = {"shear_deg": 20.0, "stain": 0.2, "cutout": 0.5, "elastic": 0.1}  # settings that came after the first thirteen
# of row 12345, seed 7, epoch 3, before there were later settings
WRITTEN = [
    0.6775334882482875, 0.0795552976759405, 0.04374611880398105, 0.31286571937047825, 0.022440037818430736,
    0.7220567556895863, 0.6124702947405929, 0.4874753496680021, 0.4241746944623408, 0.32126027119345135,
    0.37753373729525075, 0.18629795592603648, 0.3210615540437486,
]  # fmt: skip
CHANGES = {"shear_deg": "turn", "stain": "stain", "cutout": "cover", "elastic": "bend"}


def test_a_key_follows_from_seed_epoch_and_row_alone() -> None:
    rows = np.array([7, 3, 100_000])
    np.testing.assert_array_equal(cell_keys(rows, seed=5, epoch=2)[::-1], cell_keys(rows[::-1], seed=5, epoch=2))
    everything = [cell_keys(np.arange(2000), seed=seed, epoch=epoch) for seed in (-1, 0, 1, 2) for epoch in range(10)]
    assert len(np.unique(np.concatenate(everything))) == 4 * 10 * 2000


def test_a_cell_shown_several_times_gets_a_new_key_each_time() -> None:
    found = cell_keys(np.array([4, 9, 4, 4, 9]), seed=0, epoch=0)
    assert len(set(found.tolist())) == 5
    np.testing.assert_array_equal(found[:2], cell_keys(np.array([4, 9]), seed=0, epoch=0))
    np.testing.assert_array_equal(found[2:4], cell_keys(np.array([4, 4, 4]), seed=0, epoch=0)[1:])
    assert cell_keys(np.array([], dtype=np.int64), seed=0, epoch=0).shape == (0,)


def test_keys_are_what_they_were_when_old_runs_are_resumed() -> None:
    found = [int(k) for k in cell_keys(np.array([0, 1, 12345]), seed=0, epoch=3)]
    assert found == [6283979259779196135, 576307389670797319, 3181183023495194025]


def test_every_draw_is_uniform_and_none_follows_another() -> None:
    draws = uniforms(keys(20_000), N_PLACES)
    assert draws.min() >= 0
    assert draws.max() < 1
    counts = np.stack([np.histogram(d, bins=20, range=(0, 1))[0] for d in draws])
    assert np.abs(counts - 1000).max() < 160  # 5 standard deviations
    off_diagonal = np.corrcoef(draws) - np.eye(N_PLACES)
    assert np.abs(off_diagonal).max() < 0.035
    assert abs(np.corrcoef(draws[0, :-1], draws[0, 1:])[0, 1]) < 0.035


def test_numbers_are_what_they_were_when_old_runs_are_resumed() -> None:
    """Written down by the version before there was shear: what came later must not shift them."""
    found = uniforms(cell_keys(np.array([12345]), seed=7, epoch=3), 13)[:, 0]
    assert found.tolist() == WRITTEN


def test_a_part_of_the_line_is_that_part_of_the_line() -> None:
    whole = uniforms(keys(50), N_PLACES)
    np.testing.assert_array_equal(uniforms(keys(50), 7, first=30), whole[30:37])


@pytest.mark.parametrize("setting", LATER)
def test_a_setting_changes_nothing_but_what_it_is_about(setting: str) -> None:
    before = draw(AugmentConfig(), keys(50))
    after = draw(AugmentConfig.model_validate({setting: LATER[setting]}), keys(50))
    changed = {f.name for f in fields(before) if not _equal(getattr(before, f.name), getattr(after, f.name))}
    assert changed == {CHANGES[setting]}


def _equal(one: Any, other: Any) -> bool:
    return one is other if one is None or other is None else np.array_equal(one, other)


def test_what_is_not_asked_for_is_not_drawn() -> None:
    draws = draw(AugmentConfig(), keys(3))
    assert draws.bend is draws.stain is draws.cover is None


def test_each_kind_reads_its_own_places_of_the_line() -> None:
    """What has a place keeps it: runs go on as they began, and no kind says anything about another."""
    config = only(rotate_deg=180, shear_deg=45, stain=0.3, cutout=0.5, elastic=0.2)
    numbers, draws = uniforms(keys(200), N_PLACES), draw(config, keys(200))
    turn = draw(only(rotate_deg=180), keys(200)).turn
    slant = np.tile(np.eye(2), (200, 1, 1))
    slant[:, 0, 1] = np.tan(np.deg2rad(45 * (2 * numbers[13] - 1)))
    np.testing.assert_allclose(draws.turn, turn @ slant)  # turned first, then slanted along the rows of the result
    np.testing.assert_array_equal(draws.stain, stain_matrices(1 + 0.3 * (2 * numbers[14:17].T - 1)))
    size = 0.15 + 0.35 * numbers[20:22].T
    box = np.concatenate([numbers[18:20].T * (1 - size), size], axis=1)
    np.testing.assert_allclose(draws.cover, np.where(numbers[17] < 0.5, box.T, 0).T)
    np.testing.assert_allclose(draws.bend, 0.2 * (2 * numbers[22:72].T.reshape(200, 2, 5, 5) - 1))
    assert N_PLACES == 72


def test_ranges_are_kept_and_used() -> None:
    config = only(shear_deg=20, stain=0.25, cutout=1, elastic=0.1)
    draws = draw(config, keys(2000))
    assert draws.bend is not None
    assert draws.cover is not None
    slant = np.rad2deg(np.arctan(draws.turn[:, 0, 1]))
    assert 19.8 < slant.max() <= 20
    assert -20 <= slant.min() < -19.8
    assert 0.0999 < draws.bend.max() <= 0.1
    assert -0.1 <= draws.bend.min() < -0.0999
    left_top, size = draws.cover[:, :2], draws.cover[:, 2:]
    assert (left_top >= 0).all()
    assert (left_top + size <= 1 + 1e-12).all()
    assert 0.15 <= size.min() < 0.155
    assert 0.495 < size.max() <= 0.5


@pytest.mark.parametrize("probability", [0.2, 1.0])
def test_as_many_cells_get_a_rectangle_as_asked_for(probability: float) -> None:
    cover = draw(only(cutout=probability), keys(5000)).cover
    assert cover is not None
    assert (cover[:, 2] > 0).mean() == pytest.approx(probability, abs=0.03)
