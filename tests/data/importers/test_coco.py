from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.sources import picture, write

from perikarya.data.importers import import_study, recognise
from perikarya.data.importers.base import ImportOptions
from perikarya.errors import DataError, ImportRefusedError

HW = (60, 80)
SQUARES = ((10, 10), (40, 12), (20, 40))  # left upper corners of cells of 12 x 10 px


def square(x: float, y: float) -> list[float]:
    return [x, y, x + 12, y, x + 12, y + 10, x, y + 10]


def content(names: tuple[str, ...] = ("a.png", "b.png")) -> dict[str, Any]:
    """Two images with three cells each; the first category is unused, as Roboflow writes it."""
    size = {"width": HW[1], "height": HW[0]}
    return {
        "images": [{"id": i, "file_name": name, **size} for i, name in enumerate(names)],
        "categories": [{"id": i, "name": n} for i, n in enumerate(("cells", "normal", "intermediate", "pyknotic"))],
        "annotations": [
            {"id": 10 * i + k, "image_id": i, "category_id": k + 1, "segmentation": [square(*corner)], "iscrowd": 0}
            for i in range(len(names))
            for k, corner in enumerate(SQUARES)
        ],
    }


def put(path: Path, told: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(told), encoding="utf-8")
    return path


@pytest.fixture
def source(tmp_path: Path) -> Path:
    root = tmp_path / "src"
    for i, name in enumerate("ab"):
        write(root / f"{name}.png", picture(i, HW))
    put(root / "annotations.json", content())
    return root


def do_import(source: Path, **options: object):
    return import_study(source, source.parent / "study", options=ImportOptions(**{"window": 30} | options))


def test_a_folder_with_a_coco_file_is_recognised(source: Path) -> None:
    assert recognise(source) == "coco"
    assert recognise(source / "annotations.json") == "coco"


def test_every_annotation_becomes_a_cell(source: Path) -> None:
    opened = do_import(source)
    assert opened.study.class_names == ("normal", "intermediate", "pyknotic")
    assert opened.cells["source"].tolist() == [f"a.png#{k}" for k in (0, 1, 2)] + [f"b.png#{k}" for k in (10, 11, 12)]
    assert opened.cells["label"].tolist() == ["normal", "intermediate", "pyknotic"] * 2
    assert (opened.cells["area_px"] == 120).all()
    assert opened.cells["x_px"].tolist() == [x + 5.5 for x, _ in SQUARES] * 2
    mask = np.asarray(opened.crops[0, ..., 3]) > 0
    assert (np.asarray(opened.crops[0, ..., :3])[mask] == picture(0, HW)[10:20, 10:22].reshape(-1, 3)).all()


def move(source: Path, *, json_to: str, images_to: str) -> None:
    for path in list(source.glob("*.png")):
        (source / images_to).mkdir(parents=True, exist_ok=True)
        shutil.move(path, source / images_to / path.name)
    (source / json_to).parent.mkdir(parents=True, exist_ok=True)
    shutil.move(source / "annotations.json", source / json_to)


@pytest.mark.parametrize(
    ("json_to", "images_to"),
    [
        ("_annotations.coco.json", "."),  # Roboflow
        ("result.json", "images"),  # Label Studio
        ("annotations/instances_default.json", "images"),  # CVAT
        ("annotations/instances_train.json", "images/train"),  # Datumaro
        ("annotations/instances_train2017.json", "train2017"),  # COCO itself
        ("anything.json", "."),
    ],
)
def test_the_layouts_of_labelling_tools_are_found(source: Path, json_to: str, images_to: str) -> None:
    ids = do_import(source).cells["cell_id"].tolist()
    move(source, json_to=json_to, images_to=images_to)
    assert recognise(source) == "coco"
    assert do_import(source, overwrite=True).cells["cell_id"].tolist() == ids
    named = import_study(source / json_to, source.parent / "named", options=ImportOptions(window=30))
    assert named.cells["cell_id"].tolist() == ids


@pytest.mark.parametrize("written", ["images\\a.png", "..\\..\\media\\upload\\4\\a.png", "/data/local-files/a.png"])
def test_paths_of_label_studio_are_found_in_the_folder(source: Path, written: str) -> None:
    ids = do_import(source).cells["cell_id"].tolist()
    move(source, json_to="result.json", images_to="images" if written.startswith("images") else ".")
    told = content((written, "b.png"))
    put(source / "result.json", told)
    opened = do_import(source, overwrite=True)
    assert opened.cells["cell_id"].tolist() == ids


def test_what_a_study_keeps_can_be_imported_again(source: Path, tmp_path: Path) -> None:
    move(source, json_to="annotations/instances_default.json", images_to="images")
    (source / "metadata.csv").write_text("file,subject\na.png,S1\nb.png,S2\n")
    first = do_import(source)
    again = import_study(first.root / "fields", tmp_path / "again", options=ImportOptions(window=30))
    assert again.cells["cell_id"].tolist() == first.cells["cell_id"].tolist()
    assert again.cells["subject"].tolist() == ["S1"] * 3 + ["S2"] * 3


def test_classes_can_be_mapped_and_regions_hold_cells(source: Path) -> None:
    told = content()
    told["categories"].append({"id": 9, "name": "CA1"})
    told["annotations"].append(
        {"id": 99, "image_id": 0, "category_id": 9, "segmentation": [[0, 0, 80, 0, 80, 30, 0, 30]]}
    )
    put(source / "annotations.json", told)
    opened = do_import(source, class_map="intermediate=normal", regions=("CA1",))
    assert opened.study.class_names == ("normal", "pyknotic")
    assert opened.cells["region"].fillna("-").tolist() == ["CA1", "CA1", "-", "-", "-", "-"]


def test_images_without_annotations_are_left_aside(source: Path) -> None:
    told = content()
    told["annotations"] = told["annotations"][:3]
    put(source / "annotations.json", told)
    opened = do_import(source)
    assert len(opened.cells) == 3
    assert "1 of 2 images have no annotations." in opened.study.provenance["notes"]


def test_of_several_coco_files_one_must_be_named(source: Path) -> None:
    put(source / "instances_a.json", content())
    put(source / "instances_b.json", content())
    assert len(do_import(source).cells) == 6  # annotations.json goes first
    (source / "annotations.json").unlink()
    with pytest.raises(DataError, match=r"holds 2 COCO files \(instances_a\.json, instances_b\.json\)"):
        do_import(source, overwrite=True)
    assert len(do_import(source / "instances_b.json", overwrite=True).cells) == 6


@pytest.mark.parametrize(
    "text",
    ["", "{}", "[1]", '{"type": "FeatureCollection", "images": [], "annotations": []}', '{"images": []}', "\x00"],
)
def test_other_json_is_not_taken_for_coco(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(DataError, match="has no layout that is known"):
        recognise(tmp_path)
    with pytest.raises(DataError, match="holds no COCO file"):
        import_study(tmp_path, tmp_path.parent / "study", options=ImportOptions(layout="coco"))


def edit(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], object]:
    def apply(source: Path) -> None:
        told = content()
        change(told)
        put(source / "annotations.json", told)

    return apply


def name_an_image_twice(source: Path) -> None:
    move(source, json_to="annotations.json", images_to="images")
    edit(lambda told: told["images"][1].update(file_name="images/a.png"))(source)


BROKEN: dict[str, tuple[Callable[[Path], object], str, int]] = {
    "image missing": (lambda s: (s / "b.png").unlink(), r"b\.png: there is no such image .* 3 annotation\(s\)", 3),
    "image of another size": (
        lambda s: write(s / "b.png", picture(1, (40, 80))), r"80 x 60 px but the image is 80 x 40 px", 3,
    ),
    "image damaged": (lambda s: (s / "b.png").write_bytes(b"\x89PNG\r\n\x1a\n"), r"b\.png: .*PNG", 3),
    "image of another kind": (
        lambda s: (edit(lambda told: told["images"][1].update(file_name="b.txt"))(s), (s / "b.txt").touch()),
        r"b\.txt: is not a kind of image", 3,
    ),
    "image listed twice": (name_an_image_twice, r"images/a\.png: is the same image as another one", 3),
    "annotation of nowhere": (
        edit(lambda told: told["annotations"][4].update(image_id=7)), r"json#annotation 11: its image_id 7", 5,
    ),
    "outline outside": (
        edit(lambda told: told["annotations"][4].update(segmentation=[square(500, 500)])),
        r"b\.png#annotation 11: .*outside|b\.png#11: it lies outside of the image", 5,
    ),
    "outline without a pixel": (
        edit(lambda told: told["annotations"][4].update(segmentation=[[5, 5, 5.1, 5, 5.1, 5.1]])),
        r"b\.png#11: no pixel centre", 5,
    ),
    "outline given twice": (
        edit(lambda told: told["annotations"][4].update(segmentation=[square(10, 10)])),
        r"b\.png#11: has the same outline as 10", 5,
    ),
    "box only": (edit(lambda told: told["annotations"][4].update(segmentation=[])), r"annotation 11: it has no out", 5),
    "unknown class": (
        edit(lambda told: told["annotations"][4].update(category_id=0)), r"class 'cells', which --classes", 5,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_what_does_not_fit_is_refused_and_the_rest_can_be_imported(source: Path, name: str) -> None:
    break_it, reason, n_left = BROKEN[name]
    break_it(source)
    classes = ("normal", "intermediate", "pyknotic")
    with pytest.raises(ImportRefusedError, match=reason):
        do_import(source, classes=classes)
    assert not (source.parent / "study").exists()
    assert len(do_import(source, classes=classes, skip_bad=True).cells) == n_left


def test_a_file_that_cannot_be_read_is_refused_by_name(source: Path) -> None:
    path = source / "annotations.json"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ImportRefusedError, match=r"annotations\.json: the file is truncated"):
        do_import(source)


def test_the_json_is_searched_across_the_seams_of_its_pieces(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("perikarya.data.importers.coco._HEAD_BYTES", 7)
    monkeypatch.setattr("perikarya.data.importers.coco._CHUNK_BYTES", 11)
    assert recognise(source) == "coco"


def test_rules_of_a_class_map_that_nothing_fits_are_named(source: Path) -> None:
    study = do_import(source, class_map="no such class=normal").study
    assert any("no such class" in note for note in study.provenance["notes"])


def test_animals_are_read_from_the_names_of_images(source: Path) -> None:
    cells = do_import(source, name_pattern=r"(?P<subject>[ab])\.png").cells
    assert cells["subject"].tolist() == ["a"] * 3 + ["b"] * 3
