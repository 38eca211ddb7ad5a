"""Corrected classes back into the programs the outlines were drawn in: GeoJSON for QuPath, ROIs for ImageJ.

The outlines are read again from the study's own files, so objects keep their geometry and what else they had.
"""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Literal, TypeAlias, cast, get_args

import pandas as pd

from perikarya.data.corrections import Entry, present_labels
from perikarya.data.importers.coco import is_coco
from perikarya.data.importers.fields import safe_key
from perikarya.data.outlines import ClassMap, OutlineError, ReadOptions, read_outlines
from perikarya.data.outlines import find as outline_files
from perikarya.data.outlines.base import Outline
from perikarya.data.outlines.geojson_read import OURS
from perikarya.data.outlines.geojson_write import GeoCell, write_geojson
from perikarya.data.outlines.roi_write import RoiCell, write_rois
from perikarya.data.outlines.trace import traced
from perikarya.data.relabel import summary_of
from perikarya.data.store import OpenStudy
from perikarya.errors import ConfigError, DataError
from perikarya.palette import class_colours
from perikarya.runs import new_folder, write_text
from perikarya.schema import EXTERNAL, Study, label_codes, safe_name

log = logging.getLogger(__name__)

Format: TypeAlias = Literal["geojson", "roi"]
FORMATS: tuple[Format, ...] = get_args(Format)
TABLE_NAME = "corrections.csv"
METADATA_NAME = "metadata.csv"
_SUFFIXES: dict[Format, str] = {"geojson": ".geojson", "roi": ".rois.zip"}
_WORDS = ("subject", "image_id", "region", "group")
_FOLDER, _EXTERNAL_FOLDER = "fields", "fields-external"  # of the study, and of the export
_NO_COLOUR = "#808080"  # of a cell without a class


@dataclass(frozen=True)
class Exported:
    """What was written: files, and how many cells of how many images; ``notes`` are sentences for a person."""

    files: tuple[Path, ...]
    n_images: int
    n_cells: int
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Field:
    """An image of the study.

    Attributes
    ----------
    folder
        ``fields`` or, of the external set, ``fields-external``.
    image
        Its path in the source.
    outlines
        The file of its outlines.
    cells
        Its cells by the key of their outlines, with their present label, and by whom and when it was given.
    """

    folder: str
    image: str
    outlines: Path
    cells: pd.DataFrame


@dataclass(frozen=True, slots=True)
class _Cell:
    """An outline with its present class, and who gave that when; None where nobody did."""

    outline: Outline
    label: str | None
    by: str | None
    at: str | None


def parse_formats(names: Sequence[str]) -> tuple[Format, ...]:
    """Return the formats of these names; raise ``ConfigError`` when one is none, or there are none."""
    unknown = [name for name in names if name not in FORMATS]
    if unknown or not names:
        raise ConfigError(f"--format names {unknown or 'nothing'}; known are {', '.join(FORMATS)}.")
    return tuple(dict.fromkeys(cast(list[Format], names)))


def export_corrections(
    opened: OpenStudy, entries: Sequence[Entry], out: Path, *, formats: Sequence[Format] = FORMATS
) -> Exported:
    """Write a study's outlines with the classes its cells have now, one file per image and format.

    ``fields/<image>.geojson`` and ``fields/<image>.rois.zip`` (``fields-external`` for the external set) are opened by
    QuPath and ImageJ on the image; with the images beside them, they are imported again. ``fields/metadata.csv`` tells
    the images' subjects, regions and groups for that; ``corrections.csv`` lists what people said of which cell. A study
    of single pictures of cells has no outlines to write back to: only that table is written.

    Parameters
    ----------
    opened
        The study.
    entries
        Of its log of corrections.
    out
        A folder that does not exist yet.

    Raises
    ------
    DataError
        If ``out`` exists, a file of outlines is missing or has changed, or the log does not fit the study.
    """
    labels, reviewed = present_labels(opened.cells, entries)
    label_codes(labels, opened.study.class_names)
    summary = summary_of(opened.cells, labels, reviewed, entries)
    cells = opened.cells.assign(label=labels).merge(summary[["cell_id", "by", "at"]], on="cell_id", how="left")
    fields = _fields(opened, cells)
    notes: list[str] = []
    written = [TABLE_NAME]
    with new_folder(out, is_ours=lambda _: False, what="an export", why="others work on it", overwrite=False) as root:
        write_text(root / TABLE_NAME, summary.to_csv(index=False, lineterminator="\n"))
        for field, name in zip(fields, _names(fields), strict=True):
            outlines = _outlines(field, opened.study, notes)
            for kind in formats:
                written.append(f"{name}{_SUFFIXES[kind]}")
                _WRITERS[kind](root / written[-1], outlines, field, opened.study)
        for folder in dict.fromkeys(field.folder for field in fields):
            written.append(f"{folder}/{METADATA_NAME}")
            table = _metadata([field for field in fields if field.folder == folder])
            write_text(root / written[-1], table.to_csv(index=False, lineterminator="\n"))
    mixed = sum(field.cells["set"].nunique() > 1 for field in fields)
    if mixed:
        notes.append(f"{mixed} image(s) hold cells of both sets; imported again, all of them are development.")
    if not fields:
        notes.append(f"{_why_none(opened.study)}, so there is nothing to write back to; only {TABLE_NAME} was written.")
    n_cells = sum(len(field.cells) for field in fields)
    return Exported(tuple(out / name for name in written), len(fields), n_cells, tuple(notes))


def _why_none(study: Study) -> str:
    layout = study.provenance.get("layout")
    if layout == "folders":
        return f"{study.name} holds single pictures of cells"
    if layout is None:
        return f"{study.name} does not say where its outlines are from"
    return f"Outlines of the layout {layout!r} cannot be written; {', '.join(map(str, _FINDERS))} can"


def _fields(opened: OpenStudy, cells: pd.DataFrame) -> list[_Field]:
    """Return the images with outlines, in the order of the table."""
    layout = opened.study.provenance.get("layout")
    if layout not in _FINDERS:
        return []
    parts = cells["source"].str.rpartition("#")
    cells = cells.assign(image=parts[0], key=parts[2])
    found: dict[tuple[str, str, Path], list[pd.DataFrame]] = defaultdict(list)
    for _, group in cells.groupby(["image", "image_sha256", "set"], sort=False):
        image, sha256, of_set = (str(group[column].iloc[0]) for column in ("image", "image_sha256", "set"))
        folder, outlines = _kept(opened.root, layout, image, sha256, external=of_set == EXTERNAL)
        found[folder, image, outlines].append(group)
    return _by_set([_Field(*place, pd.concat(groups).set_index("key")) for place, groups in found.items()])


def _by_set(fields: Sequence[_Field]) -> list[_Field]:
    """Give images that a table, not their folder, put into the external set the folder of that set."""
    taken = {field.image for field in fields if field.folder == _EXTERNAL_FOLDER}
    return [
        replace(field, folder=_EXTERNAL_FOLDER)
        if field.image not in taken and (field.cells["set"] == EXTERNAL).all()
        else field
        for field in fields
    ]


def _kept(root: Path, layout: object, image: str, sha256: str, *, external: bool) -> tuple[str, Path]:
    """Return the folder of an image in the study, and its file of outlines; the image itself may be kept elsewhere."""
    parts = PurePosixPath(image).parts
    safe = "/".join(safe_name(part) for part in parts)  # as label maps are kept
    stem, dot, suffix = safe.rpartition(".")
    try:
        if not parts or ".." in parts or PurePosixPath(image).is_absolute() or not image.isprintable():
            raise ValueError
        for folder in (_EXTERNAL_FOLDER, _FOLDER) if external else (_FOLDER,):
            for name in (image, safe, f"{stem}_{sha256[:8]}{dot}{suffix}"):
                outlines = _FINDERS[layout](root / folder / name, root / folder)
                if outlines is not None and outlines.resolve().is_relative_to(root.resolve()):
                    return folder, outlines
    except OutlineError as error:
        raise DataError(f"{image}: {error}.\nFix: leave the one file in {root} that the study is from.") from None
    except (OSError, ValueError):  # a name that no file can have
        raise DataError(f"The cells of {root} are from an image that cannot lie in it: {image[:200]!r}.") from None
    raise DataError(
        f"{root} does not hold the outlines of {image} any more; classes cannot be written back without them.\n"
        "Fix: put the file back from the source of the import, or import the study again."
    )


def _beside(kind: outline_files.Format) -> Callable[[Path, Path], Path | None]:
    return lambda image, _: outline_files.find_outlines(image, formats=(kind,))


def _coco_file(_: Path, folder: Path) -> Path | None:
    found = [path for path in sorted(folder.rglob("*.json")) if is_coco(path)]
    if len(found) > 1:
        raise OutlineError(f"several COCO files lie in {folder.name}: {', '.join(path.name for path in found[:3])}")
    return found[0] if found else None


_FINDERS: dict[object, Callable[[Path, Path], Path | None]] = {  # by layout of the import
    "geojson": _beside("geojson"),
    "imagej": _beside("imagej"),
    "labels": _beside("labels"),
    "coco": _coco_file,
}


def _names(fields: Sequence[_Field]) -> list[str]:
    """Name each image's files: after it, with its suffix where two images differ in nothing else."""
    bare = [f"{field.folder}/{PurePosixPath(field.image).with_suffix('')}" for field in fields]
    counts = Counter(bare)
    return [
        name if counts[name] == 1 else f"{field.folder}/{field.image}" for field, name in zip(fields, bare, strict=True)
    ]


def _outlines(field: _Field, study: Study, notes: list[str]) -> list[Outline]:
    """Read the outlines of an image; cells that lack one are an error, what the study left out becomes a note."""
    try:
        file = read_outlines(field.outlines, options=_read_options(study), image=Path(field.image))
    except OutlineError as error:
        raise DataError(f"{field.outlines}: {error}.\nFix: put back the file that the study was made from.") from None
    keys = {safe_key(outline.key) for outline in file.outlines if outline.kind == "cell"}
    lost = [key for key in field.cells.index if key not in keys]
    if lost:
        raise DataError(
            f"{field.outlines} has no outline {lost[0]!r}, and {len(lost) - 1} more cells of the study lack theirs; it "
            "changed after the import.\nFix: put back the file that the study was made from."
        )
    if file.problems:
        notes.append(f"{field.image}: {len(file.problems)} object(s) of its file that cannot be read are left out.")
    return [traced(outline) for outline in file.outlines]


def _read_options(study: Study) -> ReadOptions:
    """Return how the import understood files of outlines."""
    said = study.provenance.get("options")
    said = said if isinstance(said, dict) else {}
    class_map = ClassMap.parse(said.get("class_map"))
    return ReadOptions(class_map, frozenset(said.get("regions") or ()), bool(said.get("nucleus")))


def _metadata(fields: Sequence[_Field]) -> pd.DataFrame:
    """Return what all cells of an image have in common: one row per image, as ``study import --metadata`` takes it."""
    rows = []
    for field in fields:
        common = {word: field.cells[word].unique() for word in _WORDS}
        told = {word: values[0] if len(values) == 1 else None for word, values in common.items()}
        rows.append({"file": field.image, **told})
    return pd.DataFrame(rows, columns=["file", *_WORDS])


def _write_geo(path: Path, outlines: Sequence[Outline], field: _Field, study: Study) -> None:
    """Write GeoJSON in which who gave a class stands with the object."""
    colours = dict(zip(study.class_names, class_colours(len(study.class_names)), strict=True))
    regions = [outline for outline in outlines if outline.kind == "region"]
    cells = (_geo_cell(cell, colours, field.image) for cell in _cells(outlines, field))
    write_geojson(path, cells, regions=regions)


def _geo_cell(cell: _Cell, colours: Mapping[str, str], image: str) -> GeoCell:
    return GeoCell(
        cell.outline,
        cell.label,
        _NO_COLOUR if cell.label is None else colours.get(cell.label, _NO_COLOUR),
        {} if cell.by is None else {f"{OURS}reviewed": 1.0},
        f"{image}#{cell.outline.key}",
        metadata=_signature(cell),
        predicted=cell.by is None and cell.outline.predicted,  # else a person gave the class, here or there
    )


def _signature(cell: _Cell) -> dict[str, str]:
    """Say who gave the class of a cell, and when."""
    said = {"reviewed by": cell.by, "reviewed at": cell.at}
    return {f"{OURS}{key}": value for key, value in said.items() if value is not None}


def _write_roi(path: Path, outlines: Sequence[Outline], field: _Field, study: Study) -> None:
    """Write ROIs in the colours of their classes; the class is a property of each."""
    number = {name: k for k, name in enumerate(study.class_names, start=1)}
    colours = [_NO_COLOUR, *class_colours(len(study.class_names))]
    regions = [RoiCell(o, o.name or o.key, None, o.label) for o in outlines if o.kind == "region"]
    cells = []
    for cell in _cells(outlines, field):
        k = number.get(cell.label or "", 0)
        name = cell.outline.name or cell.outline.key
        cells.append(RoiCell(cell.outline, name, colours[k], cell.label, k, properties=_signature(cell)))
    for note in write_rois(path, [*regions, *cells]):
        log.warning("%s: %s", path.name, note)


_WRITERS = {"geojson": _write_geo, "roi": _write_roi}


def _cells(outlines: Sequence[Outline], field: _Field) -> Iterator[_Cell]:
    """Yield the cells of a file; those that the study does not have keep the class of the file."""
    known = field.cells[["label", "by", "at"]].to_dict("index")
    for outline in outlines:
        if outline.kind == "cell":
            said = known.get(safe_key(outline.key), {"label": outline.label, "by": None, "at": None})
            yield _Cell(outline, _text(said["label"]), _text(said["by"]), _text(said["at"]))


def _text(value: object) -> str | None:
    """Return a text of a table; None where there is none, or "" as in the list of corrections."""
    return None if pd.isna(value) or value == "" else str(value)  # type: ignore[call-overload]
