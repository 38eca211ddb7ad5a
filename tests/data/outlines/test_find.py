from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import tifffile

from perikarya.data.outlines import OutlineError, find_outlines, read_outlines
from perikarya.data.outlines.base import MAX_FILE_BYTES, OutlineFile, read_limited
from perikarya.data.outlines.find import format_of, is_label_image

FEATURES = '{"type": "FeatureCollection", "features": []}'
COCO = {"images": [], "annotations": [], "categories": []}


@pytest.mark.parametrize(
    "name",
    [
        "x.geojson", "x.tif.geojson", "x.geojson.gz", "x.zip", "x.rois.zip", "x_rois.zip", "x-rois.zip", "x_RoiSet.zip",
        "x.roi", "x_labels.tif", "x_labels.tiff", "x_labels.png", "x_cp_masks.png", "x_cp_masks.tif",
    ],
)  # fmt: skip
def test_outlines_are_found_beside_their_image(tmp_path: Path, name: str) -> None:
    (tmp_path / "x.tif").touch()
    (tmp_path / "y.geojson").touch()
    (tmp_path / name).touch()
    assert find_outlines(tmp_path / "x.tif") == tmp_path / name


def test_an_image_without_outlines_has_none(tmp_path: Path) -> None:
    for name in ("x.tif", "y.geojson", "xx.zip", "x.csv"):
        (tmp_path / name).touch()
    (tmp_path / "x.geojson").mkdir()
    assert find_outlines(tmp_path / "x.tif") is None


def test_a_json_file_counts_only_if_it_holds_features(tmp_path: Path) -> None:
    for text, counts in (
        (FEATURES, True), ("[" + FEATURES + "]", True), (json.dumps(COCO), False), ('{"exposure": 3}', False),
        ("[1, 2]", False), ("", False), ("exposure = 3", False),
    ):  # fmt: skip
        (tmp_path / "x.json").write_text(text)
        assert find_outlines(tmp_path / "x.jpg") == (tmp_path / "x.json" if counts else None), text


def test_an_ome_tiff_goes_by_its_name_without_ome_too(tmp_path: Path) -> None:
    (tmp_path / "x.geojson").touch()
    assert find_outlines(tmp_path / "x.ome.tif") == tmp_path / "x.geojson"


def test_which_of_several_files_holds_is_not_guessed(tmp_path: Path) -> None:
    for name in ("x.geojson", "x_labels.tif"):
        (tmp_path / name).touch()
    with pytest.raises(OutlineError, match=r"\(x\.geojson, x_labels\.tif\); it is unclear which one holds"):
        find_outlines(tmp_path / "x.tif")
    assert find_outlines(tmp_path / "x.tif", formats={"labels"}) == tmp_path / "x_labels.tif"
    assert find_outlines(tmp_path / "x.tif", formats={"imagej"}) is None


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (FEATURES.encode(), "geojson"),
        (b"\xef\xbb\xbf \n" + FEATURES.encode(), "geojson"),
        (b'[{"type": "Feature"}]', "geojson"),
        (json.dumps(COCO).encode(), "coco"),
        (b'\n{\n  "info" : {}, "type": "instances"}', "coco"),
        (b"\x1f\x8b\x08", "geojson"),
        (b"Iout\x00\xe3", "imagej"),
        (b"PK\x03\x04", "imagej"),
        (b"II*\x00", "labels"),
        (b"MM\x00+", "labels"),
        (b"\x89PNG\r\n\x1a\n", "labels"),
    ],
)
def test_a_format_is_told_by_the_first_bytes(tmp_path: Path, content: bytes, kind: str) -> None:
    (tmp_path / "x.bin").write_bytes(content)
    assert format_of(tmp_path / "x.bin") == kind


def test_what_is_no_file_of_outlines_is_refused_with_its_reason(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("x, y")
    (tmp_path / "empty").touch()
    for name, reason in (("text", "no outlines in a format"), ("empty", "empty"), ("no", "not exist"), ("", "regular")):
        with pytest.raises(OutlineError, match=reason):
            read_outlines(tmp_path / name)


def test_label_images_are_told_from_pictures_by_their_name() -> None:
    assert is_label_image(Path("a/x_labels.tif"))
    assert is_label_image(Path("x_cp_masks.png"))
    assert not is_label_image(Path("labels.tif"))


def test_only_regular_files_within_the_limit_are_read(tmp_path: Path) -> None:
    path = tmp_path / "x.geojson"
    path.write_text("12345")
    assert read_limited(path) == b"12345"
    with pytest.raises(OutlineError, match="larger than"):
        read_limited(path, limit=4)
    with path.open("wb") as handle:
        handle.truncate(MAX_FILE_BYTES + 1)
    with pytest.raises(OutlineError, match="larger than 512 MiB"):
        read_limited(path)
    os.mkfifo(tmp_path / "pipe")
    for name, reason in (("pipe", "not a regular file"), ("", "not a regular file"), ("no", "does not exist")):
        with pytest.raises(OutlineError, match=reason):
            read_limited(tmp_path / name)


def test_every_format_is_read_by_its_reader(tmp_path: Path) -> None:
    (tmp_path / "x.geojson").write_text(feature_collection())
    tifffile.imwrite(tmp_path / "x_labels.tif", np.pad(np.full((5, 5), 7, np.uint8), 3))
    (tmp_path / "coco.json").write_text(json.dumps(coco("x.png")))
    for name in ("x.geojson", "x_labels.tif", "coco.json"):
        (outline,) = read_outlines(tmp_path / name).outlines
        assert outline.rings or outline.mask is not None


def feature_collection() -> str:
    ring = [[3, 3], [8, 3], [8, 8], [3, 8], [3, 3]]
    feature = {"type": "Feature", "geometry": {"type": "Polygon", "coordinates": [ring]}, "properties": {}}
    return json.dumps({"type": "FeatureCollection", "features": [feature]})


def coco(*names: str) -> dict:
    """One cell per image, in the order of the names at (3, 3), (4, 3) …"""
    return {
        "images": [{"id": i, "file_name": name, "width": 40, "height": 30} for i, name in enumerate(names)],
        "categories": [{"id": 1, "name": "normal"}],
        "annotations": [
            {"id": i, "image_id": i, "category_id": 1, "segmentation": [[3 + i, 3, 8, 3, 8, 8, 3, 8]]}
            for i in range(len(names))
        ],
    }


@pytest.mark.parametrize(
    ("image", "first_x"),
    [("a/x.png", 3), ("b/x.png", 4), ("else/b/x.png", 4), ("y.png", 5), ("moved/y.png", 5)],
)
def test_a_coco_file_of_many_images_is_asked_for_one(tmp_path: Path, image: str, first_x: int) -> None:
    (tmp_path / "all.json").write_text(json.dumps(coco("a/x.png", "b/x.png", "c/y.png")))
    (outline,) = read_outlines(tmp_path / "all.json", image=tmp_path / image).outlines
    assert outline.rings[0][0, 0] == first_x


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        (None, "speaks of 3 images"),
        (Path("z.png"), "does not speak of z.png"),
        (Path("/c/x.png"), r"several images called x\.png"),
    ],
)
def test_an_image_a_coco_file_cannot_tell_is_refused(tmp_path: Path, image: Path | None, reason: str) -> None:
    (tmp_path / "all.json").write_text(json.dumps(coco("a/x.png", "b/x.png", "c/y.png")))
    with pytest.raises(OutlineError, match=reason):
        read_outlines(tmp_path / "all.json", image=image)


def test_a_coco_file_that_changed_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "all.json"
    path.write_text(json.dumps(coco("a/x.png")))
    assert read_outlines(path).outlines[0].rings[0][0, 0] == 3
    path.write_text(json.dumps(coco("a/x.png")).replace("[[3, 3, 8", "[[2.25, 3, 8"))
    assert read_outlines(path).outlines[0].rings[0][0, 0] == 2.25


def test_outlines_of_an_image_of_another_size_are_refused() -> None:
    OutlineFile(()).check_size(height=3, width=4)
    OutlineFile((), image_hw=(3, 4)).check_size(height=3, width=4)
    with pytest.raises(OutlineError, match="for an image of 4 x 3 px but the image is 3 x 4 px"):
        OutlineFile((), image_hw=(3, 4)).check_size(height=4, width=3)
