"""Outlines of cells in the image they come from, traced from the mask of each crop."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from perikarya.data.outlines.base import CellMask, Ring
from perikarya.data.outlines.trace import trace

_TOLERANCE_PX = 1.0  # of the crop


def outline_path(mask_hw: NDArray[np.uint8], *, x_px: float, y_px: float, scale: float, fine: bool = True) -> str:
    """Return the outline of a cell as the ``d`` of an SVG path, in pixels of its image.

    The mask is put so that its centroid falls on that of the cell. Where a cell is larger than its window, its outline
    ends at the window, and lies off by as much as the centroid of what shows differs from that of the whole.

    Parameters
    ----------
    mask_hw
        Fourth channel of the crop; pixels above 0 belong to the cell.
    x_px, y_px
        Centroid in the image, counted from the centre of its first pixel.
    scale
        Pixels of the image per pixel of the crop, see ``data.windows.scale_of``.
    fine
        Whether it runs around every pixel; else it is up to a pixel of the crop off, and six times shorter.

    Returns
    -------
    ``M x y L x y … Z``, once for every ring, rounded to halves; "" for an empty mask.
    """
    rows, columns = np.nonzero(mask_hw)
    if not len(rows):
        return ""
    # the corner of a window lies on a corner of the image's pixels
    left = round(x_px + 0.5 - scale * (columns.mean() + 0.5))
    top = round(y_px + 0.5 - scale * (rows.mean() + 0.5))
    parts = []
    for ring in trace(CellMask((mask_hw > 0).astype(np.uint8), 0, 0)):
        placed = np.round((_shown(ring, fine=fine) * scale + (left, top)) * 2) / 2
        first, *others = (f"{x:g} {y:g}" for x, y in placed.tolist())
        parts.append(f"M {first} L {' '.join(others)} Z")
    return " ".join(parts)


def _shown(ring: Ring, *, fine: bool) -> Ring:
    if fine:
        return ring
    # Douglas & Peucker 1973, doi:10.3138/FM57-6770-U75U-7727
    short = cv2.approxPolyDP(ring.astype(np.float32).reshape(-1, 1, 2), _TOLERANCE_PX, closed=True).reshape(-1, 2)
    return short.astype(np.float64) if len(short) > 2 else ring
