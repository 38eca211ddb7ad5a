"""The table that goes with label maps: one row per outlined cell, and the fields its rows belong to."""

from __future__ import annotations

import csv
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from perikarya.data.images import IMAGE_SUFFIXES
from perikarya.data.importers.base import Problem
from perikarya.data.metadata import (
    METADATA_COLUMNS,
    WORDS,
    CsvRow,
    CsvTable,
    compile_name_pattern,
    join_rows,
    normal_path,
    read_csv,
)
from perikarya.data.outlines import OutlineError, find_outlines
from perikarya.data.outlines.labels import CELLS_COLUMNS
from perikarya.data.outlines.labels import CELLS_NAME as CELLS_NAME

_MAX_PATH = 1000  # characters
_MAX_PART = 255  # bytes of one part of a path, on all common systems


@dataclass(frozen=True)
class LabelField:
    """One field image, its label map, and the rows of the table that belong to it."""

    image: str  # path relative to the source, forward slashes
    image_id: str
    labels: Path
    rows: tuple[CsvRow, ...]
    words: Mapping[str, str | None]


def has_table(source: Path) -> bool:
    """Tell whether a folder has a table ``cells.csv`` whose header names an image and a number per cell."""
    try:
        with (source / CELLS_NAME).open(encoding="utf-8-sig", newline="") as handle:
            header = next(csv.reader([handle.readline(10_000).replace(";", ",").replace("\t", ",")]), [])
    except (OSError, UnicodeDecodeError, csv.Error):
        return False
    names = {name.strip().lower() for name in header}
    return bool(names.intersection(CELLS_COLUMNS["image"])) and bool(names.intersection(CELLS_COLUMNS["label_id"]))


def fields_of(
    source: Path, table: CsvTable, metadata: Path | None, name_pattern: str | None
) -> tuple[list[LabelField], list[Problem]]:
    """Group the rows of a table of cells by field, with what the fields' names and a further table tell of them.

    Returns
    -------
    fields
        Those whose image and label map are there, in the order of the table.
    problems
        (path, reason) for the others and for words that contradict each other.
    """
    problems: list[Problem] = list(table.problems)
    by_image: dict[str, list[CsvRow]] = defaultdict(list)
    for row in table.rows:
        if row["image"] is None:
            problems.append((f"{table.path.name} line {row.line}", "names no image"))
        else:
            by_image[normal_path(row["image"])].append(row)
    maps: dict[str, Path] = {}
    for image, rows in by_image.items():
        found = _map_of(source, image)
        if isinstance(found, Path):
            maps[image] = found
        else:
            problems.append((image[:_MAX_PATH], f"{found}; {len(rows)} row(s) of {CELLS_NAME} need it"))
    told = _words_of(list(maps), metadata, name_pattern, problems)
    ids = _image_ids(list(maps))
    fields = [LabelField(image, ids[image], path, tuple(by_image[image]), told[image]) for image, path in maps.items()]
    return fields, problems


def _map_of(source: Path, image: str) -> Path | str:
    """Return the label map of a field, or why it cannot be used."""
    parts = image.split("/")
    if image.startswith("/") or ".." in parts or ":" in parts[0]:
        return "the path leaves the folder; give the path inside it"
    path = source / image
    if len(image) > _MAX_PATH or any(len(part.encode()) > _MAX_PART for part in parts) or not path.is_file():
        return "there is no such image"
    if not path.resolve().is_relative_to(source.resolve()):
        return "is a link that leaves the folder"
    if path.suffix.lower() not in IMAGE_SUFFIXES:
        return f"'{path.suffix}' is not a kind of image that can be read"
    try:
        labels = find_outlines(path, formats={"labels"})
    except OutlineError as error:
        return str(error)
    if labels is not None:
        return labels
    return f"it has no label map beside it ({path.stem}_labels.tif, {path.stem}_cp_masks.png or the like)"


def _image_ids(images: Sequence[str]) -> dict[str, str]:
    """Name each image after its file; with its folders where that is not unique."""
    stems = Counter(PurePosixPath(image).stem for image in images)
    ids = {}
    for image in images:
        path = PurePosixPath(image)
        ids[image] = path.stem if stems[path.stem] == 1 else str(path.with_suffix("") if path.parent.name else path)
    return ids


def _words_of(
    images: Sequence[str], metadata: Path | None, name_pattern: str | None, problems: list[Problem]
) -> dict[str, dict[str, str | None]]:
    """Return what the names of the fields and a further table tell of them."""
    told: dict[str, dict[str, str | None]] = {image: dict.fromkeys(WORDS) for image in images}
    if name_pattern is not None:
        pattern = compile_name_pattern(name_pattern)
        for image in images:
            match = pattern.search(image)
            if match is None:
                problems.append((image, f"its name does not fit --name-pattern '{name_pattern}'"))
            else:
                told[image].update(match.groupdict())
    if metadata is not None:
        table = read_csv(metadata, columns=METADATA_COLUMNS, required=["file"])
        names = {image: (image, PurePosixPath(image).name, PurePosixPath(image).stem) for image in images}
        rows, unmatched = join_rows(table, names)
        problems += unmatched
        problems += [(image, f"has no row in {metadata.name}") for image in images if image not in rows]
        for image, row in rows.items():
            for word in WORDS:
                if row[word] is not None and told[image][word] not in (None, row[word]):
                    reason = f"its name says {word} {told[image][word]} but {metadata.name} says {row[word]}"
                    problems.append((image, reason))
                told[image][word] = row[word] or told[image][word]
    return told
