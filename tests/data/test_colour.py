"""Rules of colour: white stays white, gains act on stains, a cover never touches the cell."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from tests.crops import keys, only, random_crops

from perikarya.data.augment import Augmenter
from perikarya.data.colour import bend_gamma, cover, restain, stain_matrices

# Ruifrok & Johnston 2001, as printed in scikit-image's colorconv.rgb_from_hed
HED = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]])
gains = st.floats(0.0, 2.0)


def every_colour(n: int = 30) -> NDArray[np.uint8]:
    """A square crop of colours all over the cube, black and white among them, under a mask of all shades."""
    rng = np.random.default_rng(0)
    crop = rng.integers(0, 256, (n, n, 4), dtype=np.uint8)
    crop[0, 0], crop[0, 1] = (0, 0, 0, 255), (255, 255, 255, 0)
    return crop


# --- stains


def test_with_gains_of_one_no_colour_changes_by_more_than_one_level() -> None:
    crop = every_colour(200)
    out = restain(crop, stain_matrices(np.ones((1, 3)))[0])
    assert np.abs(out.astype(int) - crop).max() <= 1


@settings(max_examples=50, deadline=None)
@given(gain=st.tuples(gains, gains, gains))
def test_whatever_the_gains_white_stays_white_and_the_mask_as_it_is(gain: tuple[float, float, float]) -> None:
    crop = every_colour()
    out = restain(crop, stain_matrices(np.array([gain]))[0])
    assert out[0, 1].tolist() == [255, 255, 255, 0]
    np.testing.assert_array_equal(out[..., 3], crop[..., 3])


@pytest.mark.parametrize("gain", [(1.3, 1.0, 1.0), (1.0, 0.7, 1.0), (1.0, 1.0, 1.4), (0.8, 1.2, 0.9)])
def test_stains_are_unmixed_scaled_and_mixed_again(gain: tuple[float, float, float]) -> None:
    crop = every_colour()
    out = restain(crop, stain_matrices(np.array([gain]))[0])[..., :3]
    density = -np.log10((crop[..., :3] + 1.0) / 256)
    stains = np.linalg.solve(HED.T, density.reshape(-1, 3).T).T  # one row per pixel: how much of each stain
    expected = 256 * 10 ** -(stains * gain @ HED).reshape(density.shape) - 1
    assert np.abs(out - np.clip(expected, 0, 255)).max() <= 1


@pytest.mark.parametrize("stain", [0, 1, 2])
def test_a_pure_stain_answers_to_its_own_gain_alone(stain: int) -> None:
    crop = np.full((2, 2, 4), 255, np.uint8)
    crop[..., :3] = np.rint(256 * np.exp(-0.8 * HED[stain]) - 1)
    for other in range(3):
        gain = np.ones((1, 3))
        gain[0, other] = 1.5
        out = restain(crop, stain_matrices(gain)[0])[0, 0, :3].astype(int)
        expected = 256 * np.exp(-(1.2 if other == stain else 0.8) * HED[stain]) - 1
        assert np.abs(out - expected).max() <= 2


def test_stains_of_an_augmenter_stay_in_their_range_and_differ_between_cells() -> None:
    crops = np.full((300, 8, 8, 4), 255, np.uint8)
    crops[..., :3] = np.rint(256 * np.exp(-HED[0]) - 1)  # haematoxylin of density 1
    out = Augmenter(only(stain=0.2), out_px=8).batch(crops, keys(300))[:, 0, 0, :3]
    gain = -np.log((out + 1.0) / 256) / HED[0]
    assert 1.18 < gain[:, :2].max() < 1.22
    assert 0.78 < gain[:, :2].min() < 0.82
    assert len(np.unique(out, axis=0)) > 30


def test_gamma_keeps_all_shades_of_a_mask() -> None:
    """A mask that has been shrunk is grey until it is made binary again: bent greys would move the outline."""
    crop = every_colour()
    out = bend_gamma(crop, 1.7)
    np.testing.assert_array_equal(out[..., 3], crop[..., 3])
    np.testing.assert_array_equal(out[..., 0], np.rint(255 * (crop[..., 0] / 255) ** 1.7))


# --- cover


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_a_cover_greys_its_rectangle_but_for_the_cell(data: st.DataObject) -> None:
    side = data.draw(st.integers(4, 40))
    width, height = (data.draw(st.floats(0.1, 1)) for _ in range(2))
    left, top = data.draw(st.floats(0, 1 - width)), data.draw(st.floats(0, 1 - height))
    crop = random_crops(1, side, seed=data.draw(st.integers(0, 100)))[0]
    out = crop.copy()
    cover(out, np.array([left, top, width, height]))
    np.testing.assert_array_equal(out[..., 3], crop[..., 3])
    inside = crop[..., 3] > 0
    np.testing.assert_array_equal(out[inside], crop[inside])
    middle = (np.arange(side) + 0.5) / side
    far = 0.51 / side  # a pixel is whole: the rectangle's edge is rounded to its border
    across, down = (np.abs(middle - a - w / 2) - w / 2 for a, w in ((left, width), (top, height)))
    distance = np.maximum(across[None, :], down[:, None])
    np.testing.assert_array_equal(out[distance > far], crop[distance > far])
    grey = np.rint(crop[..., :3].mean(axis=(0, 1)))
    assert np.abs(out[(distance < -far) & ~inside, :3] - grey).max(initial=0) <= 1


def test_no_width_covers_nothing() -> None:
    crop = random_crops(1, 20)[0]
    out = crop.copy()
    cover(out, np.zeros(4))
    np.testing.assert_array_equal(out, crop)


def test_an_augmenter_covers_after_all_else_and_never_the_cell() -> None:
    crops = random_crops(40, 48)
    rest = {"rotate_deg": 180, "blur_sigma_px": 1.0, "noise": 0.1}
    plain = Augmenter(only(**rest), out_px=64).batch(crops, keys(40))
    covered = Augmenter(only(**rest, cutout=1), out_px=64).batch(crops, keys(40))
    changed = (plain != covered).any(axis=-1)
    assert not changed[plain[..., 3] > 0].any()
    assert (changed.mean(axis=(1, 2)) > 0.005).mean() > 0.9
    for cell, where in zip(covered, changed, strict=True):
        assert len(np.unique(cell[where], axis=0)) <= 1, "noise or blur came over the rectangle"
