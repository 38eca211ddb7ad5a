"""What a prediction writes for QuPath, ImageJ and tables, and how the parts of many images become one table."""

from __future__ import annotations

import csv
import json
import uuid
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from tests.evaluate.quantify.whole_tables import cells_of_table, read_predictions
from tests.predict.made import CELLS, CLASSES, made_field, made_manifest

from perikarya.data.outlines import read_outlines
from perikarya.data.outlines.geojson import read_geojson
from perikarya.data.outlines.raster import mask_of
from perikarya.data.outlines.roi import read_rois
from perikarya.errors import ConfigError, DataError
from perikarya.evaluate.quantify.tables import class_names_of
from perikarya.predict.outputs import field_files, finish, parse_formats, without_own_labels, write_field
from perikarya.predict.outputs.cells import join_parts, part_path
from perikarya.predict.outputs.marks import UNSURE_COLOUR, disagreeing, unsure_name

ANIMAL = {"subject": "sheep1", "region": "CA1", "group": "sham", "set": None}


def features_of(path: Path) -> list[dict]:
    return json.loads(path.read_text())["features"]


def test_formats_are_read_and_misspelt_ones_named() -> None:
    assert parse_formats("GeoJSON, roi,roi") == ("geojson", "roi")
    with pytest.raises(ConfigError, match=r"'qupath'.*geojson, roi, overlay, csv, h5ad"):
        parse_formats("roi,qupath")
    with pytest.raises(ConfigError, match="names nothing"):
        parse_formats(" ,")


def test_a_field_gets_the_files_that_were_asked_for_and_no_others(tmp_path: Path) -> None:
    out = tmp_path / "out"
    write_field(out, made_field(tmp_path), made_manifest(), ("roi", "csv"))
    assert sorted(p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file()) == [
        "done/f1.parquet",
        "f1.rois.zip",
    ]
    assert field_files(out, "f1", ("geojson", "csv", "overlay")) == {
        "geojson": out / "f1.geojson",
        "overlay": out / "f1.overlay.png",
    }


def test_geojson_holds_classes_colours_and_probabilities(tmp_path: Path) -> None:
    write_field(tmp_path, made_field(tmp_path), made_manifest(), ("geojson",))
    features = features_of(tmp_path / "f1.geojson")
    properties = [feature["properties"] for feature in features]
    assert [p["classification"]["name"] for p in properties] == ["normal", "pyknotic", "Unsure", "normal"]
    assert properties[0]["classification"]["color"] == [0x00, 0x72, 0xB2]
    assert properties[2]["classification"]["color"] == [int(UNSURE_COLOUR[i : i + 2], 16) for i in (1, 3, 5)]
    said = properties[1]["measurements"]
    assert said["Perikarya: p(pyknotic)"] == said["Perikarya: confidence"] == pytest.approx(0.8)
    assert said["Perikarya: p(normal)"] == pytest.approx(0.1)
    assert [p["measurements"].get("Perikarya: differs from file") for p in properties] == [0, 1, None, None]
    assert len({uuid.UUID(feature["id"]) for feature in features}) == len(CELLS)


def test_outlines_written_for_qupath_and_imagej_are_the_same_pixels_as_before(tmp_path: Path) -> None:
    field = made_field(tmp_path)
    write_field(tmp_path, field, made_manifest(), ("geojson", "roi"))
    for path in (tmp_path / "f1.geojson", tmp_path / "f1.rois.zip"):
        back = read_outlines(path)
        assert not back.problems
        for before, after in zip(field.outlines, back.outlines, strict=True):
            old, new = (mask_of(o, height=120, width=160) for o in (before, after))
            assert (old.x, old.y, old.mask_hw.tolist()) == (new.x, new.y, new.mask_hw.tolist())


def test_rois_say_class_group_and_probabilities(tmp_path: Path) -> None:
    import roifile

    write_field(tmp_path, made_field(tmp_path), made_manifest(), ("roi",))
    rois = roifile.roiread(tmp_path / "f1.rois.zip")
    assert [roi.name for roi in rois] == ["key0", "key1", "key2", "key3"]
    assert [roi.stroke_color.hex() for roi in rois] == ["ff0072b2", "ffa50026", "ff9e9e9e", "ff0072b2"]
    properties = [roi.properties for roi in rois]
    assert [p["class"] for p in properties] == ["normal", "pyknotic", "Unsure", "normal"]
    assert [int(p["group"]) for p in properties] == [1, 3, 4, 1]
    assert float(properties[1]["p(pyknotic)"]) == 0.8


def test_unsure_is_never_the_name_of_a_class() -> None:
    assert unsure_name(("normal", "pyknotic")) == "Unsure"
    assert unsure_name(("normal", "unsure")) == "Below threshold"


def test_only_classes_of_the_model_can_disagree(tmp_path: Path) -> None:
    assert disagreeing(made_field(tmp_path), CLASSES) == [1]


def test_the_tables_have_one_row_per_cell_of_every_image_in_order(tmp_path: Path) -> None:
    manifest = made_manifest()
    write_field(tmp_path, made_field(tmp_path, "b", words=ANIMAL), manifest, ("csv",))
    write_field(tmp_path, made_field(tmp_path, "a", um_per_px=None), manifest, ("csv",))
    found = finish(tmp_path, ["b", "a"], manifest, ("csv",))
    assert [path.name for path in found.paths] == ["cells.parquet", "cells.csv", "summary.csv", "confusion.csv"]
    cells = pd.read_parquet(tmp_path / "cells.parquet")
    assert cells["image_id"].tolist() == ["b"] * 4 + ["a"] * 4
    assert cells["key"].tolist() == ["key0", "key1", "key2", "key3"] * 2
    assert cells["class"].tolist()[:4] == ["normal", "pyknotic", "intermediate", "normal"]
    assert cells["abstained"].tolist()[:4] == [False, False, True, False]
    assert cells["label"].fillna("-").tolist()[:4] == ["normal", "intermediate", "-", "-"]  # the model knows no glia
    assert cells["subject"].fillna("-").tolist() == ["sheep1"] * 4 + ["-"] * 4
    assert cells["area_um2"].tolist()[:4] == [50.0] * 4
    assert cells["x_um"].iloc[1] == 29.75
    assert cells[["area_um2", "x_um", "y_um"]].iloc[4:].isna().all(axis=None)
    assert np.allclose(cells[[f"prob_{c}" for c in CLASSES]].sum(axis=1), 1)


def test_csv_and_parquet_say_the_same_and_the_csv_in_short_numbers(tmp_path: Path) -> None:
    manifest = made_manifest()
    write_field(tmp_path, made_field(tmp_path, x_px=np.array([1 / 3] * 4)), manifest, ("csv",))
    finish(tmp_path, ["f1"], manifest, ("csv",))
    with (tmp_path / "cells.csv").open(newline="") as handle:
        rows = list(csv.DictReader(handle))
    cells = pd.read_parquet(tmp_path / "cells.parquet")
    assert list(rows[0]) == cells.columns.tolist()
    assert [row["x_px"] for row in rows] == ["0.33"] * 4
    assert rows[1]["prob_pyknotic"] == "0.8"
    assert [row["class"] for row in rows] == cells["class"].tolist()
    assert all(abs(float(row["confidence"]) - c) < 1e-6 for row, c in zip(rows, cells["confidence"], strict=True))


def test_quantify_reads_both_tables(tmp_path: Path) -> None:
    manifest = made_manifest()
    write_field(tmp_path, made_field(tmp_path, words=ANIMAL), manifest, ("csv",))
    finish(tmp_path, ["f1"], manifest, ("csv",))
    for name in ("cells.parquet", "cells.csv"):
        frame = read_predictions(tmp_path / name)
        assert class_names_of(frame, where=name) == CLASSES
        cells = cells_of_table(frame, CLASSES, where=name)
        assert cells.subject_n.tolist() == ["sheep1"] * 4
        assert cells.label_n.tolist() == [0, 1, -1, -1]


def test_a_resumed_prediction_joins_the_same_bytes(tmp_path: Path) -> None:
    manifest = made_manifest()
    for image_id in ("a", "b"):
        write_field(tmp_path, made_field(tmp_path, image_id), manifest, ("csv",))
    finish(tmp_path, ["a", "b"], manifest, ("csv",))
    before = {path.name: path.read_bytes() for path in tmp_path.glob("*.*")}
    write_field(tmp_path, made_field(tmp_path, "b"), manifest, ("csv",))
    finish(tmp_path, ["a", "b"], manifest, ("csv",))
    assert {path.name: path.read_bytes() for path in tmp_path.glob("*.*")} == before


def test_small_images_share_the_row_groups_of_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("perikarya.predict.outputs.cells._ROWS_PER_GROUP", 8)
    manifest = made_manifest()
    ids = [f"i{i}" for i in range(5)]
    for image_id in ids:
        write_field(tmp_path, made_field(tmp_path, image_id), manifest, ())
    join_parts(tmp_path, ids, manifest, as_csv=True)
    file = pq.ParquetFile(tmp_path / "cells.parquet")
    assert [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)] == [8, 8, 4]
    assert len(pd.read_csv(tmp_path / "cells.csv")) == 20
    assert json.loads(file.schema_arrow.metadata[b"class_names"]) == list(CLASSES)


def test_the_region_drawn_around_a_cell_comes_before_that_of_the_image_and_of_the_cell(tmp_path: Path) -> None:
    field = made_field(tmp_path, words={"region": "cortex"}, region_n=np.array(["CA1", None, None, None], dtype=object))
    told = tuple(replace(o, words={"subject": "s9", "region": "PS1"}) for o in field.outlines)
    write_field(tmp_path, replace(field, outlines=told), made_manifest(), ())
    part = pq.read_table(part_path(tmp_path, "f1"))
    assert part["region"].to_pylist() == ["CA1", "cortex", "cortex", "cortex"]
    assert part["subject"].to_pylist() == ["s9"] * 4


def test_an_image_without_cells_is_no_problem(tmp_path: Path) -> None:
    manifest = made_manifest()
    write_field(tmp_path, made_field(tmp_path, "empty", cells=()), manifest, ("geojson", "roi", "overlay", "csv"))
    write_field(tmp_path, made_field(tmp_path, "full"), manifest, ("csv",))
    found = finish(tmp_path, ["empty", "full"], manifest, ("csv",))
    assert len(pd.read_csv(tmp_path / "cells.csv")) == 4
    assert features_of(tmp_path / "empty.geojson") == []
    assert int(found.summary.of("all")[()].n_k.sum()) == 4


def test_without_any_image_no_table_is_written(tmp_path: Path) -> None:
    assert finish(tmp_path, [], made_manifest(), ("csv",)).paths == ()
    assert not list(tmp_path.iterdir())


def test_a_class_that_a_person_corrected_in_qupath_is_hers(tmp_path: Path) -> None:
    write_field(tmp_path, made_field(tmp_path), made_manifest(), ("geojson",))
    path = tmp_path / "f1.geojson"
    first, changed = '"name":"normal"', '"name":"pyknotic"'
    assert first in path.read_text(encoding="utf-8")
    path.write_text(path.read_text(encoding="utf-8").replace(first, changed, 1), encoding="utf-8")
    assert [outline.predicted for outline in read_geojson(path).outlines] == [False, True, True, True]


def test_classes_that_a_prediction_wrote_are_not_taken_for_a_persons(tmp_path: Path) -> None:
    field, manifest = made_field(tmp_path), made_manifest()
    write_field(tmp_path, field, manifest, ("geojson", "roi"))
    of_rois = read_rois(tmp_path / "f1.rois.zip").outlines
    assert [outline.predicted for outline in of_rois] == [True] * 4
    again = read_geojson(tmp_path / "f1.geojson").outlines
    second = replace(field, outlines=again, label_n=np.array([o.label for o in again], dtype=object))
    assert second.label_n.tolist() == ["normal", "pyknotic", "Unsure", "normal"]
    assert without_own_labels(second).label_n.tolist() == [None] * 4
    assert without_own_labels(field) is field
    write_field(tmp_path, second, manifest, ())
    assert finish(tmp_path, ["f1"], manifest, ()).summary.n_labelled == 0


def test_an_image_that_has_gone_meanwhile_leaves_no_part_behind(tmp_path: Path) -> None:
    field = made_field(tmp_path)
    field.item.image.unlink()
    with pytest.raises(DataError, match="does not exist"):
        write_field(tmp_path / "out", field, made_manifest(), ("overlay",))
    assert not list((tmp_path / "out").rglob("*.p*"))
