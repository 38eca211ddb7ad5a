"""Rules of augmentation: the mask moves with its image, parameters follow from (seed, epoch, row), nothing aliases."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from perikarya.config import AugmentConfig
from perikarya.data.augment import Augmenter, _uniforms, _warp, cell_keys, resize_batch, tta_views

NOTHING: dict[str, Any] = {
    "flip": False, "rotate_deg": 0, "scale": 0, "translate": 0, "brightness": 0, "contrast": 0, "saturation": 0,
    "gamma": 0, "blur_sigma_px": 0, "noise": 0,
}  # fmt: skip
EVERYTHING = AugmentConfig(gamma=0.2, blur_sigma_px=1.0, noise=0.05)
COLOUR = {"brightness": 0.3, "contrast": 0.3, "saturation": 0.3, "gamma": 0.3, "blur_sigma_px": 1.0, "noise": 0.1}
SIZES = [(64, 64), (40, 112), (80, 64), (96, 40), (50, 21)]


def only(**settings: Any) -> AugmentConfig:
    return AugmentConfig.model_validate({**NOTHING, **settings})


def keys(n: int, *, seed: int = 0, epoch: int = 0) -> NDArray[np.uint64]:
    return cell_keys(np.arange(n), seed=seed, epoch=epoch)


def random_crops(n: int, px: int, *, seed: int = 0) -> NDArray[np.uint8]:
    """Smooth coloured noise with a round mask."""
    rng = np.random.default_rng(seed)
    crops = np.empty((n, px, px, 4), np.uint8)
    for crop in crops:
        noise = cv2.GaussianBlur(rng.normal(0, 1, (px, px, 3)), (0, 0), 3)
        crop[..., :3] = np.clip(128 + 300 * noise, 0, 255)
        crop[..., 3] = blob(px, offset=rng.uniform(-0.1, 0.1, 2) * px)
    return crops


def blob(px: int, *, offset: NDArray[np.float64] | None = None, radii: tuple[float, float] = (0.3, 0.15)) -> Any:
    """An ellipse that stays inside a window however it is turned, as a mask of 0 and 255."""
    y, x = np.mgrid[:px, :px] - (px - 1) / 2
    dx, dy = offset if offset is not None else (0.0, 0.0)
    return ((((x - dx) / radii[0]) ** 2 + ((y - dy) / radii[1]) ** 2) < px**2).astype(np.uint8) * 255


def encode_mask(mask: NDArray[np.uint8], *, dark: int = 0, bright: int = 255) -> NDArray[np.uint8]:
    """A crop whose picture is its mask."""
    picture = np.where(mask > 0, bright, dark).astype(np.uint8)
    return np.stack([picture, picture, picture, mask], axis=-1)


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


@pytest.mark.parametrize("degrees", [0.0, 17.0, 90.0, 133.0])
@pytest.mark.parametrize("step", [0.4, 1.0, 1.3, 3.5])
def test_warping_agrees_with_scipy(degrees: float, step: float) -> None:
    crop = random_crops(1, 40)[0]
    crop[..., 3] = 255
    angle = np.deg2rad(degrees)
    linear = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) * step
    shift = np.array([3.2, -1.7])
    out = np.empty((56, 56, 4), np.uint8)
    _warp(crop, linear, shift, out, extent=40)
    yx = linear[::-1, ::-1]
    offset = np.array([19.5, 19.5]) - shift[::-1] - yx @ np.array([27.5, 27.5])
    for channel in range(4):
        mode = "reflect" if channel < 3 else "grid-constant"
        expected = ndimage.affine_transform(
            crop[..., channel].astype(float), yx, offset, (56, 56), order=1, mode=mode, cval=0
        )
        assert np.abs(out[..., channel] - expected).max() < (2.0 if channel < 3 else 5.0)


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


# --- randomness


def test_a_cell_is_augmented_the_same_in_any_batch_order_or_thread() -> None:
    crops = random_crops(20, 40)
    augmenter = Augmenter(EVERYTHING, out_px=48)
    whole = augmenter.batch(crops, keys(20))
    order = np.random.default_rng(0).permutation(20)
    with ThreadPoolExecutor(4) as pool:
        parts = list(pool.map(lambda i: augmenter.batch(crops[i : i + 1], keys(20)[i : i + 1])[0], order))
    np.testing.assert_array_equal(whole[order], np.stack(parts))


def test_a_key_follows_from_seed_epoch_and_row_alone() -> None:
    rows = np.array([7, 3, 100_000])
    np.testing.assert_array_equal(cell_keys(rows, seed=5, epoch=2)[::-1], cell_keys(rows[::-1], seed=5, epoch=2))
    everything = [cell_keys(np.arange(2000), seed=seed, epoch=epoch) for seed in (-1, 0, 1, 2) for epoch in range(10)]
    assert len(np.unique(np.concatenate(everything))) == 4 * 10 * 2000


def test_a_cell_shown_several_times_gets_a_new_key_each_time() -> None:
    found = cell_keys(np.array([4, 9, 4, 4, 9]), seed=0, epoch=0)
    assert len(set(found.tolist())) == 5
    np.testing.assert_array_equal(found[:2], cell_keys(np.array([4, 9]), seed=0, epoch=0))
    np.testing.assert_array_equal(found[2:4], cell_keys(np.array([4, 4, 4]), seed=0, epoch=0)[1:])
    assert cell_keys(np.array([], dtype=np.int64), seed=0, epoch=0).shape == (0,)


def test_keys_are_what_they_were_when_old_runs_are_resumed() -> None:
    found = [int(k) for k in cell_keys(np.array([0, 1, 12345]), seed=0, epoch=3)]
    assert found == [6283979259779196135, 576307389670797319, 3181183023495194025]


def test_every_draw_is_uniform_and_none_follows_another() -> None:
    draws = _uniforms(keys(20_000), 13)
    assert draws.min() >= 0
    assert draws.max() < 1
    counts = np.stack([np.histogram(d, bins=20, range=(0, 1))[0] for d in draws])
    assert np.abs(counts - 1000).max() < 160  # 5 standard deviations
    off_diagonal = np.corrcoef(draws) - np.eye(13)
    assert np.abs(off_diagonal).max() < 0.035
    assert abs(np.corrcoef(draws[0, :-1], draws[0, 1:])[0, 1]) < 0.035


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
