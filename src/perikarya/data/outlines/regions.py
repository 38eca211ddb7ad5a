"""In which annotated region a cell lies."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from perikarya.data.outlines.base import Outline, OutlineError, Problem
from perikarya.data.outlines.raster import area_of, contains


def region_names(
    regions: Sequence[Outline], centres_xy: NDArray[np.float64]
) -> tuple[NDArray[np.object_], list[Problem]]:
    """Name the smallest region around each point.

    Parameters
    ----------
    regions
        Outlines of regions, of any size.
    centres_xy
        Shape (n, 2), in pixels, corner origin.

    Returns
    -------
    names
        Shape (n,), the label of the region, None where there is none.
    problems
        (key of the region, reason) for regions that cannot be used.
    """
    by_area: list[tuple[float, str, NDArray[np.bool_]]] = []
    problems: list[Problem] = []
    for region in regions:
        try:
            if not region.label:
                raise OutlineError("it has no name")
            by_area.append((area_of(region), region.label, contains(region, centres_xy)))
        except OutlineError as error:
            problems.append((region.key, f"the region cannot be used: {error}"))
    names = np.full(len(centres_xy), None, object)
    for _, name, inside in sorted(by_area, key=lambda entry: entry[:2], reverse=True):  # the smallest has the last word
        names[inside] = name
    return names, problems
