from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import tifffile
from tests.sources import disc, picture, write

from perikarya.data.images import ImageError
from perikarya.data.importers import import_study, recognise
from perikarya.data.importers.base import ImportOptions
from perikarya.data.outlines.labels import boxes_of, read_label_map
from perikarya.errors import DataError, ImportRefusedError

HW = (120, 160)
CENTRES = ((12, 14), (80, 60), (130, 90))


def label_maps(root: Path, *, n_fields: int = 2, dtype: type = np.uint16, suffix: str = "_labels.tif") -> Path:
    """Fields f0, f1 … with three cells each and a table of them."""
    rows = []
    for f in range(n_fields):
        labels = np.zeros(HW, dtype)
        for number, centre in enumerate(CENTRES, start=1):
            labels[disc(HW, radius=6 + number, centre_xy=centre) > 0] = number
            rows.append((f"f{f}.png", number, *centre, ("normal", "intermediate", "pyknotic")[number - 1], f"S{f}"))
        write(root / f"f{f}.png", picture(f, HW))
        if suffix.endswith("png"):
            assert cv2.imwrite(str(root / f"f{f}{suffix}"), labels)
        else:
            tifffile.imwrite(root / f"f{f}{suffix}", labels, compression="zlib")
    table = pd.DataFrame(rows, columns=["image", "label_id", "x_px", "y_px", "class", "subject"])
    table.to_csv(root / "cells.csv", index=False)
    return root


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "src").mkdir()
    return label_maps(tmp_path / "src")


def do_import(source: Path, **options: object):
    return import_study(source, source.parent / "study", options=ImportOptions(layout="labels", window=40, **options))


def test_a_folder_of_label_maps_is_recognised(source: Path) -> None:
    assert recognise(source) == "labels"


@pytest.mark.parametrize(
    ("dtype", "suffix"),
    [(np.uint8, "_labels.tif"), (np.uint16, "_labels.tif"), (np.uint32, "_labels.tiff"), (np.uint16, "_labels.png")],
)
def test_every_row_becomes_a_cell_cut_around_its_own_outline(tmp_path: Path, dtype: type, suffix: str) -> None:
    (tmp_path / "src").mkdir()
    source = label_maps(tmp_path / "src", dtype=dtype, suffix=suffix)
    opened = do_import(source)
    assert opened.study.class_names == ("normal", "intermediate", "pyknotic")
    assert opened.cells["image_id"].tolist() == ["f0"] * 3 + ["f1"] * 3
    assert opened.cells["subject"].tolist() == ["S0"] * 3 + ["S1"] * 3
    field = picture(0, HW)
    for row, number in enumerate((1, 2, 3)):
        x, y = CENTRES[number - 1]
        expected = disc(HW, radius=6 + number, centre_xy=(x, y))
        assert opened.cells["area_px"][row] == (expected > 0).sum()
        assert (opened.cells["x_px"][row], opened.cells["y_px"][row]) == (x, y)
        mask = np.asarray(opened.crops[row, ..., 3])
        rows, columns = np.nonzero(mask)
        assert abs(rows.min() + rows.max() - 39) <= 1  # in the middle, even where the window leaves the field
        assert abs(columns.min() + columns.max() - 39) <= 1
        cell = opened.crops[row, ..., :3][mask > 0]
        assert (cell == field[expected > 0]).all()


def test_what_a_study_keeps_can_be_imported_again(source: Path, tmp_path: Path) -> None:
    first = do_import(source)
    again = import_study(first.root / "fields", tmp_path / "again", options=ImportOptions(window=40))
    assert again.cells["cell_id"].tolist() == first.cells["cell_id"].tolist()
    assert (np.asarray(again.crops) == np.asarray(first.crops)).all()


def test_outlines_without_a_row_are_left_out_and_said(source: Path) -> None:
    table = pd.read_csv(source / "cells.csv")
    table.drop(index=[1, 5]).to_csv(source / "cells.csv", index=False)
    opened = do_import(source)
    assert len(opened.cells) == 4
    assert any("2 numbers" in note for note in opened.study.provenance["notes"])


def test_the_table_may_name_the_set_of_each_cell(source: Path) -> None:
    table = pd.read_csv(source / "cells.csv")
    table.assign(set=["development"] * 3 + ["external"] * 3).to_csv(source / "cells.csv", index=False)
    assert do_import(source).cells["set"].tolist() == ["development"] * 3 + ["external"] * 3


def test_region_and_subject_may_come_from_the_names_of_the_fields(source: Path) -> None:
    pd.read_csv(source / "cells.csv").drop(columns="subject").to_csv(source / "cells.csv", index=False)
    opened = do_import(source, name_pattern=r"(?P<subject>f\d)")
    assert opened.cells["subject"].tolist() == ["f0"] * 3 + ["f1"] * 3


def edit(column: str, value: object) -> Callable[[Path], None]:
    def change(source: Path) -> None:
        table = pd.read_csv(source / "cells.csv", dtype=str)
        table.loc[4, column] = value
        table.to_csv(source / "cells.csv", index=False)

    return change


def smaller_map(source: Path) -> None:
    tifffile.imwrite(source / "f1_labels.tif", np.ones((60, 80), np.uint16))


def coloured_map(source: Path) -> None:
    tifffile.imwrite(source / "f1_labels.tif", np.ones((*HW, 3), np.uint8), photometric="rgb")


def float_map(source: Path) -> None:
    tifffile.imwrite(source / "f1_labels.tif", np.ones(HW, np.float32))


def two_pages(source: Path) -> None:
    tifffile.imwrite(source / "f1_labels.tif", np.ones((2, *HW), np.uint16), photometric="minisblack")


def truncated_map(source: Path) -> None:
    path = source / "f1_labels.tif"
    tifffile.imwrite(path, np.ones(HW, np.uint16))
    path.write_bytes(path.read_bytes()[:2000])


BROKEN = {
    "number absent from the map": (edit("label_id", "9"), r"label_id 9 does not occur"),
    "number given twice": (edit("label_id", "1"), r"label_id 1 was given in line 5"),
    "number zero": (edit("label_id", "0"), r"label_id is '0'"),
    "number is a fraction": (edit("label_id", "1.5"), r"label_id is '1.5'"),
    "no number": (edit("label_id", None), r"label_id is ''"),
    "point on another cell": (edit("x_px", "12"), r"x_px is 12 but outline 2 spans 72 to 89"),
    "point is NaN": (edit("y_px", "NaN"), r"y_px is ''"),
    "point is infinite": (edit("y_px", "inf"), r"y_px is 'inf'"),
    "point is a word": (edit("x_px", "left"), r"x_px is 'left'"),
    "unknown set": (edit("set", "test"), r"set is 'test'"),
    "unknown class": (edit("class", "necrotic"), r"necrotic"),
    "no such image": (edit("image", "f7.png"), r"there is no such image; 1 row"),
    "image outside the folder": (edit("image", "../f1.png"), r"leaves the folder"),
    "image is empty": (edit("image", None), r"names no image"),
    "label map missing": (lambda s: (s / "f1_labels.tif").unlink(), r"it has no label map beside it .*3 row"),
    "label map of another size": (smaller_map, r"label map is 80 x 60 px but the image is 160 x 120 px"),
    "label map in colour": (coloured_map, r"in colour"),
    "label map of floats": (float_map, r"float32"),
    "label map of two pages": (two_pages, r"pages"),
    "label map truncated": (truncated_map, r"truncated"),
    "label map is text": (lambda s: (s / "f1_labels.tif").write_text("1 2 3"), r"not a TIFF or PNG"),
    "image damaged": (lambda s: (s / "f1.png").write_bytes(b"\x89PNG\r\n\x1a\n broken"), r"PNG"),
}


@pytest.mark.parametrize(("break_it", "reason"), BROKEN.values(), ids=BROKEN.keys())
def test_what_does_not_fit_is_refused_with_its_reason_and_nothing_is_written(
    source: Path, break_it: Callable[[Path], object], reason: str
) -> None:
    break_it(source)
    with pytest.raises(ImportRefusedError, match=reason):
        do_import(source, classes=("normal", "intermediate", "pyknotic"))
    assert [path.name for path in source.parent.iterdir()] == ["src"]


def test_all_that_is_wrong_is_listed_at_once(source: Path) -> None:
    edit("label_id", "9")(source)
    table = pd.read_csv(source / "cells.csv", dtype=str)
    table.loc[0, "x_px"] = "nan"
    table.loc[2, "image"] = "f7.png"
    table.to_csv(source / "cells.csv", index=False)
    with pytest.raises(ImportRefusedError) as caught:
        do_import(source)
    assert [path for path, _ in caught.value.problems] == ["f7.png", "cells.csv line 2", "cells.csv line 6"]


def test_the_rest_can_be_imported_knowingly(source: Path) -> None:
    edit("label_id", "9")(source)
    opened = do_import(source, skip_bad=True)
    assert len(opened.cells) == 5
    assert opened.study.provenance["n_refused"] == 1


@pytest.mark.parametrize("missing", ["image", "label_id"])
def test_a_table_without_its_keys_is_no_table_of_cells(source: Path, missing: str) -> None:
    pd.read_csv(source / "cells.csv").drop(columns=missing).to_csv(source / "cells.csv", index=False)
    with pytest.raises(DataError, match=missing):
        do_import(source)
    assert not (source.parent / "study").exists()


def test_a_folder_without_a_table_is_refused(source: Path) -> None:
    (source / "cells.csv").unlink()
    with pytest.raises(DataError, match=r"holds no cells\.csv"):
        do_import(source)


def test_a_field_that_changes_during_the_import_is_noticed(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import perikarya.data.importers.write as writing

    def change_then_write(*args: object, **kwargs: object) -> list[str]:
        write(source / "f1.png", picture(99, HW))
        return original(*args, **kwargs)

    original = writing._write_crops
    monkeypatch.setattr(writing, "_write_crops", change_then_write)
    with pytest.raises(DataError, match="changed during the import"):
        do_import(source)
    assert not (source.parent / "study").exists()


def test_numbers_may_be_as_large_as_32_bits_allow(tmp_path: Path) -> None:
    labels = np.zeros((20, 30), np.uint32)
    labels[2:5, 3:10], labels[10:19, 20:30] = 4_000_000_000, 7
    tifffile.imwrite(tmp_path / "a_labels.tif", labels)
    read = read_label_map(tmp_path / "a_labels.tif")
    assert (read == labels).all()
    assert boxes_of(read) == {4_000_000_000: (3, 2, 7, 3), 7: (20, 10, 10, 9)}


def test_negative_numbers_are_refused(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a_labels.tif", np.full((8, 8), -1, np.int32))
    with pytest.raises(ImageError, match="negative"):
        read_label_map(tmp_path / "a_labels.tif")


def test_real_fields_are_imported(rbc: Path, tmp_path: Path) -> None:
    if not (rbc / "fields" / "cells.csv").is_file():
        pytest.skip(f"no whole fields at {rbc / 'fields'}")
    opened = import_study(rbc / "fields", tmp_path / "study", options=ImportOptions(window=80))
    table = pd.read_csv(rbc / "fields" / "cells.csv")
    assert len(opened.cells) == len(table)
    assert opened.cells["label"].value_counts().to_dict() == table["class"].value_counts().to_dict()
    assert opened.cells["subject"].isna().all()
    assert set(opened.cells["image_id"]) == {Path(name).stem for name in table["image"]}
    masks = np.asarray(opened.crops[..., 3]) > 0
    assert (masks.sum(axis=(1, 2)) == opened.cells["area_px"]).mean() > 0.99  # few are larger than the window
