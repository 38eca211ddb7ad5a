"""Pictures inside a page: small enough to mail, sharp enough to print."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

MAX_IMAGE_BYTES = 150_000
CSS_PER_PIXEL = 120 / 300  # figures have 300 pixels an inch; a quarter larger than in print reads well on a screen
_JPEG_STEPS = ((1600, 85), (1400, 80), (1200, 76), (1000, 72), (800, 68), (640, 60), (480, 50))  # width in px, quality


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


def embed(path: Path) -> Embedded:
    """Read a PNG; where it is larger than 150 KB it becomes the best JPEG that is not."""
    content = path.read_bytes()
    with Image.open(io.BytesIO(content)) as image:
        size = (round(image.width * CSS_PER_PIXEL), round(image.height * CSS_PER_PIXEL))
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


def _embedded(content: bytes, kind: str, size: tuple[int, int]) -> Embedded:
    return Embedded(f"data:image/{kind};base64,{base64.b64encode(content).decode()}", *size)
