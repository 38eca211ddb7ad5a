"""Rules of resampling: training rows only, balanced classes, the same choice for the same seed."""

from __future__ import annotations

from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perikarya.config import ResampleConfig
from perikarya.data.resampling import RESAMPLERS, resample_rows
from perikarya.errors import DataError, UnknownNameError

METHODS = RESAMPLERS.names()
LABELS = np.array([0] * 60 + [1] * 30 + [2] * 7 + [-1] * 3)


def config(method: Any) -> ResampleConfig:
    return ResampleConfig(method=method)


def test_the_configuration_and_the_registry_name_the_same_methods() -> None:
    assert sorted(get_args(ResampleConfig.model_fields["method"].annotation)) == sorted(METHODS)


@pytest.mark.parametrize("method", METHODS)
@settings(max_examples=30, deadline=None)
@given(rows=st.lists(st.integers(0, 96), min_size=1, max_size=97, unique=True), seed=st.integers(0, 2**32 - 1))
def test_only_training_rows_are_shown_whatever_their_order(method: str, rows: list[int], seed: int) -> None:
    shown = resample_rows(LABELS, np.array(rows), config=config(method), seed=seed)
    assert set(shown.tolist()) <= set(rows)
    again = resample_rows(LABELS, np.array(rows[::-1]), config=config(method), seed=seed)
    np.testing.assert_array_equal(shown, again)
    assert set(LABELS[shown]) == set(LABELS[rows])  # no class vanishes


def test_none_shows_every_row_once() -> None:
    rows = np.array([5, 3, 61, 90])
    assert resample_rows(LABELS, rows, config=config("none"), seed=0).tolist() == [3, 5, 61, 90]


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


@pytest.mark.parametrize(("rows", "message"), [([], "no training cell"), ([0, 98], "row 98")])
def test_rows_that_cannot_be_balanced_are_refused(rows: list[int], message: str) -> None:
    with pytest.raises(DataError, match=message):
        resample_rows(LABELS, np.array(rows, dtype=np.int64), config=config("oversample"), seed=0)


def test_an_unknown_method_names_the_known_ones() -> None:
    with pytest.raises(UnknownNameError, match="oversample"):
        RESAMPLERS.get("oversampel")
