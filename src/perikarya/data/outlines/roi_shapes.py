"""The boundary of one ImageJ selection, as ImageJ itself fills it.

Compared with masks that ImageJ 1.53t made (``tests/imagej``), all kinds of selections give the same pixels, but for a
pixel in a thousand of fitted splines and for centres of pixels that lie exactly on a boundary. ImageJ takes whole
pixels of rectangles and ovals, even where they were drawn between pixels; so they are made whole here.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from roifile import ROI_OPTIONS, ROI_SUBTYPE, ROI_TYPE, ImagejRoi

from perikarya.data.outlines.base import MAX_COORDINATE, MAX_POINTS, OutlineError, Ring

HEADER_BYTES = 64
_NO_AREA: dict[int, str] = {
    ROI_TYPE.LINE: "a line",
    ROI_TYPE.FREELINE: "a freehand line",
    ROI_TYPE.POLYLINE: "a segmented line",
    ROI_TYPE.ANGLE: "an angle",
    ROI_TYPE.POINT: "a point",
    ROI_TYPE.NOROI: "empty",
}
_DRAWINGS: dict[int, str] = {ROI_SUBTYPE.TEXT: "a text", ROI_SUBTYPE.ARROW: "an arrow", ROI_SUBTYPE.IMAGE: "a picture"}
_POLYGONS = (ROI_TYPE.POLYGON, ROI_TYPE.FREEHAND, ROI_TYPE.TRACED)
_AREAS = (*_POLYGONS, ROI_TYPE.RECT, ROI_TYPE.OVAL)
_ELLIPSE_POINTS = 72  # ij.gui.EllipseRoi.vertices
_FLATNESS = 0.004  # px, of curves: below what rounding to 1/100 px takes away
_MAX_CURVE_POINTS = 2000  # of one curve; enough for a radius of 10,000 px
_SEGMENT_FLOATS = {0: 2, 1: 2, 2: 4, 3: 6, 4: 0}  # numbers behind: move, line, quadratic, cubic, close
_KAPPA = 4 / 3 * (math.sqrt(2) - 1)  # control points of a quarter circle as one cubic curve


def check_encloses(data: bytes) -> None:
    """Raise ``OutlineError`` when the bytes of a selection (64 or more) are those of a line, a point, a text."""
    kind = data[6]
    (subtype,) = struct.unpack_from(">h", data, 48)
    if subtype in _DRAWINGS:
        raise OutlineError(f"it is {_DRAWINGS[subtype]}, not the outline of a cell")
    if kind in _NO_AREA:
        raise OutlineError(f"it is {_NO_AREA[kind]}; a cell needs an outline that encloses it")
    if kind not in _AREAS:
        raise OutlineError(f"its type {kind} is not known")


def rings_of_roi(roi: ImagejRoi, data: bytes) -> tuple[Ring, ...]:
    """Return the boundaries of a selection; holes and separate parts are rings of their own.

    Parameters
    ----------
    roi
        The decoded selection.
    data
        The bytes it was decoded from.

    Raises
    ------
    OutlineError
        If its numbers make no sense.
    """
    if roi.composite:
        return _composite(roi)
    if roi.roitype in (ROI_TYPE.RECT, ROI_TYPE.OVAL):
        box = _whole_box(roi)
        if roi.roitype == ROI_TYPE.OVAL:
            return (oval_ring(*box),)
        return (_rectangle(*box, corner=roi.rounded_rect_arc_size),)
    if roi.subtype in (ROI_SUBTYPE.ELLIPSE, ROI_SUBTYPE.ROTATED_RECT):
        return (_turned(roi, data),)
    with np.errstate(invalid="ignore"):  # whoever rasterises refuses what is not a number
        points = np.asarray(roi.coordinates(), np.float64)
    if len(points) == 0:
        raise OutlineError("it has no points")
    return (_spline(points) if roi.options & ROI_OPTIONS.SPLINE_FIT else points,)


def bytes_of_shape(roi: ImagejRoi) -> int:
    """Return how many bytes of a file hold the header and the boundary of a selection."""
    if roi.composite:
        return HEADER_BYTES + 4 * int(roi.shape_roi_size)
    if roi.roitype in _POLYGONS:
        return HEADER_BYTES + int(roi.n_coordinates) * (12 if roi.subpixelresolution else 4)
    return HEADER_BYTES


def oval_ring(left: int, top: int, width: int, height: int) -> Ring:
    """Return the edges of the pixels that ImageJ gives an oval: those whose centre is not outside of the ellipse.

    The same inequality in the same order as in ``ij.gui.OvalRoi.getMask``, so that not a pixel differs.
    """
    half_x, half_y = width / 2, height / 2
    y = np.arange(height) - (half_y - 0.5)
    guess = half_x * np.sqrt(np.clip(1 - (y / half_y) ** 2, 0, None))
    first = np.maximum(np.floor(half_x - guess) - 1, 0)  # at most two columns before the first that is inside
    for _ in range(3):
        x = first - (half_x - 0.5)
        outside = x * x / (half_x * half_x) + y * y / (half_y * half_y) > 1
        first = np.where(outside, first + 1, first)
    rows = np.flatnonzero(2 * first < width)
    first = first[rows]
    edge_y = np.repeat(np.append(rows, rows[-1] + 1), 2)[1:-1].astype(np.float64)  # both ends of each row's edge
    edge_x = np.repeat(first, 2)
    right = np.stack([width - edge_x, edge_y], axis=1)
    left_side = np.stack([edge_x, edge_y], axis=1)[::-1]
    return _without_straight(np.concatenate([right, left_side]) + np.array([left, top]))


def _without_straight(points: Ring) -> Ring:
    """Leave out the points of a stepped ring that lie between their neighbours."""
    before, after = np.roll(points, 1, axis=0), np.roll(points, -1, axis=0)
    corners: Ring = points[(before != after).all(axis=1)]
    return corners


def _whole_box(roi: ImagejRoi) -> tuple[int, int, int, int]:
    """Return left, top, width and height in whole pixels, as ``ij.gui.Roi`` makes them of fractions."""
    if not roi.subpixelrect:
        return _checked_box(roi.left, roi.top, roi.right - roi.left, roi.bottom - roi.top)
    numbers = _finite(roi.xd, roi.yd, roi.widthd, roi.heightd)
    return _checked_box(int(numbers[0]), int(numbers[1]), math.ceil(numbers[2]), math.ceil(numbers[3]))


def _checked_box(left: int, top: int, width: int, height: int) -> tuple[int, int, int, int]:
    if width <= 0 or height <= 0:
        raise OutlineError(f"its box is {width} x {height} px and encloses nothing")
    if max(width, height) > MAX_POINTS:
        raise OutlineError(f"its box is {width} x {height} px, too large for a cell")
    return left, top, width, height


def _finite(*numbers: float) -> tuple[float, ...]:
    if not all(abs(number) <= MAX_COORDINATE for number in numbers):
        raise OutlineError("a coordinate is not a number, or beyond any image")
    return numbers


def _rectangle(left: int, top: int, width: int, height: int, *, corner: int) -> Ring:
    right, bottom = left + width, top + height
    if corner <= 0:
        return np.array([[left, top], [right, top], [right, bottom], [left, bottom]], np.float64)
    rx, ry = min(corner, width) / 2, min(corner, height) / 2
    corners = (
        ((right - rx, top), (right, top), (right, top + ry)),
        ((right, bottom - ry), (right, bottom), (right - rx, bottom)),
        ((left + rx, bottom), (left, bottom), (left, bottom - ry)),
        ((left, top + ry), (left, top), (left + rx, top)),
    )
    parts = []
    for start, at, end in (np.array(points, np.float64) for points in corners):
        handles = start + _KAPPA * (at - start), end + _KAPPA * (at - end)
        parts += [start[None], _curve(np.stack([start, *handles, end]))]
    return np.concatenate(parts)


def _turned(roi: ImagejRoi, data: bytes) -> Ring:
    """Return an ellipse or a rotated rectangle, made of its axis as ImageJ makes it when it opens the file."""
    x1, y1, x2, y2, parameter = _finite(roi.x1, roi.y1, roi.x2, roi.y2, *struct.unpack_from(">f", data, 52))
    centre = np.array([x1 + x2, y1 + y2]) / 2
    axis = np.array([x2 - x1, y2 - y1])
    length = float(np.hypot(*axis))
    if length == 0 or parameter <= 0:
        raise OutlineError("its box encloses nothing")
    across = np.array([-axis[1], axis[0]]) / length
    if roi.subtype == ROI_SUBTYPE.ROTATED_RECT:
        ends = np.array([[x1, y1], [x2, y2], [x2, y2], [x1, y1]])
        return ends + np.array([[-1], [-1], [1], [1]]) * across * parameter / 2
    turn = np.arange(_ELLIPSE_POINTS)[:, None] * (2 * np.pi / _ELLIPSE_POINTS)
    points = centre + np.cos(turn) * axis / 2 + np.sin(turn) * across * length * min(parameter, 1.0) / 2
    ellipse: Ring = points.astype(np.float32).astype(np.float64)
    return ellipse


def _spline(points: Ring) -> Ring:
    """Return the closed cubic spline through the points, as Edit > Selection > Fit Spline draws it.

    ImageJ does not say how; a periodic spline over the sums of the square roots of the distances gives its pixels but
    for one in a thousand.
    """
    from scipy.interpolate import CubicSpline

    _check_count(len(points))
    _finite(*points.ravel().tolist())
    closed = np.concatenate([points, points[:1]])
    closed = closed[np.append(True, (np.diff(closed, axis=0) != 0).any(axis=1))]
    if len(closed) < 4:
        raise OutlineError("a curve needs 3 points to enclose an area")
    distances = np.hypot(*np.diff(closed, axis=0).T)
    places = np.append(0, np.cumsum(np.sqrt(distances)))
    if not (np.diff(places) > 0).all():
        raise OutlineError("some points of its curve are too close to tell apart")
    n_points = int(min(max(100, distances.sum() / 2), MAX_POINTS))
    curve = CubicSpline(places, closed, bc_type="periodic")
    return np.asarray(curve(np.linspace(0, places[-1], n_points)[:-1]))


def _composite(roi: ImagejRoi) -> tuple[Ring, ...]:
    """Return the closed boundaries of a path of moves, lines and curves (``java.awt.geom.PathIterator``)."""
    if roi.roitype != ROI_TYPE.RECT or roi.multi_coordinates is None:
        raise OutlineError("it says that it is composite, but its type is not that of composites")
    _check_count(len(roi.multi_coordinates) // 3)
    numbers: list[float] = roi.multi_coordinates.tolist()
    rings: list[list[Sequence[float]]] = []
    at = n_points = 0
    while at < len(numbers):
        kind = numbers[at]
        count = _SEGMENT_FLOATS.get(kind)  # type: ignore[call-overload]
        segment = numbers[at + 1 : at + 1 + (count or 0)]
        if count is None or len(segment) < count:
            raise OutlineError("its path is cut off or has a segment of an unknown kind")
        n_points += _extend(rings, kind, segment)
        _check_count(n_points)
        at += 1 + count
    areas = tuple(np.array(ring, np.float64) for ring in rings if len(ring) > 2)
    if not areas:
        raise OutlineError("its path encloses no area")
    return areas


def _extend(rings: list[list[Sequence[float]]], kind: float, segment: list[float]) -> int:
    """Carry on with a path by one segment; return how many points that takes."""
    if kind == 0:
        rings.append([segment])
        return 1
    if not rings:
        raise OutlineError("its path does not begin with a point")
    if kind == 4:
        rings.append([rings[-1][0]])  # what follows without a move goes on from the start of the part that was closed
        return 1
    controls = [rings[-1][-1], *zip(segment[::2], segment[1::2], strict=True)]
    points = [segment] if kind == 1 else _curve(np.array(controls)).tolist()
    rings[-1].extend(points)
    return len(points)


def _check_count(n_points: int) -> None:
    if n_points > MAX_POINTS:
        raise OutlineError(f"it has more than {MAX_POINTS} points")


def _curve(controls: NDArray[np.float64]) -> Ring:
    """Return points on a quadratic or cubic Bézier curve, without its start, close enough for ``_FLATNESS``."""
    _finite(*controls.ravel().tolist())
    bend = np.hypot(*np.diff(controls, n=2, axis=0).T).max()
    degree = len(controls) - 1
    n_points = min(max(1, math.ceil(math.sqrt(degree * (degree - 1) / 8 * bend / _FLATNESS))), _MAX_CURVE_POINTS)
    t = np.linspace(0, 1, n_points + 1)[1:, None]
    weights = [math.comb(degree, k) * t**k * (1 - t) ** (degree - k) for k in range(degree + 1)]
    return np.asarray(sum(weight * control for weight, control in zip(weights, controls, strict=True)))
