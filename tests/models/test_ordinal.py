"""Continuation ratios are probabilities of ordered classes."""

from __future__ import annotations

import numpy as np
import torch

from perikarya.models.ordinal import continuation_log_probs


def test_probabilities_are_products_of_conditional_ones() -> None:
    logits = torch.tensor([[0.3, -1.2, 2.0]], dtype=torch.float64)
    beyond = 1 / (1 + np.exp(-logits[0].numpy()))
    expected = [1 - beyond[0], beyond[0] * (1 - beyond[1]), beyond[0] * beyond[1] * (1 - beyond[2]), beyond.prod()]
    found = continuation_log_probs(logits)
    np.testing.assert_allclose(found.exp()[0], expected, rtol=1e-12)
    np.testing.assert_allclose(torch.softmax(found, dim=1)[0], expected, rtol=1e-12)


def test_cross_entropy_is_the_likelihood_of_the_conditional_decisions() -> None:
    logits = torch.randn(6, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 1, 2, 3, 3, 0])
    by_decision = torch.zeros(6, dtype=torch.float64)
    for i, label in enumerate(labels.tolist()):
        for j in range(min(label + 1, 3)):  # a cell is asked whether it is beyond j as long as it reached j
            target = torch.tensor(1.0 if label > j else 0.0, dtype=torch.float64)
            by_decision[i] += torch.nn.functional.binary_cross_entropy_with_logits(logits[i, j], target)
    loss = torch.nn.functional.cross_entropy(continuation_log_probs(logits), labels, reduction="none")
    torch.testing.assert_close(loss, by_decision)


def test_extreme_ratios_stay_finite_and_sum_to_one() -> None:
    logits = torch.tensor([[200.0, -200.0], [-200.0, 200.0], [200.0, 200.0]], requires_grad=True)
    found = continuation_log_probs(logits)
    torch.testing.assert_close(found.exp().sum(dim=1), torch.ones(3))
    assert found.argmax(dim=1).tolist() == [1, 0, 2]
    found.exp().sum().backward()
    assert torch.isfinite(found).all()
    assert torch.isfinite(logits.grad).all()


def test_two_classes_are_a_logistic_regression() -> None:
    found = continuation_log_probs(torch.tensor([[0.7]]))
    torch.testing.assert_close(found.exp()[0, 1], torch.sigmoid(torch.tensor(0.7)))
