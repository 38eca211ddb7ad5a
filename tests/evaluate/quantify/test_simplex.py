"""Batched least squares on the simplex, checked by scipy."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import minimize

from perikarya.evaluate.quantify.simplex import minimise_on_simplex, project, sources


def problems(n: int, n_classes: int, seed: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    rng = np.random.default_rng(seed)
    matrix = 0.5 * rng.dirichlet(np.ones(n_classes), (n, n_classes)) + 0.5 * np.eye(n_classes)
    return matrix, rng.dirichlet(np.full(n_classes, 0.3), n)


@pytest.mark.parametrize("n_classes", [2, 3, 5, 8])
def test_bounded_shares_are_those_of_a_general_optimiser(n_classes: int) -> None:
    matrix, observed = problems(30, n_classes, seed=n_classes)
    bounded, _ = sources(matrix, observed)
    assert (bounded >= 0).all()
    assert (bounded == 0).any(), "no problem reached the border"
    np.testing.assert_allclose(bounded.sum(axis=1), 1.0, atol=1e-12)
    for c, o, p in zip(matrix, observed, bounded, strict=True):

        def loss(q: NDArray[np.float64], c: NDArray[np.float64] = c, o: NDArray[np.float64] = o) -> float:
            return float(((c.T @ q - o) ** 2).sum())

        found = minimize(
            loss,
            np.full(n_classes, 1 / n_classes),
            bounds=[(0, 1)] * n_classes,
            constraints={"type": "eq", "fun": lambda q: q.sum() - 1},
            options={"ftol": 1e-14, "maxiter": 500},
        )
        assert loss(p) <= found.fun + 1e-10
        np.testing.assert_allclose(p, found.x, atol=1e-5)


def test_free_shares_undo_the_matrix_exactly_and_may_be_negative() -> None:
    matrix, observed = problems(50, 3, seed=1)
    bounded, free = sources(matrix, observed)
    np.testing.assert_allclose(np.einsum("bij,bi->bj", matrix, free), observed, atol=1e-7)
    inside = (free >= 0).all(axis=1)
    assert 0 < inside.sum() < len(inside)
    np.testing.assert_allclose(bounded[inside], free[inside], atol=1e-12)


def test_a_singular_matrix_gives_shares_rather_than_an_exception() -> None:
    matrix = np.full((1, 3, 3), 1 / 3)
    bounded, free = sources(matrix, np.array([[0.5, 0.3, 0.2]]))
    assert np.isfinite(free).all()
    np.testing.assert_allclose(bounded.sum(axis=1), 1.0)
    assert (bounded >= 0).all()


def test_projection_is_the_nearest_point_by_the_sorting_algorithm() -> None:
    points = np.random.default_rng(2).normal(0.3, 0.6, (200, 4))
    ordered = -np.sort(-points, axis=1)  # Held, Wolfe & Crowder 1974
    level = (np.cumsum(ordered, axis=1) - 1) / np.arange(1, 5)
    n_free = (ordered > level).sum(axis=1)
    expected = np.maximum(points - level[np.arange(200), n_free - 1][:, None], 0)
    np.testing.assert_allclose(project(points), expected, atol=1e-9)


def test_no_class_at_zero_would_lower_the_loss_if_it_were_let_in() -> None:
    """The conditions of Karush, Kuhn and Tucker, in problems where a class must leave zero again on the way."""
    rng = np.random.default_rng(4)
    factor = rng.normal(size=(500, 6, 6))
    quadratic, linear = factor @ factor.transpose(0, 2, 1) + 0.01 * np.eye(6), 3 * rng.normal(size=(500, 6))
    found = minimise_on_simplex(quadratic, linear)
    slope = np.einsum("bij,bj->bi", quadratic, found) - linear
    level = (slope * found).sum(axis=1)
    np.testing.assert_allclose(np.where(found > 0, slope - level[:, None], 0), 0, atol=1e-6)
    assert ((slope - level[:, None]) > -1e-6).all()


def test_every_problem_of_a_batch_is_solved_as_if_alone() -> None:
    matrix, observed = problems(40, 5, seed=3)
    together = minimise_on_simplex(matrix @ matrix.transpose(0, 2, 1), np.einsum("bij,bj->bi", matrix, observed))
    for b in range(40):
        alone, _ = sources(matrix[b : b + 1], observed[b : b + 1])
        np.testing.assert_allclose(together[b], alone[0], atol=1e-9)
