"""Losses for hard and soft labels, each a weighted sum over cells and classes of -log p.

A label is a row of class shares that sums to 1: one class for an ordinary cell, two for a blended one. The sum of a
batch and its weight are kept apart, so that the parts of a batch that do not fit into memory at once add up to the
whole.
"""

from __future__ import annotations

from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from perikarya.config import TrainConfig

_EPSILON = 1e-8


class CellLoss:
    """The loss of one training, as its settings name it.

    - ``cross-entropy``: -log p of the label. For hard labels, with or without weights and smoothing, the figure of
      ``torch.nn.CrossEntropyLoss``.
    - ``focal``: (1 - p)^gamma times that, which favours cells that are still wrong (Lin et al. 2017, over classes).
    - ``ordinal``: cross-entropy of a network whose output is the log-probability of the CORN model. The
      log-likelihood of its continuation ratios sums to log p of the class, so per batch this is the loss of Shi, Cao
      & Raschka (2023) but for its divisor: cells here, comparisons there.

    Parameters
    ----------
    train
        ``loss``, ``focal_gamma`` and ``label_smoothing``.
    weight_k
        Shape (n_classes,), float32; how much each class counts.
    device
        Where logits will be.
    """

    def __init__(self, train: TrainConfig, *, weight_k: NDArray[Any], device: torch.device) -> None:
        self._weight_k = torch.as_tensor(weight_k, dtype=torch.float32, device=device)
        self._gamma = train.focal_gamma if train.loss == "focal" else 0.0
        self._smoothing = train.label_smoothing

    def total(self, logit_nk: Tensor, y_nk: Tensor) -> Tensor:
        """Return the sum over cells, a scalar with gradient.

        Parameters
        ----------
        logit_nk
            Output of the network, shape (n, n_classes), float32; log-probabilities pass unchanged.
        y_nk
            Shares of the classes, same shape, rows sum to 1.
        """
        log_p_nk = torch.log_softmax(logit_nk, dim=1)
        if self._smoothing:
            y_nk = (1 - self._smoothing) * y_nk + self._smoothing / y_nk.shape[1]
        if self._gamma:
            # at p = 1 a power below 1 has no finite gradient; there the loss has none to give
            y_nk = y_nk * (-torch.expm1(log_p_nk)).clamp(min=_EPSILON) ** self._gamma
        return -(y_nk * self._weight_k * log_p_nk).sum()

    def weight(self, y_nk: Tensor) -> Tensor:
        """Return what the sum of a batch is divided by: the weights of its labels, before any smoothing."""
        return (y_nk * self._weight_k).sum()
