"""TIFF files by window: which of a file's pages are the picture, and its pixels tile by tile.

Only the pages themselves are looked at; what metadata say of other files is never followed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import tifffile

from perikarya.data.images import MAX_PIXELS, ImageError, Pixels, accessing, check_whole, decoding, file_size, on_white
from perikarya.data.picture_base import MAX_WINDOWED_PIXELS, Picture, file_sha256, hash_by_bands
from perikarya.data.picture_scale import OmeImage, parse_ome, scale_of_page
from perikarya.data.picture_segments import SegmentCache, Segments, Source, cannot_decode, segments_of

MAX_PAGES = 1000  # a slide has less than 20; more are a stack, whose pages would take long to list

_SHADES, _RGB, _YCBCR = (0, 1), 2, 6  # photometric interpretations
_WHITE_IS_ZERO = 0
_JPEG = 7
_ASSOCIATED_ALPHA, _ALPHA = 1, 2
_PLAIN_CHANNEL = re.compile(r"(channel|ch|c)?[\s:_#-]*\d*", re.IGNORECASE)
_COLOURS = ("red", "green", "blue")
_BAND_ROWS = 64  # at least so many rows are hashed at a time, whole tiles
_LEVEL_ROUNDING_PX = 2  # sides of a level of a pyramid are rounded up or down


class TiffPages:
    """An open TIFF file and the pages that make its picture: one, or one grey page for each of red, green, blue.

    What tags hold is taken as it is: use it within ``images.decoding``.

    ``is_slide`` tells the files of slide scanners, whose pages have meanings that only OpenSlide knows.

    Raises
    ------
    ImageError
        If the file cannot be read, or its pages are more than one picture.
    """

    def __init__(self, path: Path) -> None:
        n_bytes = file_size(path)
        with accessing():
            handle = path.open("rb")
        self.path = path
        self.source = Source(handle, n_bytes=n_bytes)
        try:
            # a file may name others that hold its pixels: they are not opened
            tiff = tifffile.TiffFile(handle, _multifile=False)
            if not 0 < len(tiff.pages) <= MAX_PAGES:
                raise ImageError(f"the file holds {len(tiff.pages)} pages; it is unclear which one is meant")
            pages = list(tiff.pages)
            for page in pages:
                check_whole(page.imagewidth, page.imagelength, page.samplesperpixel, page.rowsperstrip)
                check_whole(page.tilewidth, page.tilelength, page.subfiletype)
            self.n_pages = len(pages)
            self.is_slide = len(pages) > 1 and _is_of_scanner(pages[0])
            ome = None if self.is_slide else _ome_of(pages)
            self.planes = _planes(tiff, pages, ome, is_slide=self.is_slide)
            self.um_per_px = None if self.is_slide else scale_of_page(self.planes[0], ome)
            self.max_value = _max_value(self.planes[0], ome)
        except BaseException:
            handle.close()
            raise

    @property
    def page(self) -> tifffile.TiffPage:
        """The page, or the first of three, which are alike."""
        return self.planes[0]

    @property
    def n_pixels(self) -> int:
        """Number of pixels of the picture."""
        return int(self.page.imagewidth) * int(self.page.imagelength)

    def cannot_read(self) -> str | None:
        """Tell why the picture cannot be read by window; None where it can."""
        page = self.page
        kind, samples = int(page.photometric), int(page.samplesperpixel)
        if int(page.sampleformat) != 1 or page.bitspersample not in (8, 16):
            return f"its pixels are {page.bitspersample}-bit numbers; export 8 or 16 bits"
        if page.imagedepth > 1:
            return "it is a volume, not a picture"
        if orientation_of(page) != 1:
            return "it is stored turned or mirrored; save it upright"
        shades = kind in _SHADES and samples == 1 and (kind, page.bitspersample) != (_WHITE_IS_ZERO, 16)
        colours = samples in (3, 4) and (kind == _RGB or (kind == _YCBCR and int(page.compression) == _JPEG))
        if not shades and not colours:
            name = getattr(page.photometric, "name", str(page.photometric))
            return f"its colours are stored as {name} with {samples} channels; export it as RGB or grey"
        return cannot_decode(page)

    def close(self) -> None:
        """Close the file."""
        self.source.handle.close()


class TiffPicture(Picture):
    """A TIFF picture whose tiles or strips are decoded when a window asks for them.

    Parameters
    ----------
    pages
        The open file; it is closed with the picture.
    cache_bytes
        How much may stay decoded between windows.
    """

    def __init__(self, pages: TiffPages, *, cache_bytes: int) -> None:
        page = pages.page
        reason = pages.cannot_read()
        if reason is not None:
            raise ImageError(reason)
        if pages.n_pixels > MAX_WINDOWED_PIXELS:
            raise ImageError(
                f"the picture is {page.imagewidth} x {page.imagelength} px; "
                f"the limit is {MAX_WINDOWED_PIXELS // 10**6} million pixels"
            )
        self._parts: list[Segments] = [
            part for plane in pages.planes for part in segments_of(plane, file_bytes=pages.source.n_bytes)
        ]
        super().__init__(height=int(page.imagelength), width=int(page.imagewidth), um_per_px=pages.um_per_px)
        self._pages = pages
        self._cache = SegmentCache(cache_bytes)
        self._is_large = pages.n_pixels > MAX_PIXELS
        self._is_16_bit = page.bitspersample == 16
        self._white_is_zero = int(page.photometric) == _WHITE_IS_ZERO
        self._alpha = _alpha_kind(page)

    @cached_property
    def _hashed(self) -> tuple[str, int]:
        """Hash and largest value of all pixels."""
        tallest = max(part.segment_height for part in self._parts)
        return hash_by_bands(self, n_rows=tallest * -(-_BAND_ROWS // tallest))

    @property
    def sha256(self) -> str:
        """Hash of the pixels, or of the file where it is large."""
        return self._file_sha256 if self._is_large else self._hashed[0]

    @cached_property
    def _file_sha256(self) -> str:
        return file_sha256(self._pages.path)

    @property
    def max_16bit(self) -> int:
        """Largest value, or the largest that the file says there is where it is large; 0 for 8 bits."""
        if not self._is_16_bit:
            return 0
        return self._pages.max_value if self._is_large else self._hashed[1]

    def _read(self, x: int, y: int, width: int, height: int) -> Pixels:
        with decoding("TIFF"):
            parts = [part.read(self._pages.source, self._cache, x, y, width, height) for part in self._parts]
            pixels = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=2)
        if self._white_is_zero:
            pixels = np.iinfo(pixels.dtype).max - pixels
        if pixels.shape[2] == 1:
            return np.repeat(pixels, 3, axis=2)
        if pixels.shape[2] == 3:
            return pixels
        rgb = np.ascontiguousarray(pixels[..., :3])
        return on_white(rgb, pixels[..., 3], whole=False) if self._alpha else rgb

    def close(self) -> None:
        """Close the file and forget decoded tiles."""
        self._cache.clear()
        self._pages.close()


def orientation_of(page: tifffile.TiffPage) -> int:
    """Return how a page is turned or mirrored, 1 (upright) to 8."""
    tag = page.tags.get(274)
    return int(tag.value) if tag is not None else 1


def _alpha_kind(page: tifffile.TiffPage) -> bool:
    """Tell whether the fourth channel is transparency; refuse colours that were multiplied with it."""
    kinds = [int(kind) for kind in page.extrasamples]
    if kinds == [_ASSOCIATED_ALPHA]:
        raise ImageError("its colours are multiplied with its transparency; export it without transparency")
    return kinds == [_ALPHA]


def _is_of_scanner(page: tifffile.TiffPage) -> bool:
    return bool(page.is_svs or page.is_ndpi or page.is_scn or page.is_bif or page.is_philips)


def _planes(
    tiff: tifffile.TiffFile, pages: Sequence[tifffile.TiffPage], ome: OmeImage | None, *, is_slide: bool
) -> list[tifffile.TiffPage]:
    if is_slide:
        return [pages[0]]
    return _ome_planes(pages, ome) if ome is not None else [_largest(tiff, pages)]


def _ome_of(pages: Sequence[tifffile.TiffPage]) -> OmeImage | None:
    text = str(pages[0].description)
    if not text.lstrip().startswith("<") or "<OME" not in text[:5000]:
        return None
    ome = parse_ome(text)
    size = (ome.number("SizeX"), ome.number("SizeY"))
    # programs that know nothing of OME keep its words when they crop or shrink the only page
    is_of_another = len(pages) == 1 and size != (pages[0].imagewidth, pages[0].imagelength)
    return None if is_of_another else ome


def _max_value(page: tifffile.TiffPage, ome: OmeImage | None) -> int:
    """Return the largest value that the metadata announce (bits of the camera), or that the type holds."""
    largest = 255 if page.bitspersample == 8 else 65535
    if ome is not None and 8 < ome.number("SignificantBits") <= 16:
        return int(min(largest, 2 ** ome.number("SignificantBits") - 1))
    tag = page.tags.get(281)  # MaxSampleValue
    said = np.atleast_1d(tag.value if tag is not None else largest)
    return int(min(largest, said.max())) if said.dtype.kind in "ui" and said.max() > 0 else largest


def _largest(tiff: tifffile.TiffFile, pages: Sequence[tifffile.TiffPage]) -> tifffile.TiffPage:
    """Return the picture of a file without OME metadata: the largest page, if the others are smaller copies of it."""
    n_planes = int((tiff.imagej_metadata or {}).get("images", 1)) if str(pages[0].description)[:6] == "ImageJ" else 1
    first = max(pages, key=lambda page: page.imagewidth * page.imagelength)
    others = [page for page in pages if page is not first and not _is_smaller_copy(page, first)]
    if others or n_planes > 1:
        raise ImageError(f"the file holds {max(len(pages), n_planes)} pages; it is unclear which one is meant")
    return first


def _is_smaller_copy(page: tifffile.TiffPage, first: tifffile.TiffPage) -> bool:
    """Tell whether a page is a level of the pyramid, a thumbnail or a label of the slide."""
    if page.subfiletype & 1:
        return True
    factor = first.imagewidth / max(page.imagewidth, 1)
    same_shape = abs(first.imagelength / factor - page.imagelength) <= _LEVEL_ROUNDING_PX
    return bool(factor > 1.3 and same_shape and page.samplesperpixel == first.samplesperpixel)


def _ome_planes(pages: Sequence[tifffile.TiffPage], ome: OmeImage) -> list[tifffile.TiffPage]:
    """Return the pages of the first image of an OME-TIFF: its RGB or grey page, or its three colours."""
    if len(ome.files) > 1:
        raise ImageError("its pixels are spread over several files; save it as one")
    width, height = ome.number("SizeX"), ome.number("SizeY")
    n_stacked, n_channels = ome.number("SizeZ", 1) * ome.number("SizeT", 1), ome.number("SizeC", 1)
    if n_stacked != 1:
        raise ImageError(f"it is a stack of {n_stacked} planes or times; export the one that is meant")
    n_planes = 1 if n_channels == pages[0].samplesperpixel else n_channels
    if n_channels not in (1, 3) and not (n_channels == 4 and n_planes == 1):
        raise ImageError(f"it has {n_channels} channels; export it as RGB or grey")
    if n_planes == 3:
        _check_names([channel.get("Name", "") for channel in ome.channels])
    numbers = _page_numbers(ome, n_planes)
    if max(numbers) >= len(pages):
        raise ImageError("its OME metadata announce more planes than the file has")
    planes = [pages[number] for number in numbers]
    kinds = {(page.imagewidth, page.imagelength, page.samplesperpixel, page.bitspersample) for page in planes}
    if len(kinds) > 1 or (planes[0].imagewidth, planes[0].imagelength) != (width, height):
        raise ImageError(f"its OME metadata announce {width} x {height} px, which its pages are not")
    return planes


def _page_numbers(ome: OmeImage, n_planes: int) -> list[int]:
    """Return which page holds which channel; without a word on it they follow each other."""
    numbers = list(range(n_planes))
    for block in ome.data:
        try:
            page = int(block["IFD"])
            first, count = int(block.get("FirstC", 0)), int(block.get("PlaneCount", 1 if n_planes == 1 else n_planes))
        except (KeyError, ValueError):
            continue
        for k in range(max(first, 0), min(first + count, n_planes)):
            numbers[k] = page + k - first
    if min(numbers) < 0 or len(set(numbers)) != n_planes:
        raise ImageError("its OME metadata do not say which page is which channel")
    return numbers


def _check_names(names: Sequence[str]) -> None:
    """Refuse three grey channels that are called something else than red, green and blue."""
    for name, colour in zip(names, _COLOURS, strict=False):
        if not _PLAIN_CHANNEL.fullmatch(name) and name.strip().casefold() not in (colour, colour[0]):
            raise ImageError(
                f"its channels are called {', '.join(names[:3])[:80]}, not red, green, blue; export it as RGB"
            )
