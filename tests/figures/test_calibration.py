"""What the figures of calibration and abstention draw are the numbers they were given."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from tests.fake_run import make_fake_run

from perikarya.evaluate.abstention import abstention_block
from perikarya.evaluate.calibration import Tried, calibrate_model, try_methods
from perikarya.evaluate.metrics import reliability_points
from perikarya.evaluate.outputs import load_outputs, model_scores
from perikarya.figures.calibration import plot_calibration, plot_class_reliability, plot_conformal, plot_risk_coverage
from perikarya.figures.style import save_figure
from perikarya.settings import EvaluateConfig

LONG = "a very long name of a class that nobody would print"


@dataclass(frozen=True)
class Ready:
    names: tuple[str, ...]
    tried: Tried
    calibrated: dict[str, Any]
    blocks: dict[str, Any]


@pytest.fixture(scope="module", params=[2, 8])
def ready(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Ready:
    names = (LONG, "pyknotic", *(f"class {i} $x_{i}^$" for i in range(6)))[: request.param]
    folder = tmp_path_factory.mktemp("figures")
    fake = make_fake_run(folder, class_names=names, models=("alpha", "beta"), n_folds=3, n_cells=900)
    settings, cells = EvaluateConfig(n_bootstrap=100), fake.opened.cells
    outputs = load_outputs(fake.run, fake.tasks, cells, names)
    tried = try_methods([o for o in outputs if o.key.model == "beta"])
    blocks = {s.name: abstention_block(s, cells, names, settings) for s in model_scores(outputs)}
    return Ready(names, tried, calibrate_model(tried, cells, names, settings), blocks)


def assert_is_printed(figure: Figure, folder: Path) -> None:
    assert save_figure(figure, folder, "x").stat().st_size > 10_000
    assert figure.get_size_inches()[0] <= 7.2
    assert figure.get_size_inches()[1] <= 9.5  # a page


def texts(ax: Any) -> str:
    return "\n".join(t.get_text() for t in ax.texts)


def test_every_method_and_set_has_its_panel_with_its_error(ready: Ready, tmp_path: Path) -> None:
    by_method, block = ready.tried.by_entry["beta"], ready.calibrated["entries"]["beta"]
    figure = plot_calibration(by_method, block)
    panels = np.array(figure.axes).reshape(2, len(by_method))
    for row, set_name in zip(panels, ("cv", "external"), strict=True):
        for ax, (method, scores) in zip(row, by_method.items(), strict=True):
            assert f"{block['sets'][set_name][method]['ece']['mean']:.3f}" in texts(ax)
            parts = scores.pooled if set_name == "cv" else scores.external
            label_n, prob_nk = (np.concatenate([getattr(p, a) for p in parts]) for a in ("label_n", "prob_nk"))
            expected, found, _ = reliability_points(label_n, prob_nk)
            points = ax.collections[-1].get_offsets()
            assert np.allclose(points, np.stack([expected, found], axis=1))
    assert_is_printed(figure, tmp_path)


def test_reliability_of_each_class_shows_both_lines_and_their_errors(ready: Ready, tmp_path: Path) -> None:
    by_method, block = ready.tried.by_entry["beta"], ready.calibrated["entries"]["beta"]
    figure = plot_class_reliability(by_method, block, ready.names, method="temperature")
    shown = [ax for ax in figure.axes if ax.get_visible()]
    assert len(shown) == len(ready.names)
    for ax, name in zip(shown, ready.names, strict=True):
        for method in ("none", "temperature"):
            value = block["sets"]["external"][method]["per_class"][name]["ece"]["mean"]
            assert f"{value:.3f}" in texts(ax)
    k = len(ready.names) - 1
    parts = by_method["none"].external
    prob, truth = (np.concatenate([f(p) for p in parts]) for f in (lambda p: p.prob_nk[:, k], lambda p: p.label_n == k))
    inside = (prob > 9 / 15) & (prob <= 10 / 15)
    points = np.asarray(shown[k].collections[0].get_offsets())
    assert np.isclose(points, [prob[inside].mean(), truth[inside].mean()]).all(axis=1).any()
    assert_is_printed(figure, tmp_path)
    alone = plot_class_reliability(by_method, block, ready.names, method="none")
    assert "calibrated" not in texts(alone.axes[0])


def test_the_leader_stands_out_among_the_curves_of_all_models(ready: Ready, tmp_path: Path) -> None:
    figure = plot_risk_coverage(ready.blocks, leader="beta")
    cv, external = figure.axes
    for ax, set_name in ((cv, "cv"), (external, "external")):
        curve = ready.blocks["beta"]["risk_coverage"][set_name]
        n_curves = sum(set_name in b["risk_coverage"] for b in ready.blocks.values())
        assert len([x for x in ax.lines if len(x.get_xdata()) > 50]) == n_curves
        own = next(x for x in ax.lines if str(x.get_label()).startswith("beta"))
        assert own.get_ydata()[-1] == curve["error"][-1]
        assert f"{curve['aurc']['mean']:.3f}" in own.get_label()
        assert own.get_color() != ax.lines[2].get_color()
    assert_is_printed(figure, tmp_path)


def test_thresholds_are_drawn_where_they_landed_and_not_where_they_aimed(ready: Ready) -> None:
    kept, error = {"mean": 0.7, "ci95": [0.6, 0.8]}, {"mean": 0.07, "ci95": [0.05, 0.1]}
    nothing = {"mean": None, "ci95": None}
    sets = {name: {"kept": kept, "error": error} for name in ("cv", "external")}
    none = {name: {"kept": {"mean": 0.0}, "error": nothing} for name in ("cv", "external")}
    beta = ready.blocks["beta"] | {"targets": [{"error": 0.05, "sets": sets}, {"error": 0.1, "sets": none}]}
    ax = plot_risk_coverage(ready.blocks | {"beta": beta}, leader="beta").axes[0]
    dots = [(x.get_xdata()[0], x.get_ydata()[0]) for x in ax.lines if x.get_marker() == "o"]
    assert dots == [(0.7, 0.07)]
    assert texts(ax) == "aimed at 5 %"


def test_coverage_of_each_class_stands_beside_what_was_promised(ready: Ready, tmp_path: Path) -> None:
    block = ready.blocks["beta"]["conformal"]
    figure = plot_conformal(block, ready.names)
    for i, set_name in enumerate(("cv", "external")):
        coverage, decided, animals = figure.axes[3 * i : 3 * i + 3]
        values = block["sets"][set_name]
        dots = [x.get_xdata()[0] for x in coverage.lines if x.get_marker() == "o"]
        assert dots == [values["coverage"]["mean"], *(values["per_class"][n]["mean"] for n in ready.names)]
        assert coverage.lines[0].get_xdata()[0] == block["nominal"]
        assert f"{100 * values['decided']['mean']:.1f} %" in texts(decided)
        assert np.allclose(animals.collections[0].get_offsets()[:, 1], [c for _, c in values["by_subject"]["points"]])
    assert_is_printed(figure, tmp_path)


def test_unknown_animals_and_undefined_numbers_are_said_not_drawn(ready: Ready, tmp_path: Path) -> None:
    undefined = {"mean": None, "sd_folds": None, "ci95": None}
    block = ready.blocks["beta"]["conformal"]
    values = block["sets"]["cv"] | {"by_subject": None, "accuracy_decided": undefined}
    values["per_class"] = values["per_class"] | {ready.names[0]: undefined}
    figure = plot_conformal(block | {"sets": {"cv": values}}, ready.names)
    assert "not known" in texts(figure.axes[2])
    assert len([x for x in figure.axes[0].lines if x.get_marker() == "o"]) == len(ready.names)
    assert_is_printed(figure, tmp_path)


def test_one_set_alone_is_drawn(ready: Ready, tmp_path: Path) -> None:
    name = "beta (ensemble)"
    figure = plot_calibration(ready.tried.by_entry[name], ready.calibrated["entries"][name])
    assert len(figure.axes) == len(ready.tried.by_entry[name])
    assert_is_printed(figure, tmp_path)
    few = {m: s for m, s in ready.tried.by_entry["beta"].items() if m in ("none", "temperature")}
    few = {m: replace(s, external=[], external_folds=[]) for m, s in few.items()}
    block = ready.calibrated["entries"]["beta"]
    assert_is_printed(plot_calibration(few, block | {"sets": {"cv": block["sets"]["cv"]}}), tmp_path)
