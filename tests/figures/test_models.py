"""The study's figures over models: what stands where, and when there is nothing to draw."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from tests.figures.many_models import CLASSES, NAMES, REGIONS, make_block, make_results, value
from tests.figures.test_ranking import assert_apart, shown

from perikarya.evaluate.folds import SPREAD
from perikarya.figures.models import _apart, plot_regions_heat, plot_scatter, plot_speed, plot_spread, regions_of
from perikarya.figures.style import shorten


def spread(names: list[str], n: int, *, seed: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    return {name: {metric: list(rng.uniform(0.6, 0.9, n)) for metric in SPREAD} for name in names}


def dots(figure: Figure, panel: int) -> list[tuple[float, float]]:
    lines = [line for line in figure.axes[panel].lines if line.get_marker() == "o"]
    return [(float(x), float(y)) for line in lines for x, y in zip(*line.get_data(), strict=True)]


def drawn(figure: Figure | None) -> Figure:
    assert figure is not None
    figure.draw_without_rendering()
    return figure


@pytest.mark.parametrize("n_models", [1, 12])
def test_every_network_is_a_point_on_the_line_of_its_model(n_models: int) -> None:
    sets = {"cv": spread(NAMES[:n_models], 5), "external": spread(NAMES[:n_models], 5, seed=1)}
    figure = drawn(plot_spread(sets))
    for panel, metric in enumerate(SPREAD):
        found = dots(figure, panel)
        assert len(found) == 2 * 5 * n_models
        for row, name in enumerate(NAMES[:n_models]):
            values = sorted(v for s in sets.values() for v in s[name][metric])
            assert sorted(x for x, y in found if abs(y - row) < 0.4) == pytest.approx(values)


@pytest.mark.parametrize(("n", "boxed"), [(4, False), (5, True)])
def test_a_box_is_drawn_for_five_networks_or_more(n: int, boxed: bool) -> None:
    figure = drawn(plot_spread({"cv": spread(["a"], n)}))
    without_marker = [line for line in figure.axes[0].lines if line.get_marker() != "o" and len(line.get_xdata())]  # type: ignore[arg-type]
    assert bool(without_marker) is boxed


def test_the_box_shows_the_quartiles() -> None:
    values = [0.5, 0.6, 0.7, 0.8, 0.9]
    scores = dict.fromkeys(SPREAD, values)
    figure = drawn(plot_spread({"external": {"a": scores}}))
    ends = [sorted(set(np.round(np.asarray(line.get_xdata(), float), 9))) for line in figure.axes[0].lines]
    assert [0.6, 0.8] in ends, "first and third quartile"
    assert [0.7] in ends, "median"


def test_scores_that_do_not_exist_are_left_out_and_one_network_has_no_spread() -> None:
    one = spread(["a"], 2)
    one["a"]["macro_auc"][0] = None
    assert len(dots(drawn(plot_spread({"cv": one})), SPREAD.index("macro_auc"))) == 1
    assert plot_spread({"external": spread(["a", "b"], 1)}) is None


def test_the_scatter_shows_both_scores_with_both_intervals() -> None:
    models = make_results(NAMES)
    models["ensemble"] = {**models[NAMES[0]], "cv": None}
    figure = drawn(plot_scatter(models))
    points = dots(figure, 0)
    expected = [
        (m["cv"]["balanced_accuracy"]["mean"], m["external"]["balanced_accuracy"]["mean"])
        for m in models.values()
        if m["cv"]
    ]
    np.testing.assert_allclose(points, expected)
    segments = [tuple(map(tuple, line.get_data())) for line in figure.axes[0].lines]
    x, y = expected[0]
    low, high = models[NAMES[0]]["external"]["balanced_accuracy"]["ci95"]
    assert ((x, x), (low, high)) in segments
    low, high = models[NAMES[0]]["cv"]["balanced_accuracy"]["ci95"]
    assert ((low, high), (y, y)) in segments


def test_speed_is_in_milliseconds_with_and_without_batches() -> None:
    models = make_results(NAMES)
    figure = drawn(plot_speed(models))
    expected = [
        (1000 * m["inference_s_per_cell"][kind], m["external"]["accuracy"]["mean"])
        for m in models.values()
        for kind in ("batch1", "batched")
    ]
    np.testing.assert_allclose(dots(figure, 0), expected)
    assert figure.axes[0].get_xscale() == "log"


def test_a_narrow_range_of_times_still_has_labels() -> None:
    models = make_results(NAMES[:2])
    for i, m in enumerate(models.values()):
        m["inference_s_per_cell"] = {"batch1": 0.0035 + 0.001 * i, "batched": 0.0022}
    figure = drawn(plot_speed(models))
    low, high = figure.axes[0].get_xlim()
    inside = [t.get_text() for t in figure.axes[0].get_xticklabels() if low <= t.get_position()[0] <= high]
    assert any(inside)


@pytest.mark.parametrize("plot", [plot_scatter, plot_speed])
def test_names_stand_apart_beside_their_points_in_the_same_order(plot: Any) -> None:
    models = make_results(NAMES)
    for i, m in enumerate(models.values()):  # all but equal: the worst case
        m["external"] = make_block(0.8 + 0.0005 * i, np.random.default_rng(i))
    figure = drawn(plot(models))
    assert_apart(figure)
    names = [t.get_text() for t in figure.axes[0].texts]
    assert names == [shorten(n, 34) for n in NAMES]


@pytest.mark.parametrize("plot", [plot_scatter, plot_speed])
def test_one_model_has_neither_scatter_nor_speed_plot(plot: Any) -> None:
    assert plot(make_results(NAMES[:1])) is None
    without = {
        name: {**m, "cv": None, "inference_s_per_cell": {"batch1": None, "batched": None}}
        for name, m in make_results(NAMES[:3]).items()
    }
    assert plot(without) is None, "neither cross-validated nor timed"


def test_places_on_a_line_move_as_little_as_needed() -> None:
    assert list(_apart(np.array([0.1, 0.5, 0.9]), 0.1)) == pytest.approx([0.1, 0.5, 0.9])
    assert list(_apart(np.array([0.5, 0.5]), 0.1)) == pytest.approx([0.45, 0.55])
    assert list(_apart(np.array([0.99, 1.0]), 0.1)) == pytest.approx([0.9, 1.0]), "kept inside"
    assert list(_apart(np.array([0.0, 0.01]), 0.1)) == pytest.approx([0.0, 0.1])
    moved = _apart(np.sort(np.random.default_rng(0).random(12)), 0.06)
    assert all(b - a >= 0.06 - 1e-12 for a, b in pairwise(moved))


@pytest.mark.parametrize("n_models", [1, 12])
def test_the_heat_map_prints_accuracy_recall_and_their_deviation_over_regions(n_models: int) -> None:
    models = make_results(NAMES[:n_models])
    chosen = NAMES[0]
    figure = drawn(plot_regions_heat(models, CLASSES, chosen=chosen))
    rows = [[m["external_regions"][r]["accuracy"]["mean"] for r in REGIONS] for m in models.values()]
    recall = [
        [models[chosen]["external_regions"][r]["per_class"][c]["recall"]["mean"] for r in REGIONS] for c in CLASSES
    ]
    for ax, values in zip(figure.axes, (rows, recall), strict=True):
        at = {(round(t.get_position()[1]), round(t.get_position()[0] - 0.05)): t.get_text() for t in ax.texts}
        for y, row in enumerate(values):
            assert [at[y, x] for x in range(len(REGIONS))] == [f"{100 * v:.1f}" for v in row]
            assert at[y, len(REGIONS)] == f"{100 * np.std(row, ddof=1):.1f}"
    assert_apart(figure)


def test_regions_without_a_score_are_a_dash_and_other_sets_are_not_mixed_in() -> None:
    models = make_results(NAMES[:3])
    models[NAMES[1]] |= {"external_regions": {}}
    del models[NAMES[2]]["external_regions"]["DG"]
    models[NAMES[0]]["external_regions"]["CA1"]["per_class"]["pyknotic"]["recall"] = value(None)
    figure = drawn(plot_regions_heat(models, CLASSES, chosen=NAMES[0]))
    assert [t.get_text() for t in figure.axes[0].get_yticklabels()] == [NAMES[0], NAMES[2]]
    dashes = [[t.get_position() for t in ax.texts if t.get_text() == "–"] for ax in figure.axes]
    assert dashes == [[(REGIONS.index("DG"), 1)], [(0, 2)]]


def test_one_region_or_a_model_without_regions_gives_no_heat_map() -> None:
    models = make_results(NAMES[:2])
    assert plot_regions_heat(models, CLASSES, chosen="someone else") is None
    for m in models.values():
        m |= {"regions": {}, "external_regions": {"CA1": m["external_regions"]["CA1"]}}
    assert plot_regions_heat(models, CLASSES, chosen=NAMES[0]) is None


def test_regions_of_an_ensemble_are_those_of_the_external_set() -> None:
    only = {"scopes_of": "external", "regions": {"CA1": 1}}
    assert regions_of(only) == {"external": {"CA1": 1}}
    both = {"scopes_of": "cv", "regions": {"CA1": 1}, "external_regions": {"CA1": 2}}
    assert regions_of(both) == {"cv": {"CA1": 1}, "external": {"CA1": 2}}
    assert regions_of({"scopes_of": None, "regions": {}}) == {}


def test_all_texts_of_the_spread_can_be_read() -> None:
    figure = drawn(plot_spread({"cv": spread(NAMES, 5), "external": spread(NAMES, 10)}))
    assert_apart(figure)
    assert shown(figure)
