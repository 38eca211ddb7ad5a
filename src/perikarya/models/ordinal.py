"""Ordered classes: continuation ratios instead of one logit per class."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid


def continuation_log_probs(logit_nk: Tensor) -> Tensor:
    """Turn continuation ratios into log-probabilities of the classes.

    Logit j says how likely a cell that is at least of class j is beyond it (the model of CORN: Shi, Cao & Raschka
    2023, "Deep neural networks for rank-consistent ordinal regression based on conditional probabilities"):
    log P(y = k) = sum over j < k of log sigmoid(l_j) + log(1 - sigmoid(l_k)); for the last class the sum alone.
    Cross-entropy on the result is the likelihood of that model, and its softmax are the probabilities.

    Parameters
    ----------
    logit_nk
        Shape (n, n_classes - 1).

    Returns
    -------
    Shape (n, n_classes); the exponentials of a row sum to 1.
    """
    zero_n1 = torch.zeros_like(logit_nk[:, :1])
    reached_nk = torch.cat([zero_n1, logsigmoid(logit_nk).cumsum(dim=1)], dim=1)
    stayed_nk = torch.cat([logsigmoid(-logit_nk), zero_n1], dim=1)
    return reached_nk + stayed_nk
