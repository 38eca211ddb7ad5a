"""Outlines as an archive that ImageJ's ROI manager opens.

ImageJ paints an ROI that has a group in the colour of the group, whatever its own colour is. So an ROI with a colour
gets its group as a property; it stands in the header only where there is no colour.
"""

from __future__ import annotations

import math
import re
import struct
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from perikarya.data.outlines.base import DECIMALS, Outline, Ring
from perikarya.data.outlines.trace import rings_of
from perikarya.runs import replacing

_HEADER = struct.Struct(">4shBx4hH16xhi4s4shhBBhii")
_HEADER2 = struct.Struct(">4xiiiii4shBBifiii12x")
_VERSION = 228  # the first with groups; ImageJ 1.52i
_POLYGON, _RECT, _TRACED = 0, 1, 8
_SUB_PIXEL = 128
_MAX_WHOLE = 60_535  # beyond, ImageJ takes a whole number for a negative one; fractions have no such limit
_MAX_POLYGON_POINTS = 65_535
_MAX_GROUP = 255
_EXACT_PX = 131_072  # up to here 32-bit fractions keep hundredths of a pixel
_MAX_NAME = 100
_UNSAFE = re.compile(r'[\x00-\x1f\x7f/\\:*?"<>|]')
_KEY_MARKS, _BACKSLASH = re.compile(r"([\s:=#!])"), r"\\\1"  # what ends a key, or begins a comment
_DATE = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class RoiShape:
    """Header and boundary of an ROI as its file had them (version 223 or later), to be written again."""

    data: bytes


@dataclass(frozen=True, slots=True)
class RoiCell:
    """One outline to be written.

    Attributes
    ----------
    outline
        One that came from an ROI keeps its kind: an oval stays an oval.
    name
        What the ROI manager lists it as; made unique and safe as the name of a file.
    colour
        Of the line, ``#rrggbb``.
    class_name, probabilities
        Written as the properties ``class`` and ``p(<class>)``.
    properties
        More of them.
    group
        Number of the class from 1 on, at most 255; 0: none.
    """

    outline: Outline
    name: str
    colour: str | None = None
    class_name: str | None = None
    group: int = 0
    probabilities: Mapping[str, float] = field(default_factory=dict)
    properties: Mapping[str, str] = field(default_factory=dict)


def write_rois(path: Path, cells: Sequence[RoiCell]) -> tuple[str, ...]:
    """Write an archive for ImageJ's ROI manager, whole or not at all; the same cells make the same bytes.

    Outlines of one ring become polygons, those with holes or separate parts composites. Reading them again gives the
    same pixels.

    Returns
    -------
    Notes: sentences on what the format cannot hold.
    """
    names = _unique(_safe(cell.name) for cell in cells)
    furthest = 0.0
    with replacing(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for cell, name in zip(cells, names, strict=True):
            body, reach = _body(cell)
            furthest = max(furthest, reach)
            archive.writestr(_member(name), _file(body, cell, name))
    if furthest <= _EXACT_PX:
        return ()
    return (
        f"Outlines reach {furthest:.0f} px. ROIs keep coordinates as 32-bit fractions, beyond {_EXACT_PX} px in steps "
        "of more than 1/100 px: pixels on the border of a cell can differ when it is read again.",
    )


def _member(name: str) -> zipfile.ZipInfo:
    """Describe a file of the archive: not packed, for ROIs are small and what zlib makes changes with its version."""
    member = zipfile.ZipInfo(f"{name}.roi", _DATE)
    member.create_system = 3  # the same on every system
    member.external_attr = 0o644 << 16
    return member


def _safe(name: str) -> str:
    """Return a name that is one file in one folder on every system."""
    text = name.encode("utf-8", "replace").decode("utf-8")
    return _UNSAFE.sub("_", text).strip(". ")[:_MAX_NAME] or "roi"


def _unique(names: Iterable[str]) -> list[str]:
    """Number names that were there before, upper and lower case alike."""
    taken: set[str] = set()
    last: dict[str, int] = {}
    unique = []
    for name in names:
        base = name.casefold()
        new = name
        while new.casefold() in taken:
            last[base] = last.get(base, 1) + 1
            new = f"{name}-{last[base]}"
        taken.add(new.casefold())
        unique.append(new)
    return unique


def _body(cell: RoiCell) -> tuple[bytes, float]:
    """Return header and boundary, and the largest of its coordinates where these are fractions."""
    source = cell.outline.source
    if isinstance(source, RoiShape):
        return _recoloured(source.data, cell), 0.0
    rings = rings_of(cell.outline)
    points: Ring = np.concatenate(rings).round(DECIMALS)
    left, top = (math.floor(v) for v in points.min(axis=0))
    right, bottom = (math.ceil(v) for v in points.max(axis=0))
    box = (top, left, bottom, right)
    whole = bool((points == np.rint(points)).all())
    reach = 0.0 if whole else float(max(right, bottom, -left, -top))
    if len(rings) > 1 or len(points) > _MAX_POLYGON_POINTS:
        return _composite(cell, rings, box), reach
    if whole and min(left, top) >= 0 and max(right, bottom) <= _MAX_WHOLE:
        kind = _TRACED if _is_stepped(points) else _POLYGON
        relative = (points - (left, top)).astype(">u2")
        return _header(cell, kind, box, n_points=len(points)) + relative.T.tobytes(), reach
    relative = np.clip(np.rint(points) - (left, top), 0, 2**16 - 1).astype(">u2")
    head = _header(cell, _POLYGON, box, n_points=len(points), options=_SUB_PIXEL)
    return head + relative.T.tobytes() + points.T.astype(">f4").tobytes(), reach


def _is_stepped(points: Ring) -> bool:
    """Tell whether a ring follows the edges of pixels, as ImageJ's wand traces."""
    return bool((points == np.roll(points, 1, axis=0)).any(axis=1).all())


def _composite(cell: RoiCell, rings: Sequence[Ring], box: tuple[int, int, int, int]) -> bytes:
    """Return a path: a move (0), lines (1) and a close (4) for each ring (``ij.gui.ShapeRoi.getShapeAsArray``)."""
    parts = []
    for ring in rings:
        segments = np.ones((len(ring), 3), ">f4")
        segments[0, 0] = 0
        segments[:, 1:] = ring.round(DECIMALS)
        parts += [segments.tobytes(), struct.pack(">f", 4)]
    path = b"".join(parts)
    return _header(cell, _RECT, box, n_shape=len(path) // 4) + path


def _header(
    cell: RoiCell,
    kind: int,
    box: tuple[int, int, int, int],
    *,
    n_points: int = 0,
    n_shape: int = 0,
    options: int = 0,
) -> bytes:
    """Return the 64 bytes that every ROI begins with (``ij.io.RoiEncoder``); the second header comes next but one."""
    wrapped = ((v + 2**15) % 2**16 - 2**15 for v in box)
    return _HEADER.pack(
        b"Iout", _VERSION, kind, *wrapped, n_points, 0, n_shape, _argb(cell.colour), bytes(4), 0, options, 0, 0, 0, 0, 0
    )


def _recoloured(data: bytes, cell: RoiCell) -> bytes:
    """Give an ROI the colour of the class and the version of our second header; take its position in a stack away."""
    head = bytearray(data)
    head[4:6] = _VERSION.to_bytes(2, "big")
    head[40:48] = _argb(cell.colour) + bytes(4)
    head[56:60] = bytes(4)
    return bytes(head)


def _argb(colour: str | None) -> bytes:
    return bytes(4) if colour is None else bytes.fromhex("ff" + colour.removeprefix("#"))


def _file(body: bytes, cell: RoiCell, name: str) -> bytes:
    """Return an ROI: header and boundary, then the second header, the name and the properties."""
    name16, properties16 = name.encode("utf-16-be"), _properties(cell).encode("utf-16-be")
    name_at = len(body) + _HEADER2.size
    group = 0 if cell.colour else min(cell.group, _MAX_GROUP)
    second = _HEADER2.pack(
        0, 0, 0, name_at, len(name16) // 2, bytes(4), 0, group, 0, 0, 0.0,
        name_at + len(name16) if properties16 else 0, len(properties16) // 2, 0,
    )  # fmt: skip
    return body[:60] + struct.pack(">i", len(body)) + body[64:] + second + name16 + properties16


def _properties(cell: RoiCell) -> str:
    """Return the properties of an ROI, escaped as in a Java properties file, for ImageJ reads them so."""
    pairs = {} if cell.class_name is None else {"class": cell.class_name}
    if cell.group:
        pairs["group"] = str(cell.group)
    pairs |= {f"p({name})": f"{share:.4f}" for name, share in cell.probabilities.items()}
    pairs |= cell.properties
    return "".join(f"{_KEY_MARKS.sub(_BACKSLASH, _escaped(key))}: {_escaped(value)}\n" for key, value in pairs.items())


def _escaped(text: str) -> str:
    if text.isascii() and text.isprintable() and "\\" not in text:
        return text
    units = struct.iter_unpack(">H", " ".join(text.split()).replace("\\", "\\\\").encode("utf-16-be", "replace"))
    return "".join(chr(unit) if 31 < unit < 127 else f"\\u{unit:04x}" for (unit,) in units)
