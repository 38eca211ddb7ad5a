"""From an outline to its pixels, by the one rule that gives a cell its identity.

Coordinates are rounded to 1/100 px first (``base.DECIMALS``) and counted in whole hundredths from there on, so that
the arithmetic is exact and the same on every machine. A pixel belongs to an outline when its centre lies inside an odd
number of its rings. A centre on a left or upper edge is inside, on a right or lower edge outside: outlines that share
an edge share no pixel and leave none out. Pixels beyond the image are cut off. ImageJ fills polygons alike, except for
centres that lie exactly on an edge.

A boundary that crosses itself is not mended: by the same rule both halves of a bow-tie belong to the cell, and what is
encircled twice does not. A boundary that was drawn twice over encloses nothing and is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from perikarya.data.outlines.base import (
    DECIMALS,
    MAX_COORDINATE,
    MAX_POINTS,
    CellMask,
    Outline,
    OutlineError,
    Ring,
)

MAX_BOX_PX = 64 * 10**6  # of the bounding box of a cell; no cell is a tenth of this
MAX_CROSSINGS = 4_000_000  # of a boundary with the rows of pixels; memory and time grow with them
_UNIT = 10**DECIMALS
_POINTS_AT_ONCE = 2048  # so that regions with very many edges take no more memory
_N_LEVELS = 1024  # horizontal lines along which an area is measured


@dataclass(frozen=True, slots=True)
class _Edges:
    """Edges that are not horizontal, in hundredths of a pixel, int64; each runs downwards: y0 < y1."""

    x0: NDArray[np.int64]
    y0: NDArray[np.int64]
    x1: NDArray[np.int64]
    y1: NDArray[np.int64]


def mask_of(outline: Outline, *, height: int, width: int) -> CellMask:
    """Return the pixels of an outline in an image, cut to their bounding box.

    Parameters
    ----------
    outline
        Rings, rasterised by the rule above, or a mask, cut to the image.
    height, width
        Size of the image, in pixels.

    Raises
    ------
    OutlineError
        If a coordinate is no number or beyond the limits, if there are too few or too many points, if no pixel centre
        of the image lies inside, or if the outline is too large for a cell. The message is the bare reason.
    """
    if outline.mask is not None:
        return _cut_to_image(outline.mask, height=height, width=width)
    edges = _edges(outline.rings)
    if edges is None:
        raise OutlineError("it encloses no area: its points lie on one line")
    rows, columns = _toggles(edges, height=height, width=width)
    if not len(rows):
        raise OutlineError(_why_nothing(outline.rings, height=height, width=width))
    top, left = int(rows.min()), int(columns.min())
    box_hw = int(rows.max()) + 1 - top, int(columns.max()) - left
    if box_hw[0] * box_hw[1] > MAX_BOX_PX:
        raise OutlineError(f"it spans {box_hw[1]} x {box_hw[0]} px, too large for a cell; is it a region (--regions)?")
    flips = np.zeros((box_hw[0], box_hw[1] + 1), np.uint8)
    np.add.at(flips.reshape(-1), (rows - top) * flips.shape[1] + (columns - left), 1)  # parity survives a wrap at 256
    inside = np.bitwise_xor.accumulate(flips[:, :-1] & 1, axis=1)
    found = _tight(inside, x=left, y=top)
    if found is None:
        raise OutlineError(_why_nothing(outline.rings, height=height, width=width))
    return found


def contains(outline: Outline, points_xy: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Tell which points lie inside an outline, by the rule above.

    Parameters
    ----------
    outline
        Of any size; a region of a whole slide is no trouble.
    points_xy
        Shape (n, 2), in pixels, corner origin.

    Returns
    -------
    Shape (n,), bool.

    Raises
    ------
    OutlineError
        As ``mask_of``, but for the size of the image, which plays no role.
    """
    if outline.mask is not None:
        return _mask_contains(outline.mask, points_xy)
    edges = _edges(outline.rings)
    inside = np.zeros(len(points_xy), np.bool_)
    if edges is None or not len(points_xy):
        return inside
    points = _hundredths(points_xy)
    by_height = np.argsort(points[:, 1], kind="stable")
    for start in range(0, len(points), _POINTS_AT_ONCE):
        some = by_height[start : start + _POINTS_AT_ONCE]
        x, y = points[some].T
        edge, at = _crossings(edges, y)
        left_of_point = _x_offset(edges, edge, y[at], x[at]) <= 0
        inside[some] = np.bincount(at[left_of_point], minlength=len(some)) % 2 == 1
    return inside


def area_of(outline: Outline) -> float:
    """Return the area of an outline in square pixels without its holes, measured along about a thousand lines.

    Good to tell the smaller of two regions; the area of a cell is the number of its pixels.
    """
    if outline.mask is not None:
        return float(outline.mask.mask_hw.sum())
    edges = _edges(outline.rings)
    if edges is None:
        return 0.0
    low, high = float(edges.y0.min()), float(edges.y1.max())
    step = (high - low) / _N_LEVELS
    levels = low + step * (np.arange(_N_LEVELS) + 0.5)
    edge, at = _crossings(edges, levels)
    slope = (edges.x1 - edges.x0)[edge] / (edges.y1 - edges.y0)[edge]
    x = edges.x0[edge] + (levels[at] - edges.y0[edge]) * slope
    x = x[np.lexsort((x, at))]  # closed rings cross every line an even number of times
    return float((x[1::2] - x[::2]).sum() * step / _UNIT**2)


def _edges(rings: Sequence[Ring]) -> _Edges | None:
    """Return the edges of closed rings, None when all are horizontal; raise ``OutlineError`` for unusable rings."""
    n_points = sum(map(len, rings))
    if n_points > MAX_POINTS:
        raise OutlineError(f"it has {n_points} points; the limit is {MAX_POINTS}")
    if not rings or min(map(len, rings)) < 3:
        raise OutlineError(f"a boundary of it has {min(map(len, rings), default=0)} points; a boundary needs 3")
    points = _hundredths(np.concatenate(rings))
    ends = np.empty_like(points)
    ends[:-1] = points[1:]
    start = 0
    for ring in rings:
        ends[start + len(ring) - 1] = points[start]
        start += len(ring)
    slanted = points[:, 1] != ends[:, 1]
    if not slanted.any():
        return None
    points, ends = points[slanted], ends[slanted]
    down = (points[:, 1] < ends[:, 1])[:, None]
    upper, lower = np.where(down, points, ends), np.where(down, ends, points)
    return _Edges(upper[:, 0], upper[:, 1], lower[:, 0], lower[:, 1])


def _hundredths(points_xy: NDArray[np.float64]) -> NDArray[np.int64]:
    largest = np.abs(points_xy).max(initial=0.0)
    if not np.isfinite(largest):
        raise OutlineError("a coordinate is not a number")
    if largest > MAX_COORDINATE:
        raise OutlineError(f"a coordinate is {largest:g} px; the limit is {MAX_COORDINATE:g}")
    return np.asarray(np.rint(np.asarray(points_xy, np.float64) * _UNIT), np.int64)


def _why_nothing(rings: Sequence[Ring], *, height: int, width: int) -> str:
    """Say why an outline has no pixel in an image."""
    points = np.concatenate(rings)
    (x0, y0), (x1, y1) = points.min(axis=0), points.max(axis=0)
    if x1 <= 0 or y1 <= 0 or x0 >= width or y0 >= height:
        return (
            f"it lies outside of the image of {width} x {height} px (x from {x0:.0f} to {x1:.0f}, "
            f"y from {y0:.0f} to {y1:.0f})"
        )
    return "no pixel centre of the image lies inside it (is it a line, or a boundary drawn twice over?)"


def _toggles(edges: _Edges, *, height: int, width: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return where rows of pixel centres enter or leave the outline: row and first column behind, cut to the image."""
    first = max(0, -(-(int(edges.y0.min()) - _UNIT // 2) // _UNIT))
    last = min(height, -(-(int(edges.y1.max()) - _UNIT // 2) // _UNIT))
    centres = np.arange(first, last) * _UNIT + _UNIT // 2
    edge, at = _crossings(edges, centres)
    offset = _x_offset(edges, edge, centres[at], _UNIT // 2)
    columns = -(-offset // ((edges.y1 - edges.y0)[edge] * _UNIT))  # rounded up: the first centre not left of the edge
    return at + first, np.clip(columns, 0, width)


def _crossings(
    edges: _Edges, levels: NDArray[np.int64] | NDArray[np.floating]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return which edges cross which of some ascending horizontal lines; an upper end counts, a lower end does not."""
    start = np.searchsorted(levels, edges.y0, side="left")
    count = np.searchsorted(levels, edges.y1, side="left") - start
    total = int(count.sum())
    if total > MAX_CROSSINGS:
        raise OutlineError(f"its boundary goes up and down over {total} rows of pixels; the limit is {MAX_CROSSINGS}")
    edge = np.repeat(np.arange(len(count)), count)
    before = np.cumsum(count) - count
    return edge, np.arange(total) + (start - before)[edge]


def _x_offset(
    edges: _Edges, edge: NDArray[np.int64], y: NDArray[np.int64], x: NDArray[np.int64] | int
) -> NDArray[np.int64]:
    """Return how far right of x an edge is at height y, times the height of the edge (below 2**63, so it is exact)."""
    dx, dy = (edges.x1 - edges.x0)[edge], (edges.y1 - edges.y0)[edge]
    return (y - edges.y0[edge]) * dx + (edges.x0[edge] - x) * dy


def _cut_to_image(mask: CellMask, *, height: int, width: int) -> CellMask:
    rows, columns = mask.mask_hw.shape
    top, left = max(0, -mask.y), max(0, -mask.x)
    inside = mask.mask_hw[top : max(0, min(rows, height - mask.y)), left : max(0, min(columns, width - mask.x))]
    found = _tight(inside, x=mask.x + left, y=mask.y + top)
    if found is None:
        empty = not mask.mask_hw.any()
        raise OutlineError("its mask is empty" if empty else f"it lies outside of the image of {width} x {height} px")
    return found


def _tight(mask_hw: NDArray[np.uint8], *, x: int, y: int) -> CellMask | None:
    """Cut a mask to its pixels; None when there are none."""
    rows = np.flatnonzero(mask_hw.any(axis=1))
    if not len(rows):
        return None
    columns = np.flatnonzero(mask_hw.any(axis=0))
    cut = mask_hw[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return CellMask(np.ascontiguousarray(cut), x=x + int(columns[0]), y=y + int(rows[0]))


def _mask_contains(mask: CellMask, points_xy: NDArray[np.float64]) -> NDArray[np.bool_]:
    columns, rows = (np.floor(points_xy) - (mask.x, mask.y)).astype(np.int64).T
    height, width = mask.mask_hw.shape
    inside = (columns >= 0) & (columns < width) & (rows >= 0) & (rows < height)
    inside[inside] = mask.mask_hw[rows[inside], columns[inside]] > 0
    return np.asarray(inside, np.bool_)
