"""Label maps: whole fields, a map of numbered outlines beside each and, for their classes, a table of the cells.

Pictures are read by window, but a label map is decoded whole: fields have at most ``images.MAX_PIXELS`` pixels here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from perikarya.data.images import ImageError
from perikarya.data.importers.base import (
    CutSettings,
    Importer,
    ImportOptions,
    Problem,
    Scan,
    SourceCell,
    cell_digest,
    map_threaded,
    tracked,
)
from perikarya.data.importers.fields import image_of
from perikarya.data.importers.label_fields import label_files, scan_without_table
from perikarya.data.importers.label_table import LabelField, fields_of, has_table
from perikarya.data.metadata import WORDS, CsvRow, CsvTable, read_csv
from perikarya.data.outlines.base import CellMask
from perikarya.data.outlines.classes import ClassMap
from perikarya.data.outlines.labels import (
    CELLS_COLUMNS,
    CELLS_NAME,
    Box,
    boxes_of,
    cell_of,
    count_pieces,
    notes_on_pieces,
    read_label_map,
    row_misfit,
    whole_number,
)
from perikarya.data.pictures import Picture, open_picture
from perikarya.data.windows import cut_from_picture, scale_of
from perikarya.errors import DataError
from perikarya.schema import DEVELOPMENT, EXTERNAL, safe_name


@dataclass(frozen=True)
class _Context:
    """What all fields of one scan share."""

    source: Path
    set: str
    columns: tuple[str, ...]  # of the table of cells
    classes: ClassMap


@dataclass(frozen=True)
class _OpenField:
    """A field and its label map, shape (height, width); to be closed."""

    picture: Picture
    labels_hw: NDArray[np.uint32]
    sha256: str


@dataclass(frozen=True)
class _Scanned:
    """What one field holds."""

    cells: tuple[SourceCell, ...]
    problems: tuple[Problem, ...]
    in_pieces: tuple[str, ...] = ()  # cells of several pieces
    n_unlisted: int = 0
    max_16bit: int = 0


def scan_label_maps(source: Path, set_name: str, metadata: Path | None, options: ImportOptions) -> Scan:
    """Read every field, its label map and the rows of ``cells.csv``, and list what cannot become a cell.

    Parameters
    ----------
    source
        A folder with field images ``x.png``, label maps ``x_labels.tif`` or ``x_cp_masks.png``, and ``cells.csv`` with
        the columns image, label_id, x_px, y_px, class and, where known, subject, region, group, set. Without that
        table every number is a cell without a class, and ``options.classes`` must say which classes there are.
    set_name
        Development or external; where it is development, the column ``set`` may say otherwise per cell.
    metadata
        A further table with a column ``file`` that tells subject, region or group of a field.
    """
    if not (source / CELLS_NAME).is_file():
        return scan_without_table(source, set_name, metadata, options)
    table = read_csv(source / CELLS_NAME, columns=CELLS_COLUMNS, required=["image", "label_id"])
    context = _Context(source, set_name, table.columns, ClassMap.parse(options.class_map))
    notes = _notes_on(table)
    fields, problems = fields_of(source, table, metadata, options.name_pattern)
    cells: list[SourceCell] = []
    in_pieces: list[str] = []
    n_unlisted = max_16bit = 0
    scanned = map_threaded(lambda field: _scan_field(context, field), fields)
    for result in tracked(scanned, f"reading {set_name} fields", total=len(fields), show=options.progress):
        cells += result.cells
        problems += result.problems
        in_pieces += result.in_pieces
        n_unlisted += result.n_unlisted
        max_16bit = max(max_16bit, result.max_16bit)
    notes += notes_on_pieces(in_pieces)
    if n_unlisted:
        notes.append(f"{n_unlisted} numbers in the label maps have no row in {CELLS_NAME}; they are not cells here.")
    maps = {field.image: field.labels for field in fields}
    files_of_image = cache(lambda image, sha256: _files_of(source, set_name, image, maps[image], sha256))
    return Scan(
        root=source,
        cells=tuple(cells),
        problems=tuple(problems),
        cut=lambda cells, settings: _cut(source, cells, maps, settings),
        files_of=lambda cell, _cell_id: files_of_image(image_of(cell), cell.image_sha256),
        notes=tuple(notes),
        max_16bit=max_16bit,
    )


def recognises_label_maps(source: Path) -> bool:
    """Tell whether a folder has a table of cells (an image and a number per row), or label maps in it."""
    return has_table(source) or any(label_files(source))


LABELMAP = Importer(
    expects="label maps: fields x.png with x_labels.tif or x_cp_masks.png, and cells.csv with columns image, label_id, "
    "x_px, y_px, class (without it, name --classes)",
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


def _open_field(image: Path, labels: Path) -> _OpenField:
    """Open a field and read its label map; raise ``ImageError`` when one is damaged or they do not fit."""
    picture = open_picture(image)
    try:
        labels_hw = read_label_map(labels)
        if (picture.height, picture.width) != labels_hw.shape:
            raise ImageError(
                f"its label map is {labels_hw.shape[1]} x {labels_hw.shape[0]} px but the image is "
                f"{picture.width} x {picture.height} px"
            )
        return _OpenField(picture, labels_hw, picture.sha256)
    except ImageError:
        picture.close()
        raise


def _scan_field(context: _Context, field: LabelField) -> _Scanned:
    try:
        opened = _open_field(context.source / field.image, field.labels)
        with opened.picture as picture:
            max_16bit = picture.max_16bit
    except ImageError as error:
        return _Scanned((), ((field.image, str(error)),))
    boxes = boxes_of(opened.labels_hw)
    rows, problems = _rows_of(context, field, boxes)
    cells: list[SourceCell] = []
    in_pieces: list[str] = []
    for number, row in rows.items():
        mask = cell_of(opened.labels_hw, number, boxes[number])
        cells.append(_cell(context, field, row, f"{field.image}#{number}", mask, opened))
        if count_pieces(mask.mask_hw) > 1:
            in_pieces.append(cells[-1].source)
    n_unlisted = len(boxes.keys() - {whole_number(row["label_id"]) for row in field.rows})
    return _Scanned(tuple(cells), tuple(problems), tuple(in_pieces), n_unlisted, max_16bit)


def _rows_of(context: _Context, field: LabelField, boxes: Mapping[int, Box]) -> tuple[dict[int, CsvRow], list[Problem]]:
    """Return the row of each number that is a cell, and the rows that cannot be used."""
    rows: dict[int, CsvRow] = {}
    problems: list[Problem] = []
    for row in field.rows:
        number = whole_number(row["label_id"])
        reason = row_misfit(row, number, context.columns, boxes, rows) or _words_misfit(context, field, row)
        if number is None or reason is not None:
            problems.append((f"{CELLS_NAME} line {row.line}", f"{reason} ({field.image})"))
        else:
            rows[number] = row
    return rows, problems


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
    context: _Context, field: LabelField, row: CsvRow, source: str, mask: CellMask, opened: _OpenField
) -> SourceCell:
    rows, columns = np.nonzero(mask.mask_hw)
    words = {word: row[word] or field.words.get(word) for word in WORDS}
    height, width = mask.mask_hw.shape
    return SourceCell(
        source=source,
        set=row["set"] or context.set,
        label=context.classes.label(row["class"]),
        subject=words["subject"],
        image_id=words["image_id"] or field.image_id,
        region=words["region"],
        group=words["group"],
        x_px=mask.x + float(columns.mean()),
        y_px=mask.y + float(rows.mean()),
        area_px=len(rows),
        bbox_xywh=(mask.x, mask.y, width, height),
        image_hw=(opened.picture.height, opened.picture.width),
        image_sha256=opened.sha256,
        digest=cell_digest(opened.sha256, mask.mask_hw, offset_xy=(mask.x, mask.y)),
        um_per_px=opened.picture.um_per_px,
    )


def _cut(
    source: Path, cells: Sequence[SourceCell], maps: Mapping[str, Path], settings: CutSettings
) -> Iterator[NDArray[np.uint8]]:
    """Yield the cells' windows; the field at hand and the next one are in memory."""
    images = [image for image, _ in groupby(cells, key=image_of)]
    groups = groupby(cells, key=image_of)
    for (image, group), opened in zip(groups, _open_ahead(source, images, maps), strict=True):
        if isinstance(opened, ImageError):
            raise DataError(f"{source / image} or its label map changed during the import: {opened}.")
        with opened.picture:
            for cell in group:
                scale = scale_of(cell.um_per_px, settings.um_per_px)
                yield _cut_one(source, cell, opened, settings, scale)


def _open_ahead(source: Path, images: Sequence[str], maps: Mapping[str, Path]) -> Iterator[_OpenField | ImageError]:
    """Open one field after another, each while the one before is at work."""

    def read(image: str) -> _OpenField | ImageError:
        try:
            return _open_field(source / image, maps[image])
        except ImageError as error:
            return error

    with ThreadPoolExecutor(1) as pool:
        following: Future[_OpenField | ImageError] | None = None
        for image in images:
            current, following = following, pool.submit(read, image)
            if current is not None:
                yield current.result()
        if following is not None:
            yield following.result()


def _cut_one(
    source: Path, cell: SourceCell, opened: _OpenField, settings: CutSettings, scale: float
) -> NDArray[np.uint8]:
    number = int(cell.source.rpartition("#")[2])
    mask = cell_of(opened.labels_hw, number, cell.bbox_xywh)
    if cell_digest(opened.sha256, mask.mask_hw, offset_xy=(mask.x, mask.y)) != cell.digest:
        raise DataError(f"{source / image_of(cell)} or its label map changed during the import.\nFix: import again.")
    return cut_from_picture(opened.picture, mask, window_px=settings.window_px, scale=scale, bits=settings.bits)


def _files_of(source: Path, set_name: str, image: str, labels: Path, sha256: str) -> tuple[tuple[Path, str], ...]:
    """Keep the field, its label map and the table, so that what is kept can be imported again."""
    folder = "fields" if set_name == DEVELOPMENT else "fields-external"
    path = source / image
    parts = PurePosixPath(image).parts
    inside = PurePosixPath(folder, *(safe_name(part) for part in parts))
    if [safe_name(part) for part in parts] != list(parts):  # two names may have become one
        inside = inside.with_stem(f"{inside.stem}_{sha256[:8]}")
    mark = labels.name.removeprefix(path.stem.removesuffix(".ome"))
    files = [(path, str(inside)), (labels, str(inside.with_name(inside.stem.removesuffix(".ome") + mark)))]
    return ((source / CELLS_NAME, f"{folder}/{CELLS_NAME}"), *files)
