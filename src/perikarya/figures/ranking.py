"""Which models differ: average ranks with their critical difference, and all pairs in one matrix."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from perikarya.evaluate.metrics import OVERALL
from perikarya.figures.style import FAINT, GRID, INK, PAGE_IN, panels, shorten, styled

MAX_PAIRWISE = 15  # models; beyond, the numbers would be too small to read
_NAME_IN = 2.3  # room for a name on either side of the ranks
_ROW_IN, _BAR_IN = 0.19, 0.11
_TOLD_APART = "#cfe3f1"


@styled
def plot_critical_difference(friedman: Mapping[str, Any]) -> Figure:
    """Draw average ranks over folds with the critical difference (Demsar 2006, JMLR 7:1), the best on the left.

    Models joined by a bar are not told apart.

    Parameters
    ----------
    friedman
        From ``evaluate.folds.friedman_nemenyi``: ``results["comparisons"]["folds"]["friedman"]``.
    """
    ranks: dict[str, float] = dict(friedman["ranks"])
    levels = _levels([(ranks[c[0]], ranks[c[-1]]) for c in friedman["cliques"]])
    n_bars = 1 + max((level for _, level in levels), default=-1)
    n_left = -(-len(ranks) // 2)
    height = 0.85 + _BAR_IN * n_bars + _ROW_IN * n_left
    figure, axes = panels(1, 1, height_in=height)
    ax: Axes = axes[0, 0]
    ax.set(xlim=(0, PAGE_IN), ylim=(0, height))
    ax.set_axis_off()
    axis_y = height - 0.6

    def place(rank: float) -> float:
        return _NAME_IN + (rank - 1) / (len(ranks) - 1) * (PAGE_IN - 2 * _NAME_IN)

    _draw_ranks(ax, place, len(ranks), axis_y, cd=friedman["cd"])
    for (first, last), level in levels:
        y = axis_y - 0.1 - _BAR_IN * level
        ax.plot([place(first) - 0.04, place(last) + 0.04], [y, y], color=INK, lw=3, solid_capstyle="butt")
    top = axis_y - 0.16 - _BAR_IN * n_bars
    for i, (name, rank) in enumerate(ranks.items()):
        left = i < n_left
        y = top - _ROW_IN * (i if left else len(ranks) - 1 - i)
        end = _NAME_IN - 0.12 if left else PAGE_IN - _NAME_IN + 0.12
        ax.plot([place(rank), place(rank), end], [axis_y, y, y], color=FAINT, lw=0.7)
        label = f"{shorten(name, 32)}  {rank:.2f}" if left else f"{rank:.2f}  {shorten(name, 32)}"
        ax.text(end - 0.04 if left else end + 0.04, y, label, ha="right" if left else "left", va="center", fontsize=7.5)
    return figure


def _draw_ranks(ax: Axes, place: Any, n: int, y: float, *, cd: float) -> None:
    ax.plot([place(1), place(n)], [y, y], color=INK, lw=0.9)
    for rank in range(1, n + 1):
        ax.plot([place(rank)] * 2, [y, y + 0.06], color=INK, lw=0.9)
        ax.text(place(rank), y + 0.09, str(rank), ha="center", va="bottom", fontsize=7.5)
    end = place(min(1 + cd, n)) if cd <= n - 1 else place(n)
    ruler = y + 0.34
    ax.plot([place(1), end], [ruler, ruler], color=INK, lw=1.6, solid_capstyle="butt")
    for x in (place(1), end) if cd <= n - 1 else (place(1),):
        ax.plot([x, x], [ruler - 0.04, ruler + 0.04], color=INK, lw=0.9)
    beyond = "" if cd <= n - 1 else ", longer than the scale"
    ax.text(place(1), ruler + 0.06, f"critical difference {cd:.2f}{beyond}", ha="left", va="bottom", fontsize=7.5)


def _levels(bars: Sequence[tuple[float, float]]) -> list[tuple[tuple[float, float], int]]:
    """Put each bar on the first level on which it touches none before it."""
    ends: list[float] = []
    placed = []
    for first, last in bars:
        level = next((i for i, end in enumerate(ends) if first > end + 0.15), len(ends))
        ends[level : level + 1] = [last]
        placed.append(((first, last), level))
    return placed


@styled
def plot_pairwise(metric: str, block: Mapping[str, Any], names: Sequence[str], *, alpha: float) -> Figure | None:
    """Draw how far each model lies ahead of each other one, and which pairs are told apart.

    Parameters
    ----------
    metric
        Name of the metric; differences are in percentage points.
    block
        Its comparisons: ``results["comparisons"]["metrics"][metric]``.
    names
        The models, best first: ``results["comparisons"]["models"]``.
    alpha
        Level for the p values corrected by Holm; pairs at or below are shaded and bold.

    Returns
    -------
    The figure; None with fewer than two models (no pair) or more than ``MAX_PAIRWISE`` (too small to read).
    """
    n = len(names)
    if not 2 <= n <= MAX_PAIRWISE:
        return None
    figure, axes = panels(1, 1, height_in=0.85 + 0.25 * n)
    ax: Axes = axes[0, 0]
    found = {(pair["a"], pair["b"]): pair for pair in block["pairs"]}
    for row, worse in enumerate(names):
        for column, better in enumerate(names[:row]):
            _draw_pair(ax, column, row, found[better, worse], alpha)
    ax.set(xlim=(-0.5, n - 1.5), ylim=(n - 0.5, -0.5))
    ax.set_yticks(range(n), [f"{shorten(name, 30)}  {i}" for i, name in enumerate(names, 1)])
    ax.set_xticks(range(n - 1), [str(i) for i in range(1, n)])
    ax.tick_params(length=0, labeltop=True, labelbottom=False)
    for side in ("left", "bottom"):
        ax.spines[side].set_visible(False)
    ax.set_title(f"{OVERALL.get(metric).title}: column ahead of row, percentage points", pad=8)
    return figure


def _draw_pair(ax: Axes, x: int, y: int, pair: Mapping[str, Any], alpha: float) -> None:
    told_apart = pair["p_holm"] is not None and pair["p_holm"] <= alpha
    ax.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, fc=_TOLD_APART if told_apart else "white", ec=GRID, lw=0.6))
    ax.text(
        x, y, f"{100 * pair['difference']:.1f}", ha="center", va="center", fontsize=7,
        color=INK if told_apart else FAINT, fontweight="bold" if told_apart else "normal",
    )  # fmt: skip
