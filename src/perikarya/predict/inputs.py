"""Which images to predict, with which outlines, and what is known of each.

Images are named on the command line (files, folders, patterns) or in a CSV table; paths inside a table stay in its
folder, paths a person types are their own affair.
"""

from __future__ import annotations

import glob
import math
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from perikarya.data.metadata import CsvRow, normal_path, read_csv
from perikarya.data.outlines.base import OutlineError, Problem
from perikarya.data.outlines.find import find_outlines, format_of, is_label_image
from perikarya.data.pictures import PICTURE_SUFFIXES
from perikarya.errors import DataError

WORDS = ("subject", "region", "group", "set")  # what a table may tell of an image
# column -> names it may have in a person's table
TABLE_COLUMNS: dict[str, tuple[str, ...]] = {
    "image": ("image", "file", "filename", "field"),
    "outlines": ("outlines", "annotations", "rois"),
    "subject": ("subject", "animal"),
    "region": ("region",),
    "group": ("group",),
    "set": ("set",),
    "um_per_px": ("um_per_px",),
}
_NOT_IN_FILE_NAMES = re.compile(r'[\x00-\x1f\x7f<>:"/\\|?*]')  # on any of the three systems
_MAX_NAME = 120  # characters of an image_id, which begins the names of files


@dataclass(frozen=True)
class FieldInput:
    """One image to predict, with its outlines.

    Attributes
    ----------
    image
        File of the image.
    outlines
        File of the outlines of its cells.
    image_id
        Name of the image in every table and file name, unique among the images of a prediction.
    words
        Subject, region, group, set, as far as a table of the images tells them.
    um_per_px
        Side of a pixel in micrometres, where the table tells it; None leaves it to the image.
    """

    image: Path
    outlines: Path
    image_id: str
    words: Mapping[str, str | None] = field(default_factory=dict)
    um_per_px: float | None = None


@dataclass(frozen=True)
class FoundFields:
    """Images that can be predicted, (where, reason) for what cannot, and sentences a person should read."""

    fields: tuple[FieldInput, ...]
    problems: tuple[Problem, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Wanted:
    """An image somebody named, with what a table tells of it."""

    image: Path
    outlines: Path | None = None
    words: Mapping[str, str | None] = field(default_factory=dict)
    um_per_px: float | None = None


def find_fields(images: Sequence[str], *, outlines: str | None = None, table: Path | None = None) -> FoundFields:
    """Find the images to predict and the outlines of each.

    Parameters
    ----------
    images
        Files, folders (their images that have outlines) and patterns such as ``slides/**/*.tif``.
    outlines
        Where outlines are: a file (of one image, or a COCO file of many), a folder, or a pattern that holds
        ``{stem}`` or ``{name}`` of the image (without a folder: beside each image). None: beside each image.
    table
        CSV with a column ``image`` and any of ``outlines``, ``subject``, ``region``, ``group``, ``set``,
        ``um_per_px``. A row tells of the image of that name among ``images``, or else adds the image at that path
        inside the table's folder.

    Returns
    -------
    Images in the order they were named, those of a folder or pattern sorted; none twice.

    Raises
    ------
    DataError
        If nothing is named, the table cannot be read, or a file of outlines is given for several images.
    """
    if not images and table is None:
        raise DataError("No image is named.\nFix: name images, a folder of them, a quoted pattern or a --table.")
    problems: list[Problem] = []
    notes: list[str] = []
    wanted = _named(images, outlines, problems, notes)
    if table is not None:
        wanted = _join_table(wanted, table, problems, notes)
    if outlines is not None:
        _check_one_file(Path(outlines), n_images=len(wanted))
    complete: list[tuple[_Wanted, Path]] = []
    for item in wanted:
        try:
            path = item.outlines or _outlines_of(item.image, outlines)
        except OutlineError as error:
            problems.append((str(item.image), str(error)))
            continue
        if path is None:
            problems.append((str(item.image), f"it has no outlines {_where(outlines)}"))
        else:
            complete.append((item, path))
    ids = image_ids([item.image for item, _ in complete])
    fields = (
        FieldInput(item.image, path, image_id, item.words, item.um_per_px)
        for (item, path), image_id in zip(complete, ids, strict=True)
    )
    return FoundFields(tuple(fields), tuple(problems), tuple(notes))


def image_ids(images: Sequence[Path]) -> list[str]:
    """Name images by their stems; equal stems are told apart by their folders, by endings, at last by numbers.

    Names can begin file names on any system and differ from each other there, also where case does not count.
    """
    ids = [_file_safe(path.stem) for path in images]
    alike: dict[str, list[int]] = defaultdict(list)
    for i, name in enumerate(ids):
        alike[name.casefold()].append(i)
    for places in alike.values():
        if len(places) > 1:
            for i, name in zip(places, _told_apart([images[i].absolute() for i in places]), strict=True):
                ids[i] = name
    taken: set[str] = set()
    for i, name in enumerate(ids):
        n = 1
        while ids[i].casefold() in taken:
            n += 1
            ids[i] = f"{name}-{n}"
        taken.add(ids[i].casefold())
    return ids


def _told_apart(images: Sequence[Path]) -> list[str]:
    """Name images of the same stem by as few of their folders as make a difference, else with their endings."""
    deepest = max(len(path.parent.parts) for path in images)
    for ending in (False, True):
        for depth in range(deepest):
            folders = [path.parent.parts[1:][-depth:] if depth else () for path in images]
            lasts = [f"{path.stem}_{path.suffix[1:]}" if ending else path.stem for path in images]
            names = [_file_safe("_".join((*f, last))) for f, last in zip(folders, lasts, strict=True)]
            if len({name.casefold() for name in names}) == len(names):
                return names
    return [_file_safe(path.stem) for path in images]


def _file_safe(text: str) -> str:
    return _NOT_IN_FILE_NAMES.sub("_", text).strip(" .")[-_MAX_NAME:] or "unnamed"


def _named(images: Sequence[str], outlines: str | None, problems: list[Problem], notes: list[str]) -> list[_Wanted]:
    """Expand what was typed to images, each once."""
    found: dict[Path, Path] = {}
    for text in images:
        path = Path(text)
        if path.is_dir():
            paths = _images_in(path, outlines, problems, notes)
        elif path.exists():
            paths = [path]
        elif any(sign in text for sign in "*?["):
            matches = map(Path, glob.glob(text, recursive=True))  # noqa: PTH207  # Path.glob takes no absolute pattern
            paths = sorted(p for p in matches if p.is_file() and not is_label_image(p))
            if not paths:
                problems.append((text, "no file fits this pattern"))
        else:
            paths = []
            problems.append((text, "there is no such image"))
        for image in paths:
            found.setdefault(image.resolve(), image)
    return [_Wanted(image) for image in found.values()]


def _images_in(folder: Path, outlines: str | None, problems: list[Problem], notes: list[str]) -> list[Path]:
    images = sorted(path for path in folder.iterdir() if _is_image(path))
    outlined = [path for path in images if _has_outlines(path, outlines)]
    bare = sorted(set(images).difference(outlined))
    if not outlined:
        problems.append((str(folder), f"no image in this folder has outlines {_where(outlines)}"))
    elif bare:
        notes.append(f"{len(bare)} image(s) in {folder} have no outlines and are left out, such as {bare[0].name}.")
    return outlined


def _is_image(path: Path) -> bool:
    hidden = path.name.startswith(".")  # such as what macOS leaves beside a file on other systems
    return path.suffix.casefold() in PICTURE_SUFFIXES and not hidden and not is_label_image(path)


def _has_outlines(image: Path, outlines: str | None) -> bool:
    try:
        return _outlines_of(image, outlines) is not None
    except OutlineError:  # several; which one holds is asked when the image's turn comes
        return True


def _outlines_of(image: Path, outlines: str | None) -> Path | None:
    """Return the outlines of an image, None where there are none; raise ``OutlineError`` where there are several."""
    if outlines is None:
        return find_outlines(image)
    if "{stem}" in outlines or "{name}" in outlines:
        path = Path(outlines.replace("{stem}", image.stem).replace("{name}", image.name))
        path = image.parent / path if path.name == str(path) else path
        return path if path.is_file() else None
    path = Path(outlines)
    return find_outlines(path / image.name) if path.is_dir() else path


def _where(outlines: str | None) -> str:
    if outlines is None:
        return "beside it (its name with .geojson, .zip, _labels.tif, ...); name them with --outlines"
    return f"in {outlines}" if Path(outlines).is_dir() else f"at {outlines}"


def _check_one_file(outlines: Path, *, n_images: int) -> None:
    if "{" in str(outlines) or outlines.is_dir():
        return
    if not outlines.is_file():
        raise DataError(
            f"--outlines {outlines} is neither a file nor a folder.\n"
            "Fix: name a file, a folder, or a pattern that holds {stem}, such as 'qupath/{stem}.geojson'."
        )
    if n_images > 1 and not _is_coco(outlines):
        raise DataError(
            f"--outlines {outlines} is one file, but {n_images} images are named.\n"
            "Outlines of one image laid over another would be cells that are none.\n"
            "Fix: name a folder, or a pattern that holds {stem}."
        )


def _is_coco(outlines: Path) -> bool:
    try:
        return format_of(outlines) == "coco"
    except OutlineError:  # of no format at all
        return False


def _join_table(wanted: list[_Wanted], path: Path, problems: list[Problem], notes: list[str]) -> list[_Wanted]:
    """Add what a table tells of the images named, and the images it names itself."""
    if not path.is_file():
        raise DataError(f"There is no table at {path}.\nFix: correct the path of --table.")
    table = read_csv(path, columns=TABLE_COLUMNS, required=["image"])
    problems += table.problems
    if table.ignored_columns:
        notes.append(f"{path.name}: the column(s) {', '.join(table.ignored_columns)} are not used.")
    items = {item.image.resolve(): item for item in wanted}
    by_name: dict[str, list[Path]] = defaultdict(list)
    for key, item in items.items():
        for name in {item.image.name, item.image.stem}:
            by_name[normal_path(name)].append(key)
    lines: dict[Path, int] = {}
    for row in table.rows:
        try:
            item = _row_item(row, path.parent, by_name, items)
        except _RowError as error:
            problems.append((f"{path.name} line {row.line}", str(error)))
            continue
        key = item.image.resolve()
        if key in lines:
            problems.append((f"{path.name} line {row.line}", f"the image was given in line {lines[key]} already"))
            continue
        lines[key] = row.line
        items[key] = item
    n_silent = sum(item.image.resolve() not in lines for item in wanted)
    if n_silent:
        notes.append(f"{n_silent} of the images have no row in {path.name}: their animal and group stay unknown.")
    return list(items.values())


class _RowError(Exception):
    """What is wrong with a row of a table."""


def _row_item(row: CsvRow, folder: Path, by_name: Mapping[str, list[Path]], items: Mapping[Path, _Wanted]) -> _Wanted:
    """Turn a row into an image; raise ``_RowError`` when it cannot be."""
    text = row["image"]
    if text is None:
        raise _RowError("names no image")
    meant = by_name.get(normal_path(text), [])
    if len(meant) > 1:
        raise _RowError(f"'{text}' could be {' or '.join(sorted(str(items[key].image) for key in meant)[:3])}")
    image = items[meant[0]].image if meant else _inside(folder, text)
    outlines = None if row["outlines"] is None else _inside(folder, row["outlines"])
    for file in (image, outlines):
        if file is not None and not file.is_file():
            raise _RowError(f"there is no file {file}")
    return _Wanted(image, outlines, {word: row[word] for word in WORDS}, _scale(row["um_per_px"]))


def _inside(folder: Path, text: str) -> Path:
    path = normal_path(text)
    if path.startswith("/") or ".." in path.split("/") or re.match(r"[A-Za-z]:", path):
        raise _RowError(f"'{text}' leaves the folder of the table; give a path inside it")
    return folder / path


def _scale(text: str | None) -> float | None:
    if text is None:
        return None
    try:
        scale = float(text.replace(",", "."))
    except ValueError:
        scale = math.nan
    if not 0 < scale < math.inf:
        raise _RowError(f"um_per_px is '{text}'; it must be a number above 0")
    return scale
