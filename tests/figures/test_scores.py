"""Curves of one model: what they show is what the scores say."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from sklearn.metrics import average_precision_score

from perikarya.evaluate.outputs import Scored
from perikarya.figures.scores import plot_precision_recall, plot_roc

NAMES = ("normal", "pyknotic $x_1$")


def scored(seed: int, n: int = 120) -> Scored:
    rng = np.random.default_rng(seed)
    label = (rng.random(n) < 0.25).astype(np.int64)
    one = np.round(np.clip(0.3 * label + rng.random(n) * 0.7, 0, 1), 2)  # rounding makes ties
    return Scored(np.arange(n), label, np.stack([1 - one, one], axis=1))


def block(names: tuple[str, ...] = NAMES) -> dict[str, Any]:
    value = {"mean": 0.8123, "ci95": [0.7, 0.9]}
    return {"per_class": {name: {"auc": value, "ap": value} for name in names}}


def lines(ax: Axes, *, style: str | None = None) -> list[Line2D]:
    return [line for line in ax.lines if style is None or line.get_linestyle() == style]


def mean_curve(figure: Figure, name: str) -> Line2D:
    return next(line for line in figure.axes[0].lines if str(line.get_label()).startswith(name))


def test_the_area_under_the_drawn_precision_recall_curve_is_the_average_precision() -> None:
    part = scored(0, n=4000)
    figure = plot_precision_recall({"external": ([part], [part])}, {"external": block()}, NAMES)
    for k, name in enumerate(("normal", "pyknotic")):
        line = mean_curve(figure, name)
        expected = average_precision_score(part.label_n == k, part.prob_nk[:, k])
        assert np.asarray(line.get_ydata()).mean() == pytest.approx(expected, abs=0.005)
        assert "0.812 (0.700–0.900)" in str(line.get_label())


def test_curves_of_networks_are_averaged_at_equal_recall() -> None:
    """One network finds the positives first, the other last: precision 1 and 1/2 to 2/4 at every recall."""
    label = np.array([1, 1, 0, 0])
    good = np.array([[0.1, 0.9], [0.2, 0.8], [0.7, 0.3], [0.8, 0.2]])
    parts = [Scored(np.arange(4), label, good), Scored(np.arange(4), label, 1 - good)]
    figure = plot_precision_recall({"external": (parts, parts)}, {"external": block()}, NAMES)
    line = mean_curve(figure, "pyknotic")
    recall, precision = np.asarray(line.get_xdata()), np.asarray(line.get_ydata())
    np.testing.assert_allclose(precision[recall <= 0.5], (1 + 1 / 3) / 2)
    np.testing.assert_allclose(precision[recall > 0.5], (1 + 2 / 4) / 2)


@pytest.mark.parametrize("plot", [plot_roc, plot_precision_recall])
def test_single_networks_are_thin_in_the_colour_of_their_class(plot: Any) -> None:
    parts = [scored(1), scored(2), scored(3)]
    figure = plot({"cv": (parts, parts)}, {"cv": block()}, NAMES)
    for name in ("normal", "pyknotic"):
        mean = mean_curve(figure, name)
        thin = [x for x in figure.axes[0].lines if x.get_color() == mean.get_color() and x.get_linestyle() == "-"]
        assert sum(x.get_linewidth() < mean.get_linewidth() for x in thin) == len(parts)


def test_a_dotted_line_shows_what_a_guess_reaches() -> None:
    part = scored(5)
    figure = plot_precision_recall({"cv": ([part], [])}, {"cv": block()}, NAMES)
    dotted = {float(np.asarray(x.get_ydata())[0]) for x in lines(figure.axes[0], style=":")}
    assert dotted == {(part.label_n == 0).mean(), (part.label_n == 1).mean()}


@pytest.mark.parametrize("plot", [plot_roc, plot_precision_recall])
@pytest.mark.parametrize("n_classes", [2, 12])
def test_a_class_without_cells_has_no_curve_and_no_warning(plot: Any, n_classes: int, tmp_path: Any) -> None:
    rng = np.random.default_rng(0)
    names = tuple(f"class {i}" for i in range(n_classes))
    prob = rng.dirichlet(np.ones(n_classes), 60)
    parts = [Scored(np.arange(60), rng.integers(1, n_classes, 60), prob)]
    figure = plot(
        {"cv": (parts, parts), "external": (parts, parts)}, dict.fromkeys(("cv", "external"), block(names)), names
    )
    figure.savefig(tmp_path / "x.png", dpi=40)
    assert not any(str(line.get_label()).startswith("class 0 ") for line in figure.axes[0].lines)
