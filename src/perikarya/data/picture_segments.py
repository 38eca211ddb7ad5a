"""Tiles and strips of a TIFF page, decoded when a window asks for them and kept in a cache of bounded size.

Nothing is decoded that the file could blow up: how large a tile or strip is follows from the header, is checked
against limits before, and decoders are not allowed to give more.
"""

from __future__ import annotations

import struct
import threading
import zlib
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, BinaryIO

import numpy as np
import tifffile
from numpy.typing import NDArray

from perikarya.data.images import ImageError, Pixels

MAX_SEGMENT_BYTES = 256 * 2**20  # of one decoded tile or strip
MAX_SEGMENTS = 4_000_000  # of a page: 10^11 pixels in tiles of 160 px
_BAND_BYTES = 2**20  # strips that are not compressed are read in bands of about this size
_MAX_OVERHEAD = 4096  # a compressed tile is no larger than twice the decoded one and this

_NONE, _DEFLATE, _PACKBITS, _JPEG, _JPEG_2000 = 1, (8, 32946), 32773, 7, 34712
_PLAIN = {_NONE, *_DEFLATE, _PACKBITS}
_BY_IMAGECODECS = {5: "LZW", _JPEG: "JPEG", 50000: "Zstandard", _JPEG_2000: "JPEG 2000"}

_DIFFERENCES = 2  # predictor: each pixel as what it differs from the one before
_WITH_DIFFERENCES = {5, 50000, *_DEFLATE}  # libtiff ignores the predictor with others

Decode = Callable[[bytes, int], Pixels]


class Source:
    """A file that several threads read from."""

    def __init__(self, handle: BinaryIO, *, n_bytes: int) -> None:
        self.handle = handle
        self.n_bytes = n_bytes
        self._lock = threading.Lock()

    def read(self, offset: int, n_bytes: int) -> bytes:
        """Read bytes; raise ``ImageError`` where the file ends before."""
        with self._lock:
            self.handle.seek(offset)
            content = self.handle.read(n_bytes)
        if len(content) != n_bytes:
            raise ImageError("the TIFF image is truncated")
        return content


class SegmentCache:
    """Decoded tiles or strips, those used last; safe to use from several threads."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._n_bytes = 0
        self._kept: OrderedDict[Hashable, Pixels] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable, decode: Callable[[], Pixels]) -> Pixels:
        """Return what belongs to a key; two threads that ask at once may both decode it, which does no harm."""
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        segment = decode()
        with self._lock:
            if key not in self._kept:
                self._kept[key] = segment
                self._n_bytes += segment.nbytes
            while self._n_bytes > self._max_bytes and len(self._kept) > 1:
                self._n_bytes -= self._kept.popitem(last=False)[1].nbytes
        return segment

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._kept.clear()
            self._n_bytes = 0


@dataclass(frozen=True, eq=False)
class Segments:
    """The tiles or strips that hold a page, or one of its colours where these are stored apart.

    ``offsets`` and ``counts`` say where in the file each segment lies and how long it is, row by row; a count of 0
    means that it was left out and is black.
    """

    width: int
    height: int
    segment_width: int
    segment_height: int
    n_samples: int
    dtype: np.dtype[Any]
    offsets: NDArray[np.int64]
    counts: NDArray[np.int64]
    decode: Decode

    def read(self, source: Source, cache: SegmentCache, x: int, y: int, width: int, height: int) -> Pixels:
        """Read a window, shape (height, width, n_samples), in the byte order of the machine."""
        out = np.zeros((height, width, self.n_samples), self.dtype.newbyteorder("="))
        for row in range(y // self.segment_height, (y + height - 1) // self.segment_height + 1):
            for column in range(x // self.segment_width, (x + width - 1) // self.segment_width + 1):
                segment = self._segment(source, cache, row, column)
                if segment is None:
                    continue
                top, left = row * self.segment_height, column * self.segment_width
                y0, y1 = max(y, top), min(y + height, top + self.segment_height)
                x0, x1 = max(x, left), min(x + width, left + self.segment_width)
                part = segment[y0 - top : y1 - top, x0 - left : x1 - left]
                if part.shape[:2] != (y1 - y0, x1 - x0):
                    raise ImageError("the TIFF image is damaged (a tile or strip of it ends early)")
                out[y0 - y : y1 - y, x0 - x : x1 - x] = part
        return out

    def _segment(self, source: Source, cache: SegmentCache, row: int, column: int) -> Pixels | None:
        index = row * -(-self.width // self.segment_width) + column
        n_bytes = int(self.counts[index])
        if n_bytes == 0:
            return None

        def decode() -> Pixels:
            return self.decode(source.read(int(self.offsets[index]), n_bytes), index)

        return cache.get((id(self), index), decode)


def cannot_decode(page: tifffile.TiffPage) -> str | None:
    """Tell why the pixels of a page cannot be read by window; None where they can."""
    compression = int(page.compression)
    if compression not in _PLAIN and compression not in _BY_IMAGECODECS:
        name = getattr(page.compression, "name", str(compression))
        return f"its pixels are compressed as {name}, which is not read by window; save it with deflate, LZW or JPEG"
    if compression in _BY_IMAGECODECS and find_spec("imagecodecs") is None:
        return (
            f"its pixels are compressed as {_BY_IMAGECODECS[compression]}, which needs imagecodecs: "
            "pip install 'perikarya[slides]'"
        )
    if int(page.predictor) != 1 and (int(page.predictor) != _DIFFERENCES or compression not in _WITH_DIFFERENCES):
        return "its pixels were transformed before they were compressed in a way that programs read differently"
    if int(page.fillorder) != 1 and compression != _JPEG:
        return "the bits of its bytes are reversed; save it again with another program"
    return None


def segments_of(page: tifffile.TiffPage, *, file_bytes: int) -> list[Segments]:
    """Find the tiles or strips of a page: one set, or one per colour where colours are stored apart.

    Raises
    ------
    ImageError
        If they are too large or too many, do not cover the page, or lie beyond the end of the file.
    """
    n_sets = page.samplesperpixel if int(page.planarconfig) == 2 else 1
    width, height = (page.tilewidth, page.tilelength) if page.is_tiled else (page.imagewidth, _strip_height(page))
    if min(width, height) < 1:
        raise ImageError("the TIFF image is damaged (its tiles have no size)")
    n_samples = page.samplesperpixel // n_sets
    dtype = np.dtype(f"{page.parent.byteorder}u{page.bitspersample // 8}")
    n_bytes = width * height * n_samples * dtype.itemsize
    n_here = -(-page.imagewidth // width) * -(-page.imagelength // height)
    plain = int(page.compression) == _NONE
    if n_here * n_sets > MAX_SEGMENTS:
        raise ImageError(f"the image is cut into {n_here * n_sets} pieces; the limit is {MAX_SEGMENTS}")
    offsets, counts = (np.array(numbers, np.int64) for numbers in (page.dataoffsets, page.databytecounts))
    if len(offsets) < n_here * n_sets or len(counts) < n_here * n_sets:
        raise ImageError("the TIFF image is damaged (some of its pixels are nowhere in the file)")
    sets = []
    for k in range(n_sets):
        part = slice(k * n_here, (k + 1) * n_here)
        one = Segments(
            width=page.imagewidth,
            height=page.imagelength,
            segment_width=width,
            segment_height=height,
            n_samples=n_samples,
            dtype=dtype,
            offsets=offsets[part],
            counts=counts[part],
            decode=_decoder(page, (height, width, n_samples), dtype),
        )
        sets.append(_in_bands(one) if plain and not page.is_tiled and n_bytes > _BAND_BYTES else one)
    for one in sets:
        _check_sizes(one, file_bytes, plain=plain, tiled=page.is_tiled)
    return sets


def _strip_height(page: tifffile.TiffPage) -> int:
    return int(min(page.rowsperstrip, page.imagelength))


def _in_bands(strips: Segments) -> Segments:
    """Read strips that follow each other in the file, not compressed, as bands of fewer rows.

    Many programs write a whole image as one strip.
    """
    row_bytes = strips.width * strips.n_samples * strips.dtype.itemsize
    heights = np.diff(np.append(np.arange(0, strips.height, strips.segment_height), strips.height))
    if (strips.counts != heights * row_bytes).any() or (np.diff(strips.offsets) != strips.counts[:-1]).any():
        return strips
    n_rows = max(1, _BAND_BYTES // row_bytes)
    starts = np.arange(0, strips.height, n_rows)
    return Segments(
        width=strips.width,
        height=strips.height,
        segment_width=strips.width,
        segment_height=n_rows,
        n_samples=strips.n_samples,
        dtype=strips.dtype,
        offsets=strips.offsets[0] + starts * row_bytes,
        counts=np.diff(np.append(starts, strips.height)) * row_bytes,
        decode=_as_rows((n_rows, strips.width, strips.n_samples), strips.dtype),
    )


def _check_sizes(segments: Segments, file_bytes: int, *, plain: bool, tiled: bool) -> None:
    n_bytes = segments.segment_width * segments.segment_height * segments.n_samples * segments.dtype.itemsize
    if n_bytes > MAX_SEGMENT_BYTES:
        raise ImageError(
            f"one {'tile' if tiled else 'strip'} of the image holds {n_bytes / 2**20:.0f} MiB of pixels (the limit is "
            f"{MAX_SEGMENT_BYTES // 2**20}), so it cannot be read by window; save it in tiles of 256 to 1024 px"
        )
    offsets, counts = segments.offsets, segments.counts
    if counts.min() < 0 or offsets.min() < 0 or (offsets + counts).max() > file_bytes:
        raise ImageError("the TIFF image is truncated (pixels are announced beyond the end of the file)")
    if not plain and counts.max() > 2 * n_bytes + _MAX_OVERHEAD:
        raise ImageError("the TIFF image is damaged (its compressed pixels are larger than the pixels)")


def _decoder(page: tifffile.TiffPage, shape: tuple[int, int, int], dtype: np.dtype[Any]) -> Decode:
    """Choose how the segments of a page, of shape (height, width, samples), are decoded."""
    compression = int(page.compression)
    if compression == _NONE:
        return _as_rows(shape, dtype)
    if compression in _DEFLATE:
        return _inflated(shape, dtype, differences=int(page.predictor) == _DIFFERENCES)
    decode, tables = page.decode, page.jpegtables
    n_bytes = int(np.prod(shape)) * dtype.itemsize

    def by_tifffile(content: bytes, index: int) -> Pixels:
        announces = compression in (_JPEG, _JPEG_2000)
        if announces and _announced_bytes(content, compression) > 2 * n_bytes + _MAX_OVERHEAD:
            raise ImageError("the TIFF image is damaged (a tile announces more pixels than it may hold)")
        decoded = decode(content, index, jpegtables=tables)[0]
        return np.asarray(decoded[0])

    return by_tifffile


def _as_rows(shape: tuple[int, int, int], dtype: np.dtype[Any]) -> Decode:
    row_bytes = shape[1] * shape[2] * dtype.itemsize

    def decode(content: bytes, _index: int) -> Pixels:
        n_rows = min(shape[0], len(content) // row_bytes)  # the last strip of a page has fewer than the others
        return np.frombuffer(content, dtype, count=n_rows * shape[1] * shape[2]).reshape(n_rows, *shape[1:])

    return decode


def _inflated(shape: tuple[int, int, int], dtype: np.dtype[Any], *, differences: bool) -> Decode:
    rows = _as_rows(shape, dtype)
    n_bytes = int(np.prod(shape)) * dtype.itemsize
    native = dtype.newbyteorder("=")

    def decode(content: bytes, index: int) -> Pixels:
        pixels = rows(zlib.decompressobj().decompress(content, n_bytes), index)
        return np.cumsum(pixels, axis=1, dtype=native) if differences else pixels

    return decode


def _announced_bytes(content: bytes, compression: int) -> int:
    """Return how large the picture in a JPEG or JPEG 2000 stream says it is; raise ``ImageError`` if it does not say.

    JPEG: the frame header SOFn of ITU-T T.81, B.2.2; JPEG 2000: the marker SIZ of ITU-T T.800, A.5.1.
    """
    if compression == _JPEG_2000:
        start = content.index(b"\xff\x4f\xff\x51")
        width, height = struct.unpack_from(">2I", content, start + 8)
        n_components, depth = struct.unpack_from(">HB", content, start + 40)
        return int(height * width * n_components * (2 if depth & 0x7F > 7 else 1))
    position = 2
    while content[position] == 0xFF:
        marker = content[position + 1]
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            depth, height, width, n_components = struct.unpack_from(">BHHB", content, position + 4)
            return int(height * width * n_components * (2 if depth > 8 else 1))
        is_fill = marker == 0xFF
        position += 1 if is_fill else 2 + int(struct.unpack_from(">H", content, position + 2)[0])
    raise ImageError("the TIFF image is damaged (a tile is no JPEG picture)")
