"""Rules of augmentation: the mask moves with its image, parameters follow from (seed, epoch, row), nothing aliases."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage
from tests.crops import blob, encode_mask, keys, only, random_crops

from perikarya.config import AugmentConfig
from perikarya.data.augment import Augmenter, resize_batch, tta_views
from perikarya.data.draws import uniforms

EVERYTHING = AugmentConfig(
    gamma=0.2, blur_sigma_px=1.0, noise=0.05, shear_deg=15, elastic=0.05, stain=0.2, cutout=0.5, mixup=1, cutmix=1
)
COLOUR = {"brightness": 0.3, "contrast": 0.3, "saturation": 0.3, "gamma": 0.3, "blur_sigma_px": 1.0, "noise": 0.1,
          "stain": 0.3, "cutout": 1.0}  # fmt: skip
SIZES = [(64, 64), (40, 112), (80, 64), (96, 40), (50, 21)]


# --- the mask and its image


@pytest.mark.parametrize(("px", "out_px"), SIZES)
def test_the_mask_moves_with_its_image(px: int, out_px: int) -> None:
    # small and near the middle: no reflection of it comes into the result
    crops = np.stack([encode_mask(blob(px, offset=np.array([0.03, -0.02]) * px, radii=(0.1, 0.05)))] * 24)
    geometry = only(flip=True, rotate_deg=180, scale=0.15, translate=0.05)
    out = Augmenter(geometry, out_px=out_px).batch(crops, keys(24))
    # one interpolation for all channels: not a single pixel may differ
    np.testing.assert_array_equal(out[..., 0] > 127, out[..., 3] > 0)
    assert (out[..., 3] > 0).any(axis=(1, 2)).all()
    assert len({o.tobytes() for o in out}) == 24


@settings(max_examples=60, deadline=None)
@given(
    size=st.sampled_from(SIZES),
    geometry=st.fixed_dictionaries(
        {
            "flip": st.booleans(),
            "rotate_deg": st.floats(0, 180),
            "scale": st.floats(0, 1),
            "shear_deg": st.floats(0, 45),
            "translate": st.floats(0, 0.5),
            "elastic": st.floats(0, 0.2),
        }
    ),
    seed=st.integers(0, 1000),
)
def test_the_mask_moves_with_its_image_whatever_the_geometry(
    size: tuple[int, int], geometry: dict[str, Any], seed: int
) -> None:
    px, out_px = size
    crops = np.stack([encode_mask(blob(px))] * 4)
    window = crops.copy()
    window[..., 3] = 255
    augmenter = Augmenter(only(**geometry), out_px=out_px)
    out = augmenter.batch(crops, keys(4, seed=seed))
    inside = augmenter.batch(window, keys(4, seed=seed))[..., 3] > 0  # elsewhere the picture is a reflection
    np.testing.assert_array_equal((out[..., 0] > 127) & inside, out[..., 3] > 0)
    assert set(np.unique(out[..., 3])) <= {0, 255}


@pytest.mark.parametrize(("px", "out_px"), SIZES)
def test_the_mask_stays_with_its_image_when_colour_changes_too(px: int, out_px: int) -> None:
    crops = np.stack([encode_mask(blob(px), dark=60, bright=190)] * 24)
    out = Augmenter(AugmentConfig(blur_sigma_px=0.5, noise=0.02), out_px=out_px).batch(crops, keys(24))
    for cell in out:
        inside = cell[..., 3] > 0
        picture = cell[..., 0] > cell[..., 0].mean(dtype=float, where=inside) / 2 + cell[~inside, 0].mean() / 2
        assert (picture != inside).mean() < 0.03


@pytest.mark.parametrize(("px", "out_px"), SIZES)
def test_a_mask_is_0_or_255(px: int, out_px: int) -> None:
    crops = random_crops(8, px)
    for out in (Augmenter(EVERYTHING, out_px=out_px).batch(crops, keys(8)), resize_batch(crops, out_px)):
        assert set(np.unique(out[..., 3])) == {0, 255}


def test_beyond_the_border_the_picture_is_reflected_and_the_mask_is_empty() -> None:
    crops = np.full((16, 48, 48, 4), 255, np.uint8)
    out = Augmenter(only(rotate_deg=180, scale=0.5, translate=0.4), out_px=48).batch(crops, keys(16))
    assert (out[..., :3] == 255).all()
    assert (out[..., 3] == 0).any(axis=(1, 2)).sum() >= 14
    for cell in out:  # a reflected mask would be a second piece, or fill the window
        assert ndimage.label(cell[..., 3])[1] == 1


# --- nothing asked, nothing changed


def test_without_any_change_and_of_the_same_size_a_cell_is_itself() -> None:
    crops = random_crops(4, 48)
    np.testing.assert_array_equal(Augmenter(only(), out_px=48).batch(crops, keys(4)), crops)
    np.testing.assert_array_equal(resize_batch(crops, 48), crops)


@pytest.mark.parametrize(("px", "out_px"), SIZES)
def test_without_any_change_training_sees_what_evaluation_sees(px: int, out_px: int) -> None:
    crops = random_crops(4, px)
    np.testing.assert_array_equal(Augmenter(only(), out_px=out_px).batch(crops, keys(4)), resize_batch(crops, out_px))


@pytest.mark.parametrize(("px", "out_px"), SIZES)
def test_a_turn_too_small_to_see_changes_nothing_visible(px: int, out_px: int) -> None:
    """The warp and the plain resize put pixel centres in the same place."""
    crops = random_crops(4, px)
    out = Augmenter(only(rotate_deg=1e-5), out_px=out_px).batch(crops, keys(4))
    assert np.abs(out[..., :3].astype(int) - resize_batch(crops, out_px)[..., :3]).max() <= 2
    assert ((out[..., 3] > 0) != (resize_batch(crops, out_px)[..., 3] > 0)).mean() < 0.002


@pytest.mark.parametrize(("px", "out_px"), SIZES)
def test_colour_blur_and_noise_never_move_or_change_the_mask(px: int, out_px: int) -> None:
    crops = random_crops(6, px)
    out = Augmenter(only(**COLOUR), out_px=out_px).batch(crops, keys(6))
    np.testing.assert_array_equal(out[..., 3], resize_batch(crops, out_px)[..., 3])
    assert (out[..., :3] != resize_batch(crops, out_px)[..., :3]).any(axis=(1, 2, 3)).all()


def test_the_crops_given_are_not_written_to() -> None:
    crops = random_crops(6, 40)
    before = crops.copy()
    crops.setflags(write=False)  # as a study's crops are mapped
    for out_px in (40, 64, 20):
        Augmenter(EVERYTHING, out_px=out_px).batch(crops, keys(6))
        resize_batch(crops, out_px)
    np.testing.assert_array_equal(crops, before)


def as_asked_for(
    crop: NDArray[np.uint8], numbers: NDArray[np.float64], config: AugmentConfig, out_px: int
) -> NDArray[np.float64]:
    """Do in one line after another, slowly and in floating point, what the defaults ask for; no shrinking."""
    flip_x, flip_y = np.where(numbers[:2] < 0.5, -1, 1)
    angle, zoom, dx, dy, light, contrast, saturation = 2 * numbers[2:9] - 1
    px, picture = crop.shape[0], crop[..., :3].astype(float)
    luma = np.array([0.299, 0.587, 0.114])
    mean = picture.mean(axis=(0, 1)) @ luma
    grey = (picture @ luma)[..., None]
    picture = grey + (1 + saturation * config.saturation) * (picture - grey)
    picture = (mean + (1 + contrast * config.contrast) * (picture - mean)) * (1 + light * config.brightness)
    turn = np.deg2rad(angle * config.rotate_deg)
    zoomed = px / out_px / (1 + config.scale) ** zoom
    y, x = np.indices((out_px, out_px)) - (out_px - 1) / 2
    x, y = x * flip_x, y * flip_y
    source_x = zoomed * (np.cos(turn) * x - np.sin(turn) * y) + (px - 1) / 2 - dx * config.translate * px
    source_y = zoomed * (np.sin(turn) * x + np.cos(turn) * y) + (px - 1) / 2 - dy * config.translate * px
    return np.stack(
        [
            ndimage.map_coordinates(np.clip(channel, 0, 255), [source_y, source_x], order=1, mode="reflect")
            for channel in np.moveaxis(picture, -1, 0)
        ]
        + [255.0 * (ndimage.map_coordinates(crop[..., 3] / 1.0, [source_y, source_x], order=1) > 127.5)],
        axis=-1,
    )


def test_the_defaults_do_what_they_did_before_later_settings_came() -> None:
    """Against another implementation; the numbers drawn are held by tests of ``draws``."""
    crops, config = random_crops(30, 40), AugmentConfig()
    out = Augmenter(config, out_px=56).batch(crops, keys(30))
    numbers = uniforms(keys(30), 13).T
    expected = np.stack([as_asked_for(c, n, config, 56) for c, n in zip(crops, numbers, strict=True)])
    difference = np.abs(out - expected)
    assert difference[..., :3].max() < 4
    assert difference[..., :3].mean() < 0.6
    assert (difference[..., 3] > 0).mean() < 0.002


# --- randomness


def test_a_cell_is_augmented_the_same_in_any_batch_order_or_thread() -> None:
    crops = random_crops(20, 40)
    augmenter = Augmenter(EVERYTHING, out_px=48)
    whole = augmenter.batch(crops, keys(20))
    order = np.random.default_rng(0).permutation(20)
    with ThreadPoolExecutor(4) as pool:
        parts = list(pool.map(lambda i: augmenter.batch(crops[i : i + 1], keys(20)[i : i + 1])[0], order))
    np.testing.assert_array_equal(whole[order], np.stack(parts))


# --- ranges


def test_flips_alone_give_the_four_mirrorings_equally_often() -> None:
    crop = random_crops(1, 33)[0]
    out = Augmenter(only(flip=True), out_px=33).batch(np.stack([crop] * 400), keys(400))
    mirrored = [crop, crop[::-1], crop[:, ::-1], crop[::-1, ::-1]]
    times = [sum(np.array_equal(o, m) for o in out) for m in mirrored]
    assert sum(times) == 400
    assert min(times) > 70


def geometry_of(mask: NDArray[np.uint8]) -> tuple[float, float, float, float]:
    """Angle of the long axis in degrees, area, and centre, of a mask."""
    m = cv2.moments(mask, binaryImage=True)
    angle = 0.5 * np.rad2deg(np.arctan2(2 * m["mu11"], m["mu20"] - m["mu02"]))
    return float(angle), m["m00"], m["m10"] / m["m00"], m["m01"] / m["m00"]


def test_ranges_of_turn_size_and_shift_are_kept_and_used() -> None:
    px, n = 96, 200
    crops = np.stack([encode_mask(blob(px))] * n)
    turned = [geometry_of(o[..., 3]) for o in Augmenter(only(rotate_deg=20), out_px=px).batch(crops, keys(n))]
    angles = np.array([t[0] for t in turned])
    assert 18 < angles.max() < 20.5
    assert -20.5 < angles.min() < -18
    zoomed = [geometry_of(o[..., 3]) for o in Augmenter(only(scale=0.25), out_px=px).batch(crops, keys(n))]
    zoom = np.sqrt(np.array([z[1] for z in zoomed]) / geometry_of(crops[0, ..., 3])[1])
    assert 1.22 < zoom.max() < 1.26
    assert 1 / 1.26 < zoom.min() < 1 / 1.22
    moved = [geometry_of(o[..., 3]) for o in Augmenter(only(translate=0.1), out_px=px).batch(crops, keys(n))]
    shift = np.array([m[2:] for m in moved]) - (px - 1) / 2
    assert (np.abs(shift).max(axis=0) < 0.1 * px + 0.5).all()
    assert (np.abs(shift).max(axis=0) > 0.09 * px).all()


@pytest.mark.parametrize("out_px", [40, 80, 200])
def test_a_shift_is_a_share_of_the_window_whatever_the_size_of_the_result(out_px: int) -> None:
    crops = np.stack([encode_mask(blob(80))] * 20)
    out = Augmenter(only(translate=0.1), out_px=out_px).batch(crops, keys(20))
    centres = np.array([geometry_of(o[..., 3])[2:] for o in out])
    reference = Augmenter(only(translate=0.1), out_px=80).batch(crops, keys(20))
    expected = np.array([geometry_of(o[..., 3])[2:] for o in reference])
    assert np.abs((centres + 0.5) / out_px - (expected + 0.5) / 80).max() < 0.01


def test_brightness_scales_all_light() -> None:
    crops = np.full((300, 16, 16, 4), 100, np.uint8)
    out = Augmenter(only(brightness=0.2), out_px=16).batch(crops, keys(300))[..., :3]
    assert out.max() in (119, 120)
    assert out.min() in (80, 81)


def test_contrast_keeps_the_mean_and_scales_the_deviation() -> None:
    crops = np.stack([encode_mask(blob(32), dark=90, bright=150)] * 200)
    out = Augmenter(only(contrast=0.3), out_px=32).batch(crops, keys(200))[..., :3].astype(float)
    assert np.abs(out.mean(axis=(1, 2, 3)) - crops[0, ..., :3].mean()).max() < 0.6
    ratio = out.std(axis=(1, 2, 3)) / crops[0, ..., :3].std()
    assert 1.27 < ratio.max() < 1.32
    assert 0.68 < ratio.min() < 0.73


def test_saturation_keeps_grey_and_luma() -> None:
    grey = np.full((50, 16, 16, 4), 140, np.uint8)
    augmenter = Augmenter(only(saturation=0.5), out_px=16)
    assert (augmenter.batch(grey, keys(50))[..., :3] == 140).all()
    coloured = grey.copy()
    coloured[..., :3] = (160, 90, 120)
    out = augmenter.batch(coloured, keys(50))[:, 0, 0, :3].astype(float)
    luma = out @ [0.299, 0.587, 0.114]
    assert np.abs(luma - np.dot([160, 90, 120], [0.299, 0.587, 0.114])).max() < 1
    spread = np.ptp(out, axis=1) / 70
    assert 1.4 < spread.max() < 1.52
    assert 0.48 < spread.min() < 0.6


def test_gamma_keeps_black_and_white_and_bends_between() -> None:
    crops = np.zeros((200, 16, 16, 4), np.uint8)
    crops[:, :5], crops[:, 5:10], crops[..., 3] = 255, 64, 255
    out = Augmenter(only(gamma=0.5), out_px=16).batch(crops, keys(200))
    assert (out[:, 0, :, :3] == 255).all()
    assert (out[:, 15, :, :3] == 0).all()
    middle = out[:, 7, 0, 0].astype(float)
    assert middle.max() == pytest.approx(255 * (64 / 255) ** (1 / 1.5), abs=3)
    assert middle.min() == pytest.approx(255 * (64 / 255) ** 1.5, abs=3)


def test_noise_reaches_its_standard_deviation_and_has_mean_zero() -> None:
    crops = np.full((60, 48, 48, 4), 128, np.uint8)
    out = Augmenter(only(noise=0.1), out_px=48).batch(crops, keys(60))[..., :3].astype(float)
    deviation = out.std(axis=(1, 2, 3))
    assert 23 < deviation.max() < 26.5  # 0.1 of 255
    assert deviation.min() < 3
    assert np.abs(out.mean(axis=(1, 2, 3)) - 128).max() < 1
    loudest = out[np.argsort(deviation)[-10:]].reshape(10, -1)
    assert np.abs(np.corrcoef(loudest) - np.eye(10)).max() < 0.2  # not the same noise on every cell


def test_blur_takes_detail_away() -> None:
    crops = np.zeros((60, 32, 32, 4), np.uint8)
    crops[:, ::2] = 255
    out = Augmenter(only(blur_sigma_px=2), out_px=32).batch(crops, keys(60))[..., 0].astype(float)
    inner = out[:, 8:-8].std(axis=(1, 2))
    assert inner.min() < 5
    assert inner.max() > 100


# --- shrinking


@pytest.mark.parametrize(("px", "out_px"), [(80, 64), (256, 112), (96, 48), (100, 33), (90, 31)])
@pytest.mark.parametrize("turned", [False, True])
def test_a_pattern_finer_than_the_result_comes_out_grey(px: int, out_px: int, turned: bool) -> None:
    y, x = np.indices((px, px))
    crops = np.repeat(((x + y) % 2 * 255).astype(np.uint8)[None, :, :, None], 4, axis=3)
    config = only(rotate_deg=180) if turned else only()
    out = Augmenter(config, out_px=out_px).batch(crops, keys(1))[0, ..., 0].astype(float)
    naive = cv2.resize(crops[0], (out_px, out_px), interpolation=cv2.INTER_LINEAR)[..., 0].astype(float)
    assert abs(out.mean() - 127.5) < 2
    assert out.std() < 26  # 127 for the pattern itself
    assert out.std() < 0.5 * naive.std() or naive.std() < 10


def test_shrinking_keeps_the_detail_the_result_can_carry() -> None:
    px, out_px, period = 80, 64, 8
    wave = 127.5 + 100 * np.sin(2 * np.pi * np.arange(px) / period)
    crops = np.repeat(np.broadcast_to(wave, (px, px))[None, :, :, None], 4, axis=3).astype(np.uint8)
    out = resize_batch(crops, out_px)[0, ..., 0].astype(float)
    assert out.std() > 0.85 * crops[0, ..., 0].std()


@pytest.mark.parametrize("px", [97, 100, 131])
def test_a_window_that_is_no_multiple_of_the_whole_factor_is_not_shifted(px: int) -> None:
    crops = encode_mask(blob(px))[None]
    _, area, x, y = geometry_of(resize_batch(crops, 32)[0, ..., 3])
    _, area0, x0, y0 = geometry_of(crops[0, ..., 3])
    assert (x + 0.5) / 32 == pytest.approx((x0 + 0.5) / px, abs=0.006)
    assert (y + 0.5) / 32 == pytest.approx((y0 + 0.5) / px, abs=0.006)
    assert area / 32**2 == pytest.approx(area0 / px**2, rel=0.05)


def test_the_smallest_result_is_the_mean_colour() -> None:
    crops = random_crops(3, 20)
    out = resize_batch(crops, 1)
    assert np.abs(out[:, 0, 0, :3] - crops[..., :3].mean(axis=(1, 2))).max() < 1


# --- views for averaging, and refusals


def test_views_are_the_eight_flips_and_quarter_turns_starting_with_the_cell_itself() -> None:
    x = random_crops(2, 9)
    views = tta_views(x, 8)
    expected = {np.rot90(f, k, axes=(1, 2)).tobytes() for f in (x, x[:, ::-1]) for k in range(4)}
    assert {v.tobytes() for v in views} == expected
    assert len(expected) == 8
    np.testing.assert_array_equal(views[0], x)
    assert all(np.shares_memory(v, x) for v in views)


@pytest.mark.parametrize("n", [1, 2, 4, 8])
def test_fewer_views_are_the_first_of_more(n: int) -> None:
    x = random_crops(1, 9)
    assert len(tta_views(x, n)) == n
    for a, b in zip(tta_views(x, n), tta_views(x, 8), strict=False):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("n", [0, 9])
def test_there_are_eight_views_only(n: int) -> None:
    with pytest.raises(ValueError, match="1 to 8"):
        tta_views(random_crops(1, 9), n)


@pytest.mark.parametrize(
    "crops", [np.zeros((2, 8, 8, 3), np.uint8), np.zeros((2, 8, 9, 4), np.uint8), np.zeros((2, 8, 8, 4))]
)
def test_what_is_not_a_batch_of_crops_is_refused(crops: Any) -> None:
    with pytest.raises(ValueError, match=r"\(n, S, S, 4\)"):
        Augmenter(only(), out_px=8).batch(crops, keys(2))
    with pytest.raises(ValueError, match=r"\(n, S, S, 4\)"):
        resize_batch(crops, 8)


def test_every_crop_needs_its_key() -> None:
    with pytest.raises(ValueError, match="3 crops need as many keys, got 2"):
        Augmenter(only(), out_px=8).batch(random_crops(3, 8), keys(2))
    with pytest.raises(ValueError, match="out_px"):
        Augmenter(only(), out_px=0)


def test_an_empty_batch_stays_empty() -> None:
    empty = np.empty((0, 8, 8, 4), np.uint8)
    assert Augmenter(EVERYTHING, out_px=16).batch(empty, keys(0)).shape == (0, 16, 16, 4)
    assert resize_batch(empty, 16).shape == (0, 16, 16, 4)
