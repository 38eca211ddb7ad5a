"""The scatter of cells: where they lie, what is told of them, and which picture is theirs."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from perikarya.evaluate.outputs import ModelScores, Scored, average, load_outputs, model_scores
from perikarya.report import explore as module
from perikarya.report.explore import Explorer, explore


def scores_of(built: Any, name: str) -> ModelScores:
    fake = built[0]
    outputs = load_outputs(fake.run, fake.tasks, fake.opened.cells, fake.opened.study.class_names)
    return next(s for s in model_scores(outputs) if s.name == name)


def made(built: Any, name: str = "alpha") -> Explorer:
    found = explore(built[0].opened, scores_of(built, name))
    assert found is not None
    return found


def test_three_classes_in_order_read_from_left_to_right(built: Any) -> None:
    corners = made(built).corners
    assert [c.name for c in corners] == ["normal", "intermediate", "pyknotic"]
    assert corners[0].x < corners[1].x < corners[2].x
    assert corners[0].y == pytest.approx(corners[2].y, abs=0.2)
    assert corners[1].y < corners[0].y
    for corner in corners:
        assert 0 <= corner.text_x <= module._WIDTH
        assert 0 < corner.text_y < made(built).height


def test_a_cell_lies_nearest_to_the_class_it_is_given(built: Any) -> None:
    found = made(built)
    scored = average(scores_of(built, "alpha").external)
    corners = np.array([[c.x, c.y] for c in found.corners])
    for point, prob in zip(found.points, scored.prob_nk, strict=True):
        if np.sort(prob)[-1] - np.sort(prob)[-2] < 0.02:
            continue  # on the border, where the place is rounded
        distance = np.hypot(*(corners - [point.x, point.y]).T)
        assert distance.argmin() == prob.argmax()


def test_a_sure_and_an_unsure_model_both_fill_the_plot() -> None:
    rng = np.random.default_rng(0)
    for scale in (0.3, 12.0):
        logits = scale * rng.normal(size=(500, 3))
        prob = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        spread = module._spread(prob)
        assert np.median(spread.max(axis=1)) == pytest.approx(1 / 3 + module._MIDDLE * 2 / 3, abs=0.01)
        assert (spread.argmax(axis=1) == prob.argmax(axis=1)).all()
        assert spread.sum(axis=1) == pytest.approx(1)


def test_words_tell_label_prediction_probabilities_and_animal(built: Any) -> None:
    fake = built[0]
    scored = average(scores_of(built, "alpha").external)
    names = fake.opened.study.class_names
    for point, row, label, prob in zip(made(built).points, scored.row_n, scored.label_n, scored.prob_nk, strict=True):
        lines = point.words.split("\n")
        right = prob.argmax() == label
        assert lines[0] == f"labelled {names[label]}"
        assert lines[1] == f"predicted {names[prob.argmax()]} ({'right' if right else 'wrong'})"
        assert lines[2] == ", ".join(f"{n} {100 * p:.0f} %" for n, p in zip(names, prob, strict=True))
        assert lines[3].startswith(f"{fake.opened.cells['subject'].iloc[row]} · ")
        assert (point.label, point.right) == (label, right)


def test_the_thumbnail_of_a_point_shows_its_cell(built: Any) -> None:
    found, fake = made(built), built[0]
    scored = average(scores_of(built, "alpha").external)
    sheet = np.asarray(Image.open(io.BytesIO(base64.b64decode(found.sprite.uri.split(",")[1]))), np.float64)
    side = found.thumb_px
    assert sheet.shape[1] == side * min(found.columns, len(found.points))
    crops = fake.opened.read_crops(scored.row_n)
    for i in range(0, len(found.points), 17):
        y, x = side * (i // found.columns), side * (i % found.columns)
        tile = sheet[y : y + side, x : x + side]
        assert tile.shape[:2] == (side, side)
        middle = side // 2
        shown = tile[middle - 2 : middle + 2, middle - 2 : middle + 2].mean(axis=(0, 1))
        centre = crops.shape[1] // 2
        assert np.abs(shown - crops[i, centre, centre, :3]).max() < 25


def test_large_sets_are_sampled_by_chance_and_say_so(built: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_CELLS", 50)
    found = made(built)
    assert len(found.points) == 50
    assert found.caption.startswith("50 of 240 cells, drawn by chance, of the external set.")
    assert made(built).points == found.points


def test_cross_validation_is_shown_where_nothing_is_external(built: Any) -> None:
    scores = scores_of(built, "alpha")
    inside = ModelScores("alpha", "network", scores.outputs, scores.pooled, scores.tests, [], [], base="alpha")
    found = explore(built[0].opened, inside)
    assert found is not None
    assert "of the cross-validation" in found.caption
    assert len(found.points) == min(module.MAX_CELLS, len(scores.pooled[0].row_n))


def test_two_classes_make_a_line_that_is_spread_out() -> None:
    prob = np.array([[0.9, 0.1], [0.1, 0.9], [0.5, 0.5], [0.9, 0.1]])
    corners, height = module._corners(["a", "b"])
    x, y = module._places(Scored(np.arange(4), np.array([0, 1, 0, 0]), prob), corners)
    assert x[0] == x[3] < x[2] < x[1]
    assert len(set(y)) == 4
    assert ((y > 0) & (y < height)).all()


@pytest.mark.parametrize("n", [1, 17])
def test_one_class_or_very_many_have_no_plot(built: Any, n: int) -> None:
    import dataclasses

    opened = built[0].opened
    study = opened.study.model_copy(update={"class_names": tuple(f"c{i}" for i in range(n))})
    assert explore(dataclasses.replace(opened, study=study), scores_of(built, "alpha")) is None
