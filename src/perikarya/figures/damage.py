"""Damage: severity of every animal, class fractions of every group, and what the correction did to the counts."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from perikarya.figures.style import (
    INK,
    class_colours,
    legend_columns,
    light_grid,
    panels,
    readable_on,
    shorten,
    styled,
)

ANIMAL, ALL_GROUPS = "#56B4E9", "all animals"
_LABELLED_SHARE = 0.09  # of a bar; narrower pieces have no room for their number


@styled
def plot_severity(damage: Mapping[str, Any]) -> Figure:
    """Draw the severity of every animal with its interval, and the mean of each group with its own, by region.

    ``damage`` is that block of ``results.json``; groups stand in its order, the control first.
    """
    regions, groups = _regions(damage), _groups(damage)
    width = max(1, min(len(regions), 4 if len(groups) < 3 else 3 if len(groups) < 5 else 2))
    height = -(-len(regions) // width)
    figure, axes = panels(height, width, height_in=0.5 + 2.0 * height, sharey=True, sharex=True)
    for ax, region in zip(axes.flat, regions, strict=False):
        for x, group in enumerate(groups):
            _animals(ax, x, [a for a in damage["animals"] if a["region"] == region and _in(a, group)])
            for mean in damage["group_means"]:
                if mean["region"] == region and (mean["group"] or ALL_GROUPS) == group:
                    _mean(ax, x + 0.3, mean["severity"])
        ax.set_title(_region_title(region))
        ax.set_xlim(-0.5, len(groups) - 0.5 + 0.1)
        ax.set_ylim(-0.02, 1.02)
        ax.set_xticks(range(len(groups)), [_wrapped(g, 12) for g in groups], fontsize=6.5)
        ax.xaxis.set_tick_params(labelbottom=True)
        light_grid(ax, axis="y")
    _hide_unused(axes, len(regions))
    first, last = (shorten(damage["class_names"][i], 14) for i in (0, -1))
    for ax in axes[:, 0]:
        ax.set_ylabel(f"Severity (0 {first},\n1 {last})")
    return figure


def _animals(ax: Axes, x: float, entries: Sequence[Mapping[str, Any]]) -> None:
    ordered = sorted(entries, key=lambda e: float(e["severity"]["estimate"]))
    place = x + (np.linspace(-0.28, 0.16, len(ordered)) if len(ordered) > 1 else np.array([-0.06])[: len(ordered)])
    ends = np.array([e["severity"]["ci95"] or (np.nan, np.nan) for e in ordered]).reshape(-1, 2)
    ax.vlines(place, ends[:, 0], ends[:, 1], color=ANIMAL, lw=0.8, alpha=0.55)
    ax.plot(place, [e["severity"]["estimate"] for e in ordered], "o", ms=3, mfc=ANIMAL, mec="white", mew=0.3, ls="none")


def _mean(ax: Axes, x: float, value: Mapping[str, Any]) -> None:
    if value["ci95"]:
        ax.plot([x, x], value["ci95"], color=INK, lw=1.3, solid_capstyle="butt")
    ax.plot(x, value["estimate"], "D", ms=4, color=INK)


@styled
def plot_fractions(damage: Mapping[str, Any]) -> Figure:
    """Draw the mean class fractions of each group as stacked bars, one panel per region, first class below."""
    regions, groups = _regions(damage), _groups(damage)
    names = damage["class_names"]
    colours = class_colours(len(names))
    width = max(1, min(len(regions), 2))
    height = -(-len(regions) // width)
    figure, axes = panels(height, width, height_in=0.8 + height * (0.5 + 0.24 * len(groups)), sharey=True, sharex=True)
    for ax, region in zip(axes.flat, regions, strict=False):
        means = {(m["group"] or ALL_GROUPS): m for m in damage["group_means"] if m["region"] == region}
        left = np.zeros(len(groups))
        for name, colour in zip(names, colours, strict=True):
            share = np.array([means[g]["fractions"][name]["estimate"] if g in means else 0.0 for g in groups])
            bars = ax.barh(range(len(groups)), share, left=left, color=colour, height=0.74, ec="white", lw=0.6)
            shown = [f"{100 * s:.0f}" if s >= _LABELLED_SHARE else "" for s in share]
            ax.bar_label(bars, shown, label_type="center", fontsize=7, color=readable_on(colour))
            left += share
        ax.set_title(_region_title(region))
        ax.set_xlim(0, 1)
        ax.set_ylim(len(groups) - 0.5, -0.5)
        ax.set_yticks(range(len(groups)), [shorten(g, 24) for g in groups])
        ax.tick_params(axis="y", length=0)
        ax.spines["left"].set_visible(False)
    _hide_unused(axes, len(regions))
    for ax in axes[-1]:
        ax.set_xlabel("Fraction of cells (numbers: percent)")
    labels = [shorten(n) for n in names]
    handles = [Patch(color=colour) for colour in colours]
    figure.legend(handles, labels, loc="outside lower center", ncols=legend_columns(labels))
    return figure


@styled
def plot_correction(damage: Mapping[str, Any]) -> Figure:
    """Draw each class's mean fraction per group as counted, as corrected (with its interval) and, if known, by labels.

    All cells of an animal, whatever their region; labels only for groups whose animals are labelled throughout.
    """
    groups, names = _groups(damage), damage["class_names"]
    width = min(len(names), 4)
    height = -(-len(names) // width)
    figure, axes = panels(height, width, height_in=1.0 + height * (0.4 + 0.34 * len(groups)), sharey=True)
    corrected = {(m["group"] or ALL_GROUPS): m for m in damage["group_means"] if m["region"] == "all"}
    for ax, name, colour in zip(axes.flat, names, class_colours(len(names)), strict=False):
        for y, group in enumerate(groups):
            animals = [a for a in damage["animals"] if a["region"] == "all" and _in(a, group)]
            _compare(ax, y, animals, corrected[group]["fractions"][name], name, colour)
        ax.set_title(shorten(name))
        ax.set_ylim(len(groups) - 0.5, -0.5)
        ax.set_yticks(range(len(groups)), [_wrapped(g, 16) for g in groups])
        ax.set_xlabel("Fraction of cells")
        light_grid(ax)
    _hide_unused(axes, len(names))
    marks = {"counted": ("o", "white"), "corrected": ("o", INK), "by labels": ("x", INK)}
    handles = [
        axes[0, 0].plot([], [], m, ms=4.5, ls="none", mec=INK, mfc=face, mew=1.1, label=label)[0]
        for label, (m, face) in marks.items()
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=3)
    return figure


def _compare(
    ax: Axes, y: float, animals: Sequence[Mapping[str, Any]], value: Mapping[str, Any], name: str, colour: str
) -> None:
    counted = float(np.mean([a["counted"]["fractions"][name] for a in animals]))
    ax.plot(counted, y - 0.2, "o", ms=4.5, mfc="white", mec=colour, mew=1.1)
    if value["ci95"]:
        ax.plot(value["ci95"], [y, y], color=colour, lw=1.3, solid_capstyle="butt")
    ax.plot(value["estimate"], y, "o", ms=4.5, color=colour)
    if all(a["labelled"] and a["labelled"]["n_cells"] == a["n_cells"] for a in animals):
        labelled = float(np.mean([a["labelled"]["fractions"][name] for a in animals]))
        ax.plot(labelled, y + 0.2, "x", ms=4.5, color=INK, mew=1.2)


def _regions(damage: Mapping[str, Any]) -> list[str]:
    """Return the regions, then all together; a single region is what all of its cells are."""
    regions = list(damage["regions"])
    return regions if len(regions) == 1 else [*regions, "all"]


def _groups(damage: Mapping[str, Any]) -> list[str]:
    return list(damage["groups"]) or [ALL_GROUPS]


def _in(entry: Mapping[str, Any], group: str) -> bool:
    return group == ALL_GROUPS or entry["group"] == group


def _region_title(region: str) -> str:
    return "All cells" if region == "all" else shorten(region, 20)


def _wrapped(name: str, width: int) -> str:
    """Break a name into lines, after its plus signs too."""
    lines = textwrap.wrap(shorten(name).replace("+", "+ "), width)
    return "\n".join(line.replace("+ ", "+") for line in lines)


def _hide_unused(axes: Any, n_used: int) -> None:
    for ax in axes.flat[n_used:]:
        ax.set_visible(False)
