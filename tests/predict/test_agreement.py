"""Two networks are compared cell by cell, and what is not the same is refused."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from perikarya.errors import RunError
from perikarya.predict.agreement import Compared, compare, random_cells, refuse_difference, summarise


class Says:
    """A backend that says of each cell what its first pixel tells, plus something of its own."""

    name = "torch"
    parallel = False

    def __init__(self, *, plus: float = 0.0, wrong_at: int | None = None) -> None:
        self.plus, self.wrong_at = plus, wrong_at
        self.sizes: list[int] = []

    def run(self, crops_nhwc: NDArray[np.uint8]) -> tuple[NDArray[np.float32], None]:
        self.sizes.append(len(crops_nhwc))
        first = crops_nhwc[:, 0, 0, 0].astype(np.float32)
        logits = np.stack([first / 100 - 1, 1 - first / 100 + self.plus], axis=1)
        if self.wrong_at is not None:
            logits[first == self.wrong_at] *= -1
        return logits, None


def cells(n: int) -> NDArray[np.uint8]:
    crops = np.zeros((n, 2, 2, 4), np.uint8)
    crops[:, 0, 0, 0] = np.arange(n)
    return crops


def test_the_same_network_agrees_with_itself_in_batches_of_several_sizes() -> None:
    one = Says()
    assert compare(one, Says(), cells(70)) == Compared(70, 0.0, 1.0)
    assert sum(one.sizes) == 70
    assert one.sizes[0] == 1
    assert len(set(one.sizes)) > 2


def test_a_single_cell_is_enough() -> None:
    assert compare(Says(), Says(), cells(1)).cells == 1


def test_the_largest_difference_is_of_probabilities_of_one_cell() -> None:
    found = compare(Says(), Says(wrong_at=7), cells(50))
    low, high = 1 / (1 + np.exp(2 * (1 - 0.07))), 1 / (1 + np.exp(-2 * (1 - 0.07)))
    assert found.max_abs_diff == pytest.approx(high - low)
    assert found.same_class == pytest.approx(49 / 50)
    small = compare(Says(), Says(plus=1e-3), cells(50)).max_abs_diff
    assert 1e-4 < small < 1e-3


def test_an_answer_that_is_no_number_agrees_with_nothing() -> None:
    found = compare(Says(), Says(plus=np.nan), cells(3))
    assert found.max_abs_diff == np.inf
    with pytest.raises(RunError):
        refuse_difference(found, network="cnn", kind="onnx")


def test_a_difference_above_one_in_ten_thousand_is_refused() -> None:
    refuse_difference(Compared(9, 1e-4, 1.0), network="cnn", kind="onnx")
    with pytest.raises(RunError, match=r"As onnx, cnn gives other probabilities than in torch, by up to 0\.00011"):
        refuse_difference(Compared(9, 1.1e-4, 1.0), network="cnn", kind="onnx")


def test_a_model_is_as_good_as_its_worst_network() -> None:
    found = summarise([Compared(9, 1e-5, 1.0), Compared(5, 3e-5, 0.9)], of="held-out cells")
    assert (found.cells, found.max_abs_diff, found.same_class) == (14, 3e-5, 0.9)


def test_random_cells_are_whole_crops_that_differ() -> None:
    crops = random_cells(input_px=24)
    assert crops.shape[1:] == (24, 24, 4)
    assert crops.dtype == np.uint8
    assert set(np.unique(crops[..., 3])) == {0, 255}
    assert len(np.unique(crops.reshape(len(crops), -1), axis=0)) == len(crops)
    np.testing.assert_array_equal(crops, random_cells(input_px=24))
