"""A window has one size, is never stretched, and continues a picture by reflection but a mask by nothing."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from tests.tiny import make_study

from perikarya.data.store import CropWriter, new_study_folder, open_study
from perikarya.data.windows import cut_window
from perikarya.errors import DataError


def picture(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Every pixel differs from all others, so that a shift cannot go unseen."""
    image = np.zeros((height, width, 3), np.uint8)
    image[..., 0] = np.arange(width)
    image[..., 1] = np.arange(height)[:, None]
    mask = np.zeros((height, width), np.uint8)
    mask[: height // 2, : width // 2] = 1
    return image, mask


@pytest.mark.parametrize("centre_xy", [(3.0, 5.0), (38.0, 2.0), (20.0, 29.0), (0.0, 0.0)])
def test_a_window_that_fits_is_shifted_into_the_picture_and_shows_it_unchanged(centre_xy: tuple[float, float]) -> None:
    image, mask = picture(30, 40)
    crop = cut_window(image, mask, centre_xy=centre_xy, window_px=16, keep_inside=True)
    left, top = int(crop[0, 0, 0]), int(crop[0, 0, 1])
    np.testing.assert_array_equal(crop[..., :3], image[top : top + 16, left : left + 16])
    np.testing.assert_array_equal(crop[..., 3] > 0, mask[top : top + 16, left : left + 16] > 0)
    assert abs(left + 8 - np.clip(centre_xy[0], 8, 32)) <= 0.5
    assert abs(top + 8 - np.clip(centre_xy[1], 8, 22)) <= 0.5


def test_a_crop_of_the_windows_size_comes_in_pixel_for_pixel() -> None:
    image, mask = picture(24, 24)
    crop = cut_window(image, mask, centre_xy=(4.0, 20.0), window_px=24, keep_inside=True)
    np.testing.assert_array_equal(crop[..., :3], image)


def test_in_a_field_the_cell_stays_in_the_middle() -> None:
    image, mask = picture(30, 40)
    crop = cut_window(image, mask, centre_xy=(2.0, 3.0), window_px=16, keep_inside=False)
    np.testing.assert_array_equal(crop[5:, 6:, :3], image[:11, :10])
    np.testing.assert_array_equal(crop[8, :6, 0], image[3, 6:0:-1, 0])  # reflected
    assert (crop[:5, :, 3] == 0).all()
    assert (crop[:, :6, 3] == 0).all(), "a reflected piece of mask would be a cell that is not there"
    assert set(np.unique(crop[..., 3])) == {0, 255}


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (5, 3), (16, 2)])
def test_a_picture_far_smaller_than_the_window_is_padded_on_both_sides(size: tuple[int, int]) -> None:
    image, mask = picture(*size)
    crop = cut_window(image, mask, centre_xy=(size[1] / 2, size[0] / 2), window_px=16, keep_inside=True)
    top, left = -((size[0] - 16) // 2), -((size[1] - 16) // 2)
    np.testing.assert_array_equal(crop[top : top + size[0], left : left + size[1], :3], image)


def test_a_window_beside_the_picture_is_refused() -> None:
    image, mask = picture(30, 40)
    with pytest.raises(DataError, match="outside the image"):
        cut_window(image, mask, centre_xy=(100.0, 5.0), window_px=16, keep_inside=False)


def test_as_many_crops_are_written_as_were_announced(tmp_path: Path) -> None:
    crop = np.zeros((8, 8, 4), np.uint8)
    with (
        pytest.raises(ValueError, match="1 crops were written, 2"),
        CropWriter(tmp_path / "c.npy", n_cells=2, window_px=8) as writer,
    ):
        writer.append(crop)
    with CropWriter(tmp_path / "c.npy", n_cells=1, window_px=8) as writer:
        with pytest.raises(ValueError, match="expected a uint8 crop"):
            writer.append(crop[:4])
        writer.append(crop)
    assert np.load(tmp_path / "c.npy").shape == (1, 8, 8, 4)


def test_a_study_that_fails_on_the_way_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), new_study_folder(tmp_path / "study") as folder:
        (folder / "half").write_text(f"{1 / 0}")
    assert list(tmp_path.iterdir()) == []


def test_only_a_study_is_overwritten_and_only_when_asked(tmp_path: Path) -> None:
    make_study(tmp_path / "study")
    with pytest.raises(DataError, match="exists already"), new_study_folder(tmp_path / "study"):
        pass
    (tmp_path / "letters").mkdir()
    refused = pytest.raises(DataError, match="is not the folder of a study")
    with refused, new_study_folder(tmp_path / "letters", overwrite=True):
        pass


def test_reading_crops_copies_them_in_the_order_asked_for(tmp_path: Path) -> None:
    opened = open_study(make_study(tmp_path / "study").root)
    rows = np.array([5, 0, 5])
    copied = opened.read_crops(rows)
    np.testing.assert_array_equal(copied, np.asarray(opened.crops)[rows])
    assert copied.flags.writeable


def test_the_data_hash_changes_with_what_training_depends_on_and_not_with_the_rest(tmp_path: Path) -> None:
    opened = make_study(tmp_path / "a")
    assert opened.data_hash == make_study(tmp_path / "b").data_hash
    assert opened.data_hash != make_study(tmp_path / "c", seed=1).data_hash
    relabelled = open_study(tmp_path / "a")
    relabelled.cells.loc[0, "label"] = "small" if relabelled.cells.loc[0, "label"] != "small" else "large"
    assert relabelled.data_hash != opened.data_hash
    renamed = open_study(tmp_path / "a")
    renamed.cells["source"] = "elsewhere"
    assert renamed.data_hash == opened.data_hash


def test_crops_that_are_no_array_are_named_with_the_way_out(tmp_path: Path) -> None:
    make_study(tmp_path / "study", cells_per_subject=1)
    path = tmp_path / "study" / "crops.npy"
    path.write_bytes(b"no array")
    with pytest.raises(DataError, match=rf"{re.escape(str(path))} is damaged .*\nFix: import the study again"):
        open_study(tmp_path / "study")
