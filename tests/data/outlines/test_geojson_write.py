from __future__ import annotations

import json
import uuid
from dataclasses import replace
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from perikarya.data.outlines import ReadOptions
from perikarya.data.outlines.base import CellMask, Outline, OutlineError
from perikarya.data.outlines.geojson import GeoCell, read_geojson, write_geojson
from perikarya.data.outlines.geojson_rings import geometry_of_rings
from perikarya.data.outlines.raster import mask_of

HERE = Path(__file__).parent
FIXTURES = ("qupath_0_2.json", "qupath_0_3.geojson", "qupath_0_6.geojson")
BLUE = "#0072B2"
HW = {"height": 100, "width": 100}


def square(x: float, y: float, side: float = 10) -> np.ndarray:
    return np.array([[x, y], [x + side, y], [x + side, y + side], [x, y + side]], float)


def write(path: Path, outlines: Any, class_name: str | None = "normal", **measurements: float) -> list[dict[str, Any]]:
    """Write the cells among outlines, all of one class, and the regions; return the features in the file."""
    cells = [GeoCell(o, class_name, BLUE, measurements, f"id of {o.key}") for o in outlines if o.kind == "cell"]
    write_geojson(path, cells, regions=[o for o in outlines if o.kind == "region"])
    return json.loads(path.read_text(encoding="ascii"))["features"]


def pixels(outline: Outline, **hw: int) -> tuple[int, int, bytes]:
    mask = mask_of(outline, **(hw or HW))
    return mask.x, mask.y, mask.mask_hw.tobytes()


@pytest.mark.parametrize("fixture", FIXTURES)
def test_what_qupath_wrote_comes_back_with_the_same_pixels_names_and_types(tmp_path: Path, fixture: str) -> None:
    before = read_geojson(HERE / fixture).outlines
    write(tmp_path / "x.geojson", before)
    after = {(o.name, pixels(o)): o for o in read_geojson(tmp_path / "x.geojson").outlines}
    assert len(after) == len(before)
    for outline in before:
        again = after[outline.name, pixels(outline)]
        assert again.kind == outline.kind
        assert again.label == (outline.label if outline.kind == "region" else "normal")
        assert again.key == outline.key or (outline.key.startswith("object") and uuid.UUID(again.key))


def test_an_object_of_qupath_keeps_all_but_its_class(tmp_path: Path) -> None:
    cell = read_geojson(HERE / "qupath_0_6.geojson").outlines[1]
    (feature,) = write(tmp_path / "x.geojson", [cell], **{"Perikarya: p(normal)": 0.25})
    assert feature["id"] == "9b2b5b0a-6d5c-4f29-8c39-52ed4a1b2c02"
    assert feature["nucleusGeometry"]["coordinates"] == [[[14, 14], [18, 14], [18, 18], [14, 18], [14, 14]]]
    assert feature["properties"] == {
        "objectType": "cell",
        "classification": {"name": "normal", "color": [0, 114, 178]},
        "measurements": {
            "Cell: Area µm^2": 36.18,
            "Nucleus: Circularity": "NaN",
            "Hematoxylin: Mean": "NaN",
            "Perikarya: p(normal)": 0.25,
        },
        "metadata": {
            "graded by": "MK",
            "Perikarya: previous class": "Tumor: Positive",
            "Perikarya: class": "normal",
        },
    }


def test_an_object_of_an_old_qupath_is_written_as_todays_would(tmp_path: Path) -> None:
    outlines = read_geojson(HERE / "qupath_0_2.json").outlines
    features = write(tmp_path / "x.geojson", outlines)
    assert [feature["properties"]["objectType"] for feature in features] == ["annotation", "detection", "cell"]
    assert features[1]["properties"]["measurements"] == {"Area": 99.93, "Solidity": 1}
    assert len({uuid.UUID(feature["id"]) for feature in features}) == 3
    (old,) = write(tmp_path / "y.geojson", read_geojson(HERE / "qupath_0_3.geojson").outlines[1:2])
    assert "object_type" not in old["properties"]


def test_the_colour_of_an_object_does_not_hide_that_of_its_class(tmp_path: Path) -> None:
    (feature,) = write(tmp_path / "x.geojson", read_geojson(HERE / "qupath_0_6.geojson").outlines[2:3])
    assert "color" not in feature["properties"]
    assert feature["properties"]["classification"]["color"] == [0, 114, 178]


def test_a_class_that_a_person_gave_survives_any_number_of_predictions(tmp_path: Path) -> None:
    path = tmp_path / "x.geojson"
    outlines = read_geojson(HERE / "qupath_0_2.json").outlines[:1]
    for predicted in ("normal", "intermediate", "intermediate"):
        (feature,) = write(path, outlines, predicted)
        assert feature["properties"]["metadata"]["Perikarya: previous class"] == "pyknotic"
        outlines = read_geojson(path).outlines
    path.write_text(path.read_text().replace('"name":"intermediate"', '"name":"corrected"'))
    (feature,) = write(path, read_geojson(path).outlines, "normal")
    assert feature["properties"]["metadata"]["Perikarya: previous class"] == "corrected"


def test_a_class_read_from_name_or_colour_is_kept_too(tmp_path: Path) -> None:
    cell = replace(read_geojson(HERE / "qupath_0_6.geojson").outlines[4], label="by colour")
    (feature,) = write(tmp_path / "x.geojson", [cell])
    assert feature["properties"]["metadata"]["Perikarya: previous class"] == "by colour"


def test_a_cell_without_a_class_is_unclassified_and_its_class_is_remembered(tmp_path: Path) -> None:
    (feature,) = write(tmp_path / "x.geojson", read_geojson(HERE / "qupath_0_2.json").outlines[:1], None)
    assert "classification" not in feature["properties"]
    assert feature["properties"]["metadata"] == {"Perikarya: previous class": "pyknotic"}


def test_measurements_of_an_earlier_model_do_not_stay(tmp_path: Path) -> None:
    path = tmp_path / "x.geojson"
    write(path, read_geojson(HERE / "qupath_0_2.json").outlines[1:2], **{"Perikarya: p(old)": 1.0})
    (feature,) = write(path, read_geojson(path).outlines, **{"Perikarya: p(new)": float(np.float32(0.5))})
    assert feature["properties"]["measurements"] == {"Area": 99.93, "Solidity": 1, "Perikarya: p(new)": 0.5}


def test_numbers_that_json_cannot_hold_become_text(tmp_path: Path) -> None:
    feature = json.loads((HERE / "qupath_0_2.json").read_text())[0] | {"extra": [1]}
    text = json.dumps(feature).replace('"extra": [1]', '"extra": [1e999, -Infinity]')
    (tmp_path / "in.geojson").write_text(text)
    (after,) = write(tmp_path / "x.geojson", read_geojson(tmp_path / "in.geojson").outlines, own=float("nan"))
    assert after["extra"] == ["Infinity", "-Infinity"]
    assert after["properties"]["measurements"] == {"own": "NaN"}


def test_outlines_of_other_formats_become_detections_with_lasting_ids(tmp_path: Path) -> None:
    outlines = [
        Outline("0012-0034", (square(3, 4),), label="pyknotic"),
        Outline("7", mask=CellMask(np.ones((2, 3), np.uint8), 20, 30)),
        Outline("CA1", (square(0, 0, 60),), label="CA1", kind="region"),
    ]
    region, first, second = write(tmp_path / "x.geojson", outlines)
    assert [f["properties"]["objectType"] for f in (region, first, second)] == ["annotation", "detection", "detection"]
    assert [f["properties"]["name"] for f in (region, first, second)] == ["CA1", "0012-0034", "7"]
    assert first["geometry"] == {"type": "Polygon", "coordinates": [[[3, 4], [13, 4], [13, 14], [3, 14], [3, 4]]]}
    assert first["properties"]["metadata"]["Perikarya: previous class"] == "pyknotic"
    assert second["geometry"]["coordinates"] == [[[20, 30], [23, 30], [23, 32], [20, 32], [20, 30]]]
    again = write(tmp_path / "y.geojson", outlines)
    assert [f["id"] for f in again] == [f["id"] for f in (region, first, second)]
    assert len({f["id"] for f in again}) == 3


def test_the_bytes_depend_on_the_cells_only(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write(tmp_path / name, read_geojson(HERE / "qupath_0_6.geojson").outlines, p=1 / 3)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_file_without_cells_is_an_empty_collection(tmp_path: Path) -> None:
    assert write(tmp_path / "x.geojson", []) == []
    assert read_geojson(tmp_path / "x.geojson").outlines == ()


def test_nothing_is_written_when_an_outline_has_no_area(tmp_path: Path) -> None:
    outlines = [Outline("a", (square(1, 1),)), Outline("flat", (np.array([[0, 0], [5, 0], [9, 0]], float),))]
    with pytest.raises(OutlineError, match="outline flat: it encloses no area"):
        write(tmp_path / "x.geojson", outlines)
    assert list(tmp_path.iterdir()) == []


RINGS = {
    "hole": [square(0, 0, 20), square(5, 5, 5)],
    "island in a hole": [square(0, 0, 30), square(5, 5, 20), square(10, 10, 10)],
    "hole in an island in a hole": [square(0, 0, 40), square(5, 5, 30), square(10, 10, 20), square(15, 15, 5)],
    "two parts": [square(0, 0), square(20, 0)],
    "parts that touch in a corner": [square(0, 0), square(10, 10)],
    "hole that touches the shell in a corner": [square(0, 0, 20), square(0, 0, 5) @ np.array([[1, 0], [0.5, 1]])],
    "parts that share an edge": [square(0, 0), square(10, 0)],
    "bow-tie": [np.array([[0, 0], [10, 10], [10, 0], [0, 10]], float)],
    "ring that touches itself": [np.array([[0, 0], [10, 0], [10, 10], [5, 0], [0, 10]], float)],
    "pentagram": [np.array([[20, 0], [32, 38], [0, 14], [40, 14], [8, 38]], float)],
    "rings that cross": [square(0, 0, 20), square(10, 10, 20)],
    "touches itself once rounded": [np.array([[0, 0], [10, 0], [10, 10], [5, 0.001], [0, 10]], float)],
    "fractions": [square(0.333333, 0.666666, 9.1234567)],
}


@pytest.mark.parametrize("name", RINGS)
def test_rings_become_valid_polygons_over_the_same_pixels(name: str) -> None:
    geometry = geometry_of_rings(RINGS[name])
    shape = shapely.geometry.shape(geometry)
    assert shape.is_valid
    polygons = geometry["coordinates"] if geometry["type"] == "MultiPolygon" else [geometry["coordinates"]]
    rings = tuple(np.array(ring[:-1], float) for polygon in polygons for ring in polygon)
    assert pixels(Outline("", rings)) == pixels(Outline("", tuple(RINGS[name])))
    assert all(round(value, 2) == value for ring in rings for value in ring.ravel().tolist())


def test_an_island_in_a_hole_is_a_polygon_of_its_own() -> None:
    geometry = geometry_of_rings(RINGS["hole in an island in a hole"])
    assert geometry["type"] == "MultiPolygon"
    assert sorted(len(polygon) for polygon in geometry["coordinates"]) == [2, 2]
    assert shapely.geometry.shape(geometry).area == 40**2 - 30**2 + 20**2 - 5**2


@settings(max_examples=60, deadline=None)
@given(mask_hw=arrays(np.uint8, (7, 7), elements=st.integers(0, 1)))
def test_any_mask_comes_back_pixel_by_pixel(tmp_path_factory: pytest.TempPathFactory, mask_hw: np.ndarray) -> None:
    mask_hw[3, 3] = 1
    outline = Outline("1", mask=CellMask(mask_hw, 11, 5))
    path = tmp_path_factory.getbasetemp() / "mask.geojson"
    (feature,) = write(path, [outline])
    assert shapely.geometry.shape(feature["geometry"]).is_valid
    (again,) = read_geojson(path).outlines
    assert pixels(again) == pixels(outline)


def test_other_readers_understand_the_file(tmp_path: Path) -> None:
    outlines = [Outline(name, tuple(rings)) for name, rings in RINGS.items()]
    path = tmp_path / "x.geojson"
    write(path, outlines, **{"Perikarya: p(µ)": 0.5})
    frame = geopandas.read_file(path)
    assert len(frame) == len(RINGS)
    assert frame.geometry.is_valid.all()
    assert frame["name"].tolist() == list(RINGS)
    geojson = pytest.importorskip("geojson", reason="the geojson package is not installed")
    content = geojson.loads(path.read_text())
    assert content.is_valid
    assert [shapely.geometry.shape(f.geometry).area for f in content.features] == shapely.area(
        frame.geometry.to_numpy()
    ).tolist()


def test_nuclei_that_were_read_instead_of_cells_are_written_as_the_cells(tmp_path: Path) -> None:
    source = read_geojson(HERE / "qupath_0_6.geojson", ReadOptions(nucleus=True))
    write(tmp_path / "x.geojson", source.outlines[1:2])
    (whole,) = read_geojson(tmp_path / "x.geojson").outlines
    assert pixels(whole) == pixels(read_geojson(HERE / "qupath_0_6.geojson").outlines[1])


def test_cells_may_come_one_by_one(tmp_path: Path) -> None:
    def cells() -> Any:
        for i in range(2000):
            yield GeoCell(Outline(str(i), (square(i, i),)), "normal", BLUE, {"p": 0.5}, str(i))

    write_geojson(tmp_path / "x.geojson", cells())
    assert len(read_geojson(tmp_path / "x.geojson").outlines) == 2000
