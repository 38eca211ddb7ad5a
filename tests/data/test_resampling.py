"""Rules of resampling: training rows only, balanced classes, the same choice for the same seed."""

from __future__ import annotations

from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perikarya.config import ResampleConfig
from perikarya.data.resampling import RESAMPLERS, epoch_rows, resample_rows
from perikarya.errors import DataError, UnknownNameError
from perikarya.settings import SMOTE_FAMILY

METHODS = RESAMPLERS.names()
LABELS = np.array([0] * 60 + [1] * 30 + [2] * 7 + [-1] * 3)


def config(method: Any) -> ResampleConfig:
    return ResampleConfig(method=method)


def test_the_configuration_and_the_registry_name_the_same_methods() -> None:
    assert sorted(get_args(ResampleConfig.model_fields["method"].annotation)) == sorted(METHODS)
    assert {name for name, entry in RESAMPLERS.items() if entry.recipe} == set(SMOTE_FAMILY)


def test_a_method_does_one_thing_at_most() -> None:
    for name, entry in RESAMPLERS.items():
        assert sum(part is not None for part in (entry.once, entry.each_epoch, entry.recipe)) == (name != "none")


@pytest.mark.parametrize("method", METHODS)
@settings(max_examples=30, deadline=None)
@given(rows=st.lists(st.integers(0, 96), min_size=1, max_size=97, unique=True), seed=st.integers(0, 2**32 - 1))
def test_only_training_rows_are_shown_whatever_their_order(method: str, rows: list[int], seed: int) -> None:
    shown = resample_rows(LABELS, np.array(rows), config=config(method), seed=seed)
    assert set(shown.tolist()) <= set(rows)
    assert shown.tolist() == sorted(shown.tolist())
    again = resample_rows(LABELS, np.array(rows[::-1]), config=config(method), seed=seed)
    np.testing.assert_array_equal(shown, again)
    assert set(LABELS[shown]) == set(LABELS[rows])  # no class vanishes


@pytest.mark.parametrize("method", ["none", "weighted", *SMOTE_FAMILY])
def test_methods_that_do_not_choose_once_leave_every_row(method: str) -> None:
    rows = np.array([5, 3, 61, 90])
    assert resample_rows(LABELS, rows, config=config(method), seed=0).tolist() == [3, 5, 61, 90]


def test_undersampling_makes_every_class_as_small_as_the_rarest_without_repetition() -> None:
    shown = resample_rows(LABELS, np.arange(97), config=config("undersample"), seed=0)
    assert np.bincount(LABELS[shown]).tolist() == [7, 7, 7]
    assert len(np.unique(shown)) == len(shown)


@pytest.mark.parametrize("seed", range(5))
def test_oversampling_makes_every_class_as_large_as_the_commonest_and_loses_no_cell(seed: int) -> None:
    shown = resample_rows(LABELS, np.arange(97), config=config("oversample"), seed=seed)
    assert np.bincount(LABELS[shown]).tolist() == [60, 60, 60]
    times = np.bincount(shown, minlength=97)[:97]
    assert (times >= 1).all()
    for c in range(3):
        assert np.ptp(times[LABELS[:97] == c]) <= 1


def test_a_class_that_does_not_occur_is_not_asked_for() -> None:
    shown = resample_rows(LABELS, np.array([0, 1, 2, 95, 96]), config=config("oversample"), seed=0)
    assert np.bincount(LABELS[shown], minlength=3).tolist() == [3, 0, 3]


@pytest.mark.parametrize("method", ["undersample", "oversample"])
def test_another_seed_makes_another_choice(method: str) -> None:
    first, second = (resample_rows(LABELS, np.arange(97), config=config(method), seed=s) for s in (0, 1))
    assert first.tolist() != second.tolist()


@pytest.mark.parametrize("method", sorted(set(METHODS) - {"weighted"}))
def test_rows_chosen_before_training_stay_the_same_in_every_epoch(method: str) -> None:
    rows = np.array([7, 2, 2, 61])
    assert epoch_rows(LABELS, rows, config=config(method), seed=0, epoch=3) is rows


def drawn(rows: Any, *, seed: int = 0, epoch: int = 0) -> np.ndarray:
    return epoch_rows(LABELS, np.asarray(rows), config=config("weighted"), seed=seed, epoch=epoch)


def test_a_weighted_draw_is_as_long_as_the_training_and_repeats_its_rows_only() -> None:
    rows = np.arange(0, 97, 2)
    shown = drawn(rows)
    assert len(shown) == len(rows)
    assert set(shown.tolist()) < set(rows.tolist())
    assert len(set(shown.tolist())) < len(shown)


def test_weighted_draws_every_class_alike_and_every_cell_of_a_class_alike() -> None:
    shown = np.concatenate([drawn(np.arange(97), epoch=epoch) for epoch in range(600)])
    by_class = np.bincount(LABELS[shown]) / len(shown)
    np.testing.assert_allclose(by_class, 1 / 3, atol=0.01)  # 58,200 draws: 5 standard errors
    times = np.bincount(shown, minlength=97)[:97]
    for c in range(3):
        of_class = times[LABELS[:97] == c]
        assert np.ptp(of_class) < 8 * np.sqrt(of_class.mean())


def test_a_class_without_training_cells_is_never_drawn() -> None:
    assert set(LABELS[drawn([0, 1, 2, 95, 96] * 20)].tolist()) == {0, 2}


def test_weighted_draws_anew_for_every_epoch_and_seed_and_alike_for_the_same() -> None:
    rows = np.arange(97)
    first = drawn(rows, seed=1, epoch=2)
    np.testing.assert_array_equal(first, drawn(rows[::-1], seed=1, epoch=2))
    for other in (drawn(rows, seed=1, epoch=3), drawn(rows, seed=2, epoch=2), drawn(rows, seed=-1, epoch=2)):
        assert first.tolist() != other.tolist()


@pytest.mark.parametrize(("rows", "message"), [([], "no training cell"), ([0, 98], "row 98")])
def test_rows_that_cannot_be_balanced_are_refused(rows: list[int], message: str) -> None:
    for method in METHODS:
        with pytest.raises(DataError, match=message):
            resample_rows(LABELS, np.array(rows, dtype=np.int64), config=config(method), seed=0)
    with pytest.raises(DataError, match=message):
        drawn(np.array(rows, dtype=np.int64))


def test_an_unknown_method_names_the_known_ones() -> None:
    with pytest.raises(UnknownNameError, match="oversample"):
        RESAMPLERS.get("oversampel")
