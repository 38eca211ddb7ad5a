"""Pictures inside a page: small enough to mail, sharp enough to print."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from perikarya.figures.style import DPI

MAX_IMAGE_BYTES = 150_000
CSS_PER_INCH = 120  # a quarter larger than in print reads well on a screen
_JPEG_STEPS = ((1600, 85), (1400, 80), (1200, 76), (1000, 72), (800, 68), (640, 60), (480, 50))  # width in px, quality
_PHOTO_QUALITIES = (80, 65, 50, 35)


@dataclass(frozen=True)
class Embedded:
    """An image as a ``data:`` address, with its size on the page in CSS pixels, whatever its resolution."""

    uri: str
    width: int
    height: int

    @property
    def n_bytes(self) -> int:
        """How much it adds to the page."""
        return len(self.uri)


@dataclass(frozen=True)
class Shown:
    """A figure on the page; without ``uri`` the page was full and only names the file."""

    kind: str
    model: str
    title: str
    caption: str
    alt: str
    file: str = ""
    uri: str = ""
    width: int = 0
    height: int = 0


def embed(path: Path) -> Embedded:
    """Read a PNG; where it is larger than 150 KB it becomes the best JPEG that is not."""
    content = path.read_bytes()
    with Image.open(io.BytesIO(content)) as image:
        scale = CSS_PER_INCH / image.info.get("dpi", (DPI,))[0]
        size = (round(image.width * scale), round(image.height * scale))
        if len(content) <= MAX_IMAGE_BYTES:
            return _embedded(content, "png", size)
        picture = image.convert("RGB")
    for width, quality in _JPEG_STEPS:
        smaller = picture
        if picture.width > width:
            height = max(1, round(picture.height * width / picture.width))
            smaller = picture.resize((width, height), Image.Resampling.LANCZOS)
        buffer = io.BytesIO()
        smaller.save(buffer, format="JPEG", quality=quality, optimize=True, progressive=True)
        if buffer.tell() <= MAX_IMAGE_BYTES:
            break
    return _embedded(buffer.getvalue(), "jpeg", size)


def embed_photos(pixels_hwc: NDArray[np.uint8], *, max_bytes: int) -> Embedded:
    """Make a JPEG of photographs, the best of a few qualities that is not larger than ``max_bytes``.

    One pixel of the picture is one CSS pixel on the page.
    """
    picture = Image.fromarray(pixels_hwc)
    for quality in _PHOTO_QUALITIES:
        buffer = io.BytesIO()
        picture.save(buffer, format="JPEG", quality=quality, optimize=True)
        if buffer.tell() <= max_bytes:
            break
    return _embedded(buffer.getvalue(), "jpeg", picture.size)


def _embedded(content: bytes, kind: str, size: tuple[int, int]) -> Embedded:
    return Embedded(f"data:image/{kind};base64,{base64.b64encode(content).decode()}", *size)
