"""Rules of the one resampling: it agrees with scipy, bends stay small and never fold."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage
from scipy.interpolate import BSpline
from tests.crops import blob, encode_mask, keys, only, ramps, random_crops

from perikarya.data.augment import Augmenter
from perikarya.data.warp import N_CONTROL, _bent_maps, warp


def some_bend(largest: float, *, seed: int = 0) -> NDArray[np.float64]:
    return np.random.default_rng(seed).uniform(-largest, largest, (2, N_CONTROL, N_CONTROL))


def turned(degrees: float, step: float) -> NDArray[np.float64]:
    angle = np.deg2rad(degrees)
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) * step


@pytest.mark.parametrize("degrees", [0.0, 17.0, 90.0, 133.0])
@pytest.mark.parametrize("step", [0.4, 1.0, 1.3, 3.5])
def test_warping_agrees_with_scipy(degrees: float, step: float) -> None:
    crop = random_crops(1, 40)[0]
    crop[..., 3] = 255
    linear = turned(degrees, step)
    shift = np.array([3.2, -1.7])
    out = np.empty((56, 56, 4), np.uint8)
    warp(crop, linear, shift, out, extent=40)
    yx = linear[::-1, ::-1]
    offset = np.array([19.5, 19.5]) - shift[::-1] - yx @ np.array([27.5, 27.5])
    for channel in range(4):
        mode = "reflect" if channel < 3 else "grid-constant"
        expected = ndimage.affine_transform(
            crop[..., channel].astype(float), yx, offset, (56, 56), order=1, mode=mode, cval=0
        )
        assert np.abs(out[..., channel] - expected).max() < (2.0 if channel < 3 else 5.0)


@pytest.mark.parametrize(("px", "out_px"), [(40, 56), (64, 64), (90, 31)])
def test_bending_agrees_with_scipy(px: int, out_px: int) -> None:
    """A cubic B-spline of scipy with knots outside the result, and an interpolation of scipy."""
    crop = random_crops(1, px)[0]
    crop[..., 3] = 255
    linear, shift, bend = turned(25, px / out_px), np.array([3.2, -1.7]), some_bend(0.1)
    out = np.empty((out_px, out_px, 4), np.uint8)
    warp(crop, linear, shift, out, extent=px, bend=bend)
    step = out_px / (N_CONTROL - 3)
    knots = (np.arange(N_CONTROL + 4) - 3) * step - 0.5
    basis = BSpline(knots, np.eye(N_CONTROL), 3)(np.arange(out_px))
    moved = np.einsum("yj,cjk,xk->cyx", basis, bend * out_px, basis)
    rows, columns = np.indices((out_px, out_px))
    place = np.stack([columns, rows]) + moved - (out_px - 1) / 2
    x, y = np.einsum("ab,byx->ayx", linear, place) + ((px - 1) / 2 - shift)[:, None, None]
    for channel in range(4):
        mode = "reflect" if channel < 3 else "grid-constant"
        expected = ndimage.map_coordinates(crop[..., channel].astype(float), [y, x], order=1, mode=mode)
        assert np.abs(out[..., channel] - expected).max() < (2.5 if channel < 3 else 9)


@pytest.mark.parametrize("degrees", [0.0, 33.0])
def test_a_bend_of_nothing_is_the_affine_map(degrees: float) -> None:
    crop = random_crops(1, 48)[0]
    straight, bent = np.empty((2, 64, 64, 4), np.uint8)
    warp(crop, turned(degrees, 0.75), np.ones(2), straight, extent=48)
    warp(crop, turned(degrees, 0.75), np.ones(2), bent, extent=48, bend=np.zeros((2, N_CONTROL, N_CONTROL)))
    assert np.abs(straight[..., :3].astype(int) - bent[..., :3]).max() <= 2


def test_no_pixel_moves_further_than_the_setting_says() -> None:
    px, share = 200, 0.1
    out = Augmenter(only(elastic=share), out_px=px).batch(np.stack([ramps(px)] * 60), keys(60)).astype(int)
    rows, columns = np.indices((px, px))
    seen = out[..., 3] > 0  # elsewhere the picture is a reflection
    moved = np.stack([out[..., 0] - columns, out[..., 1] - rows])[:, seen]
    assert np.abs(moved).max() <= share * px + 1
    assert np.abs(moved).max() > 0.6 * share * px
    assert 0.2 < moved.std() / (share * px) < 0.4


def test_what_a_bend_brings_in_from_beyond_the_border_is_a_reflection_without_mask() -> None:
    crops = np.full((40, 48, 48, 4), 255, np.uint8)
    out = Augmenter(only(elastic=0.2, scale=0.3), out_px=48).batch(crops, keys(40))
    assert (out[..., :3] == 255).all()
    assert (out[..., 3] == 0).any(axis=(1, 2)).mean() > 0.6


def test_neighbours_move_alike() -> None:
    """The displacement is smooth: it changes over the window, hardly from one pixel to the next."""
    map_x, map_y = _bent_maps(np.eye(2), some_bend(0.05), (100.0, 100.0), 200)
    for axis, along in ((0, map_y), (1, map_x)):
        steps = np.diff(along, axis=axis)
        assert 0.6 < steps.min() < 0.95
        assert 1.05 < steps.max() < 1.4
        assert np.abs(np.diff(steps, axis=axis)).max() < 0.01


@settings(max_examples=200, deadline=None)
@given(signs=st.lists(st.sampled_from([-1, 1]), min_size=2 * N_CONTROL**2, max_size=2 * N_CONTROL**2))
def test_the_largest_bend_of_the_settings_never_folds_the_picture(signs: list[int]) -> None:
    bend = 0.2 * np.array(signs, float).reshape(2, N_CONTROL, N_CONTROL)
    map_x, map_y = _bent_maps(np.eye(2), bend, (32.0, 32.0), 64)
    (x_down, x_across), (y_down, y_across) = np.gradient(map_x), np.gradient(map_y)
    assert (x_across * y_down - x_down * y_across).min() > 0


def test_elastic_changes_outlines_but_hardly_their_area() -> None:
    crops = np.stack([encode_mask(blob(80))] * 100)
    masks = Augmenter(only(elastic=0.05), out_px=80).batch(crops, keys(100))[..., 3] > 0
    area = masks.sum(axis=(1, 2)) / (crops[0, ..., 3] > 0).sum()
    assert 0.9 < area.mean() < 1.1
    assert area.std() > 0.01
    assert (masks != (crops[..., 3] > 0)).any(axis=(1, 2)).all()


def test_a_shear_slants_by_at_most_its_angle_and_keeps_areas_and_the_middle() -> None:
    px, n = 128, 200
    crops = np.stack([ramps(px)] * n)
    out = Augmenter(only(shear_deg=20), out_px=px).batch(crops, keys(n)).astype(float)
    inner = out[:, :, 26:-26]  # what stays in the window
    across, down = np.diff(inner[..., 0], axis=2).mean(axis=(1, 2)), np.diff(inner[..., 0], axis=1).mean(axis=(1, 2))
    slant = np.rad2deg(np.arctan(down))
    np.testing.assert_allclose(across, 1, atol=0.02)
    np.testing.assert_array_equal(np.diff(inner[..., 1], axis=2), 0)  # rows stay rows
    np.testing.assert_allclose(np.diff(inner[..., 1], axis=1), 1)
    assert 19 < slant.max() < 20.6
    assert -20.6 < slant.min() < -19
    middle = out[:, px // 2 - 1 : px // 2 + 1, px // 2 - 1 : px // 2 + 1, 0].mean(axis=(1, 2))
    np.testing.assert_allclose(middle, (px - 1) / 2, atol=1)
