"""Which images of a source have outlines, in which files, and what tables and names tell of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from perikarya.data.importers.base import ImportOptions, Problem
from perikarya.data.importers.folder_files import METADATA_NAME, walk_files
from perikarya.data.metadata import METADATA_COLUMNS, WORDS, CsvRow, compile_name_pattern, join_rows, read_csv
from perikarya.data.outlines import ClassMap, OutlineError, OutlineFile, ReadOptions, find_outlines
from perikarya.data.outlines.find import Format, is_label_image
from perikarya.data.pictures import PICTURE_SUFFIXES

_MAX_NAMED = 5  # images named in a note
_OWN_SUFFIXES: dict[Format, frozenset[str]] = {  # what is so called and lies beside no image is a mistake
    "geojson": frozenset({".geojson"}),
    "imagej": frozenset({".roi", ".zip"}),
}


@dataclass(frozen=True)
class OutlinedField:
    """One image and the outlines drawn on it.

    Attributes
    ----------
    image
        Path relative to the source, forward slashes.
    read
        Reads the outlines; called twice (scan and cut), may raise ``OutlineError`` with a bare reason.
    files
        The files the outlines are in; kept in the study beside the image.
    words
        Subject, image_id, region and group of the whole field (see ``words_of_fields``).
    """

    image: str
    read: Callable[[], OutlineFile]
    files: tuple[Path, ...]
    words: Mapping[str, str | None] = field(default_factory=dict)


def read_options(options: ImportOptions) -> ReadOptions:
    """Return how files of outlines are understood in an import."""
    return ReadOptions(ClassMap.parse(options.class_map), frozenset(options.regions), options.nucleus)


def fields_beside(
    source: Path,
    *,
    formats: Collection[Format],
    read: Callable[[Path, ReadOptions], OutlineFile],
    reading: ReadOptions,
    metadata: Path | None,
    options: ImportOptions,
    problems: list[Problem],
    notes: list[str],
) -> list[OutlinedField]:
    """List the images of a folder that have a file of outlines beside them, in order of their paths.

    Parameters
    ----------
    source
        A folder; folders inside are looked through.
    formats
        What the files may be, see ``outlines.find``.
    read
        Reads such a file.
    reading
        How it is understood, for ``read`` and for ``scan_fields``.
    metadata
        Table with a column ``file``, see ``metadata_of``.
    problems
        Gets files of outlines without an image, images with several, and words that contradict each other.
    notes
        Gets remarks, for instance on images without outlines.
    """
    if not source.is_dir():
        problems.append((source.name, "is a file; name the folder that holds it and its image"))
        return []
    paths = [str(path) for path in walk_files(source, problems)]
    images = [path for path in paths if is_picture(path)]
    listed = {source / path for path in paths}  # without links that leave the folder
    found: dict[str, Path] = {}
    bare = []
    for image in images:
        try:
            outlines = find_outlines(source / image, formats=formats)
        except OutlineError as error:
            problems.append((image, str(error)))
            continue
        if outlines not in listed:
            bare.append(image)
        else:
            found[image] = outlines
    _report_the_rest(paths, formats, found, bare, problems, notes, source)
    words = words_of_fields(images, [*found], metadata, options.name_pattern, problems)
    return [
        OutlinedField(image, lambda path=path: read(path, reading), (path,), words[image])  # type: ignore[misc]
        for image, path in found.items()
        if image in words
    ]


def is_picture(path: str) -> bool:
    """Tell by its name whether a file may be an image of cells."""
    name = PurePosixPath(path)
    return name.suffix.lower() in PICTURE_SUFFIXES and not is_label_image(Path(name))


def metadata_of(source: Path, metadata: Path | None, notes: list[str]) -> Path | None:
    """Return the table that was named, else ``metadata.csv`` where it lies in the source."""
    beside = source / METADATA_NAME
    if metadata is None and beside.is_file() and not beside.is_symlink():
        notes.append(f"Subjects, images, regions and groups come from {METADATA_NAME}, found in the source.")
        return beside
    return metadata


def words_of_fields(
    known: Sequence[str],
    used: Sequence[str],
    metadata: Path | None,
    name_pattern: str | None,
    problems: list[Problem],
) -> dict[str, dict[str, str | None]]:
    """Return subject, image_id, region and group of every usable image; the others become problems.

    Parameters
    ----------
    known
        All images of the source; a table may have rows for any of them.
    used
        Those with outlines; where there is a table, each needs a row. An image is called after its file where nothing
        else says its ``image_id``, with its folders where that is not unique.
    """
    rows: dict[str, CsvRow] | None = None
    if metadata is not None:
        table = read_csv(metadata, columns=METADATA_COLUMNS, required=["file"])
        rows, unmatched = join_rows(table, {i: (i, PurePosixPath(i).name, _stem(i)) for i in known})
        problems += unmatched
    pattern = None if name_pattern is None else compile_name_pattern(name_pattern)
    stems = Counter(map(_stem, known))
    words = {}
    for image in used:
        told: dict[str, str | None] = dict.fromkeys(WORDS)
        if pattern is not None:
            match = pattern.search(image)
            if match is None:
                problems.append((image, f"its name does not fit --name-pattern '{pattern.pattern}'"))
                continue
            told.update(match.groupdict())
        if rows is not None:
            reason = _add_row(told, rows.get(image))
            if reason is not None:
                problems.append((image, reason))
                continue
        told["image_id"] = told["image_id"] or (_stem(image) if stems[_stem(image)] == 1 else image)
        words[image] = told
    return words


def _add_row(told: dict[str, str | None], row: CsvRow | None) -> str | None:
    """Add what a row of the table tells of an image; return why it cannot be used."""
    if row is None:
        return "has no row in the metadata table"
    if row["label"] is not None:
        return f"the metadata (line {row.line}) gives the class {row['label']} to an image; its outlines have their own"
    for word in WORDS:
        if row[word] is not None and told[word] not in (None, row[word]):
            return f"its name says {word} {told[word]} but the metadata (line {row.line}) says {row[word]}"
        told[word] = row[word] or told[word]
    return None


def _stem(image: str) -> str:
    return PurePosixPath(image).stem.removesuffix(".ome")


def _report_the_rest(
    paths: Sequence[str],
    formats: Collection[Format],
    found: Mapping[str, Path],
    bare: Sequence[str],
    problems: list[Problem],
    notes: list[str],
    source: Path,
) -> None:
    """Say which files of outlines belong to no image, and which images have none."""
    own = frozenset().union(*(_OWN_SUFFIXES.get(kind, frozenset()) for kind in formats))
    taken = set(found.values())
    problems += [
        (path, "has no image beside it that it is named after")
        for path in paths
        if PurePosixPath(path).suffix.lower() in own and source / path not in taken
    ]
    if bare and found:
        more = " …" if len(bare) > _MAX_NAMED else ""
        notes.append(f"{len(bare)} image(s) without outlines were left aside: {', '.join(bare[:_MAX_NAMED])}{more}.")
