"""Class folders: one image and one mask per cell, the layout of the original study."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import cv2
import numpy as np
from numpy.typing import NDArray

from perikarya.data.images import ImageError, read_mask, read_rgb, to_8bit
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
from perikarya.data.importers.folder_files import METADATA_NAME, FoundFiles, Pair, find_files, recognises_class_folders
from perikarya.data.metadata import METADATA_COLUMNS, WORDS, CsvRow, compile_name_pattern, join_rows, read_csv
from perikarya.data.windows import cut_window
from perikarya.errors import DataError
from perikarya.schema import safe_name


@dataclass(frozen=True, slots=True)
class _Measured:
    """What the pixels of one pair say."""

    x_px: float
    y_px: float
    area_px: int
    bbox_xywh: tuple[int, int, int, int]
    image_hw: tuple[int, int]
    image_sha256: str
    digest: str
    max_16bit: int


def scan_folders(source: Path, set_name: str, metadata: Path | None, options: ImportOptions) -> Scan:
    """Read every image and mask of a class-folder source and list what cannot become a cell.

    Parameters
    ----------
    source
        A folder with ``images/<class>/…`` and ``masks/<class>/…``, or ``<class>/images/…`` and ``<class>/masks/…``,
        or ``<class>/x.png`` beside ``<class>/x_mask.png``.
    set_name
        Development or external.
    metadata
        Table with a column ``file``; None: ``metadata.csv`` in the source, where there is one.
    """
    found = find_files(source)
    problems, notes = found.problems, found.notes
    beside = source / METADATA_NAME
    if metadata is None and beside.is_file() and not beside.is_symlink():
        metadata = beside
        notes.append(f"Subjects, images, regions and groups come from {METADATA_NAME}, found in the source.")
    words = _words_of(found, metadata, options.name_pattern, problems)
    pairs = [pair for pair in found.pairs if pair.image in words]
    measured = map_threaded(lambda pair: _measure(source, pair), pairs)
    cells: list[SourceCell] = []
    max_16bit = 0
    own_ids = _own_image_ids(pairs)
    shown = tracked(zip(pairs, measured, strict=True), f"reading {set_name}", total=len(pairs), show=options.progress)
    for pair, result in shown:
        if not isinstance(result, _Measured):
            problems.append(result)
            continue
        max_16bit = max(max_16bit, result.max_16bit)
        cells.append(_cell(pair, result, words[pair.image], own_ids[pair.image], set_name))
    masks = {pair.image: pair.mask for pair in pairs}
    return Scan(
        root=source,
        cells=tuple(cells),
        problems=tuple(sorted(problems)),
        cut=lambda cells, settings: map_threaded(lambda cell: _cut(source, cell, masks, settings), cells),
        files_of=lambda cell, cell_id: _files_of(source, cell, cell_id, masks),
        notes=tuple(notes),
        max_16bit=max_16bit,
        one_cell_per_image=True,
    )


FOLDERS = Importer(
    expects="class folders: images/<class>/x.png with masks/<class>/x.png, or <class>/images with <class>/masks, "
    "or <class>/x.png beside <class>/x_mask.png",
    recognises=recognises_class_folders,
    scan=scan_folders,
)


def _words_of(
    found: FoundFiles, metadata: Path | None, name_pattern: str | None, problems: list[Problem]
) -> dict[str, dict[str, str | None]]:
    """Return subject, image, region and group of every usable image; the others become problems."""
    rows: dict[str, CsvRow] | None = None
    if metadata is not None:
        table = read_csv(metadata, columns=METADATA_COLUMNS, required=["file"])
        if table.ignored_columns:
            found.notes.append(f"Columns of {metadata.name} that are not used: {', '.join(table.ignored_columns)}.")
        spellings = {path: (name, path, PurePosixPath(path).name) for path, name in found.names.items()}
        rows, unmatched = join_rows(table, spellings)
        problems += unmatched
    pattern = None if name_pattern is None else compile_name_pattern(name_pattern)
    words: dict[str, dict[str, str | None]] = {}
    for pair in found.pairs:
        told = _told(pair, rows, pattern)
        if isinstance(told, str):
            problems.append((pair.image, told))
        else:
            words[pair.image] = told
    return words


def _told(
    pair: Pair, rows: Mapping[str, CsvRow] | None, pattern: re.Pattern[str] | None
) -> dict[str, str | None] | str:
    """Return the words the table and the name tell of one image, or why they cannot be used."""
    words: dict[str, str | None] = dict.fromkeys(WORDS)
    if pattern is not None:
        match = pattern.search(pair.name)
        if match is None:
            return f"its name does not fit --name-pattern '{pattern.pattern}'"
        words.update(match.groupdict())
    if rows is None:
        return words
    row = rows.get(pair.image)
    if row is None:
        return "has no row in the metadata table"
    if row["label"] is not None and row["label"] != pair.label:
        return f"lies in the folder of class {pair.label} but the metadata (line {row.line}) says {row['label']}"
    for word in WORDS:
        if row[word] is not None and words[word] not in (None, row[word]):
            return f"its name says {word} {words[word]} but the metadata (line {row.line}) says {row[word]}"
        words[word] = row[word] or words[word]
    return words


def _own_image_ids(pairs: Sequence[Pair]) -> dict[str, str]:
    """Name each image after its file where nothing else is known; with its folders where that is not unique."""
    stems = Counter(PurePosixPath(pair.image).stem for pair in pairs)
    own = {}
    for pair in pairs:
        stem = PurePosixPath(pair.image).stem
        own[pair.image] = stem if stems[stem] == 1 else str(PurePosixPath(pair.name).with_suffix(""))
    return own


def _measure(source: Path, pair: Pair) -> _Measured | Problem:
    try:
        image = read_rgb(source / pair.image)
    except ImageError as error:
        return pair.image, str(error)
    try:
        mask = read_mask(source / pair.mask)
    except ImageError as error:
        return pair.mask, str(error)
    if image.shape[:2] != mask.shape:
        return pair.mask, (
            f"mask is {mask.shape[1]} x {mask.shape[0]} px but its image is {image.shape[1]} x {image.shape[0]} px"
        )
    rows, columns = np.nonzero(mask)
    x, y, width, height = cv2.boundingRect(mask)
    sha256 = pixel_sha256(image)
    return _Measured(
        x_px=float(columns.mean()),
        y_px=float(rows.mean()),
        area_px=len(rows),
        bbox_xywh=(x, y, width, height),
        image_hw=(image.shape[0], image.shape[1]),
        image_sha256=sha256,
        digest=cell_digest(sha256, mask),
        max_16bit=int(image.max()) if image.dtype == np.uint16 else 0,
    )


def _cell(pair: Pair, it: _Measured, words: Mapping[str, str | None], own_id: str, set_name: str) -> SourceCell:
    return SourceCell(
        source=pair.image,
        set=set_name,
        label=pair.label,
        subject=words["subject"],
        image_id=words["image_id"] or own_id,
        region=words["region"],
        group=words["group"],
        x_px=it.x_px,
        y_px=it.y_px,
        area_px=it.area_px,
        bbox_xywh=it.bbox_xywh,
        image_hw=it.image_hw,
        image_sha256=it.image_sha256,
        digest=it.digest,
    )


def _cut(source: Path, cell: SourceCell, masks: Mapping[str, str], settings: CutSettings) -> NDArray[np.uint8]:
    try:
        image = read_rgb(source / cell.source)
        mask = read_mask(source / masks[cell.source])
    except ImageError as error:
        raise DataError(f"{source / cell.source} or its mask changed during the import: {error}.") from None
    if cell_digest(pixel_sha256(image), mask) != cell.digest:
        raise DataError(f"{source / cell.source} or its mask changed during the import.\nFix: import again.")
    x, y, width, height = cell.bbox_xywh
    return cut_window(
        to_8bit(image, bits=settings.bits),
        mask,
        centre_xy=(x + width / 2, y + height / 2),
        window_px=settings.window_px,
        keep_inside=True,
    )


def _files_of(source: Path, cell: SourceCell, cell_id: str, masks: Mapping[str, str]) -> Iterator[tuple[Path, str]]:
    folder = f"files/{cell.set}/{safe_name(cell.label or 'unlabelled')}"
    mask = source / masks[cell.source]
    image = source / cell.source
    yield image, f"{folder}/{cell_id}{image.suffix.lower()}"
    yield mask, f"{folder}/{cell_id}_mask{mask.suffix.lower()}"
