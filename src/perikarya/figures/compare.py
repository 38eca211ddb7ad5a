"""Models, regions and groups side by side, and what the study consists of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from perikarya.evaluate.metrics import OVERALL
from perikarya.figures.style import (
    INK,
    PAGE_IN,
    class_colours,
    legend_columns,
    light_grid,
    panels,
    readable_on,
    shorten,
    styled,
)
from perikarya.schema import SET_WORDS

_COMPARED = ("balanced_accuracy", "macro_f1", "macro_auc")
_LOOKS = {
    "cv": {"fmt": "o", "mfc": "white", "color": "#6b7785", "label": SET_WORDS["cv"]},
    "external": {"fmt": "o", "mfc": "#0072B2", "color": "#0072B2", "label": SET_WORDS["external"]},
}


@styled
def plot_comparison(models: Mapping[str, Any]) -> Figure:
    """Draw balanced accuracy, macro F1 and macro AUC of all models with their intervals, both sets.

    ``models`` is that part of ``results.json``, in the order in which the lines are to stand, best first.
    """
    figure, axes = panels(1, len(_COMPARED), height_in=1.1 + 0.34 * len(models), sharey=True)
    for ax, metric in zip(axes[0], _COMPARED, strict=True):
        _dots(ax, [{s: m[s][metric] for s in _LOOKS if m.get(s)} for m in models.values()])
        ax.set_title(OVERALL.get(metric).title)
    _name_rows(axes[0, 0], list(models))
    _set_legend(figure, axes[0, 0])
    return figure


@styled
def plot_recall(models: Mapping[str, Any], class_names: tuple[str, ...]) -> Figure:
    """Draw the recall of each class by all models with its interval, one panel per class."""
    n_cols = min(len(class_names), 4 if len(class_names) > 6 else 3)
    n_rows = -(-len(class_names) // n_cols)
    figure, axes = panels(n_rows, n_cols, height_in=0.5 + n_rows * (0.7 + 0.3 * len(models)), sharey=True, sharex=True)
    for ax, name, colour in zip(axes.flat, class_names, class_colours(len(class_names)), strict=False):
        rows = [{s: m[s]["per_class"][name]["recall"] for s in _LOOKS if m.get(s)} for m in models.values()]
        _dots(ax, rows, colour=colour)
        ax.set_title(f"Recall: {shorten(name, 13 if n_cols == 4 else 20)}")
    for ax in axes.flat[len(class_names) :]:
        ax.set_visible(False)
    _name_rows(axes[0, 0], list(models))
    _set_legend(figure, axes[0, 0], neutral=True)
    return figure


@styled
def plot_scopes(scopes: Mapping[str, Any], class_names: tuple[str, ...]) -> Figure:
    """Draw accuracy and recall per class in every region or group.

    ``scopes`` maps the name of each region or group to its block of ``results.json``.
    """
    n = len(scopes)
    shown = 1 + len(class_names)
    n_cols = min(shown, 4)
    n_rows = -(-shown // n_cols)
    figure, axes = panels(n_rows, n_cols, height_in=n_rows * (0.75 + 0.22 * n), sharey=True, sharex=True)
    columns = [("Accuracy", [{"external": b["accuracy"]} for b in scopes.values()], INK)]
    for name, colour in zip(class_names, class_colours(len(class_names)), strict=True):
        values = [{"external": b["per_class"][name]["recall"]} for b in scopes.values()]
        columns.append((f"Recall:\n{shorten(name, 16)}", values, colour))
    for ax, (title, values, colour) in zip(axes.flat, columns, strict=False):
        _dots(ax, values, colour=colour, filled=True)
        ax.set_title(title)
    for ax in axes.flat[shown:]:
        ax.set_visible(False)
    _name_rows(axes[0, 0], [f"{shorten(name, 22)} (n = {b['n_cells']})" for name, b in scopes.items()])
    return figure


def _dots(ax: Axes, rows: Sequence[Mapping[str, Any]], *, colour: str | None = None, filled: bool = False) -> None:
    for y, values in enumerate(rows):
        for set_name, value in values.items():
            if value["mean"] is None:
                continue
            look: dict[str, Any] = dict(_LOOKS[set_name])
            if colour is not None:
                look |= {"color": colour, "mfc": colour if set_name == "external" else "white"}
            shift = 0.0 if len(values) == 1 or filled else {"cv": -0.14, "external": 0.14}[set_name]
            low, high = value["ci95"] or (value["mean"], value["mean"])
            # a percentile interval need not hold the mean (calibration error); bars would be negative
            ax.plot([low, high], [y + shift] * 2, color=look["color"], lw=1.2, solid_capstyle="butt")
            ax.plot(value["mean"], y + shift, look["fmt"], ms=4.2, mfc=look["mfc"], mec=look["color"], mew=1.1)
    ax.set_ylim(len(rows) - 0.5, -0.5)
    ax.xaxis.set_major_locator(MaxNLocator(4, prune="both"))
    light_grid(ax)
    ax.tick_params(axis="y", length=0)


def _name_rows(ax: Axes, names: Sequence[str]) -> None:
    lines = [n.removesuffix(" (ensemble)").split("\n") + ["(ensemble)"] * n.endswith(" (ensemble)") for n in names]
    ax.set_yticks(range(len(names)), ["\n".join(shorten(x) for x in rows) for rows in lines])


def _set_legend(figure: Figure, ax: Axes, *, neutral: bool = False) -> None:
    handles = []
    for look in _LOOKS.values():
        colour = INK if neutral else look["color"]
        face = "white" if look["mfc"] == "white" else colour
        handles += ax.plot([], [], "o-", ms=4.2, lw=1.2, color=colour, mfc=face, label=look["label"])
    figure.legend(handles=handles, loc="outside lower center", ncols=2)


@styled
def plot_counts(cells: pd.DataFrame, class_names: tuple[str, ...]) -> Figure:
    """Draw the number of cells of each class by set, region and group, where these are known."""
    scopes = [c for c in ("set", "region", "group") if cells[c].notna().any()]
    tables = [pd.crosstab(cells[c], cells["label"]).reindex(columns=list(class_names), fill_value=0) for c in scopes]
    n_bars = [len(t) for t in tables]
    figure, axes = panels(
        len(tables), 1, height_in=0.75 + 0.27 * sum(n_bars) + 0.28 * len(tables), width_in=PAGE_IN, height_ratios=n_bars
    )
    for ax, scope, table in zip(axes[:, 0], scopes, tables, strict=True):
        _stack(ax, table, class_colours(len(class_names)))
        ax.set_title(f"By {scope}")
    axes[-1, 0].set_xlabel("Cells")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=legend_columns(labels))
    return figure


def _stack(ax: Axes, table: pd.DataFrame, colours: Sequence[str]) -> None:
    left = np.zeros(len(table))
    widest = float(table.to_numpy().sum(axis=1).max())
    for name, colour in zip(table.columns, colours, strict=True):
        n = table[name].to_numpy()
        bars = ax.barh(
            range(len(table)), n, left=left, color=colour, label=shorten(str(name)), height=0.72, ec="white", lw=0.6
        )
        ax.bar_label(bars, [str(x) if x > 0.045 * widest else "" for x in n], label_type="center", fontsize=7,
                     color=readable_on(colour))  # fmt: skip
        left += n
    ax.set_yticks(range(len(table)), [shorten(str(x)) for x in table.index])
    ax.tick_params(axis="y", length=0)
    ax.invert_yaxis()
    ax.spines["left"].set_visible(False)
