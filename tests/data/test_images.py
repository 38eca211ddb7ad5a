from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image, ImageOps
from tests.sources import disc, picture, write

from perikarya.data.images import ImageError, bits_needed, read_mask, read_rgb, to_8bit

RGB = picture(0, (20, 30))
WIDE = RGB.astype(np.uint16) * 16 + 3  # a camera of 12 bits


def save(path: Path, image: Image.Image, **options: object) -> Path:
    image.save(path, **options)
    return path


@pytest.mark.parametrize("suffix", [".png", ".tif", ".tiff", ".bmp"])
def test_lossless_formats_give_back_their_pixels(tmp_path: Path, suffix: str) -> None:
    np.testing.assert_array_equal(read_rgb(save(tmp_path / f"a{suffix}", Image.fromarray(RGB))), RGB)


def test_the_content_not_the_name_decides_the_format(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", Image.fromarray(RGB))
    np.testing.assert_array_equal(read_rgb(path.rename(tmp_path / "a.jpg")), RGB)


@pytest.mark.parametrize("compression", [None, "zlib", "lzw"])
@pytest.mark.parametrize("colour", [True, False])
def test_16_bit_tiff_keeps_all_its_bits(tmp_path: Path, compression: str | None, colour: bool) -> None:
    pixels = WIDE if colour else WIDE[..., 0]
    if compression == "lzw":
        ordered = pixels[..., ::-1] if colour else pixels
        cv2.imwrite(str(tmp_path / "a.tif"), ordered, [cv2.IMWRITE_TIFF_COMPRESSION, 5])
    else:
        tifffile.imwrite(tmp_path / "a.tif", pixels, compression=compression)
    expected = WIDE if colour else np.repeat(WIDE[..., :1], 3, axis=2)
    np.testing.assert_array_equal(read_rgb(tmp_path / "a.tif"), expected)


@pytest.mark.parametrize("colour", [True, False])
def test_16_bit_png_keeps_all_its_bits(tmp_path: Path, colour: bool) -> None:
    expected = WIDE if colour else np.repeat(WIDE[..., :1], 3, axis=2)
    np.testing.assert_array_equal(read_rgb(write(tmp_path / "a.png", WIDE if colour else WIDE[..., 0])), expected)


@pytest.mark.parametrize("kind", ["png", "tif", "jpg"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_orientation_a_camera_noted_is_applied(tmp_path: Path, kind: str, orientation: int) -> None:
    # a bright top left corner; where it must come to lie, from the EXIF specification (tag 0x0112)
    pixels = np.zeros((16, 32, 3), np.uint8)
    pixels[:8, :8] = 255
    exif = Image.Exif()
    exif[274] = orientation
    seen = read_rgb(save(tmp_path / f"a.{kind}", Image.fromarray(pixels), exif=exif))
    corner = {1: (0, 0), 2: (0, -1), 3: (-1, -1), 4: (-1, 0), 5: (0, 0), 6: (0, -1), 7: (-1, -1), 8: (-1, 0)}
    assert seen.shape[:2] == ((16, 32) if orientation < 5 else (32, 16))
    assert seen[corner[orientation]].min() > 200
    assert (seen.mean(axis=2) > 128).sum() == 64


@pytest.mark.parametrize("orientation", range(1, 9))
def test_16_bit_tiff_is_turned_like_8_bit_tiff(tmp_path: Path, orientation: int) -> None:
    tag = [(274, "H", 1, orientation, True)]
    tifffile.imwrite(tmp_path / "a.tif", RGB, photometric="rgb", extratags=tag)
    tifffile.imwrite(tmp_path / "b.tif", RGB.astype(np.uint16) * 256, photometric="rgb", extratags=tag)
    np.testing.assert_array_equal(read_rgb(tmp_path / "b.tif") // 256, read_rgb(tmp_path / "a.tif"))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_16_bit_png_is_turned_as_pillow_turns_it(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[274] = orientation
    grey = Image.fromarray(RGB[..., 0])
    grey.getexif()[274] = orientation
    save(tmp_path / "a.png", Image.fromarray(RGB[..., 0].astype(np.uint16) * 256), exif=exif)
    seen = read_rgb(tmp_path / "a.png")
    assert seen.dtype == np.uint16
    np.testing.assert_array_equal(seen[..., 0] // 256, np.asarray(ImageOps.exif_transpose(grey)))


def test_transparency_is_laid_on_white(tmp_path: Path) -> None:
    rgba = np.dstack([RGB, np.full(RGB.shape[:2], 255, np.uint8)])
    rgba[:5, :, 3] = 0
    rgba[5:10, :, 3] = 128
    seen = read_rgb(save(tmp_path / "a.png", Image.fromarray(rgba))).astype(float)
    assert (seen[:5] == 255).all()
    np.testing.assert_allclose(seen[5:10], RGB[5:10] * (128 / 255) + 255 * 127 / 255, atol=0.51)
    np.testing.assert_array_equal(seen[10:], RGB[10:])


def test_grey_palette_and_one_bit_images_become_rgb(tmp_path: Path) -> None:
    grey = Image.fromarray(RGB[..., 0])
    np.testing.assert_array_equal(read_rgb(save(tmp_path / "g.png", grey)), np.repeat(RGB[..., :1], 3, axis=2))
    palette = Image.fromarray(RGB).quantize(16)
    np.testing.assert_array_equal(read_rgb(save(tmp_path / "p.png", palette)), np.asarray(palette.convert("RGB")))
    bits = Image.fromarray(RGB[..., 0] > 128)
    np.testing.assert_array_equal(read_rgb(save(tmp_path / "b.tif", bits))[..., 1], (RGB[..., 0] > 128) * 255)


MASK = disc((20, 30), radius=6)
ANY_MASK = {
    "0 and 255": Image.fromarray(MASK),
    "0 and 1": Image.fromarray(MASK // 255),
    "3 and 7": Image.fromarray(MASK // 255 * 4 + 3),
    "one bit": Image.fromarray(MASK > 0),
    "red": Image.fromarray(np.dstack([MASK, MASK * 0, MASK * 0])),
    "alpha": Image.fromarray(np.dstack([MASK * 0 + 9] * 3 + [MASK])),
    "white on transparent": Image.fromarray(np.dstack([MASK] * 4)),
    "palette": Image.fromarray(MASK).convert("P"),
    "smooth edge": Image.fromarray(cv2.GaussianBlur(MASK, (0, 0), 0.8)),
}


@pytest.mark.parametrize("kind", ANY_MASK)
def test_a_mask_is_understood_however_it_was_drawn(tmp_path: Path, kind: str) -> None:
    seen = read_mask(save(tmp_path / "m.png", ANY_MASK[kind]))
    assert seen.dtype == np.uint8
    if kind == "smooth edge":
        assert (seen != MASK // 255).sum() <= 12
    else:
        np.testing.assert_array_equal(seen, MASK // 255)


def test_a_mask_saved_as_jpeg_keeps_its_area(tmp_path: Path) -> None:
    seen = read_mask(save(tmp_path / "m.jpg", Image.fromarray(MASK), quality=60))
    assert (seen != MASK // 255).sum() <= 3


@pytest.mark.parametrize(("largest", "bits"), [(0, 8), (255, 8), (256, 10), (1023, 10), (4095, 12), (65535, 16)])
def test_the_shift_keeps_the_largest_value_and_no_more(largest: int, bits: int) -> None:
    assert bits_needed(largest) == bits
    assert to_8bit(np.array([[largest]], np.uint16), bits=bits).max() == largest >> (bits - 8)


@pytest.mark.parametrize("kind", ["png", "tif", "jpg", "bmp", "16.png", "16.tif"])
def test_a_file_cut_anywhere_is_an_error_never_half_a_picture(tmp_path: Path, kind: str) -> None:
    path = write(tmp_path / f"a.{kind}", WIDE if kind.startswith("16") else RGB)
    content = path.read_bytes()
    for keep in range(0, len(content) - 1, max(1, len(content) // 23)):
        path.write_bytes(content[:keep])
        with pytest.raises(ImageError):
            read_rgb(path)


@pytest.mark.parametrize("kind", ["png", "tif", "jpg", "bmp", "16.png", "16.tif"])
def test_a_damaged_file_gives_pixels_or_an_image_error(tmp_path: Path, kind: str) -> None:
    path = write(tmp_path / f"a.{kind}", WIDE if kind.startswith("16") else RGB)
    content = path.read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(60):
        damaged = bytearray(content)
        for place in rng.integers(0, min(len(content), int(rng.choice([60, 10**9]))), size=3):
            damaged[place] = int(rng.integers(256))
        path.write_bytes(damaged)
        with suppress(ImageError):  # anything else fails the test
            assert read_rgb(path).ndim == 3


def test_a_folder_is_not_an_image(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="not a regular file"):
        read_rgb(tmp_path)
