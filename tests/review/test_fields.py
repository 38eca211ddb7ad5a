"""Fields: tiles show the image's own pixels, outlines its own cells, and nothing outside the study."""

from __future__ import annotations

import math
import os
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from tests.outlined import FIELDS, HW, label_maps
from tests.review.test_field_outlines import overlap
from tests.sources import picture, write
from tests.tiny import make_study

from perikarya.data.importers import import_study
from perikarya.data.importers.base import ImportOptions
from perikarya.data.store import OpenStudy, open_study, save_tables
from perikarya.errors import DataError
from perikarya.review import fields as fields_module
from perikarya.review.fields import Fields, NoSuchTileError


@pytest.fixture
def opened(tmp_path: Path) -> OpenStudy:
    return import_study(label_maps(tmp_path / "src"), tmp_path / "study", options=ImportOptions(window=24))


def decoded(tile: bytes) -> np.ndarray:
    """RGB of a JPEG."""
    assert tile.startswith(b"\xff\xd8\xff")
    return cv2.imdecode(np.frombuffer(tile, np.uint8), cv2.IMREAD_COLOR)[..., ::-1].astype(int)


def with_image(opened: OpenStudy, pixels: np.ndarray, *, name: str = "f0.png") -> Fields:
    """Put another image in the place of a field."""
    path = opened.root / "fields" / name
    path.unlink(missing_ok=True)
    write(path, pixels)
    return Fields(opened)


def with_source(opened: OpenStudy, source: str) -> OpenStudy:
    """Name another source for the cells of the first field."""
    cells = opened.cells.copy()
    cells.loc[cells["image_id"] == "f0", "source"] = [f"{source}#{i}" for i in range(3)]
    save_tables(opened.root, opened.study, cells)
    return open_study(opened.root)


def test_every_cell_is_found_in_its_field_with_its_present_label(opened: OpenStudy) -> None:
    fields = Fields(opened)
    assert fields.count == len(FIELDS)
    labels = np.array([2, 1, 0, -1, 0, 1])
    for i, name in enumerate(FIELDS):
        found = fields.describe(i, labels)
        assert (found["field"], found["image_id"], found["width"], found["height"]) == (i, name, HW[1], HW[0])
        assert [c["row"] for c in found["cells"]] == [3 * i, 3 * i + 1, 3 * i + 2]
        assert [c["label"] for c in found["cells"]] == labels[3 * i : 3 * i + 3].tolist()
        masks = tifffile.imread(opened.root / "fields" / f"{name}_labels.tif")
        for cell in found["cells"]:
            assert fields.index_of(cell["row"]) == i
            assert overlap(cell["path"], masks == cell["row"] % 3 + 1) > 0.97


def test_real_outlines_agree_with_the_label_maps_they_were_imported_from(rbc: Path, tmp_path: Path) -> None:
    source = tmp_path / "src"
    source.mkdir()
    names = ("smear002", "smear106")
    for name in names:
        for file in (f"{name}.jpg", f"{name}_labels.tif"):
            shutil.copy(rbc / "fields" / file, source / file)
    lines = (rbc / "fields" / "cells.csv").read_text().splitlines()
    (source / "cells.csv").write_text("\n".join([lines[0], *(ln for ln in lines if ln.startswith(names))]) + "\n")
    opened = import_study(source, tmp_path / "study")
    fields = Fields(opened)
    overlaps = []
    for i, name in enumerate(names):
        masks = tifffile.imread(source / f"{name}_labels.tif")
        for cell in fields.describe(i, opened.labels)["cells"]:
            number = int(opened.cells["source"][cell["row"]].rpartition("#")[2])
            overlaps.append(overlap(cell["path"], masks == number))
    assert len(overlaps) > 100
    assert min(overlaps) > 0.95
    tile = decoded(fields.tile(0, 2, 1, 1))
    image = cv2.imread(str(source / "smear002.jpg"))[..., ::-1].astype(int)
    assert np.abs(tile - image[256:480, 256:512]).mean() < 3


@pytest.mark.parametrize("hw", [(40, 48), (256, 256), (257, 300), (700, 1100), (1, 5000)])
def test_tiles_of_every_level_together_are_the_image(
    opened: OpenStudy, hw: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    y, x = np.mgrid[: hw[0], : hw[1]]
    waves = [np.sin(x / 240) + np.cos(y / 130), np.cos(x / 350 + y / 160), np.sin(x / 290 - y / 145)]
    pixels = np.stack([128 + 50 * wave for wave in waves], axis=2).astype(np.uint8)
    monkeypatch.setattr(fields_module, "_BAND_PX", 100 * hw[1])
    fields = with_image(opened, pixels)
    described = fields.describe(0, opened.labels)
    n_levels = described["n_levels"]
    assert max(hw) <= 256 * 2 ** (n_levels - 1)
    assert n_levels == 1 or max(hw) > 256 * 2 ** (n_levels - 2)
    for level in range(described["min_level"], n_levels):
        shrink = 2 ** (n_levels - 1 - level)
        wide, high = math.ceil(hw[1] / shrink), math.ceil(hw[0] / shrink)
        rows = [
            np.hstack([decoded(fields.tile(0, level, x, y)) for x in range(math.ceil(wide / 256))])
            for y in range(math.ceil(high / 256))
        ]
        whole = np.vstack(rows)
        assert whole.shape == (high, wide, 3)
        expected = cv2.resize(pixels, (wide, high), interpolation=cv2.INTER_AREA).astype(int)
        assert np.abs(whole - expected).mean() < 3


@pytest.mark.parametrize(
    "place", [(9, 0, 0, 0), (-1, 0, 0, 0), (0, 1, 0, 0), (0, -1, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1), (0, 0, -1, 0)]
)
def test_what_is_not_there_is_refused(opened: OpenStudy, place: tuple[int, int, int, int]) -> None:
    with pytest.raises(NoSuchTileError):
        Fields(opened).tile(*place)


def test_a_field_that_is_not_there_is_refused(opened: OpenStudy) -> None:
    for i in (2, -1):
        with pytest.raises(NoSuchTileError, match=f"no field {i}"):
            Fields(opened).describe(i, opened.labels)


@pytest.mark.parametrize("source", ["../../secret.png", "../secret.png", "a/../../../secret.png", "\0.png", "", "."])
def test_no_source_leads_out_of_the_images_of_a_study(opened: OpenStudy, tmp_path: Path, source: str) -> None:
    for place in (tmp_path, opened.root, opened.root / "fields"):
        write(place / "secret.png", picture(1, HW))
    (opened.root / "fields" / "secret.png").unlink()
    fields = Fields(with_source(opened, source))
    assert fields.count == 1
    assert fields.index_of(0) is None


def test_an_absolute_source_is_not_served(opened: OpenStudy, tmp_path: Path) -> None:
    secret = write(tmp_path / "secret.png", picture(1, HW))
    assert Fields(with_source(opened, str(secret))).count == 1


def test_a_link_out_of_the_study_is_not_followed(opened: OpenStudy, tmp_path: Path) -> None:
    secret = write(tmp_path / "secret.png", picture(1, HW))
    image = opened.root / "fields" / "f0.png"
    image.unlink()
    image.symlink_to(secret)
    assert Fields(opened).count == 1
    image.unlink()
    image.symlink_to(image)
    assert Fields(opened).count == 1


def test_a_linked_folder_of_fields_is_not_followed(opened: OpenStudy, tmp_path: Path) -> None:
    (opened.root / "fields").rename(tmp_path / "elsewhere")
    (opened.root / "fields").symlink_to(tmp_path / "elsewhere")
    assert Fields(opened).count == 0


def test_an_image_that_becomes_a_link_while_the_page_is_open_is_not_followed(opened: OpenStudy, tmp_path: Path) -> None:
    fields = Fields(opened)
    secret = write(tmp_path / "secret.png", picture(1, HW))
    image = opened.root / "fields" / "f0.png"
    image.unlink()
    image.symlink_to(secret)
    with pytest.raises(DataError, match="cannot be shown"):
        fields.tile(0, 0, 0, 0)


def test_a_linked_study_shows_its_fields(opened: OpenStudy, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(opened.root)
    assert Fields(open_study(tmp_path / "link")).tile(0, 0, 0, 0)


def test_images_the_study_does_not_keep_have_no_field(opened: OpenStudy) -> None:
    (opened.root / "fields" / "f1.png").unlink()
    fields = Fields(opened)
    assert fields.count == 1
    assert [fields.index_of(row) for row in range(6)] == [0, 0, 0, None, None, None]


def test_single_pictures_of_cells_have_no_field(tmp_path: Path) -> None:
    assert Fields(make_study(tmp_path / "tiny", cells_per_subject=2)).count == 0


def test_the_external_image_of_the_same_name_is_another_field(tmp_path: Path) -> None:
    development, external = label_maps(tmp_path / "src"), label_maps(tmp_path / "ext")
    write(external / "f0.png", 255 - picture(0, HW))
    write(external / "f1.png", 255 - picture(1, HW))
    options = ImportOptions(window=24, external=external)
    opened = import_study(development, tmp_path / "study", options=options)
    fields = Fields(opened)
    assert fields.count == 4
    for row in (0, 6):
        i = fields.index_of(row)
        assert i is not None
        middle = decoded(fields.tile(i, 0, 0, 0))
        expected = picture(0, HW) if row == 0 else 255 - picture(0, HW)
        assert np.abs(middle - expected.astype(int)).mean() < 25
        assert [c["row"] for c in fields.describe(i, opened.labels)["cells"]] == [row, row + 1, row + 2]


def test_a_damaged_image_gives_a_sentence(opened: OpenStudy) -> None:
    path = opened.root / "fields" / "f0.png"
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content[:200])
    with pytest.raises(DataError, match=r"f0\.png of the study cannot be shown: .*\n.*\nFix|f0\.png.*cannot be shown"):
        Fields(opened).tile(0, 0, 0, 0)


def test_a_named_pipe_is_no_image(opened: OpenStudy) -> None:
    path = opened.root / "fields" / "f0.png"
    path.unlink()
    os.mkfifo(path)
    assert Fields(opened).count == 1


def test_images_of_16_bits_are_shown_as_their_crops(tmp_path: Path) -> None:
    source = label_maps(tmp_path / "src")
    for name in FIELDS:
        grey = picture(3, HW)[..., 0].astype(np.uint16) * 16  # 12 bits
        (source / f"{name}.png").unlink()
        write(source / f"{name}.png", grey)
    opened = import_study(source, tmp_path / "study", options=ImportOptions(window=24))
    assert opened.study.provenance["bits_of_16bit_images"] == 12
    tile = decoded(Fields(opened).tile(0, 0, 0, 0))
    assert np.abs(tile[..., 0] - picture(3, HW)[..., 0]).mean() < 6


def test_a_large_image_is_read_by_window_and_not_shrunk_whole(
    opened: OpenStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("perikarya.data.pictures.SMALL_PIXELS", 1)
    monkeypatch.setattr(fields_module, "_MOST_READ_PX", 512)
    pixels = cv2.GaussianBlur(picture(2, (700, 1100)), (0, 0), 3)
    path = opened.root / "fields" / "f0.png"
    path.unlink()
    tifffile.imwrite(path, pixels, photometric="rgb", tile=(64, 64))
    fields = Fields(opened)
    described = fields.describe(0, opened.labels)
    assert (described["n_levels"], described["min_level"]) == (4, 2)
    with pytest.raises(NoSuchTileError):
        fields.tile(0, 1, 0, 0)
    tile = decoded(fields.tile(0, 2, 1, 0))
    expected = cv2.resize(pixels[:512, 512:1024], (256, 256), interpolation=cv2.INTER_AREA).astype(int)
    assert np.abs(tile - expected).mean() < 3
    fields.close()


def test_few_pictures_stay_open(opened: OpenStudy, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    really = fields_module.open_picture
    monkeypatch.setattr(
        fields_module, "open_picture", lambda path, **options: (seen.append(path.name), really(path, **options))[1]
    )
    monkeypatch.setattr(fields_module, "_MOST_OPEN_BYTES", 3 * HW[0] * HW[1])
    monkeypatch.setattr(fields_module, "_MOST_TILES", 1)
    fields = Fields(opened)
    for i in (0, 0, 1, 1, 0):
        fields.tile(i, 0, 0, 0)
    assert seen == ["f0.png", "f1.png", "f0.png"]
    monkeypatch.setattr(fields_module, "_MOST_OPEN_BYTES", 6 * HW[0] * HW[1])
    for i in (1, 0, 1):
        fields.tile(i, 0, 0, 0)
    assert len(seen) == 4


def test_outlines_of_very_many_cells_have_fewer_points(opened: OpenStudy, monkeypatch: pytest.MonkeyPatch) -> None:
    fine = Fields(opened).describe(0, opened.labels)["cells"]
    asked: list[bool] = []
    really = fields_module.outline_path
    monkeypatch.setattr(
        fields_module, "outline_path", lambda *a, fine, **o: (asked.append(fine), really(*a, fine=fine, **o))[1]
    )
    monkeypatch.setattr(fields_module, "_MOST_EXACT", 2)
    monkeypatch.setattr(fields_module, "_CELLS_AT_ONCE", 2)
    assert Fields(opened).describe(0, opened.labels)["cells"] == fine  # these are rectangles
    assert asked == [False] * 3


def test_tiles_drawn_before_are_not_drawn_again(opened: OpenStudy, monkeypatch: pytest.MonkeyPatch) -> None:
    fields = Fields(opened)
    first = fields.tile(0, 0, 0, 0)
    monkeypatch.setattr(fields_module, "open_picture", None)
    fields.close()
    assert fields.tile(0, 0, 0, 0) is first
