"""Which file beside an image holds its outlines, and which format a file has."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path
from typing import Literal, TypeAlias, get_args

from perikarya.data.outlines.base import OutlineError

Format: TypeAlias = Literal["geojson", "imagej", "labels", "coco"]
FORMATS: tuple[Format, ...] = get_args(Format)

LABEL_MARKS = ("_labels", "_cp_masks")  # at the end of a name: an image of numbered cells, not a picture
# beside an image called name = stem + suffix; a COCO file speaks of many images and has to be named
_BESIDE: dict[Format, tuple[str, ...]] = {
    "geojson": (
        "{stem}.geojson", "{name}.geojson", "{stem}.geojson.gz", "{name}.geojson.gz", "{stem}.json", "{name}.json",
    ),
    "imagej": (
        "{stem}.zip", "{name}.zip", "{stem}.rois.zip", "{stem}_rois.zip", "{stem}-rois.zip", "{stem}_RoiSet.zip",
        "{stem}.roi", "{name}.roi",
    ),
    "labels": tuple(f"{{stem}}{mark}{suffix}" for mark in LABEL_MARKS for suffix in (".tif", ".tiff", ".png")),
}  # fmt: skip
_MAGIC: dict[bytes, Format] = {
    b"\x1f\x8b": "geojson",  # compressed, as QuPath writes .geojson.gz
    b"Iout": "imagej",
    b"PK\x03\x04": "imagej",
    b"PK\x05\x06": "imagej",  # an empty archive
    b"II*\x00": "labels",
    b"MM\x00*": "labels",
    b"II+\x00": "labels",
    b"MM\x00+": "labels",
    b"\x89PNG\r\n\x1a\n": "labels",
    b"\x93NUMPY": "labels",  # an archive of Cellpose, which the reader refuses with the reason
}
_COCO_KEYS = frozenset({b"info", b"licenses", b"images", b"annotations", b"categories"})
_FIRST_KEY = re.compile(rb'\{\s*"([^"]{0,100})"')
_HEAD_BYTES = 4096


def find_outlines(image: Path, *, formats: Collection[Format] = FORMATS) -> Path | None:
    """Return the file of outlines beside an image, or None.

    Parameters
    ----------
    image
        For ``x.tif`` there may be ``x.geojson``, ``x.tif.geojson``, ``x.json``, ``x.zip``, ``x_rois.zip``, ``x.roi``,
        ``x_labels.tif``, ``x_cp_masks.png`` and the like; for ``x.ome.tif`` also what is named after ``x``.
    formats
        Only files of these formats count.

    Raises
    ------
    OutlineError
        If there are several: which one holds, a person has to say. The message is the bare reason.
    """
    stems = dict.fromkeys((image.stem, image.stem.removesuffix(".ome")))
    names = dict.fromkeys(
        pattern.format(stem=stem, name=image.name)
        for kind in FORMATS
        if kind in formats
        for pattern in _BESIDE.get(kind, ())
        for stem in stems
    )
    found = [path for name in names if _counts(path := image.with_name(name))]
    if len(found) > 1:
        listed = ", ".join(path.name for path in found)
        raise OutlineError(f"several files of outlines lie beside it ({listed}); it is unclear which one holds")
    return found[0] if found else None


def format_of(path: Path) -> Format:
    """Return the format of a file of outlines, told by its first bytes; the name counts for nothing.

    Raises
    ------
    OutlineError
        If it is missing, cannot be read or has no format that is known. The message is the bare reason.
    """
    head = _head(path)
    for magic, kind in _MAGIC.items():
        if head.startswith(magic):
            return kind
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if text.startswith(b"["):
        return "geojson"  # QuPath writes features as a bare array too
    if text.startswith(b"{"):
        key = _FIRST_KEY.match(text)
        return "coco" if key is not None and key[1] in _COCO_KEYS else "geojson"
    raise OutlineError(
        "the file holds no outlines in a format that is known (QuPath GeoJSON, ImageJ ROI or zip of ROIs, COCO JSON, "
        "TIFF or PNG of numbered cells), whatever its name says"
    )


def is_label_image(path: Path) -> bool:
    """Tell by its name whether an image holds numbered cells instead of a picture."""
    return path.stem.endswith(LABEL_MARKS)


def _counts(path: Path) -> bool:
    """Tell whether a file beside an image holds its outlines; a JSON file may hold anything."""
    if not path.is_file():
        return False
    if path.suffix != ".json":
        return True
    try:
        return format_of(path) == "geojson" and any(word in _head(path) for word in (b'"Feature', b'"features"'))
    except OutlineError:
        return False


def _head(path: Path) -> bytes:
    try:
        if not path.is_file():
            raise OutlineError("this is not a regular file" if path.exists() else "the file does not exist")
        with path.open("rb") as handle:
            head = handle.read(_HEAD_BYTES)
    except OSError as error:
        raise OutlineError(f"the file cannot be read ({error.strerror})") from None
    if not head:
        raise OutlineError("the file is empty (0 bytes)")
    return head
