"""A map becomes a picture in colours that grow lighter with the value."""

from __future__ import annotations

import cv2
import matplotlib as mpl
import numpy as np
import pytest

from perikarya.errors import DataError
from perikarya.review.heat import heat_png


def decoded(content: bytes) -> np.ndarray:
    assert content.startswith(b"\x89PNG")
    return cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)[..., ::-1]


def test_a_map_is_drawn_in_the_colours_of_the_figures() -> None:
    values = np.array([[0.0, 0.25], [0.5, 1.0]], np.float32)
    drawn = decoded(heat_png(values, side_px=2))
    assert drawn.shape == (2, 2, 3)
    expected = (np.array(mpl.colormaps["viridis"](values))[..., :3] * 255).round()
    np.testing.assert_allclose(drawn, expected, atol=1)


def test_it_has_the_size_asked_for_and_lies_as_the_crop_does() -> None:
    values = np.zeros((7, 7), np.float32)
    values[0, 6] = 1
    drawn = decoded(heat_png(values, side_px=70)).astype(int)
    assert drawn.shape == (70, 70, 3)
    brightest = np.unravel_index(drawn.sum(axis=2).argmax(), (70, 70))
    assert brightest[0] < 10 < 60 <= brightest[1]


def test_more_is_lighter_everywhere() -> None:
    ramp = np.tile(np.linspace(0, 1, 64, dtype=np.float32), (64, 1))
    light = cv2.cvtColor(decoded(heat_png(ramp, side_px=64)), cv2.COLOR_RGB2LAB)[0, :, 0].astype(int)
    assert (np.diff(light) >= 0).all()
    assert light[-1] - light[0] > 150


@pytest.mark.parametrize("bad", [np.zeros((0, 3)), np.full((2, 2), np.nan), np.zeros(4), np.zeros((2, 2, 3))])
def test_what_is_no_map_is_refused(bad: np.ndarray) -> None:
    with pytest.raises(DataError, match="cannot be drawn"):
        heat_png(bad, side_px=8)
