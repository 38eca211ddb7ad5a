"""An exponential moving average of a network's weights: what is judged and kept, while the network itself trains on.

Averaging over the last steps does what a falling learning rate does, at any moment of a training (Morales-Brotons,
Vogels & Hendrikx 2024).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor


class WeightAverage:
    """The average of the tensors that a training changes.

    Parameters
    ----------
    live
        By name, the network's own tensors, not copies: parameters and the running statistics of its normalisation.
        All are averaged alike, for statistics belong to the weights they were gathered under; counters are copied.
    decay
        Share of itself that the average keeps per step. In step t it is at most (1 + t) / (10 + t), as in TensorFlow,
        or the weights that a training began with would stay in a short one to its end.
    """

    def __init__(self, live: dict[str, Tensor], *, decay: float) -> None:
        self._live = live
        self._decay = decay
        self._n_steps = 0
        self._average = {name: t.detach().clone() for name, t in live.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Take in the weights after a step of the optimizer."""
        kept = min(self._decay, (1 + self._n_steps) / (10 + self._n_steps))
        self._n_steps += 1
        for name, live in self._live.items():
            if live.is_floating_point():
                self._average[name].lerp_(live, 1 - kept)
            else:
                self._average[name].copy_(live)

    @contextmanager
    def in_place_of_weights(self) -> Iterator[None]:
        """Put the average into the network for the time of the block."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for name, live in self._live.items():
            before = live.clone()
            live.copy_(self._average[name])
            self._average[name].copy_(before)

    def state(self) -> dict[str, Any]:
        """Return what ``restore`` takes."""
        return {"n_steps": self._n_steps, "average": self._average}

    def restore(self, saved: dict[str, Any]) -> None:
        """Go on from a state."""
        self._n_steps = saved["n_steps"]
        for name, average in self._average.items():
            average.copy_(saved["average"][name])
