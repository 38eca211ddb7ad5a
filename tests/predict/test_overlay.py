"""The picture for people: what is drawn where, in which colour, at which scale; and its legend."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from tests.predict.made import circle, made_field, made_manifest
from tests.sources import write

from perikarya.data.pictures import open_picture
from perikarya.palette import rgb
from perikarya.predict.outputs import overlay
from perikarya.predict.outputs.legend import LegendEntry, draw_legend, scale_bar
from perikarya.predict.outputs.overlay import View, dashes, legend_entries, read_view, view_of, write_overlay

GREY = (128, 128, 128)


def drawn(tmp_path: Path, **changes) -> np.ndarray:
    """The overlay of a field on plain grey, 120 x 160 px enlarged four times, as RGB."""
    write(tmp_path / "f1.png", np.full((120, 160, 3), 128, np.uint8))
    write_overlay(tmp_path / "o.png", made_field(tmp_path, **changes), made_manifest())
    return cv2.imread(str(tmp_path / "o.png"))[..., ::-1]


def near(picture: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    return (np.abs(picture.astype(int) - colour) < 12).all(axis=2)


def ring_share(picture: np.ndarray, colour: tuple[int, int, int], x: float, y: float) -> float:
    """Share of the points of a cell's outline that have a colour, in a picture enlarged four times."""
    points = np.rint(circle(x, y) * 4 - 0.5).astype(int)
    found = near(picture, colour)
    return np.mean([found[b - 1 : b + 2, a - 1 : a + 2].any() for a, b in points])


def test_cells_are_outlined_in_the_colour_of_their_class(tmp_path: Path) -> None:
    picture = drawn(tmp_path)
    blue, orange, red = (rgb(c) for c in made_manifest().class_colours)
    assert ring_share(picture, blue, 20, 20) > 0.95
    assert ring_share(picture, red, 60, 20) > 0.95
    assert ring_share(picture, red, 20, 20) == 0
    assert 0.3 < ring_share(picture, orange, 100, 20) < 0.9  # below the threshold: dashed


def test_the_field_is_left_as_it_is_away_from_outlines(tmp_path: Path) -> None:
    picture = drawn(tmp_path)
    assert picture.shape[1] == 640
    assert (picture[:480][400:] == GREY).all()
    inside = picture[4 * 20 - 8 : 4 * 20 + 8, 4 * 20 - 8 : 4 * 20 + 8]
    assert (inside == GREY).all()


def test_a_dot_in_the_colour_of_the_files_class_marks_disagreement(tmp_path: Path) -> None:
    picture = drawn(tmp_path)
    colours = made_manifest().class_colours
    assert near(picture, rgb(colours[1]))[80, 240]  # cell 1, pyknotic to the network, is intermediate in the file
    assert (picture[80, 80] == GREY).all()  # cell 0 agrees
    assert (picture[80, 560] == GREY).all()  # the class of cell 3 is none of the model


def test_an_outline_lies_where_the_pixels_of_the_cell_are(tmp_path: Path) -> None:
    field = made_field(tmp_path)
    write(tmp_path / "f1.png", np.full((120, 160, 3), 128, np.uint8))
    write_overlay(tmp_path / "o.png", field, made_manifest())
    picture = cv2.imread(str(tmp_path / "o.png"))[..., ::-1]
    line = near(picture[:480], rgb(made_manifest().class_colours[0]))[:, 480:]
    rows, columns = np.nonzero(line)  # cell 3: pixels 135 to 144 across, 15 to 24 down
    assert (columns.min() + columns.max() + 1) / 2 / 4 + 120 == pytest.approx(140, abs=0.25)
    assert (rows.min() + rows.max() + 1) / 2 / 4 == pytest.approx(20, abs=0.25)
    assert (columns.max() - columns.min() + 1) / 4 == pytest.approx(10, abs=0.8)


def test_dashes_are_equally_long_and_leave_gaps() -> None:
    found = dashes(np.array([[0.0, 0.0], [60, 0], [60, 60], [0, 60]]))
    assert len(found) == 20
    lengths = [np.hypot(*np.diff(dash, axis=0).T).sum() for dash in found]
    assert np.mean(lengths) == pytest.approx(7, abs=0.3)  # those at corners are cut a little shorter
    assert len(dashes(np.array([[0.0, 0.0], [1, 0], [1, 1]]))) == 2


def test_small_images_are_enlarged_and_large_ones_shrunk() -> None:
    assert view_of([], height=120, width=160) == View(0, 0, 160, 120, 4.0)
    assert view_of([], height=480, width=640) == View(0, 0, 640, 480, 2.0)
    assert view_of([], height=2000, width=4000) == View(0, 0, 4000, 2000, 1.0)
    assert view_of([], height=20_000, width=20_000) == View(0, 0, 20_000, 20_000, 1 / 5)
    assert view_of([], height=20_001, width=30) == View(0, 0, 30, 20_001, 1 / 6)


def test_of_a_large_image_the_part_with_cells_is_shown() -> None:
    rings = [(circle(10_000, 5000),), (circle(11_000, 5000),)]
    view = view_of(rings, height=40_000, width=50_000)
    assert view.scale == 1.0
    assert view.x < 9992
    assert view.x + view.width > 11_008
    assert view.width < 1300
    assert view_of(rings, height=3000, width=3000).width == 3000  # not of one that fits
    at_edge = view_of([(circle(5, 5),), (circle(39_999, 20_000),)], height=20_000, width=40_000)
    assert (at_edge.x, at_edge.y, at_edge.width, at_edge.height) == (0, 0, 40_000, 20_000)


def test_outlines_lie_on_their_cells_in_a_part_that_is_shrunk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = np.full((400, 500, 3), 128, np.uint8)
    monkeypatch.setattr(overlay, "MAX_SIDE", 100)
    at = (300.0, 250.0)
    pixels[246:254, 296:304] = 0  # the middle of the cell
    write(tmp_path / "f1.png", pixels)
    field = made_field(tmp_path, cells=((0, 0.9, False, None),), height=400, width=500)
    field = replace(field, outlines=(replace(field.outlines[0], mask=None, rings=(circle(*at, radius=40),)),))
    write_overlay(tmp_path / "o.png", field, made_manifest())
    picture = cv2.imread(str(tmp_path / "o.png"))[..., ::-1]
    assert picture.shape[1] == 94  # the cell's 80 px and 54 on either side, halved
    rows, columns = np.nonzero(near(picture, rgb(made_manifest().class_colours[0]))[:94])
    middle = np.argwhere((picture[:94] < 20).all(axis=2)).mean(axis=0)
    assert [(v.min() + v.max()) / 2 for v in (rows, columns)] == pytest.approx(middle, abs=1)


def test_a_large_image_is_averaged_in_strips_as_it_would_be_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (70, 50, 3), np.uint8)
    path = write(tmp_path / "p.png", pixels)
    monkeypatch.setattr(overlay, "_STRIP_PIXELS", 4 * 42 * 4)
    with open_picture(path) as picture:
        shown = read_view(picture, View(3, 5, 42, 62, 1 / 4))
    assert shown.shape == (16, 11, 3)
    means = pixels[5:65, 3:43].reshape(15, 4, 10, 4, 3).mean(axis=(1, 3))
    assert np.abs(shown[:15, :10] - means).max() <= 1


def test_sixteen_bit_images_are_shown_in_the_bits_they_use(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "p.tif", np.full((40, 40, 3), 4000, np.uint16), photometric="rgb")
    with open_picture(tmp_path / "p.tif") as picture:
        shown = read_view(picture, View(0, 0, 40, 40, 1.0))
    assert (shown == 4000 >> 4).all()


def test_the_legend_counts_classes_and_names_only_marks_that_occur(tmp_path: Path) -> None:
    field = made_field(tmp_path)
    entries = legend_entries(field, made_manifest())
    assert [entry.text for entry in entries] == [
        "normal  2 (50 %)",
        "intermediate  1 (25 %)",
        "pyknotic  1 (25 %)",
        "unsure  1",
        "class in the file, where it differs  1",
    ]
    plain = replace(field, abstained_n=np.zeros(4, bool), label_n=np.full(4, None, dtype=object))
    assert [entry.mark for entry in legend_entries(plain, made_manifest())] == ["line"] * 3
    empty = made_field(tmp_path, cells=())
    assert legend_entries(empty, made_manifest())[0].text == "normal  0 (0 %)"


@pytest.mark.parametrize(
    ("longest", "expected"), [(130.0, 100), (99.0, 50), (49.9, 20), (20.0, 20), (1.0, 1), (0.3, 0.2), (4e-4, 2e-4)]
)
def test_the_scale_bar_is_a_round_number_of_micrometres(longest: float, expected: float) -> None:
    assert scale_bar(longest) == pytest.approx(expected)


def test_the_bar_in_the_legend_has_the_length_it_names() -> None:
    strip = draw_legend([LegendEntry("normal", (0, 0, 255), "line")], width=800, um_per_px=0.5, title="t")
    right = strip[:, 600:]
    dark = (right == (30, 30, 30)).all(axis=2)
    longest = max(np.flatnonzero(row).size for row in dark)
    assert longest == pytest.approx(50 / 0.5, abs=1)  # 18 % of 800 px are 72 um: the bar is 50 um
    bare = draw_legend([LegendEntry("normal", (0, 0, 255), "line")], width=800, um_per_px=None, title="t")
    assert (bare[:, 600:] == 255).all()


def test_many_or_long_names_take_more_lines_and_stay_inside() -> None:
    entries = [LegendEntry(f"class number {i}", (10 * i, 0, 0), "line") for i in range(12)]
    few, many = (draw_legend(entries[:n], width=640, um_per_px=0.5, title="x" * 500) for n in (2, 12))
    assert many.shape[0] > few.shape[0]
    assert (many[:, :2] == 255).all()
    assert (many[:, -2:] == 255).all()
