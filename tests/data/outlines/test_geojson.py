"""The fixtures are written by hand after QuPath's own writers.

``qupath_0_2.json``, ``qupath_0_3.geojson`` and ``qupath_0_6.geojson`` have the shape that PathObjectTypeAdapters and
GsonTools of those versions (qupath/qupath, QuPathTypeAdapters since 0.4) write; the bare NaN of a measurement is that
of qupath issue 1293.
"""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from perikarya.data.outlines import ClassMap, OutlineFile, ReadOptions
from perikarya.data.outlines.base import Outline
from perikarya.data.outlines.geojson import read_geojson
from perikarya.data.outlines.geojson_read import object_type
from perikarya.data.outlines.raster import mask_of

HERE = Path(__file__).parent
HW = {"height": 100, "width": 100}


def square(x: float, y: float, side: float = 10) -> list[list[float]]:
    """A closed ring as GeoJSON has it."""
    return [[x, y], [x + side, y], [x + side, y + side], [x, y + side], [x, y]]


def feature(*rings: list[list[float]], **properties: Any) -> dict[str, Any]:
    """A feature without id whose geometry is one polygon."""
    return {"type": "Feature", "geometry": {"type": "Polygon", "coordinates": [*rings]}, "properties": properties}


def annotation(x: float, y: float, side: float = 10, **properties: Any) -> dict[str, Any]:
    """A square annotation."""
    return feature(square(x, y, side), objectType="annotation", **properties)


@pytest.fixture
def read(tmp_path: Path):
    """Read features, or any other content, from a file."""

    def from_content(content: Any, **options: Any) -> OutlineFile:
        if isinstance(content, list) and content and isinstance(content[0], dict):
            content = {"type": "FeatureCollection", "features": content}
        path = tmp_path / "x.geojson"
        path.write_text(json.dumps(content), encoding="utf-8")
        return read_geojson(path, ReadOptions(**options))

    return from_content


def area(outline: Outline) -> int:
    return int(mask_of(outline, **HW).mask_hw.sum())


def kinds(file: OutlineFile) -> list[str]:
    return [outline.kind for outline in file.outlines]


def test_objects_of_qupath_0_2_are_numbered_since_they_have_no_id() -> None:
    file = read_geojson(HERE / "qupath_0_2.json")
    assert [outline.key for outline in file.outlines] == ["object 1", "object 2", "object 3"]
    assert [outline.label for outline in file.outlines] == ["pyknotic", "normal", None]
    assert [outline.name for outline in file.outlines] == [None, "PN 2", None]
    assert file.problems == ()


def test_objects_of_qupath_0_3_have_joined_class_names_and_their_region_is_named() -> None:
    file = read_geojson(HERE / "qupath_0_3.geojson")
    assert kinds(file) == ["region", "cell", "region"]
    assert [outline.label for outline in file.outlines] == ["CA1", "Neuron: Positive", "A-1"]


def test_objects_of_qupath_0_6_keep_their_ids_classes_and_names() -> None:
    file = read_geojson(HERE / "qupath_0_6.geojson")
    assert file.problems == ()
    assert [outline.key[:8] for outline in file.outlines] == [
        "3f2504e0",
        "9b2b5b0a",
        "0d8f7c5e",
        "5c1e2b7d",
        "7e4d9c2a",
    ]
    assert [outline.label for outline in file.outlines] == ["CA3", "Tumor: Positive", "normal", "pyknotic", None]
    assert kinds(file) == ["region", "cell", "cell", "cell", "cell"]
    assert any("1 objects were left out: tiles" in note for note in file.notes)
    assert any("1 annotations hold no other object" in note for note in file.notes)


def test_holes_and_separate_parts_become_pixels() -> None:
    outlines = {outline.key[:8]: outline for outline in read_geojson(HERE / "qupath_0_6.geojson").outlines}
    assert area(outlines["0d8f7c5e"]) == 16 * 16 - 8 * 8
    assert area(outlines["5c1e2b7d"]) == 100 + 80 - 16
    assert 60 < area(outlines["7e4d9c2a"]) < 100  # an ellipse of 11 x 10 px, drawn with few corners


def test_the_nucleus_is_read_only_when_asked_for() -> None:
    body = read_geojson(HERE / "qupath_0_6.geojson").outlines[1]
    file = read_geojson(HERE / "qupath_0_6.geojson", ReadOptions(nucleus=True))
    assert (area(body), area(file.outlines[1])) == (12 * 12, 4 * 4)
    assert any("no outline of a nucleus" in note for note in file.notes)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda one: {"type": "FeatureCollection", "features": [one]},
        lambda one: {"features": [one], "type": "FeatureCollection", "name": "late type", "crs": {"a": [1]}},
        lambda one: [[one]][0],
        lambda one: one,
    ],
    ids=["collection", "collection with more", "array", "one feature"],
)
@pytest.mark.parametrize("start", [b"", b"\xef\xbb\xbf", b"\r\n\t "])
def test_every_kind_of_file_gives_the_same_outline(tmp_path: Path, wrap: Any, start: bytes) -> None:
    path = tmp_path / "x.geojson"
    path.write_bytes(start + json.dumps(wrap(annotation(3, 4))).encode() + b"\n")
    (outline,) = read_geojson(path).outlines
    assert outline.rings[0].tolist() == square(3, 4)[:-1]


def test_a_compressed_file_is_read_like_any_other(tmp_path: Path) -> None:
    (tmp_path / "x.geojson.gz").write_bytes(gzip.compress((HERE / "qupath_0_3.geojson").read_bytes()))
    keys = [outline.key for outline in read_geojson(tmp_path / "x.geojson.gz").outlines]
    assert keys == [outline.key for outline in read_geojson(HERE / "qupath_0_3.geojson").outlines]


def test_an_empty_collection_is_an_image_without_objects(read: Any) -> None:
    assert read({"type": "FeatureCollection", "features": []}) == OutlineFile(())


def test_objects_nested_in_their_parents_are_found_in_order(read: Any) -> None:
    cell = feature(square(20, 20), objectType="cell") | {"id": "c"}
    inner = annotation(10, 10, 40, name="CA1", childObjects=[cell]) | {"id": "b"}
    outer = annotation(0, 0, 90, name="brain", childObjects=[inner, annotation(60, 60, 5) | {"id": "d"}]) | {"id": "a"}
    root = {"type": "Feature", "geometry": None, "properties": {"objectType": "root", "childObjects": [outer]}}
    file = read([root])
    assert [(outline.key, outline.kind) for outline in file.outlines] == [
        ("a", "region"), ("b", "region"), ("c", "cell"), ("d", "cell"),
    ]  # fmt: skip
    assert all("childObjects" not in outline.source.text for outline in file.outlines)
    assert any("the root" in note for note in file.notes)


def test_a_third_coordinate_and_a_missing_last_point_change_nothing(read: Any) -> None:
    flat, high, mixed, open_ring = square(5, 5), [], [], square(5, 5)[:-1]
    high = [[*point, 7.5] for point in flat]
    mixed = [flat[0], *high[1:]]
    rings = [read([feature(ring)]).outlines[0].rings[0].tolist() for ring in (flat, high, mixed, open_ring)]
    assert rings == [flat[:-1]] * 4


def test_a_collection_of_geometries_is_its_polygons(read: Any) -> None:
    one = feature(square(5, 5))
    one["geometry"] = {
        "type": "GeometryCollection",
        "geometries": [one["geometry"], {"type": "Point", "coordinates": [1, 1]}],
    }
    (outline,) = read([one]).outlines
    assert area(outline) == 100


@pytest.mark.parametrize(
    ("classification", "label"),
    [
        ({"name": "normal", "colorRGB": -1}, "normal"),
        ({"name": "normal", "color": [1, 2, 3]}, "normal"),
        ({"names": ["a", "b"], "color": [1, 2, 3, 128]}, "a: b"),
        ({"name": "b", "parentClass": {"name": "a", "parentClass": {"name": "0"}}}, "0: a: b"),
        ("normal", "normal"),
        (" normal ", "normal"),
        ({}, None),
        ({"names": []}, None),
        ({"name": None}, None),
        ("", None),
        (None, None),
    ],
)
def test_every_form_of_classification_is_read(read: Any, classification: Any, label: str | None) -> None:
    assert read([annotation(1, 1, classification=classification)]).outlines[0].label == label


@pytest.mark.parametrize(
    ("rules", "label"),
    [
        ("grade 3=pyknotic", "pyknotic"),
        ("name:^PN=neuron", "neuron"),
        ("colour:#d0150f=red", "red"),
        ("colour:#000001=blue", "grade 3"),
        ("grade 3=", None),
    ],
)
def test_classes_follow_the_class_map_by_class_name_and_colour(read: Any, rules: str, label: str | None) -> None:
    one = annotation(1, 1, name="PN 4", classification={"name": "grade 3", "colorRGB": -3140337})
    assert read([one], class_map=ClassMap.parse(rules)).outlines[0].label == label


@pytest.mark.parametrize(
    ("colour", "hexadecimal"), [([208, 21, 15], "#d0150f"), ([208, 21, 15, 9], "#d0150f"), (-3140337, "#d0150f")]
)
def test_the_colour_of_an_object_counts_before_that_of_its_class(read: Any, colour: Any, hexadecimal: str) -> None:
    one = annotation(1, 1, color=colour, classification={"name": "a", "color": [0, 0, 255]})
    assert read([one], class_map=ClassMap.parse(f"colour:{hexadecimal}=own")).outlines[0].label == "own"
    del one["properties"]["color"]
    assert read([one], class_map=ClassMap.parse("colour:#0000ff=of class")).outlines[0].label == "of class"


@pytest.mark.parametrize("colour", [[1, 2], [1, 2, 300], [-1, 2, 3], "red", [1.5, 2, 3], {"r": 1}, True, None])
def test_a_colour_that_cannot_be_read_counts_as_none(read: Any, colour: Any) -> None:
    file = read([annotation(1, 1, color=colour)], class_map=ClassMap.parse("colour:#010203=x"))
    assert file.outlines[0].label is None


def test_regions_that_are_named_are_regions_and_all_else_is_cells(read: Any) -> None:
    content = [
        annotation(0, 0, 90, classification="CA1"),
        annotation(10, 10, 5, classification="CA1"),
        annotation(0, 0, 90, name="CA3"),
        annotation(20, 20, 5, classification="normal"),
        annotation(0, 0, 80, classification="normal"),
    ]
    file = read(content, regions=frozenset({"CA1", "CA3"}))
    assert kinds(file) == ["region", "region", "region", "cell", "cell"]
    assert [outline.label for outline in file.outlines] == ["CA1", "CA1", "CA3", "normal", "normal"]


def test_a_region_is_called_what_the_class_map_makes_of_it(read: Any) -> None:
    content = [annotation(0, 0, 40, classification="R1"), annotation(5, 5, 6, classification="normal")]
    file = read(content, regions=frozenset({"CA1"}), class_map=ClassMap.parse("R1=CA1"))
    assert [(outline.kind, outline.label) for outline in file.outlines] == [("region", "CA1"), ("cell", "normal")]


def test_among_annotations_a_region_holds_two_smaller_ones_at_least(read: Any) -> None:
    content = [
        annotation(0, 0, 40, classification="CA1"),
        annotation(5, 5, 6),
        annotation(20, 20, 6),
        annotation(50, 50, 10, classification="normal"),  # with its nucleus
        annotation(52, 52, 4),
        *(annotation(80 + i / 2, 80, 10) for i in range(4)),  # drawn over each other
    ]
    assert kinds(read(content)) == ["region"] + 8 * ["cell"]


def test_beside_detections_an_annotation_with_one_of_them_inside_is_a_region(read: Any) -> None:
    content = [
        annotation(0, 0, 40, name="CA1"),
        feature(square(5, 5, 6), objectType="detection"),
        annotation(60, 60, 6, classification="normal"),
        annotation(40, 40, 19, name="below 25 times as large"),
        annotation(0, 40, 60, name="empty DG"),
    ]
    file = read(content)
    assert kinds(file) == ["region", "cell", "cell", "cell", "region"]
    assert file.outlines[-1].label == "empty DG"


def test_a_cell_on_a_notch_of_a_region_is_not_held_by_it(read: Any) -> None:
    notched = [[0, 0], [90, 0], [90, 90], [0, 90], [0, 60], [60, 60], [60, 30], [0, 30], [0, 0]]
    content = [feature(notched, objectType="annotation"), annotation(10, 40, 5), annotation(30, 40, 5)]
    assert kinds(read(content)) == ["cell", "cell", "cell"]


def test_a_region_is_named_by_its_class_unless_that_only_says_region(read: Any) -> None:
    cells = [annotation(5, 5, 4), annotation(20, 20, 4)]
    for properties, label in (
        ({"classification": "CA1", "name": "of sheep 7"}, "CA1"),
        ({"classification": {"name": "Region*", "color": [1, 2, 3]}, "name": "CA1"}, "CA1"),
        ({"classification": "Region*"}, "Region*"),
        ({"name": "CA1"}, "CA1"),
    ):
        assert read([annotation(0, 0, 90, **properties), *cells]).outlines[0].label == label


def test_a_region_without_any_name_is_left_out_and_said(read: Any) -> None:
    file = read([annotation(0, 0, 90), annotation(5, 5, 4), annotation(20, 20, 4)])
    assert kinds(file) == ["cell", "cell"]
    assert any("1 regions without class and name" in note for note in file.notes)


def test_an_unknown_type_is_an_annotation_as_it_is_for_qupath(read: Any) -> None:
    content = [
        feature(square(0, 0, 90), objectType="lesion", name="R"),
        annotation(5, 5, 4),
        feature(square(20, 20, 4)),
    ]
    assert kinds(read(content)) == ["region", "cell", "cell"]


@pytest.mark.parametrize("key", ["objectType", "object_type", "type"])
def test_the_type_of_an_object_is_read_from_every_property_that_has_held_it(key: str) -> None:
    assert object_type(feature(square(20, 20, 4), **{key: "detection"})) == "detection"


def test_ids_that_are_numbers_are_kept_as_text(read: Any) -> None:
    assert read([annotation(1, 1) | {"id": 12}]).outlines[0].key == "12"


def test_ten_thousand_objects_are_no_trouble(read: Any) -> None:
    content = [annotation(20 * (i % 100), 20 * (i // 100)) | {"id": f"o{i}"} for i in range(10_000)]
    file = read(content)
    assert len(file.outlines) == 10_000
    assert not np.isin("region", kinds(file))
