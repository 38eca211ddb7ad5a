"""Images with ImageJ's ROIs beside them become studies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.data.outlines.rois import archive, oval, polygon
from tests.sources import picture, write

from perikarya.data.importers import import_study, recognise
from perikarya.data.importers.base import ImportOptions, cell_digest, pixel_sha256
from perikarya.data.outlines.base import CellMask, Outline
from perikarya.data.outlines.roi import RoiCell, read_rois, write_rois
from perikarya.data.store import OpenStudy
from perikarya.errors import ImportRefusedError

HW = (90, 120)
RULES = "name:^n=normal,name:^p=pyknotic"


def rois(*names: str) -> bytes:
    """One oval per name, 12 px and up, side by side."""
    return archive(*((f"{name}.roi", oval(left=5 + 20 * i, width=12 + i)) for i, name in enumerate(names)))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Two images with three ROIs each, one called after the image, the other with a mark behind."""
    root = tmp_path / "src"
    for i, name in enumerate(("x0.zip", "x1_rois.zip")):
        write(root / f"x{i}.png", picture(i, HW))
        (root / name).write_bytes(rois("n-1", "p-1", "n-2"))
    return root


def do_import(source: Path, out: str = "study", **options: Any) -> OpenStudy:
    return import_study(
        source, source.parent / out, options=ImportOptions(**{"window": 40, "class_map": RULES} | options)
    )


def test_a_folder_of_images_and_rois_is_recognised(source: Path) -> None:
    assert recognise(source) == "imagej"


def test_a_folder_where_two_archives_lie_beside_an_image_is_recognised_and_refused(tmp_path: Path) -> None:
    write(tmp_path / "src" / "x.png", picture(0, HW))
    for name in ("x.zip", "x_rois.zip"):
        (tmp_path / "src" / name).write_bytes(rois("n-1"))
    assert recognise(tmp_path / "src") == "imagej"
    with pytest.raises(ImportRefusedError, match=r"x\.png: several files of outlines lie beside it"):
        do_import(tmp_path / "src")


def test_a_folder_of_images_with_one_roi_each_is_recognised(tmp_path: Path) -> None:
    write(tmp_path / "src" / "x.png", picture(0, HW))
    (tmp_path / "src" / "x.roi").write_bytes(oval())
    assert recognise(tmp_path / "src") == "imagej"
    assert do_import(tmp_path / "src", class_map="name:.=normal").cells["source"].tolist() == ["x.png#x"]


def test_rois_become_cells_of_the_class_that_their_name_means(source: Path) -> None:
    opened = do_import(source)
    assert opened.study.class_names == ("normal", "pyknotic")
    assert opened.cells["label"].tolist() == ["normal", "pyknotic", "normal"] * 2
    assert opened.cells["image_id"].tolist() == ["x0"] * 3 + ["x1"] * 3
    assert opened.cells["source"].tolist()[:3] == ["x0.png#n-1", "x0.png#p-1", "x0.png#n-2"]
    assert opened.cells["area_px"].tolist()[0] == 112  # ImageJ's own mask of an oval of 12 x 12 px
    assert (np.asarray(opened.crops)[0, ..., 3] > 0).sum() == 112


def test_a_cells_identity_is_that_of_its_pixels(source: Path) -> None:
    mask_hw = np.zeros((7, 9), np.uint8)
    mask_hw[1:6, 2:] = mask_hw[3, :] = 1
    mask_hw[0, 4] = mask_hw[6, 5] = 1
    write_rois(source / "x0.zip", [RoiCell(Outline("c", mask=CellMask(mask_hw, 33, 21)), "n")])
    digest = cell_digest(pixel_sha256(picture(0, HW)), mask_hw, offset_xy=(33, 21))
    assert digest in do_import(source).cells["cell_id"].tolist()


def test_what_a_study_keeps_gives_the_same_cells_again(source: Path) -> None:
    first = do_import(source)
    again = do_import(first.root / "fields", "again")
    assert again.cells["cell_id"].tolist() == first.cells["cell_id"].tolist()


def test_identity_survives_being_classified_and_written_back(source: Path) -> None:
    first = do_import(source)
    for path in source.glob("*.zip"):
        cells = [RoiCell(o, o.key, "#d55e00", "other", 1, {"other": 0.9}) for o in read_rois(path).outlines]
        write_rois(path, cells)
    again = do_import(source, "again", class_map=None)
    assert again.cells["cell_id"].tolist() == first.cells["cell_id"].tolist()
    assert again.cells["source"].tolist() == first.cells["source"].tolist()
    assert again.study.class_names == ("other",)


def test_rois_that_were_named_as_regions_hold_cells(source: Path) -> None:
    (source / "x0.zip").write_bytes(
        archive(("CA1.roi", polygon([(0, 0), (22, 0), (22, 90), (0, 90)])), ("n.roi", oval()), ("p.roi", oval(left=60)))
    )
    opened = do_import(source, class_map=f"{RULES},name:^CA=CA1", regions=("CA1",))
    assert opened.cells["region"].fillna("-").tolist() == ["CA1", "-", "-", "-", "-"]


def test_every_problem_names_image_and_roi_and_nothing_is_written(source: Path) -> None:
    line = bytearray(polygon([(0, 0), (22, 0), (22, 90)]))
    line[6] = 3
    (source / "x0.zip").write_bytes(archive(("n.roi", oval()), ("l.roi", bytes(line)), ("far.roi", oval(left=900))))
    (source / "x1_rois.zip").write_bytes(b"PK\x03\x04 and no more")
    (source / "alone.roi").write_bytes(oval())
    with pytest.raises(ImportRefusedError) as caught:
        do_import(source)
    reasons = dict(caught.value.problems)
    assert "it is a line" in reasons["x0.png#l"]
    assert "outside of the image" in reasons["x0.png#far"]
    assert "damaged" in reasons["x1_rois.zip"]
    assert "no image" in reasons["alone.roi"]
    assert not (source.parent / "study").exists()
    assert len(do_import(source, skip_bad=True).cells) == 1
