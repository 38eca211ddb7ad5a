from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image
from tests.sources import picture, write
from tests.tiffs import RGB, tiff

from perikarya.data.images import ImageError, pixel_sha256, read_rgb
from perikarya.data.picture_segments import SegmentCache
from perikarya.data.picture_tiff import TiffPicture
from perikarya.data.pictures import DecodedPicture, open_picture

TILED = {"photometric": "rgb", "tile": (64, 96)}
Pixels = NDArray[Any]


def whole(path: Path, **options: Any) -> Pixels:
    with open_picture(path, **options) as opened:
        return opened.read(0, 0, opened.width, opened.height)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".tif"])
def test_small_pictures_have_the_pixels_and_the_identity_they_always_had(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / f"a{suffix}", RGB)
    with open_picture(path) as opened:
        assert isinstance(opened, DecodedPicture)
        assert (opened.height, opened.width, opened.max_16bit, opened.um_per_px) == (300, 420, 0, None)
        assert opened.sha256 == pixel_sha256(read_rgb(path))
        np.testing.assert_array_equal(opened.read(13, 7, 100, 50), read_rgb(path)[7:57, 13:113])


VARIANTS: dict[str, tuple[Callable[[Pixels], Pixels], dict[str, Any]]] = {
    "rgb": (lambda rgb: rgb, {}),
    "planar": (lambda rgb: np.moveaxis(rgb, 2, 0), {"planarconfig": "separate"}),
    "grey": (lambda rgb: rgb[..., 0], {"photometric": "minisblack"}),
    "white is zero": (lambda rgb: rgb[..., 0], {"photometric": "miniswhite"}),
    "16 bits": (lambda rgb: rgb.astype(np.uint16) * 201, {}),
    "grey, 16 bits": (lambda rgb: rgb[..., 0].astype(np.uint16) * 201, {"photometric": "minisblack"}),
    "big endian": (lambda rgb: rgb.astype(np.uint16) * 201, {"byteorder": ">"}),
    "transparent": (lambda rgb: np.dstack([rgb, rgb[..., 0]]), {"extrasamples": ["unassalpha"]}),
    "fourth channel": (lambda rgb: np.dstack([rgb, rgb[..., 0]]), {"extrasamples": ["unspecified"]}),
}


LOSSLESS = ("none", "zlib", "zlib+", "packbits", "lzw", "lzw+")  # +: with a predictor
TILES = [(variant, compression) for variant in VARIANTS for compression in LOSSLESS] + [
    (variant, "jpeg") for variant in ("rgb", "planar", "grey", "white is zero")
]


@pytest.mark.parametrize(("variant", "compression"), TILES)
@pytest.mark.usefixtures("by_window")
def test_tiles_give_the_pixels_and_the_identity_of_the_whole_picture(
    tmp_path: Path, variant: str, compression: str
) -> None:
    if compression[:3] in ("lzw", "jpe"):
        pytest.importorskip("imagecodecs", reason="extra slides is not installed")
    make, options = VARIANTS[variant]
    pixels = make(RGB)
    name = {"none": None}.get(compression, compression.strip("+"))
    path = tiff(
        tmp_path / "a.tif", pixels, tile=(64, 96), compression=name, predictor=compression.endswith("+"), **options
    )
    expected = read_rgb(path)
    with open_picture(path, cache_bytes=100_000) as opened:
        assert isinstance(opened, TiffPicture)
        np.testing.assert_array_equal(opened.read(0, 0, 420, 300), expected, strict=True)
        np.testing.assert_array_equal(opened.read(60, 90, 140, 111), expected[90:201, 60:200], strict=True)
        assert opened.sha256 == pixel_sha256(expected)
        assert opened.max_16bit == (expected.max() if expected.dtype == np.uint16 else 0)


@pytest.mark.parametrize("variant", [name for name in VARIANTS if name != "fourth channel"])
@pytest.mark.parametrize("rows", [7, 64, 10_000])
@pytest.mark.usefixtures("large")
def test_strips_of_large_pictures_are_read_one_by_one(tmp_path: Path, variant: str, rows: int) -> None:
    make, options = VARIANTS[variant]
    for compression in (None, "zlib"):
        path = tiff(tmp_path / "a.tif", make(RGB), rowsperstrip=rows, compression=compression, **options)
        with open_picture(path) as opened:
            assert isinstance(opened, TiffPicture)
            np.testing.assert_array_equal(opened.read(0, 0, 420, 300), read_rgb(path), strict=True)
            np.testing.assert_array_equal(opened.read(3, 130, 40, 111), read_rgb(path)[130:241, 3:43], strict=True)


@pytest.mark.usefixtures("large")
def test_a_whole_picture_in_one_strip_is_read_in_bands(tmp_path: Path) -> None:
    rgb = picture(1, (900, 700))
    path = tiff(tmp_path / "a.tif", rgb, rowsperstrip=900)
    with open_picture(path, cache_bytes=1) as opened:
        assert isinstance(opened, TiffPicture)
        assert opened._parts[0].segment_height < 900
        np.testing.assert_array_equal(opened.read(5, 490, 300, 330), rgb[490:820, 5:305])
        np.testing.assert_array_equal(opened.read(0, 899, 700, 1), rgb[899:])


@pytest.mark.usefixtures("large")
def test_tiff_files_of_other_programs_are_read_by_window(tmp_path: Path) -> None:
    for name, options in {
        "deflate": {"compression": "tiff_deflate"},
        "lzw": {"compression": "tiff_lzw"},
        "raw": {},
    }.items():
        path = tmp_path / f"{name}.tif"
        Image.fromarray(RGB).save(path, **options)
        np.testing.assert_array_equal(whole(path), RGB)
    assert cv2.imwrite(str(tmp_path / "cv.tif"), RGB[..., ::-1])
    np.testing.assert_array_equal(whole(tmp_path / "cv.tif"), RGB)


@pytest.mark.usefixtures("by_window")
@pytest.mark.parametrize("codec", ["zstd", "jpeg2000"])
def test_compressions_that_need_imagecodecs_say_so(tmp_path: Path, codec: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("imagecodecs", reason="extra slides is not installed")
    path = tiff(tmp_path / "a.tif", RGB, tile=(64, 96), compression=codec)
    np.testing.assert_array_equal(whole(path), RGB)
    monkeypatch.setattr("perikarya.data.picture_segments.find_spec", lambda _name: None)
    if codec == "jpeg2000":  # Pillow knows the other one
        with pytest.raises(ImageError, match=r"JPEG 2000, which needs imagecodecs: pip install 'perikarya\[slides\]'"):
            open_picture(path)


@pytest.mark.usefixtures("large")
def test_large_pictures_are_named_by_the_bytes_of_their_file(tmp_path: Path) -> None:
    path = tiff(tmp_path / "a.tif", RGB.astype(np.uint16), **TILED)
    with open_picture(path) as opened:
        assert opened.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
        assert opened.max_16bit == 65535  # the pixels were not looked at


@pytest.mark.usefixtures("large")
def test_large_16_bit_pictures_tell_the_bits_of_their_camera(tmp_path: Path) -> None:
    wide = RGB.astype(np.uint16) * 16
    path = tiff(tmp_path / "a.ome.tif", wide, metadata={"axes": "YXS", "SignificantBits": 12}, **TILED)
    with open_picture(path) as opened:
        assert opened.max_16bit == 4095
        np.testing.assert_array_equal(opened.read8(0, 0, 420, 300, bits=12), RGB)
    path = tiff(tmp_path / "b.tif", wide, extratags=[(281, "H", 3, (1023, 1023, 1023), True)], **TILED)
    with open_picture(path) as opened:
        assert opened.max_16bit == 1023


def test_a_window_beyond_the_picture_is_a_mistake_of_the_program(tmp_path: Path) -> None:
    with open_picture(write(tmp_path / "a.png", RGB)) as opened:
        for window in ((0, 0, 421, 1), (-1, 0, 5, 5), (0, 299, 1, 2), (0, 0, 0, 5), (0, 0, 5, 0), (420, 0, 1, 1)):
            with pytest.raises(ValueError, match="window"):
                opened.read(*window)


def test_what_is_read_is_the_readers_to_change(tmp_path: Path) -> None:
    for path in (write(tmp_path / "a.png", RGB), tiff(tmp_path / "b.tif", tile=(64, 96), compression="jpeg2000")):
        with open_picture(path) as opened:
            opened.read(0, 0, 50, 50)[:] = 0
            np.testing.assert_array_equal(opened.read(0, 0, 50, 50), RGB[:50, :50])


@pytest.mark.usefixtures("by_window")
def test_windows_may_be_read_from_several_threads(tmp_path: Path) -> None:
    path = tiff(tmp_path / "a.tif", RGB, tile=(32, 32), compression="zlib")
    rng = np.random.default_rng(0)
    corners = [(int(rng.integers(0, 340)), int(rng.integers(0, 220))) for _ in range(400)]
    with open_picture(path, cache_bytes=10_000) as opened, ThreadPoolExecutor(8) as pool:
        for (x, y), seen in zip(corners, pool.map(lambda xy: opened.read(*xy, 80, 80), corners), strict=True):
            np.testing.assert_array_equal(seen, RGB[y : y + 80, x : x + 80])


def test_the_cache_keeps_what_was_used_last_and_no_more_than_it_may() -> None:
    cache = SegmentCache(250)
    decoded: list[str] = []

    def ask(key: str) -> None:
        def decode() -> Pixels:
            decoded.append(key)
            return np.zeros(100, np.uint8)

        cache.get(key, decode)

    for key in "abacabb":
        ask(key)
    assert decoded == ["a", "b", "c", "b"]  # c pushed b out, for a was used after it; then b pushed c out


_MEASURE = """
import sys, numpy as np, psutil
from pathlib import Path
from perikarya.data.pictures import open_picture
path, n = Path(sys.argv[1]), int(sys.argv[2])
rng = np.random.default_rng(0)
with open_picture(path, cache_bytes=16 * 2**20) as opened:
    opened.read(0, 0, 80, 80)
    before = psutil.Process().memory_info().rss
    for _ in range(n):
        x, y = rng.integers(0, opened.width - 80), rng.integers(0, opened.height - 80)
        opened.read(int(x), int(y), 80, 80)
    print(psutil.Process().memory_info().rss - before)
"""


def _growth_bytes(path: Path, n_windows: int) -> int:
    done = subprocess.run(
        [sys.executable, "-c", _MEASURE, str(path), str(n_windows)], capture_output=True, text=True, check=True
    )
    return int(done.stdout)


def write_by_tile(path: Path, side: int, tile: int = 256) -> None:
    """Write a tiled TIFF without ever holding it."""
    rng = np.random.default_rng(0)
    one = rng.integers(0, 256, (tile, tile, 3), dtype=np.uint8)
    n_tiles = (-(-side // tile)) ** 2
    tiles = (one for _ in range(n_tiles))
    tifffile.imwrite(
        path, tiles, shape=(side, side, 3), dtype=np.uint8, tile=(tile, tile), photometric="rgb", metadata=None
    )


def test_reading_windows_keeps_memory_flat(tmp_path: Path) -> None:
    write_by_tile(tmp_path / "a.tif", 4100)  # 50 MB decoded
    assert _growth_bytes(tmp_path / "a.tif", 500) < 30 * 2**20


@pytest.mark.slow
def test_reading_windows_of_a_slide_keeps_memory_flat(tmp_path: Path) -> None:
    write_by_tile(tmp_path / "a.tif", 12_000)  # 432 MB decoded
    assert _growth_bytes(tmp_path / "a.tif", 500) < 30 * 2**20
