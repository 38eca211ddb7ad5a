"""Refuse before any work what a network cannot do: settings of training that contradict each other or its kind."""

from __future__ import annotations

import torch

from perikarya.config import TrainConfig
from perikarya.models.build import build_network
from perikarya.train.optim import phases_of
from perikarya.train.parts import Strategy, TrainedParts


def check_trainable(arch: str, *, train: TrainConfig, strategy: Strategy) -> None:
    """Prepare a network for its training without memory for its weights, which takes a second at most.

    Raises
    ------
    ConfigError
        If there is no attention for LoRA, or peft is missing; if there are fewer blocks than ``last_blocks``, or
        activations cannot be computed twice; if 'head-then-finetune' leaves no epoch to finetune.
    """
    phases_of(train, strategy)
    with torch.device("meta"):
        network = build_network(arch, n_classes=2)
    TrainedParts(network, train=train, strategy=strategy)
