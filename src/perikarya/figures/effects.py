"""What a treatment does in each region, and what the next study could find."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from perikarya.evaluate.quantify.cells import ALL_REGIONS, SEVERITY
from perikarya.figures.style import (
    FAINT,
    GRID,
    INK,
    class_colours,
    class_line,
    legend_columns,
    light_grid,
    panels,
    shorten,
    styled,
)

_FOUND, _ACROSS = "#0072B2", 3
_MARKS: dict[str, dict[str, Any]] = {
    "yes": {"marker": "o", "mfc": _FOUND, "mec": _FOUND},
    "no": {"marker": "o", "mfc": "white", "mec": FAINT},
    "untested": {"marker": "x", "mfc": FAINT, "mec": FAINT},
}


@styled
def plot_effects(effects: Mapping[str, Any], *, measure: str = SEVERITY) -> Figure | None:
    """Draw the difference between two groups in each region with its interval, one panel per pair of groups.

    Parameters
    ----------
    effects
        From ``treatment_effects``.
    measure
        One of its ``measures``.

    Returns
    -------
    None where there is no pair of groups or no effect to draw. A filled mark: p corrected over the regions is at most
    1 - ``confidence``; an open one: it is not; a cross: too few animals for a test.
    """
    comparisons = [c for c in effects["comparisons"] if _shown(c, measure)]
    if not comparisons:
        return None
    regions = list(dict.fromkeys(e["region"] for c in comparisons for e in _shown(c, measure)))
    n_rows = -(-len(comparisons) // _ACROSS)
    figure, axes = panels(
        n_rows,
        min(len(comparisons), _ACROSS),
        height_in=n_rows * (0.75 + 0.24 * len(regions)) + 0.35,
        sharex=True,
        sharey=True,
    )
    level = 1 - effects["confidence"]
    kinds = set()
    for ax, comparison in zip(axes.flat, comparisons, strict=False):
        kinds |= _forest(ax, _shown(comparison, measure), regions, level)
        ax.set_title(_versus(comparison))
        ax.set_xlabel(f"Difference in {_words(measure)}")
        ax.tick_params(axis="x", labelbottom=True)
    for ax in axes.flat[len(comparisons) :]:
        ax.set_visible(False)
    axes[0, 0].set_yticks(range(len(regions)), [_region(r) for r in regions])
    axes[0, 0].set_ylim(len(regions) - 0.4, -0.6)
    axes[0, 0].xaxis.set_major_locator(MaxNLocator(4, prune="both"))
    _explain_marks(figure, axes[0, 0], kinds, level)
    return figure


def _shown(comparison: Mapping[str, Any], measure: str) -> list[dict[str, Any]]:
    return [
        e for e in comparison["effects"] if e["measure"] == measure and e["difference"]["estimate"] is not None
    ]  # fmt: skip


def _forest(ax: Axes, effects: Sequence[Mapping[str, Any]], regions: Sequence[str], level: float) -> set[str]:
    ax.axvline(0, color=INK, lw=0.8)
    kinds = set()
    for effect in effects:
        y, value = regions.index(effect["region"]), effect["difference"]
        kind = "untested" if effect["p"] is None else "yes" if effect["p_holm"] <= level else "no"
        kinds.add(kind)
        look = _MARKS[kind]
        if value["ci95"] is not None:
            ax.plot(value["ci95"], [y, y], color=look["mec"], lw=1.3, solid_capstyle="butt")
        ax.plot(value["estimate"], y, ls="", ms=4.6, mew=1.1, **look)
    if ALL_REGIONS in regions and len(regions) > 1:
        ax.axhline(regions.index(ALL_REGIONS) + 0.5, color=GRID, lw=0.8)
    light_grid(ax, axis="x")
    ax.tick_params(axis="y", length=0)
    return kinds


def _explain_marks(figure: Figure, ax: Axes, kinds: set[str], level: float) -> None:
    words = {
        "yes": f"p ≤ {level:.2g}, corrected over regions (Holm)",
        "no": f"corrected p > {level:.2g}",
        "untested": "too few animals for a test",
    }
    handles = [ax.plot([], [], ls="", ms=4.6, label=words[k], **_MARKS[k])[0] for k in _MARKS if k in kinds]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))


@styled
def plot_power(power: Mapping[str, Any], *, measure: str = SEVERITY) -> Figure | None:
    """Draw the smallest difference that a next study finds with 80 % power, against its animals per group.

    One panel per pair of groups, one line per region; the band is the interval of all regions together (of the first
    region where there are no such), for what this study knows of the spread between animals.

    Parameters
    ----------
    power
        From ``power_block``.
    measure
        Severity, or the fraction that the block holds.

    Returns
    -------
    None where no region has the animals it needs.
    """
    shown = [(c, [p for p in c["plans"] if p["measure"] == measure and p["detectable"]]) for c in power["comparisons"]]
    shown = [(c, plans) for c, plans in shown if plans]
    if not shown:
        return None
    regions = list(dict.fromkeys(p["region"] for _, plans in shown for p in plans))
    colours = dict(zip(regions, [INK, *class_colours(len(regions) - 1)], strict=True))
    n_rows = -(-len(shown) // _ACROSS)
    figure, axes = panels(n_rows, min(len(shown), _ACROSS), height_in=2.1 * n_rows + 0.6, sharey=True, sharex=True)
    for ax, (comparison, plans) in zip(axes.flat, shown, strict=False):
        for plan in plans:
            _detectable(ax, plan, colour=colours[plan["region"]], index=regions.index(plan["region"]))
        ax.set_title(_versus(comparison))
        ax.set_xlabel("Animals per group")
        ax.tick_params(axis="x", labelbottom=True)
        light_grid(ax)
    for ax in axes.flat[len(shown) :]:
        ax.set_visible(False)
    axes[0, 0].set_ylim(bottom=0)
    axes[0, 0].xaxis.set_major_locator(MaxNLocator(5, integer=True))
    for ax in axes[:, 0]:
        ax.set_ylabel(f"Smallest difference found in\n{_words(measure)}, power 80 %")
    lines = {str(line.get_label()): line for ax in axes.flat for line in ax.get_lines()}
    labels = [_region(r) for r in regions]
    figure.legend([lines[x] for x in labels], labels, loc="outside lower center", ncols=legend_columns(labels))
    return figure


def _detectable(ax: Axes, plan: Mapping[str, Any], *, colour: str, index: int) -> None:
    n = [d["n"] for d in plan["detectable"]]
    low, high = zip(*(d["ci95"] for d in plan["detectable"]), strict=True)
    if index == 0:
        ax.fill_between(n, low, high, color="#e4e9ee", lw=0)
    ax.plot(
        n,
        [d["difference"] for d in plan["detectable"]],
        color=colour,
        ls=class_line(index),
        lw=2.0 if index == 0 else 1.1,
        label=_region(plan["region"]),
    )


def _versus(comparison: Mapping[str, Any]) -> str:
    return f"{shorten(comparison['group'], 22)}\n− {shorten(comparison['reference'], 20)}"


def _region(name: str) -> str:
    return "all regions" if name == ALL_REGIONS else shorten(name, 18)


def _words(measure: str) -> str:
    return shorten(measure.replace("fraction_", "fraction: ", 1), 30)
