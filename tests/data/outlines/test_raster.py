from __future__ import annotations

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from perikarya.data.outlines import raster
from perikarya.data.outlines.base import MAX_COORDINATE, MAX_POINTS, CellMask, Outline, OutlineError
from perikarya.data.outlines.raster import area_of, contains, mask_of

HEIGHT, WIDTH = 30, 40
# quarters of a pixel: many points and edges fall exactly on the centres of pixels, where rules differ
QUARTERS = st.tuples(st.integers(-24, 184), st.integers(-24, 144)).map(lambda xy: (xy[0] / 4, xy[1] / 4))
ANYWHERE = st.tuples(st.floats(-5, WIDTH + 5), st.floats(-5, HEIGHT + 5))
RING = st.lists(st.one_of(QUARTERS, ANYWHERE), min_size=3, max_size=9).map(lambda points: np.array(points, float))
RINGS = st.lists(RING, min_size=1, max_size=3).map(tuple)


def outline(*rings: object) -> Outline:
    return Outline("a", tuple(np.array(ring, float) for ring in rings))


def drawn(mask: CellMask | None, hw: tuple[int, int] = (HEIGHT, WIDTH)) -> NDArray[np.bool_]:
    """Put a mask back into an empty image."""
    full = np.zeros(hw, bool)
    if mask is not None:
        height, width = mask.mask_hw.shape
        full[mask.y : mask.y + height, mask.x : mask.x + width] = mask.mask_hw
    return full


def filled(*rings: object) -> NDArray[np.bool_]:
    try:
        return drawn(mask_of(outline(*rings), height=HEIGHT, width=WIDTH))
    except OutlineError:
        return drawn(None)


def by_hand(rings: tuple[NDArray[np.float64], ...]) -> NDArray[np.bool_]:
    """The rule pixel by pixel, in whole hundredths: count the edges to the left of the centre or through it."""
    full = np.zeros((HEIGHT, WIDTH), bool)
    for ring in rings:
        points = [(round(x * 100), round(y * 100)) for x, y in ring.tolist()]
        for (x0, y0), (x1, y1) in zip(points, [*points[1:], points[0]], strict=True):
            for row in range(HEIGHT):
                at = 100 * row + 50
                if not min(y0, y1) <= at < max(y0, y1):
                    continue
                for column in range(WIDTH):
                    away = (100 * column + 50 - x0) * (y1 - y0) - (at - y0) * (x1 - x0)
                    if away * (1 if y1 > y0 else -1) >= 0:
                        full[row, column] ^= True
    return full


@settings(max_examples=120, deadline=None)
@given(RINGS)
def test_pixels_are_those_whose_centre_lies_inside_an_odd_number_of_rings(rings: tuple) -> None:
    np.testing.assert_array_equal(filled(*rings), by_hand(rings))


@settings(max_examples=60, deadline=None)
@given(RING)
def test_geos_finds_the_same_pixels_off_the_boundary(ring: NDArray[np.float64]) -> None:
    line = shapely.linearrings(np.round(ring, 2))
    shape = shapely.polygons(line)
    if not shape.is_valid:
        return  # GEOS has no even-odd rule
    y, x = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    centres = shapely.points(x, y)
    clear = shapely.distance(centres, line) > 1e-6
    np.testing.assert_array_equal(filled(ring)[clear], shapely.contains(shape, centres)[clear])


@settings(max_examples=60, deadline=None)
@given(st.tuples(QUARTERS, QUARTERS, QUARTERS, QUARTERS))
def test_outlines_that_share_an_edge_share_no_pixel_and_leave_none_out(points: tuple) -> None:
    a, b, c, d = points
    left, right = filled((a, b, c)), filled((a, c, d))
    np.testing.assert_array_equal(left ^ right, filled((a, b, c, d)))
    shapes = [shapely.Polygon(p) for p in ((a, b, c), (a, c, d))]
    if all(shape.is_valid for shape in shapes) and shapes[0].intersection(shapes[1]).area == 0:
        assert not (left & right).any()


@settings(max_examples=40, deadline=None)
@given(RINGS, st.integers(0, 2**32 - 1))
def test_points_are_inside_where_pixels_are(rings: tuple, seed: int) -> None:
    rows, columns = np.random.default_rng(seed).permutation(np.indices((HEIGHT, WIDTH)).reshape(2, -1), axis=1)
    inside = contains(outline(*rings), np.stack([columns, rows], axis=1) + 0.5)
    np.testing.assert_array_equal(inside, filled(*rings)[rows, columns])


@settings(max_examples=40, deadline=None)
@given(RING)
def test_two_decimals_are_enough_for_the_same_pixels(ring: NDArray[np.float64]) -> None:
    np.testing.assert_array_equal(filled(ring), filled(np.round(ring, 2)))
    np.testing.assert_array_equal(filled(ring), filled(np.float32(np.round(ring, 2))))
    np.testing.assert_array_equal(filled(ring), filled(ring[::-1]))
    np.testing.assert_array_equal(filled(ring), filled(np.roll(ring, 2, axis=0)))


def test_a_hundredth_of_a_pixel_decides_and_less_does_not() -> None:
    assert filled([(2.5, 2), (5, 2), (5, 4), (2.5, 4)])[2].nonzero()[0].tolist() == [2, 3, 4]
    assert filled([(2.504, 2), (5, 2), (5, 4), (2.504, 4)])[2].nonzero()[0].tolist() == [2, 3, 4]
    assert filled([(2.51, 2), (5, 2), (5, 4), (2.51, 4)])[2].nonzero()[0].tolist() == [3, 4]


def test_a_mask_is_cut_to_its_pixels_and_knows_its_place() -> None:
    mask = mask_of(outline([(10, 5), (13, 5), (13, 7), (10, 7)]), height=HEIGHT, width=WIDTH)
    assert (mask.x, mask.y) == (10, 5)
    assert mask.mask_hw.dtype == np.uint8
    assert mask.mask_hw.tolist() == [[1, 1, 1], [1, 1, 1]]


def test_what_lies_beyond_the_image_is_cut_off() -> None:
    mask = mask_of(outline([(-9, -9), (3, -9), (3, 99), (-9, 99)]), height=HEIGHT, width=WIDTH)
    assert (mask.x, mask.y, mask.mask_hw.shape) == (0, 0, (HEIGHT, 3))
    mask = mask_of(outline([(38, 28), (99, 28), (99, 99), (38, 99)]), height=HEIGHT, width=WIDTH)
    assert (mask.x, mask.y, mask.mask_hw.shape) == (38, 28, (2, 2))


def test_rings_inside_rings_are_holes_and_islands() -> None:
    squares = [[(i, i), (20 - i, i), (20 - i, 20 - i), (i, 20 - i)] for i in (2, 5, 8)]
    full = filled(*squares)
    assert full.sum() == 16**2 - 10**2 + 4**2
    assert area_of(outline(*squares)) == pytest.approx(full.sum(), rel=0.01)


def test_both_halves_of_a_bow_tie_belong_to_the_cell() -> None:
    full = filled([(0, 0), (20, 20), (20, 0), (0, 20)])
    assert full[10, 2]
    assert full[10, 18]
    assert not full[2, 10]
    assert not full[18, 10]


def test_what_is_encircled_twice_does_not_belong_to_the_cell() -> None:
    square = [(2, 2), (22, 2), (22, 22), (2, 22)]
    inner = [(7, 7), (17, 7), (17, 17), (7, 17)]
    once_more_round = [*square, square[0], inner[0], inner[1], inner[2], inner[3], inner[0]]
    full = filled(once_more_round)
    assert full[4, 4]
    assert not full[12, 12]


def test_a_mask_is_checked_against_the_image_and_cut_to_its_pixels() -> None:
    pixels = np.zeros((6, 8), np.uint8)
    pixels[2:5, 3:7] = 1
    mask = mask_of(Outline("a", mask=CellMask(pixels, x=10, y=20)), height=HEIGHT, width=WIDTH)
    assert (mask.x, mask.y, mask.mask_hw.shape) == (13, 22, (3, 4))
    mask = mask_of(Outline("a", mask=CellMask(pixels, x=-4, y=HEIGHT - 3)), height=HEIGHT, width=WIDTH)
    assert (mask.x, mask.y, mask.mask_hw.shape) == (0, HEIGHT - 1, (1, 3))
    for x, y in ((WIDTH, 0), (-8, 0), (0, -6), (WIDTH - 3, 0)):
        with pytest.raises(OutlineError, match="outside of the image"):
            mask_of(Outline("a", mask=CellMask(pixels, x=x, y=y)), height=HEIGHT, width=WIDTH)


def test_points_lie_in_a_mask_where_its_pixels_are() -> None:
    mask = CellMask(np.array([[1, 0], [1, 1]], np.uint8), x=5, y=7)
    points = np.array([(5.0, 7.0), (5.99, 8.99), (6.5, 7.5), (6.5, 8.5), (4.99, 7.5), (7.0, 8.5), (5.5, 9.0)])
    assert contains(Outline("a", mask=mask), points).tolist() == [True, True, False, True, False, False, False]
    assert area_of(Outline("a", mask=mask)) == 3


SQUARE = [(2, 2), (9, 2), (9, 9), (2, 9)]
REFUSED = {
    "no rings": ((), "0 points; a boundary needs 3"),
    "two points": (([(1, 1), (2, 2)],), "2 points; a boundary needs 3"),
    "a ring of two points among others": ((SQUARE, [(1, 1), (2, 2)]), "2 points; a boundary needs 3"),
    "NaN": (([(1, 1), (np.nan, 2), (3, 9)],), "a coordinate is not a number"),
    "infinite": (([(1, 1), (np.inf, 2), (3, 9)],), "a coordinate is not a number"),
    "far away": (([(1, 1), (2 * MAX_COORDINATE, 2), (3, 9)],), r"a coordinate is 2e\+07 px; the limit is 1e\+07"),
    "too many points": (([(0, 0)] * (MAX_POINTS + 1),), f"the limit is {MAX_POINTS}"),
    "a horizontal line": (([(1, 1), (5, 1), (9, 1)],), "points lie on one line"),
    "a slanted line": (([(1, 1), (5, 5), (9, 9)],), "no pixel centre"),
    "between the centres": (([(1.6, 1.6), (2.4, 1.6), (2, 2.4)],), "no pixel centre"),
    "drawn twice over": (([*SQUARE, *SQUARE],), "drawn twice over"),
    "right of the image": (([(40, 1), (45, 1), (45, 5)],), r"outside of the image of 40 x 30 px \(x from 40 to 45"),
    "above the image": (([(4, -9), (9, -9), (9, 0)],), r"y from -9 to 0"),
    "between border and last centre": (([(39.6, 1), (39.9, 1), (45, 5)],), "no pixel centre"),
}


@pytest.mark.parametrize(("rings", "reason"), REFUSED.values(), ids=REFUSED.keys())
def test_an_unusable_outline_is_refused_with_its_reason(rings: tuple, reason: str) -> None:
    with pytest.raises(OutlineError, match=reason):
        mask_of(outline(*rings), height=HEIGHT, width=WIDTH)


def test_a_cell_as_large_as_a_region_is_refused() -> None:
    huge = outline([(0, 0), (9000, 0), (9000, 9000), (0, 9000)])
    with pytest.raises(OutlineError, match="9000 x 9000 px, too large for a cell; is it a region"):
        mask_of(huge, height=20_000, width=20_000)
    assert contains(huge, np.array([(5.0, 5.0), (9001.0, 5.0)])).tolist() == [True, False]
    assert area_of(huge) == pytest.approx(9000**2)


def test_a_boundary_that_zigzags_without_end_is_refused_before_it_takes_the_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(raster, "MAX_CROSSINGS", 1000)
    zigzag = [(i % 40, 29 * (i % 2)) for i in range(100)]
    with pytest.raises(OutlineError, match="goes up and down over 2900 rows"):
        mask_of(outline(zigzag), height=HEIGHT, width=WIDTH)


def test_a_region_with_very_many_edges_is_asked_about_very_many_points() -> None:
    teeth = np.where(np.arange(1000) % 2, 99, 1)
    comb = outline([*zip(2 * np.arange(1000), teeth, strict=True), (2000, 100), (0, 100)])
    points = np.random.default_rng(0).uniform((0, 0), (2000, 101), (5000, 2))
    inside = contains(comb, points)
    assert inside[points[:, 1].argmax()] == (points[:, 1].max() < 100)
    assert inside[(points[:, 1] > 99.01) & (points[:, 1] < 99.99)].all()
    assert inside[points[:, 1] < 99].mean() == pytest.approx(0.5, abs=0.05)


def test_coordinates_at_the_limit_are_counted_exactly() -> None:
    far = MAX_COORDINATE
    wedge = outline([(-far, -far), (far, far), (-far, far)])  # all that lies below the diagonal
    full = drawn(mask_of(wedge, height=HEIGHT, width=WIDTH))
    np.testing.assert_array_equal(full, np.tri(HEIGHT, WIDTH, k=-1, dtype=bool))


def test_the_smaller_of_two_areas_is_told_by_their_size_without_holes() -> None:
    square = [(0, 0), (100, 0), (100, 100), (0, 100)]
    assert area_of(outline(square)) == pytest.approx(10_000)
    assert area_of(outline(square, [(10, 10), (90, 10), (90, 90), (10, 90)])) == pytest.approx(3600, rel=0.01)
    assert area_of(outline(square, [(200, 0), (210, 0), (210, 10)])) == pytest.approx(10_050, rel=0.01)
    assert area_of(outline([(0, 0), (5, 0), (9, 0)])) == 0
