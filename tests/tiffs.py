"""TIFF files as microscopes and programs write them, and ways to break them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import tifffile
from numpy.typing import NDArray
from tests.sources import picture

RGB = picture(0, (300, 420))
UM = {"PhysicalSizeX": 0.25, "PhysicalSizeXUnit": "µm", "PhysicalSizeY": 0.25, "PhysicalSizeYUnit": "µm"}


def tiff(path: Path, pixels: NDArray[Any] = RGB, **options: Any) -> Path:
    """Write pixels with tifffile."""
    tifffile.imwrite(path, pixels, **({"photometric": "rgb"} | options))
    return path


def pyramid(path: Path, *, subifds: bool, **options: Any) -> Path:
    """Write ``RGB`` and two smaller levels, in SubIFDs or as further pages."""
    shape = {"photometric": "rgb", "tile": (64, 64)} | options
    with tifffile.TiffWriter(path) as writer:
        writer.write(RGB, subifds=2 if subifds else 0, **shape)
        for factor in (2, 4):
            level = cv2.resize(RGB, None, fx=1 / factor, fy=1 / factor, interpolation=cv2.INTER_AREA)
            writer.write(level, subfiletype=int(subifds), **(shape | {"metadata": None}))
    return path


def edited(path: Path, tag: int, value: int, out: Path) -> Path:
    """Copy a TIFF with another number in a tag of the first page."""
    content = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as opened:
        entry = opened.pages.first.tags[tag]
        start = entry.offset + 8 if entry.valueoffset <= entry.offset + 8 else entry.valueoffset
        size = {3: 2, 4: 4}[int(entry.dtype)]
    content[start : start + size] = value.to_bytes(size, "little")
    out.write_bytes(content)
    return out
