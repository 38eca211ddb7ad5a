"""Label maps without a table of cells, as Cellpose and other programs leave them."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from tests.sources import disc, picture, write

from perikarya.data.importers import import_study, recognise
from perikarya.data.importers.base import ImportOptions
from perikarya.errors import DataError, ImportRefusedError

HW = (60, 80)
CLASSES = ("normal", "pyknotic")


def labels_of(seed: int) -> np.ndarray:
    labels = np.zeros(HW, np.uint16)
    for number, centre in enumerate(((12, 14 + seed), (50, 30), (70, 50)), start=1):
        labels[disc(HW, radius=5 + number, centre_xy=centre) > 0] = 10 * number
    return labels


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Two fields, one in a folder of its own, as Cellpose leaves them: masks, outlines and an archive beside each."""
    root = tmp_path / "src"
    for i, name in enumerate(("a", "deep/b")):
        write(root / f"{name}.png", picture(i, HW))
        assert cv2.imwrite(str(root / f"{name}_cp_masks.png"), labels_of(i))
        (root / f"{name}_seg.npy").write_bytes(b"never opened")
        (root / f"{name}_cp_outlines.txt").write_text("1,2,3,4\n")
    return root


def do_import(source: Path, **options: object):
    told = ImportOptions(**{"classes": CLASSES, "window": 40} | options)
    return import_study(source, source.parent / "study", options=told)


def test_masks_of_cellpose_are_recognised(source: Path) -> None:
    assert recognise(source) == "labels"


def test_every_number_becomes_a_cell_without_a_class(source: Path) -> None:
    opened = do_import(source)
    assert opened.study.class_names == CLASSES
    assert opened.cells["label"].isna().all()
    assert opened.cells["image_id"].tolist() == ["a"] * 3 + ["b"] * 3
    assert opened.cells["source"].tolist()[2:4] == ["a.png#30", "deep/b.png#10"]
    assert opened.cells["area_px"].tolist()[:3] == [int((labels_of(0) == n).sum()) for n in (10, 20, 30)]
    assert any("every number in the label maps is a cell" in note for note in opened.study.provenance["notes"])


def test_the_classes_must_be_named_for_there_is_no_table(source: Path) -> None:
    with pytest.raises(DataError, match=r"holds no cells\.csv.*\n.*or name --classes"):
        do_import(source, classes=None)


def test_cells_are_the_same_with_a_table_and_without(source: Path) -> None:
    without = do_import(source)
    rows = "".join(f"{i},{n},normal\n" for i in ("a.png", "deep/b.png") for n in (10, 20, 30))
    (source / "cells.csv").write_text(f"image,label_id,class\n{rows}")
    opened = do_import(source, overwrite=True)
    assert opened.cells["cell_id"].tolist() == without.cells["cell_id"].tolist()
    assert (opened.cells["label"] == "normal").all()
    assert (np.asarray(opened.crops) == np.asarray(without.crops)).all()


def test_what_a_study_keeps_can_be_imported_again(source: Path, tmp_path: Path) -> None:
    first = do_import(source)
    kept = sorted(p.relative_to(first.root / "fields").as_posix() for p in (first.root / "fields").rglob("*.*"))
    assert kept == ["a.png", "a_cp_masks.png", "deep/b.png", "deep/b_cp_masks.png"]
    again = import_study(first.root / "fields", tmp_path / "again", options=ImportOptions(window=40, classes=CLASSES))
    assert again.cells["cell_id"].tolist() == first.cells["cell_id"].tolist()


def test_words_come_from_a_table_in_the_source_or_from_the_names(source: Path) -> None:
    (source / "metadata.csv").write_text("file,subject,region\na.png,S1,CA1\ndeep/b.png,S2,CA3\n")
    opened = do_import(source)
    assert opened.cells["subject"].tolist() == ["S1"] * 3 + ["S2"] * 3
    (source / "metadata.csv").unlink()
    named = do_import(source, name_pattern=r"(?P<subject>[ab])\.png", overwrite=True)
    assert named.cells["subject"].tolist() == ["a"] * 3 + ["b"] * 3


def test_a_number_in_pieces_is_one_cell_and_is_said(source: Path) -> None:
    labels = labels_of(0)
    labels[58:60, 0:3] = 30
    assert cv2.imwrite(str(source / "a_cp_masks.png"), labels)
    opened = do_import(source)
    assert len(opened.cells) == 6
    notes = "\n".join(opened.study.provenance["notes"])
    assert "a.png: 1 cell(s) consist of several separate pieces (30)" in notes


@pytest.mark.parametrize("with_table", [False, True])
def test_fields_of_several_scales_come_to_one_scale(tmp_path: Path, with_table: bool) -> None:
    """The same field, once scanned twice as finely: its windows show the same piece of tissue."""
    root = tmp_path / "src"
    root.mkdir()
    coarse, labels = picture(3, HW), np.zeros(HW, np.uint16)
    labels[23:37, 33:47] = 5
    for name, factor in (("coarse", 1), ("fine", 2)):
        pixels = cv2.resize(coarse, None, fx=factor, fy=factor, interpolation=cv2.INTER_NEAREST)
        numbers = cv2.resize(labels, None, fx=factor, fy=factor, interpolation=cv2.INTER_NEAREST)
        per_cm = 10_000 / (0.5 / factor)
        tifffile.imwrite(
            root / f"{name}.tif", pixels, photometric="rgb", resolution=(per_cm, per_cm), resolutionunit="CENTIMETER"
        )
        tifffile.imwrite(root / f"{name}_labels.tif", numbers)
    if with_table:
        (root / "cells.csv").write_text("image,label_id,class\ncoarse.tif,5,normal\nfine.tif,5,normal\n")
    opened = do_import(root, window="20um")
    assert opened.study.um_per_px == pytest.approx(0.5)
    assert opened.study.window_px == 40
    assert opened.cells["um_per_px"].tolist() == pytest.approx([0.5, 0.25])
    assert opened.cells["area_px"].tolist() == [14**2, 28**2]
    coarse_crop, fine_crop = np.asarray(opened.crops).astype(int)
    assert (np.abs(coarse_crop - fine_crop) <= 1).all()


def put_npy(source: Path) -> None:
    (source / "a_cp_masks.png").unlink()


def second_map(source: Path) -> None:
    tifffile.imwrite(source / "a_labels.tif", labels_of(0))


def lose_image(source: Path) -> None:
    (source / "a.png").unlink()


def link_outside(source: Path) -> None:
    (source / "a.png").rename(source.parent / "elsewhere.png")
    (source / "a.png").symlink_to(source.parent / "elsewhere.png")


BROKEN = {
    "archive only": (put_npy, r"a_seg\.npy: a _seg\.npy file of Cellpose is a pickle"),
    "two label maps": (second_map, r"a\.png: several files of outlines"),
    "no image": (lose_image, r"a_cp_masks\.png: is a label map with no image beside it"),
    "a link": (link_outside, r"a\.png: is a link that leaves the folder"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_does_not_fit_is_refused_and_the_rest_can_be_imported(source: Path, name: str) -> None:
    break_it, reason = BROKEN[name]
    break_it(source)
    with pytest.raises(ImportRefusedError, match=reason):
        do_import(source)
    assert not (source.parent / "study").exists()
    assert do_import(source, skip_bad=True).cells["image_id"].tolist() == ["b"] * 3
