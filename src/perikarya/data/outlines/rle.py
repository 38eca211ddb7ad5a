"""Masks as COCO writes them: lengths of runs, background first, down one column after another.

The plain form is a list of lengths. The compressed one is a text: five bits of a number per character (its code
minus 48), lowest first, bit 6 says that the number goes on, bit 5 of its last character is the sign; from the fourth
number on the difference to the one two places before is written (``maskApi.c`` of the COCO API).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from perikarya.data.images import MAX_PIXELS
from perikarya.data.outlines.base import CellMask, OutlineError

_LONGEST_NUMBER = 8  # characters: 40 bits, more than the pixels of any scan
_CONTINUES, _SIGN, _VALUE = 0x20, 0x10, 0x1F


def decode_rle(segmentation: object, *, height: int, width: int) -> CellMask:
    """Turn a run-length encoded mask into the pixels of a cell, without unfolding the whole image.

    Parameters
    ----------
    segmentation
        ``{"size": [height, width], "counts": [...] or "..."}``.
    height, width
        Of the image, in pixels.

    Raises
    ------
    OutlineError
        If the size is another than the image's, or the runs are none, negative or do not add up to it.
    """
    if not isinstance(segmentation, dict) or "counts" not in segmentation:
        raise OutlineError("its mask has no 'counts'")
    size = segmentation.get("size")
    if size != [height, width]:
        raise OutlineError(f"its mask is for {_size_words(size)} but the image is {width} x {height} px")
    runs = _runs_of(segmentation["counts"])
    if (runs < 0).any() or runs.sum(dtype=np.float64) != height * width:  # floats do not run over
        raise OutlineError(f"the runs of its mask do not add up to the {height * width} pixels of the image")
    return _mask_of_runs(runs, height)


def _size_words(size: object) -> str:
    if isinstance(size, list) and len(size) == 2 and all(type(side) is int for side in size):
        return f"{size[1]} x {size[0]} px"[:60]
    return f"the size {size!r}"[:60]


def _runs_of(counts: object) -> NDArray[np.int64]:
    if isinstance(counts, str):
        return _decompress(counts)
    if not isinstance(counts, list) or not all(type(n) is int and abs(n) < 2**40 for n in counts):
        raise OutlineError("the 'counts' of its mask are neither whole numbers nor a compressed text")
    return np.array(counts, np.int64)


def _decompress(text: str) -> NDArray[np.int64]:
    """Return the lengths in a compressed text (see the module's docstring)."""
    codes: NDArray[np.int64] = np.frombuffer(text.encode("utf-8", "replace"), np.uint8).astype(np.int64) - 48
    if not len(codes) or codes.min() < 0 or codes.max() > 63 or codes[-1] & _CONTINUES:
        raise OutlineError("the compressed 'counts' of its mask are damaged")
    ends = np.flatnonzero((codes & _CONTINUES) == 0)
    starts = np.append(0, ends[:-1] + 1)
    lengths = ends - starts + 1
    if lengths.max() > _LONGEST_NUMBER:
        raise OutlineError("the compressed 'counts' of its mask hold a number beyond all images")
    place = np.arange(len(codes)) - np.repeat(starts, lengths)
    values = np.add.reduceat((codes & _VALUE) << (5 * place), starts)
    values -= np.where(codes[ends] & _SIGN, np.int64(1) << (5 * lengths), 0)
    values[1::2] = np.cumsum(values[1::2])
    values[2::2] = np.cumsum(values[2::2])
    return values


def _mask_of_runs(runs: NDArray[np.int64], height: int) -> CellMask:
    ends = np.cumsum(runs)[1::2]
    lengths = runs[1::2]
    starts = (ends - lengths)[lengths > 0]
    lengths = lengths[lengths > 0]
    if not len(starts):
        raise OutlineError("its mask is empty: no pixel belongs to it")
    last = starts + lengths - 1
    left, right = int(starts[0] // height), int(last[-1] // height)
    if (starts // height != last // height).any():  # a run goes on in the next column, from the last row to the first
        top, bottom = 0, height - 1
    else:
        top, bottom = int((starts % height).min()), int((last % height).max())
    rows, columns = bottom - top + 1, right - left + 1
    if rows * columns > MAX_PIXELS:
        raise OutlineError(f"its mask spans {columns} x {rows} px; the limit is {MAX_PIXELS // 10**6} million pixels")
    # down the columns of the box; either a run stays in its column or the box is as high as the image
    box_starts = (starts // height - left) * rows + starts % height - top
    change = np.zeros(rows * columns + 1, np.int8)
    np.add.at(change, box_starts, 1)
    np.add.at(change, box_starts + lengths, -1)
    filled = np.cumsum(change[:-1], dtype=np.int8).view(np.uint8).reshape(columns, rows).T
    return CellMask(np.ascontiguousarray(filled), left, top)
