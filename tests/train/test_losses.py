"""Losses equal those of torch and of the papers for hard labels, and go on smoothly to blended ones."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from perikarya.config import TrainConfig
from perikarya.train.losses import CellLoss

N, K = 12, 4


def logits_and_labels(seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return 2 * torch.randn(N, K, generator=generator), torch.randint(0, K, (N,), generator=generator)


def loss_of(weight_k: list[float] | None = None, **settings: object) -> CellLoss:
    weights = np.ones(K) if weight_k is None else np.array(weight_k)
    return CellLoss(TrainConfig.model_validate(settings), weight_k=weights, device=torch.device("cpu"))


def mean(loss: CellLoss, logit_nk: Tensor, y_nk: Tensor) -> Tensor:
    return loss.total(logit_nk, y_nk) / loss.weight(y_nk)


def hard(y_n: Tensor) -> Tensor:
    return F.one_hot(y_n, K).float()


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weight_k", [None, [0.5, 1.0, 2.0, 4.0]])
def test_cross_entropy_of_hard_labels_is_that_of_torch(smoothing: float, weight_k: list[float] | None) -> None:
    logit_nk, y_n = logits_and_labels()
    weights = None if weight_k is None else torch.tensor(weight_k)
    peer = torch.nn.CrossEntropyLoss(weight=weights, label_smoothing=smoothing)
    found = mean(loss_of(weight_k, label_smoothing=smoothing), logit_nk, hard(y_n))
    torch.testing.assert_close(found, peer(logit_nk, y_n))


def test_cross_entropy_of_blended_labels_is_that_of_torch() -> None:
    logit_nk, y_n = logits_and_labels()
    y_nk = 0.7 * hard(y_n) + 0.3 * hard(y_n.flip(0))
    found = mean(loss_of(label_smoothing=0.05), logit_nk, y_nk)
    torch.testing.assert_close(found, torch.nn.CrossEntropyLoss(label_smoothing=0.05)(logit_nk, y_nk))


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0])
def test_focal_loss_is_the_formula_of_its_paper(gamma: float) -> None:
    logit_nk, y_n = logits_and_labels()
    weight_k = [0.25, 0.5, 1.0, 2.0]
    total = 0.0
    for row, label in zip(torch.softmax(logit_nk, dim=1).tolist(), y_n.tolist(), strict=True):
        total += -weight_k[label] * (1 - row[label]) ** gamma * np.log(row[label])
    found = loss_of(weight_k, loss="focal", focal_gamma=gamma).total(logit_nk, hard(y_n))
    assert found.item() == pytest.approx(total, rel=1e-5)


def test_focal_loss_without_focus_is_cross_entropy() -> None:
    logit_nk, y_n = logits_and_labels()
    focal, plain = loss_of(loss="focal", focal_gamma=0.0), loss_of()
    torch.testing.assert_close(mean(focal, logit_nk, hard(y_n)), mean(plain, logit_nk, hard(y_n)))


def test_focal_loss_of_a_blend_lies_between_those_of_its_labels() -> None:
    logit_nk, y_n = logits_and_labels()
    loss = loss_of(loss="focal")
    ends = [loss.total(logit_nk, hard(y)) for y in (y_n, y_n.flip(0))]
    torch.testing.assert_close(
        loss.total(logit_nk, 0.3 * hard(y_n) + 0.7 * hard(y_n.flip(0))), 0.3 * ends[0] + 0.7 * ends[1]
    )


@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_focal_loss_of_a_certain_cell_has_a_finite_gradient(gamma: float) -> None:
    logit_nk = torch.tensor([[200.0, -200.0, 0.0, 0.0]], requires_grad=True)
    loss_of(loss="focal", focal_gamma=gamma).total(logit_nk, hard(torch.tensor([0]))).backward()
    assert torch.isfinite(logit_nk.grad).all()


def corn_log_probabilities(ratio_nj: Tensor) -> Tensor:
    """Log-probability of each class from the logits of p(y > j | y >= j), written out class by class."""
    columns = []
    for k in range(K):
        passed = sum((F.logsigmoid(ratio_nj[:, j]) for j in range(k)), torch.zeros(len(ratio_nj)))
        columns.append(passed + (F.logsigmoid(-ratio_nj[:, k]) if k < K - 1 else 0))
    return torch.stack(columns, dim=1)


def corn_loss_of_the_paper(ratio_nj: Tensor, y_n: Tensor) -> tuple[Tensor, int]:
    """The loss of Shi, Cao & Raschka (2023) before its division, and what it divides by."""
    total, n_comparisons = torch.tensor(0.0), 0
    for j in range(K - 1):
        reached = y_n >= j
        further = y_n[reached] > j
        z = ratio_nj[reached, j]
        total = total - torch.where(further, F.logsigmoid(z), F.logsigmoid(z) - z).sum()
        n_comparisons += int(reached.sum())
    return total, n_comparisons


def test_the_ordinal_loss_is_that_of_corn_but_for_the_divisor() -> None:
    logit_nk, y_n = logits_and_labels()
    ratio_nj = logit_nk[:, : K - 1]
    expected, n_comparisons = corn_loss_of_the_paper(ratio_nj, y_n)
    found = mean(loss_of(loss="ordinal"), corn_log_probabilities(ratio_nj), hard(y_n))
    assert n_comparisons > N
    torch.testing.assert_close(found * N, expected)


def test_parts_of_a_batch_add_up_to_the_whole() -> None:
    logit_nk, y_n = logits_and_labels()
    loss = loss_of([0.5, 1.0, 2.0, 4.0], label_smoothing=0.1)
    y_nk = hard(y_n)
    whole = loss.weight(y_nk)
    parts = sum(loss.total(logit_nk[i : i + 5], y_nk[i : i + 5]) / whole for i in range(0, N, 5))
    torch.testing.assert_close(parts, mean(loss, logit_nk, y_nk))
