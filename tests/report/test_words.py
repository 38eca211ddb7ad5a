"""Numbers as words."""

from __future__ import annotations

import pytest

from perikarya.report.words import bounds, cell, count, listed, number, p_value, percent, share


@pytest.mark.parametrize(
    ("value", "text"), [(None, "–"), (0.5, "0.500"), (-0.1234, "−0.123"), (-0.0001, "0.000"), (1, "1.000")]
)
def test_a_number_has_a_true_minus_and_no_minus_zero(value: float | None, text: str) -> None:
    assert number(value) == text


def test_an_interval_that_begins_below_zero_says_to() -> None:
    assert bounds([0.1, 0.2]) == "0.100–0.200"
    assert bounds([-0.1, 0.2]) == "−0.100 to 0.200"
    assert bounds(None) == ""
    assert bounds([0.1, None]) == ""  # type: ignore[list-item]  # as JSON may hold it


def test_a_p_value_is_never_zero() -> None:
    assert [p_value(p) for p in (None, 0.0, 0.0009, 0.0123, 0.5)] == ["–", "< 0.001", "< 0.001", "0.012", "0.5"]


def test_scores_and_effects_become_cells_alike() -> None:
    assert cell({"mean": 0.5, "ci95": [0.4, 0.6]}) == cell({"estimate": 0.5, "ci95": [0.4, 0.6]})
    assert (cell({"mean": 0.5, "ci95": None}).text, cell({"mean": 0.5, "ci95": None}).note) == ("0.500", "no interval")
    assert cell({"estimate": None, "ci95": None}).text == "–"
    assert (share({"mean": 0.876, "ci95": [0.5, 1.0]}).text, share({"mean": 0.876, "ci95": [0.5, 1.0]}).note) == (
        "88 %",
        "50 to 100 %",
    )


def test_counts_and_lists_read_as_prose() -> None:
    assert (count(1, "cell"), count(12345, "cell"), count(None, "animal")) == (
        "1 cell",
        "12\u202f345 cells",
        "unknown animals",
    )
    assert [listed(x) for x in ([], ["a"], ["a", "b"], ["a", "b", "c"])] == ["", "a", "a and b", "a, b and c"]
    assert percent(None) == "–"
