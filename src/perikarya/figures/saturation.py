"""What limits the score, in one figure: learning curves, the floor that labels set, and the spread between networks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from perikarya.figures.style import (
    FAINT,
    INK,
    class_colours,
    class_marker,
    legend_columns,
    light_grid,
    panels,
    shorten,
    styled,
)

_ANIMALS = {"subject": "animals", "image_id": "images", "cell": "cells"}
_FLOOR = "#B9A7D0"
_JITTER = 0.02  # between networks at one number of animals, as a share of it


@styled
def plot_saturation(block: dict[str, Any]) -> Figure:
    """Draw the block ``saturation`` of ``results.json``.

    Curves: error against the number of training animals, fitted up to the animals at hand and, dashed, to twice as
    many, with its band. Horizontal band: the error that labels leave to a perfect classifier. Right of the curves:
    every network trained on all animals. Without learning curves, the dots and the floor remain.
    """
    curves, networks = block["curves"], block["networks"]
    names = list(dict.fromkeys([*curves, *(networks["scores"] if networks else {})]))
    colours = dict(zip(names, class_colours(len(names)), strict=True))
    figure, grid = panels(1, 2, height_in=3.6, sharey=True, width_ratios=[3.2, 1])
    for i, (name, curve) in enumerate(curves.items()):
        _draw_curve(grid[0, 0], curve, name, colours[name], class_marker(names.index(name)), shift=i)
    _draw_networks(grid[0, 1], networks, colours, names)
    for ax in grid[0]:
        _draw_floor(ax, block["ceiling"], labelled=ax is grid[0, 0])
        light_grid(ax, axis="y")
    _dress(grid[0], block, curves)
    handles, labels = grid[0, 0].get_legend_handles_labels()
    if labels:
        figure.legend(handles, labels, loc="outside lower center", ncols=legend_columns(labels))
    return figure


def _draw_curve(ax: Axes, curve: dict[str, Any], name: str, colour: str, marker: str, *, shift: int) -> None:
    points = curve["points"]
    n = np.array([p["n_subjects"] for p in points]) * (1 + _JITTER * shift)
    error = 100 * np.array([p["error"] for p in points])
    _whiskers(ax, n, error, [p["ci95"] for p in points], colour)
    ax.plot(n, error, marker=marker, color=colour, linestyle="none", markersize=4.5, label=shorten(name))
    if curve["n_parameters"] is None:
        return
    band = curve["band"]
    at = np.array([p["n_subjects"] for p in band])
    fitted = 100 * np.array([p["error"] for p in band])
    seen = at <= curve["now"]["n_subjects"] * (1 + 1e-9)
    ahead = np.append(seen[1:] ^ seen[:-1], False) | ~seen  # from the last seen place on
    ax.plot(at[seen], fitted[seen], color=colour)
    ax.plot(at[ahead], fitted[ahead], color=colour, linestyle=(0, (4, 2)))
    known = [p for p in band if p["ci95"] is not None]
    if known:
        low, high = 100 * np.array([p["ci95"] for p in known]).T
        ax.fill_between([p["n_subjects"] for p in known], low, high, color=colour, alpha=0.13, linewidth=0)


def _draw_networks(ax: Axes, networks: dict[str, Any] | None, colours: Mapping[str, str], names: Sequence[str]) -> None:
    ax.set_title("All networks")
    if networks is None:
        ax.text(0.5, 0.5, "one network\nwas tried", transform=ax.transAxes, ha="center", va="center", color=FAINT)
        ax.set_xticks([])
        return
    order = sorted(networks["scores"], key=lambda name: -networks["scores"][name]["mean"])
    for i, name in enumerate(order):
        score = networks["scores"][name]
        interval = None if score["ci95"] is None else [1 - score["ci95"][1], 1 - score["ci95"][0]]
        _whiskers(ax, np.array([float(i)]), np.array([100 * (1 - score["mean"])]), [interval], colours[name])
        ax.plot([i], [100 * (1 - score["mean"])], marker=class_marker(names.index(name)), color=colours[name],
                markersize=4.5, linestyle="none")  # fmt: skip
    ax.set_xticks(range(len(order)), [shorten(name, 18) for name in order], rotation=90, fontsize=6.5)
    ax.set_xlim(-0.7, len(order) - 0.3)


def _whiskers(ax: Axes, x_m: Any, error_m: Any, intervals: Sequence[list[float] | None], colour: str) -> None:
    for x, _, interval in zip(x_m, error_m, intervals, strict=True):
        if interval is not None:
            ax.plot([x, x], [100 * interval[0], 100 * interval[1]], color=colour, linewidth=1.0)


def _draw_floor(ax: Axes, ceiling: dict[str, Any] | None, *, labelled: bool) -> None:
    """Draw the error of a perfect classifier against labels like these."""
    if ceiling is None:
        return
    low, high = ceiling["ci95"] or (ceiling["estimate"], ceiling["estimate"])
    if ceiling["at_least"] is not None:
        low = min(low, ceiling["at_least"])
    ax.axhspan(100 * (1 - high), 100 * (1 - low), color=_FLOOR, alpha=0.4, linewidth=0)
    ax.axhline(100 * (1 - ceiling["estimate"]), color=_FLOOR, linewidth=1.6,
               label=f"what the labels allow ({ceiling['source']})" if labelled else None)  # fmt: skip


def _dress(axes: Any, block: dict[str, Any], curves: Mapping[str, dict[str, Any]]) -> None:
    animals = _ANIMALS[block["unit"]]
    ax = axes[0]
    ax.set_ylabel(f"error, % (100 - {block['metric'].replace('_', ' ')})")
    ax.set_ylim(bottom=0)
    if not curves:
        ax.text(0.5, 0.5, "no learning curve", transform=ax.transAxes, ha="center", va="center", color=FAINT)
        ax.set_xticks([])
        return
    seen = [p["n_subjects"] for c in curves.values() for p in c["points"]]
    doubled = [c["doubled"]["n_subjects"] for c in curves.values() if c["n_parameters"] is not None]
    ax.set_xscale("log")
    ticks = sorted({round(n) for n in [*seen, *doubled]})
    ax.xaxis.set_major_locator(FixedLocator(ticks))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xticklabels([str(t) for t in ticks])
    ax.set_xlabel(f"{animals} trained on")
    ax.set_title(f"More {animals}")
    if doubled:
        ax.axvline(max(seen), color=INK, linewidth=0.6, linestyle=(0, (1, 2)))
        ax.annotate("at hand", (max(seen), 1), xycoords=("data", "axes fraction"), xytext=(-3, -8),
                    textcoords="offset points", ha="right", fontsize=6.5, color=FAINT)  # fmt: skip
