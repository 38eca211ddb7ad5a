"""The figure of what limits the score: every number of the block is drawn where it belongs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from perikarya.figures.saturation import plot_saturation


def block(**changes: Any) -> dict[str, Any]:
    at = np.geomspace(3, 22, 9)
    curve = {
        "points": [
            {"n_subjects": n, "error": e, "ci95": [e - 0.02, e + 0.02]}
            for n, e in ((3.0, 0.3), (6.0, 0.24), (11.0, 0.2))
        ],
        "n_repeats": 3,
        "n_parameters": 2,
        "now": {"n_subjects": 11.0, "error": 0.2},
        "doubled": {"n_subjects": 22.0, "error": {"estimate": 0.16, "ci95": [0.13, 0.19]}},
        "band": [{"n_subjects": n, "error": 0.5 * n**-0.4, "ci95": [0.4 * n**-0.4, 0.6 * n**-0.4]} for n in at],
    }
    scores = {
        "net": {"mean": 0.80, "ci95": [0.78, 0.82]},
        "a $long$ name of another network": {"mean": 0.7, "ci95": None},
    }
    whole: dict[str, Any] = {
        "metric": "balanced_accuracy",
        "unit": "subject",
        "curves": {"net": curve},
        "ceiling": {"source": "repeated readings", "estimate": 0.92, "ci95": [0.90, 0.94], "at_least": 0.85},
        "networks": {"scores": scores},
    }
    return {**whole, **changes}


def drawn(figure: Figure, tmp_path: Path) -> tuple[Axes, Axes]:
    figure.savefig(tmp_path / "x.png", dpi=50)
    return figure.axes[0], figure.axes[1]


def dots(ax: Axes) -> list[tuple[float, float]]:
    lines = [line for line in ax.lines if line.get_marker() not in ("None", "", None)]
    return [(float(x), float(y)) for line in lines for x, y in zip(line.get_xdata(), line.get_ydata(), strict=True)]


def test_points_stand_at_their_animals_and_their_error_in_percent(tmp_path: Path) -> None:
    left, _ = drawn(plot_saturation(block()), tmp_path)
    np.testing.assert_allclose(dots(left), [(3, 30), (6, 24), (11, 20)])
    assert [t.get_text() for t in left.get_xticklabels()] == ["3", "6", "11", "22"]
    assert left.get_xlabel() == "animals trained on"
    assert left.get_ylabel() == "error, % (100 - balanced accuracy)"


def test_the_curve_is_dashed_beyond_the_animals_at_hand(tmp_path: Path) -> None:
    left, _ = drawn(plot_saturation(block()), tmp_path)
    lines = [line for line in left.lines if line.get_marker() == "None"]
    solid, ahead = (line for line in lines if np.ptp(line.get_xdata()) > 1)  # neither whiskers nor the floor
    assert max(solid.get_xdata()) <= 11
    assert max(ahead.get_xdata()) == pytest.approx(22)
    assert min(ahead.get_xdata()) == max(solid.get_xdata()), "no gap between them"
    assert solid.get_linestyle() == "-"
    assert ahead.get_linestyle() == "--"
    assert any(c.get_paths()[0].get_extents().ymax == pytest.approx(60 * 3**-0.4) for c in left.collections)


def test_the_floor_reaches_from_the_best_to_the_worst_the_labels_may_allow(tmp_path: Path) -> None:
    left, right = drawn(plot_saturation(block()), tmp_path)
    for ax in (left, right):
        (band,) = ax.patches
        assert band.get_extents().transformed(ax.transData.inverted()).intervaly == pytest.approx([6, 15])
    legend = left.figure.legends[0]
    assert [t.get_text() for t in legend.get_texts()] == ["net", "what the labels allow (repeated readings)"]


def test_networks_stand_beside_the_curves_best_first(tmp_path: Path) -> None:
    _, right = drawn(plot_saturation(block()), tmp_path)
    np.testing.assert_allclose(dots(right), [(0, 20), (1, 30)])
    assert right.get_xticklabels()[0].get_text() == "net"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"curves": {}}, "no learning curve"),
        ({"networks": None}, "one network\nwas tried"),
        ({"curves": {}, "networks": None, "ceiling": None}, "no learning curve"),
    ],
)
def test_what_is_missing_is_said(changes: dict[str, Any], words: str, tmp_path: Path) -> None:
    axes = drawn(plot_saturation(block(**changes)), tmp_path)
    assert words in [t.get_text() for ax in axes for t in ax.texts]


def test_a_curve_too_short_to_fit_is_drawn_as_points(tmp_path: Path) -> None:
    curve = {"points": block()["curves"]["net"]["points"][:2], "n_repeats": 1, "n_parameters": None}
    left, _ = drawn(plot_saturation(block(curves={"net": curve}, unit="image_id")), tmp_path)
    assert len(dots(left)) == 2
    assert left.get_xlabel() == "images trained on"
