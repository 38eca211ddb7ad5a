from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image
from tests.sources import picture
from tests.tiffs import RGB, tiff

from perikarya.data.images import ImageError, pixel_sha256
from perikarya.data.pictures import open_picture


def aperio(path: Path) -> Path:
    """Write what an Aperio scanner would: tiles, a thumbnail and a label."""
    words = "Aperio Image Library v11.2.1\r\n420x300 [0,0 420x300] (240x240)"
    with tifffile.TiffWriter(path) as writer:
        options = {"photometric": "rgb", "metadata": None}
        writer.write(
            RGB, tile=(256, 256), compression="jpeg", description=f"{words}|AppMag = 20|MPP = 0.4990", **options
        )
        writer.write(cv2.resize(RGB, (210, 150)), description=f"{words} -> 210x150", **options)
        writer.write(RGB[:99, :77], description=f"{words}\r\nlabel 77x99", subfiletype=1, **options)
    return path


def test_a_scanners_slide_is_read_through_openslide(tmp_path: Path) -> None:
    openslide = pytest.importorskip("openslide", reason="extra slides is not installed")
    path = aperio(tmp_path / "a.svs")
    with open_picture(path) as opened, openslide.OpenSlide(path) as slide:
        assert (opened.width, opened.height, opened.max_16bit) == (420, 300, 0)
        assert opened.um_per_px == pytest.approx(0.499)
        seen = opened.read(200, 100, 90, 60)
        np.testing.assert_array_equal(seen, np.asarray(slide.read_region((200, 100), 0, (90, 60)))[..., :3])
        assert np.abs(seen.astype(int) - RGB[100:160, 200:290]).mean() < 10  # JPEG
        assert opened.sha256 == pixel_sha256(opened.read(0, 0, 420, 300))


@pytest.mark.parametrize("name", ["a.svs", "a.mrxs"])
def test_without_openslide_a_slide_names_the_extra(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("imagecodecs", reason="extra slides is not installed")
    path = aperio(tmp_path / "a.tif").rename(tmp_path / name)
    if name == "a.mrxs":
        path.write_bytes(b"\xff\xd8\xff\xe0 what MIRAX writes begins like a JPEG")
    monkeypatch.setitem(sys.modules, "openslide", None)
    with pytest.raises(ImageError, match=r"needs OpenSlide: pip install 'perikarya\[slides\]'"):
        open_picture(path)


def test_a_broken_slide_gives_a_sentence_without_its_path(tmp_path: Path) -> None:
    pytest.importorskip("openslide", reason="extra slides is not installed")
    (tmp_path / "a.mrxs").write_bytes(b"\xff\xd8\xff\xe0")
    with pytest.raises(ImageError, match="OpenSlide cannot read this slide") as caught:
        open_picture(tmp_path / "a.mrxs")
    assert str(tmp_path) not in str(caught.value)


class _Slide:
    """A slide of which a part was scanned, and in it a hole."""

    dimensions = (1000, 800)
    background: str | None = "FFF0E0"

    def __init__(self, _path: Path) -> None:
        words = {
            "openslide.bounds-x": "300",
            "openslide.bounds-y": "200",
            "openslide.bounds-width": "420",
            "openslide.bounds-height": "300",
            "openslide.background-color": self.background,
        }
        self.properties = {name: word for name, word in words.items() if word is not None}

    def set_cache(self, _cache: object) -> None:
        pass

    def read_region(self, corner: tuple[int, int], _level: int, size: tuple[int, int]) -> Image.Image:
        x, y = corner[0] - 300, corner[1] - 200
        rgba = np.dstack([RGB, np.full((300, 420), 255, np.uint8)])
        rgba[:10, :10] = 0
        return Image.fromarray(rgba[y : y + size[1], x : x + size[0]])

    def close(self) -> None:
        pass


@pytest.mark.parametrize(
    ("background", "rgb"), [("FFF0E0", (255, 240, 224)), (None, (255, 255, 255)), ("white", (255, 255, 255))]
)
def test_coordinates_of_a_slide_begin_where_it_was_scanned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, background: str | None, rgb: tuple[int, int, int]
) -> None:
    monkeypatch.setattr(_Slide, "background", background)
    openslide = pytest.importorskip("openslide", reason="extra slides is not installed")
    monkeypatch.setattr(openslide, "OpenSlide", _Slide)
    (tmp_path / "a.mrxs").write_bytes(b"x")
    with open_picture(tmp_path / "a.mrxs") as opened:
        assert (opened.width, opened.height, opened.um_per_px) == (420, 300, None)
        seen = opened.read(0, 0, 50, 40)
    np.testing.assert_array_equal(seen[:10, :10], np.broadcast_to(np.array(rgb), (10, 10, 3)))
    np.testing.assert_array_equal(seen[10:, 10:], RGB[10:40, 10:50])


@pytest.mark.parametrize("compression", [None, "zlib", "lzw", "jpeg"])
@pytest.mark.usefixtures("by_window")
def test_other_readers_see_the_same_windows(tmp_path: Path, compression: str | None) -> None:
    openslide = pytest.importorskip("openslide", reason="extra slides is not installed")
    tiffslide = pytest.importorskip("tiffslide", reason="tiffslide is not installed")
    rgb = picture(3, (512, 768))
    path = tiff(tmp_path / "a.tif", rgb, tile=(128, 128), compression=compression)
    with open_picture(path) as opened, openslide.OpenSlide(path) as slide, tiffslide.TiffSlide(path) as other:
        for x, y, width, height in ((0, 0, 768, 512), (100, 120, 80, 80), (688, 432, 80, 80), (127, 0, 2, 512)):
            seen = opened.read(x, y, width, height)
            for reader in (slide, other):
                region = np.asarray(reader.read_region((x, y), 0, (width, height)).convert("RGB"))
                np.testing.assert_array_equal(seen, region)
