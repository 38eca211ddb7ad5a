"""Whole slides as scanners write them (SVS, NDPI, MRXS and others), through OpenSlide: extra ``slides``."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from perikarya.data.images import MAX_PIXELS, ImageError, Pixels, decoding
from perikarya.data.picture_base import MAX_WINDOWED_PIXELS, Picture, file_sha256, hash_by_bands
from perikarya.data.picture_scale import number_or_none, square_side

if TYPE_CHECKING:
    import openslide

SLIDE_SUFFIXES = frozenset({".svs", ".ndpi", ".scn", ".bif", ".mrxs", ".vms", ".vmu", ".svslide", ".dcm", ".czi"})
MANY_FILE_SUFFIXES = frozenset({".mrxs", ".vms", ".vmu", ".dcm"})  # the file itself holds little of the slide
_BAND_ROWS = 512


class SlidePicture(Picture):
    """The finest level of a whole slide.

    Where the scanner says which part of a slide it scanned, the picture is that part, and coordinates begin at its
    corner, as in QuPath. What lies between scanned areas has the slide's background colour, white if it names none.

    Raises
    ------
    ImageError
        If OpenSlide is not installed or cannot read the file.
    """

    def __init__(self, path: Path, *, cache_bytes: int) -> None:
        try:
            import openslide
        except ImportError:
            raise ImageError("this is a whole slide, which needs OpenSlide: pip install 'perikarya[slides]'") from None
        try:
            self._slide = openslide.OpenSlide(path)
            self._slide.set_cache(openslide.OpenSlideCache(cache_bytes))
        except (openslide.OpenSlideError, OSError) as error:
            raise ImageError(f"OpenSlide cannot read this slide ({_reason(error, path)})") from None
        self._path = path
        self._error = openslide.OpenSlideError
        words = self._slide.properties
        try:
            self._left, self._top, width, height = _bounds(self._slide)
            self._background = _colour(words.get(openslide.PROPERTY_NAME_BACKGROUND_COLOR))
            um_per_px = square_side(
                number_or_none(words.get(openslide.PROPERTY_NAME_MPP_X)),
                number_or_none(words.get(openslide.PROPERTY_NAME_MPP_Y)),
            )
            if not 0 < width * height <= MAX_WINDOWED_PIXELS:
                raise ImageError(
                    f"the slide is {width} x {height} px; the limit is {MAX_WINDOWED_PIXELS // 10**6} million pixels"
                )
        except ImageError:
            self._slide.close()
            raise
        super().__init__(height=height, width=width, um_per_px=um_per_px)

    @cached_property
    def sha256(self) -> str:
        """Hash of the pixels, or of the file where it is large.

        Of slides that are many files, what OpenSlide makes of the others (``quickhash-1``) counts too.
        """
        if self.height * self.width <= MAX_PIXELS:
            return hash_by_bands(self, n_rows=_BAND_ROWS)[0]
        if self._path.suffix.casefold() in MANY_FILE_SUFFIXES:
            return file_sha256(self._path, str(self._slide.properties.get("openslide.quickhash-1", "")))
        return file_sha256(self._path)

    @property
    def max_16bit(self) -> int:
        """Always 0: OpenSlide gives 8 bits."""
        return 0

    def _read(self, x: int, y: int, width: int, height: int) -> Pixels:
        with decoding("slide"):
            try:
                region = self._slide.read_region((self._left + x, self._top + y), 0, (width, height))
            except self._error as error:
                raise ImageError(f"OpenSlide cannot read a part of it ({_reason(error, self._path)})") from None
            rgba = np.asarray(region)
        rgb, alpha = rgba[..., :3], rgba[..., 3:].astype(np.uint16)
        if (alpha == 255).all():
            return rgb.copy()
        return ((rgb * alpha + self._background * (255 - alpha) + 127) // 255).astype(np.uint8)

    def close(self) -> None:
        """Close the slide."""
        self._slide.close()


def _reason(error: Exception, path: Path) -> str:
    return str(error).replace(str(path), path.name) or "unknown format"


def _bounds(slide: openslide.OpenSlide) -> tuple[int, int, int, int]:
    """Return the scanned part: left, top, width, height."""
    width, height = slide.dimensions
    names = [f"openslide.bounds-{side}" for side in ("x", "y", "width", "height")]
    if not all(name in slide.properties for name in names):
        return 0, 0, width, height
    try:
        left, top, part_width, part_height = (int(slide.properties[name]) for name in names)
    except ValueError:
        raise ImageError("the slide does not say in numbers which part of it was scanned") from None
    return left, top, part_width, part_height


def _colour(text: str | None) -> np.ndarray[Any, np.dtype[np.uint16]]:
    try:
        return np.array(list(bytes.fromhex(text or "FFFFFF")), np.uint16)[:3]
    except ValueError:
        return np.full(3, 255, np.uint16)
