from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from tests.sources import class_folders, picture, write

from perikarya.data.importers import IMPORTERS, import_study, recognise
from perikarya.data.importers import fields as engine
from perikarya.data.importers import write as writing
from perikarya.data.importers.base import CutSettings, ImportOptions, cell_digest, pixel_sha256
from perikarya.data.importers.fields import OutlinedField, safe_key, scan_fields
from perikarya.data.outlines.base import CellMask, Outline, OutlineError, OutlineFile
from perikarya.errors import DataError, ImportRefusedError

HW = (120, 160)


def square(key: str, x: float, y: float, side: float = 10, **more: object) -> Outline:
    ring = np.array([(x, y), (x + side, y), (x + side, y + side), (x, y + side)], float)
    return Outline(key, (ring,), **{"label": "normal", **more})


def region(key: str, x: float, y: float, side: float, label: str | None = None) -> Outline:
    return square(key, x, y, side, label=label or key, kind="region")


def scan(root: Path, outlines: Sequence[Outline], *, words: dict | None = None, **options: object) -> engine.Scan:
    """Scan one field, f.png, with the given outlines on it."""
    if not (root / "f.png").exists():
        write(root / "f.png", picture(0, HW))
    outlined = OutlinedField("f.png", lambda: OutlineFile(tuple(outlines)), (), words or {})
    return scan_fields(root, [outlined], set_name="development", options=ImportOptions(**options))


def feature(x: float, y: float, side: float = 10, label: str = "normal", *, key: str | None = None, **properties):
    ring = [[x, y], [x + side, y], [x + side, y + side], [x, y + side], [x, y]]
    properties = {"objectType": "detection", "classification": {"name": label}, **properties}
    geometry = {"type": "Polygon", "coordinates": [ring]}
    found = {"type": "Feature", "geometry": geometry, "properties": properties}
    return found if key is None else {**found, "id": key}


def geojson(path: Path, *features: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Two fields with two cells each."""
    root = tmp_path / "src"
    for f, name in enumerate(("a", "sub/b")):
        write(root / f"{name}.png", picture(f, HW))
        geojson(root / f"{name}.geojson", feature(20, 30), feature(70, 60, 12, "pyknotic"))
    return root


def do_import(source: Path, **options: object):
    return import_study(source, source.parent / "study", options=ImportOptions(window=40, **options))


def test_a_cell_is_what_its_outline_encloses(tmp_path: Path) -> None:
    (cell,) = scan(tmp_path, [square("7", 20.2, 30.7, 10)], words={"subject": "S1"}).cells
    assert (cell.source, cell.label, cell.subject, cell.image_id) == ("f.png#7", "normal", "S1", "f")
    assert cell.bbox_xywh == (20, 31, 10, 10)
    assert (cell.x_px, cell.y_px, cell.area_px) == (24.5, 35.5, 100)  # the first pixel's centre is (0, 0)
    assert cell.image_hw == HW
    assert cell.image_sha256 == pixel_sha256(picture(0, HW))
    assert cell.digest == cell_digest(cell.image_sha256, np.ones((10, 10), np.uint8), offset_xy=(20, 31))


def test_windows_show_the_pixels_around_each_outline(tmp_path: Path) -> None:
    scanned = scan(tmp_path, [square("1", 20, 30), square("2", 0, 0, 8), square("3", 150, 112)])
    crops = list(scanned.cut(scanned.cells, CutSettings(window_px=40)))
    assert len(crops) == 3
    np.testing.assert_array_equal(crops[0][..., :3], picture(0, HW)[15:55, 5:45])
    for cell, crop in zip(scanned.cells, crops, strict=True):
        assert (crop[..., 3] > 0).sum() == cell.area_px
    np.testing.assert_array_equal(crops[2][16:24, 15:25, :3], picture(0, HW)[112:120, 150:160])


def test_a_subset_of_the_cells_can_be_cut(tmp_path: Path) -> None:
    scanned = scan(tmp_path, [square(str(i), 10 * i, 20) for i in range(8)])
    some = [scanned.cells[i] for i in (1, 5, 6)]
    every = list(scanned.cut(scanned.cells, CutSettings(window_px=24)))
    for crop, i in zip(scanned.cut(some, CutSettings(window_px=24)), (1, 5, 6), strict=True):
        np.testing.assert_array_equal(crop, every[i])


def test_cells_of_an_image_that_is_read_by_window_are_ordered_by_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outlines = [square("1", 90, 60), square("2", 20, 3), square("3", 5, 70), square("4", 60, 9)]
    in_file_order = scan(tmp_path, outlines).cells
    monkeypatch.setattr(engine, "MAX_PIXELS", HW[0] * HW[1] - 1)
    monkeypatch.setattr(engine, "_BAND_PX", 50)
    scanned = scan(tmp_path, outlines)
    assert [cell.source[-1] for cell in scanned.cells] == ["2", "4", "3", "1"]
    assert set(scanned.cells) == set(in_file_order)
    crops = list(scanned.cut(scanned.cells, CutSettings(window_px=24)))
    np.testing.assert_array_equal(crops[0][9:15, 7:17, :3], picture(0, HW)[5:11, 20:30])


def test_pixels_of_an_outline_are_as_good_as_its_boundary(tmp_path: Path) -> None:
    mask = Outline("9", mask=CellMask(np.ones((10, 10), np.uint8), 20, 31), label="normal")
    assert scan(tmp_path, [mask]).cells[0].digest == scan(tmp_path, [square("7", 20.2, 30.7)]).cells[0].digest


def test_the_smallest_region_around_the_centre_of_a_cell_names_it(tmp_path: Path) -> None:
    outlines = [
        square("in both", 22, 22),
        square("in the large one", 60, 60),
        square("in none", 130, 100),
        square("centre outside", 97, 97),  # all but: at 102
        region("small", 15, 15, 30, "CA1"),
        region("large", 0, 0, 101.8, "hippocampus"),
    ]
    for order in (outlines, outlines[::-1]):
        regions = {cell.source: cell.region for cell in scan(tmp_path, order).cells}
        assert regions == {
            "f.png#in both": "CA1",
            "f.png#in the large one": "hippocampus",
            "f.png#in none": None,
            "f.png#centre outside": None,
        }


def test_a_region_with_a_hole_does_not_hold_what_lies_in_the_hole(tmp_path: Path) -> None:
    outer, hole = region("r", 0, 0, 110).rings[0], region("h", 20, 20, 30).rings[0]
    ring = Outline("r", (outer, hole), label="CA3", kind="region")
    cells = scan(tmp_path, [square("in", 30, 30), square("out", 60, 60), ring]).cells
    assert [cell.region for cell in cells] == [None, "CA3"]


def test_the_word_of_a_table_is_worth_more_than_a_region_and_that_is_said(tmp_path: Path) -> None:
    scanned = scan(tmp_path, [square("1", 20, 20), region("r", 0, 0, 90, "CA3")], words={"region": "CA1"})
    assert [cell.region for cell in scanned.cells] == ["CA1"]
    assert any("1 cells lie inside a region of another name" in note for note in scanned.notes)
    agreeing = scan(tmp_path, [square("1", 20, 20), region("r", 0, 0, 90, "CA1")], words={"region": "CA1"})
    assert agreeing.notes == ()


def test_what_the_file_says_of_a_cell_is_taken(tmp_path: Path) -> None:
    words = {"subject": "S2", "region": "DG", "group": "sham", "set": "external"}
    (cell,) = scan(tmp_path, [square("1", 20, 20, words=words)], words={"subject": "S2"}).cells
    assert (cell.subject, cell.region, cell.group, cell.set) == ("S2", "DG", "sham", "external")


REFUSED = {
    "outside": ([square("1", 500, 20)], "f.png#1", "outside of the image"),
    "not a number": ([square("1", np.nan, 20)], "f.png#1", "not a number"),
    "twice": ([square("1", 20, 20), square("2", 20, 20, label="other")], "f.png#2", "same outline as 1; a cell counts"),
    "twice, in other words": ([square("1", 20, 20), square("2", 20.3, 20.3)], "f.png#2", "same outline as 1"),
    "two animals": ([square("1", 20, 20, words={"subject": "S2"})], "f.png#1", "subject is 'S2' but 'S1'"),
    "unknown set": ([square("1", 20, 20, words={"set": "test"})], "f.png#1", "set is 'test'"),
    "nameless region": ([Outline("r", kind="region")], "f.png#r", "the region cannot be used: it has no name"),
    "damaged region": ([square("r", np.inf, 0, kind="region")], "f.png#r", "the region cannot be used: a coordinate"),
    "a key with marks": ([square("a#1\n", 500, 20)], "f.png#a%231%0A", "outside of the image"),
}


@pytest.mark.parametrize(("outlines", "where", "reason"), REFUSED.values(), ids=REFUSED.keys())
def test_what_cannot_be_used_is_named_with_its_reason(tmp_path: Path, outlines: list, where: str, reason: str) -> None:
    ((at, why),) = scan(tmp_path, [square("ok", 100, 90), *outlines], words={"subject": "S1"}).problems
    assert at == where
    assert reason in why


def test_a_field_that_cannot_be_read_does_not_hide_the_others(tmp_path: Path) -> None:
    def damaged() -> OutlineFile:
        raise OutlineError("the file is damaged")

    write(tmp_path / "a.png", picture(0, HW))
    (tmp_path / "b.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    (tmp_path / "link.png").symlink_to("/etc/hostname")
    good = OutlineFile((square("1", 20, 20),), problems=(("2", "is a line"),), notes=("2 planes",))
    fields = [
        OutlinedField("a.png", damaged, (tmp_path / "a.geojson",)),
        OutlinedField("b.png", lambda: good, ()),
        OutlinedField("link.png", lambda: good, ()),
        OutlinedField("a.png", lambda: good, ()),
        OutlinedField("a.png", lambda: OutlineFile((), image_hw=(5, 5)), ()),
    ]
    scanned = scan_fields(tmp_path, fields, set_name="development", options=ImportOptions())
    assert len(scanned.cells) == 1
    problems = dict(scanned.problems)
    assert problems["a.geojson"] == "the file is damaged"
    assert "PNG" in problems["b.png"]
    assert "leaves the folder" in problems["link.png"]
    assert problems["a.png#2"] == "is a line"
    assert "image of 5 x 5 px but the image is 160 x 120 px" in problems["a.png"]
    assert scanned.notes == ("a.png: 2 planes",)


def test_keys_are_safe_and_stay_different() -> None:
    assert safe_key("0001-0002 (Ä)") == "0001-0002 (Ä)"
    keys = ["a#1", "a%231", "a\n", "a\r", "x" * 500, "x" * 501, "\ud800"]
    safe = [safe_key(key) for key in keys]
    assert len(set(safe)) == len(keys)
    assert all(len(key) <= 200 and "#" not in key and key.isprintable() for key in safe)


CHANGES = {
    "a cell moves": lambda s: geojson(s / "a.geojson", feature(21, 30), feature(70, 60, 12, "pyknotic")),
    "a cell vanishes": lambda s: geojson(s / "a.geojson", feature(20, 30)),
    "other pixels": lambda s: write(s / "a.png", picture(99, HW)),
    "outlines are damaged": lambda s: (s / "a.geojson").write_text("{"),
    "the image is gone": lambda s: (s / "a.png").unlink(),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_a_source_that_changes_during_the_import_is_noticed(
    source: Path, change: Callable[[Path], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    def change_then_write(*args: object, **kwargs: object) -> list[str]:
        change(source)
        return original(*args, **kwargs)

    original = writing._write_crops
    monkeypatch.setattr(writing, "_write_crops", change_then_write)
    with pytest.raises(DataError, match=r"a\.png or its outlines changed during the import"):
        do_import(source)
    assert not (source.parent / "study").exists()


def test_a_folder_of_fields_is_imported_and_what_is_kept_can_be_imported_again(source: Path, tmp_path: Path) -> None:
    (source / "metadata.csv").write_text("file,subject,region,group\na.png,S1,CA1,sham\nb,S2,CA3,ischemia\n")
    first = do_import(source)
    assert first.cells["source"].str.partition("#")[0].tolist() == ["a.png"] * 2 + ["sub/b.png"] * 2
    assert first.cells["label"].tolist() == ["normal", "pyknotic"] * 2
    assert first.cells["subject"].tolist() == ["S1", "S1", "S2", "S2"]
    assert first.cells["image_id"].tolist() == ["a", "a", "b", "b"]
    again = import_study(first.root / "fields", tmp_path / "again", options=ImportOptions(window=40))
    pd.testing.assert_frame_equal(again.cells, first.cells)
    np.testing.assert_array_equal(np.asarray(again.crops), np.asarray(first.crops))


def test_a_large_image_is_named_instead_of_copied(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limit = (source / "a.png").stat().st_size
    monkeypatch.setattr(engine, "MAX_KEPT_BYTES", limit)
    with (source / "sub/b.png").open("ab") as handle:
        handle.write(b"\x00" * limit)
    opened = do_import(source)
    kept = {path.name for path in (opened.root / "fields").rglob("*") if path.is_file()}
    assert kept == {"a.png", "a.geojson", "b.geojson"}
    assert any("not copied" in note and "sub/b.png" in note for note in opened.study.provenance["notes"])


def test_notes_on_thousands_of_images_do_not_fill_the_description(tmp_path: Path) -> None:
    found = replace(scan(tmp_path, [square("a", 5, 5)]), notes=tuple(f"note {i}" for i in range(1000)))
    notes = writing._notes([found])
    assert len(notes) == 201
    assert notes[-1] == "800 further remarks on single images are left out here."
    assert writing._notes([replace(found, notes=("one",)), found])[0] == f"{tmp_path.name}: one"


def test_classes_that_were_predicted_are_said(tmp_path: Path) -> None:
    outlines = [square("a", 5, 5, predicted=True), square("b", 30, 5), square("c", 60, 5, predicted=True, label=None)]
    said = [note for note in scan(tmp_path, outlines).notes if "perikarya predict" in note]
    assert len(said) == 1
    assert said[0].startswith("1 cells have a class that 'perikarya predict' wrote")
    assert not any("perikarya predict" in note for note in scan(tmp_path, outlines[1:2]).notes)


def test_subjects_may_come_from_the_names_of_the_images(source: Path) -> None:
    opened = do_import(source, name_pattern=r"(?P<subject>[ab])\.png")
    assert opened.cells["subject"].tolist() == ["a", "a", "b", "b"]


@pytest.mark.parametrize(
    ("table", "options", "reason"),
    [
        ("file,subject\na.png,S1\n", {}, r"sub/b\.png: has no row"),
        ("file,class\na,normal\nb,\n", {}, r"a\.png: the metadata \(line 2\) gives the class normal to an image"),
        ("file,subject\na,S1\nb,S2\nc,S3\n", {}, r"'c' is not among the images"),
        ("file,subject\na,S1\nb,S2\n", {"name_pattern": r"(?P<subject>[ab])\.png"}, "says subject a but .* says S1"),
        (None, {"name_pattern": r"(?P<subject>a)\.png"}, r"sub/b\.png: its name does not fit"),
    ],
)
def test_words_that_are_missing_or_contradict_each_other_are_refused(
    source: Path, table: str | None, options: dict, reason: str
) -> None:
    if table is not None:
        (source / "metadata.csv").write_text(table)
    with pytest.raises(ImportRefusedError, match=reason):
        do_import(source, **options)
    assert not (source.parent / "study").exists()


def test_images_of_one_name_in_two_folders_are_told_apart(source: Path) -> None:
    write(source / "sub/a.png", picture(7, HW))
    geojson(source / "sub/a.geojson", feature(20, 30))
    assert do_import(source).cells["image_id"].tolist() == ["a.png"] * 2 + ["sub/a.png"] + ["b"] * 2


def test_outlines_without_an_image_are_refused_and_images_without_outlines_are_said(source: Path) -> None:
    write(source / "overview.png", picture(5, HW))
    geojson(source / "c.geojson", feature(20, 30))
    with pytest.raises(ImportRefusedError, match=r"c\.geojson: has no image beside it"):
        do_import(source)
    (source / "c.geojson").unlink()
    notes = do_import(source).study.provenance["notes"]
    assert "1 image(s) without outlines were left aside: overview.png." in notes


def test_links_that_leave_the_folder_are_never_followed(source: Path, tmp_path: Path) -> None:
    geojson(tmp_path / "elsewhere.geojson", feature(20, 30))
    write(source / "c.png", picture(5, HW))
    (source / "c.geojson").symlink_to(tmp_path / "elsewhere.geojson")
    with pytest.raises(ImportRefusedError, match=r"c\.geojson: is a link that leaves the folder"):
        do_import(source)
    opened = do_import(source, skip_bad=True)
    assert set(opened.cells["image_id"]) == {"a", "b"}
    assert not (opened.root / "fields" / "c.geojson").exists()


def test_a_mapping_gives_classes_and_its_idle_rules_are_said(source: Path) -> None:
    opened = do_import(source, class_map="pyknotic=damaged,swollen=damaged", regions=("CA1",))
    assert opened.cells["label"].tolist() == ["normal", "damaged"] * 2
    notes = opened.study.provenance["notes"]
    assert "Rules of --class-map that nothing fits: swollen=damaged." in notes
    assert "No outline is of a region called CA1 (--regions)." in notes


def test_a_source_of_two_sets_is_imported_as_one_study(source: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    write(other / "x.png", picture(8, HW))
    geojson(other / "x.geojson", feature(40, 40, 11))
    opened = do_import(source, external=other)
    assert opened.cells["set"].tolist() == ["development"] * 4 + ["external"]
    assert (opened.root / "fields-external" / "x.geojson").is_file()


def layouts(root: Path) -> dict[str, Path]:
    """One small source of every layout; of COCO, a folder and the file itself."""
    ring: NDArray[np.float64] = np.array([(20, 30), (30, 30), (30, 40), (20, 40)], float)
    for name in ("geojson", "imagej", "coco", "labels"):
        write(root / name / "a.png", picture(0, HW))
    class_folders(root / "folders")
    geojson(root / "geojson" / "a.geojson", feature(20, 30))
    from perikarya.data.outlines.roi import RoiCell, write_rois

    write_rois(root / "imagej" / "a.zip", [RoiCell(Outline("c1", (ring,)), "c1", "#ff0000", "normal", 1)])
    labels = np.zeros(HW, np.uint8)
    labels[30:40, 20:30] = 1
    assert cv2.imwrite(str(root / "labels" / "a_labels.png"), labels)
    (root / "labels" / "cells.csv").write_text("image,label_id,class\na.png,1,normal\n")
    coco = {
        "images": [{"id": 1, "file_name": "a.png", "width": HW[1], "height": HW[0]}],
        "categories": [{"id": 1, "name": "normal"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "segmentation": [ring.ravel().tolist()]}],
    }
    (root / "coco" / "annotations.json").write_text(json.dumps(coco))
    return {name: root / name for name in IMPORTERS.names()}


def test_every_layout_is_told_from_the_others(tmp_path: Path) -> None:
    for name, source in layouts(tmp_path).items():
        assert recognise(source) == name
    assert recognise(tmp_path / "coco" / "annotations.json") == "coco"


def test_the_same_outline_is_the_same_cell_in_every_layout_of_fields(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR)
    sources = layouts(tmp_path / "src")
    ids = {
        name: import_study(source, tmp_path / name, options=ImportOptions(window=40, class_map="c1=normal"))
        .cells["cell_id"]
        .tolist()
        for name, source in sources.items()
        if name != "folders"
    }
    assert len({tuple(found) for found in ids.values()}) == 1, ids


def test_a_source_of_several_layouts_or_none_is_refused_with_what_it_holds(tmp_path: Path) -> None:
    sources = layouts(tmp_path)
    (sources["labels"] / "a.geojson").write_text((sources["geojson"] / "a.geojson").read_text())
    with pytest.raises(DataError, match="fits several layouts: labels, geojson"):
        recognise(sources["labels"])
    (tmp_path / "none").mkdir()
    with pytest.raises(DataError, match=r"no layout that is known; it holds no files(.|\n)*coco: COCO"):
        recognise(tmp_path / "none")
    write(tmp_path / "none" / "a.png", picture(0, HW))
    (tmp_path / "none" / "notes.txt").touch()
    with pytest.raises(DataError, match=r"it holds 1 \.png, 1 \.txt files"):
        recognise(tmp_path / "none")
    with pytest.raises(DataError, match=r"it is a single \.txt file"):
        recognise(tmp_path / "none" / "notes.txt")
