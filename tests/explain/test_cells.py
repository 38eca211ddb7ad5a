"""Cells are chosen by chance, of every class alike, some right and some wrong."""

from __future__ import annotations

import numpy as np

from perikarya.evaluate.outputs import Scored
from perikarya.explain.cells import N_RIGHT, N_WRONG, choose_cells


def scored_of(n: int = 200, *, seed: int = 0, skill: float = 1.0) -> Scored:
    rng = np.random.default_rng(seed)
    label = np.random.default_rng(99).integers(0, 3, n)
    prob = rng.dirichlet(np.ones(3), n) + skill * np.eye(3)[label]
    return Scored(np.arange(1000, 1000 + n), label, prob / prob.sum(axis=1, keepdims=True))


def test_so_many_of_each_class_are_measured() -> None:
    scored = scored_of()
    choice = choose_cells(scored, n_per_class=20, seed=0)
    assert np.bincount(scored.label_n[choice.measured]).tolist() == [20, 20, 20]
    assert len(np.unique(choice.measured)) == 60
    assert len(choose_cells(scored, n_per_class=500, seed=0).measured) == 200


def test_some_right_and_some_wrong_of_each_class_are_drawn() -> None:
    scored = scored_of(skill=0.3)
    drawn = choose_cells(scored, n_per_class=2, seed=0).drawn
    right = scored.prob_nk[drawn].argmax(axis=1) == scored.label_n[drawn]
    for k in range(3):
        of_class = scored.label_n[drawn] == k
        assert (right & of_class).sum() == N_RIGHT
        assert (~right & of_class).sum() == N_WRONG


def test_what_is_drawn_but_not_measured_is_mapped_once() -> None:
    choice = choose_cells(scored_of(skill=0.3), n_per_class=2, seed=0)
    assert set(choice.all) == set(choice.measured) | set(choice.drawn)
    assert len(choice.all) == len(set(choice.all)) > len(choice.measured)


def test_all_networks_are_measured_on_the_same_cells_in_whatever_order_they_are_on_file() -> None:
    one, other = scored_of(seed=0), scored_of(seed=1)
    mixed = np.random.default_rng(2).permutation(200)
    other = Scored(other.row_n[mixed], other.label_n[mixed], other.prob_nk[mixed])
    rows = [s.row_n[choose_cells(s, n_per_class=10, seed=4).measured] for s in (one, other)]
    np.testing.assert_array_equal(rows[0], rows[1])
    assert set(rows[0]) != set(one.row_n[choose_cells(one, n_per_class=10, seed=5).measured])


def test_a_class_without_cells_is_left_out() -> None:
    scored = scored_of()
    kept = scored.label_n != 1
    few = Scored(scored.row_n[kept], scored.label_n[kept], scored.prob_nk[kept])
    assert set(few.label_n[choose_cells(few, n_per_class=5, seed=0).all]) == {0, 2}
