from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from perikarya.review.columns import CategoryColumn, NumberColumn, coded, no_yes, order_rows
from perikarya.review.schemas import CategoryFilter, NumberFilter

ALL = np.arange(5)


def numbers(*values: float) -> NumberColumn:
    return NumberColumn("x", "x", np.array(values, np.float32))


def test_names_are_put_in_the_order_people_count() -> None:
    values, codes = coded(pd.Series(["animal10", "animal2", None, "", "Animal1"], dtype="string"))
    assert values == ("Animal1", "animal2", "animal10")
    assert codes.tolist() == [2, 1, -1, -1, 0]


@pytest.mark.parametrize("name", ["²", "٣", "1" * 400, "0", "00", "-1"])
def test_any_name_has_its_place(name: str) -> None:
    values, codes = coded(pd.Series([name, "a", name], dtype="string"))
    assert values[codes[0]] == name
    assert codes[0] == codes[2] != codes[1]


def test_a_table_without_any_name_has_no_values() -> None:
    values, codes = coded(pd.Series([None, None], dtype="string"))
    assert values == ()
    assert codes.tolist() == [-1, -1]


def test_a_category_without_values_matches_none_only() -> None:
    column = CategoryColumn("x", "x", (), np.array([-1, -1], np.int32))
    assert column.matches(CategoryFilter(column="x", values=[""])).tolist() == [True, True]
    assert column.matches(CategoryFilter(column="x", values=["a"])).tolist() == [False, False]


def test_bounds_are_included_and_unknown_numbers_are_kept_only_without_bounds() -> None:
    column = numbers(1, 2, 3, float("nan"))
    assert column.matches(NumberFilter(column="x", min=2, max=3)).tolist() == [False, True, True, False]
    assert column.matches(NumberFilter(column="x", min=None, max=None)).tolist() == [True] * 4
    assert column.matches(NumberFilter(column="x", min=None, max=1e300)).tolist() == [True, True, True, False]


def test_a_bound_written_with_more_digits_than_the_column_keeps_still_includes_its_cell() -> None:
    assert numbers(0.9).matches(NumberFilter(column="x", min=0.9, max=0.9)).tolist() == [True]


def test_unknown_numbers_come_last_whichever_way_one_sorts() -> None:
    column = numbers(2, float("nan"), 3, 1, float("nan"))
    assert order_rows(ALL, [(column, False)]).tolist() == [3, 0, 2, 1, 4]
    assert order_rows(ALL, [(column, True)]).tolist() == [2, 0, 3, 1, 4]


def test_only_some_rows_are_sorted_and_without_a_key_they_stay() -> None:
    column = numbers(5, 4, 3, 2, 1)
    assert order_rows(np.array([0, 2, 4]), [(column, False)]).tolist() == [4, 2, 0]
    assert order_rows(np.array([4, 0]), []).tolist() == [4, 0]


def test_a_column_of_no_and_yes_says_none_where_it_is_not_known() -> None:
    column = no_yes("x", "x", np.array([True, False, True]), known=np.array([True, True, False]))
    assert [(*column.values, None)[code] for code in column.codes] == ["yes", "no", None]


def test_the_range_leaves_out_unknown_numbers() -> None:
    assert numbers(float("nan"), 2, 1).describe()["range"] == [1.0, 2.0]
    assert numbers(float("nan")).describe()["range"] is None
