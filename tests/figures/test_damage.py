"""Figures of damage draw the numbers of the block, with and without groups, regions and labels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

from perikarya.figures.damage import plot_correction, plot_fractions, plot_severity
from perikarya.figures.style import save_figure

NAMES = ["normal", "intermediate", "pyknotic"]


def value(estimate: float, half: float | None = 0.1) -> dict[str, Any]:
    return {"estimate": estimate, "ci95": None if half is None else [estimate - half, estimate + half]}


def make_block(
    groups: list[str], regions: list[str], *, n_animals: int = 4, names: list[str] = NAMES, labelled: bool = True
) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    animals, means = [], []
    for g, group in enumerate(groups or [None]):
        for region in [*regions, "all"]:
            own = []
            for i in range(n_animals):
                shares = rng.dirichlet(np.ones(len(names)))
                plain = {
                    "fractions": dict(zip(names, shares.tolist(), strict=True)),
                    "severity": 0.2 + 0.1 * g + 0.05 * i,
                }
                own.append(
                    {
                        "subject": f"a{g}{i}", "group": group, "region": region, "n_cells": 50,
                        "fractions": {n: value(float(s)) for n, s in zip(names, shares, strict=True)},
                        "severity": value(plain["severity"], 0.1 if i else None),
                        "counted": plain,
                        "labelled": {"n_cells": 50, **plain} if labelled else None,
                    }
                )  # fmt: skip
            animals += own
            mean = {n: float(np.mean([a["fractions"][n]["estimate"] for a in own])) for n in names}
            means.append(
                {
                    "group": group, "region": region, "n_animals": n_animals, "n_cells": 200,
                    "fractions": {n: value(v) for n, v in mean.items()},
                    "severity": value(float(np.mean([a["severity"]["estimate"] for a in own]))),
                }
            )  # fmt: skip
    return {"class_names": names, "groups": groups, "regions": regions, "animals": animals, "group_means": means}


def titles(figure: Figure) -> list[str]:
    return [ax.get_title(loc="left") for ax in figure.axes if ax.get_visible()]


def marks(figure: Figure, panel: int, marker: str) -> list[tuple[float, float]]:
    lines = [line for line in figure.axes[panel].lines if line.get_marker() == marker]
    return [(float(x), float(y)) for line in lines for x, y in line.get_xydata()]  # type: ignore[union-attr]


def test_severity_has_a_panel_per_region_a_dot_per_animal_and_a_mean_per_group() -> None:
    block = make_block(["sham", "injured"], ["CA1", "DG"])
    figure = plot_severity(block)
    assert titles(figure) == ["CA1", "DG", "All cells"]
    dots = sorted(y for _, y in marks(figure, 1, "o"))
    assert dots == pytest.approx(sorted(a["severity"]["estimate"] for a in block["animals"] if a["region"] == "DG"))
    means = marks(figure, 1, "D")
    assert [round(x) for x, _ in means] == [0, 1]
    assert [y for _, y in means] == pytest.approx(
        [m["severity"]["estimate"] for m in block["group_means"] if m["region"] == "DG"]
    )
    assert [t.get_text() for t in figure.axes[0].get_xticklabels()] == ["sham", "injured"]
    bars = [bar for c in figure.axes[1].collections for bar in c.get_segments() if len(bar) == 2]  # type: ignore[attr-defined]
    assert len(bars) == 2 * 3, "an animal without an interval has no bar"
    ends = sorted(a["severity"]["ci95"][0] for a in block["animals"] if a["region"] == "DG" and a["severity"]["ci95"])
    assert sorted(bar[0, 1] for bar in bars) == pytest.approx(ends)


def test_fractions_are_stacked_to_one_in_the_order_of_the_classes() -> None:
    block = make_block(["sham", "injured"], ["CA1"])
    figure = plot_fractions(block)
    assert titles(figure) == ["CA1"], "a single region is all there is"
    widths = np.array([[patch.get_width() for patch in bars] for bars in figure.axes[0].containers])  # type: ignore[attr-defined]
    expected = [[m["fractions"][n]["estimate"] for m in block["group_means"] if m["region"] == "CA1"] for n in NAMES]
    np.testing.assert_allclose(widths, expected)
    np.testing.assert_allclose(widths.sum(axis=0), 1)
    assert [t.get_text() for t in figure.legends[0].get_texts()] == NAMES


def test_the_correction_shows_counts_corrected_fractions_and_labels_of_groups_labelled_throughout() -> None:
    block = make_block(["sham", "injured"], ["CA1"])
    next(a for a in block["animals"] if a["group"] == "injured" and a["region"] == "all")["labelled"] = None
    figure = plot_correction(block)
    assert titles(figure) == NAMES
    own = [a for a in block["animals"] if a["group"] == "sham" and a["region"] == "all"]
    (x, _), *others = marks(figure, 2, "x")
    assert others == []
    assert x == pytest.approx(np.mean([a["labelled"]["fractions"]["pyknotic"] for a in own]))
    filled = [m for m in marks(figure, 2, "o") if m[1] in (0, 1)]
    means = [m for m in block["group_means"] if m["region"] == "all"]
    assert [x for x, _ in filled] == pytest.approx([m["fractions"]["pyknotic"]["estimate"] for m in means])


@pytest.mark.parametrize(("n_groups", "n_regions"), [(0, 0), (1, 1), (0, 7), (6, 0), (6, 5)])
def test_studies_of_any_shape_can_be_drawn_and_saved(n_groups: int, n_regions: int, tmp_path: Path) -> None:
    names = ["a name with $ and _^ " * 3, "b", "c", "d", "e"]
    groups = [f"group {i} with a rather long name + treatment" for i in range(n_groups)]
    block = make_block(groups, [f"R{i}" for i in range(n_regions)], names=names, labelled=False)
    for i, draw in enumerate((plot_severity, plot_fractions, plot_correction)):
        figure = draw(block)
        if n_groups == n_regions:
            save_figure(figure, tmp_path, f"f{i}")
        figure.draw_without_rendering()
