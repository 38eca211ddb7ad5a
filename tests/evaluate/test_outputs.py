"""Joining and averaging predictions of several networks."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from tests.fake_run import FakeRun

from perikarya.errors import DataError, RunError
from perikarya.evaluate.outputs import Scored, average, load_history, load_result, pool
from perikarya.runs import TaskKey

A = Scored(np.array([4, 2]), np.array([0, 1]), np.array([[0.9, 0.1], [0.4, 0.6]]))
B = Scored(np.array([2, 4]), np.array([1, 0]), np.array([[0.2, 0.8], [0.7, 0.3]]))


def test_networks_are_averaged_cell_by_cell_whatever_their_order() -> None:
    mean = average([A, B])
    assert mean.row_n.tolist() == [2, 4]
    assert mean.label_n.tolist() == [1, 0]
    np.testing.assert_allclose(mean.prob_nk, [[0.3, 0.7], [0.8, 0.2]])


def test_networks_of_different_cells_are_not_averaged() -> None:
    with pytest.raises(DataError, match="different external cells"):
        average([A, A.inside(np.array([False, False, True, False, False]))])


def test_a_cell_tested_twice_is_refused() -> None:
    with pytest.raises(DataError, match="tested in two folds"):
        pool([A, B])


def test_a_missing_history_is_none_and_a_damaged_one_names_the_file(fake: FakeRun) -> None:
    assert load_history(fake.run, TaskKey("nobody", 0, 0)) is None
    history = load_history(fake.run, fake.tasks[0])
    assert isinstance(history, pd.DataFrame)
    path = fake.run.task(fake.tasks[0]) / "history.csv"
    kept = path.read_bytes()
    try:
        path.write_bytes(b"")
        with pytest.raises(RunError, match=r"history\.csv is not a readable table"):
            load_history(fake.run, fake.tasks[0])
    finally:
        path.write_bytes(kept)


def test_a_truncated_result_names_what_it_lacks(fake: FakeRun) -> None:
    path = fake.run.task(fake.tasks[0]) / "result.json"
    kept = path.read_bytes()
    try:
        path.write_text('{"schema_version": 1, "config_hash": "x"}')
        with pytest.raises(RunError, match="lacks data_hash, n_train, n_stop"):
            load_result(fake.run, fake.tasks[0])
    finally:
        path.write_bytes(kept)
