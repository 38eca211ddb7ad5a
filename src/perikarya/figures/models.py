"""The published study's figures over models: spread over networks, sets against each other, speed, regions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from perikarya.evaluate.folds import SPREAD
from perikarya.evaluate.metrics import OVERALL, Floats
from perikarya.evaluate.summary import spread_over
from perikarya.figures.style import FAINT, INK, PAGE_IN, light_grid, panels, shorten, styled
from perikarya.schema import SET_WORDS

MIN_FOR_BOX = 5  # points; quartiles of fewer would show more than there is
_LOOKS = {"cv": ("white", "#6b7785", -0.19), "external": ("#0072B2", "#0072B2", 0.19)}  # face, edge, shift
_LABEL_IN = 0.145  # height of a name beside a plot


@styled
def plot_spread(spread: Mapping[str, Mapping[str, Mapping[str, Sequence[float | None]]]]) -> Figure | None:
    """Draw accuracy, balanced accuracy, macro AUC and loss of every single network, a box where there are five or more.

    Parameters
    ----------
    spread
        Set (``cv``, ``external``) to model to ``evaluate.folds.network_scores``; models in the order of the lines.

    Returns
    -------
    The figure; None where no model has two networks, for one point has no spread.
    """
    names = list(dict.fromkeys(name for models in spread.values() for name in models))
    if not any(len(scores["accuracy"]) > 1 for models in spread.values() for scores in models.values()):
        return None
    figure, axes = panels(1, len(SPREAD), height_in=1.0 + 0.36 * len(names), sharey=True)
    for ax, metric in zip(axes[0], SPREAD, strict=True):
        for set_name, models in spread.items():
            for y, name in enumerate(names):
                values = [v for v in models.get(name, {}).get(metric, ()) if v is not None]
                _strip(ax, np.array(values), y, set_name, alone=len(spread) == 1)
        ax.set_title(OVERALL.get(metric).title)
        ax.set_ylim(len(names) - 0.45, -0.55)
        ax.xaxis.set_major_locator(MaxNLocator(3, prune="both"))
        light_grid(ax)
        ax.tick_params(axis="y", length=0)
    axes[0, 0].set_yticks(range(len(names)), [shorten(name) for name in names])
    _legend(figure, axes[0, 0], list(spread))
    return figure


def _strip(ax: Axes, values: Floats, row: int, set_name: str, *, alone: bool) -> None:
    face, edge, shift = _LOOKS[set_name]
    y = row + (0.0 if alone else shift)
    if len(values) >= MIN_FOR_BOX:
        line = {"color": edge, "lw": 0.8}
        ax.boxplot(
            values, orientation="horizontal", positions=[y], widths=0.26, showfliers=False, manage_ticks=False,
            boxprops=line, whiskerprops=line, capprops=line, medianprops=line | {"lw": 1.6},
        )  # fmt: skip
    jitter = 0.06 * (np.arange(len(values)) % 3 - 1)
    ax.plot(values, y + jitter, "o", ms=2.6, mfc=face, mec=edge, mew=0.7, alpha=0.85, zorder=3)


def _legend(figure: Figure, ax: Axes, sets: Sequence[str]) -> None:
    handles = []
    for set_name in sets:
        face, edge, _ = _LOOKS[set_name]
        handles += ax.plot([], [], "o", ms=4, mfc=face, mec=edge, label=f"one network, {SET_WORDS[set_name]}")
    figure.legend(handles=handles, loc="outside lower center", ncols=2)


@styled
def plot_scatter(models: Mapping[str, Any], *, metric: str = "balanced_accuracy") -> Figure | None:
    """Draw the external score of each model against its cross-validated one, with both intervals.

    On the dotted line a model does as well on other animals as cross-validation promised.

    Parameters
    ----------
    models
        That part of ``results.json``; models without one of the two scores, such as ensembles, are left out.
    metric
        Of ``evaluate.metrics.OVERALL``.

    Returns
    -------
    The figure; None with fewer than two models, for one is told better by two numbers.
    """
    both = {
        name: tuple(m[s][metric] for s in ("cv", "external"))
        for name, m in models.items()
        if all(m.get(s) and m[s][metric]["mean"] is not None for s in ("cv", "external"))
    }
    if len(both) < 2:
        return None
    figure, axes = panels(1, 1, height_in=max(3.6, 1.0 + _LABEL_IN * len(both)), width_in=PAGE_IN)
    ax: Axes = axes[0, 0]
    for cv, external in both.values():
        x, y = cv["mean"], external["mean"]
        ax.plot(cv["ci95"] or [x, x], [y, y], color=FAINT, lw=0.8, alpha=0.7)
        ax.plot([x, x], external["ci95"] or [y, y], color=FAINT, lw=0.8, alpha=0.7)
        ax.plot(x, y, "o", ms=4.5, mfc=INK, mec="white", mew=0.6, zorder=3)
    low, high = min(ax.get_xlim()[0], ax.get_ylim()[0]), max(ax.get_xlim()[1], ax.get_ylim()[1])
    ax.plot([low, high], [low, high], ":", color=FAINT, lw=1)
    ax.set(xlim=(low, high), ylim=(low, high))
    title = OVERALL.get(metric).title
    ax.set(xlabel=f"{title}, {SET_WORDS['cv']}", ylabel=f"{title}, {SET_WORDS['external']}")
    light_grid(ax)
    _name_beside(ax, {name: (cv["mean"], external["mean"]) for name, (cv, external) in both.items()})
    return figure


@styled
def plot_speed(models: Mapping[str, Any], *, metric: str = "accuracy") -> Figure | None:
    """Draw the score of each model against the time it takes per cell, alone and in batches.

    The score is that on the external set where any model has one, else the cross-validated one.

    Parameters
    ----------
    models
        That part of ``results.json``.
    metric
        Of ``evaluate.metrics.OVERALL``.

    Returns
    -------
    The figure; None with fewer than two models whose time is known, for there is nothing to weigh.
    """
    set_name = "external" if any(m.get("external") for m in models.values()) else "cv"
    points = {}
    for name, m in models.items():
        times = {k: s for k, s in (m.get("inference_s_per_cell") or {}).items() if s}
        if times and m.get(set_name) and m[set_name][metric]["mean"] is not None:
            points[name] = (times, m[set_name][metric]["mean"])
    if len(points) < 2:
        return None
    figure, axes = panels(1, 1, height_in=max(3.0, 1.0 + _LABEL_IN * len(points)))
    ax: Axes = axes[0, 0]
    for times, score in points.values():
        ms = [1000 * s for s in times.values()]
        ax.plot([min(ms), max(ms)], [score, score], color=FAINT, lw=0.8)
        for kind, face in (("batch1", "white"), ("batched", INK)):
            if kind in times:
                ax.plot(1000 * times[kind], score, "o", ms=4.5, mfc=face, mec=INK, mew=0.9, zorder=3)
    ax.set_xscale("log")
    ax.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.margins(x=0.08, y=0.08)
    ax.set(xlabel="Time per cell in ms", ylabel=f"{OVERALL.get(metric).title}, {SET_WORDS[set_name]}")
    light_grid(ax)
    _name_beside(ax, {name: (1000 * max(times.values()), score) for name, (times, score) in points.items()})
    handles = [
        ax.plot([], [], "o", ms=4.5, mfc=face, mec=INK, label=label)[0]
        for face, label in (("white", "one cell at a time"), (INK, "in batches"))
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=2)
    return figure


def _name_beside(ax: Axes, points: Mapping[str, tuple[float, float]]) -> None:
    """Write the names right of the axes, in the order of the points and apart, each with a line to its point."""
    order = sorted(points, key=lambda name: points[name][1])
    figure = ax.figure
    low, high = ax.get_ylim()
    gap = _LABEL_IN / (0.8 * float(figure.get_size_inches()[1]))  # type: ignore[union-attr]
    wanted = np.array([(points[name][1] - low) / (high - low) for name in order])
    for name, y in zip(order, _apart(wanted, gap), strict=True):
        ax.annotate(
            shorten(name, 34), points[name], xytext=(1.04, y), textcoords=ax.transAxes, va="center", fontsize=7.5,
            arrowprops={"arrowstyle": "-", "color": FAINT, "lw": 0.5, "shrinkA": 1, "shrinkB": 3, "relpos": (0, 0.5)},
        )  # fmt: skip


def _apart(wanted: Floats, gap: float) -> Floats:
    """Move sorted places as little as needed to be ``gap`` apart and from 0 to 1 (isotonic regression of the rest)."""
    blocks: list[tuple[float, int]] = []
    for place in wanted - gap * np.arange(len(wanted)):
        blocks.append((float(place), 1))
        while len(blocks) > 1 and blocks[-2][0] > blocks[-1][0]:
            (a, n), (b, m) = blocks[-2:]
            blocks[-2:] = [((a * n + b * m) / (n + m), n + m)]
    moved = np.repeat([place for place, _ in blocks], [n for _, n in blocks])
    inside = np.clip(moved, 0.0, max(0.0, 1.0 - gap * (len(wanted) - 1)))
    return np.asarray(inside + gap * np.arange(len(wanted)))


@styled
def plot_regions_heat(models: Mapping[str, Any], class_names: tuple[str, ...], *, chosen: str) -> Figure | None:
    """Draw the accuracy of each model in each region and, below, the recall of each class by one model.

    Beside each row stands the standard deviation over regions. The set is the external one where its regions are
    known, else cross-validation.

    Parameters
    ----------
    models
        That part of ``results.json``, best first.
    class_names
        In the order of the rows.
    chosen
        The model whose recall is shown.

    Returns
    -------
    The figure; None with fewer than two regions, or where the chosen model was not scored by region.
    """
    found = {name: regions_of(m) for name, m in models.items()}
    set_name = "external" if any("external" in sets for sets in found.values()) else "cv"
    regions = {name: sets[set_name] for name, sets in found.items() if set_name in sets}
    columns = sorted({region for blocks in regions.values() for region in blocks})
    if len(columns) < 2 or chosen not in regions:
        return None
    accuracy = [[_mean(blocks.get(c), "accuracy") for c in columns] for blocks in regions.values()]
    recall = [[_mean(regions[chosen].get(c), "recall", name) for c in columns] for name in class_names]
    spread = spread_over(regions[chosen])["per_class"]
    figure, axes = panels(
        2, 1, height_in=1.45 + 0.25 * (len(accuracy) + len(recall)), height_ratios=[len(accuracy), len(recall)]
    )
    lowest = float(np.nanmin(np.array(accuracy + recall, np.float64)))
    counts = [max(b[c]["n_cells"] for b in regions.values() if c in b) for c in columns]
    _heat(axes[0, 0], accuracy, [spread_over(blocks)["accuracy"] for blocks in regions.values()], lowest)
    axes[0, 0].set_yticks(range(len(accuracy)), [shorten(name, 32) for name in regions])
    axes[0, 0].set_title(f"Accuracy in %, {SET_WORDS[set_name]}", pad=6)
    _heat(axes[1, 0], recall, [spread[name]["recall"] for name in class_names], lowest)
    axes[1, 0].set_yticks(range(len(recall)), [shorten(name, 32) for name in class_names])
    axes[1, 0].set_title(f"Recall in %, {shorten(chosen, 50)}", pad=6)
    for ax in axes[:, 0]:
        ax.set_xticks(range(len(columns)), [""] * len(columns))
    labels = [f"{shorten(c, 14)}\nn = {n}" for c, n in zip(columns, counts, strict=True)]
    axes[1, 0].set_xticks(range(len(columns)), labels)
    return figure


def regions_of(model: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the blocks by region of one model of ``results.json``, by set; sets without any are left out."""
    first = model.get("scopes_of")
    sets = {first: model.get("regions"), "external": model.get("external_regions")}
    if first == "external":
        sets = {first: model.get("regions")}
    return {name: blocks for name, blocks in sets.items() if name and blocks}


def _mean(block: Mapping[str, Any] | None, metric: str, class_name: str | None = None) -> float | None:
    if block is None:
        return None
    value = block[metric] if class_name is None else block["per_class"][class_name][metric]
    mean: float | None = value["mean"]
    return mean


def _heat(ax: Axes, rows: Sequence[Sequence[float | None]], spread: Sequence[float | None], lowest: float) -> None:
    values = np.array(rows, np.float64)
    shade = mpl.colormaps["Blues"]
    n_columns = values.shape[1]
    scaled = np.nan_to_num((values - lowest) / max(1.0 - lowest, 1e-9))
    colours = shade(0.05 + 0.75 * scaled)
    colours[np.isnan(values)] = (1, 1, 1, 1)
    ax.imshow(colours, aspect="auto", interpolation="nearest")
    for (y, x), value in np.ndenumerate(values):
        text = "–" if np.isnan(value) else f"{100 * value:.1f}"
        ax.text(x, y, text, ha="center", va="center", fontsize=7, color="white" if scaled[y, x] > 0.82 else INK)
    for y, sd in enumerate(spread):
        ax.text(n_columns + 0.05, y, "–" if sd is None else f"{100 * sd:.1f}", ha="center", va="center", fontsize=7)
    ax.text(n_columns + 0.05, -0.62, "SD", ha="center", va="bottom", fontsize=7.5, fontweight="bold")
    ax.set_xlim(-0.5, n_columns + 0.5)
    ax.tick_params(length=0)
    for side in ("left", "bottom"):
        ax.spines[side].set_visible(False)
