from __future__ import annotations

import numpy as np
import pytest

from perikarya.data.outlines.base import CellMask, Outline
from perikarya.data.outlines.regions import region_names


def region(key: str, x: float, y: float, side: float, label: str | None = "") -> Outline:
    ring = np.array([(x, y), (x + side, y), (x + side, y + side), (x, y + side)])
    return Outline(key, (ring,), label=key if label == "" else label, kind="region")


POINTS = np.array([(5.0, 5.0), (30.0, 30.0), (90.0, 90.0), (200.0, 5.0)])


@pytest.mark.parametrize("turned", [False, True])
def test_the_smallest_region_around_a_point_names_it(turned: bool) -> None:
    regions = [region("CA1", 0, 0, 20), region("hippocampus", 0, 0, 60), region("brain", 0, 0, 100)]
    names, problems = region_names(regions[::-1] if turned else regions, POINTS)
    assert names.tolist() == ["CA1", "hippocampus", "brain", None]
    assert problems == []


def test_a_ring_is_smaller_than_what_it_surrounds_when_it_has_fewer_pixels() -> None:
    outer, inner = region("", 0, 0, 100).rings[0], region("", 2, 2, 96).rings[0]
    around = Outline("layer", (outer, inner), label="layer", kind="region")
    names, _ = region_names([around, region("all", 0, 0, 100)], np.array([(1.0, 1.0), (50.0, 50.0)]))
    assert names.tolist() == ["layer", "all"]


def test_a_region_may_be_pixels() -> None:
    pixels = Outline("p", mask=CellMask(np.ones((10, 10), np.uint8), 0, 0), label="p", kind="region")
    assert region_names([pixels], POINTS)[0].tolist() == ["p", None, None, None]


def test_a_region_that_cannot_be_used_is_told_and_the_others_count() -> None:
    line = Outline("line", (np.array([(0.0, 0.0), (9.0, 9.0)]),), label="line", kind="region")
    regions = [region("nameless", 0, 0, 99, label=None), line, region("NaN", np.nan, 0, 9), region("CA1", 0, 0, 20)]
    names, problems = region_names(regions, POINTS)
    assert names.tolist() == ["CA1", None, None, None]
    assert problems == [
        ("nameless", "the region cannot be used: it has no name"),
        ("line", "the region cannot be used: a boundary of it has 2 points; a boundary needs 3"),
        ("NaN", "the region cannot be used: a coordinate is not a number"),
    ]


def test_where_there_are_no_points_there_are_no_names() -> None:
    assert region_names([region("CA1", 0, 0, 20)], np.empty((0, 2)))[0].shape == (0,)
    assert region_names([], POINTS)[0].tolist() == [None] * 4
