"""How far probabilities can be trusted before and after calibration, and what a model decides when it may abstain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from perikarya.evaluate.abstention import TARGET_ERRORS
from perikarya.evaluate.calibration import NONE
from perikarya.evaluate.calibrators import METHODS
from perikarya.evaluate.metrics import N_BINS, Floats, Ints, confidence_bins, reliability_points
from perikarya.evaluate.outputs import ModelScores, Scored
from perikarya.evaluate.tables import interval_text
from perikarya.figures.style import (
    FAINT,
    INK,
    PAGE_IN,
    class_colours,
    light_grid,
    panels,
    shorten,
    styled,
)
from perikarya.schema import SET_WORDS

_BLUE, _RED = "#0072B2", "#A50026"
_FEW = 5  # cells of a bin: below, its point is drawn but no line goes through it
_SMALLEST_SHARE = 0.1  # of cells kept: below, the error is that of a handful of cells


def method_title(method: str) -> str:
    """Return a method of calibration in words."""
    return "As given" if method == NONE else METHODS.get(method).title


@styled
def plot_calibration(scores_by_method: Mapping[str, ModelScores], block: Mapping[str, Any]) -> Figure:
    """Draw accuracy against confidence in 15 bins, one column per method and one row per set.

    Parameters
    ----------
    scores_by_method
        One entry of ``evaluate.calibration.try_methods``.
    block
        Its ``calibration_block``, for the errors.
    """
    sets: Mapping[str, Any] = block["sets"]
    n_cols = len(scores_by_method)
    figure, axes = panels(
        len(sets),
        n_cols,
        height_in=0.5 + len(sets) * (1.0 + PAGE_IN / max(n_cols, 3) * 0.85),
        width_in=PAGE_IN if n_cols > 2 else 2.4 * n_cols,
        sharex=True,
        sharey=True,
    )
    for row, set_name in zip(axes, sets, strict=True):
        for ax, (method, scores) in zip(row, scores_by_method.items(), strict=True):
            label_n, prob_nk = _joined(_parts(scores, set_name))
            _reliability(ax, reliability_points(label_n, prob_nk), colour=_BLUE, gaps=True)
            value = sets[set_name][method]
            _note(ax, f"error {interval_text(value['ece'])}\nlog loss {_number(value['loss']['mean'])}")
            ax.set_title(method_title(method))
        row[0].set_ylabel(f"{SET_WORDS[set_name].capitalize()}\nshare correct")
    for ax in axes[-1]:
        ax.set_xlabel("Confidence")
    return figure


@styled
def plot_class_reliability(
    scores_by_method: Mapping[str, ModelScores],
    block: Mapping[str, Any],
    class_names: tuple[str, ...],
    *,
    method: str,
) -> Figure:
    """Draw how often cells given a probability for a class are of it, as given and under one method, per class.

    Parameters
    ----------
    scores_by_method
        One entry of ``evaluate.calibration.try_methods``.
    block
        Its ``calibration_block``, for the errors of each class.
    class_names
        Classes in their order.
    method
        What is drawn beside the probabilities as given, such as the advised method; ``none``: these alone.
    """
    set_name = "external" if "external" in block["sets"] else "cv"
    errors = block["sets"][set_name]
    n_cols = min(len(class_names), 4 if len(class_names) > 6 else 3)
    n_rows = -(-len(class_names) // n_cols)
    figure, axes = panels(
        n_rows, n_cols, height_in=0.6 + n_rows * (0.5 + 0.8 * PAGE_IN / n_cols), sharex=True, sharey=True
    )
    drawn = {NONE: (FAINT, "--")} | ({} if method == NONE else {method: (_BLUE, "-")})
    for k, (ax, name) in enumerate(zip(axes.flat, class_names, strict=False)):
        lines = []
        for shown, (colour, dashes) in drawn.items():
            label_n, prob_nk = _joined(_parts(scores_by_method[shown], set_name))
            points = _class_points(prob_nk[:, k], label_n == k)
            _reliability(ax, points, colour=colour, dashes=dashes, label=method_title(shown))
            words = "as given" if shown == NONE else "calibrated"
            lines.append(f"{words} {interval_text(errors[shown]['per_class'][name]['ece'])}")
        _note(ax, "\n".join(lines))
        ax.set_title(shorten(name, 24))
        ax.label_outer()
    for ax in axes.flat[len(class_names) :]:
        ax.set_visible(False)
    for column in range(n_cols):
        lowest = axes[(len(class_names) - 1 - column) // n_cols, column]
        lowest.set_xlabel("Probability of the class")
        lowest.tick_params(labelbottom=True)
    for ax in axes[:, 0]:
        ax.set_ylabel("Share of the class")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure


def _parts(scores: ModelScores, set_name: str) -> list[Scored]:
    return scores.pooled if set_name == "cv" else scores.external


def _joined(parts: Sequence[Scored]) -> tuple[Ints, Floats]:
    return np.concatenate([p.label_n for p in parts]), np.concatenate([p.prob_nk for p in parts])


def _class_points(prob_n: Floats, positive_n: Floats) -> tuple[Floats, Floats, Ints]:
    """Return mean probability, share of positives and number of cells of each bin that holds any."""
    bins = confidence_bins(prob_n)
    n = np.bincount(bins, minlength=N_BINS)
    used = n > 0
    means = [np.bincount(bins, values, minlength=N_BINS)[used] / n[used] for values in (prob_n, positive_n)]
    return means[0], means[1], n[used]


def _reliability(
    ax: Axes,
    points: tuple[Floats, Floats, Ints],
    *,
    colour: str,
    dashes: str = "-",
    gaps: bool = False,
    label: str | None = None,
) -> None:
    expected, found, n = points
    many = n >= _FEW
    ax.plot([0, 1], [0, 1], color=FAINT, lw=0.7, ls=":")
    if gaps:
        low, high = np.minimum(expected, found)[many], np.maximum(expected, found)[many]
        ax.vlines(expected[many], low, high, color=_RED, lw=1)
    ax.plot(expected[many], found[many], dashes, color=colour, lw=1, label=label)
    ax.scatter(expected, found, s=3 + 37 * n / n.max(), color=colour, zorder=3, lw=0)
    ax.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    light_grid(ax)


def _note(ax: Axes, text: str) -> None:
    behind = {"fc": "white", "ec": "none", "alpha": 0.75, "pad": 1}
    ax.text(0.98, 0.03, text, transform=ax.transAxes, ha="right", va="bottom", fontsize=6.5, bbox=behind)


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


@styled
def plot_risk_coverage(blocks: Mapping[str, Any], *, leader: str) -> Figure:
    """Draw the error of the kept cells against the share that is kept, the leader in blue and the others in grey.

    Parameters
    ----------
    blocks
        ``abstention_block`` of each model.
    leader
        The model to stand out; its thresholds that aim at an error of 5 and 10 % are drawn as points.
    """
    sets = [s for s in ("cv", "external") if any(s in b["risk_coverage"] for b in blocks.values())]
    figure, axes = panels(
        1, len(sets), height_in=3.2, width_in=PAGE_IN if len(sets) > 1 else 3.8, sharex=True, sharey=True
    )
    for ax, set_name in zip(axes[0], sets, strict=True):
        for error in TARGET_ERRORS:
            ax.axhline(error, color=FAINT, lw=0.7, ls=":")
        others = [
            b["risk_coverage"][set_name] for n, b in blocks.items() if n != leader and set_name in b["risk_coverage"]
        ]
        for i, curve in enumerate(others):
            words = f"{len(others)} other model{'s' if len(others) > 1 else ''}"
            _risk(ax, curve, color=FAINT, lw=0.8, alpha=0.6, label=None if i else words)
        own = blocks[leader]["risk_coverage"].get(set_name)
        if own is not None:
            label = f"{shorten(leader)}: area {interval_text(own['aurc'])}"
            _risk(ax, own, color=_BLUE, lw=1.6, label=label)
            _targets(ax, blocks[leader]["targets"], set_name)
        ax.set_title(SET_WORDS[set_name].capitalize())
        ax.set(xlim=(0, 1.01), xlabel="Share of cells kept, surest first")
        ax.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        ax.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        ax.legend(loc="upper left")
        light_grid(ax)
    axes[0, 0].set_ylim(bottom=0)
    low, high = axes[0, 0].get_ylim()
    axes[0, 0].set_ylim(low, high + 0.25 * (high - low))  # room for the legend
    axes[0, 0].set_ylabel("Error of the kept cells")
    return figure


def _risk(ax: Axes, curve: Mapping[str, Any], **look: Any) -> None:
    share, error = np.asarray(curve["share_kept"]), np.asarray(curve["error"])
    shown = share >= _SMALLEST_SHARE
    ax.plot(share[shown], error[shown], **look)


def _targets(ax: Axes, targets: Sequence[Mapping[str, Any]], set_name: str) -> None:
    """Draw what thresholds that were chosen on validation cells did to these cells, with intervals of the error."""
    for target in targets:
        kept, error = target["sets"][set_name]["kept"]["mean"], target["sets"][set_name]["error"]
        if error["mean"] is None:
            continue
        low, high = error["ci95"] or (error["mean"], error["mean"])
        ax.plot([kept, kept], [low, high], color=_RED, lw=1.2, solid_capstyle="butt")
        ax.plot(kept, error["mean"], "o", color=_RED, ms=4)
        ax.annotate(
            f"aimed at {100 * target['error']:g} %", (kept, high), (-3, 0), textcoords="offset points", ha="right",
            va="top", fontsize=6.5, color=_RED,
        )  # fmt: skip


@styled
def plot_conformal(block: Mapping[str, Any], class_names: tuple[str, ...]) -> Figure:
    """Draw what conformal sets keep of their promise: per class, how much is decided, and animal by animal.

    Parameters
    ----------
    block
        The part ``conformal`` of an ``abstention_block``.
    class_names
        Classes in their order.
    """
    sets = block["sets"]
    figure, axes = panels(
        len(sets), 3, height_in=0.4 + len(sets) * (1.2 + 0.2 * len(class_names)), width_ratios=[1.5, 1, 1.1]
    )
    for row, (set_name, values) in zip(axes, sets.items(), strict=True):
        _coverages(row[0], values, class_names, block["nominal"])
        row[0].set_title(f"{SET_WORDS[set_name].capitalize()}: coverage")
        _decided(row[1], values)
        row[1].set_title("Classes in the set")
        _animals(row[2], values["by_subject"], block["nominal"])
        row[2].set_title("Coverage by subject")
    lowest = min(ax.get_xlim()[0] for ax in axes[:, 0])
    for ax in axes[:, 0]:
        ax.set_xlim(lowest, 1.005)
    return figure


def _coverages(ax: Axes, values: Mapping[str, Any], class_names: tuple[str, ...], nominal: float) -> None:
    rows = [("all cells", values["coverage"], INK)]
    colours = class_colours(len(class_names))
    rows += [(n, values["per_class"][n], c) for n, c in zip(class_names, colours, strict=True)]
    ax.axvline(nominal, color=FAINT, lw=0.9, ls=":")
    for y, (_, value, colour) in enumerate(rows):
        if value["mean"] is None:
            continue
        low, high = value["ci95"] or (value["mean"], value["mean"])
        ax.plot([low, high], [y, y], color=colour, lw=1.4, solid_capstyle="butt")
        ax.plot(value["mean"], y, "o", color=colour, ms=4.2)
    ax.set_yticks(range(len(rows)), [shorten(name, 18) for name, _, _ in rows])
    ax.set_ylim(len(rows) - 0.5, -0.5)
    ax.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    ax.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    ax.tick_params(axis="y", length=0)
    ax.set_xlabel(f"True class in the set (promised: {100 * nominal:g} %)")
    light_grid(ax, axis="x")


def _decided(ax: Axes, values: Mapping[str, Any]) -> None:
    bars = [("one", "decided", _BLUE), ("several", "several", "#E69F00"), ("none", "empty", FAINT)]
    right = values["accuracy_decided"]["mean"]
    for y, (_, key, colour) in enumerate(bars):
        value = values[key]
        ax.barh(y, value["mean"], color=colour, height=0.62)
        low, high = value["ci95"] or (value["mean"], value["mean"])
        ax.plot([low, high], [y, y], color=INK, lw=1.2, solid_capstyle="butt")
        text = f"{100 * value['mean']:.1f} %"
        if key == "decided" and right is not None:
            text += f"\n({100 * right:.1f} % right)"
        ax.text(max(high, value["mean"]) + 0.03, y, text, va="center", fontsize=7)
    ax.set_yticks(range(3), [name for name, _, _ in bars])
    ax.set_ylim(2.6, -0.6)
    ax.set_xlim(0, 1.5)
    ax.set_xticks([0, 0.5, 1])
    ax.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    ax.tick_params(axis="y", length=0)
    ax.set_xlabel("Share of cells")
    light_grid(ax, axis="x")


def _animals(ax: Axes, by_subject: Mapping[str, Any] | None, nominal: float) -> None:
    if by_subject is None:
        ax.axis("off")
        ax.text(0.5, 0.5, "subjects not known,\nor few cells of each", ha="center", va="center", color=FAINT)
        return
    n, coverage = np.asarray(by_subject["points"], np.float64).T
    ax.axhline(nominal, color=FAINT, lw=0.9, ls=":")
    ax.scatter(np.arange(1, len(n) + 1), coverage, s=5 + 35 * n / n.max(), color=_BLUE, alpha=0.7, lw=0)
    ax.set_ylim(min(0.8, coverage.min() - 0.03), 1.02)
    ax.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    ax.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    ax.set_xlabel(f"{by_subject['n_below']} of {by_subject['n']} subjects below")
    light_grid(ax)
