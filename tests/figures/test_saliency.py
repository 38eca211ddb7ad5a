"""Figures of maps: the right map over the right cell, in its row, for any number of classes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from numpy.typing import NDArray
from tests.tiny import make_study

from perikarya.errors import DataError
from perikarya.evaluate.saliency import DrawnMaps, explained_path, maps_path
from perikarya.figures.saliency import (
    ExplainedCell,
    overlaid,
    plot_inside_share,
    plot_saliency,
    saliency_figures,
)
from perikarya.figures.style import save_figure
from perikarya.runs import RunFolder, write_json

NAMES = ("normal", "intermediate", "pyknotic")
YELLOW, PURPLE = np.array([253, 231, 37]), np.array([68, 1, 84])  # both ends of viridis


def crop_of(side: int = 40, grey: int = 120) -> NDArray[np.uint8]:
    crop = np.full((side, side, 4), grey, np.uint8)
    crop[..., 3] = 0
    crop[10:30, 10:30, 3] = 255
    return crop


def a_map(row: int = 0, column: int = 0) -> NDArray[np.uint8]:
    found = np.zeros((4, 4), np.uint8)
    found[row, column] = 255
    return found


def cell(label: int, predicted: int, *, grey: int = 120) -> ExplainedCell:
    wrong = label != predicted
    return ExplainedCell(
        crop_of(grey=grey), label, predicted, (a_map(), a_map(3, 3))[: 1 + wrong], (0.7, 0.2)[: 1 + wrong]
    )


def pictures(figure: Figure) -> list[tuple[Any, list[NDArray[np.uint8]]]]:
    """Each set of axes with its title and the tiles in it."""
    found = []
    for ax in figure.axes:
        for image in ax.images:
            sheet = np.asarray(image.get_array())
            side = sheet.shape[0]
            tiles = [sheet[:, i : i + side] for i in range(0, sheet.shape[1], side + 6)]
            found.append((ax, tiles))
    return found


def test_a_map_lies_over_its_cell_as_it_was_made() -> None:
    tile = overlaid(crop_of(), a_map(0, 3)).astype(int)
    assert tile.shape == (170, 170, 3)
    mixed = {name: 0.6 * colour + 0.4 * 120 for name, colour in (("high", YELLOW), ("low", PURPLE))}
    np.testing.assert_allclose(tile[8, 160], mixed["high"], atol=6)
    np.testing.assert_allclose(tile[160, 8], mixed["low"], atol=6)
    np.testing.assert_allclose(tile[8, 8], mixed["low"], atol=6)


def test_the_cell_and_its_outline_are_seen_through_the_map() -> None:
    dark, bright = (overlaid(crop_of(grey=g), a_map()).astype(int) for g in (40, 220))
    assert (bright - dark)[80, 80].min() > 50
    assert overlaid(crop_of(), np.zeros((4, 4), np.uint8))[85, 42].min() > 200, "no outline"


def test_right_and_wrong_cells_stand_in_the_row_of_their_true_class() -> None:
    figure = plot_saliency([cell(0, 0, grey=10), cell(2, 1, grey=250), cell(1, 1, grey=100)], NAMES)
    found = {ax.get_title(loc="left"): tiles for ax, tiles in pictures(figure)}
    assert {title: len(tiles) for title, tiles in found.items()} == {
        "→ normal 70 %": 2,
        "→ intermediate 70 %": 2,
        "→ intermediate 70 %; pyknotic 20 %": 3,
    }
    assert found["→ normal 70 %"][0].mean() < 60 < 200 < found["→ intermediate 70 %; pyknotic 20 %"][0].mean()
    _, predicted, true = found["→ intermediate 70 %; pyknotic 20 %"]
    assert np.abs(predicted[5, 5].astype(int) - true[-5, -5]).max() < 8, "each map at its own place"
    assert np.abs(predicted[5, 5].astype(int) - true[5, 5]).max() > 60
    rows = {ax.get_ylabel(): ax.get_subplotspec().rowspan.start for ax in figure.axes if ax.get_ylabel()}
    assert [rows[name] for name in NAMES] == [0, 1, 2]
    for ax, _ in pictures(figure):
        title = ax.get_title(loc="left")
        expected = 2 if "pyknotic" in title else NAMES.index(title.split()[1])
        assert ax.get_subplotspec().rowspan.start == expected


def test_a_class_without_such_cells_says_so_and_more_than_fit_are_left_out() -> None:
    figure = plot_saliency([cell(0, 0)] * 9 + [cell(0, 1)] * 9, NAMES)
    assert len(pictures(figure)) == 3 + 2
    said = [t.get_text() for ax in figure.axes for t in ax.texts]
    assert said == ["no such cell"] * 10


@pytest.mark.parametrize("n", [1, 2, 12])
def test_any_number_of_classes_with_any_names_is_drawn_without_warnings(n: int, tmp_path: Path) -> None:
    names = tuple(f"a very long name of class {i} $x_{i}^$" for i in range(n))
    cells = [cell(k, (k + wrong) % n) for k in range(n) for wrong in (0, 1) if n > 1 or not wrong]
    figure = plot_saliency(cells, names)
    assert save_figure(figure, tmp_path, "x", photos=True).stat().st_size < 5_000_000
    for ax in figure.axes:
        assert ax._left_title.get_fontsize() >= 5.5


def entry(mean: float, ci95: list[float] | None, even: float) -> dict[str, Any]:
    return {
        "share_inside": {"mean": mean, "ci95": ci95},
        "even_share": even,
        "method": "gradcam",
        "unit": "subject",
        "layers": [{"layer": "x", "grid": [7, 7]}],
        "seed": 0,
        "fold": 2,
    }


def test_shares_stand_beside_those_of_an_even_map() -> None:
    figure = plot_inside_share({"a": entry(0.6, [0.5, 0.7], 0.2), "b": entry(0.3, None, 0.25)})
    (ax,) = figure.axes
    drawn = {(round(float(x), 3), float(y)) for line in ax.lines for x, y in zip(*line.get_data(), strict=True)}
    assert drawn == {(0.6, 0), (0.5, 0), (0.7, 0), (0.2, 0), (0.3, 1), (0.25, 1)}
    assert [t.get_text() for t in ax.get_yticklabels()] == ["a\ngradcam", "b\ngradcam"]
    assert len({to_rgb(str(line.get_color())) for line in ax.lines}) == 2


def explained_run(root: Path, opened: Any) -> RunFolder:
    run = RunFolder(root)
    ids = opened.cells["cell_id"].to_numpy(dtype=str)[[5, 40, 40]]
    maps = DrawnMaps(
        cell_id_m=ids,
        label_m=opened.labels[[5, 40, 40]],
        predicted_m=np.array([opened.labels[5], (opened.labels[40] + 1) % 3, (opened.labels[40] + 1) % 3]),
        about_m=np.array([opened.labels[5], opened.labels[40], (opened.labels[40] + 1) % 3]),  # the true class first
        prob_m=np.array([0.9, 0.1, 0.8]),
        map_mhw=np.stack([a_map(), a_map(3, 3), a_map(0, 0)]),
    )
    maps.save(maps_path(run, "cnn"))
    models = {"cnn": entry(0.6, [0.5, 0.7], 0.2), "lost": {"reason": "gone"}}
    write_json(explained_path(run), {"schema_version": 1, "models": models})
    return run


def test_a_run_is_drawn_from_its_files_with_words(tmp_path: Path) -> None:
    opened = make_study(tmp_path / "study")
    run = explained_run(tmp_path / "run", opened)
    together, one = saliency_figures(run, opened)
    assert (together.kind, together.model, one.kind, one.model) == ("saliency_inside", "", "saliency", "cnn")
    assert "cnn 60 % (even map 20 %)" in together.alt
    assert "fold 2" in one.caption
    assert "60 % of a map" in one.caption
    assert "2 cells" in one.alt
    assert "1 of them classified wrongly" in one.alt
    titles = sorted(ax.get_title(loc="left") for ax, _ in pictures(one.figure))
    names = opened.study.class_names
    wrong = names[(opened.labels[40] + 1) % 3]
    assert titles == sorted([f"→ {names[opened.labels[5]]} 90 %", f"→ {wrong} 80 %; {names[opened.labels[40]]} 10 %"])


def test_a_run_that_was_not_explained_has_no_such_figure(tmp_path: Path) -> None:
    opened = make_study(tmp_path / "study")
    assert list(saliency_figures(RunFolder(tmp_path), opened)) == []


def test_maps_of_cells_that_the_study_lacks_are_refused(tmp_path: Path) -> None:
    run = explained_run(tmp_path / "run", make_study(tmp_path / "study"))
    other = make_study(tmp_path / "other", seed=5)
    with pytest.raises(DataError):
        list(saliency_figures(run, other))
