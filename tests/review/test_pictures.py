"""Crops as pictures: the pixels of the study, and an outline that lies on the border of the mask."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from perikarya.review.pictures import crop_png


def _crop(side: int, *, radius: float) -> NDArray[np.uint8]:
    crop = np.random.default_rng(side).integers(0, 256, (side, side, 4), np.uint8)
    y, x = np.mgrid[:side, :side] - (side - 1) / 2
    crop[..., 3] = (x**2 + y**2 <= radius**2) * 255
    return crop


def _pixels(png: bytes) -> NDArray[np.uint8]:
    return np.asarray(cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)[..., ::-1], np.uint8)


def test_a_plain_crop_has_the_pixels_of_the_study_in_their_colours() -> None:
    crop = _crop(33, radius=9)
    np.testing.assert_array_equal(_pixels(crop_png(crop, outlined=False)), crop[..., :3])


@pytest.mark.parametrize("side", [8, 33, 80, 200])
def test_an_outline_touches_nothing_but_the_border_of_the_mask(side: int) -> None:
    crop = _crop(side, radius=side / 4)
    drawn = _pixels(crop_png(crop, outlined=True))
    times = len(drawn) // side
    assert len(drawn) == times * side >= min(160, side)
    larger = np.ones((times, times), np.uint8)
    changed = (drawn != np.kron(crop[..., :3], larger[..., None])).any(axis=2)
    border = cv2.morphologyEx(np.kron(crop[..., 3], larger), cv2.MORPH_GRADIENT, np.ones((7, 7), np.uint8)) > 0
    assert changed.sum() > 2 * np.pi * side / 4 * times
    assert not (changed & ~border).any()


def test_a_hole_has_an_outline_too_and_an_empty_mask_none() -> None:
    crop = _crop(80, radius=30)
    whole = crop_png(crop, outlined=True)
    crop[35:45, 35:45, 3] = 0
    assert crop_png(crop, outlined=True) != whole
    crop[..., 3] = 0
    drawn = _pixels(crop_png(crop, outlined=True))
    np.testing.assert_array_equal(drawn, np.kron(crop[..., :3], np.ones((2, 2, 1), np.uint8)))
