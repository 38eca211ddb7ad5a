from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from tests.sources import class_folders, picture

from perikarya.data.importers import import_study
from perikarya.data.importers.base import ImportOptions, SourceCell
from perikarya.data.importers.scale import parse_window, study_scale, with_scale
from perikarya.data.store import OpenStudy
from perikarya.errors import ConfigError, DataError

SCENE = picture(3, (240, 320))  # at 0.25 µm/px
BOXES = ((60, 80, 24), (180, 120, 32))  # x, y, side at 0.25 µm/px


def field(root: Path, name: str, um_per_px: float, *, tells: bool = True) -> Path:
    """The scene at a scale, with its outlines; as a TIFF that tells the scale or not."""
    factor = um_per_px / 0.25
    pixels = cv2.resize(SCENE, None, fx=1 / factor, fy=1 / factor, interpolation=cv2.INTER_AREA)
    root.mkdir(parents=True, exist_ok=True)
    about = {"imagej": True, "resolution": (1 / um_per_px,) * 2, "metadata": {"unit": "um"}} if tells else {}
    tifffile.imwrite(root / f"{name}.tif", pixels, photometric="rgb", **about)
    features = []
    for x, y, side in BOXES:
        corners = np.array([(x, y), (x + side, y), (x + side, y + side), (x, y + side), (x, y)]) / factor
        geometry = {"type": "Polygon", "coordinates": [corners.tolist()]}
        properties = {"objectType": "detection", "classification": {"name": "normal"}}
        features.append({"type": "Feature", "geometry": geometry, "properties": properties})
    (root / f"{name}.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return root


def do_import(source: Path, **options: object) -> OpenStudy:
    return import_study(source, source.parent / "study", options=ImportOptions(**options))


def test_the_scale_of_a_study_comes_from_its_images(tmp_path: Path) -> None:
    opened = do_import(field(tmp_path / "src", "a", 0.5), window="20um")
    assert opened.study.um_per_px == 0.5
    assert opened.study.window_px == 40
    assert opened.study.window_um == 20
    assert opened.cells["um_per_px"].tolist() == [0.5, 0.5]
    assert opened.study.provenance["notes"] == []


def test_fields_of_several_scales_come_to_one_window_in_micrometres(tmp_path: Path) -> None:
    source = field(tmp_path / "src", "coarse", 0.5)
    field(source, "fine", 0.25)
    opened = do_import(source, window="20um")
    assert (opened.study.um_per_px, opened.study.window_px) == (0.5, 40)
    assert opened.cells["um_per_px"].tolist() == [0.5, 0.5, 0.25, 0.25]
    assert opened.cells["area_px"].tolist() == [12**2, 16**2, 24**2, 32**2]  # in pixels of the image
    crops = np.asarray(opened.crops).astype(int)
    np.testing.assert_array_equal(crops[:2, ..., 3], crops[2:, ..., 3])
    assert np.abs(crops[:2, ..., :3] - crops[2:, ..., :3]).max() <= 2  # the same tissue, rounded twice
    (note,) = opened.study.provenance["notes"]
    assert "several scales, 0.25 to 0.5 µm/px" in note
    assert "1 image(s) are shrunk (src/fine.tif)" in note


def test_development_and_external_sets_of_two_scales_share_one_window(tmp_path: Path) -> None:
    opened = do_import(field(tmp_path / "src", "a", 0.25), external=field(tmp_path / "other", "b", 0.5), window=40)
    crops = np.asarray(opened.crops).astype(int)
    assert opened.study.um_per_px == 0.5
    assert np.abs(crops[:2] - crops[2:])[..., :3].max() <= 2


def test_the_window_that_is_chosen_by_itself_is_as_large_in_micrometres_at_every_scale(tmp_path: Path) -> None:
    coarse = do_import(field(tmp_path / "a" / "src", "a", 0.5))
    mixed = do_import(field(field(tmp_path / "b" / "src", "a", 0.5), "b", 0.25))
    assert mixed.study.window_px == coarse.study.window_px == 20
    fine = do_import(field(tmp_path / "c" / "src", "a", 0.25))
    assert fine.study.window_px == 40


def test_images_that_do_not_tell_their_scale_have_the_one_given(tmp_path: Path) -> None:
    source = field(field(tmp_path / "src", "silent", 0.25, tells=False), "tells", 0.5)
    with pytest.raises(DataError, match=r"1 of 2 images do not tell their scale \(src/silent\.tif\)") as e:
        do_import(source, window=40)
    assert "the others do (0.5 µm/px)" in str(e.value)
    assert not (tmp_path / "study").exists()
    opened = do_import(source, window=40, um_per_px=0.25)
    assert opened.cells["um_per_px"].tolist() == [0.25, 0.25, 0.5, 0.5]
    crops = np.asarray(opened.crops).astype(int)
    assert np.abs(crops[:2] - crops[2:])[..., :3].max() <= 2


def test_what_images_tell_holds_against_what_a_person_says_and_that_is_noted(tmp_path: Path) -> None:
    opened = do_import(field(tmp_path / "src", "a", 0.5), um_per_px=0.4)
    assert opened.study.um_per_px == 0.5
    (note,) = opened.study.provenance["notes"]
    assert "1 image(s) tell 0.5 µm/px, not the 0.4 of --um-per-px; what they tell holds (src/a.tif)." in note


def test_without_any_scale_nothing_is_resampled_and_none_is_written(tmp_path: Path) -> None:
    source = field(field(tmp_path / "src", "a", 0.25, tells=False), "b", 0.5, tells=False)
    opened = do_import(source, window=40)
    assert opened.study.um_per_px is None
    assert opened.cells["um_per_px"].isna().all()
    assert (np.asarray(opened.crops)[..., 3] > 0).sum(axis=(1, 2)).tolist() == opened.cells["area_px"].tolist()
    with pytest.raises(ConfigError, match="needs the scale of the images, which do not tell it"):
        import_study(source, tmp_path / "other", options=ImportOptions(window="20um"))


def test_class_folders_have_the_scale_a_person_gives(tmp_path: Path) -> None:
    opened = do_import(class_folders(tmp_path / "src"), um_per_px=0.5, window="15um")
    assert (opened.study.um_per_px, opened.study.window_px) == (0.5, 30)
    assert (opened.cells["um_per_px"] == 0.5).all()


def cell(source: str, um_per_px: float | None) -> SourceCell:
    words = {"label": None, "subject": None, "region": None, "group": None}
    numbers = {"x_px": 0, "y_px": 0, "area_px": 1, "bbox_xywh": (0, 0, 1, 1), "image_hw": (9, 9)}
    rest = {"image_id": "a", "image_sha256": "", "digest": "", "set": "development"}
    return SourceCell(source=source, um_per_px=um_per_px, **words, **numbers, **rest)


def test_scales_within_a_percent_are_one_scale() -> None:
    cells = [cell("a.png#1", 0.25), cell("b.png#1", 0.252)]
    assert study_scale([Path("s")], [cells], given=None) == (0.252, [])


def test_images_count_not_cells() -> None:
    cells = [cell("a.png#1", 0.25), cell("a.png#2", 0.25), cell("b.png#1", 0.5)]
    _, notes = study_scale([Path("s")], [cells], given=None)
    assert "those of 1 image(s) are shrunk (s/a.png)" in notes[0]


def test_scales_that_no_two_objectives_have_are_refused() -> None:
    cells = [cell("a.png#1", 0.25), cell("b.png#1", 352.8)]
    with pytest.raises(DataError, match=r"differ 1411-fold: 0\.25 µm/px \(s/a\.png\) to 352\.8 µm/px \(s/b\.png\)"):
        study_scale([Path("s")], [cells], given=None)
    assert study_scale([Path("s")], [[cell("a.png#1", 0.25), cell("b.png#1", 2.5)]], given=None)[0] == 2.5


def test_a_given_scale_is_for_cells_whose_image_tells_none() -> None:
    cells = [cell("a.png#1", 0.25), cell("b.png#1", None)]
    assert [c.um_per_px for c in with_scale(cells, 0.5)] == [0.25, 0.5]
    assert [c.um_per_px for c in with_scale(cells, None)] == [0.25, None]


@pytest.mark.parametrize(
    ("window", "um_per_px", "px"),
    [(80, None, 80), ("80", None, 80), ("80px", 0.5, 80), ("40um", 0.5, 80), ("40 µm", 0.33, 121), ("40μm", 0.5, 80)],
)
def test_a_window_is_given_in_pixels_or_micrometres(window: str, um_per_px: float | None, px: int) -> None:
    assert parse_window(window, um_per_px) == px


@pytest.mark.parametrize("window", ["4", "80.5", "4000", "80mm", "-80", "", "nan"])
def test_a_window_that_makes_no_sense_is_refused_before_anything_is_read(tmp_path: Path, window: str) -> None:
    (tmp_path / "src").mkdir()
    with pytest.raises(ConfigError, match="--window"):
        do_import(tmp_path / "src", window=window)
