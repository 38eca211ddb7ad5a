"""Severity: equal steps from the first class to the last."""

from __future__ import annotations

import numpy as np
import pytest

from perikarya.errors import DataError
from perikarya.evaluate.quantify.severity import severity_of, severity_weights


@pytest.mark.parametrize(("n_classes", "weights"), [(2, [0, 1]), (3, [0, 0.5, 1]), (5, [0, 0.25, 0.5, 0.75, 1])])
def test_classes_are_equal_steps_apart(n_classes: int, weights: list[float]) -> None:
    np.testing.assert_allclose(severity_weights(n_classes), weights)


def test_severity_is_the_mean_rank_of_the_cells() -> None:
    label = np.array([0, 0, 1, 2, 2, 2, 1, 0])
    fractions = np.bincount(label, minlength=3) / 8
    assert severity_of(fractions) == pytest.approx(label.mean() / 2)


def test_many_mixes_are_weighed_at_once() -> None:
    mixes = np.array([[[1.0, 0, 0], [0, 0, 1.0]], [[0, 1.0, 0], [0.2, 0.2, 0.6]]])
    np.testing.assert_allclose(severity_of(mixes), [[0, 1], [0.5, 0.7]])


def test_a_single_class_has_no_severity() -> None:
    with pytest.raises(DataError, match="two ordered classes at least; there is 1"):
        severity_weights(1)
