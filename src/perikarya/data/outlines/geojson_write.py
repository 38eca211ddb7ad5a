"""Classified cells out: a file that QuPath opens, with the objects it gave where it gave them."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from perikarya.data.outlines.base import Outline, OutlineError
from perikarya.data.outlines.geojson_read import CLASS_KEY, OURS, GeoFeature, class_of, object_type
from perikarya.data.outlines.geojson_rings import geometry_of_rings
from perikarya.data.outlines.trace import rings_of
from perikarya.palette import rgb
from perikarya.runs import replacing

PREVIOUS_KEY = f"{OURS}previous class"
_NAMESPACE = uuid.UUID("8c8d1bb6-3f0e-5d3c-9d0e-0a8b6a3a6c55")  # of the ids of objects that came without one


@dataclass(frozen=True, slots=True)
class GeoCell:
    """One cell to be written.

    Attributes
    ----------
    outline
        As it was read, from any format.
    class_name
        Its class; None leaves it unclassified.
    colour
        ``#rrggbb`` of the class.
    measurements
        Name -> value, for example ``Perikarya: p(normal)``.
    key
        Identity of the cell, unique in the file; the id of an object that has none is made from it.
    metadata
        Words beside the object; QuPath shows them in its list of annotations.
    predicted
        Whether the class is this program's word; if not, it is told as any other class.
    """

    outline: Outline
    class_name: str | None
    colour: str
    measurements: Mapping[str, float] = field(default_factory=dict)
    key: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)
    predicted: bool = True


def write_geojson(path: Path, cells: Iterable[GeoCell], *, regions: Iterable[Outline] = ()) -> None:
    """Write a FeatureCollection for QuPath; the file appears whole or not at all.

    Outlines that were read from GeoJSON keep their id, geometry, nucleus, type, name and the measurements of others.
    The class they had goes to their metadata as ``Perikarya: previous class``, unless this program gave it. Others
    become detections: QuPath holds hundreds of thousands of these, and their class can be changed there like that of
    an annotation. QuPath 0.4 and later show all of it, 0.3 leaves out colours and measurements.

    Parameters
    ----------
    path
        The file; its bytes depend on the arguments only.
    cells, regions
        May be generators: one object at a time is in memory.

    Raises
    ------
    OutlineError
        If an outline encloses no area, or came with JSON nested so deeply that it cannot be written again.
    """
    with replacing(path) as temporary, temporary.open("w", encoding="ascii", newline="\n") as handle:
        handle.write('{"type":"FeatureCollection","features":[')
        separator = "\n"
        for text in _texts(cells, regions):
            handle.write(separator + text)
            separator = ",\n"
        handle.write("\n]}\n")


def _texts(cells: Iterable[GeoCell], regions: Iterable[Outline]) -> Iterator[str]:
    try:
        for region in regions:
            yield _text(_region(region))
        for cell in cells:
            yield _text(_cell(cell))
    except RecursionError:
        raise OutlineError("an object's JSON is nested too deeply to be written") from None


def _region(region: Outline) -> dict[str, Any]:
    feature = _object(region, id_from=region.key, kind="annotation")
    if not isinstance(region.source, GeoFeature) and region.label is not None:
        feature["properties"]["name"] = region.label
    return feature


def _cell(cell: GeoCell) -> dict[str, Any]:
    feature = _object(cell.outline, id_from=cell.key or cell.outline.key, kind="detection")
    properties = feature["properties"]
    metadata = properties.get("metadata")
    metadata = dict(metadata) if isinstance(metadata, dict) else {}
    previous = _class_in(cell.outline, feature)
    known = metadata.get(CLASS_KEY) if cell.predicted else cell.class_name
    if previous is not None and previous != known:
        metadata[PREVIOUS_KEY] = previous
    properties.pop("color", None)  # it would hide the colour of the class
    properties.pop("classification", None)
    metadata.pop(CLASS_KEY, None)
    if cell.class_name is not None:
        properties["classification"] = {"name": cell.class_name, "color": list(rgb(cell.colour))}
        if cell.predicted:
            metadata[CLASS_KEY] = cell.class_name
    others = {k: v for k, v in properties.get("measurements", {}).items() if not k.startswith(OURS)}
    properties["measurements"] = others | {name: float(value) for name, value in cell.measurements.items()}
    properties["metadata"] = metadata | dict(cell.metadata)
    feature["properties"] = {k: v for k, v in properties.items() if v or k not in ("measurements", "metadata")}
    return feature


def _object(outline: Outline, *, id_from: str, kind: str) -> dict[str, Any]:
    """Return a feature as QuPath 0.4 and later write it, without its class where it is new."""
    own_id = str(uuid.uuid5(_NAMESPACE, id_from))
    if not isinstance(outline.source, GeoFeature):
        try:
            geometry = geometry_of_rings(rings_of(outline))
        except OutlineError as error:
            raise OutlineError(f"outline {outline.key}: {error}") from None
        named = {"objectType": kind, "name": outline.name or outline.key}
        return {"type": "Feature", "id": own_id, "geometry": geometry, "properties": named}
    feature = outline.source.content()
    kind = object_type(feature)
    properties = {"objectType": kind} | (feature.get("properties") or {}) | {"objectType": kind}
    properties.pop("object_type", None)
    if "measurements" in properties:
        properties["measurements"] = _measurements(properties["measurements"])
    kept_id = feature["id"] if outline.key == str(feature.get("id")).strip() else own_id
    head = {"type": "Feature", "id": kept_id}
    return head | feature | head | {"properties": properties}


def _class_in(outline: Outline, feature: dict[str, Any]) -> str | None:
    """Return the class an outline came with: as its file writes it, else as the options of reading found it."""
    said = class_of(feature) if isinstance(outline.source, GeoFeature) else None
    return said or outline.label


def _measurements(said: object) -> dict[str, Any]:
    """Return measurements by name; QuPath before 0.4 wrote a list of names and values."""
    if isinstance(said, dict):
        return said
    pairs = [entry for entry in said if isinstance(entry, dict)] if isinstance(said, list) else []
    return {str(entry["name"]): entry["value"] for entry in pairs if "name" in entry and "value" in entry}


def _text(feature: dict[str, Any]) -> str:
    """Return a feature as JSON in ASCII, which every reader gets right whatever encoding it expects.

    Numbers that JSON has no word for become text, ``"NaN"`` or ``"Infinity"``, as QuPath 0.5 and later write them.
    """
    try:
        return json.dumps(feature, allow_nan=False, separators=(",", ":"))
    except ValueError:
        return json.dumps(json.loads(json.dumps(feature), parse_constant=str), separators=(",", ":"))
