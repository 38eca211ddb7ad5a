"""Figures: for any number of classes, in colours everyone can tell apart, without global state."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image
from tests.fake_run import FakeRun, make_fake_run

from perikarya.evaluate.collect import evaluate_run
from perikarya.evaluate.outputs import Scored, load_outputs, model_scores
from perikarya.figures.compare import plot_comparison, plot_counts, plot_recall, plot_scopes
from perikarya.figures.curves import plot_curves
from perikarya.figures.galleries import outlined, pick_examples, plot_contact_sheet, plot_mistakes, worst_mistakes
from perikarya.figures.scores import plot_confusion, plot_reliability, plot_roc
from perikarya.figures.style import class_colours, save_figure, shorten
from perikarya.palette import rgb

# Machado, Oliveira & Fernandes 2009 (doi:10.1109/TVCG.2009.113), severity 1, on linear RGB
VISION = {
    "usual": np.eye(3),
    "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritan": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


def lab(colour: str, vision: str) -> NDArray[np.float64]:
    rgb = np.array(to_rgb(colour))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    linear = np.clip(np.asarray(VISION[vision]) @ linear, 0, 1)
    xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]) @ linear
    f = np.where((t := xyz / [0.9505, 1.0, 1.089]) > 0.008856, np.cbrt(t), 7.787 * t + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("n_classes", [13, 17, 40])
def test_more_classes_than_colours_are_steps_of_cividis(n_classes: int) -> None:
    expected = mpl.colormaps["cividis"](np.linspace(0, 1, n_classes))[:, :3] * 255
    found = np.array([rgb(colour) for colour in class_colours(n_classes)])
    assert np.abs(found - expected).max() < 10


@pytest.mark.parametrize("vision", sorted(VISION))
@pytest.mark.parametrize(("n_classes", "least"), [(3, 30), (7, 23), (12, 10)])
def test_class_colours_differ_for_every_kind_of_colour_vision(vision: str, n_classes: int, least: float) -> None:
    pairs = combinations(class_colours(n_classes), 2)
    distance = {(a, b): float(np.linalg.norm(lab(a, vision) - lab(b, vision))) for a, b in pairs}
    closest = min(distance, key=lambda pair: distance[pair])
    assert distance[closest] >= least, closest


def test_any_number_of_classes_has_its_own_colours() -> None:
    for n in (1, 12, 13, 40):
        assert len(set(class_colours(n))) == n


@pytest.fixture(scope="module", params=[2, 12])
def drawn(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[FakeRun, dict[str, Any]]:
    n = request.param
    names = ["normal", "intermediate", "pyknotic", "a very long name of a class that nobody would print"]
    names = (names + [f"class {i} $x_{i}^$" for i in range(8)])[:n]
    fake = make_fake_run(
        tmp_path_factory.mktemp("figures"), class_names=names, models=("alpha", "beta-head"), n_folds=3, n_cells=300
    )
    results = evaluate_run(fake.run, fake.opened.cells, fake.opened.study, fake.config, tasks=fake.tasks).results
    return fake, results


def all_figures(fake: FakeRun, results: dict[str, Any]) -> Iterator[tuple[str, Figure]]:
    names, models = fake.opened.study.class_names, results["models"]
    scores = model_scores(load_outputs(fake.run, fake.tasks, fake.opened.cells, names))[0]
    parts = {"cv": (scores.pooled, scores.tests), "external": (scores.external, scores.external_folds)}
    blocks = {s: models["alpha"][s] for s in parts}
    histories = [pd.read_csv(fake.run.task(key) / "history.csv") for key in fake.tasks]
    yield "comparison", plot_comparison(models)
    yield "recall", plot_recall(models, names)
    yield "scopes", plot_scopes(models["alpha"]["regions"], names)
    yield "counts", plot_counts(fake.opened.cells, names)
    yield "curves", plot_curves(histories[:3], names, best=[2, None, 4])
    yield "head", plot_curves(histories[3:], names)
    yield "roc", plot_roc(parts, blocks, names)
    yield "confusion", plot_confusion(blocks, names)
    yield "reliability", plot_reliability(parts, blocks)
    yield "mistakes", plot_mistakes(fake.opened, worst_mistakes(scores.external[0], n=7))


def test_every_figure_is_drawn_without_warnings_for_any_number_of_classes(drawn: Any, tmp_path: Path) -> None:
    """Warnings are errors here; class names with dollar signs are names, not formulas."""
    before = dict(mpl.rcParams)
    for name, figure in all_figures(*drawn):
        figure.savefig(tmp_path / "x.png", dpi=50)
        for ax in figure.axes:
            for text in [*ax.get_xticklabels(), *ax.get_yticklabels(), ax.title]:
                assert text.get_fontsize() >= 4.5, (name, text.get_text())
    assert dict(mpl.rcParams) == before, "a figure changed the settings of others"


def test_files_are_small_png_at_300_dpi_and_pdf_and_equal_when_drawn_again(tmp_path: Path) -> None:
    block = {"confusion": [[50, 2], [3.5, 10]]}
    first = save_figure(plot_confusion({"external": block}, ("a", "b")), tmp_path, "one")
    again = save_figure(plot_confusion({"external": block}, ("a", "b")), tmp_path, "two")
    assert first.read_bytes() == again.read_bytes()
    assert first.with_suffix(".pdf").read_bytes() == again.with_suffix(".pdf").read_bytes()
    assert first.with_suffix(".pdf").read_bytes().startswith(b"%PDF")
    assert first.stat().st_size < 150_000
    with Image.open(first) as image:
        assert image.info["dpi"] == pytest.approx((300, 300), abs=0.1)


def texts(figure: Figure) -> list[str]:
    return [t.get_text() for ax in figure.axes for t in ax.texts]


def test_the_confusion_figure_prints_the_matrix_and_its_rows_in_percent() -> None:
    figure = plot_confusion({"cv": {"confusion": [[6, 2], [0, 0]]}}, ("a", "b"))
    assert texts(figure) == ["6", "2", "0", "0", "75.0", "25.0", "–", "–"]


def test_roc_curves_are_averaged_over_networks() -> None:
    """Two networks, one perfect and one perfectly wrong: their mean is the diagonal's 0.5 everywhere inside."""
    label = np.array([0, 0, 1, 1])
    good = np.array([[0.9, 0.1], [0.8, 0.2], [0.2, 0.8], [0.1, 0.9]])
    parts = [Scored(np.arange(4), label, good), Scored(np.arange(4), label, 1 - good)]
    auc = {"mean": 0.5, "ci95": None}
    block = {"per_class": {"a": {"auc": auc}, "b": {"auc": auc}}}
    figure = plot_roc({"external": (parts, parts)}, {"external": block}, ("a", "b"))
    mean = next(line for line in figure.axes[0].lines if str(line.get_label()).startswith("a "))
    inside = (np.asarray(mean.get_xdata()) > 0) & (np.asarray(mean.get_xdata()) < 1)
    np.testing.assert_allclose(np.asarray(mean.get_ydata())[inside], 0.5)


def test_the_surest_mistakes_come_first_and_none_is_right() -> None:
    prob = np.array([[0.9, 0.1], [0.3, 0.7], [0.55, 0.45], [0.01, 0.99]])
    found = worst_mistakes(Scored(np.array([10, 11, 12, 13]), np.array([1, 1, 1, 0]), prob), n=10)
    assert [(m.row, m.true, m.predicted) for m in found] == [(13, 0, 1), (10, 1, 0), (12, 1, 0)]
    assert len(worst_mistakes(Scored(np.arange(4), np.array([1, 1, 1, 0]), prob), n=2)) == 2


def test_contact_sheets_take_turns_over_subjects(tmp_path: Path) -> None:
    fake = make_fake_run(tmp_path, models=("alpha",), n_folds=3, scheme="single", n_cells=120, n_external=60)
    rows = pick_examples(fake.opened, 0, n=10)
    assert (fake.opened.labels[rows] == 0).all()
    assert fake.opened.cells["subject"].iloc[rows].nunique() == 10
    assert plot_contact_sheet(fake.opened, 0, n=5) is not None


def test_the_outline_follows_the_mask() -> None:
    crop = np.full((20, 20, 4), 128, np.uint8)
    crop[..., 3] = 0
    crop[5:15, 5:15, 3] = 255
    image = outlined(crop, size_px=200).astype(int)
    changed = np.abs(image - 128).max(axis=2) > 20
    assert changed[50 - 4 : 50 + 5, 100].any()
    assert not changed[60:140, 60:140].any()
    assert not changed[:40].any()


def test_long_names_keep_both_ends() -> None:
    assert shorten("short") == "short"
    assert shorten("an extremely long name of a model 384", 20) == "an extremel…odel 384"
