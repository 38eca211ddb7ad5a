"""ImageJ selections (``.roi``) and archives of its ROI manager (``.zip``): read and written.

The key of an outline is the name of its file in the archive, as the ROI manager lists it. Its class is what the class
map makes of its property ``class``, name, group and colour. ImageJ counts coordinates as this package does: whole
numbers and fractions alike are places between the corners of pixels.
"""

from __future__ import annotations

import re
import struct
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from roifile import ImagejRoi

from perikarya.data.outlines import ReadOptions
from perikarya.data.outlines.base import Outline, OutlineError, OutlineFile, Problem, read_limited
from perikarya.data.outlines.roi_archive import SUFFIX, RoiArchive
from perikarya.data.outlines.roi_shapes import HEADER_BYTES, bytes_of_shape, check_encloses, rings_of_roi
from perikarya.data.outlines.roi_write import RoiCell as RoiCell
from perikarya.data.outlines.roi_write import RoiShape
from perikarya.data.outlines.roi_write import write_rois as write_rois

_MAGIC = b"Iout"
_ESCAPE = re.compile(r"\\(u[0-9a-fA-F]{4}|.)")
_KEEPS_SHAPE = 223  # from this version on, a boundary means the same in every later one
_KEYS = ("class", "group")
_PROBABILITY = re.compile(r"^p\(.*\):", re.MULTILINE)  # stands beside the classes that ``roi_write`` writes
_N_NAMED = 5  # files that a note names


@dataclass
class _Reading:
    """What is gathered over the ROIs of one file."""

    options: ReadOptions
    outlines: list[Outline] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    positions: set[tuple[int, int, int, int]] = field(default_factory=set)
    keys: set[str] = field(default_factory=set)
    numbers: Counter[str] = field(default_factory=Counter)  # how often a name was numbered

    def add(self, name: str, data: bytes) -> None:
        """Decode one ROI, or say why it cannot be used."""
        key = self._key(name)
        try:
            roi = decode_roi(data)
            self.outlines.append(_outline(key, name, roi, data, self.options))
        except OutlineError as error:
            self.problems.append((key, str(error)))
            return
        position = roi.position, roi.c_position, roi.z_position, roi.t_position
        if any(position):
            self.positions.add(position)

    def _key(self, name: str) -> str:
        """Return the name, numbered when it was there before."""
        key = name
        while key in self.keys:
            self.numbers[name] += 1
            key = f"{name}-{self.numbers[name] + 1}"
        self.keys.add(key)
        return key

    def notes(self) -> list[str]:
        """Return what a person should know of the file."""
        notes = []
        if self.numbers:
            notes.append(f"Several ROIs are called {_listed(list(self.numbers))}; all but the first were numbered.")
        if len(self.positions) > 1:
            notes.append(
                f"Its ROIs lie on {len(self.positions)} slices, channels or frames of a stack; "
                "all were taken as outlines in the one image."
            )
        return notes


def read_rois(path: Path, options: ReadOptions = ReadOptions()) -> OutlineFile:  # noqa: B008
    """Read the selections of one image.

    Parameters
    ----------
    path
        A ``.roi`` file, or an archive of the ROI manager; told apart by content.
    options
        What names, groups and colours mean.

    Returns
    -------
    Outlines with the name of the ROI as key. Lines, points, texts and damaged ROIs are problems.

    Raises
    ------
    OutlineError
        If the file is neither, is damaged, encrypted or beyond the limits; the message is the bare reason.
    """
    content = read_limited(path)
    reading = _Reading(options)
    if content.startswith(_MAGIC):
        reading.add(path.name[: -len(SUFFIX)] if path.suffix.lower() == SUFFIX else path.name, content)
        return OutlineFile(tuple(reading.outlines), tuple(reading.problems), tuple(reading.notes()))
    if not content.startswith(b"PK"):
        raise OutlineError("this is neither an ImageJ ROI nor an archive of them")
    archive = RoiArchive(content)
    for name, data in archive.members():
        reading.add(name, data)
    problems = (*archive.problems, *reading.problems)
    if not reading.outlines and not problems:
        raise OutlineError(f"the archive holds no ROI (no file that ends in {SUFFIX})")
    notes = reading.notes()
    if archive.skipped:
        notes.append(f"Files in the archive that are no ROIs were not read: {_listed(archive.skipped)}.")
    return OutlineFile(tuple(reading.outlines), problems, tuple(notes))


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:_N_NAMED]) + (f" and {len(names) - _N_NAMED} more" if len(names) > _N_NAMED else "")


def decode_roi(data: bytes) -> ImagejRoi:
    """Decode the bytes of one ROI.

    Raises
    ------
    OutlineError
        If they are not those of a whole ROI, or of one that encloses no area.
    """
    if not data.startswith(_MAGIC):
        raise OutlineError(f"it is not an ImageJ ROI: it does not begin with '{_MAGIC.decode()}'")
    if len(data) < HEADER_BYTES:
        raise OutlineError(f"it is cut off: it has {len(data)} bytes, an ROI has at least {HEADER_BYTES}")
    check_encloses(data)
    try:
        _check_second_header(data)
        return ImagejRoi.frombytes(data)
    except UnicodeDecodeError:
        raise OutlineError("its name or its properties are not text; it is damaged") from None
    except (struct.error, ValueError, TypeError, IndexError, OverflowError, MemoryError) as error:
        raise OutlineError(f"it is damaged or cut off ({error})") from None


def _check_second_header(data: bytes) -> None:
    """Refuse names and properties beyond the end of the file: they would be lost in silence."""
    (start,) = struct.unpack_from(">i", data, 60)
    if start == 0:
        return
    name, n_name = struct.unpack_from(">ii", data, start + 16) if start > 0 else (-1, 0)
    properties, n_properties = struct.unpack_from(">ii", data, start + 40) if start + 48 <= len(data) else (0, 0)
    for offset, n in ((name, n_name), (properties, n_properties)):
        if offset < 0 or n < 0 or offset + 2 * n > len(data):
            raise OutlineError("it is damaged or cut off: its name or its properties lie beyond its end")


def _outline(key: str, name: str, roi: ImagejRoi, data: bytes, options: ReadOptions) -> Outline:
    rings = rings_of_roi(roi, data)
    properties = _properties(roi.props)
    group = str(roi.group) if roi.group else properties.get("group")
    colour = roi.hexcolor(roi.stroke_color) or roi.hexcolor(roi.fill_color)
    label = options.class_map.label(properties.get("class"), name=name, group=group, colour=colour)
    kind: Literal["cell", "region"] = "region" if label is not None and label in options.regions else "cell"
    source = RoiShape(data[: bytes_of_shape(roi)]) if roi.version >= _KEEPS_SHAPE else None
    predicted = "class" in properties and _PROBABILITY.search(roi.props) is not None
    return Outline(key, rings, label=label, kind=kind, name=name, predicted=predicted, source=source)


def _properties(text: str) -> dict[str, str]:
    """Return the class and the group among the properties of an ROI: lines ``key: value``, escaped as Java does."""
    found = {}
    for line in text.splitlines():
        key, _, value = line.partition(":")
        if key.strip() in _KEYS and value.strip():
            found[key.strip()] = _unescaped(value.strip())
    return found


def _unescaped(text: str) -> str:
    if "\\" not in text:
        return text

    def plain(match: re.Match[str]) -> str:
        escape = match[1]
        return chr(int(escape[1:], 16)) if len(escape) > 1 else escape

    return _ESCAPE.sub(plain, text).encode("utf-16", "surrogatepass").decode("utf-16", "replace")
