"""Figures of treatment effects and power: what is drawn is what was computed."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from tests.evaluate.quantify.test_effects import NO_CELLS, make_damage

from perikarya.evaluate.quantify.effects import treatment_effects
from perikarya.evaluate.quantify.power import power_block
from perikarya.figures.effects import plot_effects, plot_power
from perikarya.figures.style import save_figure
from perikarya.settings import QuantifyConfig

SETTINGS = QuantifyConfig(n_bootstrap=200, n_permutations=500)
REGIONS = ("all", "CA1", "CA3", "a region $x^2$ with a very long name", "DG")


@pytest.fixture(scope="module")
def effects() -> dict[str, Any]:
    damage = make_damage(
        groups={"sham": 5, "ischemia": 5, "treated": 4, "a group $y$ of quite some name": 5}, regions=REGIONS
    )
    return treatment_effects(damage, NO_CELLS, SETTINGS)


@pytest.fixture(scope="module")
def power() -> dict[str, Any]:
    damage = make_damage(groups={"sham": 5, "ischemia": 5, "treated": 4}, regions=REGIONS)
    return power_block(damage, SETTINGS)


def drawn(figure: Figure) -> list[Axes]:
    return [ax for ax in figure.axes if ax.get_visible()]


def marks(ax: Axes) -> list[Any]:
    return [line for line in ax.get_lines() if line.get_marker() in ("o", "x") and len(line.get_xdata())]


@pytest.mark.parametrize("measure", ["severity", "fraction_pyknotic"])
def test_each_effect_is_a_mark_at_its_estimate_on_the_row_of_its_region(effects: dict[str, Any], measure: str) -> None:
    figure = plot_effects(effects, measure=measure)
    assert figure is not None
    axes = drawn(figure)
    assert len(axes) == len(effects["comparisons"]) == 6
    for ax, comparison in zip(axes, effects["comparisons"], strict=True):
        expected = [e["difference"]["estimate"] for e in comparison["effects"] if e["measure"] == measure]
        assert [float(m.get_xdata()[0]) for m in marks(ax)] == expected
        assert [int(m.get_ydata()[0]) for m in marks(ax)] == list(range(len(REGIONS)))


def test_intervals_are_bars_from_end_to_end(effects: dict[str, Any]) -> None:
    figure = plot_effects(effects)
    assert figure is not None
    expected = [e["difference"]["ci95"] for e in effects["comparisons"][0]["effects"] if e["measure"] == "severity"]
    bars = [line.get_xdata() for line in drawn(figure)[0].get_lines() if len(line.get_xdata()) == 2]
    assert all(any(np.array_equal(bar, interval) for bar in bars) for interval in expected)


def test_a_filled_mark_is_a_corrected_p_at_the_level_and_a_cross_has_no_test(effects: dict[str, Any]) -> None:
    changed = copy.deepcopy(effects)
    changed["comparisons"] = changed["comparisons"][:1]
    found = [e for e in changed["comparisons"][0]["effects"] if e["measure"] == "severity"]
    for effect, p, p_holm in zip(found, (0.01, 0.02, 0.01, None, 0.9), (0.05, 0.051, 0.03, None, 1.0), strict=True):
        effect["p"], effect["p_holm"] = p, p_holm
    figure = plot_effects(changed)
    assert figure is not None
    (ax,) = drawn(figure)
    kinds = [m.get_marker() if m.get_marker() == "x" else to_hex(m.get_markerfacecolor()) for m in marks(ax)]
    assert kinds == ["#0072b2", "#ffffff", "#0072b2", "x", "#ffffff"]
    words = [text.get_text() for text in figure.legends[0].get_texts()]
    assert words == ["p ≤ 0.05, corrected over regions (Holm)", "corrected p > 0.05", "too few animals for a test"]


def test_nothing_to_compare_is_no_figure(effects: dict[str, Any], power: dict[str, Any]) -> None:
    assert plot_effects(effects | {"comparisons": []}) is None
    assert plot_effects(effects, measure="fraction_unknown") is None
    assert plot_power(power | {"comparisons": []}) is None


def test_each_region_is_a_curve_of_detectable_differences_with_one_band(power: dict[str, Any]) -> None:
    figure = plot_power(power, measure="fraction_pyknotic")
    assert figure is not None
    axes = drawn(figure)
    assert len(axes) == 3
    for ax, comparison in zip(axes, power["comparisons"], strict=True):
        plans = [p for p in comparison["plans"] if p["measure"] == "fraction_pyknotic"]
        for line, plan in zip(ax.get_lines(), plans, strict=True):
            assert list(line.get_xdata()) == list(range(4, 21))
            assert list(line.get_ydata()) == [d["difference"] for d in plan["detectable"]]
        assert len(ax.collections) == 1
        low, high = ax.collections[0].get_datalim(ax.transData).intervaly
        assert (low, high) == pytest.approx(
            (plans[0]["detectable"][-1]["ci95"][0], plans[0]["detectable"][0]["ci95"][1])
        )
        assert ax.get_ylim()[0] == 0
        assert ax.get_ylim()[1] > max(d["difference"] for p in plans for d in p["detectable"]), "no curve is cut off"
    assert [t.get_text() for t in figure.legends[0].get_texts()][:2] == ["all regions", "CA1"]


def test_a_region_missing_from_the_first_pair_is_in_the_legend(power: dict[str, Any]) -> None:
    changed = copy.deepcopy(power)
    changed["comparisons"][0]["plans"] = [p for p in changed["comparisons"][0]["plans"] if p["region"] != "CA3"]
    figure = plot_power(changed)
    assert figure is not None
    assert "CA3" in [t.get_text() for t in figure.legends[0].get_texts()]


@pytest.mark.parametrize("n_pairs", [1, 2, 6])
def test_words_stay_inside_and_apart(
    effects: dict[str, Any], power: dict[str, Any], tmp_path: Path, n_pairs: int
) -> None:
    for name, figure in (
        ("effects", plot_effects(effects | {"comparisons": effects["comparisons"][:n_pairs]})),
        ("power", plot_power(power | {"comparisons": power["comparisons"][:n_pairs]})),
    ):
        assert figure is not None
        save_figure(figure, tmp_path, name)
        figure.canvas.draw()
        width, height = figure.get_size_inches() * figure.dpi
        legend = [entry.get_window_extent() for entry in figure.legends[0].get_texts()]
        for ax in drawn(figure):
            texts = [ax.xaxis.label, ax.yaxis.label, ax.title, ax._left_title, *ax.get_yticklabels()]  # type: ignore[attr-defined]
            for text in (t for t in texts if t.get_text() and t.get_visible()):
                box = text.get_window_extent()
                assert box.x0 >= -1, text
                assert box.x1 <= width + 1, text
                assert box.y1 <= height + 1, text
                assert not any(box.overlaps(entry) for entry in legend), text
