"""Training curves: loss and accuracy of all networks of one model, together and per class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from perikarya.figures.style import (
    FAINT,
    class_colours,
    class_line,
    legend_columns,
    light_grid,
    panels,
    shorten,
    styled,
)

_PARTS = {"train": "training folds", "stop": "stopping fold"}


@styled
def plot_curves(
    histories: Sequence[pd.DataFrame], class_names: tuple[str, ...], *, best: Sequence[int | None] = ()
) -> Figure:
    """Draw mean and standard deviation over networks, against epochs or, for a linear head, penalties.

    Parameters
    ----------
    histories
        One table per trained network, as in ``history.csv``.
    class_names
        Classes in their order; those without columns are left out.
    best
        The epoch whose weights were kept, of each network.
    """
    figure, axes = panels(2, 3, height_in=4.4, sharex=True, sharey="row")
    for row, measure in enumerate(("loss", "accuracy")):
        _overall(axes[row, 0], histories, measure, best)
        for col, part in enumerate(_PARTS, start=1):
            _per_class(axes[row, col], histories, f"{part}_{measure}", class_names)
        axes[row, 0].set_ylabel("Cross-entropy (nats)" if measure == "loss" else "Accuracy")
    for ax, title in zip(axes[0], ("All cells", "Per class, training folds", "Per class, stopping fold"), strict=True):
        ax.set_title(title)
    axes[0, 0].set_ylim(bottom=0)
    axes[1, 0].set_ylim(top=1)
    for ax in axes[1]:
        _label_steps(ax, histories)
    axes[0, 0].legend(loc="best")
    _class_legend(figure, axes[0, 1])
    return figure


def _overall(ax: Axes, histories: Sequence[pd.DataFrame], measure: str, best: Sequence[int | None]) -> None:
    for part, colour, line in (("train", FAINT, (0, (4, 1.5))), ("stop", "black", "-")):
        _band(ax, histories, f"{part}_{measure}", colour=colour, line=line, label=_PARTS[part])
    column = f"stop_{measure}"
    kept = [
        h.loc[h["epoch"] == epoch, [_steps(h), column]]
        for h, epoch in zip(histories, best, strict=False)
        if epoch is not None and column in h
    ]
    if kept:
        points = pd.concat(kept)
        ax.plot(*points.to_numpy().T, "o", ms=3, mfc="white", mec="black", mew=0.8, label="kept", zorder=5)
    light_grid(ax)


def _per_class(ax: Axes, histories: Sequence[pd.DataFrame], prefix: str, class_names: tuple[str, ...]) -> None:
    for k, (name, colour) in enumerate(zip(class_names, class_colours(len(class_names)), strict=True)):
        _band(ax, histories, f"{prefix}_{name}", colour=colour, line=class_line(k), label=name)
    light_grid(ax)


def _band(ax: Axes, histories: Sequence[pd.DataFrame], column: str, *, colour: str, line: Any, label: str) -> None:
    step = _steps(histories[0])
    curves = [h.set_index(step)[column] for h in histories if column in h and _steps(h) == step]
    if not curves:
        return
    table = pd.concat(curves, axis=1)
    # networks stop early at different epochs; a mean over the few that went on would be a mean of others
    table = table[table.notna().sum(axis=1) >= max(1, len(curves) / 2)]
    x, mean = table.index.to_numpy(dtype=float), table.mean(axis=1).to_numpy()
    ax.plot(x, mean, color=colour, linestyle=line, label=label)
    if len(curves) > 1:
        spread = table.std(axis=1, ddof=1).fillna(0.0).to_numpy()
        ax.fill_between(x, mean - spread, mean + spread, color=colour, alpha=0.15, lw=0)


def _steps(history: pd.DataFrame) -> str:
    return "penalty" if "penalty" in history else "epoch"


def _label_steps(ax: Axes, histories: Sequence[pd.DataFrame]) -> None:
    if _steps(histories[0]) == "penalty":
        ax.set_xscale("log")
        ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
        ax.xaxis.set_minor_formatter(FuncFormatter(lambda *_: ""))
        ax.set_xlabel("Penalty of the linear head")
    else:
        ax.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        ax.set_xlabel("Epoch")


def _class_legend(figure: Figure, ax: Axes) -> None:
    handles, labels = ax.get_legend_handles_labels()
    if handles:
        labels = [shorten(x) for x in labels]
        figure.legend(handles, labels, loc="outside lower center", ncols=legend_columns(labels), handlelength=3)
