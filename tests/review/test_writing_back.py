"""Corrected classes go back to the objects they came from, whatever program these were drawn in, and come in again."""

from __future__ import annotations

import json
import uuid
from dataclasses import replace
from pathlib import Path

import geopandas
import pandas as pd
import pytest
import roifile
from tests.outlined import CLASSES, FIELDS, SOURCES, feature, put_images, put_json
from tests.sources import class_folders

from perikarya.data.corrections import CorrectionLog, NewEntry, present_labels
from perikarya.data.importers import import_study
from perikarya.data.importers.base import ImportOptions
from perikarya.data.store import OpenStudy
from perikarya.errors import ConfigError, DataError
from perikarya.review.writing_back import export_corrections, parse_formats

OUTLINED = ["labels", "geojson", "imagej", "coco"]


def imported(source: Path, out: Path, layout: str = "auto", **options: object) -> OpenStudy:
    return import_study(source, out, options=ImportOptions(layout=layout, classes=CLASSES, **options))  # type: ignore[arg-type]


def correct(opened: OpenStudy) -> CorrectionLog:
    """Every first cell of a field becomes pyknotic, every second is confirmed, and Bob says so."""
    log = CorrectionLog(opened.root)
    for row, (_, cell) in enumerate(opened.cells.iterrows()):
        if row % 3 < 2:
            new = "pyknotic" if row % 3 == 0 else cell["label"]
            log.append([NewEntry(str(uuid.uuid4()), "label", cell["cell_id"], cell["label"], new)], by="Bob")
    return log


def with_images(folder: Path, study: Path) -> Path:
    for image in sorted((study / "fields").rglob("*.png")):
        if not image.stem.endswith("_labels"):
            (folder / image.relative_to(study / "fields")).write_bytes(image.read_bytes())
    return folder


@pytest.mark.parametrize("kind", ["geojson", "roi"])
@pytest.mark.parametrize("layout", OUTLINED)
def test_what_is_exported_is_imported_again_with_the_same_cells_and_labels(
    tmp_path: Path, layout: str, kind: str
) -> None:
    opened = imported(SOURCES[layout](tmp_path / "source"), tmp_path / "study", layout)
    entries = correct(opened).read()
    expected, _ = present_labels(opened.cells, entries)
    exported = export_corrections(opened, entries, tmp_path / "out", formats=parse_formats([kind]))
    assert (exported.n_images, exported.n_cells) == (2, 6)
    assert all(path.is_file() for path in exported.files)
    folder = with_images(tmp_path / "out" / "fields", opened.root)
    again = imported(folder, tmp_path / "again", {"roi": "imagej", "geojson": "geojson"}[kind])
    joined = opened.cells.assign(label=expected).merge(again.cells, on="cell_id", suffixes=("", "_again"))
    assert len(joined) == len(again.cells) == 6
    assert (joined["label"] == joined["label_again"]).all()
    assert (joined["image_id"] == joined["image_id_again"]).all()
    assert not any("predict" in note for note in again.study.provenance["notes"])


def test_objects_of_qupath_keep_all_but_their_class(tmp_path: Path) -> None:
    source = put_images(tmp_path / "source")
    mine = feature(0)
    mine["properties"] |= {"name": "my cell", "measurements": {"Circularity": 0.5}, "metadata": {"note": "odd"}}
    whole = {"type": "Polygon", "coordinates": [[[0, 0], [48, 0], [48, 40], [0, 40], [0, 0]]]}
    region = feature(2, geometry=whole)
    region["properties"] = {"objectType": "annotation", "classification": {"name": "CA1", "color": [1, 2, 3]}}
    for name in FIELDS:
        put_json(source / f"{name}.geojson", {"type": "FeatureCollection", "features": [mine, feature(1), region]})
    opened = imported(source, tmp_path / "study")
    assert opened.cells["region"].tolist() == ["CA1"] * 4
    cell = opened.cells.iloc[0]
    log = CorrectionLog(opened.root)
    entry = log.append([NewEntry(str(uuid.uuid4()), "label", cell["cell_id"], "normal", "pyknotic")], by="Bob")[0]
    export_corrections(opened, log.read(), tmp_path / "out", formats=["geojson"])
    told = json.loads((tmp_path / "out" / "fields" / "f0.geojson").read_text())["features"]
    by_id = {one["id"]: one for one in told}
    assert set(by_id) == {mine["id"], feature(1)["id"], region["id"]}
    changed = by_id[mine["id"]]
    assert changed["geometry"] == mine["geometry"]
    properties = changed["properties"]
    assert properties["name"] == "my cell"
    assert properties["classification"]["name"] == "pyknotic"
    assert properties["measurements"] == {"Circularity": 0.5, "Perikarya: reviewed": 1.0}
    assert properties["metadata"] == {
        "note": "odd",
        "Perikarya: previous class": "normal",
        "Perikarya: reviewed by": "Bob",
        "Perikarya: reviewed at": entry.at,
    }
    untouched = by_id[feature(1)["id"]]["properties"]
    assert untouched["classification"]["name"] == "intermediate"
    assert "metadata" not in untouched
    assert by_id[region["id"]]["properties"]["classification"]["name"] == "CA1"


def test_geopandas_and_roifile_open_what_is_written(tmp_path: Path) -> None:
    opened = imported(SOURCES["labels"](tmp_path / "source"), tmp_path / "study")
    export_corrections(opened, correct(opened).read(), tmp_path / "out")
    frame = geopandas.read_file(tmp_path / "out" / "fields" / "f0.geojson").set_crs(None, allow_override=True)
    assert len(frame) == 3
    assert frame.is_valid.all()
    assert frame.area.to_numpy() == pytest.approx(opened.cells["area_px"].iloc[:3].to_numpy())
    rois = roifile.roiread(tmp_path / "out" / "fields" / "f0.rois.zip")
    assert [roi.name for roi in rois] == ["1", "2", "3"]
    assert [dict(line.split(": ") for line in roi.props.splitlines())["class"] for roi in rois] == [
        "pyknotic", "intermediate", "pyknotic",
    ]  # fmt: skip
    assert ["reviewed\\ by: Bob" in roi.props for roi in rois] == [True, True, False]
    assert len({roi.stroke_color for roi in rois}) == 2


def test_a_prediction_that_nobody_looked_at_stays_a_prediction(tmp_path: Path) -> None:
    source = put_images(tmp_path / "source")
    predicted = feature(0), feature(1)
    for one in predicted:
        one["properties"]["metadata"] = {"Perikarya: class": one["properties"]["classification"]["name"]}
    for name in FIELDS:
        put_json(source / f"{name}.geojson", {"type": "FeatureCollection", "features": [*predicted]})
    opened = imported(source, tmp_path / "study")
    log = CorrectionLog(opened.root)
    log.append([NewEntry(str(uuid.uuid4()), "label", opened.cells["cell_id"].iloc[0], "normal", "normal")], by="Bob")
    export_corrections(opened, log.read(), tmp_path / "out", formats=["geojson"])
    again = imported(with_images(tmp_path / "out" / "fields", opened.root), tmp_path / "again")
    assert any("3 cells have a class that 'perikarya predict' wrote" in n for n in again.study.provenance["notes"])


def test_the_table_lists_what_people_said(tmp_path: Path) -> None:
    opened = imported(SOURCES["geojson"](tmp_path / "source"), tmp_path / "study")
    export_corrections(opened, correct(opened).read(), tmp_path / "out")
    table = pd.read_csv(tmp_path / "out" / "corrections.csv", dtype="string")
    assert table["from"].tolist() == ["normal", "intermediate"] * 2
    assert table["to"].tolist() == ["pyknotic", "intermediate"] * 2
    assert set(table["by"]) == {"Bob"}


def test_subjects_regions_and_groups_go_along(tmp_path: Path) -> None:
    source = SOURCES["labels"](tmp_path / "source")
    metadata = tmp_path / "m.csv"
    metadata.write_text("file,subject,region,group\nf0.png,m1,CA1,sham\nf1.png,m2,CA1,stroke\n")
    opened = imported(source, tmp_path / "study", metadata=metadata)
    export_corrections(opened, [], tmp_path / "out", formats=["geojson"])
    again = imported(with_images(tmp_path / "out" / "fields", opened.root), tmp_path / "again")
    columns = ["cell_id", "label", "subject", "region", "group", "image_id"]
    pd.testing.assert_frame_equal(
        opened.cells[columns].sort_values("cell_id", ignore_index=True),
        again.cells[columns].sort_values("cell_id", ignore_index=True),
    )


def test_the_external_set_has_a_folder_of_its_own(tmp_path: Path) -> None:
    source, external = (SOURCES["geojson"](tmp_path / name) for name in ("source", "external"))
    pixels = [(external / f"{name}.png").read_bytes() for name in FIELDS]
    for name, other in zip(FIELDS, reversed(pixels), strict=True):  # other pictures under the same names
        (external / f"{name}.png").write_bytes(other)
    opened = imported(source, tmp_path / "study", external=external)
    exported = export_corrections(opened, [], tmp_path / "out", formats=["roi"])
    names = ("f0.rois.zip", "f1.rois.zip", "metadata.csv")
    assert {path.relative_to(tmp_path / "out").as_posix() for path in exported.files} == {
        "corrections.csv",
        *(f"fields/{name}" for name in names),
        *(f"fields-external/{name}" for name in names),
    }
    assert exported.n_cells == len(opened.cells) == 12


def test_cells_that_a_table_calls_external_come_back_as_such(tmp_path: Path) -> None:
    source = SOURCES["labels"](tmp_path / "source")
    rows = (source / "cells.csv").read_text().splitlines()
    sets = ["set", *(["development"] * 2 + ["external"]), *(["external"] * 3)]
    (source / "cells.csv").write_text("".join(f"{row},{of}\n" for row, of in zip(rows, sets, strict=True)))
    opened = imported(source, tmp_path / "study")
    exported = export_corrections(opened, [], tmp_path / "out", formats=["geojson"])
    places = [path.relative_to(tmp_path / "out").as_posix() for path in exported.files]
    assert "fields/f0.geojson" in places
    assert "fields-external/f1.geojson" in places
    assert exported.notes == ("1 image(s) hold cells of both sets; imported again, all of them are development.",)


def test_images_that_differ_only_in_their_suffix_keep_it(tmp_path: Path) -> None:
    source = put_images(tmp_path / "source")
    (source / "f1.png").rename(source / "f0.tif.png")
    (source / "f0.tif.png").rename(source / "f0.bmp")
    for name in ("f0.png", "f0.bmp"):
        put_json(source / f"{name}.geojson", {"type": "FeatureCollection", "features": [feature(0)]})
    opened = imported(source, tmp_path / "study", "geojson")
    exported = export_corrections(opened, [], tmp_path / "out", formats=["geojson"])
    assert {path.name for path in exported.files} >= {"f0.png.geojson", "f0.bmp.geojson"}


def test_a_study_of_single_pictures_has_nothing_to_write_back_to(tmp_path: Path) -> None:
    opened = import_study(class_folders(tmp_path / "source"), tmp_path / "study")
    exported = export_corrections(opened, [], tmp_path / "out")
    assert [path.name for path in exported.files] == ["corrections.csv"]
    assert "nothing to write back to" in exported.notes[0]


def test_outlines_that_changed_since_are_refused(tmp_path: Path) -> None:
    opened = imported(SOURCES["geojson"](tmp_path / "source"), tmp_path / "study")
    kept = opened.root / "fields" / "f1.geojson"
    put_json(kept, {"type": "FeatureCollection", "features": [feature(0)]})
    with pytest.raises(DataError, match="has no outline '00000000-0000-4000-8000-000000000001', and 1 more"):
        export_corrections(opened, [], tmp_path / "out")
    kept.unlink()
    with pytest.raises(DataError, match=r"does not hold the outlines of f1\.png any more"):
        export_corrections(opened, [], tmp_path / "out")
    kept.write_text("{")
    with pytest.raises(DataError, match=r"f1\.geojson"):
        export_corrections(opened, [], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_nothing_outside_of_the_study_is_read(tmp_path: Path) -> None:
    opened = imported(SOURCES["geojson"](tmp_path / "source"), tmp_path / "study")
    for name in ("../../source/f0.png", "/etc/passwd", "", "a\x00b", "x" * 300):
        cells = opened.cells.assign(source=[source.replace("f0.png", name) for source in opened.cells["source"]])
        with pytest.raises(DataError, match="are from an image that cannot lie in it"):
            export_corrections(OpenStudy(opened.root, opened.study, cells, opened.crops), [], tmp_path / "out")
    kept = opened.root / "fields" / "f0.geojson"
    kept.unlink()
    kept.symlink_to(tmp_path / "source" / "f0.geojson")
    with pytest.raises(DataError, match=r"does not hold the outlines of f0\.png"):
        export_corrections(opened, [], tmp_path / "out")


def test_an_export_replaces_nothing(tmp_path: Path) -> None:
    opened = imported(SOURCES["geojson"](tmp_path / "source"), tmp_path / "study")
    (tmp_path / "out").mkdir()
    with pytest.raises(DataError, match="exists already"):
        export_corrections(opened, [], tmp_path / "out")


@pytest.mark.parametrize("names", [[], ["geojson", "svg"]])
def test_formats_have_names(names: list[str]) -> None:
    with pytest.raises(ConfigError, match="known are geojson, roi"):
        parse_formats(names)


def test_real_cells_survive_the_round_trip(rbc: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    smears = sorted((rbc / "fields").glob("*.jpg"))[:2]
    rows = (rbc / "fields" / "cells.csv").read_text().splitlines()
    names = [path.name for path in smears]
    (source / "cells.csv").write_text("\n".join([rows[0], *(r for r in rows[1:] if r.split(",")[0] in names)]) + "\n")
    for path in smears:
        for file in (path, path.with_name(f"{path.stem}_labels.tif")):
            (source / file.name).write_bytes(file.read_bytes())
    opened = import_study(source, tmp_path / "study")
    cell = opened.cells.iloc[4]
    new = next(name for name in opened.study.class_names if name != cell["label"])
    log = CorrectionLog(opened.root)
    log.append([NewEntry(str(uuid.uuid4()), "label", cell["cell_id"], cell["label"], new)], by="Bob")
    expected, _ = present_labels(opened.cells, log.read())
    export_corrections(opened, log.read(), tmp_path / "out")
    for path in smears:
        (tmp_path / "out" / "fields" / path.name).write_bytes(path.read_bytes())
    for layout in ("geojson", "imagej"):
        again = import_study(tmp_path / "out" / "fields", tmp_path / layout, options=ImportOptions(layout=layout))
        labels = again.cells.set_index("cell_id")["label"]
        assert len(labels) == len(opened.cells)
        assert (labels.loc[opened.cells["cell_id"]].to_numpy() == expected.to_numpy()).all()


@pytest.mark.parametrize(
    ("layout", "why"), [("folders", "holds single pictures of cells"), ("mine", "layout 'mine' cannot be written")]
)
def test_where_there_is_nothing_to_write_back_to_it_is_said_why(tmp_path: Path, layout: str, why: str) -> None:
    opened = imported(SOURCES["labels"](tmp_path / "source"), tmp_path / "study")
    study = opened.study.model_copy(update={"provenance": {"layout": layout}})
    exported = export_corrections(replace(opened, study=study), [], tmp_path / "out")
    assert why in exported.notes[0]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["corrections.csv"]
