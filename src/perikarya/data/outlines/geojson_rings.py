"""GeoJSON geometries and rings: coordinates to boundaries, boundaries to valid polygons."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from perikarya.data.outlines.base import DECIMALS, MAX_COORDINATE, MAX_POINTS, Outline, OutlineError, Ring
from perikarya.data.outlines.raster import contains

if TYPE_CHECKING:
    import shapely

_MAX_DEPTH = 8  # of collections in collections; QuPath writes none
_OVERLAP_PX = 0.5  # area that two parts of an object may share by rounding
_NO_AREA = {
    "Point": "it is a point",
    "MultiPoint": "it is a set of points",
    "LineString": "it is a line",
    "MultiLineString": "it is a line",
}


def rings_of_geometry(geometry: object) -> tuple[Ring, ...]:
    """Return the boundaries of a Polygon, a MultiPolygon or the polygons in a GeometryCollection.

    Raises
    ------
    OutlineError
        If it has no area, lies in another plane of a stack, or holds anything that is no usable coordinate.
    """
    polygons = tuple(_polygons(geometry, depth=0))
    if not polygons:
        raise OutlineError("its geometry holds no polygon; a cell needs an outline")
    n_points = sum(len(ring) for polygon in polygons for ring in polygon if isinstance(ring, list))
    if n_points > MAX_POINTS:
        raise OutlineError(f"it has {n_points} points; the limit is {MAX_POINTS}")
    parts = [[_ring(ring) for ring in polygon] for polygon in polygons]
    _check_overlap(parts)
    return tuple(chain.from_iterable(parts))


def geometry_of_rings(rings: Sequence[Ring]) -> dict[str, Any]:
    """Return a valid Polygon or MultiPolygon that covers what lies inside an odd number of rings.

    Coordinates are rounded to ``DECIMALS``, as before rasterising, so that the pixels stay the same.
    """
    import shapely

    rounded = [np.round(ring, DECIMALS) for ring in rings]
    if len(rounded) == 1 and len(rounded[0]) >= 3 and shapely.Polygon(rounded[0]).is_valid:
        return {"type": "Polygon", "coordinates": [_coordinates(rounded[0])]}
    parts = _even_odd(rounded)
    coordinates = [[_coordinates(shapely.get_coordinates(ring)[:-1]) for ring in _boundaries(part)] for part in parts]
    if len(coordinates) == 1:
        return {"type": "Polygon", "coordinates": coordinates[0]}
    return {"type": "MultiPolygon", "coordinates": coordinates}


def _polygons(geometry: object, *, depth: int) -> Iterator[list[Any]]:
    """Yield the coordinates of each polygon: lists of rings."""
    if not isinstance(geometry, dict):
        raise OutlineError("it has no geometry")
    _check_plane(geometry.get("plane"))
    kind = geometry.get("type")
    if kind == "GeometryCollection":
        members = geometry.get("geometries")
        if not isinstance(members, list) or depth >= _MAX_DEPTH:
            raise OutlineError("its collection of geometries cannot be read")
        for member in members:
            if not (isinstance(member, dict) and member.get("type") in _NO_AREA):
                yield from _polygons(member, depth=depth + 1)
        return
    if isinstance(kind, str) and kind in _NO_AREA:
        raise OutlineError(f"{_NO_AREA[kind]}; a cell needs an outline with an area")
    if kind not in ("Polygon", "MultiPolygon"):
        raise OutlineError(f"its geometry is of type {str(kind)[:40]!r}; expected Polygon or MultiPolygon")
    coordinates = geometry.get("coordinates")
    polygons = coordinates if kind == "MultiPolygon" else [coordinates]
    if not isinstance(polygons, list) or not polygons:
        raise OutlineError("it has no coordinates")
    for polygon in polygons:
        if not isinstance(polygon, list) or not polygon:
            raise OutlineError("it has no coordinates")
        yield polygon


def _check_plane(plane: object) -> None:
    """Refuse what lies elsewhere in a stack: its pixels are not those of the image that is read."""
    if isinstance(plane, dict) and any(plane.get(axis) not in (0, None) for axis in ("z", "t")):
        raise OutlineError(
            f"it lies in the plane z={plane.get('z', 0)!r}, t={plane.get('t', 0)!r} of a stack; only the first is read"
        )


def _ring(points: object) -> Ring:
    """Return (n_points, 2), float64, without the last point where it repeats the first."""
    if not isinstance(points, list):
        raise OutlineError("a boundary is not a list of points")
    if not points:
        raise OutlineError("a boundary has no points")
    try:
        widths = set(map(len, points))
        flat = list(chain.from_iterable(points))
    except TypeError:
        raise OutlineError("a point is not a list of two numbers") from None
    if not widths <= {2, 3} or not set(map(type, flat)) <= {int, float}:
        raise OutlineError("a point is not a list of two numbers")
    ring = _finite(flat if len(widths) == 1 else list(chain.from_iterable(point[:2] for point in points)))
    ring = ring.reshape(len(points), -1)[:, :2]
    if len(ring) > 1 and (ring[0] == ring[-1]).all():
        ring = ring[:-1]
    if len(ring) < 3:
        raise OutlineError(f"a boundary has {len(ring)} corners; an area needs 3")
    return np.ascontiguousarray(ring)


def _finite(numbers: list[float]) -> NDArray[np.float64]:
    try:
        values = np.array(numbers, np.float64)
    except OverflowError:
        values = np.array([np.inf])
    largest = np.abs(values).max(initial=0.0)
    if np.isnan(largest):
        raise OutlineError("a coordinate is not a number (NaN)")
    if largest > MAX_COORDINATE:
        raise OutlineError(f"a coordinate is {largest:g} px; the limit is {MAX_COORDINATE:g}")
    return values


def _check_overlap(parts: Sequence[Sequence[Ring]]) -> None:
    """Refuse parts that lie on each other: by the rule of odd numbers their common area would be a hole."""
    if len(parts) == 1:
        return
    import shapely

    areas = shapely.make_valid([shapely.Polygon(shell, holes) for shell, *holes in parts])
    if shapely.area(areas).sum() - shapely.area(shapely.union_all(areas)) > _OVERLAP_PX:
        raise OutlineError("its parts lie on each other, so it is unclear what belongs to it; merge them")


def _even_odd(rings: Sequence[Ring]) -> list[shapely.Polygon]:
    """Return the valid polygons of what lies inside an odd number of rings, however these touch or cross."""
    import shapely

    edges = shapely.union_all([shapely.LinearRing(ring) for ring in rings])
    faces = shapely.get_parts(shapely.polygonize(shapely.get_parts(edges)))
    inside = contains(Outline("", tuple(rings)), shapely.get_coordinates(shapely.point_on_surface(faces)))
    area = shapely.set_precision(shapely.union_all(faces[inside]), 10.0**-DECIMALS)
    parts = [part for part in shapely.get_parts(area) if part.geom_type == "Polygon" and not part.is_empty]
    if not parts:
        raise OutlineError("it encloses no area")
    return parts


def _boundaries(polygon: shapely.Polygon) -> list[shapely.LinearRing]:
    return [polygon.exterior, *polygon.interiors]


def _coordinates(ring: Ring) -> list[list[float]]:
    """Return a ring as GeoJSON has it: closed by repeating the first point, whole numbers without a point."""
    closed = np.round(np.concatenate([ring, ring[:1]]), DECIMALS)
    whole = closed.astype(np.int64)
    points: list[list[float]] = (whole if (whole == closed).all() else closed).tolist()
    return points
