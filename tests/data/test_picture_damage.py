from __future__ import annotations

import struct
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.sources import write
from tests.tiffs import RGB, UM, edited, pyramid, tiff

from perikarya.data import pictures
from perikarya.data.images import ImageError
from perikarya.data.pictures import open_picture


def test_a_large_compressed_strip_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "MAX_PIXELS", 1000)
    monkeypatch.setattr("perikarya.data.picture_segments.MAX_SEGMENT_BYTES", 100_000)
    path = tiff(tmp_path / "a.tif", rowsperstrip=300, compression="zlib")
    with pytest.raises(ImageError, match=r"one strip of the image holds .* cannot be read by window; save it in tiles"):
        open_picture(path)


@pytest.mark.parametrize(
    ("tag", "value", "reason"),
    [
        (256, 60_000, "nowhere in the file"),  # width
        (322, 64_000, r"one tile of the image holds \d+ MiB"),  # width of a tile
        (322, 0, "damaged"),
        (324, 2**31, "beyond the end of the file"),  # offset of the first tile
        (325, 2**30, "beyond the end of the file"),  # its length
        (274, 6, "turned or mirrored"),
        (317, 3, "transformed before"),
        (262, 5, "colours are stored as SEPARATED"),
    ],
)
@pytest.mark.usefixtures("large")
def test_pages_that_cannot_be_true_are_refused(
    tmp_path: Path, tag: int, value: int, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("perikarya.data.picture_segments.MAX_SEGMENT_BYTES", 2**20)
    options = {"tile": (64, 64), "compression": "zlib", "extratags": [(274, "H", 1, 1, True)], "predictor": True}
    path = tiff(tmp_path / "a.tif", **options)
    with pytest.raises(ImageError, match=reason):
        open_picture(edited(path, tag, value, tmp_path / "b.tif"))


def test_a_small_picture_in_one_huge_tile_is_refused(tmp_path: Path) -> None:
    path = tiff(tmp_path / "a.tif", tile=(64, 64), compression="zlib")
    with pytest.raises(ImageError, match="tiles of 2000000000 x 64 px"):
        open_picture(edited(path, 322, 2_000_000_000, tmp_path / "b.tif"))


@pytest.mark.parametrize("tag", [256, 257, 277, 322, 323])
@pytest.mark.parametrize("limit", [10, 10**7])
def test_sizes_that_are_lists_are_refused(
    tmp_path: Path, tag: int, limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pictures, "MAX_PIXELS", limit)
    path = tiff(tmp_path / "a.tif", tile=(64, 64), compression="zlib")
    with tifffile.TiffFile(path) as opened:
        start = opened.pages.first.tags[tag].offset
    content = bytearray(path.read_bytes())
    # 1000 numbers of 16 bits; a product with the other side would be a list of 10^5 times as many
    content[start + 2 : start + 12] = struct.pack("<HII", 3, 1000, 8)
    path.write_bytes(content)
    with pytest.raises(ImageError, match="damaged"):
        open_picture(path)


@pytest.mark.usefixtures("large")
def test_numbers_that_are_no_shades_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="32-bit numbers"):
        open_picture(tiff(tmp_path / "a.tif", RGB.astype(np.float32)))
    with pytest.raises(ImageError, match="8-bit numbers"):
        open_picture(tiff(tmp_path / "a.tif", RGB.astype(np.int8)))


@pytest.mark.usefixtures("by_window")
def test_a_damaged_tile_spoils_only_its_own_windows(tmp_path: Path) -> None:
    path = tiff(tmp_path / "a.tif", tile=(64, 64), compression="zlib")
    with tifffile.TiffFile(path) as opened:
        offset = opened.pages.first.dataoffsets[0]
    content = bytearray(path.read_bytes())
    content[offset : offset + 20] = bytes(20)
    path.write_bytes(content)
    with open_picture(path) as opened:
        np.testing.assert_array_equal(opened.read(64, 0, 100, 100), RGB[:100, 64:164])
        with pytest.raises(ImageError, match="damaged"):
            opened.read(0, 0, 80, 80)


@pytest.mark.usefixtures("by_window")
def test_a_tile_that_unpacks_to_more_than_it_may_is_cut_or_refused(tmp_path: Path) -> None:
    path = tiff(tmp_path / "a.tif", np.zeros((64, 64, 3), np.uint8), tile=(64, 64), compression="zlib")
    with tifffile.TiffFile(path) as opened:
        offset, count = opened.pages.first.dataoffsets[0], opened.pages.first.databytecounts[0]
    bomb = zlib.compress(bytes(30_000_000), 9)
    content = bytearray(path.read_bytes())
    content[offset : offset + count] = b"\0" * count
    moved = len(content)
    content += bomb
    path.write_bytes(content)
    path = edited(edited(path, 324, moved, path), 325, len(bomb), path)
    with pytest.raises(ImageError, match="compressed pixels are larger than the pixels"):
        open_picture(path)
    with open_picture(edited(path, 325, 12_000, path)) as opened:  # it still unpacks to 12 MB
        tracemalloc.start()
        assert opened.read(0, 0, 64, 64).shape == (64, 64, 3)
        _, peak_bytes = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak_bytes < 10**6


def jpeg_bomb(side: int) -> bytes:
    """A JPEG of one colour whose header then claims a large picture."""
    ok, content = cv2.imencode(".jpg", np.zeros((64, 64, 3), np.uint8))
    assert ok
    raw = bytearray(content.tobytes())
    at = raw.index(b"\xff\xc0") + 5
    raw[at : at + 4] = side.to_bytes(2, "big") * 2
    return bytes(raw)


@pytest.mark.usefixtures("by_window")
def test_a_jpeg_tile_that_claims_to_be_huge_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("imagecodecs", reason="extra slides is not installed")
    path = tiff(tmp_path / "a.tif", np.zeros((64, 64, 3), np.uint8), tile=(64, 64), compression="jpeg")
    bomb = jpeg_bomb(65_000)
    content = bytearray(path.read_bytes())
    start = len(content)
    path.write_bytes(content + bomb)
    path = edited(edited(path, 324, start, path), 325, len(bomb), path)
    with open_picture(path) as opened, pytest.raises(ImageError, match="announces more pixels than it may hold"):
        opened.read(0, 0, 64, 64)


def test_files_that_are_no_pictures_are_refused_with_a_reason(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="does not exist"):
        open_picture(tmp_path / "none.tif")
    with pytest.raises(ImageError, match="not a regular file"):
        open_picture(tmp_path)
    (tmp_path / "empty.tif").touch()
    with pytest.raises(ImageError, match="empty"):
        open_picture(tmp_path / "empty.tif")
    (tmp_path / "text.png").write_text("not a picture")
    with pytest.raises(ImageError, match="not a PNG, JPEG, TIFF or BMP"):
        open_picture(tmp_path / "text.png")
    for magic in (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+"):
        (tmp_path / "a.tif").write_bytes(magic)
        with pytest.raises(ImageError):
            open_picture(tmp_path / "a.tif")


SEEDS: dict[str, Callable[[Path], object]] = {
    "strips.tif": lambda path: tiff(path, RGB[:60, :80]),
    "tiles.tif": lambda path: tiff(path, RGB[:60, :80], tile=(32, 32), compression="zlib", predictor=True),
    "lzw.tif": lambda path: tiff(path, RGB[:60, :80], tile=(32, 32), compression="lzw"),
    "jpeg.tif": lambda path: tiff(path, RGB[:60, :80], tile=(32, 32), compression="jpeg"),
    "zstd.tif": lambda path: tiff(path, RGB[:60, :80].astype(np.uint16), tile=(32, 32), compression="zstd"),
    "j2k.tif": lambda path: tiff(path, RGB[:60, :80], tile=(32, 32), compression="jpeg2000"),
    "packbits.tif": lambda path: tiff(path, RGB[:60, :80], compression="packbits", rowsperstrip=16),
    "ome.tif": lambda path: tiff(
        path,
        np.moveaxis(RGB[:60, :80], 2, 0),
        photometric="minisblack",
        ome=True,
        metadata={"axes": "CYX", **UM},
    ),
    "pyramid.tif": lambda path: pyramid(path, subifds=False, metadata=None, compression="zlib"),
    "imagej.tif": lambda path: tiff(path, RGB[:60, :80], imagej=True, metadata={"unit": "um"}),
    "a.png": lambda path: write(path, RGB[:60, :80]),
    "a.jpg": lambda path: write(path, RGB[:60, :80]),
}


@pytest.mark.parametrize("name", SEEDS)
@pytest.mark.parametrize("forced", [False, True])
def test_damaged_files_give_a_sentence_and_nothing_else(
    tmp_path: Path, name: str, forced: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("imagecodecs", reason="extra slides is not installed")
    if forced:
        monkeypatch.setattr(pictures, "SMALL_PIXELS", 0)
        monkeypatch.setattr(pictures, "MAX_PIXELS", 10)
    path = tmp_path / name
    SEEDS[name](path)
    good = path.read_bytes()
    edits = st.lists(st.tuples(st.integers(0, len(good) - 1), st.integers(0, 255)), max_size=6)
    # the header and the table of tags decide most; half of the edits go there
    header = st.lists(st.tuples(st.integers(0, min(400, len(good) - 1)), st.integers(0, 255)), max_size=3)

    @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
    @given(edits=edits, header=header, cut=st.one_of(st.none(), st.integers(1, len(good))))
    def check(edits: list[tuple[int, int]], header: list[tuple[int, int]], cut: int | None) -> None:
        damaged = bytearray(good)
        for position, value in edits + header:
            damaged[position] = value
        path.write_bytes(damaged[:cut])
        said = "nothing"
        try:
            with open_picture(path) as opened:
                opened.read(0, 0, min(opened.width, 50), min(opened.height, 50))
                if opened.width * opened.height < 10**6:
                    assert len(opened.sha256) == 64
        except ImageError as error:
            said = str(error)
        assert said
        assert str(tmp_path) not in said

    check()
