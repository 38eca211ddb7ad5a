from __future__ import annotations

import contextlib
import copy
import gzip
import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perikarya.data.outlines import ReadOptions
from perikarya.data.outlines.base import OutlineError, OutlineFile
from perikarya.data.outlines.geojson import GeoCell, read_geojson, write_geojson
from perikarya.data.outlines.raster import mask_of

HERE = Path(__file__).parent
GOOD = [[10, 10], [20, 10], [20, 20], [10, 20], [10, 10]]


def collection(*features: Any) -> dict[str, Any]:
    return {"type": "FeatureCollection", "features": [*features]}


def feature(geometry: Any = None, properties: Any = None, **more: Any) -> dict[str, Any]:
    geometry = {"type": "Polygon", "coordinates": [GOOD]} if geometry is None else geometry
    return {"type": "Feature", "geometry": geometry, "properties": properties or {}} | more


def polygon(*rings: Any, **more: Any) -> dict[str, Any]:
    return {"type": "Polygon", "coordinates": [*rings]} | more


GOOD_TEXT = json.dumps(collection(feature()))

FILES: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "empty"),
    "spaces": (b" \n\t ", "truncated"),
    "only a byte order mark": (b"\xef\xbb\xbf", "truncated"),
    "UTF-16": (GOOD_TEXT.encode("utf-16"), "not UTF-8"),
    "Latin-1": ('{"type":"µ","features":[]}'.encode("latin-1"), "not UTF-8"),
    "null bytes": (b"\x00" * 40, "not JSON"),
    "an image": (b"\x89PNG\r\n\x1a\n" + b"\x00" * 20, "not UTF-8"),
    "text": (b"x,y\n1,2\n", "not JSON"),
    "a table": (b"1,2\n3,4\n", "no GeoJSON features"),
    "a number": (b"17", "no GeoJSON features"),
    "a string": (b'"Feature"', "no GeoJSON features"),
    "null": (b"null", "no GeoJSON features"),
    "NaN": (b"NaN", "no GeoJSON features"),
    "an empty object": (b"{}", "no GeoJSON features"),
    "a COCO file": (b'{"images":[],"annotations":[],"categories":[]}', "no GeoJSON features"),
    "a bare polygon": (json.dumps(polygon(GOOD)).encode(), "no GeoJSON features.*Polygon"),
    "a topology": (b'{"type":"Topology","objects":{}}', "no GeoJSON features.*Topology"),
    "features that are no list": (b'{"type":"FeatureCollection","features":{"a":1}}', "no GeoJSON features"),
    "features that are null": (b'{"type":"FeatureCollection","features":null}', "no GeoJSON features"),
    "half a file": (GOOD_TEXT[: len(GOOD_TEXT) // 2].encode(), "truncated"),
    "without the last bracket": (GOOD_TEXT[:-1].encode(), "truncated"),
    "without the last two brackets": (GOOD_TEXT[:-2].encode(), "truncated"),
    "a trailing comma": (b'{"features":[],}', "not JSON"),
    "a trailing comma in the features": (b'{"features":[{},]}', "not JSON"),
    "no comma between features": (b'{"features":[{} {}]}', r"not JSON.*expected \]"),
    "no colon": (b'{"features" []}', "not JSON.*expected :"),
    "a key that is no string": (b"{1:2}", 'not JSON.*expected "'),
    "two files in one": ((GOOD_TEXT + "\n" + GOOD_TEXT).encode(), "something follows after the end"),
    "one feature a line": (
        b'{"type":"Feature","geometry":null}\n{"type":"Feature","geometry":null}\n',
        "several files",
    ),
    "single quotes": (b"{'features':[]}", "not JSON"),
    "a comment": (b'{"features":[] /* none */}', "not JSON"),
    "a control character in a name": (b'{"features":[{"id":"a\x01"}]}', "not JSON"),
    "deep arrays": (b"[" * 100_000, "nested too deeply"),
    "deep arrays in a feature": (b'{"features":[' + b"[" * 100_000, "nested too deeply"),
    "deep objects": (b'{"a":' * 100_000, "nested too deeply"),
    "half a compressed file": (gzip.compress(GOOD_TEXT.encode())[:-20], "compressed file is truncated"),
    "a damaged compressed file": (b"\x1f\x8b" + b"\xff" * 50, "compressed file is damaged"),
    "a bomb": (gzip.compress(b" " * (3 * 2**20)), "larger than 2 MiB when it is unpacked"),
    "a number of 10,000 digits": (b'{"features":[' + b"1" * 10_000 + b"]}", "thousands of digits"),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_no_geojson_is_refused_with_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr("perikarya.data.outlines.geojson_read.MAX_FILE_BYTES", 2 * 2**20)
    content, reason = FILES[name]
    path = tmp_path / "x.geojson"
    path.write_bytes(content)
    with pytest.raises(OutlineError, match=reason) as caught:
        read_geojson(path)
    assert "\n" not in str(caught.value)
    assert str(tmp_path) not in str(caught.value)


def test_a_file_that_ends_too_early_is_said_to_be_truncated_wherever_it_ends(tmp_path: Path) -> None:
    whole = '{"type": "FeatureCollection", "x": [true, false, null, -1.5e-3, NaN], "features": [{"id": "a, b"}, {}]}'
    for end in range(1, len(whole)):
        (tmp_path / "x.geojson").write_text(whole[:end])
        with pytest.raises(OutlineError, match="truncated"):
            read_geojson(tmp_path / "x.geojson")


def test_folders_missing_files_and_pipes_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path, reason in ((tmp_path, "regular"), (tmp_path / "absent", "not exist"), (tmp_path / "pipe", "regular")):
        with pytest.raises(OutlineError, match=reason):
            read_geojson(path)


OBJECTS: dict[str, tuple[Any, str]] = {
    "a number": (3, "not a feature"),
    "null": (None, "not a feature"),
    "a list": ([feature()], "not a feature"),
    "a geometry": (polygon(GOOD), "is a 'Polygon', not a feature"),
    "of another type": (feature(type="Polygon"), "not a feature"),
    "no geometry": ({"type": "Feature", "properties": {}}, "no geometry"),
    "null geometry": (feature() | {"geometry": None}, "no geometry"),
    "geometry is a text": (feature("POLYGON((0 0,1 0,1 1,0 0))"), "no geometry"),
    "empty geometry": (feature({"type": None}), "type 'None'"),
    "unknown geometry": (feature({"type": "Circle", "coordinates": [1, 2], "radius": 3}), "type 'Circle'"),
    "geometry type is a list": (feature({"type": ["Polygon"]}), "of type"),
    "point": (feature({"type": "Point", "coordinates": [1, 2]}), "it is a point; a cell needs an outline"),
    "points": (feature({"type": "MultiPoint", "coordinates": [[1, 2]]}), "set of points"),
    "line": (feature({"type": "LineString", "coordinates": [[1, 2], [3, 4]]}), "it is a line"),
    "lines": (feature({"type": "MultiLineString", "coordinates": [[[1, 2], [3, 4]]]}), "it is a line"),
    "a collection of points": (
        feature({"type": "GeometryCollection", "geometries": [{"type": "Point", "coordinates": [1, 2]}]}),
        "no polygon",
    ),
    "an empty collection": (feature({"type": "GeometryCollection", "geometries": []}), "no polygon"),
    "a collection of nothing": (feature({"type": "GeometryCollection"}), "collection of geometries"),
    "no coordinates": (feature({"type": "Polygon"}), "no coordinates"),
    "null coordinates": (feature({"type": "Polygon", "coordinates": None}), "no coordinates"),
    "empty coordinates": (feature(polygon()), "no coordinates"),
    "an empty ring": (feature(polygon([])), "has no points"),
    "an empty multipolygon": (feature({"type": "MultiPolygon", "coordinates": []}), "no coordinates"),
    "an empty part": (feature({"type": "MultiPolygon", "coordinates": [[GOOD], []]}), "no coordinates"),
    "a ring is a number": (feature(polygon(7)), "not a list of points"),
    "a ring is a text": (feature(polygon("ring")), "not a list of points"),
    "brackets are missing": (feature({"type": "Polygon", "coordinates": GOOD}), "not a list of two numbers"),
    "brackets are too many": (feature(polygon([GOOD])), "not a list of two numbers"),
    "one point": (feature(polygon([[1, 2]])), "1 corners; an area needs 3"),
    "one point four times": (feature(polygon([[1, 2]] * 4)), None),
    "two points, closed": (feature(polygon([[1, 2], [3, 4], [1, 2]])), "2 corners"),
    "points of one number": (feature(polygon([[1], [2], [3], [1]])), "two numbers"),
    "points of five numbers": (feature(polygon([[1, 2, 3, 4, 5]] * 4)), "two numbers"),
    "an empty point": (feature(polygon([*GOOD[:2], [], *GOOD[2:]])), "two numbers"),
    "a null point": (feature(polygon([*GOOD[:2], None, *GOOD[2:]])), "two numbers"),
    "a null coordinate": (feature(polygon([*GOOD[:2], [1, None], *GOOD[2:]])), "two numbers"),
    "numbers as text": (feature(polygon([[str(x), str(y)] for x, y in GOOD])), "two numbers"),
    "one number as text": (feature(polygon([["10", 10], *GOOD[1:]])), "two numbers"),
    "points as text": (feature(polygon(["10", "20", "25", "10"])), "two numbers"),
    "points as objects": (feature(polygon([{"x": x, "y": y} for x, y in GOOD])), "two numbers"),
    "true as a coordinate": (feature(polygon([[True, 10], *GOOD[1:]])), "two numbers"),
    "NaN": (feature(polygon([[float("nan"), 10], *GOOD[1:]])), r"not a number \(NaN\)"),
    "infinite": (feature(polygon([[float("inf"), 10], *GOOD[1:]])), "inf px; the limit"),
    "minus infinite": (feature(polygon([[10, float("-inf")], *GOOD[1:]])), "inf px; the limit"),
    "huge": (feature(polygon([[1e308, 10], *GOOD[1:]])), r"1e\+308 px; the limit"),
    "huge and whole": (feature(polygon([[10**400, 10], *GOOD[1:]])), "inf px; the limit"),
    "beyond any scanner": (feature(polygon([[10, -2e7], *GOOD[1:]])), r"2e\+07 px"),
    "too many points": (feature(polygon([[i % 7, i % 5] for i in range(200_001)])), "200001 points"),
    "too many points in many rings": (feature(polygon(*[GOOD] * 40_001)), "200005 points"),
    "parts on each other": (
        feature({"type": "MultiPolygon", "coordinates": [[GOOD], [[[15, 10], [30, 10], [30, 20], [15, 10]]]]}),
        "lie on each other",
    ),
    "a part drawn twice": (feature({"type": "MultiPolygon", "coordinates": [[GOOD], [GOOD]]}), "lie on each other"),
    "in a stack": (feature(polygon(GOOD, plane={"c": -1, "z": 3, "t": 0})), "plane z=3, t=0"),
    "in a film": (feature(polygon(GOOD, plane={"t": 1})), "plane z=0, t=1"),
    "properties are a list": (feature() | {"properties": [1]}, "properties are not an object"),
    "properties are a text": (feature() | {"properties": "annotation"}, "properties are not an object"),
    "name is a list": (feature(properties={"name": ["a"]}), "name is not a text"),
    "name is true": (feature(properties={"name": True}), "name is not a text"),
    "a long name": (feature(properties={"name": "x" * 1001}), "name has 1001 characters"),
    "half a character": (feature(properties={"name": "\ud800"}), "name is not valid Unicode"),
    "class is a number": (feature(properties={"classification": 3}), "classification is neither"),
    "class is a list": (feature(properties={"classification": ["a"]}), "classification is neither"),
    "class name is an object": (feature(properties={"classification": {"name": {"a": 1}}}), "class is not a text"),
    "class names are numbers in lists": (feature(properties={"classification": {"names": [[1]]}}), "class is not"),
    "parent class is a number": (feature(properties={"classification": {"parentClass": 3}}), "neither a name"),
    "id is an object": (feature(id={"a": 1}), "id is not a text"),
    "id is true": (feature(id=True), "id is not a text"),
    "a long id": (feature(id="x" * 2000), "id has 2000 characters"),
    "the same id again": (feature(id="good"), "has the id of object 1"),
}


@pytest.mark.parametrize("name", OBJECTS)
def test_an_object_that_cannot_be_used_is_named_and_the_others_are_read(tmp_path: Path, name: str) -> None:
    bad, reason = OBJECTS[name]
    path = tmp_path / "x.geojson"
    path.write_text(json.dumps(collection(feature(id="good"), bad, feature(id="also good"))))
    file = read_geojson(path)
    if reason is None:  # readable, but no pixel lies inside
        with pytest.raises(OutlineError, match="no area"):
            mask_of(file.outlines[1], height=100, width=100)
        return
    assert [outline.key for outline in file.outlines] == ["good", "also good"]
    ((where, said),) = file.problems
    assert where == (bad.get("id") if "again" in name else "object 2")
    with pytest.raises(OutlineError, match=reason):
        raise OutlineError(said)
    assert "\n" not in said
    assert len(said) < 200


def test_deep_collections_and_parents_end_somewhere(tmp_path: Path) -> None:
    geometry: dict[str, Any] = polygon(GOOD)
    said: dict[str, Any] = {"name": "a"}
    for _ in range(60):
        geometry = {"type": "GeometryCollection", "geometries": [geometry]}
        said = {"name": "a", "parentClass": said}
    path = tmp_path / "x.geojson"
    path.write_text(json.dumps(collection(feature(geometry), feature(properties={"classification": said}))))
    assert [reason for _, reason in read_geojson(path).problems] == [
        "its collection of geometries cannot be read",
        "its class has too many parents",
    ]


def test_json_that_can_just_be_read_is_written_or_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.geojson"
    for depth in (*range(600, 1000, 4), 5000):
        path.write_text(json.dumps(feature())[:-1] + ',"deep":' + "[" * depth + "]" * depth + "}")
        with contextlib.suppress(OutlineError):
            (outline,) = read_geojson(path).outlines
            write_geojson(path, [GeoCell(outline, "a", "#000000")])


SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=5),
    st.sampled_from([10**400, 1e308, "\ud800"]),
)
ANYTHING = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["type", "name", "x"]), inner, max_size=3)
    ),
    max_leaves=8,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a JSON value, as the keys that lead there."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, entry in inner for place in places(entry, (*path, key)))]


SEEDS = [
    json.loads((HERE / name).read_text()) for name in ("qupath_0_2.json", "qupath_0_3.geojson", "qupath_0_6.geojson")
]


def mutate(seed: Any, data: st.DataObject) -> Any:
    """Change, remove or double entries anywhere in a JSON value."""
    content = copy.deepcopy(seed)
    for _ in range(data.draw(st.integers(1, 4))):
        found = places(content)[1:]
        if not found:
            break
        *path, last = data.draw(st.sampled_from(found))
        parent = content
        for key in path:
            parent = parent[key]
        change = data.draw(st.sampled_from(["replace", "remove", "double"]))
        if change == "replace":
            parent[last] = data.draw(ANYTHING)
        elif change == "remove":
            del parent[last]
        elif isinstance(parent, list):
            parent.append(copy.deepcopy(parent[last]))
    return content


def use(path: Path, nucleus: bool) -> None:
    """Read a file, rasterise and write back what it holds."""
    try:
        file = read_geojson(path, ReadOptions(nucleus=nucleus))
    except OutlineError:
        return
    assert isinstance(file, OutlineFile)
    good = []
    for outline in file.outlines:
        try:
            mask_of(outline, height=100, width=100)
        except OutlineError:
            continue
        good.append(GeoCell(outline, "normal", "#0072B2", {"p": 0.5}, outline.key))
    write_geojson(path, good)
    assert len(read_geojson(path).outlines) + len(read_geojson(path).problems) >= len(good) - 2  # nameless regions


@settings(max_examples=150, deadline=None)
@given(data=st.data(), nucleus=st.booleans())
def test_whatever_is_changed_in_a_file_only_sentences_come_out(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, nucleus: bool
) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzz.geojson"
    path.write_text(json.dumps(mutate(data.draw(st.sampled_from(SEEDS)), data)))
    use(path, nucleus)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_whatever_bytes_are_changed_in_a_file_only_sentences_come_out(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    content = bytearray((HERE / "qupath_0_3.geojson").read_bytes())
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(content) - 1))
        content[at : at + data.draw(st.integers(0, 3))] = data.draw(
            st.binary(max_size=3) | st.sampled_from([b"[", b"}", b"9e9"])
        )
    path = tmp_path_factory.getbasetemp() / "bytes.geojson"
    path.write_bytes(bytes(content))
    use(path, nucleus=False)
