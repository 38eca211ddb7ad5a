"""The same outlines through four formats are the same cells.

Outlines along the edges of pixels (traced masks) and drawn outlines with two decimals keep their ``cell_id`` through
GeoJSON, ROI archives, COCO polygons, COCO masks and label maps. ROIs whose corners were rounded to whole pixels, as
ImageJ's older tools save them, are other cells: much the same pixels (intersection over union from 0.9 on for cells of
these sizes) under other identities.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile
from numpy.typing import NDArray
from pycocotools import mask as coco_masks
from scipy import ndimage
from tests.sources import picture, write

from perikarya.data.images import read_rgb
from perikarya.data.importers import import_study, recognise
from perikarya.data.importers.base import ImportOptions
from perikarya.data.outlines.base import Outline
from perikarya.data.outlines.geojson import GeoCell, write_geojson
from perikarya.data.outlines.labels import boxes_of, cell_of, read_label_map
from perikarya.data.outlines.raster import mask_of
from perikarya.data.outlines.roi import RoiCell, write_rois
from perikarya.data.outlines.trace import rings_of
from perikarya.data.store import OpenStudy

CLASSES = ("normal", "intermediate", "pyknotic")
HW = (180, 240)


@dataclass(frozen=True)
class Field:
    """One image and its outlines with their classes."""

    name: str
    pixels: NDArray[np.uint8]
    outlines: tuple[Outline, ...]

    @property
    def hw(self) -> tuple[int, int]:
        return self.pixels.shape[0], self.pixels.shape[1]

    def masks(self) -> list[NDArray[np.uint8]]:
        """The whole image's pixels of each outline, 0 or 1."""
        whole = []
        for outline in self.outlines:
            mask = mask_of(outline, height=self.hw[0], width=self.hw[1])
            rows, columns = mask.mask_hw.shape
            whole.append(np.zeros(self.hw, np.uint8))
            whole[-1][mask.y : mask.y + rows, mask.x : mask.x + columns] = mask.mask_hw
        return whole


def drawn(seed: int, *, centre_xy: tuple[float, float], radius: float) -> NDArray[np.float64]:
    """A closed curve around a centre as a person draws it, corners with two decimals, shape (n, 2)."""
    rng = np.random.default_rng(seed)
    angles = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    waves = sum(rng.normal(0, 0.06) * np.cos(k * angles + rng.uniform(0, 6)) for k in (2, 3, 5))
    radii = radius * (1 + waves + rng.normal(0, 0.01, 40))
    return np.round(np.stack([np.cos(angles), np.sin(angles)], axis=1) * radii[:, None] + centre_xy, 2)


def drawn_field(name: str, seed: int) -> Field:
    """Twelve drawn cells that do not touch; one reaches beyond the image."""
    centres = [(28 + 60 * (i % 4), 28 + 62 * (i // 4)) for i in range(12)]
    centres[0] = (6, 28)
    rings = [drawn(100 * seed + i, centre_xy=centre, radius=12 + i) for i, centre in enumerate(centres)]
    outlines = tuple(Outline(str(i + 1), (ring,), label=CLASSES[i % 3]) for i, ring in enumerate(rings))
    return Field(name, picture(seed, HW), outlines)


def painted_field(name: str, seed: int) -> Field:
    """Cells as pixels: neighbours that touch, a hole, two pieces, a single pixel, the border of the image."""
    labels = np.zeros(HW, np.uint32)
    yy, xx = np.mgrid[: HW[0], : HW[1]]
    labels[(xx - 40) ** 2 + (yy - 40) ** 2 < 400] = 1
    labels[(labels == 0) & ((xx - 70) ** 2 + (yy - 40) ** 2 < 400)] = 2
    labels[((xx - 120) ** 2 + (yy - 90) ** 2 < 600) & ((xx - 120) ** 2 + (yy - 90) ** 2 > 60)] = 3
    labels[20:30, 150:160] = labels[35:40, 150:170] = 4
    labels[100, 30] = 5
    labels[150:, 200:] = 6
    labels[120:124, 60:64] = labels[124:128, 64:68] = 7  # meet in a corner
    labels[(labels == 0) & (ndimage.gaussian_filter(np.random.default_rng(seed).random(HW), 6) > 0.52) & (xx < 20)] = 8
    return Field(name, picture(seed + 50, HW), outlines_of(labels, CLASSES))


def outlines_of(labels: NDArray[np.uint32], classes: Sequence[str]) -> tuple[Outline, ...]:
    """The numbers of a label map as traced rings, classes in turn."""
    boxes = boxes_of(labels)
    traced = (rings_of(Outline("", mask=cell_of(labels, number, boxes[number]))) for number in boxes)
    return tuple(
        Outline(str(number), rings, label=classes[i % len(classes)])
        for i, (number, rings) in enumerate(zip(boxes, traced, strict=True))
    )


@pytest.fixture(scope="module")
def smears(rbc: Path) -> list[Field]:
    """A real smear with the outlines and classes of people."""
    folder = rbc / "fields"
    if not (folder / "cells.csv").is_file():
        pytest.skip(f"no whole fields at {folder}")
    table = pd.read_csv(folder / "cells.csv")
    fields = []
    for name in sorted(table["image"].unique())[:1]:
        rows = table[table["image"] == name].sort_values("label_id")
        labels = read_label_map(folder / f"{Path(name).stem}_labels.tif")
        labels[~np.isin(labels, rows["label_id"])] = 0
        fields.append(Field(name, read_rgb(folder / name), outlines_of(labels, rows["class"].tolist())))
    return fields


def put_image(root: Path, field: Field) -> None:
    write(root / f"{Path(field.name).stem}.png", field.pixels)


def as_geojson(root: Path, fields: Sequence[Field]) -> None:
    for field in fields:
        put_image(root, field)
        cells = [GeoCell(outline, outline.label, "#ff0000", key=outline.key) for outline in field.outlines]
        write_geojson(root / f"{Path(field.name).stem}.geojson", cells)


def as_rois(root: Path, fields: Sequence[Field]) -> None:
    for field in fields:
        put_image(root, field)
        cells = [RoiCell(outline, outline.key, class_name=outline.label) for outline in field.outlines]
        assert write_rois(root / f"{Path(field.name).stem}.zip", cells) == ()


def as_label_maps(root: Path, fields: Sequence[Field]) -> None:
    rows = []
    for field in fields:
        put_image(root, field)
        labels = np.zeros(field.hw, np.uint16)
        for outline, mask in zip(field.outlines, field.masks(), strict=True):
            assert not labels[mask > 0].any()
            labels[mask > 0] = int(outline.key)
            rows.append((f"{Path(field.name).stem}.png", outline.key, outline.label))
        tifffile.imwrite(root / f"{Path(field.name).stem}_labels.tif", labels, compression="zlib")
    pd.DataFrame(rows, columns=["image", "label_id", "class"]).to_csv(root / "cells.csv", index=False)


def as_coco(root: Path, fields: Sequence[Field], *, packed: bool) -> None:
    annotations = []
    for i, field in enumerate(fields):
        put_image(root, field)
        for outline, mask in zip(field.outlines, field.masks(), strict=True):
            box = mask[np.ix_(mask.any(axis=1), mask.any(axis=0))]
            has_hole = (ndimage.binary_fill_holes(box) != box).any()  # which polygons of COCO cannot say
            if packed or has_hole:
                counts = coco_masks.encode(np.asfortranarray(mask))["counts"].decode()
                segmentation: object = {"size": list(field.hw), "counts": counts}
            else:
                segmentation = [ring.ravel().tolist() for ring in outline.rings]
            told = {"image_id": i, "category_id": CLASSES_OF[outline.label], "segmentation": segmentation}
            annotations.append({"id": len(annotations), "iscrowd": 0, **told})
    images = [
        {"id": i, "file_name": f"{Path(f.name).stem}.png", "width": f.hw[1], "height": f.hw[0]}
        for i, f in enumerate(fields)
    ]
    categories = [{"id": number, "name": name} for name, number in CLASSES_OF.items()]
    told = {"images": images, "categories": categories, "annotations": annotations}
    (root / "annotations.json").write_text(json.dumps(told))


class _Numbers(dict[str | None, int]):
    def __missing__(self, name: str | None) -> int:
        self[name] = len(self) + 1
        return self[name]


CLASSES_OF: dict[str | None, int] = _Numbers()

FORMATS: dict[str, tuple[str, Callable[[Path, Sequence[Field]], None]]] = {
    "GeoJSON": ("geojson", as_geojson),
    "ROI archive": ("imagej", as_rois),
    "label map": ("labels", as_label_maps),
    "COCO polygons": ("coco", lambda root, fields: as_coco(root, fields, packed=False)),
    "COCO masks": ("coco", lambda root, fields: as_coco(root, fields, packed=True)),
}


def imported(root: Path) -> OpenStudy:
    return import_study(root, root.with_name(f"{root.name}-study"), options=ImportOptions(window=48))


def cells_of(opened: OpenStudy) -> pd.DataFrame:
    """What must agree, by identity: class, place, size and the window's bytes."""
    crops = np.asarray(opened.crops)
    frame = opened.cells[["cell_id", "label", "x_px", "y_px", "area_px", "image_sha256", "image_id"]].copy()
    frame["crop"] = [crop.tobytes() for crop in crops]
    return frame.sort_values("cell_id").reset_index(drop=True)


def written(root: Path, fields: Sequence[Field], name: str) -> OpenStudy:
    layout, write_it = FORMATS[name]
    root.mkdir()
    write_it(root, fields)
    assert recognise(root) == layout
    return imported(root)


def check_all_formats_agree(folder: Path, fields: Sequence[Field]) -> None:
    first = cells_of(written(folder / "first", fields, "GeoJSON"))
    assert len(first) == sum(len(field.outlines) for field in fields)
    assert first["cell_id"].is_unique
    for i, name in enumerate(FORMATS):
        pd.testing.assert_frame_equal(cells_of(written(folder / str(i), fields, name)), first)


def test_outlines_along_pixels_are_the_same_cells_in_every_format(tmp_path: Path) -> None:
    check_all_formats_agree(tmp_path, [painted_field("a", 1), painted_field("b", 2)])


def test_drawn_outlines_are_the_same_cells_in_every_format(tmp_path: Path) -> None:
    check_all_formats_agree(tmp_path, [drawn_field("a", 3), drawn_field("b", 4)])


def test_real_outlines_are_the_same_cells_in_every_format(smears: list[Field], tmp_path: Path) -> None:
    check_all_formats_agree(tmp_path, smears)


def test_masks_arrive_as_they_were(tmp_path: Path) -> None:
    field = painted_field("a", 1)
    opened = written(tmp_path / "a", [field], "COCO polygons")
    assert opened.cells["area_px"].tolist() == [int(mask.sum()) for mask in field.masks()]
    for row, mask in enumerate(field.masks()):
        crop = np.asarray(opened.crops[row, ..., 3]) > 0
        if mask.any(axis=0).sum() <= 40 >= mask.any(axis=1).sum():  # within the window
            rows, columns = np.nonzero(mask)
            crop_rows, crop_columns = np.nonzero(crop)
            assert (crop_rows - crop_rows[0] == rows - rows[0]).all()
            assert (crop_columns - crop_columns[0] == columns - columns[0]).all()


@pytest.mark.parametrize("name", FORMATS)
def test_names_of_files_and_folders_play_no_role(tmp_path: Path, name: str) -> None:
    fields = [drawn_field("a", 3), drawn_field("b", 4)]
    first = cells_of(written(tmp_path / "one", fields, name))
    again = cells_of(imported_again(tmp_path / "one"))
    pd.testing.assert_frame_equal(again, first)  # the same twice
    (tmp_path / "deep").mkdir()
    renamed = [Field("z", fields[0].pixels, fields[0].outlines), Field("k", fields[1].pixels, fields[1].outlines)]
    other = cells_of(written(tmp_path / "deep" / "änderer Name", renamed[::-1], name))
    pd.testing.assert_frame_equal(other.drop(columns="image_id"), first.drop(columns="image_id"))


def imported_again(root: Path) -> OpenStudy:
    return import_study(root, root.with_name("again"), options=ImportOptions(window=48))


@pytest.mark.parametrize("suffix", [".tif", ".bmp"])
def test_the_same_pixels_in_another_file_format_are_the_same_cells(tmp_path: Path, suffix: str) -> None:
    fields = [drawn_field("a", 3)]
    first = cells_of(written(tmp_path / "png", fields, "GeoJSON"))
    shutil.copytree(tmp_path / "png", tmp_path / "other")
    (tmp_path / "other" / "a.png").unlink()
    write(tmp_path / "other" / f"a{suffix}", fields[0].pixels)
    pd.testing.assert_frame_equal(cells_of(imported(tmp_path / "other")), first)


def test_a_real_jpeg_and_its_copy_as_png_hold_the_same_cells(rbc: Path, smears: list[Field], tmp_path: Path) -> None:
    (tmp_path / "jpeg").mkdir()
    as_geojson(tmp_path / "jpeg", smears[:1])
    first = cells_of(imported(tmp_path / "jpeg"))
    for path in (tmp_path / "jpeg").glob("*.png"):
        path.unlink()
    shutil.copyfile(rbc / "fields" / smears[0].name, tmp_path / "jpeg" / smears[0].name)
    pd.testing.assert_frame_equal(cells_of(imported_again(tmp_path / "jpeg")), first)


def test_other_pixels_are_other_cells(tmp_path: Path) -> None:
    field = drawn_field("a", 3)
    changed = field.pixels.copy()
    changed[-1, -1, 0] ^= 1
    first, second = (
        set(written(tmp_path / str(i), [Field("a", pixels, field.outlines)], "GeoJSON").cells["cell_id"])
        for i, pixels in enumerate((field.pixels, changed))
    )
    assert not first & second


def test_corners_rounded_to_whole_pixels_make_other_cells_of_much_the_same_pixels(tmp_path: Path) -> None:
    field = drawn_field("a", 3)
    rounded = tuple(Outline(o.key, (np.rint(o.rings[0]),), label=o.label) for o in field.outlines)
    whole = Field("a", field.pixels, rounded)
    first = cells_of(written(tmp_path / "drawn", [field], "ROI archive"))
    second = cells_of(written(tmp_path / "rounded", [whole], "ROI archive"))
    assert not set(first["cell_id"]) & set(second["cell_id"])
    for a, b in zip(field.masks(), whole.masks(), strict=True):
        assert (a & b).sum() >= 0.9 * (a | b).sum()


def test_single_precision_keeps_hundredths_of_a_pixel_far_into_a_slide() -> None:
    """ROIs hold 32-bit floats: exact to 1/100 px up to 65,536 px, which the tests of ``roi_write`` take up."""
    rng = np.random.default_rng(0)
    hundredths = rng.integers(0, 65_536 * 100, 200_000)
    as_floats = (hundredths / 100).astype(np.float32).astype(np.float64)
    assert (np.rint(as_floats * 100) == hundredths).all()
