"""Importers of folders in which a file of outlines lies beside each image: one for QuPath, one for ImageJ."""

from __future__ import annotations

from collections.abc import Callable
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
    return Importer(expects, recognises=partial(_recognises, kind, suffix), scan=partial(_scan, kind, read))


def _scan(kind: Format, read: Read, source: Path, set_name: str, metadata: Path | None, options: ImportOptions) -> Scan:
    problems: list[Problem] = []
    notes: list[str] = []
    reading = read_options(options)
    fields = fields_beside(
        source,
        formats=(kind,),
        read=read,
        reading=reading,
        metadata=metadata,
        options=options,
        problems=problems,
        notes=notes,
    )
    return scan_fields(
        source,
        fields,
        set_name=set_name,
        options=options,
        problems=problems,
        notes=notes,
        reading=reading,
        metadata=metadata_of(source, metadata, []),
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
