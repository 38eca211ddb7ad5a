"""What is wrong is said in a sentence, and nothing is left behind: one table of broken inputs."""

from __future__ import annotations

import io
import json
import shutil
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
import tifffile
from PIL import Image
from tests.sources import class_folders, disc, picture, write

from perikarya.config import load_config
from perikarya.data import images, metadata
from perikarya.data.importers import folder_files, import_study
from perikarya.data.importers.base import ImportOptions
from perikarya.data.integrity import check_study
from perikarya.data.store import open_study
from perikarya.errors import ConfigError, DataError, ImportRefusedError, PerikaryaError
from perikarya.schema import MAX_YAML_BYTES, read_table, write_table

IMAGE = "images/normal/c0.png"
MASK = "masks/normal/c0.png"
Change = Callable[[Path], object]


def put(name: str, content: bytes) -> Change:
    return lambda root: (root / name).write_bytes(content)


def put_array(name: str, pixels: np.ndarray) -> Change:
    return lambda root: write(root / name, pixels)


def put_tiff(pixels: np.ndarray, **options: object) -> Change:
    def change(root: Path) -> None:
        (root / IMAGE).unlink()
        tifffile.imwrite(root / "images/normal/c0.tif", pixels, **options)

    return change


def put_pil(image: Image.Image, kind: str, **options: object) -> Change:
    buffer = io.BytesIO()
    image.save(buffer, format=kind, **options)
    return put(IMAGE, buffer.getvalue())


def cut(name: str, keep: float) -> Change:
    def change(root: Path) -> None:
        content = (root / name).read_bytes()
        (root / name).write_bytes(content[: int(len(content) * keep)])

    return change


def remove(name: str) -> Change:
    return lambda root: (root / name).unlink()


def table(text: str | bytes) -> Change:
    return put("metadata.csv", text.encode() if isinstance(text, str) else text)


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few bytes that claims an enormous picture."""
    head = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = (head, b"IDAT" + zlib.compress(b"\x00" * 100), b"IEND")
    packed = [struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


def rename(old: str, new: str) -> Change:
    def change(root: Path) -> None:
        (root / new).parent.mkdir(parents=True, exist_ok=True)
        (root / old).rename(root / new)

    return change


def copy(old: str, new: str) -> Change:
    return lambda root: shutil.copyfile(root / old, root / new)


def link_outside(root: Path) -> None:
    outside = write(root.parent / "elsewhere.png", picture(99))
    (root / IMAGE).unlink()
    (root / IMAGE).symlink_to(outside)


def link_folder(root: Path) -> None:
    shutil.move(root / "images/normal", root.parent / "moved")
    (root / "images/normal").symlink_to(root.parent / "moved")


def wipe(root: Path) -> None:
    shutil.rmtree(root)
    root.mkdir()


def folder(name: str) -> Change:
    return lambda root: (root / name).mkdir()


def steps(*changes: Change) -> Change:
    def change(root: Path) -> None:
        for step in changes:
            step(root)

    return change


def nothing(root: Path) -> None: ...


SPLIT = picture(0)
SPLIT_RGBA = np.dstack([picture(0).astype(np.uint16) * 256, disc().astype(np.uint16) * 128])
ROWS = "file,subject\nc0.png,a\nc1.png,a\nc2.png,b\nc3.png,b\n"

# name -> (what breaks a good source, the options, what the message must say)
BROKEN_SOURCES: dict[str, tuple[Change, dict, str]] = {
    "image empty": (put(IMAGE, b""), {}, r"c0\.png: the file is empty"),
    "image is text": (put(IMAGE, b"hello"), {}, r"c0\.png: the file is not a PNG, JPEG, TIFF or BMP"),
    "image is a pickle": (put(IMAGE, b"\x80\x04N."), {}, r"is not a PNG, JPEG, TIFF or BMP"),
    "image is a GIF": (put_pil(Image.fromarray(SPLIT), "GIF"), {}, r"is not a PNG, JPEG, TIFF or BMP"),
    "png cut in the middle": (cut(IMAGE, 0.6), {}, r"c0\.png: the PNG image is truncated"),
    "png cut at the end": (cut(IMAGE, 0.999), {}, r"the PNG image is truncated"),
    "png bomb": (put(IMAGE, bomb(60_000, 60_000)), {}, r"more than 80 million|limit is 80 million"),
    "png too large": (put(IMAGE, bomb(9_000, 9_000)), {}, r"9000 x 9000 px; the limit is 80 million"),
    "png without pixels": (put(IMAGE, bomb(0, 5)), {}, r"c0\.png: .*(damaged|no pixels)"),
    "png of other size than announced": (put(IMAGE, bomb(40, 40)), {}, r"damaged or truncated"),
    "animated png": (
        put_pil(Image.fromarray(SPLIT), "PNG", save_all=True, append_images=[Image.fromarray(picture(1))]), {},
        r"holds 2 pages or frames",
    ),
    "cmyk jpeg": (put_pil(Image.new("CMYK", (40, 40)), "JPEG"), {}, r"stored as CMYK"),
    "jpeg cut": (
        steps(put_pil(Image.fromarray(SPLIT), "JPEG"), cut(IMAGE, 0.5)), {},
        r"the JPEG image is damaged or truncated",
    ),
    "transparent everywhere": (put_pil(Image.new("RGBA", (40, 40)), "PNG"), {}, r"transparent everywhere"),
    "two-page tiff": (put_tiff(np.stack([SPLIT, SPLIT]), photometric="rgb"), {}, r"holds 2 pages"),
    "float tiff": (put_tiff(SPLIT[..., 0].astype(np.float32)), {}, r"32-bit floating-point numbers"),
    "32-bit tiff": (put_tiff(SPLIT[..., 0].astype(np.uint32)), {}, r"32-bit whole numbers"),
    "signed tiff": (put_tiff(SPLIT[..., 0].astype(np.int16)), {}, r"16-bit signed numbers"),
    "inverted 16-bit tiff": (
        put_tiff(SPLIT[..., 0].astype(np.uint16), photometric="miniswhite"), {}, r"stored as MINISWHITE",
    ),
    "cmyk tiff": (put_tiff(np.dstack([SPLIT, SPLIT[..., 0]]), photometric="separated"), {}, r"stored as CMYK"),
    "tiff cut": (
        steps(put_tiff(SPLIT), cut("images/normal/c0.tif", 0.7)), {},
        r"c0\.tif: the TIFF image is truncated",
    ),
    "tiff of nonsense": (put(IMAGE, b"II*\x00" + b"\xff" * 60), {}, r"c0\.png: .*TIFF"),
    "bmp of nonsense": (put(IMAGE, b"BM" + b"\x00" * 60), {}, r"begins like a BMP image|damaged"),
    "partly transparent 16-bit png": (
        put(IMAGE, cv2.imencode(".png", SPLIT_RGBA)[1].tobytes()), {}, r"16-bit image is partly transparent",
    ),
    "image missing": (remove(IMAGE), {}, r"masks/normal/c0\.png: is a mask without an image"),
    "mask missing": (remove(MASK), {}, r"images/normal/c0\.png: is an image without a mask"),
    "mask empty": (put_array(MASK, np.zeros((40, 40), np.uint8)), {}, r"c0\.png: the mask is empty"),
    "mask full": (put_array(MASK, np.full((40, 40), 255, np.uint8)), {}, r"covers the whole image"),
    "mask of other size": (put_array(MASK, disc((20, 30))), {}, r"mask is 30 x 20 px but its image is 40 x 40 px"),
    "mask numbers several cells": (
        put_array(MASK, np.arange(1600, dtype=np.uint8).reshape(40, 40) % 5), {}, r"5 numbered regions \(0 to 4\)",
    ),
    "mask truncated": (cut(MASK, 0.5), {}, r"masks/normal/c0\.png: the PNG image is truncated"),
    "two images of one name": (copy(IMAGE, "images/normal/c0.bmp"), {}, r"several images have this name"),
    "two masks of one name": (copy(MASK, "masks/normal/c0_mask.png"), {}, r"has several masks"),
    "image outside of classes": (rename(IMAGE, "images/c0.png"), {}, r"lies in no class folder"),
    "unknown kind of file": (put("images/normal/c9.gif", b"GIF89a"), {}, r"c9\.gif: is not a PNG, JPEG"),
    "name with a line break": (rename(IMAGE, "images/normal/c\n0.png"), {}, r"unprintable characters"),
    "link that leaves": (link_outside, {}, r"is a link that leaves the folder"),
    "link to a folder": (link_folder, {}, r"images/normal: is a link to a folder"),
    "unknown class": (nothing, {"classes": ("normal", "swollen")}, r"c2\.png: is of class 'pyknotic', which --classes"),
    "class twice": (nothing, {"classes": ("normal", "normal")}, r"must name each class once"),
    "empty folder": (wipe, {}, r"has no layout that is known"),
    "no cells": (steps(wipe, folder("images"), folder("masks")), {}, r"no cells in"),
    "unknown layout": (nothing, {"layout": "foldres"}, r"no importer called 'foldres'. Did you mean 'folders'"),
    "scale of zero": (nothing, {"um_per_px": 0.0}, r"not a positive number"),
    "window without scale": (nothing, {"window": "40um"}, r"needs the scale"),
    "window of nonsense": (nothing, {"window": "big"}, r"neither pixels \(80\) nor micrometres"),
    "window too small": (nothing, {"window": 4}, r"from 8 to 2048"),
    "external is missing": (nothing, {"external": Path("nowhere")}, r"There is nothing at nowhere"),
    "table is missing": (nothing, {"metadata": Path("nowhere.csv")}, r"There is no table at nowhere\.csv"),
    "table empty": (table(" \n"), {}, r"metadata\.csv is empty"),
    "table is a workbook": (table(b"PK\x03\x04\xff\xfe\x00"), {}, r"is not UTF-8 text"),
    "table with null bytes": (table("file\x00,subject\n"), {}, r"null bytes"),
    "table without file": (table("name,subject\nc0.png,a\n"), {}, r"has no column 'file'"),
    "table with two subjects": (table("file,subject,animal\nc0.png,a,b\n"), {}, r"gives subject in two columns"),
    "table with open quote": (table('file,subject\n"c0.png,a\n'), {}, r"not a readable CSV table"),
    "table row too long": (table(ROWS + "c0.png,a,b,c\n"), {}, r"line 6: has 4 entries, the header has 2"),
    "table names no file": (table(ROWS + ",a\n"), {}, r"line 6: names no file"),
    "table names a stranger": (table(ROWS + "c9.png,a\n"), {}, r"'c9\.png' is not among the images"),
    "table names a file twice": (table(ROWS + "c0.png,a\n"), {}, r"was given in line 2 already"),
    "table leaves the folder": (table(ROWS + "../c0.png,a\n"), {}, r"leaves the folder"),
    "table lacks a file": (table("file,subject\nc0.png,a\n"), {}, r"c1\.png: has no row in the metadata"),
    "table disagrees on the class": (
        table(ROWS.replace("subject", "label").replace(",a", ",pyknotic")), {}, r"class normal but the metadata",
    ),
    "table is ambiguous": (
        steps(copy(IMAGE, "images/pyknotic/c0.png"), copy(MASK, "masks/pyknotic/c0.png"), table(ROWS)), {},
        r"'c0\.png' could be",
    ),
    "pattern of nonsense": (nothing, {"name_pattern": "(?P<subject>["}, r"is not a regular expression"),
    "pattern without names": (nothing, {"name_pattern": r"c\d"}, r"has no named group"),
    "pattern with a strange name": (nothing, {"name_pattern": r"(?P<age>\d)"}, r"has the group 'age'"),
    "pattern that does not fit": (nothing, {"name_pattern": r"(?P<subject>c[12])"}, r"does not fit --name-pattern"),
    "pattern against table": (
        table(ROWS), {"name_pattern": r"(?P<subject>c)\d"}, r"its name says subject c but the metadata",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN_SOURCES)
def test_a_broken_source_is_refused_with_its_reason_and_nothing_is_written(tmp_path: Path, name: str) -> None:
    change, options, says = BROKEN_SOURCES[name]
    source = class_folders(tmp_path / "source")
    out = tmp_path / "place" / "study"
    out.parent.mkdir()
    change(source)
    with pytest.raises(PerikaryaError, match=says):
        import_study(source, out, options=ImportOptions(**options))
    assert list(out.parent.iterdir()) == []


def test_the_same_source_unbroken_is_taken(tmp_path: Path) -> None:
    source = class_folders(tmp_path / "source")
    table(ROWS)(source)
    opened = import_study(source, tmp_path / "study", options=ImportOptions(name_pattern=r"(?P<image_id>c\d)"))
    assert opened.cells["subject"].tolist() == ["a", "a", "b", "b"]
    assert opened.cells["image_id"].tolist() == ["c0", "c1", "c2", "c3"]


def test_all_bad_files_are_listed_at_once(tmp_path: Path) -> None:
    source = class_folders(tmp_path / "source", n=4)
    put(IMAGE, b"")(source)
    cut("images/pyknotic/c5.png", 0.5)(source)
    remove("masks/pyknotic/c6.png")(source)
    with pytest.raises(ImportRefusedError) as caught:
        import_study(source, tmp_path / "study")
    assert [path for path, _ in caught.value.problems] == [IMAGE, "images/pyknotic/c5.png", "images/pyknotic/c6.png"]
    assert "3 file(s)" in str(caught.value)
    assert "5 cells are fine" in str(caught.value)


@pytest.mark.parametrize(
    ("place", "says"), [("study", "exists already"), ("source/inside", "lies inside its own source")]
)
def test_a_place_that_cannot_hold_a_study_is_refused(tmp_path: Path, place: str, says: str) -> None:
    source = class_folders(tmp_path / "source")
    (tmp_path / "study").mkdir()
    with pytest.raises(DataError, match=says):
        import_study(source, tmp_path / place)
    assert list((tmp_path / "study").iterdir()) == []
    assert not (source / "inside").exists()


def edit_table(change: Callable) -> Change:
    def apply(root: Path) -> None:
        frame, _ = read_table(root / "cells.parquet", what="cells")
        write_table(root / "cells.parquet", change(frame))

    return apply


def strip_version(root: Path) -> None:
    found = pq.read_table(root / "cells.parquet")
    pq.write_table(found.replace_schema_metadata({}), root / "cells.parquet")


def edit_yaml(old: str, new: str) -> Change:
    def apply(root: Path) -> None:
        text = (root / "study.yaml").read_text()
        assert old in text
        (root / "study.yaml").write_text(text.replace(old, new, 1))

    return apply


def save_crops(shape: tuple[int, ...], dtype: str = "u1") -> Change:
    return lambda root: np.save(root / "crops.npy", np.zeros(shape, dtype))


def save_pickled(root: Path) -> None:
    np.save(root / "crops.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)


BROKEN_STUDIES: dict[str, tuple[Change, str]] = {
    "folder missing": (shutil.rmtree, r"There is no study at"),
    "study.yaml missing": (remove("study.yaml"), r"study\.yaml does not exist"),
    "study.yaml is no yaml": (put("study.yaml", b"a: [1"), r"is not valid YAML"),
    "study.yaml is a list": (put("study.yaml", b"- 1\n"), r"must hold 'key: value' lines"),
    "study.yaml is bytes": (put("study.yaml", b"\xff\xfe\x00"), r"cannot be read as"),
    "study.yaml makes objects": (put("study.yaml", b"!!python/object/apply:os.getcwd []"), r"is not valid YAML"),
    "study.yaml is huge": (put("study.yaml", b"#" * (MAX_YAML_BYTES + 1)), r"is larger than 4 MiB"),
    "study.yaml of another version": (edit_yaml("schema_version: 1", "schema_version: 9"), r"has schema version 9"),
    "study.yaml with unknown key": (edit_yaml("name:", "nmae: x\nname:"), r"nmae: Extra inputs"),
    "class twice": (edit_yaml("- pyknotic", "- normal"), r"holds a name twice"),
    "no classes": (edit_yaml("class_names:\n- normal\n- pyknotic", "class_names: []"), r"class_names"),
    "window not as the crops": (edit_yaml("window_px: 40", "window_px: 48"), r"call for uint8"),
    "window of nonsense": (edit_yaml("window_px: 40", "window_px: -3"), r"window_px"),
    "negative scale": (edit_yaml("um_per_px: null", "um_per_px: -1"), r"um_per_px"),
    "table missing": (remove("cells.parquet"), r"cells\.parquet does not exist"),
    "table is text": (put("cells.parquet", b"hello"), r"cannot be read"),
    "table cut": (cut("cells.parquet", 0.6), r"cannot be read"),
    "table without version": (strip_version, r"schema version None"),
    "table lacks a column": (edit_table(lambda f: f.drop(columns="area_px")), r"lacks the column\(s\) area_px"),
    "cell twice": (edit_table(lambda f: f.assign(cell_id="x")), r"holds cell x twice"),
    "empty identity": (edit_table(lambda f: f.assign(image_id=None)), r"empty entries in image_id"),
    "unknown set": (edit_table(lambda f: f.assign(set="test")), r"set is 'test'"),
    "unknown label": (edit_table(lambda f: f.assign(label="swollen")), r"Label 'swollen' is not a class"),
    "damaged descriptor": (edit_table(lambda f: f.assign(crop_phash="zz")), r"crop_phash 'zz' is not"),
    "row too few": (edit_table(lambda f: f.iloc[1:]), r"call for uint8 \(3, 40, 40, 4\)"),
    "crops missing": (remove("crops.npy"), r"crops\.npy does not exist"),
    "crops empty": (put("crops.npy", b""), r"crops\.npy is damaged"),
    "crops cut": (cut("crops.npy", 0.7), r"crops\.npy is damaged"),
    "crops of nonsense": (put("crops.npy", b"\x93NUMPY\x01\x00\xff\xff{"), r"crops\.npy is damaged"),
    "crops of another shape": (save_crops((4, 40, 40, 3)), r"holds uint8 \(4, 40, 40, 3\)"),
    "crops of another type": (save_crops((4, 40, 40, 4), "f4"), r"holds float32"),
    "crops pickled": (save_pickled, r"crops\.npy is damaged"),
}


@pytest.mark.parametrize("name", BROKEN_STUDIES)
def test_a_broken_study_is_refused_with_its_reason(tmp_path: Path, name: str) -> None:
    change, says = BROKEN_STUDIES[name]
    opened = import_study(class_folders(tmp_path / "source"), tmp_path / "study")
    check_study(opened)
    change(opened.root)
    with pytest.raises(DataError, match=says):
        check_study(open_study(opened.root))


GOOD_CONFIG = {"name": "a", "study": "s", "models": ["small_cnn"]}

BROKEN_CONFIGS: dict[str, tuple[str | bytes, str]] = {
    "empty": ("", r"must hold 'key: value' lines"),
    "not yaml": ("a: b: c", r"is not valid YAML"),
    "bytes": (b"\xff\xfe", r"cannot be read"),
    "tag": ("name: !!python/name:os.system", r"is not valid YAML"),
    "unknown key": (json.dumps(GOOD_CONFIG | {"epochs": 3}), r"epochs: Extra inputs"),
    "misspelt setting": (json.dumps(GOOD_CONFIG | {"train": {"epoch": 3}}), r"train\.epoch: Extra inputs"),
    "no models": (json.dumps(GOOD_CONFIG | {"models": []}), r"models"),
    "no study": (json.dumps({"name": "a", "models": ["b"]}), r"study: Field required"),
    "model twice": (json.dumps(GOOD_CONFIG | {"models": ["a", "a"]}), r"two models are called 'a'"),
    "model that is a path": (json.dumps(GOOD_CONFIG | {"models": ["../a"]}), r"models\.0\.name"),
    "fold out of range": (json.dumps(GOOD_CONFIG | {"cv": {"folds": [7]}}), r"folds names fold 7"),
    "negative rate": (json.dumps(GOOD_CONFIG | {"train": {"lr": -1}}), r"train\.lr"),
    "bad override": (json.dumps(GOOD_CONFIG | {"models": [{"name": "a", "train": {"lr": 0}}]}), r"models\.a\.train"),
    "seed twice": (json.dumps(GOOD_CONFIG | {"seeds": [1, 1]}), r"holds a seed twice"),
}


@pytest.mark.parametrize("name", BROKEN_CONFIGS)
def test_a_broken_configuration_is_refused_with_its_reason(tmp_path: Path, name: str) -> None:
    content, says = BROKEN_CONFIGS[name]
    path = tmp_path / "config.yaml"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(ConfigError, match=says):
        load_config(path)


def test_the_same_configuration_unbroken_is_taken(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(json.dumps(GOOD_CONFIG))
    assert load_config(tmp_path / "config.yaml").name == "a"


@pytest.mark.parametrize(
    ("place", "limit", "value", "says"),
    [
        (images, "MAX_FILE_BYTES", 100, r"c0\.png: the file is larger than"),
        (images, "MAX_PIXELS", 1000, r"40 x 40 px; the limit is"),
        (folder_files, "MAX_FILES", 5, r"holds more than 5 files"),
        (metadata, "MAX_CSV_BYTES", 10, r"metadata\.csv is larger than"),
        (metadata, "MAX_CSV_ROWS", 2, r"metadata\.csv has more than 2 rows"),
    ],
)
def test_limits_hold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: ModuleType, limit: str, value: int, says: str
) -> None:
    source = class_folders(tmp_path / "source")
    table(ROWS)(source)
    monkeypatch.setattr(place, limit, value)
    with pytest.raises(DataError, match=says):
        import_study(source, tmp_path / "study")
    assert [path.name for path in tmp_path.iterdir()] == ["source"]
