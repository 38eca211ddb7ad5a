from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from tests.sources import picture, write

from perikarya.data.importers import import_study, recognise
from perikarya.data.importers.base import ImportOptions
from perikarya.data.outlines import ReadOptions
from perikarya.data.outlines.geojson import GeoCell, write_geojson
from perikarya.data.outlines.labels import read_labels
from perikarya.data.store import OpenStudy
from perikarya.errors import DataError, ImportRefusedError

HW = (120, 160)


def box(x: float, y: float, side: float, **properties: Any) -> dict[str, Any]:
    """A square object."""
    ring = [[x, y], [x + side, y], [x + side, y + side], [x, y + side], [x, y]]
    return {"type": "Feature", "geometry": {"type": "Polygon", "coordinates": [ring]}, "properties": properties}


def cells(classes: str = "normal pyknotic normal") -> list[dict[str, Any]]:
    """Three detections, the first two of them in CA1, and CA1."""
    of = classes.split()
    return [
        box(5, 5, 80, objectType="annotation", name="CA1") | {"id": "ca1"},
        *(
            box(x, 30, 12 + i, objectType="detection", classification={"name": of[i], "color": [i, 0, 0]})
            | {"id": f"cell-{i}"}
            for i, x in enumerate((20, 60, 120))
        ),
    ]


def save(path: Path, features: Any) -> None:
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Two images with three cells each."""
    root = tmp_path / "src"
    for i in range(2):
        write(root / f"sheep0{i}_f{i}.png", picture(i, HW))
        save(root / f"sheep0{i}_f{i}.geojson", cells())
    return root


def do_import(source: Path, out: str = "study", **options: Any) -> OpenStudy:
    return import_study(source, source.parent / out, options=ImportOptions(**{"window": 40} | options))


def test_a_folder_of_images_and_geojson_is_recognised(source: Path) -> None:
    assert recognise(source) == "geojson"
    for path in source.glob("*.geojson"):
        path.rename(path.with_suffix(".json"))
    assert recognise(source) == "geojson"


def test_objects_become_cells_of_their_class_and_region(source: Path) -> None:
    opened = do_import(source)
    assert opened.study.class_names == ("normal", "pyknotic")
    assert opened.study.regions == ("CA1",)
    assert opened.cells["label"].tolist() == ["normal", "pyknotic", "normal"] * 2
    assert opened.cells["region"].fillna("-").tolist() == ["CA1", "CA1", "-"] * 2
    assert opened.cells["image_id"].tolist() == ["sheep00_f0"] * 3 + ["sheep01_f1"] * 3
    assert opened.cells["area_px"].tolist() == [144, 169, 196] * 2
    assert opened.cells["source"][1] == "sheep00_f0.png#cell-1"
    expected = picture(0, HW)[30:42, 20:32]
    crop = np.asarray(opened.crops[0])
    assert (crop[..., :3][crop[..., 3] > 0].reshape(expected.shape) == expected).all()


def test_what_a_study_keeps_gives_the_same_cells_again(source: Path) -> None:
    first = do_import(source)
    again = do_import(first.root / "fields", "again")
    assert again.cells["cell_id"].tolist() == first.cells["cell_id"].tolist()
    assert (np.asarray(again.crops) == np.asarray(first.crops)).all()


def test_identity_survives_being_classified_and_written_back(source: Path) -> None:
    from perikarya.data.outlines.geojson import read_geojson

    first = do_import(source)
    for path in source.glob("*.geojson"):
        file = read_geojson(path)
        write_geojson(
            path,
            [GeoCell(o, "other", "#123456", {"Perikarya: p(other)": 1.0}, o.key) for o in file.outlines[1:]],
            regions=file.outlines[:1],
        )
    again = do_import(source, "again")
    assert again.cells["cell_id"].tolist() == first.cells["cell_id"].tolist()
    assert again.cells["source"].tolist() == first.cells["source"].tolist()
    assert again.cells["region"].equals(first.cells["region"])
    assert again.study.class_names == ("other",)


def test_options_say_what_classes_regions_and_outlines_mean(source: Path) -> None:
    nucleus = box(22, 32, 4)["geometry"]
    for path in source.glob("*.geojson"):
        features = cells("g1 g3 tissue")
        features[1] |= {"nucleusGeometry": nucleus}
        save(path, features)
    opened = do_import(
        source, class_map="g1=normal,colour:#010000=pyknotic", regions=("CA1", "tissue"), nucleus=True, skip_bad=True
    )
    assert opened.cells["label"].tolist() == ["normal", "pyknotic"] * 2
    assert opened.cells["area_px"].tolist() == [16, 169] * 2
    assert opened.study.regions == ("CA1",)  # no cell lies in tissue


def test_subjects_come_from_a_table_or_from_names(source: Path) -> None:
    opened = do_import(source, name_pattern=r"(?P<subject>sheep\d+)_")
    assert opened.cells["subject"].tolist() == ["sheep00"] * 3 + ["sheep01"] * 3
    table = pd.DataFrame({"file": ["sheep00_f0.png", "sheep01_f1.png"], "animal": ["A", "B"], "group": ["sham", "HI"]})
    table.to_csv(source.parent / "table.csv", index=False)
    opened = do_import(source, "again", metadata=source.parent / "table.csv")
    assert opened.cells["subject"].tolist() == ["A"] * 3 + ["B"] * 3
    assert opened.cells["group"].tolist() == ["sham"] * 3 + ["HI"] * 3


def bare_points(features: list[Any]) -> None:
    features[1]["geometry"] = {"type": "Point", "coordinates": [3, 4]}


def beside_the_image(features: list[Any]) -> None:
    for point in features[1]["geometry"]["coordinates"][0]:
        point[0] += 1000


def a_line(features: list[Any]) -> None:
    for point in features[1]["geometry"]["coordinates"][0]:
        point[1] = 30


def twice_the_same_cell(features: list[Any]) -> None:
    features.append(features[1] | {"id": "again"})


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (bare_points, "cell-0: it is a point"),
        (beside_the_image, "cell-0: it lies outside of the image of 160 x 120 px"),
        (a_line, "cell-0: it encloses no area"),
        (twice_the_same_cell, "again: has the same outline as cell-0"),
    ],
)
def test_an_object_that_is_no_cell_is_named_and_the_rest_can_be_imported(
    source: Path, change: Any, reason: str
) -> None:
    features = cells()
    change(features)
    save(source / "sheep01_f1.geojson", features)
    with pytest.raises(ImportRefusedError, match=reason):
        do_import(source)
    assert not (source.parent / "study").exists()
    assert len(do_import(source, skip_bad=True).cells) >= 5


def test_a_file_that_is_no_geojson_is_named_and_nothing_is_written(source: Path) -> None:
    (source / "sheep01_f1.geojson").write_text('{"features": [')
    with pytest.raises(ImportRefusedError, match=r"sheep01_f1\.geojson: the file is truncated"):
        do_import(source)
    assert [path.name for path in source.parent.iterdir()] == ["src"]


def test_geojson_without_an_image_is_named(source: Path) -> None:
    (source / "sheep01_f1.png").unlink()
    with pytest.raises(ImportRefusedError, match=r"sheep01_f1\.geojson: has no image beside it"):
        do_import(source)


def test_a_folder_without_any_object_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "src" / "a.png", picture(0, HW))
    save(tmp_path / "src" / "a.geojson", [])
    with pytest.raises(DataError, match=r"[Nn]o cell"):
        do_import(tmp_path / "src")


def test_real_fields_give_the_same_cells_as_their_label_maps(rbc: Path, tmp_path: Path) -> None:
    for layout in ("labels", "geojson"):
        (tmp_path / layout).mkdir()
    for name in ("smear028", "smear031"):
        for layout in ("labels", "geojson"):
            (tmp_path / layout / f"{name}.jpg").write_bytes((rbc / "fields" / f"{name}.jpg").read_bytes())
        labels = tmp_path / "labels" / f"{name}_labels.tif"
        labels.write_bytes((rbc / "fields" / labels.name).read_bytes())
        outlines = read_labels(rbc / "fields" / labels.name, ReadOptions()).outlines
        cells = [GeoCell(o, o.label, "#0072B2", {}, f"{name}#{o.key}") for o in outlines]
        write_geojson(tmp_path / "geojson" / f"{name}.geojson", cells)
    table = pd.read_csv(rbc / "fields" / "cells.csv")
    table[table["image"].isin(["smear028.jpg", "smear031.jpg"])].to_csv(tmp_path / "labels" / "cells.csv", index=False)
    from_labels, from_geojson = do_import(tmp_path / "labels", "a"), do_import(tmp_path / "geojson", "b")
    assert from_geojson.cells["cell_id"].tolist() == from_labels.cells["cell_id"].tolist()
    assert from_geojson.cells["label"].tolist() == from_labels.cells["label"].tolist()
    assert (np.asarray(from_geojson.crops) == np.asarray(from_labels.crops)).all()
