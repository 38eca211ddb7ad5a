from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from perikarya.review.worth import by_worth, queue_order, spread_order, usual_distance, worth_by_chance, worth_of

FAR = 10.0


def points(n: int, *, seed: int = 0) -> NDArray[np.float32]:
    """Place cells so that none is near another."""
    return (FAR * np.eye(n) + np.random.default_rng(seed).normal(0, 0.1, (n, n))).astype(np.float32)


def test_a_confident_contradiction_is_worth_most_then_doubt_then_agreement() -> None:
    prob = np.array([[0.97, 0.02, 0.01], [0.97, 0.02, 0.01], [0.5, 0.45, 0.05], [0.4, 0.5, 0.1]])
    worth = worth_of(prob, np.array([0, 1, 0, 0]))
    np.testing.assert_allclose(worth, [0.03, 0.98, 0.5, 0.6])
    assert by_worth(worth).tolist() == [1, 3, 2, 0]


def test_a_cell_without_a_label_is_worth_what_the_model_doubts() -> None:
    prob = np.array([[0.9, 0.1], [0.55, 0.45], [np.nan, np.nan]])
    worth = worth_of(prob, np.array([-1, -1, 0]))
    np.testing.assert_allclose(worth, [0.1, 0.45, np.nan])


def test_cells_no_model_was_asked_about_come_last_and_equal_ones_in_order() -> None:
    assert by_worth(np.array([0.2, np.nan, 0.2, 0.9, np.nan])).tolist() == [3, 0, 2, 1, 4]


def test_without_a_model_cells_without_a_label_come_first_and_the_rest_by_chance() -> None:
    labels = np.array([0, 1, -1, 0, 1, -1] * 20)
    order = by_worth(worth_by_chance(labels))
    assert set(order[:40].tolist()) == set(np.flatnonzero(labels == -1).tolist())
    assert order[40:].tolist() != sorted(order[40:].tolist())
    assert order.tolist() == by_worth(worth_by_chance(labels)).tolist()


def test_unlike_cells_come_before_near_copies_of_the_first() -> None:
    kinds = points(6)
    copies = kinds[0] + np.random.default_rng(1).normal(0, 0.01, (5, 6)).astype(np.float32)
    worth = np.concatenate([[0.99, 0.9, 0.85, 0.8, 0.75, 0.7], np.full(5, 0.98)])
    order = spread_order(worth, np.concatenate([kinds, copies]).astype(np.float32))
    assert order[0] == 0
    assert set(order[1:6].tolist()) == {1, 2, 3, 4, 5}
    assert set(order[6:].tolist()) == {6, 7, 8, 9, 10}


def test_near_copies_of_a_contradiction_still_come_before_cells_nobody_doubts() -> None:
    kinds = points(6)
    worth = np.array([0.99, 0.98, 0.6, 0.05, 0.04, 0.03, 0.02])
    order = spread_order(worth, np.concatenate([kinds[:1], kinds[:1] + np.float32(0.001), kinds[1:]]))
    assert order.tolist() == [0, 2, 1, 3, 4, 5, 6]


def test_cells_that_are_not_unusually_alike_keep_the_order_of_their_worth() -> None:
    worth = np.random.default_rng(3).random(40)
    assert spread_order(worth, points(40)).tolist() == by_worth(worth).tolist()


def test_every_cell_is_in_the_queue_once_and_only_its_head_is_spread() -> None:
    rng = np.random.default_rng(5)
    worth = rng.random(300)
    worth[::50] = np.nan
    head = by_worth(worth)[:100]
    order = queue_order(worth, rng.normal(0, 1, (100, 4)).astype(np.float32))
    assert sorted(order.tolist()) == list(range(300))
    assert set(order[:100].tolist()) == set(head.tolist())
    assert order[:100].tolist() != head.tolist()
    assert order[100:].tolist() == by_worth(worth)[100:].tolist()


@pytest.mark.parametrize("n_points", [0, 1])
def test_without_points_the_queue_goes_by_worth_alone(n_points: int) -> None:
    worth = np.array([0.1, 0.9, 0.5])
    assert queue_order(worth).tolist() == [1, 2, 0]
    assert queue_order(worth, np.zeros((n_points, 3), np.float32)).tolist() == [1, 2, 0]


def test_cells_that_all_look_the_same_are_ordered_by_worth() -> None:
    worth = np.array([0.2, 0.9, 0.5, 0.7])
    assert spread_order(worth, np.ones((4, 3), np.float32)).tolist() == [1, 3, 2, 0]


def test_copies_of_everything_do_not_make_copies_usual() -> None:
    kinds = points(20)
    thrice = np.repeat(kinds, 3, axis=0)
    between = float(np.linalg.norm(kinds[0] - kinds[1]))
    assert usual_distance(kinds) == pytest.approx(between, rel=0.1)
    assert between / 8 < usual_distance(thrice) <= between
    first = spread_order(np.linspace(1.0, 0.9, 60), thrice)[:20]
    assert sorted((first // 3).tolist()) == list(range(20))


def test_the_usual_distance_is_that_to_the_nearest_neighbour() -> None:
    line = np.array([[0.0], [2.0], [5.0], [8.0], [10.0]], np.float32)
    assert usual_distance(line) == pytest.approx(np.median([2, 2, 3, 2, 2]))


def test_blocks_do_not_change_the_usual_distance(monkeypatch: pytest.MonkeyPatch) -> None:
    some = np.random.default_rng(0).normal(0, 1, (50, 5)).astype(np.float32)
    whole = usual_distance(some)
    monkeypatch.setattr("perikarya.review.worth._BLOCK", 7)
    assert usual_distance(some) == pytest.approx(whole, rel=1e-5)
