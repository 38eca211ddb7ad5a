"""Fields and slides with outlines drawn on them: what QuPath, ImageJ and COCO sources have in common.

Images are read by window, so that a slide takes no more memory than a small field. The outlines are read twice: once to
find and check the cells, once to cut their windows; a source that changes in between is noticed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, partial
from itertools import groupby
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from perikarya.data.images import MAX_PIXELS, ImageError
from perikarya.data.importers.base import (
    CutSettings,
    ImportOptions,
    Problem,
    Scan,
    SourceCell,
    cell_digest,
    map_threaded,
    tracked,
)
from perikarya.data.importers.field_files import OutlinedField as OutlinedField
from perikarya.data.importers.field_files import fields_beside as fields_beside
from perikarya.data.importers.field_files import metadata_of as metadata_of
from perikarya.data.importers.field_files import read_options as read_options
from perikarya.data.importers.field_files import words_of_fields as words_of_fields
from perikarya.data.importers.folder_files import METADATA_NAME
from perikarya.data.metadata import WORDS
from perikarya.data.outlines import OutlineError, OutlineFile, ReadOptions
from perikarya.data.outlines.base import CellMask, Outline
from perikarya.data.outlines.raster import mask_of
from perikarya.data.outlines.regions import region_names
from perikarya.data.pictures import Picture, open_picture
from perikarya.data.slides import MANY_FILE_SUFFIXES
from perikarya.data.windows import cut_from_picture, scale_of
from perikarya.errors import DataError
from perikarya.schema import DEVELOPMENT, EXTERNAL

MAX_KEPT_BYTES = 64 * 2**20  # larger images are named in the study, not copied into it
_BAND_PX = 1024  # cells of a large image are ordered by bands of this height
_MAX_KEY = 200  # characters of a cell's key in ``source``
_MAX_NAMED = 50  # images named in a note


@dataclass
class _Scanned:
    """What one field holds."""

    cells: list[SourceCell] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    regions: set[str] = field(default_factory=set)
    n_predicted: int = 0  # cells whose class is a prediction
    n_overruled: int = 0  # cells inside a region of another name than the table's
    max_16bit: int = 0


def scan_fields(
    source: Path,
    fields: Sequence[OutlinedField],
    *,
    set_name: str,
    options: ImportOptions,
    problems: Sequence[Problem] = (),
    notes: Sequence[str] = (),
    reading: ReadOptions | None = None,
    metadata: Path | None = None,
) -> Scan:
    """Read every field and its outlines, and list what cannot become a cell.

    A cell's region is that of the smallest region outline that contains its centre, unless the table or the name of the
    image gives one: a person who writes both means the table.

    Parameters
    ----------
    source
        The folder that paths are relative to.
    fields
        Images with outlines, each image once.
    set_name
        Development or external.
    problems, notes
        What was found while the fields were listed.
    reading
        How outlines are understood; rules of its class map that fit nothing and regions that do not occur are noted.
    metadata
        The table the fields' words are from; kept in the study, so that what is kept can be imported again.

    Raises
    ------
    DataError
        From ``Scan.cut``, if an image or its outlines changed since they were scanned.
    """
    all_problems, all_notes = list(problems), list(notes)
    cells: list[SourceCell] = []
    regions: set[str] = set()
    n_predicted = n_overruled = max_16bit = 0
    scanned = map_threaded(lambda field: _scan_field(source, field, set_name), fields)
    shown = tracked(zip(fields, scanned, strict=True), f"reading {set_name}", total=len(fields), show=options.progress)
    for outlined, result in shown:
        cells += result.cells
        all_problems += result.problems
        all_notes += [f"{outlined.image}: {note}" for note in result.notes]
        regions |= result.regions
        n_predicted += result.n_predicted
        n_overruled += result.n_overruled
        max_16bit = max(max_16bit, result.max_16bit)
    if n_predicted:
        all_notes.append(
            f"{n_predicted} cells have a class that 'perikarya predict' wrote and nobody changed. A network that is "
            "trained or tested on such classes repeats the errors of another."
        )
    all_notes += _notes_on_the_whole(source, fields, reading, regions, n_overruled)
    of_image = {field.image: field for field in fields}
    files_of_image = cache(lambda image: tuple(_files_of(source, of_image[image], set_name, metadata)))
    return Scan(
        root=source,
        cells=tuple(cells),
        problems=tuple(all_problems),
        cut=lambda cells, settings: _cut(source, of_image, cells, settings),
        files_of=lambda cell, _cell_id: files_of_image(image_of(cell)),
        notes=tuple(all_notes),
        max_16bit=max_16bit,
    )


def safe_key(key: str) -> str:
    """Return a key as it stands behind ``#`` in ``source``: printable, without ``#``, unique where keys are."""
    safe = key
    if not key.isprintable() or "#" in key or "%" in key:
        safe = "".join(c if c.isprintable() and c not in "#%" else f"%{ord(c):02X}" for c in key)
    if len(safe) <= _MAX_KEY:
        return safe
    return f"{safe[: _MAX_KEY // 2]}%{hashlib.sha256(key.encode(errors='surrogatepass')).hexdigest()[:16]}"


def image_of(cell: SourceCell) -> str:
    """Return the path of a cell's image, relative to its source."""
    return cell.source.rpartition("#")[0]


def _scan_field(source: Path, outlined: OutlinedField, set_name: str) -> _Scanned:
    scanned = _Scanned()
    if not (source / outlined.image).resolve().is_relative_to(source.resolve()):
        return _Scanned(problems=[(outlined.image, "leaves the folder; copy the image into it")])
    try:
        with open_picture(source / outlined.image) as picture:
            file = _read(outlined, picture)
            scanned.notes += file.notes
            scanned.problems += [(f"{outlined.image}#{safe_key(key)}", reason) for key, reason in file.problems]
            _add_cells(scanned, outlined, picture, file.outlines, set_name)
            scanned.max_16bit = picture.max_16bit
    except ImageError as error:
        return _Scanned(problems=[(outlined.image, str(error))])
    except OutlineError as error:
        return _Scanned(problems=[(_name_of_outlines(source, outlined), str(error))])
    return scanned


def _read(outlined: OutlinedField, picture: Picture) -> OutlineFile:
    file = outlined.read()
    file.check_size(height=picture.height, width=picture.width)
    return file


def _name_of_outlines(source: Path, outlined: OutlinedField) -> str:
    path = outlined.files[0] if outlined.files else source / outlined.image
    return path.relative_to(source).as_posix() if path.is_relative_to(source) else str(path)


def _add_cells(
    scanned: _Scanned, outlined: OutlinedField, picture: Picture, outlines: Sequence[Outline], set_name: str
) -> None:
    first_of: dict[str, str] = {}  # digest -> key
    for outline in outlines:
        if outline.kind == "region":
            continue
        source = f"{outlined.image}#{safe_key(outline.key)}"
        reason = _words_misfit(outlined, outline, set_name)
        if reason is not None:
            scanned.problems.append((source, reason))
            continue
        try:
            mask = mask_of(outline, height=picture.height, width=picture.width)
        except OutlineError as error:
            scanned.problems.append((source, str(error)))
            continue
        cell = _cell(source, outlined, picture, outline, mask, set_name)
        if cell.digest in first_of:
            scanned.problems.append((source, f"has the same outline as {first_of[cell.digest]}; a cell counts once"))
            continue
        first_of[cell.digest] = safe_key(outline.key)
        scanned.cells.append(cell)
        scanned.n_predicted += outline.predicted and cell.label is not None
    _set_regions(scanned, outlined, [outline for outline in outlines if outline.kind == "region"])
    if picture.height * picture.width > MAX_PIXELS:  # read by window: neighbours one after the other share tiles
        scanned.cells.sort(key=lambda cell: (cell.bbox_xywh[1] // _BAND_PX, cell.bbox_xywh[0]))


def _words_misfit(outlined: OutlinedField, outline: Outline, set_name: str) -> str | None:
    """Tell why what the file says of one cell cannot be used."""
    said = outline.words.get("set")
    if said not in (None, DEVELOPMENT, EXTERNAL):
        return f"its set is '{said}'; it must be '{DEVELOPMENT}' or '{EXTERNAL}'"
    if said == DEVELOPMENT and set_name == EXTERNAL:
        return f"its set is '{said}' but the source was given as the external set"
    for word in WORDS:
        of_image = None if word == "image_id" else outlined.words.get(word)
        if of_image is not None and outline.words.get(word) not in (None, of_image):
            return f"its {word} is '{outline.words[word]}' but '{of_image}' by the image's name or table"
    return None


def _cell(
    source: str, outlined: OutlinedField, picture: Picture, outline: Outline, mask: CellMask, set_name: str
) -> SourceCell:
    words = {word: outline.words.get(word) or outlined.words.get(word) for word in WORDS}
    rows, columns = np.nonzero(mask.mask_hw)
    height, width = mask.mask_hw.shape
    return SourceCell(
        source=source,
        set=outline.words.get("set") or set_name,
        label=outline.label,
        subject=words["subject"],
        image_id=words["image_id"] or PurePosixPath(outlined.image).stem,
        region=words["region"],
        group=words["group"],
        x_px=mask.x + float(columns.mean()),
        y_px=mask.y + float(rows.mean()),
        area_px=len(rows),
        bbox_xywh=(mask.x, mask.y, width, height),
        image_hw=(picture.height, picture.width),
        image_sha256=picture.sha256,
        digest=cell_digest(picture.sha256, mask.mask_hw, offset_xy=(mask.x, mask.y)),
        um_per_px=picture.um_per_px,
    )


def _set_regions(scanned: _Scanned, outlined: OutlinedField, regions: Sequence[Outline]) -> None:
    """Give cells without a region that of the smallest region outline around their centre."""
    # centroids count from the centre of the first pixel, outlines from its corner
    centres = np.array([(cell.x_px + 0.5, cell.y_px + 0.5) for cell in scanned.cells]).reshape(-1, 2)
    names, problems = region_names(regions, centres)
    scanned.problems += [(f"{outlined.image}#{safe_key(key)}", reason) for key, reason in problems]
    scanned.regions.update(region.label for region in regions if region.label)
    for i, (cell, name) in enumerate(zip(scanned.cells, names, strict=True)):
        if cell.region is None and name is not None:
            scanned.cells[i] = replace(cell, region=name)
        elif name not in (None, cell.region):
            scanned.n_overruled += 1


def _cut(
    source: Path, of_image: Mapping[str, OutlinedField], cells: Sequence[SourceCell], settings: CutSettings
) -> Iterator[NDArray[np.uint8]]:
    """Yield the cells' windows, one image open at a time."""
    for image, group in groupby(cells, key=image_of):
        try:
            with open_picture(source / image) as picture:
                file = _read(of_image[image], picture)
                outlines = {safe_key(outline.key): outline for outline in file.outlines if outline.kind == "cell"}
                cut = partial(_cut_one, source, picture, outlines, settings=settings)
                yield from map_threaded(cut, group)
        except (ImageError, OutlineError) as error:
            raise DataError(f"{source / image} or its outlines changed during the import: {error}.") from None


def _cut_one(
    source: Path, picture: Picture, outlines: Mapping[str, Outline], cell: SourceCell, *, settings: CutSettings
) -> NDArray[np.uint8]:
    outline = outlines.get(cell.source.rpartition("#")[2])
    if outline is not None:
        mask = mask_of(outline, height=picture.height, width=picture.width)
        if cell_digest(picture.sha256, mask.mask_hw, offset_xy=(mask.x, mask.y)) == cell.digest:
            scale = scale_of(cell.um_per_px, settings.um_per_px)
            return cut_from_picture(picture, mask, window_px=settings.window_px, scale=scale, bits=settings.bits)
    raise DataError(f"{source / image_of(cell)} or its outlines changed during the import.\nFix: import again.")


def _files_of(
    source: Path, outlined: OutlinedField, set_name: str, metadata: Path | None
) -> Iterator[tuple[Path, str]]:
    """Keep image, outlines and table under the names they have, by which they refer to each other."""
    folder = "fields" if set_name == DEVELOPMENT else "fields-external"
    if _is_kept(source / outlined.image):
        yield source / outlined.image, f"{folder}/{outlined.image}"
    for path in outlined.files:
        inside = path.relative_to(source).as_posix() if path.is_relative_to(source) else path.name
        yield path, f"{folder}/{inside}"
    if metadata is not None:
        yield metadata, f"{folder}/{METADATA_NAME}"


def _is_kept(image: Path) -> bool:
    """Tell whether an image is copied: not if it is large or only the head of many files."""
    return image.suffix.casefold() not in MANY_FILE_SUFFIXES and image.stat().st_size <= MAX_KEPT_BYTES


def _notes_on_the_whole(
    source: Path, fields: Sequence[OutlinedField], reading: ReadOptions | None, regions: set[str], n_overruled: int
) -> Iterator[str]:
    if n_overruled:
        yield f"{n_overruled} cells lie inside a region of another name than the table or name gives, which holds."
    left = [field.image for field in fields if (source / field.image).is_file() and not _is_kept(source / field.image)]
    if left:
        more = " …" if len(left) > _MAX_NAMED else ""
        yield (
            f"{len(left)} image(s) larger than {MAX_KEPT_BYTES // 2**20} MB or of many files are not copied into the "
            f"study; keep them: {', '.join(left[:_MAX_NAMED])}{more}."
        )
    if reading is not None and (unused := reading.class_map.unused()):
        yield f"Rules of --class-map that nothing fits: {', '.join(unused)}."
    if reading is not None and (absent := sorted(reading.regions - regions)):
        yield f"No outline is of a region called {', '.join(absent)} (--regions)."
