"""The gallery of doubtful labels and the matrix of estimated noise."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from tests.tiny import CLASS_NAMES, make_study

from perikarya.config import EvaluateConfig
from perikarya.data.store import OpenStudy
from perikarya.evaluate.label_quality import LabelQuality, label_issues
from perikarya.evaluate.outputs import Scored
from perikarya.figures.galleries import outlined
from perikarya.figures.label_quality import plot_label_issues, plot_label_noise


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> OpenStudy:
    return make_study(tmp_path_factory.mktemp("labels") / "study", cells_per_subject=6)


def judged(opened: OpenStudy, doubted: list[int], *, n_models: int = 1) -> LabelQuality:
    """Every model is 90 % sure of each label but those of ``doubted`` rows, which it takes for the next class."""
    n = len(opened.cells)
    said = opened.labels.copy()
    said[doubted] = (said[doubted] + 1) % 3
    prob = np.full((n, 3), 0.05)
    prob[np.arange(n), said] = 0.9
    prob[doubted] *= 1 - 1e-3 * np.arange(len(doubted))[:, None]
    prob /= prob.sum(axis=1, keepdims=True)
    parts = {f"net{i}": [Scored(np.arange(n), opened.labels, prob)] for i in range(n_models)}
    return label_issues(parts, opened.cells, opened.study.class_names, settings=EvaluateConfig(n_bootstrap=100))


def gallery(opened: OpenStudy, quality: LabelQuality, **options: int) -> Figure:
    figure = plot_label_issues(opened, quality.table, **options)
    assert figure is not None
    return figure


def test_each_doubtful_cell_is_shown_with_label_suggestion_and_whereabouts(opened: OpenStudy, tmp_path: Path) -> None:
    row = 7
    figure = gallery(opened, judged(opened, [row]))
    figure.savefig(tmp_path / "x.png", dpi=50)
    ax = figure.axes[0]
    label, next_class = CLASS_NAMES[opened.labels[row]], CLASS_NAMES[(opened.labels[row] + 1) % 3]
    assert ax.get_title(loc="left") == f"{label}\n→ {next_class} 90 %"
    cell = opened.cells.iloc[row]
    assert ax.texts[0].get_text() == f"{cell['subject']}\n{cell['image_id']}"
    expected = outlined(opened.read_crops(np.array([row]))[0], size_px=240)
    assert np.array_equal(np.asarray(ax.images[0].get_array()), expected)


def test_several_models_are_said_to_disagree(opened: OpenStudy) -> None:
    figure = gallery(opened, judged(opened, [7], n_models=3))
    assert figure.axes[0].texts[0].get_text().endswith("3 of 3 models disagree")


def test_the_gallery_shows_the_first_cells_of_the_table_and_no_more(opened: OpenStudy) -> None:
    quality = judged(opened, list(range(0, 60, 2)))
    figure = gallery(opened, quality, n=7, n_cols=4)
    shown = [ax for ax in figure.axes if ax.images]
    assert len(shown) == 7
    first = outlined(opened.read_crops(quality.table["row"].to_numpy()[:1])[0], size_px=240)
    assert np.array_equal(np.asarray(shown[0].images[0].get_array()), first)


def test_no_gallery_without_doubtful_labels(opened: OpenStudy) -> None:
    assert plot_label_issues(opened, judged(opened, []).table) is None


def test_the_matrix_prints_what_each_recorded_class_probably_is(opened: OpenStudy, tmp_path: Path) -> None:
    block = {"likely_given_recorded": [[0.9, 0.1, 0.0], [0.025, 0.975, 0.0], [None, None, None]]}
    figure = plot_label_noise(block, ("a", "b", "c"))
    figure.savefig(tmp_path / "x.png", dpi=50)
    texts = [t.get_text() for t in figure.axes[0].texts]
    assert texts == ["90", "10.0", "0.0", "2.5", "98", "0.0"]
    assert (figure.axes[0].get_xlabel(), figure.axes[0].get_ylabel()) == ("probably", "recorded as")


@pytest.mark.parametrize("n_classes", [1, 2, 12, 20])
def test_the_matrix_is_drawn_for_any_number_of_classes(n_classes: int, tmp_path: Path) -> None:
    matrix = np.full((n_classes, n_classes), 0.02)
    np.fill_diagonal(matrix, 1 - 0.02 * (n_classes - 1))
    names = tuple(f"class {i} $x_{i}^$ of a long name" for i in range(n_classes))
    plot_label_noise({"likely_given_recorded": matrix.tolist()}, names).savefig(tmp_path / "x.png", dpi=50)
