"""Label maps in: one number per outlined cell, 0 for the rest."""

from __future__ import annotations

import io
from pathlib import Path

import cv2
import numpy as np
import tifffile
from numpy.typing import NDArray
from scipy import ndimage

from perikarya.data.images import DECODER_ERRORS, ImageError, check_size, read_bytes

LABEL_SUFFIXES = ("_labels.tif", "_labels.tiff", "_labels.png")
_PLAIN_COMPRESSIONS = frozenset({1, 8, 32773, 32946})  # none, deflate, packbits: tifffile decodes them by itself
_MAX_DIRECT = 200_000  # numbers up to here index a table; larger ones are ranked first

Box = tuple[int, int, int, int]


def label_map_of(image: Path) -> Path | None:
    """Return the label map beside a field, or None."""
    found = [p for suffix in LABEL_SUFFIXES if (p := image.with_name(image.stem + suffix)).is_file()]
    return found[0] if found else None


def read_label_map(path: Path) -> NDArray[np.uint32]:
    """Read a label map: a grey TIFF of 8, 16 or 32 bits or a grey PNG of 8 or 16 bits, with one page.

    Returns
    -------
    Shape (height, width), uint32, 0 where there is no cell.

    Raises
    ------
    ImageError
        If the file is missing, damaged or something else than whole numbers per pixel; the message is the bare reason.
    """
    content = read_bytes(path)
    try:
        if content.startswith((b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")):
            labels = _decode_tiff(content)
        elif content.startswith(b"\x89PNG\r\n\x1a\n"):
            check_size(int.from_bytes(content[16:20], "big"), int.from_bytes(content[20:24], "big"))
            labels = _decode_plain(content)
        else:
            raise ImageError("the label map is not a TIFF or PNG file, whatever its name says")
    except ImageError:
        raise
    except DECODER_ERRORS as error:
        reason = (str(error).strip().splitlines() or [repr(error)])[0]
        raise ImageError(f"the label map is damaged or truncated ({reason})") from None
    if labels.ndim != 2:
        raise ImageError("the label map is in colour; export it as a grey image whose values are the cells' numbers")
    return labels.astype(np.uint32)


def _decode_tiff(content: bytes) -> NDArray[np.generic]:
    with tifffile.TiffFile(io.BytesIO(content)) as tiff:
        if len(tiff.pages) != 1:
            raise ImageError(f"the label map holds {len(tiff.pages)} pages; it is unclear which one is meant")
        page = tiff.pages.first
        check_size(page.imagewidth, page.imagelength)
        if page.sampleformat not in (1, 2) or page.bitspersample not in (8, 16, 32):
            raise ImageError(f"the label map holds {page.dtype} values; export whole numbers of 8, 16 or 32 bits")
        if max((a + n for a, n in zip(page.dataoffsets, page.databytecounts, strict=False)), default=0) > len(content):
            raise ImageError("the label map is truncated (pixels are announced beyond the end of the file)")
        if page.compression in _PLAIN_COMPRESSIONS:
            labels = np.asarray(page.asarray())
            if labels.size and int(labels.min()) < 0:
                raise ImageError("the label map holds negative numbers")
            return labels
        if page.bitspersample == 32:
            raise ImageError("the 32-bit label map is compressed in a way that cannot be read; save it with deflate")
    return _decode_plain(content)


def _decode_plain(content: bytes) -> NDArray[np.generic]:
    labels = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    if labels is None:
        raise ImageError("the label map is damaged or of a variant that cannot be read")
    return np.asarray(labels)


def boxes_of(labels_hw: NDArray[np.uint32]) -> dict[int, Box]:
    """Return the bounding box (x, y, width, height) of every number above 0 in a label map."""
    numbers: NDArray[np.uint32] | None = None
    ranked: NDArray[np.integer] = labels_hw
    if labels_hw.max(initial=0) > _MAX_DIRECT:
        numbers, inverse = np.unique(np.append(labels_hw.ravel(), np.uint32(0)), return_inverse=True)
        ranked = inverse[:-1].reshape(labels_hw.shape)
    found = {}
    for i, slices in enumerate(ndimage.find_objects(ranked.astype(np.int32)), start=1):
        if slices is not None:
            rows, columns = slices
            number = i if numbers is None else int(numbers[i])
            found[number] = (columns.start, rows.start, columns.stop - columns.start, rows.stop - rows.start)
    return found
