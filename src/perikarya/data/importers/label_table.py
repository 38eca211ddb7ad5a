"""The table that goes with label maps: one row per outlined cell, and the fields its rows belong to."""

from __future__ import annotations

import csv
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from perikarya.data.images import IMAGE_SUFFIXES
from perikarya.data.importers.base import Problem
from perikarya.data.importers.label_files import LABEL_SUFFIXES, label_map_of
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


@dataclass(frozen=True)
class LabelField:
    """One field image and the rows of the table that belong to it."""

    image: str  # path relative to the source, forward slashes
    image_id: str
    rows: tuple[CsvRow, ...]
    words: Mapping[str, str | None]


def recognises_label_maps(source: Path) -> bool:
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
    usable = []
    for image, rows in by_image.items():
        reason = _unusable(source, image)
        if reason is None:
            usable.append(image)
        else:
            problems.append((image, f"{reason}; {len(rows)} row(s) of {CELLS_NAME} need it"))
    told = _words_of(usable, metadata, name_pattern, problems)
    stems = Counter(PurePosixPath(image).stem for image in usable)
    fields = []
    for image in usable:
        path = PurePosixPath(image)
        image_id = path.stem if stems[path.stem] == 1 else str(path.with_suffix("") if path.parent.name else path)
        fields.append(LabelField(image, image_id, tuple(by_image[image]), told.get(image, {})))
    return fields, problems


def _unusable(source: Path, image: str) -> str | None:
    parts = image.split("/")
    if image.startswith("/") or ".." in parts or ":" in parts[0]:
        return "the path leaves the folder; give the path inside it"
    path = source / image
    if not path.is_file():
        return "there is no such image"
    if path.suffix.lower() not in IMAGE_SUFFIXES:
        return f"'{path.suffix}' is not a kind of image that can be read"
    if label_map_of(path) is None:
        return f"it has no label map beside it ({path.stem}{' or '.join(LABEL_SUFFIXES[::2])})"
    return None


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
