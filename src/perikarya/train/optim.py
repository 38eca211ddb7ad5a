"""How a network learns: phases of a training, its optimizer, and the course of the learning rate."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass
from fnmatch import fnmatch
from typing import Any

import torch
from torch import nn

from perikarya.config import TrainConfig
from perikarya.errors import ConfigError
from perikarya.train.parts import Strategy, TrainedParts

DEFAULT_LR = 1e-3  # where neither the configuration nor the zoo names a learning rate
# a linear classifier on features that stay as they are bears larger steps than the network below it
_CLASSIFIER_RATE = 10.0


@dataclass(frozen=True)
class Phase:
    """Epochs in which the same parts train; the learning rate rises and falls once in each phase.

    ``end`` is the first epoch after it; ``rate`` multiplies the learning rate.
    """

    start: int
    end: int
    classifier_only: bool = False
    rate: float = 1.0


def phases_of(train: TrainConfig, strategy: Strategy) -> tuple[Phase, ...]:
    """Divide a training into phases.

    ``head-then-finetune`` first fits the classifier to features that stay as they are, at ten times the learning
    rate, so that the first gradients of a random classifier do not spoil them (Kumar et al. 2022).

    Raises
    ------
    ConfigError
        If the first phase leaves no epoch to the second.
    """
    if strategy != "head-then-finetune":
        return (Phase(0, train.epochs),)
    if train.head_epochs >= train.epochs:
        raise ConfigError(
            f"train.head_epochs is {train.head_epochs} of {train.epochs} epochs, so that 'head-then-finetune' would "
            "never finetune.\nFix: more train.epochs, fewer train.head_epochs, or 'strategy: head'."
        )
    first = Phase(0, train.head_epochs, classifier_only=True, rate=_CLASSIFIER_RATE)
    return first, Phase(train.head_epochs, train.epochs)


def peak_rate(train: TrainConfig) -> float:
    """Return the largest learning rate of what is new in a network."""
    return DEFAULT_LR if train.lr is None else train.lr


def make_optimizer(parts: TrainedParts, train: TrainConfig, *, rate: float) -> torch.optim.Optimizer:
    """Return the optimizer of what trains now.

    Weight decay spares biases and normalisation, as is usual since Loshchilov & Hutter (2019), and what the network
    itself names (position embeddings). Steps are fused where torch can.
    """
    lr = peak_rate(train) * rate
    groups = parameter_groups(parts, lr=lr, weight_decay=train.weight_decay)
    fused = {p.device.type for group in groups for p in group["params"]} <= {"cpu", "cuda"}
    if train.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=lr, momentum=0.9, nesterov=True, fused=fused)
    if train.optimizer == "adam":
        return torch.optim.Adam(groups, lr=lr, fused=fused)
    return torch.optim.AdamW(groups, lr=lr, fused=fused)


def parameter_groups(parts: TrainedParts, *, lr: float, weight_decay: float) -> list[dict[str, Any]]:
    """Group what trains by its learning rate and weight decay."""
    spared = _spared(parts.network)
    grouped: dict[tuple[float, float], list[nn.Parameter]] = defaultdict(list)
    for name, parameter in parts.network.named_parameters():
        if parameter.requires_grad:
            is_spared = parameter.ndim <= 1 or any(fnmatch(name, pattern) for pattern in spared)
            grouped[lr * parts.rate_of(name), 0.0 if is_spared else weight_decay].append(parameter)
    return [{"params": p, "lr": rate, "weight_decay": decay} for (rate, decay), p in grouped.items()]


def _spared(network: nn.Module) -> set[str]:
    """Return the parameters, or patterns of them, that timm's networks name as not to be decayed."""
    found = set()
    for prefix, module in network.named_modules():
        names: Any = getattr(module, "no_weight_decay", None)
        if callable(names):
            found |= {f"{prefix}.{name}" for name in names()}
    return found


def learning_rate_factor(step: int, *, n_steps: int, warmup: float) -> float:
    """Return the share of the peak learning rate at a step: a linear rise, then a half cosine down to 0."""
    n_rise = max(1, round(warmup * n_steps)) if warmup > 0 else 0
    if step < n_rise:
        return (step + 1) / n_rise
    return 0.5 * (1 + math.cos(math.pi * (step - n_rise) / max(1, n_steps - n_rise)))
