from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from tests.tiffs import RGB, UM, tiff

from perikarya.data.images import ImageError
from perikarya.data.pictures import open_picture

SCALES: dict[str, tuple[dict[str, Any], float | None]] = {
    "OME in µm": ({"ome": True, "metadata": {"axes": "YXS", **UM}}, 0.25),
    "OME in nm": (
        {
            "ome": True,
            "metadata": {
                "axes": "YXS",
                "PhysicalSizeX": 250,
                "PhysicalSizeXUnit": "nm",
                "PhysicalSizeY": 250.0,
                "PhysicalSizeYUnit": "nm",
            },
        },
        0.25,
    ),
    "OME in pixels": (
        {"ome": True, "metadata": {"axes": "YXS", "PhysicalSizeX": 1, "PhysicalSizeXUnit": "pixel"}},
        None,
    ),
    "OME silent": ({"ome": True, "metadata": {"axes": "YXS"}, "resolution": (4e4, 4e4), "resolutionunit": 3}, None),
    "ImageJ in um": ({"imagej": True, "resolution": (4, 4), "metadata": {"unit": "um"}}, 0.25),
    "ImageJ in micron": ({"imagej": True, "resolution": (4, 4), "metadata": {"unit": "micron"}}, 0.25),
    "ImageJ in \\u00B5m": ({"imagej": True, "resolution": (4, 4), "metadata": {"unit": "\\u00B5m"}}, 0.25),
    "ImageJ in mm": ({"imagej": True, "resolution": (4000, 4000), "metadata": {"unit": "mm"}}, 0.25),
    "ImageJ in pixels": ({"imagej": True, "resolution": (4, 4), "metadata": {"unit": "pixel"}}, None),
    "Aperio": ({"description": "Aperio Image Library|AppMag = 40|MPP = 0.2500|Left = 1", "metadata": None}, 0.25),
    "per cm": ({"resolution": (4e4, 4e4), "resolutionunit": 3}, 0.25),
    "per inch": ({"resolution": (101600, 101600), "resolutionunit": 2}, 0.25),
    "of a screen": ({"resolution": (72, 72), "resolutionunit": 2}, None),
    "of a printer": ({"resolution": (300, 300), "resolutionunit": 2}, None),
    "without unit": ({"resolution": (4e4, 4e4), "resolutionunit": 1}, None),
    "oblong dots": ({"resolution": (4e4, 2e4), "resolutionunit": 3}, None),
    "silent": ({}, None),
}


@pytest.mark.parametrize("case", SCALES)
@pytest.mark.parametrize("tile", [None, (64, 96)])
@pytest.mark.usefixtures("by_window")
def test_the_size_of_a_pixel_is_read_where_it_can_be_trusted(
    tmp_path: Path, case: str, tile: tuple[int, int] | None
) -> None:
    options, expected = SCALES[case]
    path = tiff(tmp_path / "a.tif", **({} if options.get("imagej") else {"tile": tile}), **options)
    with open_picture(path) as opened:
        assert opened.um_per_px == (None if expected is None else pytest.approx(expected, rel=1e-6))


def test_the_density_of_a_jpeg_says_nothing_of_the_microscope(tmp_path: Path) -> None:
    for suffix in ("jpg", "png"):
        Image.fromarray(RGB).save(tmp_path / f"a.{suffix}", dpi=(50800, 50800))
        with open_picture(tmp_path / f"a.{suffix}") as opened:
            assert opened.um_per_px is None


def test_pixels_that_are_no_squares_are_refused(tmp_path: Path) -> None:
    uneven = UM | {"PhysicalSizeY": 0.26}
    with pytest.raises(ImageError, match=r"0.25 x 0.26 µm, which are no squares"):
        open_picture(tiff(tmp_path / "a.ome.tif", metadata={"axes": "YXS", **uneven}))
    nearly = UM | {"PhysicalSizeY": 0.251}
    with open_picture(tiff(tmp_path / "b.ome.tif", metadata={"axes": "YXS", **nearly})) as opened:
        assert opened.um_per_px == pytest.approx(0.2505)
