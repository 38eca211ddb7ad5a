"""The average of the weights follows them by the formula and takes their place only while it is asked for."""

from __future__ import annotations

import pytest
import torch

from perikarya.train.ema import WeightAverage


def average_of(values: list[float], decay: float) -> tuple[dict[str, torch.Tensor], WeightAverage]:
    live = {"weight": torch.tensor([values[0]]), "count": torch.tensor(0)}
    average = WeightAverage(live, decay=decay)
    for i, value in enumerate(values[1:]):
        live["weight"].fill_(value)
        live["count"].fill_(i + 1)
        average.update()
    return live, average


def test_it_is_that_of_a_hand_calculation_with_its_slow_start() -> None:
    live, average = average_of([0.0, 1.0, 1.0, 1.0], decay=0.15)
    expected = 0.0
    for kept in (1 / 10, 0.15, 0.15):
        expected = kept * expected + (1 - kept) * 1.0
    with average.in_place_of_weights():
        assert live["weight"].item() == pytest.approx(expected)
        assert live["count"].item() == 3, "counters are copied"


def test_the_weights_come_back_after_an_error() -> None:
    live, average = average_of([0.0, 1.0, 5.0], decay=0.9)

    def judge() -> None:
        with average.in_place_of_weights():
            assert live["weight"].item() != 5.0
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        judge()
    assert live["weight"].item() == 5.0


def test_it_goes_on_from_a_state() -> None:
    _, whole = average_of([0.0, 1.0, 2.0, 4.0], decay=0.5)
    _, first = average_of([0.0, 1.0, 2.0], decay=0.5)
    live = {"weight": torch.tensor([2.0]), "count": torch.tensor(2)}
    resumed = WeightAverage(live, decay=0.5)
    resumed.restore(first.state())
    live["weight"].fill_(4.0)
    resumed.update()
    assert resumed.state()["average"]["weight"] == whole.state()["average"]["weight"]
    assert resumed.state()["n_steps"] == whole.state()["n_steps"] == 3
