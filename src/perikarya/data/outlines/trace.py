"""From pixels to an outline: rings along the edges of the pixels, so that rasterising them gives the pixels back.

Outer boundaries run clockwise on the screen, boundaries of holes the other way. No ring touches itself: pixels that
meet in a corner only become two rings, a hole that touches the outer boundary in a corner is a ring of its own. So the
rings make polygons that are valid for GEOS and JTS.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from perikarya.data.outlines.base import CellMask, Outline, Ring


def trace(mask: CellMask) -> tuple[Ring, ...]:
    """Return the boundaries of a mask in coordinates of the image, straight runs merged into one edge."""
    padded = np.pad(mask.mask_hw > 0, 1)
    x, y, second = _corners(padded)
    tails, heads = _horizontal_edges(padded, x, y)
    by_column = np.lexsort((y * 2 + second, x))
    beside = np.empty_like(by_column)  # the corner at the other end of each vertical edge
    beside[by_column[::2]], beside[by_column[1::2]] = by_column[1::2], by_column[::2]
    edge_from = np.empty_like(by_column)
    edge_from[tails] = np.arange(len(tails))
    following = edge_from[beside[heads]].tolist()
    points = np.stack([x + mask.x, y + mask.y], axis=1)
    meets = bool(second.any())
    rings: list[Ring] = []
    for loop in _loops(following):
        corners = np.stack([tails[loop], heads[loop]], axis=1).ravel()
        rings += _without_touching(points[corners]) if meets else [points[corners].astype(np.float64)]
    return tuple(rings)


def rings_of(outline: Outline) -> tuple[Ring, ...]:
    """Return the rings of an outline, traced where it holds pixels."""
    return outline.rings if outline.mask is None else trace(outline.mask)


def traced(outline: Outline) -> Outline:
    """Return an outline that holds rings, for those who need them several times."""
    return outline if outline.mask is None else replace(outline, rings=trace(outline.mask), mask=None)


def _corners(padded: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return x, y of the corners of a padded mask's boundary, by row, and their order along a column.

    Where two pixels meet in a corner only, it is listed twice, once for each; the first is that of the left pixel.
    """
    a, b, c, d = padded[:-1, :-1], padded[:-1, 1:], padded[1:, :-1], padded[1:, 1:]
    is_corner = (a ^ b ^ c ^ d) | ((a == d) & (b == c) & (a != b))
    y, x = np.nonzero(is_corner)
    twice = (a == d)[y, x] & (b == c)[y, x]
    n_each = 1 + twice
    x, y = np.repeat(x, n_each), np.repeat(y, n_each)
    first = np.cumsum(n_each) - n_each
    second = np.zeros(len(x), np.int64)
    left_is_lower = c[y[first], x[first]]  # of the two pixels that meet, the left one lies below
    second[first[twice & left_is_lower]] = 1
    second[first[twice & ~left_is_lower] + 1] = 1
    return x, y, second


def _horizontal_edges(
    padded: NDArray[np.bool_], x: NDArray[np.int64], y: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return tail and head (numbers of corners) of every horizontal edge, with the mask to its right."""
    left, right = np.arange(0, len(x), 2), np.arange(1, len(x), 2)
    mask_below = padded[y[left] + 1, x[left] + 1]
    return np.where(mask_below, left, right), np.where(mask_below, right, left)


def _loops(following: list[int]) -> list[list[int]]:
    """Return the cycles of a permutation."""
    seen = [False] * len(following)
    loops = []
    for start in range(len(following)):
        loop = []
        at = start
        while not seen[at]:
            seen[at] = True
            loop.append(at)
            at = following[at]
        if loop:
            loops.append(loop)
    return loops


def _without_touching(points: NDArray[np.int64]) -> list[Ring]:
    """Cut a ring at the points it passes twice, into rings that pass each point once."""
    rings: list[Ring] = []
    path: list[tuple[int, int]] = []
    place: dict[tuple[int, int], int] = {}
    for x, y in points.tolist():
        start = place.get((x, y))
        if start is not None:
            rings.append(np.array(path[start:], np.float64))
            for point in path[start + 1 :]:
                del place[point]
            del path[start + 1 :]
        else:
            place[x, y] = len(path)
            path.append((x, y))
    return [*rings, np.array(path, np.float64)]
