"""Which held-out cells are explained: some of each class by chance, and of those drawn some right and some wrong."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from perikarya.evaluate.metrics import Ints
from perikarya.evaluate.outputs import Scored

N_RIGHT, N_WRONG = 3, 2  # cells of a class in the figure


@dataclass(frozen=True)
class Choice:
    """Positions in the predictions: the cells that are measured, and those that are drawn, class by class."""

    measured: Ints
    drawn: Ints

    @property
    def all(self) -> Ints:
        """All of them, once."""
        return np.union1d(self.measured, self.drawn)


def choose_cells(scored: Scored, *, n_per_class: int, seed: int) -> Choice:
    """Choose up to ``n_per_class`` cells of every true class to measure, and a few right and wrong ones to draw.

    All by chance, never by how a map looks. The cells that are measured depend on the seed and the cells alone, so
    that networks with the same held-out cells are measured on the same ones.
    """
    predicted_n = scored.prob_nk.argmax(axis=1)
    measured, drawn = [], []
    for k in range(scored.prob_nk.shape[1]):
        of_class = np.flatnonzero(scored.label_n == k)
        of_class = of_class[np.argsort(scored.row_n[of_class])]
        order = np.random.default_rng([seed, k]).permutation(of_class)
        is_right = predicted_n[order] == k
        measured.append(order[:n_per_class])
        drawn += [order[is_right][:N_RIGHT], order[~is_right][:N_WRONG]]
    return Choice(np.concatenate(measured), np.concatenate(drawn))
