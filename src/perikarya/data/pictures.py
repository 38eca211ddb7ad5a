"""Images by window: small files are decoded once, large and tiled ones piece by piece as windows ask for them."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

from perikarya.data.images import (
    IMAGE_SUFFIXES,
    MAX_PIXELS,
    Pixels,
    accessing,
    decoding,
    file_size,
    kind_of,
    pixel_sha256,
    read_rgb,
)
from perikarya.data.picture_base import Picture as Picture  # readers of pictures find all they need here
from perikarya.data.picture_tiff import TiffPages, TiffPicture
from perikarya.data.slides import SLIDE_SUFFIXES, SlidePicture

PICTURE_SUFFIXES = IMAGE_SUFFIXES | SLIDE_SUFFIXES
CACHE_BYTES = 128 * 2**20  # of decoded tiles or strips that a picture keeps
SMALL_PIXELS = 16_000_000  # tiled pictures up to here are decoded at once, as others are up to MAX_PIXELS
_ZSTANDARD, _JPEG_2000 = 50000, 34712


def open_picture(path: Path, *, cache_bytes: int = CACHE_BYTES) -> Picture:
    """Open an image for reading by window.

    Parameters
    ----------
    path
        JPEG, PNG, BMP, TIFF, OME-TIFF, pyramidal TIFF (its finest level), or a whole slide (extra ``slides``).
    cache_bytes
        How much of a large image may stay decoded between windows; at least one tile or strip does.

    Raises
    ------
    ImageError
        If the file is missing, damaged, too large or no unambiguous RGB picture; the message is the bare reason.
    """
    file_size(path)
    with accessing(), path.open("rb") as handle:
        kind = kind_of(handle.read(8))
    if kind == "TIFF":
        with decoding("TIFF"):
            return _open_tiff(path, cache_bytes)
    if path.suffix.casefold() in SLIDE_SUFFIXES:
        return SlidePicture(path, cache_bytes=cache_bytes)
    return DecodedPicture(read_rgb(path), um_per_px=None)  # 72 dpi in a JPEG or PNG says nothing


def _open_tiff(path: Path, cache_bytes: int) -> Picture:
    pages = TiffPages(path)
    try:
        if pages.is_slide:
            pages.close()
            return SlidePicture(path, cache_bytes=cache_bytes)
        if not _is_small(pages):
            return TiffPicture(pages, cache_bytes=cache_bytes)
        pages.close()
        return DecodedPicture(read_rgb(path), um_per_px=pages.um_per_px)
    except BaseException:
        pages.close()
        raise


def _is_small(pages: TiffPages) -> bool:
    """Tell whether a TIFF is decoded at once: what is small, or not too large and in no way readable by window.

    Both ways give the same pixels, hence the same identities.
    """
    page = pages.page
    n_pixels = pages.n_pixels
    if pages.n_pages > 1 or n_pixels > MAX_PIXELS:
        return False
    if int(page.compression) == _JPEG_2000 or (int(page.compression) == _ZSTANDARD and page.bitspersample == 16):
        return False  # Pillow and OpenCV cannot decode these
    return not page.is_tiled or n_pixels <= SMALL_PIXELS or pages.cannot_read() is not None


class DecodedPicture(Picture):
    """A picture whose pixels, shape (height, width, 3), are in memory."""

    def __init__(self, pixels_hwc: Pixels, *, um_per_px: float | None) -> None:
        super().__init__(height=pixels_hwc.shape[0], width=pixels_hwc.shape[1], um_per_px=um_per_px)
        self._pixels = pixels_hwc

    @cached_property
    def sha256(self) -> str:
        """Hash of the pixels."""
        return pixel_sha256(self._pixels)

    @property
    def max_16bit(self) -> int:
        """Largest value, 0 for 8 bits."""
        return int(self._pixels.max()) if self._pixels.dtype.itemsize == 2 else 0

    def _read(self, x: int, y: int, width: int, height: int) -> Pixels:
        return self._pixels[y : y + height, x : x + width].copy()
