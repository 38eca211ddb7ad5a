"""ImageJ itself opens what we write, and we read what it saves; run with -m imagej."""

from __future__ import annotations

import csv
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from scipy import ndimage

from perikarya.data.outlines.base import CellMask, Outline
from perikarya.data.outlines.raster import mask_of
from perikarya.data.outlines.roi import RoiCell, read_rois, write_rois

pytestmark = pytest.mark.imagej

MACROS = Path(__file__).parent
FIXTURES = MACROS.parent / "data" / "outlines"
JAR = Path("/usr/share/java/ij.jar")  # Debian's package imagej
COLOURS = ("#0072b2", "#e69f00", "#a50026")

Macro = Callable[[str, str], None]


@pytest.fixture(scope="session")
def imagej() -> Macro:
    """Run a macro of this folder; the ROI manager is a window, so it needs a screen, if only a virtual one."""
    missing = [name for name in ("java", "xvfb-run") if shutil.which(name) is None]
    if missing or not JAR.is_file():
        pytest.skip(f"no ImageJ here: {', '.join([*missing, *([] if JAR.is_file() else [str(JAR)])])} missing")

    def run(macro: str, argument: str) -> None:
        command = ["xvfb-run", "-a", "java", "-jar", str(JAR), "-batch", str(MACROS / macro), argument]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
        assert "Exception" not in done.stdout + done.stderr

    return run


def opened(
    imagej: Macro, folder: Path, cells: list[RoiCell], hw: tuple[int, int]
) -> tuple[list[dict[str, str]], np.ndarray]:
    """What ImageJ tells of each ROI of an archive of these cells, and the map of their pixels."""
    write_rois(folder / "rois.zip", cells)
    places = folder / "rois.zip", hw[1], hw[0], folder / "map.tif", folder / "table.tsv"
    imagej("list_rois.ijm", "|".join(map(str, places)))
    with (folder / "table.tsv").open(encoding="utf-8", newline="") as handle:
        rows = list(csv.DictReader(handle, delimiter="\t"))
    return rows, tifffile.imread(folder / "map.tif")


def full(mask: CellMask, hw: tuple[int, int]) -> np.ndarray:
    pixels = np.zeros(hw, bool)
    height, width = mask.mask_hw.shape
    pixels[mask.y : mask.y + height, mask.x : mask.x + width] = mask.mask_hw
    return pixels


def test_imagej_opens_real_cells_with_names_classes_colours_and_every_pixel(
    imagej: Macro, rbc: Path, tmp_path: Path
) -> None:
    labels = tifffile.imread(sorted((rbc / "fields").glob("*_labels.tif"))[0])
    boxes = ndimage.find_objects(labels)
    numbers = [n for n, box in enumerate(boxes, 1) if box is not None]
    cells = []
    for n in numbers:
        rows, columns = boxes[n - 1]
        outline = Outline(
            str(n), mask=CellMask((labels[rows, columns] == n).astype(np.uint8), columns.start, rows.start)
        )
        shares = {"normal": n / 1000, "mild damage": 1 - n / 1000}
        cells.append(RoiCell(outline, f"cell {n}", COLOURS[n % 3], ("normal", "geschädigt")[n % 2], n % 3 + 1, shares))
    rows, pixels = opened(imagej, tmp_path, cells, labels.shape)
    assert len(rows) == len(cells) > 50
    assert [row["name"] for row in rows] == [cell.name for cell in cells]
    assert [row["colour"] for row in rows] == [cell.colour for cell in cells]
    assert [row["class"] for row in rows] == [cell.class_name for cell in cells]
    assert [float(row["probability"]) for row in rows] == [round(n / 1000, 4) for n in numbers]
    assert [int(row["area"]) for row in rows] == [int((labels == n).sum()) for n in numbers]
    wanted = np.zeros(labels.shape, np.uint16)
    for i, n in enumerate(numbers, 1):
        wanted[labels == n] = i
    assert (pixels == wanted).all()


def test_imagej_fills_holes_parts_fractions_and_far_places_as_we_do(imagej: Macro, tmp_path: Path) -> None:
    hw = (60, 200_100)
    y, x = np.mgrid[:30, :30]
    mask_hw = ((x - 15) ** 2 + (y - 15) ** 2 < 180).astype(np.uint8)
    mask_hw[12:17, 10:19] = mask_hw[29, :] = 0
    mask_hw[13, 12] = mask_hw[0, 0] = 1  # a part in the hole, a part apart
    turn = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    circle = np.stack([12.3 * np.cos(turn), 30 + 11.7 * np.sin(turn)], axis=1)
    places = (100, 32_760, 60_500, 65_530, 100_000, 200_000)
    cells = [RoiCell(Outline(f"m{x}", mask=CellMask(mask_hw, x, 7)), f"m{x}") for x in places]
    solid = (mask_hw | ndimage.binary_fill_holes(mask_hw)).astype(np.uint8)[1:]
    cells += [RoiCell(Outline(f"s{x}", mask=CellMask(solid, x + 35, 8)), f"s{x}") for x in places]
    cells += [RoiCell(Outline(f"c{x}", (circle + np.array([x + 0.12, 0]),)), f"c{x}") for x in (1000, 99_000)]
    rows, pixels = opened(imagej, tmp_path, cells, hw)
    assert {row["type"] for row in rows} == {"composite", "traced", "polygon"}
    for i, cell in enumerate(cells, 1):
        differs = (pixels == i) != full(mask_of(cell.outline, height=hw[0], width=hw[1]), hw)
        assert np.count_nonzero(differs) <= (2 if cell.name == "c99000" else 0), cell.name  # 32-bit fractions there


def test_imagej_knows_the_group_of_an_roi_without_a_colour(imagej: Macro, tmp_path: Path) -> None:
    outline = Outline("a", mask=CellMask(np.ones((5, 5), np.uint8), 3, 3))
    cells = [RoiCell(outline, "a", group=2), RoiCell(outline, "b", "#a50026", group=2)]
    rows, _ = opened(imagej, tmp_path, cells, (20, 20))
    assert [(row["group"], row["colour"] == "#a50026") for row in rows] == [("2", False), ("0", True)]


def test_imagej_makes_what_the_fast_tests_read(imagej: Macro, tmp_path: Path) -> None:
    imagej("make_rois.ijm", f"{tmp_path}/")
    made, kept = (read_rois(folder / "imagej_selections.zip") for folder in (tmp_path, FIXTURES))
    assert [outline.key for outline in made.outlines] == [outline.key for outline in kept.outlines]
    for one, two in zip(made.outlines, kept.outlines, strict=True):
        assert all((a == b).all() for a, b in zip(one.rings, two.rings, strict=True))
    montages = [cv2.imread(str(folder / "imagej_selections.png"), 0) for folder in (tmp_path, FIXTURES)]
    assert (montages[0] == montages[1]).all()


def test_imagej_opens_again_what_it_saved_itself_and_we_classified(imagej: Macro, tmp_path: Path) -> None:
    outlines = read_rois(FIXTURES / "imagej_selections.zip").outlines
    cells = [RoiCell(outline, outline.key, "#a50026", "pyknotic") for outline in outlines]
    rows, _ = opened(imagej, tmp_path, cells, (90, 120))
    assert [row["name"] for row in rows] == [outline.key for outline in outlines]
    assert {(row["colour"], row["class"]) for row in rows} == {("#a50026", "pyknotic")}
    assert {row["type"] for row in rows} == {
        "oval",
        "rectangle",
        "polygon",
        "freehand",
        "traced",
        "composite",
    }
    montage = cv2.imread(str(FIXTURES / "imagej_selections.png"), 0) > 0
    areas = [int(montage[90 * i : 90 * (i + 1)].sum()) for i in range(24)]
    assert [int(row["area"]) for row in rows[:24]] == areas
