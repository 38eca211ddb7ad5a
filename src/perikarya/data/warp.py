"""One resampling per cell: shrinking, turning, slanting and bending, picture and mask together.

The picture is continued by reflection and the mask by zeros: padding first and warping all channels at once is three
times faster than warping picture and mask each with its own border.
"""

from __future__ import annotations

import math
from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray

from perikarya.data.colour import MASK

_NO_BLUR = 1.0 + 1e-6
_N_SPANS = 2  # pieces of the spline along each side of the result
N_CONTROL = _N_SPANS + 3  # control points of a cubic spline along each side


def shrink(crop: NDArray[np.uint8], ratio: float) -> tuple[NDArray[np.uint8], int]:
    """Remove detail that ``ratio`` source pixels per result pixel cannot carry; return the crop and its whole factor.

    The whole part of the ratio is averaged away in blocks (exact, and fast). For the rest r in [1, 2) the 3 x 3
    kernel (a, 1 - 2a, a) precedes the bilinear interpolation, with a = (r - 1)(3 - r) / 4: nothing at r = 1, the
    binomial kernel (which removes the finest pattern altogether) at r = 2. Without it, a pattern finer than the
    result's pixels would come out as a coarse one that is not in the picture.
    """
    factor = max(1, min(int(ratio + 1e-9), crop.shape[0]))
    if factor > 1:
        extra = -crop.shape[0] % factor
        if extra:
            crop = _pad(crop, (0, extra, 0, extra))
        side = crop.shape[0] // factor
        crop = cv2.resize(crop, (side, side), interpolation=cv2.INTER_AREA)
    rest = ratio / factor
    if rest > _NO_BLUR:
        weight = (min(rest, 2.0) - 1) * (3 - min(rest, 2.0)) / 4
        sigma = math.sqrt(-0.5 / math.log(weight / (1 - 2 * weight))) if weight < 0.25 else 0.8493  # 1 / sqrt(2 ln 2)
        crop = cv2.GaussianBlur(crop, (3, 3), sigma, borderType=cv2.BORDER_REFLECT)
    return crop, factor


def warp(
    small: NDArray[np.uint8],
    linear: NDArray[np.float64],
    shift_px: NDArray[np.float64],
    out: NDArray[np.uint8],
    *,
    extent: float,
    bend: NDArray[np.float64] | None = None,
) -> None:
    """Resample ``small`` into ``out`` with bilinear interpolation.

    Parameters
    ----------
    small
        Shape (S, S, 4), uint8.
    linear
        Shape (2, 2): from steps in the result to steps in ``small``.
    shift_px
        Shape (2,): how far the middle moves, x and y in pixels of ``small``.
    out
        Shape (out_px, out_px, 4), uint8; overwritten.
    extent
        The side of the window in pixels of ``small``, which may hold a part of a pixel more.
    bend
        Shape (2, N_CONTROL, N_CONTROL): how far the control points of a cubic B-spline over the result are moved,
        x and y, share of its side. The spline stays within the largest of them, and never folds while that is below
        0.24 (Choi & Lee 2000: 0.48 of the distance between control points).
    """
    (a, b), (c, d) = linear.tolist()
    dx, dy = shift_px.tolist()
    side, out_px = small.shape[0], out.shape[0]
    if bend is None and b == c == dx == dy == 0 and a == d and extent == side and abs(a * out_px - side) < 1e-9:
        _resize(small, out)
        return
    half = (out_px - 1) / 2
    centre_x, centre_y = (extent - 1) / 2 - dx, (extent - 1) / 2 - dy
    reach = half if bend is None else half + float(np.abs(bend).max()) * out_px
    reach_x, reach_y = (abs(a) + abs(b)) * reach, (abs(c) + abs(d)) * reach
    beyond = max(
        reach_x - centre_x, reach_x + centre_x - (side - 1), reach_y - centre_y, reach_y + centre_y - (side - 1)
    )
    pad = max(0, math.ceil(beyond)) + 1
    padded = _pad(small, (pad, pad, pad, pad))
    if bend is None:
        matrix = np.array(
            [
                [a, b, centre_x + pad - (a + b) * half],
                [c, d, centre_y + pad - (c + d) * half],
            ]
        )
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        cv2.warpAffine(padded, matrix, (out_px, out_px), dst=out, flags=flags)
    else:
        map_x, map_y = _bent_maps(linear, bend, (centre_x + pad, centre_y + pad), out_px)
        cv2.remap(padded, map_x, map_y, cv2.INTER_LINEAR, dst=out)


def _bent_maps(
    linear: NDArray[np.float64], bend: NDArray[np.float64], centre_xy: tuple[float, float], out_px: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return where each pixel of the result comes from, x and y, shape (out_px, out_px) each.

    A cubic B-spline reproduces straight lines, so moving its control points by the affine map moves all between.
    """
    (a, b), (c, d) = linear.tolist()
    x, y = (bend + _control_points()) * out_px
    source_x = (a * x + b * y + centre_xy[0]).astype(np.float32)
    source_y = (c * x + d * y + centre_xy[1]).astype(np.float32)
    basis = _spline_basis(out_px)
    return basis @ source_x @ basis.T, basis @ source_y @ basis.T


@cache
def _control_points() -> NDArray[np.float64]:
    """Where the control points lie before they are moved, from the middle, share of the side, shape (2, n, n)."""
    rest = (np.arange(N_CONTROL) - 1) / _N_SPANS - 0.5
    return np.stack(np.meshgrid(rest, rest))


@cache
def _spline_basis(out_px: int) -> NDArray[np.float32]:
    """Weights of the control points of a uniform cubic B-spline at the pixel centres, shape (out_px, N_CONTROL)."""
    position = (np.arange(out_px) + 0.5) / out_px * _N_SPANS
    span = np.minimum(position.astype(np.int64), _N_SPANS - 1)
    t = position - span
    weights = np.stack([(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3], axis=1) / 6
    basis = np.zeros((out_px, N_CONTROL), np.float32)
    np.put_along_axis(basis, span[:, None] + np.arange(4), weights.astype(np.float32), axis=1)
    basis.setflags(write=False)
    return basis


def _resize(small: NDArray[np.uint8], out: NDArray[np.uint8]) -> None:
    if small.shape == out.shape:
        out[...] = small
    else:
        cv2.resize(small, (out.shape[1], out.shape[0]), dst=out, interpolation=cv2.INTER_LINEAR)


def _pad(crop: NDArray[np.uint8], widths: tuple[int, int, int, int]) -> NDArray[np.uint8]:
    """Continue the picture by reflection and the mask by zeros: top, bottom, left, right."""
    padded = cv2.copyMakeBorder(crop, *widths, cv2.BORDER_REFLECT)
    top, _, left, _ = widths
    height, width = crop.shape[:2]
    padded[:top, :, MASK] = 0
    padded[top + height :, :, MASK] = 0
    padded[top : top + height, :left, MASK] = 0
    padded[top : top + height, left + width :, MASK] = 0
    return np.asarray(padded, np.uint8)
