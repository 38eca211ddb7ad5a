"""How one model does: ROC and precision-recall curves, confusion matrices, reliability."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from numpy.typing import NDArray

from perikarya.evaluate.metrics import Floats, precision_recall_points, reliability_points, roc_points
from perikarya.evaluate.outputs import Scored
from perikarya.evaluate.tables import interval_text
from perikarya.figures.style import (
    FAINT,
    INK,
    PAGE_IN,
    class_colours,
    class_line,
    light_grid,
    panels,
    shorten,
    styled,
)
from perikarya.schema import SET_WORDS

_GRID = np.linspace(0, 1, 401)

# set -> (parts that are averaged, networks that show the spread)
Parts = Mapping[str, tuple[Sequence[Scored], Sequence[Scored]]]


@styled
def plot_roc(parts: Parts, blocks: Mapping[str, Any], class_names: tuple[str, ...]) -> Figure:
    """Draw ROC curves, each class against the others: thin per network, thick their mean, AUC with its interval.

    Parameters
    ----------
    parts
        Per set, what is averaged and the single networks.
    blocks
        Per set, the block of ``results.json``, for the AUC.
    class_names
        Classes in their order.
    """
    figure, axes = _curve_panels(len(parts), height_in=3.6 + 0.14 * max(0, len(class_names) - 4))
    for ax, (set_name, of_set) in zip(axes, parts.items(), strict=True):
        ax.plot([0, 1], [0, 1], color=FAINT, lw=0.7, ls=":")
        _draw_classes(ax, of_set, class_names, blocks[set_name], score="auc", points=_roc, on_grid=_roc_on_grid)
        ax.set(xlim=(-0.01, 1), ylim=(0, 1.01), xlabel="False positive rate", aspect="equal")
        _finish(ax, set_name, "Area under the curve", loc="lower right")
    axes[0].set_ylabel("True positive rate")
    return figure


@styled
def plot_precision_recall(parts: Parts, blocks: Mapping[str, Any], class_names: tuple[str, ...]) -> Figure:
    """Draw precision against recall, each class against the others; parameters as for ``plot_roc``.

    Thin per network, thick their mean. The dotted line of a class is its share of the cells, which a guess reaches;
    that share, unlike the ROC curve, changes with how common the class is.
    """
    figure, axes = _curve_panels(len(parts), height_in=3.9 + 0.17 * len(class_names))  # the key stands below
    for ax, (set_name, of_set) in zip(axes, parts.items(), strict=True):
        label_n = np.concatenate([p.label_n for p in of_set[0]])
        for k, colour in enumerate(class_colours(len(class_names))):
            ax.axhline(float(np.mean(label_n == k)), color=colour, lw=0.7, ls=":")
        _draw_classes(ax, of_set, class_names, blocks[set_name], score="ap", points=_pr, on_grid=_as_it_is)
        ax.set(xlim=(0, 1.01), ylim=(0, 1.01), xlabel="Recall")
        _finish(ax, set_name, "Average precision", loc="upper left", bbox_to_anchor=(0, -0.15))
    axes[0].set_ylabel("Precision")
    return figure


def _curve_panels(n_sets: int, *, height_in: float) -> tuple[Figure, NDArray[Any]]:
    figure, axes = panels(1, n_sets, height_in=height_in, width_in=PAGE_IN if n_sets > 1 else 3.8, sharey=True)
    return figure, axes[0]


def _draw_classes(
    ax: Axes,
    of_set: tuple[Sequence[Scored], Sequence[Scored]],
    class_names: tuple[str, ...],
    block: Mapping[str, Any],
    *,
    score: str,
    points: Callable[[Scored, int], tuple[Floats, Floats] | None],
    on_grid: Callable[[Floats, Floats], tuple[Floats, Floats]],
) -> None:
    averaged, networks = of_set
    for k, (name, colour) in enumerate(zip(class_names, class_colours(len(class_names)), strict=True)):
        for network in networks if len(networks) > 1 else []:
            curve = points(network, k)
            if curve is not None:
                ax.plot(*curve, color=colour, lw=0.5, alpha=0.35)
        curves = [on_grid(*c) for c in (points(part, k) for part in averaged) if c is not None]
        if curves:
            x, y = np.mean(curves, axis=0)
            label = f"{shorten(name, 20)}  {interval_text(block['per_class'][name][score])}"
            ax.plot(x, y, color=colour, ls=class_line(k), label=label)


def _finish(ax: Axes, set_name: str, legend: str, **place: Any) -> None:
    ax.set_title(SET_WORDS[set_name].capitalize())
    if ax.get_legend_handles_labels()[0]:
        ax.legend(title=legend, title_fontsize=7.5, alignment="left", handlelength=2.4, **place)
    light_grid(ax)


def _roc(scored: Scored, k: int) -> tuple[Floats, Floats] | None:
    positive = scored.label_n == k
    if positive.all() or not positive.any():
        return None
    return roc_points(positive, scored.prob_nk[:, k])


def _roc_on_grid(false_rate: Floats, true_rate: Floats) -> tuple[Floats, Floats]:
    rates = np.concatenate([[0.0], _GRID])  # the curve rises before it runs: two points at 0
    return rates, np.concatenate([[0.0], np.interp(_GRID, false_rate, true_rate)])


def _pr(scored: Scored, k: int) -> tuple[Floats, Floats] | None:
    """Return the precision at the first threshold that reaches each recall of a grid: the steps that are averaged."""
    positive = scored.label_n == k
    if not positive.any():
        return None
    recall, precision = precision_recall_points(positive, scored.prob_nk[:, k])
    return _GRID[1:], precision[np.searchsorted(recall, _GRID[1:] - 1e-12)]


def _as_it_is(x: Floats, y: Floats) -> tuple[Floats, Floats]:
    return x, y


@styled
def plot_confusion(blocks: Mapping[str, Any], class_names: tuple[str, ...]) -> Figure:
    """Draw confusion matrices, counts and shares of each true class, one row per set."""
    size = min(3.4, max(2.5, 0.42 * len(class_names) + 0.9))
    figure, axes = panels(len(blocks), 2, height_in=size * len(blocks) + 0.3, width_in=min(PAGE_IN, 2 * size + 1.2))
    names = [shorten(n, 14) for n in class_names]
    for row, (set_name, block) in zip(axes, blocks.items(), strict=True):
        counts = np.asarray(block["confusion"], dtype=np.float64)
        n_true = counts.sum(axis=1, keepdims=True)
        shares = np.divide(counts, n_true, out=np.full_like(counts, np.nan), where=n_true > 0)
        title = SET_WORDS[set_name].capitalize()
        _matrix(row[0], shares, _counts(counts), names, f"{title}: cells")
        texts = [["–" if np.isnan(x) else f"{100 * x:.1f}" for x in r] for r in shares]
        _matrix(row[1], shares, texts, names, f"{title}: % of true class")
        row[0].set_ylabel("True class")
    for ax in axes[-1]:
        ax.set_xlabel("Predicted class")
    return figure


def _counts(counts: Floats) -> list[list[str]]:
    digits = 0 if (counts == np.round(counts)).all() else 1  # means over networks need not be whole
    return [[f"{x:.{digits}f}" for x in row] for row in counts]


def _matrix(ax: Axes, shares: Floats, texts: list[list[str]], names: list[str], title: str) -> None:
    n = len(names)
    ax.imshow(np.nan_to_num(shares), cmap=mpl.colormaps["Blues"], vmin=0, vmax=1)
    size = 8.5 if n <= 5 else max(4.5, 8.5 - 0.6 * (n - 5))
    for i in range(n):
        for j in range(n):
            colour = "white" if shares[i, j] > 0.55 else INK if shares[i, j] > 0 else FAINT
            ax.text(j, i, texts[i][j], ha="center", va="center", color=colour, fontsize=size)
    ax.set_xticks(range(n), names, rotation=0 if n <= 3 else 45, ha="center" if n <= 3 else "right")
    ax.set_yticks(range(n), names)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    ax.set_title(title)


@styled
def plot_reliability(parts: Parts, blocks: Mapping[str, Any]) -> Figure:
    """Draw accuracy against confidence in 15 bins, and below how many cells have which confidence."""
    width = PAGE_IN if len(parts) > 1 else 3.8
    figure, axes = panels(
        2, len(parts), height_in=4.6, width_in=width, sharex=True, sharey="row", height_ratios=[3.4, 1]
    )
    for col, (set_name, (averaged, _)) in enumerate(parts.items()):
        label_n = np.concatenate([p.label_n for p in averaged])
        prob_nk = np.concatenate([p.prob_nk for p in averaged])
        confidence, correct, n = reliability_points(label_n, prob_nk)
        top, bottom = axes[:, col]
        top.plot([0, 1], [0, 1], color=FAINT, lw=0.7, ls=":")
        top.vlines(confidence, np.minimum(confidence, correct), np.maximum(confidence, correct), color="#A50026", lw=1)
        top.plot(confidence, correct, "-", color="#0072B2", lw=1)
        top.scatter(confidence, correct, s=8 + 60 * n / n.max(), color="#0072B2", zorder=3)
        top.set(xlim=(0, 1), ylim=(0, 1.02))
        top.set_title(SET_WORDS[set_name].capitalize())
        text = f"calibration error\n{interval_text(blocks[set_name]['ece'])}"
        top.text(0.03, 0.97, text, transform=top.transAxes, va="top", fontsize=7.5)
        weights = np.full(len(label_n), 1 / len(label_n))
        bottom.hist(
            prob_nk.max(axis=1), bins=np.linspace(0, 1, 16), weights=weights, color="#56B4E9", ec="white", lw=0.5
        )
        bottom.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        bottom.set_xlabel("Confidence (largest probability)")
        light_grid(top)
        light_grid(bottom, axis="y")
    axes[0, 0].set_ylabel("Share correct")
    axes[1, 0].set_ylabel("Cells")
    return figure
