from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from tests.tiffs import RGB, UM, pyramid, tiff

from perikarya.data import picture_tiff
from perikarya.data.images import ImageError, pixel_sha256
from perikarya.data.picture_scale import parse_ome
from perikarya.data.pictures import open_picture


@pytest.mark.parametrize("subifds", [True, False])
@pytest.mark.usefixtures("by_window")
def test_the_finest_level_of_a_pyramid_is_the_picture(tmp_path: Path, subifds: bool) -> None:
    path = pyramid(tmp_path / "a.tif", subifds=subifds, metadata=None)
    with open_picture(path) as opened:
        np.testing.assert_array_equal(opened.read(0, 0, 420, 300), RGB)
        assert opened.sha256 == pixel_sha256(RGB)


OME = {
    "interleaved": (RGB, {"photometric": "rgb", "metadata": {"axes": "YXS", **UM}}),
    "planar": (
        np.moveaxis(RGB, 2, 0),
        {"photometric": "rgb", "planarconfig": "separate", "metadata": {"axes": "SYX", **UM}},
    ),
    "three channels": (np.moveaxis(RGB, 2, 0), {"photometric": "minisblack", "metadata": {"axes": "CYX", **UM}}),
    "named channels": (
        np.moveaxis(RGB, 2, 0),
        {
            "photometric": "minisblack",
            "metadata": {"axes": "CYX", "Channel": {"Name": ["Red", "Green", "Blue"]}, **UM},
        },
    ),
}


@pytest.mark.parametrize("kind", OME)
@pytest.mark.parametrize("tile", [None, (64, 96)])
@pytest.mark.usefixtures("by_window")
def test_ome_tiff_gives_one_picture_and_its_scale(tmp_path: Path, kind: str, tile: tuple[int, int] | None) -> None:
    pixels, options = OME[kind]
    path = tiff(tmp_path / "a.ome.tif", pixels, tile=tile, **options)
    with open_picture(path) as opened:
        np.testing.assert_array_equal(opened.read(0, 0, 420, 300), RGB)
        assert opened.um_per_px == pytest.approx(0.25)
        assert opened.sha256 == pixel_sha256(RGB)


def test_an_ome_pyramid_of_subifds_is_read_at_its_finest_level(tmp_path: Path) -> None:
    path = pyramid(tmp_path / "a.ome.tif", subifds=True, metadata={"axes": "YXS", **UM})
    with open_picture(path) as opened:
        assert (opened.width, opened.um_per_px) == (420, pytest.approx(0.25))


MANY = {
    "a stack": (np.stack([RGB, RGB]), {"metadata": {"axes": "ZYXS"}}, "stack of 2 planes"),
    "a film": (np.stack([RGB, RGB]), {"metadata": {"axes": "TYXS"}}, "stack of 2 planes"),
    "stains": (
        np.moveaxis(RGB, 2, 0),
        {"photometric": "minisblack", "metadata": {"axes": "CYX", "Channel": {"Name": ["DAPI", "GFP", "RFP"]}}},
        "called DAPI, GFP, RFP, not red, green, blue",
    ),
    "two channels": (
        np.moveaxis(RGB[..., :2], 2, 0),
        {"photometric": "minisblack", "metadata": {"axes": "CYX"}},
        "it has 2 channels",
    ),
}


@pytest.mark.parametrize("kind", MANY)
def test_an_ome_tiff_that_is_more_than_one_picture_is_refused(tmp_path: Path, kind: str) -> None:
    pixels, options, reason = MANY[kind]
    with pytest.raises(ImageError, match=reason):
        open_picture(tiff(tmp_path / "a.ome.tif", pixels, **options))


def test_pages_that_are_no_pyramid_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        writer.write(RGB, photometric="rgb", metadata=None)
        writer.write(RGB[:200], photometric="rgb", metadata=None)
    with pytest.raises(ImageError, match="2 pages; it is unclear which one is meant"):
        open_picture(tmp_path / "a.tif")
    monkeypatch.setattr(picture_tiff, "MAX_PAGES", 2)
    with pytest.raises(ImageError, match="3 pages; it is unclear"):
        open_picture(pyramid(tmp_path / "c.tif", subifds=False, metadata=None))
    monkeypatch.undo()
    stack = tiff(tmp_path / "b.tif", np.stack([RGB] * 3), imagej=True, metadata={"axes": "ZYXS"})
    with pytest.raises(ImageError, match="3 pages; it is unclear"):
        open_picture(stack)


def with_other_width(path: Path) -> Path:
    content = path.read_bytes()
    assert content.count(b'SizeX="420"') == 1
    path.write_bytes(content.replace(b'SizeX="420"', b'SizeX="421"'))
    return path


def test_ome_metadata_that_do_not_fit_the_pages_are_refused(tmp_path: Path) -> None:
    options = {"photometric": "minisblack", "metadata": {"axes": "CYX", **UM}}
    path = with_other_width(tiff(tmp_path / "a.ome.tif", np.moveaxis(RGB, 2, 0), **options))
    with pytest.raises(ImageError, match="announce 421 x 300 px"):
        open_picture(path)


def test_ome_metadata_left_over_from_another_size_say_nothing(tmp_path: Path) -> None:
    path = with_other_width(tiff(tmp_path / "a.ome.tif", metadata={"axes": "YXS", **UM}))
    with open_picture(path) as opened:
        assert opened.um_per_px is None
        assert opened.sha256 == pixel_sha256(RGB)


@pytest.mark.parametrize(
    "declaration",
    [
        '<!DOCTYPE OME [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;">]>',
        '<!DOCTYPE OME SYSTEM "file:///etc/hostname">',
    ],
)
def test_ome_metadata_with_declarations_are_refused(declaration: str) -> None:
    body = '<OME><Image><Pixels SizeX="1" SizeY="1" SizeC="1"/></Image></OME>'
    assert parse_ome(body).pixels["SizeX"] == "1"
    with pytest.raises(ImageError, match="declare types or entities"):
        parse_ome(declaration + body)


def test_pixels_in_other_files_are_not_followed(tmp_path: Path) -> None:
    blocks = "".join(
        f'<TiffData IFD="0" FirstC="{c}"><UUID FileName="../{c}.tif">u</UUID></TiffData>' for c in range(3)
    )
    text = f'<OME><Image><Pixels SizeX="420" SizeY="300" SizeC="3">{blocks}</Pixels></Image></OME>'
    path = tiff(tmp_path / "a.tif", RGB[..., 0], photometric="minisblack", description=text, metadata=None)
    with pytest.raises(ImageError, match="spread over several files"):
        open_picture(path)


OME_WORDS = (
    "<OME>", "</OME>", "<Image>", "</Image>", "<Pixels ", "/>", ">", 'SizeX="420" ', 'SizeZ="', "9" * 5000, '"', "&a;",
    "<!DOCTYPE a [", "<!ENTITY a SYSTEM 'x'>", "]>", "<?xml version='1.0' encoding='UTF-16'?>", "\udc80",
)  # fmt: skip


@given(st.lists(st.sampled_from(OME_WORDS), max_size=12).map("".join))
def test_damaged_ome_metadata_give_a_sentence_and_nothing_else(text: str) -> None:
    with contextlib.suppress(ImageError):
        ome = parse_ome(text)
        ome.number("SizeZ")
