"""Neighbours are the cells of the smallest angle, found exactly."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.review.waiting import made
from tests.tiny import make_study

from perikarya.review import nearest
from perikarya.review.embedding import Maps
from perikarya.review.nearest import nearest_of_all, nearest_to, unit_vectors
from perikarya.review.neighbours import Neighbours


def test_neighbours_are_those_of_the_smallest_angle() -> None:
    points = np.random.default_rng(0).normal(size=(200, 6)).astype(np.float32)
    unit = points / np.linalg.norm(points, axis=1, keepdims=True)
    expected = 1 - unit @ unit.T
    rows, distances = nearest_to(unit_vectors(points), np.array([3, 150]), 7)
    for i, row in enumerate((3, 150)):
        order = np.argsort(np.where(np.arange(200) == row, np.inf, expected[row]))[:7]
        assert rows[i].tolist() == order.tolist()
        np.testing.assert_allclose(distances[i], expected[row][order], atol=1e-5)


def test_length_does_not_count_and_no_cell_is_its_own_neighbour() -> None:
    points = np.array([[1, 0], [50, 1], [0, 1], [-1, 0], [2, 0]], np.float32)
    rows, distances = nearest_to(unit_vectors(points), np.array([0]), 4)
    assert rows[0].tolist() == [4, 1, 2, 3]
    np.testing.assert_allclose(distances[0], [0, 1 - 50 / np.hypot(50, 1), 1, 2], atol=1e-6)


def test_of_equal_cells_the_first_in_the_table_comes_first() -> None:
    rows, _ = nearest_to(unit_vectors(np.ones((6, 3), np.float32)), np.array([2]), 5)
    assert rows[0].tolist() == [0, 1, 3, 4, 5]


def test_a_row_of_zeros_has_neighbours_at_distance_one() -> None:
    rows, distances = nearest_to(unit_vectors(np.array([[0, 0], [1, 0], [0, 3]], np.float32)), np.array([0]), 2)
    assert rows[0].tolist() == [1, 2]
    assert distances[0].tolist() == [1, 1]


def test_blocks_give_what_single_questions_give(monkeypatch: pytest.MonkeyPatch) -> None:
    unit = unit_vectors(np.random.default_rng(1).normal(size=(50, 4)).astype(np.float32))
    monkeypatch.setattr(nearest, "_BLOCK_VALUES", 50 * 7)
    shares: list[float] = []
    rows, distances = nearest_of_all(unit, 3, progress=shares.append)
    assert len(shares) == 8
    assert shares[-1] == 1
    for row in range(50):
        own, near = nearest_to(unit, np.array([row]), 3)
        assert rows[row].tolist() == own[0].tolist()
        np.testing.assert_allclose(distances[row], near[0], atol=1e-6)


def test_a_cell_has_neighbours_once_components_are_there(tmp_path: Path) -> None:
    opened = make_study(tmp_path / "tiny", cells_per_subject=2)
    features = np.random.default_rng(2).normal(size=(24, 10)).astype(np.float16)
    maps = Maps(opened, features, "noise")
    neighbours = Neighbours(maps)
    assert neighbours.of(0) == []
    made(maps, "pca")
    assert neighbours.note() == ""
    found = neighbours.of(0, 5)
    assert len(found) == 5
    assert all(row != 0 for row, _ in found)
    assert [d for _, d in found] == sorted(d for _, d in found)
    assert len(neighbours.of(0, 99)) == 23


def test_pixels_give_no_neighbours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("perikarya.review.map_source.MOST_EMBEDDED", 0)
    maps = Maps(make_study(tmp_path / "tiny", cells_per_subject=2), None)
    made(maps, "pca")
    assert Neighbours(maps).of(0) == []
    assert "no features of these cells" in Neighbours(maps).note()


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ({"status": "working", "progress": 0.35, "message": ""}, "prepared: 35%"),
        (
            {"status": "failed", "progress": 0.0, "message": "The disk is full."},
            "not be prepared. The disk is full.",
        ),
    ],
)
def test_it_is_said_why_there_are_no_neighbours_yet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: dict[str, object], words: str
) -> None:
    maps = Maps(make_study(tmp_path / "tiny", cells_per_subject=2), np.ones((24, 3), np.float16), "ones")
    monkeypatch.setattr(maps, "state", {"pca": state}.__getitem__)
    assert words in Neighbours(maps).note()


def test_a_single_cell_has_no_neighbours(tmp_path: Path) -> None:
    assert nearest_to(np.ones((1, 3), np.float32), np.array([0]), 0)[0].shape == (1, 0)
