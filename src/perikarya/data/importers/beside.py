"""Folders in which a file of outlines lies beside each image, whatever its format: QuPath's, ImageJ's, label maps."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

from perikarya.data.importers.base import Importer, ImportOptions, Problem, Scan
from perikarya.data.importers.field_files import fields_beside, is_picture, metadata_of, read_options
from perikarya.data.importers.fields import scan_fields
from perikarya.data.importers.folder_files import walk_files
from perikarya.data.outlines import OutlineError, OutlineFile, ReadOptions, find_outlines
from perikarya.data.outlines.find import Format

Read = Callable[[Path, ReadOptions], OutlineFile]


def importer_of(kind: Format, *, suffix: str, read: Read, expects: str) -> Importer:
    """Return the importer of images with files of one format beside them.

    Parameters
    ----------
    kind
        The format, whose files ``find_outlines`` knows by their names.
    suffix
        Of files that are nothing but outlines of this format, whatever image they belong to.
    read
        Reads such a file.
    expects
        What such a folder looks like, in one line.
    """
    return Importer(expects, recognises=partial(_recognises, kind, suffix), scan=partial(scan_beside, kind, read))


def scan_beside(
    kind: Format,
    read: Read,
    source: Path,
    set_name: str,
    metadata: Path | None,
    options: ImportOptions,
    *,
    notes: Iterable[str] = (),
    problems: Iterable[Problem] = (),
) -> Scan:
    """Read every image that has a file of one format beside it, and list what cannot become a cell.

    Parameters
    ----------
    kind, read
        See ``importer_of``.
    source, set_name, metadata, options
        See ``base.Importer``; without ``metadata``, ``metadata.csv`` in the source counts, where there is one.
    notes, problems
        What else is known of the source: notes come before those found here, problems after them.
    """
    found: list[Problem] = []
    all_notes = list(notes)
    reading = read_options(options)
    table = metadata_of(source, metadata, all_notes)
    fields = fields_beside(
        source,
        formats=(kind,),
        read=read,
        reading=reading,
        metadata=table,
        options=options,
        problems=found,
        notes=all_notes,
    )
    return scan_fields(
        source,
        fields,
        set_name=set_name,
        options=options,
        problems=[*found, *problems],
        notes=all_notes,
        reading=reading,
        metadata=table,
    )


def _recognises(kind: Format, suffix: str, source: Path) -> bool:
    """Tell whether a folder holds a file with the suffix, or an image with a file of the format beside it."""
    names = [str(path) for path in walk_files(source, [])] if source.is_dir() else []
    return any(name.lower().endswith(suffix) for name in names) or any(
        _has_outlines(kind, source / name) for name in names if is_picture(name)
    )


def _has_outlines(kind: Format, image: Path) -> bool:
    try:
        return find_outlines(image, formats=(kind,)) is not None
    except OutlineError:  # several: it is this layout, and the scan will say what is wrong
        return True
