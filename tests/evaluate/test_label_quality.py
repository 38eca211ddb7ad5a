"""Confident learning, written anew: what it flags, how it counts, and that planted wrong labels are found."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from tests.evaluate.phantom_features import measured_features
from tests.fake_run import FakeRun

from perikarya.config import EvaluateConfig
from perikarya.data.phantom import PhantomSettings, make_phantom, read_truth
from perikarya.errors import DataError
from perikarya.evaluate.drawing import Drawing
from perikarya.evaluate.label_quality import (
    UNSURE,
    LabelQuality,
    class_thresholds,
    confident_classes,
    estimate_joint,
    label_issues,
    label_scores,
    out_of_sample,
    read_label_table,
    write_label_table,
)
from perikarya.evaluate.outputs import Scored, load_outputs, model_scores

NAMES = ("normal", "intermediate", "pyknotic")
SETTINGS = EvaluateConfig(n_bootstrap=400)


def cells_of(label_n: NDArray[np.int64], *, n_subjects: int | None = 10) -> pd.DataFrame:
    n = len(label_n)
    subject = [None] * n if n_subjects is None else [f"s{i % n_subjects}" for i in range(n)]
    return pd.DataFrame(
        {
            "cell_id": [f"c{i}" for i in range(n)],
            "label": np.asarray(NAMES)[label_n],
            "subject": pd.array(subject, dtype="string"),
            "image_id": [f"i{i}" for i in range(n)],
            "region": "CA1",
            "group": "sham",
            "set": "development",
        }
    )


def planted(
    *, n: int = 3000, noise: float = 0.1, seed: int = 0, sure: float = 3.0, networks: int = 1
) -> tuple[pd.DataFrame, list[Scored], NDArray[np.bool_]]:
    """Cells seen well by every network, of which a known share was recorded as a neighbouring class."""
    rng = np.random.default_rng(seed)
    true_n = rng.choice(3, n, p=[0.4, 0.4, 0.2])
    wrong_n = rng.random(n) < noise
    label_n = np.where(wrong_n, np.where(true_n == 1, rng.choice([0, 2], n), 1), true_n).astype(np.int64)
    parts = []
    for _ in range(networks):
        logits = sure * (np.eye(3)[true_n] + rng.normal(0, 0.25, (n, 3)))
        prob = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        parts.append(Scored(np.arange(n), label_n, prob))
    return cells_of(label_n), parts, wrong_n


def issues(cells: pd.DataFrame, *parts: Scored) -> LabelQuality:
    return label_issues({f"net{i}": [p] for i, p in enumerate(parts)}, cells, NAMES, settings=SETTINGS)


def test_a_threshold_is_the_mean_probability_of_a_class_among_cells_recorded_as_it() -> None:
    prob = np.array([[0.9, 0.1, 0.0], [0.5, 0.5, 0.0], [0.2, 0.7, 0.1]])
    np.testing.assert_allclose(class_thresholds(np.array([0, 0, 1]), prob), [0.7, 0.7, np.inf])


def test_a_cell_is_confidently_of_the_most_probable_class_that_reaches_its_threshold() -> None:
    prob = np.array([[0.55, 0.45, 0.0], [0.30, 0.60, 0.10], [0.35, 0.35, 0.30], [0.7, 0.3, 0.0]])
    found = confident_classes(prob, np.array([0.6, 0.4, np.inf]))
    assert found.tolist() == [1, 1, UNSURE, 0]


def test_the_joint_keeps_the_number_of_labels_and_shares_them_as_the_confident_cells_are() -> None:
    """Class 0: 4 labels, confident 2 as 0 and 1 as 1. Class 1: 4 labels, confident 3 as 1. Class 2: none confident."""
    label = np.array([0, 0, 0, 0, 1, 1, 1, 1, 2, 2])
    confident = np.array([0, 0, 1, UNSURE, 1, 1, 1, UNSURE, UNSURE, UNSURE])
    drawing = Drawing.of(np.arange(10), cells_of(label, n_subjects=5), SETTINGS)
    joint = estimate_joint(label, confident, 3, drawing=drawing)
    np.testing.assert_allclose(joint.share_kk, np.array([[8 / 3, 4 / 3, 0], [0, 4, 0], [0, 0, 2]]) / 10)
    assert joint.noise_rate == pytest.approx(4 / 30)
    np.testing.assert_allclose(joint.likely_given_recorded_kk, [[2 / 3, 1 / 3, 0], [0, 1, 0], [0, 0, 1]])
    np.testing.assert_allclose(joint.recorded_given_likely_kk[1], [1 / 4, 3 / 4, 0])
    np.testing.assert_allclose(joint.draws_bkk.sum(axis=(1, 2)), 1)


def test_scores_fall_with_the_probability_of_the_recorded_class() -> None:
    own, margin = label_scores(np.array([0, 0]), np.array([[0.7, 0.2, 0.1], [0.1, 0.3, 0.6]]))
    np.testing.assert_allclose(own, [0.7, 0.1])
    np.testing.assert_allclose(margin, [0.75, 0.25])


@pytest.mark.parametrize("noise", [0.0, 0.05, 0.2])
def test_planted_wrong_labels_are_found_and_counted(noise: float) -> None:
    cells, parts, wrong = planted(noise=noise)
    found = issues(cells, *parts)
    low, high = found.block["noise_rate"]["ci95"] or (0.0, 0.0)
    assert found.joint.noise_rate == pytest.approx(wrong.mean(), abs=0.01)
    assert low - 0.005 <= wrong.mean() <= high + 0.005
    flagged = found.table.loc[found.table["flagged"] == "yes", "row"].to_numpy()
    if noise:
        assert wrong[flagged].mean() > 0.95
        assert wrong[flagged].sum() > 0.7 * wrong.sum()
    else:
        assert len(flagged) < 10


def test_the_suggested_class_is_the_true_one() -> None:
    cells, parts, wrong = planted()
    flagged = issues(cells, *parts).table.query("flagged == 'yes'")
    neighbours = flagged["classes_apart"] == 1
    assert neighbours.mean() > 0.95
    assert (flagged["suggested"] != flagged["label"]).all()
    best = parts[0].prob_nk.argmax(axis=1)
    assert (flagged["suggested"] == np.asarray(NAMES)[best[flagged["row"]]]).all()
    assert wrong[flagged["row"]].mean() > 0.95


def test_flagged_cells_come_first_the_least_believed_label_at_the_top() -> None:
    table = issues(*_two(planted(sure=1.5))).table
    flagged = (table["flagged"] == "yes").to_numpy()
    assert flagged[: flagged.sum()].all()
    assert not flagged.all(), "cells of another likely class that no class reaches the threshold for are listed too"
    assert table["self_confidence"][flagged].is_monotonic_increasing
    assert table["rank"].tolist() == list(range(1, len(table) + 1))


def _two(made: tuple[pd.DataFrame, list[Scored], NDArray[np.bool_]]) -> tuple[pd.DataFrame, Scored]:
    return made[0], made[1][0]


def test_models_are_averaged_and_those_that_disagree_are_counted() -> None:
    label = np.array([0, 0, 1, 1])
    sure, other = np.array([0.9, 0.1, 0.0]), np.array([0.1, 0.9, 0.0])
    first = Scored(np.arange(4), label, np.stack([sure, other, other, other]))
    second = Scored(np.array([3, 1]), label[[3, 1]], np.stack([other, [0.3, 0.7, 0.0]]))
    table = issues(cells_of(label), first, second).table
    assert table[["row", "n_models", "n_models_disagree"]].to_numpy().tolist() == [[1, 2, 2]]
    assert table["prob_intermediate"].iloc[0] == pytest.approx(0.8)


def test_seeds_of_a_model_count_as_one_opinion() -> None:
    label = np.array([0, 0, 1, 1])
    prob = np.array([[0.9, 0.1, 0.0], [0.2, 0.8, 0.0], [0.1, 0.9, 0.0], [0.1, 0.9, 0.0]])
    part = Scored(np.arange(4), label, prob)
    found = label_issues({"net": [part, part, part]}, cells_of(label), NAMES, settings=SETTINGS)
    assert found.table["n_models"].tolist() == [1]
    assert found.block["models"] == ["net"]


def test_the_interval_widens_when_wrong_labels_cluster_in_animals() -> None:
    cells, parts, wrong = planted(noise=0.1)
    together = cells.copy()
    order = np.argsort(~wrong, kind="stable")
    names = np.empty(len(cells), object)
    names[order] = [f"s{i * 10 // len(cells)}" for i in range(len(cells))]  # one animal holds nearly all of them
    together["subject"] = pd.array(names, dtype="string")
    spread = issues(cells, *parts).block["noise_rate"]["ci95"]
    clustered = issues(together, *parts).block["noise_rate"]["ci95"]
    assert clustered[1] - clustered[0] > 5 * (spread[1] - spread[0])


def test_cells_without_animals_are_resampled_one_by_one_in_little_memory() -> None:
    cells, parts, _ = planted(n=50_000)
    cells["subject"] = pd.array([None] * len(cells), dtype="string")
    found = issues(cells, *parts)
    low, high = found.block["noise_rate"]["ci95"]
    rate = found.joint.noise_rate
    binomial = 2 * 1.96 * np.sqrt(rate * (1 - rate) / len(cells))
    assert found.block["unit"] == "cell"
    assert high - low == pytest.approx(binomial, rel=0.25)


def test_the_block_holds_plain_numbers_and_the_top_of_the_table() -> None:
    cells, parts, _ = planted()
    found = issues(cells, *parts)
    block = json.loads(json.dumps(found.block, allow_nan=False))
    assert block["n_cells"] == len(cells)
    assert block["n_flagged"] == (found.table["flagged"] == "yes").sum()
    assert [row["cell_id"] for row in block["top"]] == found.table["cell_id"].head(24).tolist()
    assert set(block["top"][0]["prob"]) == set(NAMES)
    assert sum(c["n_flagged"] for c in block["per_class"].values()) == block["n_flagged"]
    for k, name in enumerate(NAMES):
        stay = block["likely_given_recorded"][k][k]
        assert block["per_class"][name]["wrong"]["estimate"] == pytest.approx(1 - stay)


def test_a_class_nobody_recorded_has_no_numbers() -> None:
    label = np.zeros(30, np.int64)
    prob = np.tile([0.6, 0.3, 0.1], (30, 1))
    block = issues(cells_of(label), Scored(np.arange(30), label, prob)).block
    assert block["per_class"]["pyknotic"] == {
        "n": 0, "n_flagged": 0, "threshold": None, "wrong": {"estimate": None, "ci95": None},
    }  # fmt: skip
    assert block["n_flagged"] == 0
    assert block["top"] == []


def test_without_out_of_sample_predictions_nothing_can_be_said() -> None:
    with pytest.raises(DataError, match="cross-validation"):
        label_issues({}, cells_of(np.zeros(3, np.int64)), NAMES, settings=SETTINGS)


def test_the_table_is_written_as_csv(tmp_path: Path) -> None:
    cells, parts, _ = planted()
    table = issues(cells, *parts).table
    write_label_table(tmp_path / "label_issues.csv", table)
    read = pd.read_csv(tmp_path / "label_issues.csv")
    assert read["cell_id"].tolist() == table["cell_id"].tolist()
    assert {"label", "suggested", "flagged", "subject", "image_id", "region", "prob_pyknotic"} <= set(read)
    assert "row" not in read


def test_names_that_look_like_numbers_or_nothing_are_read_back_as_text(tmp_path: Path) -> None:
    label = np.array([0, 0, 1, 1])
    prob = np.array([[0.9, 0.1], [0.1, 0.9], [0.1, 0.9], [0.1, 0.9]])
    cells = cells_of(label).assign(subject=pd.array(["007"] * 4, dtype="string"), label=np.array(["NA", "1"])[label])
    table = label_issues({"net": [Scored(np.arange(4), label, prob)]}, cells, ("NA", "1"), settings=SETTINGS).table
    write_label_table(tmp_path / "label_issues.csv", table)
    read = read_label_table(tmp_path / "label_issues.csv")
    assert read[["label", "suggested", "subject"]].to_numpy().tolist() == [["NA", "1", "007"]]
    assert read["prob_1"].tolist() == [0.9]


def test_points_of_a_learning_curve_are_not_asked(fake: FakeRun) -> None:
    scores = model_scores(load_outputs(fake.run, fake.tasks, fake.opened.cells, fake.opened.study.class_names))
    assert set(out_of_sample(scores)) == {"alpha", "beta"}
    asked = out_of_sample(scores, leave_out=["beta"])
    assert list(asked) == ["alpha"]
    assert len(asked["alpha"]) == 2, "one entry per seed"
    development = (fake.opened.cells["set"] == "development").to_numpy()
    assert all(development[part.row_n].all() for part in asked["alpha"])


@pytest.mark.slow
def test_on_a_phantom_flagged_cells_are_wrong_far_more_often_than_others(tmp_path: Path) -> None:
    """Out-of-fold opinions of a linear classifier on measured features, folds over animals."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GroupKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    settings = PhantomSettings(n_cells=1500, difficulty=0.1, label_noise=0.1, n_external_subjects=0)
    opened = make_phantom(tmp_path / "study", settings=settings)
    rows = np.arange(len(opened.cells))
    prob_nk = cross_val_predict(
        make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000)),
        measured_features(opened.read_crops(rows)),
        opened.labels,
        groups=opened.cells["subject"],
        cv=GroupKFold(6),
        method="predict_proba",
    )
    scored = Scored(rows, opened.labels, prob_nk)
    found = label_issues({"linear": [scored]}, opened.cells, opened.study.class_names, settings=SETTINGS)
    truth = read_truth(tmp_path / "study").set_index("cell_id")
    is_wrong = truth["true_class"] != truth["recorded_class"]
    flagged = found.table.query("flagged == 'yes'")
    base = is_wrong.mean()
    assert is_wrong[flagged["cell_id"]].mean() > 0.9, f"base rate {base:.3f}"
    assert is_wrong[flagged["cell_id"]].sum() > 0.75 * is_wrong.sum()
    low, high = found.block["noise_rate"]["ci95"]
    assert low < base < high
