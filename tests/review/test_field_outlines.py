"""Outlines drawn over a field lie where the cells are."""

from __future__ import annotations

import re

import cv2
import numpy as np
import pytest
from tests.sources import disc

from perikarya.data.outlines.base import CellMask
from perikarya.data.picture_base import Picture
from perikarya.data.pictures import DecodedPicture
from perikarya.data.windows import cut_from_picture
from perikarya.review.field_outlines import outline_path


def rings(path: str) -> list[np.ndarray]:
    """Read a path back, as a browser does."""
    assert re.fullmatch(r"(M -?[\d.]+ -?[\d.]+ L( -?[\d.]+ -?[\d.]+)+ Z ?)+", path)
    found = [np.array(re.findall(r"-?[\d.]+", part), float).reshape(-1, 2) for part in path.split("Z")[:-1]]
    assert all((ring * 2 == np.round(ring * 2)).all() for ring in found)
    return found


def overlap(path: str, mask: np.ndarray, *, fine: int = 4) -> float:
    """Intersection over union of a path, filled by the even-odd rule, and the true mask of the image."""
    rows, columns = np.nonzero(mask)
    y0, x0 = max(rows.min() - 9, 0), max(columns.min() - 9, 0)
    part = mask[y0 : rows.max() + 10, x0 : columns.max() + 10] > 0
    inside = np.zeros((part.shape[0] * fine, part.shape[1] * fine), np.uint8)
    # what OpenCV fills includes the edge itself: half a fine pixel less on each side
    corners = [np.round((ring - (x0, y0)) * fine * 16 - 8).astype(np.int32) for ring in rings(path)]
    cv2.fillPoly(inside, corners, 1, shift=4)
    found = inside.reshape(part.shape[0], fine, part.shape[1], fine).mean(axis=(1, 3)) >= 0.5
    return float((found & part).sum() / (found | part).sum())


def cut(mask: np.ndarray, *, window_px: int, scale: float = 1.0) -> tuple[np.ndarray, float, float]:
    """Cut a cell as an import does; return its mask in the window and its centroid in the image."""
    rows, columns = np.nonzero(mask)
    y, x = rows.min(), columns.min()
    inside = (mask[y : rows.max() + 1, x : columns.max() + 1] > 0).astype(np.uint8)
    picture: Picture = DecodedPicture(np.zeros((*mask.shape, 3), np.uint8), um_per_px=None)
    crop = cut_from_picture(picture, CellMask(inside, int(x), int(y)), window_px=window_px, scale=scale)
    return crop[..., 3], float(columns.mean()), float(rows.mean())


def ragged(hw: tuple[int, int], *, seed: int, centre: tuple[int, int], radius: float) -> np.ndarray:
    """A blob without any symmetry."""
    rng = np.random.default_rng(seed)
    angles = np.linspace(0, 2 * np.pi, 9)[:-1]
    reach = radius * rng.uniform(0.6, 1.4, 8)
    corners = np.stack([centre[0] + reach * np.cos(angles), centre[1] + reach * np.sin(angles)], axis=1)
    mask = np.zeros(hw, np.uint8)
    cv2.fillPoly(mask, [np.round(corners).astype(np.int32)], 255)
    return mask


@pytest.mark.parametrize("centre", [(60, 50), (7, 8), (113, 91), (61, 4)])
@pytest.mark.parametrize("seed", [0, 1])
def test_an_outline_lies_on_its_cell_in_the_middle_and_at_the_border_of_an_image(
    centre: tuple[int, int], seed: int
) -> None:
    mask = ragged((100, 120), seed=seed, centre=centre, radius=9)
    window, x_px, y_px = cut(mask, window_px=40)
    path = outline_path(window, x_px=x_px, y_px=y_px, scale=1.0)
    assert overlap(path, mask) > 0.999


@pytest.mark.parametrize("scale", [2.0, 0.5, 1.6])
def test_an_outline_lies_on_its_cell_where_the_window_has_another_scale(scale: float) -> None:
    mask = ragged((200, 240), seed=3, centre=(100, 90), radius=30)
    window, x_px, y_px = cut(mask, window_px=round(100 / scale), scale=scale)
    path = outline_path(window, x_px=x_px, y_px=y_px, scale=scale)
    assert overlap(path, mask) > 0.93


@pytest.mark.parametrize("scale", [1.0, 3.0, 5.0])
def test_a_pixel_of_the_window_covers_as_many_of_the_image_as_its_scale_says(scale: float) -> None:
    window = np.zeros((30, 30), np.uint8)
    window[9:15, 4:14] = 255
    middle_x, middle_y = 40 + scale * 5 - 0.5, 70 + scale * 3 - 0.5  # from the centre of the image's first pixel
    (ring,) = rings(outline_path(window, x_px=middle_x, y_px=middle_y, scale=scale))
    assert ring.min(axis=0).tolist() == [40, 70]
    assert ring.max(axis=0).tolist() == [40 + 10 * scale, 70 + 6 * scale]


def test_holes_and_separate_parts_have_rings_of_their_own() -> None:
    mask = disc((60, 60), radius=18)
    mask[disc((60, 60), radius=7) > 0] = 0
    mask[4:8, 4:8] = 255
    window, x_px, y_px = cut(mask, window_px=60)
    path = outline_path(window, x_px=x_px, y_px=y_px, scale=1.0)
    assert len(rings(path)) == 3
    assert overlap(path, mask) > 0.999


@pytest.mark.parametrize("side", [1, 2, 3])
def test_a_cell_of_few_pixels_keeps_its_corners(side: int) -> None:
    window = np.zeros((20, 20), np.uint8)
    window[9 : 9 + side, 9 : 9 + side] = 255
    middle = 30 + (side - 1) / 2
    path = outline_path(window, x_px=middle, y_px=middle, scale=1.0)
    assert {tuple(p) for p in rings(path)[0].tolist()} == {(a, b) for a in (30, 30 + side) for b in (30, 30 + side)}


def test_an_outline_that_is_not_fine_is_short_and_nearly_as_good() -> None:
    mask = ragged((200, 240), seed=3, centre=(100, 90), radius=30)
    window, x_px, y_px = cut(mask, window_px=100)
    fine, short = (outline_path(window, x_px=x_px, y_px=y_px, scale=1.0, fine=fine) for fine in (True, False))
    assert len(short) < len(fine) / 3
    assert overlap(short, mask) > 0.95
    dot = np.zeros((9, 9), np.uint8)
    dot[4, 4] = 255
    assert outline_path(dot, x_px=4, y_px=4, scale=1.0, fine=False) == "M 4 4 L 5 4 5 5 4 5 Z"


def test_an_empty_mask_has_no_outline() -> None:
    assert outline_path(np.zeros((8, 8), np.uint8), x_px=3, y_px=3, scale=1.0) == ""
