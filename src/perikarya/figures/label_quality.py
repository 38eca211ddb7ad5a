"""Cells whose label is in doubt, to look at, and how often each class was probably recorded as another."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from perikarya.data.store import OpenStudy
from perikarya.evaluate.label_quality import N_TOP
from perikarya.figures.galleries import outlined
from perikarya.figures.style import FAINT, INK, PAGE_IN, panels, shorten, styled

_TILE_PX = 240
_MAX_NAMES = 8  # classes whose names fit below the matrix


@styled
def plot_label_issues(opened: OpenStudy, table: pd.DataFrame, *, n: int = N_TOP, n_cols: int = 6) -> Figure | None:
    """Draw the most suspicious flagged cells: label → suggested class with its probability, subject and image.

    Parameters
    ----------
    opened
        The study, for its crops.
    table
        From ``evaluate.label_quality.label_issues``.

    Returns
    -------
    None where no cell is flagged.
    """
    shown = table[table["flagged"] == "yes"].head(n)
    if shown.empty:
        return None
    n_rows = -(-len(shown) // n_cols)
    figure, axes = panels(n_rows, n_cols, height_in=1.72 * n_rows)
    for ax in axes.flat:
        ax.set_axis_off()
    crops = opened.read_crops(shown["row"].to_numpy(dtype=np.int64))
    for ax, cell, crop in zip(axes.flat, shown.to_dict("records"), crops, strict=False):
        ax.imshow(outlined(crop, size_px=_TILE_PX), interpolation="antialiased")
        _describe(ax, cell)
    return figure


def _describe(ax: Axes, cell: dict[Any, Any]) -> None:
    suggested = cell["suggested"]
    ax.set_title(
        f"{shorten(cell['label'], 20)}\n→ {shorten(suggested, 13)} {100 * cell[f'prob_{suggested}']:.0f} %",
        fontsize=6.5, fontweight="normal", color=INK, pad=2,
    )  # fmt: skip
    below = [shorten(cell[c], 22) for c in ("subject", "image_id") if isinstance(cell[c], str)]
    if cell["n_models"] > 1:
        below.append(f"{cell['n_models_disagree']} of {cell['n_models']} models disagree")
    ax.text(0, -0.03, "\n".join(below), transform=ax.transAxes, va="top", fontsize=5.5, color=FAINT)


@styled
def plot_label_noise(block: dict[str, Any], class_names: tuple[str, ...]) -> Figure:
    """Draw what the cells recorded as each class probably are, in percent; ``block`` is that of ``results.json``."""
    share = np.array([[np.nan if x is None else x for x in row] for row in block["likely_given_recorded"]], np.float64)
    k = len(class_names)
    side = min(PAGE_IN - 2.0, max(1.7, 0.42 * k))
    figure, axes = panels(1, 1, height_in=side + 1.2, width_in=side + 2.0)
    ax = axes[0, 0]
    off_diagonal = np.where(np.eye(k, dtype=bool), np.nan, share)
    top = float(np.nanmax(off_diagonal)) if np.isfinite(off_diagonal).any() else 0.0
    ax.imshow(off_diagonal, cmap="Oranges", vmin=0.0, vmax=max(0.05, top))
    for (i, j), value in np.ndenumerate(share):
        if np.isfinite(value) and k <= 2 * _MAX_NAMES:
            dark = i != j and value > 0.6 * max(0.05, top)
            ax.text(j, i, f"{100 * value:.1f}" if i != j else f"{100 * value:.0f}", ha="center", va="center",
                    fontsize=7 if k <= _MAX_NAMES else 5, color="white" if dark else INK)  # fmt: skip
    names = [shorten(name, 14) for name in class_names]
    ax.set_xticks(range(k), names, rotation=30 if k <= 4 else 90, ha="right" if k <= 4 else "center")
    ax.set_yticks(range(k), names)
    ax.tick_params(length=0)
    ax.set_xlabel("probably")
    ax.set_ylabel("recorded as")
    ax.set_title("Percent of each recorded class")
    return figure
