"""Critical differences and pairs: what is drawn is what was computed, and nothing overlaps."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import pytest
from matplotlib.backends.backend_agg import RendererAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from tests.figures.many_models import NAMES

from perikarya.evaluate.folds import friedman_nemenyi
from perikarya.figures.ranking import MAX_PAIRWISE, plot_critical_difference, plot_pairwise


def shown(figure: Figure) -> list[Text]:
    """All texts of the first axes; ticks keep labels outside their range, which nobody sees."""
    figure.draw_without_rendering()
    ax = figure.axes[0]
    found = list(ax.texts)
    if ax.axison:
        for axis, (low, high) in ((ax.xaxis, sorted(ax.get_xlim())), (ax.yaxis, sorted(ax.get_ylim()))):
            labels = zip(axis.get_majorticklocs(), axis.get_ticklabels(), strict=True)
            found += [label for at, label in labels if low <= at <= high]
    return [t for t in found if t.get_text()]


def assert_apart(figure: Figure) -> None:
    renderer = RendererAgg(*figure.get_size_inches() * figure.dpi, figure.dpi)
    boxes = [(t.get_text(), Text.get_window_extent(t, renderer)) for t in shown(figure)]  # no arrows
    width, height = figure.get_size_inches() * figure.dpi
    for text, box in boxes:
        assert box.x0 >= -1, f"{text} is cut on the left"
        assert box.y0 >= -1, f"{text} is cut at the bottom"
        assert box.x1 <= width + 1, f"{text} is cut on the right"
        assert box.y1 <= height + 1, f"{text} is cut at the top"
    for (a, one), (b, other) in combinations(boxes, 2):
        assert not one.padded(-0.5).overlaps(other.padded(-0.5)), f"{a} covers {b}"


def friedman(n_models: int, n_blocks: int = 10, noise: float = 0.02) -> dict[str, Any]:
    rng = np.random.default_rng(n_models)
    scores = np.linspace(0.9, 0.7, n_models) + rng.normal(0, noise, (n_blocks, n_models))
    return friedman_nemenyi(scores, NAMES[:n_models])


@pytest.mark.parametrize("n_models", [3, 4, 12])
def test_every_model_stands_with_its_average_rank_and_no_text_covers_another(n_models: int) -> None:
    found = friedman(n_models)
    figure = plot_critical_difference(found)
    assert_apart(figure)
    words = [t.get_text() for t in shown(figure)]
    for rank in found["ranks"].values():
        assert any(f"{rank:.2f}" in w for w in words)
    assert f"critical difference {found['cd']:.2f}" in words


def bars(figure: Figure) -> list[tuple[float, float]]:
    """Ends of the bars that join models, in inches."""
    lines = [line for line in figure.axes[0].lines if line.get_linewidth() == 3]
    return [(float(np.min(line.get_xdata())), float(np.max(line.get_xdata()))) for line in lines]


def test_bars_join_the_cliques_and_nobody_else() -> None:
    found = friedman(5, n_blocks=30, noise=0.05)
    assert len(found["cliques"]) >= 2
    figure = plot_critical_difference(found)
    place = {r: 2.3 + (r - 1) / 4 * 2.6 for r in found["ranks"].values()}
    expected = [(place[found["ranks"][c[0]]], place[found["ranks"][c[-1]]]) for c in found["cliques"]]
    assert len(bars(figure)) == len(expected)
    for (low, high), (first, last) in zip(bars(figure), expected, strict=True):
        assert low == pytest.approx(first, abs=0.05)
        assert high == pytest.approx(last, abs=0.05)


def test_bars_that_share_models_lie_on_different_levels() -> None:
    figure = plot_critical_difference(friedman(12, n_blocks=20))
    lines = [line for line in figure.axes[0].lines if line.get_linewidth() == 3]
    assert len(lines) > 2
    for one, other in combinations(lines, 2):
        (a, b), (c, d) = (sorted(np.asarray(x.get_xdata(), float)) for x in (one, other))
        if max(a, c) < min(b, d):
            assert one.get_ydata()[0] != other.get_ydata()[0]  # type: ignore[index]


def test_a_critical_difference_longer_than_the_scale_is_said_so() -> None:
    scores = np.random.default_rng(0).normal(size=(3, 3))
    found = friedman_nemenyi(scores, "abc", alpha=0.01)
    assert found["cd"] > 2
    assert any("longer than the scale" in t.get_text() for t in shown(plot_critical_difference(found)))


def block(n: int) -> dict[str, Any]:
    pairs = [
        {"a": a, "b": b, "difference": 0.001 * (i + 1), "p_holm": None if i == 0 else 0.05 if i == 1 else 0.051}
        for i, (a, b) in enumerate(combinations(NAMES[:n], 2))
    ]
    return {"pairs": pairs}


@pytest.mark.parametrize("n", [2, 12])
def test_the_matrix_shows_each_pair_once_in_points(n: int) -> None:
    figure = plot_pairwise("balanced_accuracy", block(n), NAMES[:n], alpha=0.05)
    assert figure is not None
    assert_apart(figure)
    numbers = [t for t in figure.axes[0].texts if t.get_text()]
    at = {(int(t.get_position()[0]), int(t.get_position()[1])): t.get_text() for t in numbers}
    for i, (column, row) in enumerate(combinations(range(n), 2)):
        assert at[column, row] == f"{0.1 * (i + 1):.1f}"
    assert len(at) == n * (n - 1) // 2


def test_only_pairs_at_or_below_the_level_are_bold() -> None:
    figure = plot_pairwise("accuracy", block(4), NAMES[:4], alpha=0.05)
    assert figure is not None
    assert [t.get_text() for t in figure.axes[0].texts if t.get_fontweight() == "bold"] == ["0.2"]


@pytest.mark.parametrize("n", [1, MAX_PAIRWISE + 1])
def test_no_matrix_is_drawn_for_one_model_or_too_many(n: int) -> None:
    names = [f"m{i}" for i in range(n)]
    pairs = [{"a": a, "b": b, "difference": 0.0, "p_holm": 1.0} for a, b in combinations(names, 2)]
    assert plot_pairwise("accuracy", {"pairs": pairs}, names, alpha=0.05) is None
