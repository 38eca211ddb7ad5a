"""Nearest cells by the angle between their components, exactly, in blocks."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from perikarya.review.components import Floats32, Progress

_BLOCK_VALUES = 2**24  # distances at once, 64 MiB


def unit_vectors(components_nk: Floats32) -> Floats32:
    """Bring every row to length 1; a row of zeros stays."""
    length_n1 = np.linalg.norm(components_nk, axis=1, keepdims=True)
    return np.asarray(components_nk / np.maximum(length_n1, np.finfo(np.float32).tiny), np.float32)


def nearest_to(unit_nk: Floats32, rows: NDArray[np.int64], n: int) -> tuple[NDArray[np.int64], Floats32]:
    """Return the nearest other cells of some cells, nearest first; of equal ones the first in the table.

    Parameters
    ----------
    unit_nk
        Shape (n_cells, n_components), from ``unit_vectors``.
    rows
        Of the cells asked about, shape (m,).
    n
        How many neighbours, fewer than there are cells.

    Returns
    -------
    Rows of the neighbours, and their distances, 1 - cosine similarity, 0 to 2; both of shape (m, n).
    """
    distance_mn = 1 - unit_nk[rows] @ unit_nk.T
    distance_mn[np.arange(len(rows)), rows] = np.inf
    nearest = np.argpartition(distance_mn, n - 1, axis=1)[:, :n] if n else np.empty((len(rows), 0), np.int64)
    near = np.take_along_axis(distance_mn, nearest, axis=1)
    order = np.lexsort((nearest, near), axis=1)
    return np.take_along_axis(nearest, order, axis=1), np.clip(np.take_along_axis(near, order, axis=1), 0, 2)


def nearest_of_all(unit_nk: Floats32, n: int, *, progress: Progress) -> tuple[NDArray[np.int64], Floats32]:
    """Return the nearest other cells of every cell, as ``nearest_to`` does; the time grows with the square of cells."""
    n_cells = len(unit_nk)
    found = np.empty((n_cells, n), np.int64)
    distance_nn = np.empty((n_cells, n), np.float32)
    step = max(1, _BLOCK_VALUES // n_cells)
    for start in range(0, n_cells, step):
        rows = np.arange(start, min(start + step, n_cells))
        found[rows], distance_nn[rows] = nearest_to(unit_nk, rows, n)
        progress(float(rows[-1] + 1) / n_cells)
    return found, distance_nn
