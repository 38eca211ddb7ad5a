"""Label maps: images of numbers, one per outlined cell and 0 for the rest, and the table of cells beside them.

They come from Cellpose (``x_cp_masks.png``), from ImageJ plugins and segmentation programs (``x_labels.tif``). A map is
decoded whole, so one has at most ``images.MAX_PIXELS`` pixels (four bytes each); larger fields need outlines that are
kept as coordinates (GeoJSON, ROI).
"""

from __future__ import annotations

import io
import math
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import TypeAlias

import cv2
import numpy as np
import tifffile
from numpy.typing import NDArray
from scipy import ndimage

from perikarya.data.images import DECODER_ERRORS, ImageError, check_size, read_bytes
from perikarya.data.images import _check_png as check_png
from perikarya.data.metadata import WORDS, CsvRow, normal_path, read_csv
from perikarya.data.outlines import ReadOptions
from perikarya.data.outlines.base import CellMask, Outline, OutlineError, OutlineFile, Problem
from perikarya.data.outlines.find import LABEL_MARKS

CELLS_NAME = "cells.csv"
# column -> names it may have in a person's table
CELLS_COLUMNS: dict[str, tuple[str, ...]] = {
    "image": ("image", "field", "file", "filename"),
    "label_id": ("label_id", "label_number", "object"),
    "x_px": ("x_px", "x"),
    "y_px": ("y_px", "y"),
    "class": ("class", "label"),
    "subject": ("subject", "animal"),
    "region": ("region",),
    "group": ("group",),
    "set": ("set",),
}
CELLPOSE_ARCHIVE = "_seg.npy"  # at the end of a name
ARCHIVE_REASON = (
    "a _seg.npy file of Cellpose is a pickle, which can run programs when it is opened, so it is not read; "
    "in Cellpose save the masks as PNG or TIFF (File menu, or --save_png, --save_tif)"
)
_IN_COLOUR = "the label map is in colour; export it as a grey image whose values are the cells' numbers"
_FAR_PX = 5.0  # a point this far from its outline's box, or half the box if that is more, belongs to another cell
_PLAIN_COMPRESSIONS = frozenset({1, 8, 32773, 32946})  # none, deflate, packbits: tifffile decodes them by itself
_MAX_DIRECT = 200_000  # numbers up to here index a table; larger ones are ranked first
_MAX_NAMED = 5  # numbers named in a note

Box: TypeAlias = tuple[int, int, int, int]


def read_labels(path: Path, options: ReadOptions = ReadOptions()) -> OutlineFile:  # noqa: B008
    """Read the cells of a label map, and their classes from ``cells.csv`` beside it where that names its image.

    Every number is a cell unless the table has rows for the image; then those of the table are. A number in several
    separate pieces stays one cell, and a note says so. The key of a cell is its number.

    Raises
    ------
    OutlineError
        If the file is no label map; the message is the bare reason.
    DataError
        If ``cells.csv`` cannot be read.
    """
    if path.name.endswith(CELLPOSE_ARCHIVE):
        raise OutlineError(ARCHIVE_REASON)
    try:
        labels = read_label_map(path)
    except ImageError as error:
        raise OutlineError(str(error)) from None
    boxes = boxes_of(labels)
    listed, problems = _rows_beside(path, boxes)
    masks = {number: cell_of(labels, number, boxes[number]) for number in (boxes if listed is None else listed)}
    rows = listed or {}
    outlines = tuple(
        Outline(
            key=str(number),
            mask=mask,
            label=options.class_map.label(rows[number]["class"] if number in rows else None),
            words={} if number not in rows else _words_of(rows[number]),
        )
        for number, mask in masks.items()
    )
    notes = list(notes_on_pieces([str(number) for number, mask in masks.items() if count_pieces(mask.mask_hw) > 1]))
    if listed is not None and len(boxes) > len(listed):
        notes.append(f"{len(boxes) - len(listed)} numbers have no row in {CELLS_NAME}; they are not cells here.")
    return OutlineFile(outlines, tuple(problems), tuple(notes), image_hw=(labels.shape[0], labels.shape[1]))


def image_stem(path: Path) -> str:
    """Return what the image of a label map, or of an archive of Cellpose, is called without its suffix."""
    if path.name.endswith(CELLPOSE_ARCHIVE):
        return path.name.removesuffix(CELLPOSE_ARCHIVE)
    mark = next((mark for mark in LABEL_MARKS if path.stem.endswith(mark)), "")
    return path.stem.removesuffix(mark)


def cell_of(labels_hw: NDArray[np.uint32], number: int, box: Box) -> CellMask:
    """Return the pixels of a number, given its bounding box (x, y, width, height)."""
    x, y, width, height = box
    return CellMask((labels_hw[y : y + height, x : x + width] == number).view(np.uint8), x, y)


def count_pieces(mask_hw: NDArray[np.uint8]) -> int:
    """Return the number of pieces of a mask that touch neither by an edge nor by a corner."""
    return int(cv2.connectedComponents(mask_hw, connectivity=8)[0]) - 1


def notes_on_pieces(names: Sequence[str]) -> tuple[str, ...]:
    """Return the note on cells of several pieces, if there are any."""
    if not names:
        return ()
    named = ", ".join(names[:_MAX_NAMED]) + (" …" if len(names) > _MAX_NAMED else "")
    return (f"{len(names)} cell(s) consist of several separate pieces ({named}); each is kept as one cell.",)


def _rows_beside(path: Path, boxes: Mapping[int, Box]) -> tuple[dict[int, CsvRow] | None, list[Problem]]:
    """Return the rows of the table by number; None where there is no table or it does not know the image."""
    beside = path.with_name(CELLS_NAME)
    if not beside.is_file():
        return None, []
    table = read_csv(beside, columns=CELLS_COLUMNS, required=["image", "label_id"])
    mine = [row for row in table.rows if row["image"] is not None and _stem(row["image"]) == image_stem(path)]
    if not mine:
        return None, []
    rows: dict[int, CsvRow] = {}
    problems = list(table.problems)
    for row in mine:
        number = whole_number(row["label_id"])
        reason = row_misfit(row, number, table.columns, boxes, rows)
        if number is None or reason is not None:
            problems.append((f"{CELLS_NAME} line {row.line}", reason or ""))
        else:
            rows[number] = row
    return rows, problems


def _stem(image: str) -> str:
    path = PurePosixPath(normal_path(image))
    return path.stem.removesuffix(".ome") if path.parent == PurePosixPath() else ""


def _words_of(row: CsvRow) -> dict[str, str]:
    return {word: value for word in (*WORDS, "set") if word in CELLS_COLUMNS and (value := row[word]) is not None}


def whole_number(text: str | None) -> int | None:
    """Return a whole number above 0 (``7`` or ``7.0``), or None."""
    value = _number(text)
    return int(value) if value is not None and value >= 1 and value.is_integer() else None


def _number(text: str | None) -> float | None:
    try:
        value = float(text or "nan")
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def row_misfit(
    row: CsvRow, number: int | None, columns: Collection[str], boxes: Mapping[int, Box], rows: Mapping[int, CsvRow]
) -> str | None:
    """Tell why a row of the table of cells does not fit the label map.

    Parameters
    ----------
    number
        The row's ``label_id`` by ``whole_number``.
    columns
        Those the table has.
    boxes
        Number -> its bounding box in the label map (``boxes_of``).
    rows
        Number -> the earlier row that has it.
    """
    if number is None:
        return f"label_id is '{row['label_id'] or ''}', not a whole number above 0"
    if number not in boxes:
        return f"label_id {number} does not occur in the label map"
    if number in rows:
        return f"label_id {number} was given in line {rows[number].line} already"
    x, y, width, height = boxes[number]
    for column, start, side in (("x_px", x, width), ("y_px", y, height)):
        if column not in columns:
            continue
        value = _number(row[column])
        if value is None:
            return f"{column} is '{row[column] or ''}', not a number"
        if not -max(_FAR_PX, side / 2) <= value - start <= side + max(_FAR_PX, side / 2):
            return f"{column} is {value:g} but outline {number} spans {start} to {start + side}"
    return None


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
            check_png(content)  # OpenCV sets aside as many bytes as a chunk claims to have
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
        raise ImageError(_IN_COLOUR)
    return labels.astype(np.uint32)


def _decode_tiff(content: bytes) -> NDArray[np.generic]:
    with tifffile.TiffFile(io.BytesIO(content)) as tiff:
        if not len(tiff.pages):
            raise ImageError("the label map is damaged: it holds no page that can be read")
        if len(tiff.pages) != 1:
            raise ImageError(f"the label map holds {len(tiff.pages)} pages; it is unclear which one is meant")
        page = tiff.pages.first
        check_size(page.imagewidth, page.imagelength)
        if page.is_tiled:
            check_size(page.tilewidth, page.tilelength)  # a small map may be announced in enormous tiles
        if page.samplesperpixel != 1 or page.imagedepth != 1:
            raise ImageError(_IN_COLOUR)
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
