"""Images and masks in: PNG, JPEG, TIFF and BMP to arrays, or a sentence saying why not.

What a file is, is read from its first bytes, not from its name. The header is looked at before anything is decoded,
so that a small file cannot claim a picture that fills the memory.
"""

from __future__ import annotations

import hashlib
import io
import stat
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import cv2
import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from perikarya.errors import DataError

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp"})
MAX_PIXELS = 80_000_000  # decoded, 240 MB as RGB; just below the size at which Pillow begins to warn
MAX_FILE_BYTES = 512 * 2**20  # holds MAX_PIXELS as uncompressed 16-bit RGB
BIT_DEPTHS = (8, 10, 12, 14, 16)  # what cameras deliver inside 16-bit files

Pixels: TypeAlias = NDArray[np.unsignedinteger[Any]]  # uint8 or uint16

_MAGIC = {
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"\xff\xd8\xff": "JPEG",
    b"II*\x00": "TIFF",
    b"MM\x00*": "TIFF",
    b"II+\x00": "TIFF",
    b"MM\x00+": "TIFF",
    b"BM": "BMP",
}
_LABEL_MAP_MAX = 32  # more than two values, all below this: numbers of objects rather than shades
_ORIENTATION_TAG = 274
# everything the decoders were seen to raise on damaged files; RuntimeError: imagecodecs;
# UserWarning, RuntimeWarning: when warnings are errors
DECODER_ERRORS = (
    OSError, ValueError, TypeError, KeyError, IndexError, AttributeError, SyntaxError, EOFError, OverflowError,
    ZeroDivisionError, MemoryError, RuntimeError, UserWarning, RuntimeWarning, struct.error, zlib.error, cv2.error,
    tifffile.TiffFileError, Image.DecompressionBombError, Image.DecompressionBombWarning,
)  # fmt: skip


class ImageError(DataError):
    """A file cannot be used as an image or a mask; the message is the bare reason, without the path."""


@dataclass(frozen=True)
class _Decoded:
    """Grey (height, width) or RGB (height, width, 3) pixels, and alpha (height, width) of the same depth or None."""

    pixels: Pixels
    alpha: Pixels | None


def read_rgb(path: Path) -> Pixels:
    """Read an image as RGB.

    EXIF orientation is applied, transparency is laid on white, grey becomes three equal channels.

    Parameters
    ----------
    path
        A PNG, JPEG, TIFF or BMP file of 1, 8 or 16 bits per channel, with one page.

    Returns
    -------
    Shape (height, width, 3), uint8, or uint16 with the values as stored (see ``to_8bit``).

    Raises
    ------
    ImageError
        If the file is missing, damaged, too large or of a kind that has no unambiguous RGB picture.
    """
    decoded = _decode(path)
    pixels = decoded.pixels
    if pixels.ndim == 2:
        pixels = np.repeat(pixels[..., None], 3, axis=2)
    return np.ascontiguousarray(on_white(pixels, decoded.alpha))


def read_mask(path: Path) -> NDArray[np.uint8]:
    """Read a mask of one cell.

    Two values: the larger is the cell. More (JPEG, smoothed edges): above half of the largest is the cell. Colour
    counts by its largest channel. Where only transparency varies, it is the mask.

    Returns
    -------
    Shape (height, width), uint8, 0 or 1, with at least one pixel of each.

    Raises
    ------
    ImageError
        If the file cannot be decoded, or marks no pixel, every pixel or several numbered objects.
    """
    values = _mask_values(_decode(path))
    levels = np.unique(values)
    if len(levels) == 1:
        if levels[0] == 0:
            raise ImageError("the mask is empty: no pixel belongs to the cell")
        raise ImageError("the mask covers the whole image, so it outlines nothing")
    if len(levels) == 2:
        return np.asarray(values == levels[1], np.uint8)
    if levels[-1] < _LABEL_MAP_MAX:
        raise ImageError(f"the mask holds {len(levels)} numbered regions (0 to {levels[-1]}), not one cell's outline")
    return np.asarray(values > levels[-1] / 2, np.uint8)


def bits_needed(max_value: int) -> int:
    """Return the smallest of 8, 10, 12, 14 and 16 bits that holds a value."""
    return next(bits for bits in BIT_DEPTHS if max_value < 2**bits)


def to_8bit(pixels: Pixels, *, bits: int) -> NDArray[np.uint8]:
    """Bring 16-bit pixels to 8 bits by the same shift for all images of a study; 8-bit pixels stay as they are."""
    if pixels.dtype == np.uint8:
        return np.asarray(pixels, np.uint8)
    return np.asarray(np.minimum(pixels >> (bits - 8), 255), np.uint8)


def pixel_sha256(pixels: NDArray[np.generic]) -> str:
    """Return the SHA-256 (hex) of decoded pixels, their shape and their type."""
    digest = hashlib.sha256(f"{pixels.dtype.str}|{pixels.shape}".encode())
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.hexdigest()


def on_white(rgb: Pixels, alpha: Pixels | None, *, whole: bool = True) -> Pixels:
    """Lay RGB pixels on white.

    Parameters
    ----------
    alpha
        Shape (height, width), of the type of the pixels; None: opaque everywhere.
    whole
        Whether it is a whole picture, which must not be transparent everywhere, as a window may be.
    """
    if alpha is None:
        return rgb
    opaque = np.iinfo(alpha.dtype).max
    if (alpha == opaque).all():
        return rgb
    if whole and not alpha.any():
        raise ImageError("the image is transparent everywhere")
    if rgb.dtype != np.uint8:
        raise ImageError("the 16-bit image is partly transparent; export it without transparency")
    share = alpha[..., None].astype(np.uint16)
    return ((rgb * share + 255 * (255 - share) + 127) // 255).astype(np.uint8)


def _decode(path: Path) -> _Decoded:
    content = read_bytes(path)
    kind = kind_of(content)
    if kind is None:
        raise ImageError("the file is not a PNG, JPEG, TIFF or BMP image, whatever its name says")
    with decoding(kind):
        if kind == "TIFF" and _tiff_is_16_bit(content):
            return _decode_16_bit(content)
        if kind == "PNG":
            _check_png(content)
        with Image.open(io.BytesIO(content), formats=(kind,)) as image:
            _check_header(image)
            if kind == "PNG" and content[24] == 16:
                image.load()  # Pillow notices damage that OpenCV paints over, but keeps 8 of the 16 bits
                return _decode_16_bit(content, orientation=image.getexif().get(_ORIENTATION_TAG, 1))
            return _from_pillow(ImageOps.exif_transpose(image))


@contextmanager
def decoding(kind: str) -> Iterator[None]:
    """Turn what decoders raise on damaged files of a kind into ``ImageError``."""
    try:
        yield
    except ImageError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise ImageError(f"the picture has more than {MAX_PIXELS // 10**6} million pixels") from None
    except UnidentifiedImageError:
        raise ImageError(f"the file begins like a {kind} image but is damaged or of an unknown variant") from None
    except DECODER_ERRORS as error:
        reason = str(error).strip().splitlines()
        raise ImageError(f"the {kind} image is damaged or truncated ({reason[0] if reason else error!r})") from None


def kind_of(beginning: bytes) -> str | None:
    """Tell PNG, JPEG, TIFF and BMP files by their first bytes; None for others."""
    return next((name for magic, name in _MAGIC.items() if beginning.startswith(magic)), None)


def read_bytes(path: Path) -> bytes:
    """Read a whole image file; raise ``ImageError`` when it is missing, no file or larger than the limit."""
    if file_size(path) > MAX_FILE_BYTES:
        raise ImageError(f"the file is larger than {MAX_FILE_BYTES // 2**20} MiB")
    with accessing():
        return path.read_bytes()


def file_size(path: Path) -> int:
    """Return the size of an image file in bytes; raise ``ImageError`` when it is missing, no file or empty."""
    with accessing():
        status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise ImageError("this is not a regular file")
    if status.st_size == 0:
        raise ImageError("the file is empty (0 bytes)")
    return status.st_size


@contextmanager
def accessing() -> Iterator[None]:
    """Turn what the system says of a file that cannot be read into ``ImageError``."""
    try:
        yield
    except FileNotFoundError:
        raise ImageError("the file does not exist") from None
    except OSError as error:
        raise ImageError(f"the file cannot be read ({error.strerror})") from None


def check_size(width: int, height: int) -> None:
    """Raise ``ImageError`` when a picture has more than ``MAX_PIXELS`` pixels or none."""
    check_whole(width, height)
    if width * height > MAX_PIXELS:
        raise ImageError(f"the picture is {width} x {height} px; the limit is {MAX_PIXELS // 10**6} million pixels")
    if width < 1 or height < 1:
        raise ImageError("the picture has no pixels")


def check_whole(*sizes: object) -> None:
    """Raise ``ImageError`` where sizes in a damaged TIFF are lists, whose product with a number fills the memory."""
    if not all(isinstance(size, int | np.integer) for size in sizes):
        raise ImageError("the image is damaged (a size in it is no whole number)")


def _check_header(image: Image.Image) -> None:
    check_size(*image.size)
    n_frames = getattr(image, "n_frames", 1)
    if n_frames > 1:
        raise ImageError(f"the file holds {n_frames} pages or frames; it is unclear which one is meant")
    if image.mode in ("F", "I"):
        raise ImageError("the pixels are 32-bit numbers; export the image with 8 or 16 bits per channel")
    if image.mode not in ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "I;16", "I;16B", "YCbCr"):
        raise ImageError(f"the colours are stored as {image.mode}; export the image as RGB or grey")


def _check_png(content: bytes) -> None:
    """Refuse a PNG whose chunks do not run to the end mark; decoders accept some of these."""
    position = 8
    while position + 8 <= len(content):
        (length,) = struct.unpack(">I", content[position : position + 4])
        if length == 0 and content[position + 4 : position + 8] == b"IEND" and position + 12 <= len(content):
            return
        position += 12 + length
    raise ImageError("the PNG image is truncated (its end mark is missing)")


def _from_pillow(image: Image.Image) -> _Decoded:
    if image.mode in ("I;16", "I;16B"):
        return _Decoded(np.asarray(image).astype(np.uint16), None)
    if image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info:
        rgba = np.asarray(image.convert("RGBA"))
        return _Decoded(rgba[..., :3], rgba[..., 3])
    if image.mode in ("1", "L"):
        return _Decoded(np.asarray(image.convert("L")), None)
    return _Decoded(np.asarray(image.convert("RGB")), None)


def _tiff_is_16_bit(content: bytes) -> bool:
    """Check a TIFF's header and tell whether Pillow would lose bits of it."""
    with tifffile.TiffFile(io.BytesIO(content)) as tiff:
        n_pages = len(tiff.pages)
        page = tiff.pages.first
        n_planes = max(page.imagedepth, int((tiff.imagej_metadata or {}).get("images", 1)))
        check_size(page.imagewidth, page.imagelength)
        check_whole(page.tilewidth, page.tilelength)
        if page.is_tiled and page.tilewidth * page.tilelength > MAX_PIXELS:
            raise ImageError(f"the TIFF image is damaged (tiles of {page.tilewidth} x {page.tilelength} px)")
        if n_pages > 1 or n_planes > 1:
            raise ImageError(f"the file holds {max(n_pages, n_planes)} pages; it is unclear which one is meant")
        ends = [start + size for start, size in zip(page.dataoffsets, page.databytecounts, strict=False)]
        if not ends or max(ends) > len(content):
            raise ImageError("the TIFF image is truncated (pixels are announced beyond the end of the file)")
        bits, kind = page.bitspersample, int(page.sampleformat)
        photometric = getattr(page.photometric, "name", str(page.photometric))
    if bits > 16 or kind != 1:
        raise ImageError(f"the pixels are {bits}-bit {_SAMPLE_KINDS.get(kind, 'unknown')} numbers; export 8 or 16 bits")
    if bits != 16:
        return False
    if photometric not in ("MINISBLACK", "RGB"):
        raise ImageError(f"16-bit colours are stored as {photometric}; export the image as RGB or grey")
    return True


_SAMPLE_KINDS = {1: "whole", 2: "signed", 3: "floating-point", 5: "complex", 6: "complex"}


def _decode_16_bit(content: bytes, *, orientation: int | None = None) -> _Decoded:
    # for TIFF, OpenCV applies the orientation itself; for PNG it does not under IMREAD_UNCHANGED
    pixels = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None or pixels.dtype != np.uint16:
        raise ImageError("the 16-bit image is damaged or of a variant that cannot be read")
    pixels = _orient(pixels, orientation or 1)
    if pixels.ndim == 2:
        return _Decoded(pixels, None)
    if pixels.shape[2] not in (3, 4):
        raise ImageError(f"the 16-bit image has {pixels.shape[2]} channels; export the image as RGB or grey")
    alpha = pixels[..., 3] if pixels.shape[2] == 4 else None
    return _Decoded(np.ascontiguousarray(pixels[..., 2::-1]), alpha)


def _orient(pixels: NDArray[np.uint16], orientation: int) -> NDArray[np.uint16]:
    """Apply an EXIF orientation (1 to 8): 5 to 8 swap the axes first, then rows and columns may be reversed."""
    if orientation in (5, 6, 7, 8):
        pixels = np.swapaxes(pixels, 0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def _mask_values(decoded: _Decoded) -> Pixels:
    values: Pixels = decoded.pixels if decoded.pixels.ndim == 2 else decoded.pixels.max(axis=2)
    if decoded.alpha is None or decoded.alpha.min() == decoded.alpha.max():
        return values
    if values.min() == values.max():
        return decoded.alpha
    return np.where(decoded.alpha > 0, values, 0)
