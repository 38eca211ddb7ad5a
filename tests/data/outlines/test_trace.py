from __future__ import annotations

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray

from perikarya.data.outlines.base import CellMask, Outline
from perikarya.data.outlines.raster import mask_of
from perikarya.data.outlines.trace import rings_of, trace, traced

MASKS = arrays(np.uint8, array_shapes(min_dims=2, max_dims=2, max_side=9), elements=st.integers(0, 1)).filter(np.any)


def signed_area(ring: NDArray[np.float64]) -> float:
    x, y = ring.T
    return float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2


@settings(max_examples=200, deadline=None)
@given(MASKS, st.integers(0, 5), st.integers(0, 5))
def test_a_traced_mask_rasterises_to_itself(pixels: NDArray[np.uint8], x: int, y: int) -> None:
    outline = Outline("a", trace(CellMask(pixels, x, y)))
    back = mask_of(outline, height=20, width=20)
    full, expected = np.zeros((20, 20), np.uint8), np.zeros((20, 20), np.uint8)
    full[back.y : back.y + back.mask_hw.shape[0], back.x : back.x + back.mask_hw.shape[1]] = back.mask_hw
    expected[y : y + pixels.shape[0], x : x + pixels.shape[1]] = pixels
    np.testing.assert_array_equal(full, expected)


def test_an_outline_is_traced_once_and_keeps_no_mask() -> None:
    drawn = traced(Outline("a", (), mask=CellMask(np.ones((2, 3), np.uint8), 4, 5)))
    assert drawn.mask is None
    assert shapely.Polygon(drawn.rings[0]).bounds == (4, 5, 7, 7)
    assert traced(drawn) is drawn


@settings(max_examples=200, deadline=None)
@given(MASKS)
def test_rings_are_simple_turn_at_every_point_and_run_clockwise_unless_they_bound_a_hole(
    pixels: NDArray[np.uint8],
) -> None:
    rings = trace(CellMask(pixels, 0, 0))
    for ring in rings:
        steps = np.roll(ring, -1, axis=0) - ring
        assert ((steps == 0).sum(axis=1) == 1).all()  # along the edges of pixels
        assert ((steps[:, 0] == 0) != (np.roll(steps, -1, axis=0)[:, 0] == 0)).all()  # straight runs are one edge
        assert shapely.polygons(ring).is_valid
    # holes turn the other way, so the signed areas add up to the pixels
    assert sum(map(signed_area, rings)) == pixels.sum()


@settings(max_examples=100, deadline=None)
@given(MASKS)
def test_rings_make_valid_polygons_with_holes(pixels: NDArray[np.uint8]) -> None:
    outer = [shapely.Polygon(ring) for ring in trace(CellMask(pixels, 0, 0)) if signed_area(ring) > 0]
    holes = [shapely.Polygon(ring) for ring in trace(CellMask(pixels, 0, 0)) if signed_area(ring) < 0]
    for hole in holes:
        around = min((part for part in outer if part.covers(hole)), key=lambda part: part.area)
        whole = shapely.Polygon(around.exterior.coords, [hole.exterior.coords])
        assert whole.is_valid, shapely.is_valid_reason(whole)


def test_a_square_is_four_corners() -> None:
    (ring,) = trace(CellMask(np.ones((2, 3), np.uint8), x=10, y=20))
    assert {tuple(point) for point in ring.tolist()} == {(10, 20), (13, 20), (13, 22), (10, 22)}
    assert ring.dtype == np.float64


@pytest.mark.parametrize("pixels", [[[1, 0], [0, 1]], [[0, 1], [1, 0]]])
def test_pixels_that_meet_in_a_corner_are_two_rings(pixels: list) -> None:
    assert len(trace(CellMask(np.array(pixels, np.uint8), 0, 0))) == 2


def test_a_hole_that_touches_the_border_in_a_corner_is_a_ring_of_its_own() -> None:
    pixels = np.array([[1, 1, 1], [1, 0, 1], [1, 1, 0]], np.uint8)
    rings = trace(CellMask(pixels, 0, 0))
    assert sorted(map(signed_area, rings)) == [-1, 8]


def test_the_rings_of_an_outline_are_its_own_or_those_of_its_pixels() -> None:
    ring = np.array([(0, 0), (4, 0), (4, 4)], float)
    assert rings_of(Outline("a", (ring,))) == (ring,)
    (traced,) = rings_of(Outline("a", mask=CellMask(np.ones((1, 1), np.uint8), 3, 4)))
    assert traced.min(axis=0).tolist() == [3, 4]
