"""The learning rate rises and falls once per phase."""

from __future__ import annotations

import numpy as np
import pytest

from perikarya.config import TrainConfig
from perikarya.errors import ConfigError
from perikarya.train.optim import Phase, learning_rate_factor, phases_of


def test_the_learning_rate_rises_then_falls_to_nothing() -> None:
    factors = [learning_rate_factor(s, n_steps=100, warmup=0.25) for s in range(100)]
    assert int(np.argmax(factors)) in (24, 25)
    assert max(factors) == 1.0
    assert factors[0] < 0.05
    assert factors[-1] < 0.01
    assert learning_rate_factor(0, n_steps=10, warmup=0) == 1.0


def test_a_training_has_one_phase_and_head_then_finetune_two() -> None:
    train = TrainConfig(epochs=10, head_epochs=3)
    assert phases_of(train, "finetune") == phases_of(train, "lora") == (Phase(0, 10),)
    first, second = phases_of(train, "head-then-finetune")
    assert (first.start, first.end, first.classifier_only) == (0, 3, True)
    assert (second.start, second.end, second.classifier_only) == (3, 10, False)
    assert first.rate > second.rate == 1


def test_a_second_phase_without_epochs_is_refused() -> None:
    with pytest.raises(ConfigError, match="head_epochs is 3 of 3"):
        phases_of(TrainConfig(epochs=3, head_epochs=3), "head-then-finetune")
