"""QuPath's objects in: every feature of a file to an outline, or a sentence saying why not."""

from __future__ import annotations

import json
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from perikarya.data.outlines import ReadOptions
from perikarya.data.outlines.base import (
    MAX_FILE_BYTES,
    MAX_OUTLINES,
    Outline,
    OutlineError,
    OutlineFile,
    Problem,
    Ring,
    read_limited,
)
from perikarya.data.outlines.geojson_regions import find_regions
from perikarya.data.outlines.geojson_rings import rings_of_geometry
from perikarya.data.outlines.json_stream import JsonStream

OURS = "Perikarya: "  # what names of measurements and metadata of this program begin with
CLASS_KEY = f"{OURS}class"
# version 0.2 said so in the id, 0.3 in object_type, later ones in objectType
_OLD_TYPES = {
    "PathAnnotationObject": "annotation",
    "PathDetectionObject": "detection",
    "PathCellObject": "cell",
    "PathTileObject": "tile",
    "TMACoreObject": "tmaCore",
    "PathRootObject": "root",
    "tma_core": "tmaCore",
}
_TYPES = frozenset(_OLD_TYPES.values())
_IGNORED = {"tile": "tiles (squares or superpixels, not cells)", "root": "the root, which holds the whole image"}
_MAX_WORD = 1000  # characters of a name or an id
_MAX_PARENTS = 20  # of a class


@dataclass(frozen=True, slots=True)
class GeoFeature:
    """A feature as it stands in its file, without its children: JSON text, a fraction of its size as objects."""

    text: str

    def content(self) -> dict[str, Any]:
        """Return the feature."""
        feature: dict[str, Any] = json.loads(self.text)
        return feature


@dataclass(frozen=True, slots=True)
class _Thing:
    """One feature, read: what it is and what it is called."""

    kind: str  # one of _TYPES
    class_name: str | None  # as the file has it
    outline: Outline


def read_geojson(path: Path, options: ReadOptions = ReadOptions()) -> OutlineFile:  # noqa: B008
    """Read the objects of a GeoJSON file.

    Parameters
    ----------
    path
        A FeatureCollection, an array of features or one feature, as QuPath 0.2 to 0.6 exports them, also compressed
        (``.geojson.gz``); children inside their parents are found too.
    options
        Which classes mean what, which are regions, and whether a cell is its nucleus.

    Returns
    -------
    Outlines in the order of the file. ``options.regions`` says what is a region; where it is empty, annotations that
    hold other objects are (see ``find_regions``). Cores of tissue microarrays always are. Objects that cannot be used
    are in ``problems``, by id or by number in the file.

    Raises
    ------
    OutlineError
        If the file cannot be read or holds no features. The message is the bare reason.
    """
    things: list[_Thing] = []
    problems: list[Problem] = []
    counts: Counter[str] = Counter()
    seen: dict[str, int] = {}
    for number, (feature, text) in enumerate(_with_children(JsonStream(_unpacked(read_limited(path)))), start=1):
        if number > MAX_OUTLINES:
            raise OutlineError(f"it holds more than {MAX_OUTLINES} objects")
        where = f"object {number}"
        try:
            if not isinstance(feature, dict):
                raise OutlineError("it is not a feature")
            where = _key(feature, number)
            kind = object_type(feature)
            if kind in _IGNORED:
                counts[kind] += 1
                continue
            if where in seen:
                raise OutlineError(f"has the id of object {seen[where]}; ids must differ")
            seen[where] = number
            things.append(_thing(feature, text, where, kind, options, counts))
        except OutlineError as error:
            problems.append((where, str(error)))
    outlines, notes = _sorted_out(things, options)
    return OutlineFile(outlines, tuple(problems), (*_notes(counts), *notes))


def _unpacked(content: bytes) -> bytes:
    """Return what a file holds; QuPath 0.4 and later compress it where the name ends with .gz."""
    if not content.startswith(b"\x1f\x8b"):
        return content
    unpacker = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
    try:
        unpacked = unpacker.decompress(content, MAX_FILE_BYTES + 1)
    except zlib.error:
        raise OutlineError("the compressed file is damaged") from None
    if len(unpacked) > MAX_FILE_BYTES:
        raise OutlineError(f"the file is larger than {MAX_FILE_BYTES / 2**20:g} MiB when it is unpacked")
    if not unpacker.eof:
        raise OutlineError("the compressed file is truncated")
    return unpacked


def object_type(feature: dict[str, Any]) -> str:
    """Return what kind of object a feature is, by the names of today's QuPath; an annotation where it does not say."""
    properties = _properties(feature)
    old = feature.get("id") if isinstance(feature.get("id"), str) and feature["id"] in _OLD_TYPES else None
    said = next((properties[k] for k in ("objectType", "object_type", "type") if properties.get(k) is not None), old)
    kind = _OLD_TYPES.get(said, said) if isinstance(said, str) else None
    return kind if kind in _TYPES else "annotation"


def class_of(feature: dict[str, Any]) -> str | None:
    """Return the name of a feature's class, parts of a derived class joined as QuPath shows them: ``Tumor: Positive``.

    Raises
    ------
    OutlineError
        If the classification is none of the forms that QuPath has written.
    """
    said = _properties(feature).get("classification")
    parts: list[str] = []
    for _ in range(_MAX_PARENTS):
        if said is None or isinstance(said, str):
            return ": ".join([*filter(None, [_word(said, "class")]), *parts]) or None
        if not isinstance(said, dict):
            raise OutlineError("its classification is neither a name nor an object with a name")
        names = said["names"] if isinstance(said.get("names"), list) else [said.get("name")]
        parts = [*filter(None, (_word(name, "class") for name in names)), *parts]
        said = said.get("parentClass")
    raise OutlineError("its class has too many parents")


def _features(stream: JsonStream) -> Iterator[tuple[Any, str]]:
    """Yield every feature of a file and its text."""
    if stream.peek() == "[":
        yield from stream.elements()
    elif stream.peek() == "{":
        yield from _features_of_object(stream)
    else:
        stream.value()
        raise OutlineError("it holds no GeoJSON features")
    stream.end()


def _features_of_object(stream: JsonStream) -> Iterator[tuple[Any, str]]:
    members: dict[str, tuple[Any, str]] = {}
    found = False
    for key in stream.members():
        if key == "features" and stream.peek() == "[":
            found = True
            yield from stream.elements()
        else:
            members[key] = stream.value()
    if found:
        return
    if "geometry" not in members:
        kind = str(members.get("type", ("",))[0])[:40]
        raise OutlineError(f"it holds no GeoJSON features{f' (its type is {kind!r})' if kind else ''}")
    text = ",".join(f"{json.dumps(key)}:{text}" for key, (_, text) in members.items())
    yield {key: value for key, (value, _) in members.items()}, "{" + text + "}"


def _with_children(stream: JsonStream) -> Iterator[tuple[Any, str]]:
    """Yield features and, behind each, the objects that QuPath nested in it; texts are without what is nested."""
    for feature, text in _features(stream):
        if isinstance(feature, dict) and _children(feature):
            waiting = [feature]
            while waiting:
                one = waiting.pop()
                children = _children(one)
                waiting += reversed(children)
                yield one, _text_without_children(one)
        else:
            yield feature, text


def _children(feature: Any) -> list[Any]:
    """Return nested features; QuPath 0.4 and later write them when a whole hierarchy is exported."""
    properties = feature.get("properties") if isinstance(feature, dict) else None
    if not isinstance(properties, dict):
        return []
    children = properties.get("childObjects", properties.get("children"))
    return children if isinstance(children, list) else []


def _text_without_children(feature: Any) -> str:
    if _children(feature):
        properties = {k: v for k, v in feature["properties"].items() if k not in ("childObjects", "children")}
        feature = feature | {"properties": properties}
    try:
        return json.dumps(feature)
    except RecursionError:
        raise OutlineError("its JSON is nested too deeply; no program writes outlines so") from None


def _key(feature: dict[str, Any], number: int) -> str:
    """Return a feature's id; its number in the file where it has none (QuPath before 0.4)."""
    said = _word(feature.get("id"), "id")
    return f"object {number}" if said is None or said in _OLD_TYPES else said


def _thing(
    feature: dict[str, Any], text: str, key: str, kind: str, options: ReadOptions, counts: Counter[str]
) -> _Thing:
    """Read one feature; raise ``OutlineError`` when it is no outline."""
    if feature.get("type") not in ("Feature", None):
        raise OutlineError(f"it is a {str(feature['type'])[:40]!r}, not a feature")
    properties = _properties(feature)
    class_name, name = class_of(feature), _word(properties.get("name"), "name")
    label = options.class_map.label(class_name, name=name, colour=_colour(properties))
    rings = _rings(feature, options, counts)
    predicted = class_name is not None and _metadata(properties).get(CLASS_KEY) == class_name
    outline = Outline(key, rings, label=label, name=name, predicted=predicted, source=GeoFeature(text))
    return _Thing(kind, class_name, outline)


def _metadata(properties: dict[str, Any]) -> dict[str, Any]:
    found = properties.get("metadata")
    return found if isinstance(found, dict) else {}


def _sorted_out(things: Sequence[_Thing], options: ReadOptions) -> tuple[tuple[Outline, ...], list[str]]:
    """Tell regions from cells; return the outlines in their order, and notes."""
    of_kind = {kind: [i for i, thing in enumerate(things) if thing.kind == kind] for kind in _TYPES}
    annotations, detections = of_kind["annotation"], of_kind["detection"] + of_kind["cell"]
    if options.regions:
        regions = {i for i, thing in enumerate(things) if options.regions.intersection(_names(thing))}
    else:
        regions = find_regions([t.outline for t in things], annotations=annotations, detections=detections)
    notes = [] if options.regions else _notes_on_annotations(things, annotations, regions, mixed=bool(detections))
    regions.update(of_kind["tmaCore"])
    outlines = [
        replace(thing.outline, kind="region", label=_region_label(thing)) if i in regions else thing.outline
        for i, thing in enumerate(things)
    ]
    named = tuple(outline for outline in outlines if outline.kind == "cell" or outline.label is not None)
    if len(named) < len(outlines):
        notes.append(f"{len(outlines) - len(named)} regions without class and name were left out; they tell nothing.")
    return named, notes


def _names(thing: _Thing) -> set[str]:
    outline = thing.outline
    return {name for name in (outline.label, thing.class_name, outline.name) if name is not None}


def _region_label(thing: _Thing) -> str | None:
    """Return the name of a region: its class, unless that is one of QuPath's ``Region*``, which only say what it is."""
    label = thing.outline.label or thing.class_name
    return thing.outline.name or label if label is None or label.endswith("*") else label


def _notes_on_annotations(
    things: Sequence[_Thing], annotations: Sequence[int], regions: set[int], *, mixed: bool
) -> list[str]:
    notes = []
    if regions:
        names = sorted({_region_label(things[i]) or "(no name)" for i in regions})
        notes.append(f"{len(regions)} annotations hold cells and are regions: {', '.join(names)[:300]}.")
    if mixed and len(annotations) > len(regions):
        notes.append(f"{len(annotations) - len(regions)} annotations hold no other object and count as cells.")
    return notes


def _notes(counts: Counter[str]) -> list[str]:
    notes = [f"{counts[kind]} objects were left out: {_IGNORED[kind]}." for kind in _IGNORED if counts[kind]]
    if counts["without nucleus"]:
        n = counts["without nucleus"]
        notes.append(f"{n} objects have no outline of a nucleus; the outline of the object was taken.")
    return notes


def _rings(feature: dict[str, Any], options: ReadOptions, counts: Counter[str]) -> tuple[Ring, ...]:
    if options.nucleus:
        if feature.get("nucleusGeometry") is not None:
            return rings_of_geometry(feature["nucleusGeometry"])
        counts["without nucleus"] += 1
    return rings_of_geometry(feature.get("geometry"))


def _properties(feature: dict[str, Any]) -> dict[str, Any]:
    properties = feature.get("properties")
    if properties is None:
        return {}
    if not isinstance(properties, dict):
        raise OutlineError("its properties are not an object")
    return properties


def _word(said: object, what: str) -> str | None:
    """Return a name as text without spaces around it, None for none."""
    if said is None:
        return None
    if isinstance(said, bool) or not isinstance(said, str | int | float):
        raise OutlineError(f"its {what} is not a text")
    text = str(said).strip()
    if len(text) > _MAX_WORD:
        raise OutlineError(f"its {what} has {len(text)} characters")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise OutlineError(f"its {what} is not valid Unicode") from None
    return text or None


def _colour(properties: dict[str, Any]) -> str | None:
    """Return ``#rrggbb``: the colour of the object, else of its class; None where it has none that can be read."""
    classification = properties.get("classification")
    of_class = classification if isinstance(classification, dict) else {}
    for said in (properties.get("color"), of_class.get("color"), of_class.get("colorRGB")):
        parts: list[Any] = said if isinstance(said, list) else [said]
        if set(map(type, parts)) != {int}:
            continue
        if len(parts) == 1:  # packed, signed, alpha first
            return f"#{parts[0] & 0xFFFFFF:06x}"
        if len(parts) in (3, 4) and min(parts) >= 0 and max(parts) <= 255:
            return "#{:02x}{:02x}{:02x}".format(*parts[:3])
    return None
