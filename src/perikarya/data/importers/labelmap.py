"""Label maps: whole fields, a map of numbered outlines beside each, and one table of the cells."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from itertools import groupby
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from perikarya.data.images import ImageError, Pixels, read_rgb, to_8bit
from perikarya.data.importers.base import (
    CutSettings,
    Importer,
    ImportOptions,
    Problem,
    Scan,
    SourceCell,
    cell_digest,
    map_threaded,
    pixel_sha256,
    tracked,
)
from perikarya.data.importers.label_files import LABEL_SUFFIXES, Box, boxes_of, label_map_of, read_label_map
from perikarya.data.importers.label_table import CELLS_COLUMNS, CELLS_NAME, LabelField, fields_of, recognises_label_maps
from perikarya.data.metadata import WORDS, CsvRow, CsvTable, read_csv
from perikarya.data.store import cut_window
from perikarya.errors import DataError
from perikarya.schema import DEVELOPMENT, EXTERNAL, safe_name

_FAR_PX = 5.0  # a point this far from its outline's box, or half the box if that is more, belongs to another cell


@dataclass(frozen=True)
class _Context:
    """What all fields of one scan share."""

    source: Path
    set: str
    table: CsvTable

    def where(self, row: CsvRow) -> str:
        """Name a line of the table in messages."""
        return f"{self.table.path.name} line {row.line}"


@dataclass(frozen=True)
class _Scanned:
    """What one field holds."""

    cells: tuple[SourceCell, ...]
    problems: tuple[Problem, ...]
    n_unlisted: int = 0
    max_16bit: int = 0


def scan_label_maps(source: Path, set_name: str, metadata: Path | None, options: ImportOptions) -> Scan:
    """Read every field, its label map and the rows of ``cells.csv``, and list what cannot become a cell.

    Parameters
    ----------
    source
        A folder with field images ``x.png``, label maps ``x_labels.tif`` (or ``.png``) and ``cells.csv`` with the
        columns image, label_id, x_px, y_px, class and, where known, subject, region, group, set.
    set_name
        Development or external; where it is development, the column ``set`` may say otherwise per cell.
    metadata
        A further table with a column ``file`` that tells subject, region or group of a field.
    """
    if not (source / CELLS_NAME).is_file():
        raise DataError(
            f"{source} holds no {CELLS_NAME}, which says which outline is which cell.\n"
            "Fix: write one line per cell with the columns image, label_id, x_px, y_px, class."
        )
    table = read_csv(source / CELLS_NAME, columns=CELLS_COLUMNS, required=["image", "label_id"])
    context = _Context(source, set_name, table)
    notes = _notes_on(table)
    fields, problems = fields_of(source, table, metadata, options.name_pattern)
    cells: list[SourceCell] = []
    n_unlisted = max_16bit = 0
    scanned = map_threaded(lambda field: _scan_field(context, field), fields)
    for result in tracked(scanned, f"reading {set_name} fields", total=len(fields), show=options.progress):
        cells += result.cells
        problems += result.problems
        n_unlisted += result.n_unlisted
        max_16bit = max(max_16bit, result.max_16bit)
    if n_unlisted:
        notes.append(f"{n_unlisted} numbers in the label maps have no row in {CELLS_NAME}; they are not cells here.")
    files_of_image = cache(partial(_files_of, source, set_name))
    return Scan(
        root=source,
        cells=tuple(cells),
        problems=tuple(problems),
        cut=lambda cells, settings: _cut(source, cells, settings),
        files_of=lambda cell, _cell_id: files_of_image(_image_of(cell), cell.image_sha256),
        notes=tuple(notes),
        max_16bit=max_16bit,
    )


LABELMAP = Importer(
    expects="label maps: fields x.png with x_labels.tif, and cells.csv with columns image, label_id, x_px, y_px, class",
    recognises=recognises_label_maps,
    scan=scan_label_maps,
)


def _notes_on(table: CsvTable) -> list[str]:
    notes = []
    if table.ignored_columns:
        notes.append(f"Columns of {CELLS_NAME} that are not used: {', '.join(table.ignored_columns)}.")
    if "class" not in table.columns:
        notes.append(f"{CELLS_NAME} has no column class; all its cells are without a label.")
    return notes


def _read_field(source: Path, image: str) -> tuple[Pixels, NDArray[np.uint32]]:
    path = source / image
    pixels = read_rgb(path)
    labels = read_label_map(label_map_of(path) or path.with_name(path.stem + LABEL_SUFFIXES[0]))
    if pixels.shape[:2] != labels.shape:
        raise ImageError(
            f"its label map is {labels.shape[1]} x {labels.shape[0]} px but the image is "
            f"{pixels.shape[1]} x {pixels.shape[0]} px"
        )
    return pixels, labels


def _scan_field(context: _Context, field: LabelField) -> _Scanned:
    try:
        pixels, labels = _read_field(context.source, field.image)
    except ImageError as error:
        return _Scanned((), ((field.image, str(error)),))
    sha256 = pixel_sha256(pixels)
    boxes = boxes_of(labels)
    cells: list[SourceCell] = []
    problems: list[Problem] = []
    lines: dict[int, int] = {}
    for row in field.rows:
        number = _whole(row["label_id"])
        reason = _misfit(context, row, number, boxes, lines) or _words_misfit(context, field, row)
        if number is None or reason is not None:
            problems.append((context.where(row), f"{reason} ({field.image})"))
            continue
        lines[number] = row.line
        cells.append(_cell(context, field, row, number, labels, boxes[number], sha256))
    n_unlisted = len(boxes.keys() - {_whole(row["label_id"]) for row in field.rows})
    max_16bit = int(pixels.max()) if pixels.dtype == np.uint16 else 0
    return _Scanned(tuple(cells), tuple(problems), n_unlisted, max_16bit)


def _whole(text: str | None) -> int | None:
    """Return a whole number above 0 (``7`` or ``7.0``), or None."""
    value = _number(text)
    return int(value) if value is not None and value >= 1 and value.is_integer() else None


def _number(text: str | None) -> float | None:
    try:
        value = float(text or "nan")
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _misfit(
    context: _Context, row: CsvRow, number: int | None, boxes: Mapping[int, Box], lines: Mapping[int, int]
) -> str | None:
    """Tell why a row does not fit the label map."""
    if number is None:
        return f"label_id is '{row['label_id'] or ''}', not a whole number above 0"
    if number not in boxes:
        return f"label_id {number} does not occur in the label map"
    if number in lines:
        return f"label_id {number} was given in line {lines[number]} already"
    x, y, width, height = boxes[number]
    for column, start, side in (("x_px", x, width), ("y_px", y, height)):
        if column not in context.table.columns:
            continue
        value = _number(row[column])
        if value is None:
            return f"{column} is '{row[column] or ''}', not a number"
        if not -max(_FAR_PX, side / 2) <= value - start <= side + max(_FAR_PX, side / 2):
            return f"{column} is {value:g} but outline {number} spans {start} to {start + side}"
    return None


def _words_misfit(context: _Context, field: LabelField, row: CsvRow) -> str | None:
    """Tell why the words of a row cannot be used."""
    set_name = row["set"]
    if set_name not in (None, DEVELOPMENT, EXTERNAL):
        return f"set is '{set_name}'; it must be '{DEVELOPMENT}' or '{EXTERNAL}'"
    if set_name == DEVELOPMENT and context.set == EXTERNAL:
        return f"set is '{set_name}' but the folder was given as the external set"
    for word in WORDS:
        told = field.words.get(word)
        if row[word] is not None and told not in (None, row[word]):
            return f"{word} is '{row[word]}' here but '{told}' by the field's name or metadata"
    return None


def _cell(
    context: _Context,
    field: LabelField,
    row: CsvRow,
    number: int,
    labels: NDArray[np.uint32],
    box: Box,
    sha256: str,
) -> SourceCell:
    x, y, width, height = box
    mask = (labels[y : y + height, x : x + width] == number).view(np.uint8)
    rows, columns = np.nonzero(mask)
    words = {word: row[word] or field.words.get(word) for word in WORDS}
    return SourceCell(
        source=f"{field.image}#{number}",
        set=row["set"] or context.set,
        label=row["class"],
        subject=words["subject"],
        image_id=words["image_id"] or field.image_id,
        region=words["region"],
        group=words["group"],
        x_px=x + float(columns.mean()),
        y_px=y + float(rows.mean()),
        area_px=len(rows),
        bbox_xywh=box,
        image_hw=(labels.shape[0], labels.shape[1]),
        image_sha256=sha256,
        digest=cell_digest(sha256, mask, offset_xy=(x, y)),
    )


def _image_of(cell: SourceCell) -> str:
    return cell.source.rpartition("#")[0]


def _cut(source: Path, cells: Sequence[SourceCell], settings: CutSettings) -> Iterator[NDArray[np.uint8]]:
    """Yield the cells' windows; the field at hand and the next one are in memory."""
    images = [image for image, _ in groupby(cells, key=_image_of)]
    groups = groupby(cells, key=_image_of)
    for (image, group), read in zip(groups, _read_ahead(source, images), strict=True):
        if isinstance(read, ImageError):
            raise DataError(f"{source / image} or its label map changed during the import: {read}.")
        pixels, labels = read
        sha256 = pixel_sha256(pixels)
        rgb = to_8bit(pixels, bits=settings.bits)
        for cell in group:
            yield _cut_one(source, cell, rgb, labels, sha256, settings)


def _read_ahead(source: Path, images: Sequence[str]) -> Iterator[tuple[Pixels, NDArray[np.uint32]] | ImageError]:
    """Read one field after another, each while the one before is at work."""

    def read(image: str) -> tuple[Pixels, NDArray[np.uint32]] | ImageError:
        try:
            return _read_field(source, image)
        except ImageError as error:
            return error

    with ThreadPoolExecutor(1) as pool:
        following: Future[tuple[Pixels, NDArray[np.uint32]] | ImageError] | None = None
        for image in images:
            current, following = following, pool.submit(read, image)
            if current is not None:
                yield current.result()
        if following is not None:
            yield following.result()


def _cut_one(
    source: Path,
    cell: SourceCell,
    rgb_hwc: NDArray[np.uint8],
    labels: NDArray[np.uint32],
    sha256: str,
    settings: CutSettings,
) -> NDArray[np.uint8]:
    x, y, width, height = cell.bbox_xywh
    number = int(cell.source.rpartition("#")[2])
    box = (slice(y, y + height), slice(x, x + width))
    mask = np.zeros(labels.shape, np.uint8)
    mask[box] = labels[box] == number
    if cell_digest(sha256, mask[box], offset_xy=(x, y)) != cell.digest:
        raise DataError(f"{source / _image_of(cell)} or its label map changed during the import.\nFix: import again.")
    centre_xy = (x + width / 2, y + height / 2)
    return cut_window(rgb_hwc, mask, centre_xy=centre_xy, window_px=settings.window_px, keep_inside=False)


def _files_of(source: Path, set_name: str, image: str, sha256: str) -> tuple[tuple[Path, str], ...]:
    """Keep the field, its label map and the table, so that what is kept can be imported again."""
    folder = "fields" if set_name == DEVELOPMENT else "fields-external"
    path = source / image
    parts = PurePosixPath(image).parts
    inside = PurePosixPath(folder, *(safe_name(part) for part in parts))
    if [safe_name(part) for part in parts] != list(parts):  # two names may have become one
        inside = inside.with_stem(f"{inside.stem}_{sha256[:8]}")
    files = [(source / CELLS_NAME, f"{folder}/{CELLS_NAME}"), (path, str(inside))]
    labels = label_map_of(path)
    if labels is not None:
        suffix = labels.name.removeprefix(path.stem)
        files.append((labels, str(inside.with_name(inside.stem + suffix))))
    return tuple(files)
