from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from tests.sources import disc, picture

from perikarya.data import pictures
from perikarya.data.outlines.base import CellMask
from perikarya.data.pictures import DecodedPicture, open_picture
from perikarya.data.windows import cut_from_picture, cut_window, scale_of
from perikarya.errors import DataError

RGB = picture(0, (90, 130))


def cell(x: int, y: int, width: int, height: int) -> CellMask:
    """An ellipse in its bounding box."""
    mask = np.zeros((height, width), np.uint8)
    yy, xx = np.mgrid[:height, :width]
    mask[((xx - (width - 1) / 2) / width) ** 2 + ((yy - (height - 1) / 2) / height) ** 2 <= 0.25] = 1
    return CellMask(mask, x, y)


def on_field(mask: CellMask, hw: tuple[int, int]) -> NDArray[np.uint8]:
    field = np.zeros(hw, np.uint8)
    height, width = mask.mask_hw.shape
    field[mask.y : mask.y + height, mask.x : mask.x + width] = mask.mask_hw
    return field


@settings(max_examples=150, deadline=None)
@given(data=st.data(), window_px=st.integers(8, 300))
def test_at_the_pictures_own_scale_a_window_is_what_is_cut_from_the_whole(data: st.DataObject, window_px: int) -> None:
    width, height = data.draw(st.integers(1, 130)), data.draw(st.integers(1, 90))
    mask = cell(data.draw(st.integers(0, 130 - width)), data.draw(st.integers(0, 90 - height)), width, height)
    expected = cut_window(
        RGB,
        on_field(mask, RGB.shape[:2]),
        centre_xy=(mask.x + width / 2, mask.y + height / 2),
        window_px=window_px,
        keep_inside=False,
    )
    seen = cut_from_picture(DecodedPicture(RGB, um_per_px=None), mask, window_px=window_px)
    np.testing.assert_array_equal(seen, expected, strict=True)


@pytest.mark.parametrize("scale", [1.0, 1.7, 0.6])
def test_a_window_is_the_same_however_the_picture_is_stored(
    tmp_path: Path, scale: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pictures, "SMALL_PIXELS", 0)
    tifffile.imwrite(tmp_path / "a.tif", RGB, photometric="rgb", tile=(16, 16), compression="zlib")
    whole = DecodedPicture(RGB, um_per_px=None)
    with open_picture(tmp_path / "a.tif") as tiled:
        for mask in (cell(0, 0, 12, 9), cell(60, 40, 20, 20), cell(118, 80, 12, 10)):
            np.testing.assert_array_equal(
                cut_from_picture(tiled, mask, window_px=40, scale=scale),
                cut_from_picture(whole, mask, window_px=40, scale=scale),
            )


def test_windows_of_16_bit_pictures_show_the_bits_that_are_asked_for() -> None:
    wide = DecodedPicture(RGB.astype(np.uint16) * 16, um_per_px=None)
    mask = cell(60, 40, 20, 20)
    np.testing.assert_array_equal(
        cut_from_picture(wide, mask, window_px=40, bits=12),
        cut_from_picture(DecodedPicture(RGB, um_per_px=None), mask, window_px=40),
    )


def drawn(um_per_px: float, *, side_um: float = 60.0, radius_um: float = 5.0) -> tuple[DecodedPicture, CellMask]:
    """A dark disc on a bright slide, drawn as a camera sees it: a pixel averages what lies in it."""
    fine = 8
    n = round(side_um / um_per_px)
    at = (np.arange(n * fine) + 0.5) / fine * um_per_px
    inside = (at[None] - side_um / 2) ** 2 + (at[:, None] - side_um / 2) ** 2 <= radius_um**2
    share = inside.reshape(n, fine, n, fine).mean(axis=(1, 3))
    rgb = np.repeat((220 - 180 * share)[..., None], 3, axis=2).round().astype(np.uint8)
    mask = (share >= 0.5).astype(np.uint8)
    y, x = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    box = mask[y[0] : y[-1] + 1, x[0] : x[-1] + 1]
    return DecodedPicture(rgb, um_per_px=um_per_px), CellMask(box, int(x[0]), int(y[0]))


@pytest.mark.parametrize("um_per_px", [0.1, 0.17, 0.25, 0.31, 0.5, 0.65, 0.99])
@pytest.mark.parametrize("target_um_per_px", [0.25, 0.5])
def test_a_cell_has_one_size_at_every_scale(um_per_px: float, target_um_per_px: float) -> None:
    opened, mask = drawn(um_per_px)
    scale = scale_of(opened.um_per_px, target_um_per_px)
    window = cut_from_picture(opened, mask, window_px=80, scale=scale)
    expected_px = np.pi * (5.0 / target_um_per_px) ** 2
    assert (window[..., 3] > 0).sum() == pytest.approx(expected_px, rel=0.04)
    assert ((220 - window[..., 0].astype(float)) / 180).sum() == pytest.approx(expected_px, rel=0.04)
    rows, columns = np.nonzero(window[..., 3])
    centre = (rows.mean() + 0.5, columns.mean() + 0.5)
    # the corner of a window is a whole pixel of the picture
    assert np.abs(np.array(centre) - 40).max() <= 0.5 * max(1, 1 / scale) + 0.1


@pytest.mark.parametrize("scale", [0.37, 0.8, 1.013, 1.37, 2.0, 3.3, 7.9])
def test_pixel_after_pixel_the_scale_is_exact(scale: float) -> None:
    stripes = np.zeros((900, 900, 3), np.uint8)
    at = np.arange(900)
    stripes[..., 0] = (at // 40 % 2 * 255)[None]
    mask = CellMask(np.ones((20, 20), np.uint8), 440, 440)
    window = cut_from_picture(DecodedPicture(stripes, um_per_px=None), mask, window_px=100, scale=scale)
    left = round(450 - 50 * scale)
    fine = (np.arange(100 * 64) + 0.5) / 64 * scale + left
    expected = (np.floor(fine) // 40 % 2 * 255).reshape(100, 64).mean(axis=1)
    edges = np.abs(window[50, :, 0] - expected)
    assert edges.mean() < (0.5 if scale > 1 else 6)
    assert edges.max() <= (4 if scale > 1 else 128)


def test_shrinking_averages_rather_than_picks() -> None:
    board = np.indices((400, 400)).sum(axis=0) % 2 * 255
    rgb = np.repeat(board[..., None], 3, axis=2).astype(np.uint8)
    mask = CellMask(np.ones((20, 20), np.uint8), 190, 190)
    window = cut_from_picture(DecodedPicture(rgb, um_per_px=None), mask, window_px=50, scale=4.0)
    assert np.abs(window[..., :3].astype(int) - 128).max() <= 1


@pytest.mark.parametrize("scale", [0.5, 1.0, 2.5])
def test_beyond_the_border_the_picture_is_reflected_and_the_mask_is_not(scale: float) -> None:
    mask = CellMask(np.ones((10, 10), np.uint8), 0, 0)
    window = cut_from_picture(DecodedPicture(RGB, um_per_px=None), mask, window_px=60, scale=scale)
    rows, columns = np.nonzero(window[..., 3])
    assert rows.min() == pytest.approx(30 - 5 / scale, abs=1)
    assert columns.max() == pytest.approx(30 + 5 / scale - 1, abs=1)
    inside = window[..., :3].astype(float)
    border = int(rows.min())
    if scale == 1:
        np.testing.assert_array_equal(inside[border - 1], inside[border + 1])
    assert inside.std() > 5  # no empty bands


def test_a_cell_smaller_than_a_pixel_is_still_a_cell() -> None:
    mask = CellMask(np.ones((1, 1), np.uint8), 60, 40)
    window = cut_from_picture(DecodedPicture(RGB, um_per_px=None), mask, window_px=10, scale=4.0)
    assert (window[..., 3] == 255).sum() == 1


@pytest.mark.parametrize("scale", [0.3, 0.5, 1.5, 2.0, 4.4])
def test_masks_are_0_or_255_by_half_of_the_area(scale: float) -> None:
    field = disc((200, 200), radius=30)
    rows, columns = np.nonzero(field)
    box = (field[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1] > 0).astype(np.uint8)
    mask = CellMask(box, int(columns.min()), int(rows.min()))
    rgb = np.full((200, 200, 3), 200, np.uint8)
    seen = cut_from_picture(DecodedPicture(rgb, um_per_px=None), mask, window_px=64, scale=scale)[..., 3]
    assert set(np.unique(seen)) <= {0, 255}
    assert (seen > 0).sum() == pytest.approx(min(box.sum() / scale**2, 64**2), rel=0.06)


@pytest.mark.parametrize(("window_px", "scale"), [(80, 1000.0), (80, 1e-6), (2000, 50.0), (80, float("nan"))])
def test_a_scale_that_nobody_means_is_refused(window_px: int, scale: float) -> None:
    mask = CellMask(np.ones((5, 5), np.uint8), 60, 40)
    with pytest.raises(DataError, match=r"(?s)would span .* px of the image .*check the scales"):
        cut_from_picture(DecodedPicture(RGB, um_per_px=None), mask, window_px=window_px, scale=scale)


@pytest.mark.parametrize(
    ("image", "target", "expected"),
    [(None, 0.5, 1.0), (0.5, None, 1.0), (None, None, 1.0), (0.25, 0.5, 2.0), (0.5, 0.25, 0.5), (0.5, 0.504, 1.0)],
)
def test_the_scale_is_pixels_of_the_image_per_pixel_of_the_window(
    image: float | None, target: float | None, expected: float
) -> None:
    assert scale_of(image, target) == pytest.approx(expected)


def test_scales_of_one_calibration_are_not_resampled() -> None:
    assert scale_of(0.5, 0.5 * 1.0099) == 1.0
    assert scale_of(0.5, 0.5 * 1.0101) != 1.0
    assert scale_of(0.5, 0.5 * 0.9901) == 1.0


def test_enlarging_follows_the_pixels_of_the_picture() -> None:
    ramp: Any = np.repeat(np.tile(np.arange(0, 200, 2, dtype=np.uint8), (100, 1))[..., None], 3, axis=2)
    mask = CellMask(np.ones((10, 10), np.uint8), 45, 45)
    window = cut_from_picture(DecodedPicture(ramp, um_per_px=None), mask, window_px=40, scale=0.5)
    expected = cv2.resize(ramp[40:60, 40:60], None, fx=2, fy=2, interpolation=cv2.INTER_LINEAR)
    np.testing.assert_array_equal(window[..., :3], expected)
