"""Which annotations are regions that hold cells, where nobody says so."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perikarya.data.outlines.base import Outline, OutlineError
from perikarya.data.outlines.raster import area_of, contains

_AT_ONCE = 256  # candidates that are looked up together; bounds the memory where everything lies on everything
_FAR_LARGER = 25.0  # times the area of the usual detection, five times as wide: no cell


def find_regions(outlines: Sequence[Outline], *, annotations: Sequence[int], detections: Sequence[int]) -> set[int]:
    """Return the annotations that are regions.

    Where there are detections, these are the cells: an annotation is a region when the centre of a smaller object lies
    inside it, or when it is far larger than the cells and merely empty. Where all are annotations, a region holds the
    centres of two smaller ones at least, since a cell may have its nucleus drawn into it. Smaller means less than half
    its area: cells that were drawn over each other are no regions.

    Parameters
    ----------
    outlines
        All objects of a file.
    annotations, detections
        Places in ``outlines`` of those that may be regions and of those that cannot.
    """
    if not annotations:
        return set()
    centres, areas = _centres_and_areas(outlines)
    fewest = 1 if detections else 2
    large = _FAR_LARGER * np.median(areas[list(detections)]) if detections else np.inf
    found = set()
    for i, near in _near(outlines, annotations, centres):
        if areas[i] > large or (len(near) >= fewest and _n_held(outlines[i], centres[near], areas[near]) >= fewest):
            found.add(i)
    return found


def _centres_and_areas(outlines: Sequence[Outline]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return centroid, shape (n, 2), and area, shape (n,), of what each outline's first ring encloses."""
    import shapely

    first = [outline.rings[0] for outline in outlines]
    owner = np.repeat(np.arange(len(first)), [len(ring) for ring in first])
    polygons = shapely.polygons(shapely.linearrings(np.concatenate(first), indices=owner))
    return shapely.get_coordinates(shapely.centroid(polygons)), np.asarray(shapely.area(polygons))


def _near(
    outlines: Sequence[Outline], candidates: Sequence[int], centres: NDArray[np.float64]
) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """Yield each candidate and the other outlines whose centres lie in its bounding box."""
    import shapely

    places: Any = shapely.points(centres)
    tree = shapely.STRtree(places)
    for start in range(0, len(candidates), _AT_ONCE):
        some = candidates[start : start + _AT_ONCE]
        points = [np.concatenate(outlines[i].rings) for i in some]
        bounds = np.array([[*each.min(axis=0), *each.max(axis=0)] for each in points])
        box, centre = tree.query(shapely.box(*bounds.T))
        order = np.argsort(box, kind="stable")
        groups = np.split(centre[order], np.cumsum(np.bincount(box, minlength=len(some)))[:-1])
        for i, near in zip(some, groups, strict=True):
            yield i, near[near != i]


def _n_held(outline: Outline, centres: NDArray[np.float64], areas: NDArray[np.float64]) -> int:
    try:
        return int((contains(outline, centres) & (areas < area_of(outline) / 2)).sum())
    except OutlineError:  # too wild to be measured; it will be refused as a cell
        return 0
