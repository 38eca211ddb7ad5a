"""Every number of results.json, computed again from the files with pandas and scikit-learn."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit, logit
from scipy.stats import norm, t
from tests.evaluate.test_metrics import overall_by_sklearn, per_class_by_sklearn
from tests.fake_run import CLASSES, FakeRun, make_fake_run

from perikarya.errors import DataError, RunError
from perikarya.evaluate.collect import Evaluation, evaluate_run, write_results
from perikarya.evaluate.label_quality import LABEL_ISSUES, read_label_table
from perikarya.evaluate.metrics import OVERALL, PER_CLASS
from perikarya.runs import RunFolder, TaskKey

PROB = [f"prob_{name}" for name in CLASSES]


def read(fake: FakeRun, name: str, model: str) -> pd.DataFrame:
    paths = sorted((fake.run.root / "tasks" / model).glob(f"seed*/fold*/{name}.parquet"))
    frame = pd.concat([pd.read_parquet(p) for p in paths])
    cells = fake.opened.cells[["cell_id", "subject", "region", "group"]]
    return frame.merge(cells, on="cell_id")


def scores(frame: pd.DataFrame) -> dict[str, Any]:
    label = pd.Categorical(frame["label"], categories=CLASSES).codes.astype(np.int64)
    prob = frame[PROB].to_numpy(dtype=np.float64)
    found: dict[str, Any] = overall_by_sklearn(label, prob)
    found["per_class"] = {name: per_class_by_sklearn(label, prob, k) for k, name in enumerate(CLASSES)}
    return found


def assert_block(block: dict[str, Any], parts: list[pd.DataFrame], folds: list[pd.DataFrame]) -> None:
    part_scores, fold_scores = [scores(p) for p in parts], [scores(f) for f in folds]
    for name in OVERALL.names():
        expected = np.mean([s[name] for s in part_scores])
        assert block[name]["mean"] == pytest.approx(expected, abs=1e-12), name
        if folds:
            spread = np.std([s[name] for s in fold_scores], ddof=1)
            assert block[name]["sd_folds"] == pytest.approx(spread, abs=1e-12), name
        else:
            assert block[name]["sd_folds"] is None
    for class_name, values in block["per_class"].items():
        for name in PER_CLASS.names():
            expected = np.mean([s["per_class"][class_name][name] for s in part_scores])
            assert values[name]["mean"] == pytest.approx(expected, abs=1e-12), (class_name, name)
        assert values["n"] == (parts[0]["label"] == class_name).sum()
    assert block["n_cells"] == parts[0]["cell_id"].nunique()
    assert block["n_subjects"] == parts[0]["subject"].nunique()
    crossed = [
        pd.crosstab(p["label"], p[PROB].to_numpy().argmax(axis=1)).reindex(
            index=CLASSES, columns=range(3), fill_value=0
        )
        for p in parts
    ]
    np.testing.assert_allclose(block["confusion"], np.mean([c.to_numpy() for c in crossed], axis=0))


def split(frame: pd.DataFrame, by: list[str]) -> list[pd.DataFrame]:
    return [part for _, part in frame.groupby(by)]


@pytest.mark.parametrize("model", ["alpha", "beta"])
def test_cross_validation_pools_folds_per_seed_and_averages_seeds(
    fake: FakeRun, results: dict[str, Any], model: str
) -> None:
    frame = read(fake, "predictions", model)
    assert_block(results["models"][model]["cv"], split(frame, ["seed"]), split(frame, ["seed", "fold"]))


@pytest.mark.parametrize("model", ["alpha", "beta"])
def test_external_scores_are_the_mean_over_networks(fake: FakeRun, results: dict[str, Any], model: str) -> None:
    networks = split(read(fake, "external", model), ["seed", "fold"])
    assert len(networks) == 10
    assert_block(results["models"][model]["external"], networks, networks)


def test_the_ensemble_averages_probabilities(fake: FakeRun, results: dict[str, Any]) -> None:
    frame = read(fake, "external", "alpha").astype(dict.fromkeys(PROB, "float64"))
    together = frame.groupby(["cell_id", "label", "subject"], as_index=False)[PROB].mean()
    entry = results["models"]["alpha (ensemble)"]
    assert entry["kind"] == "ensemble"
    assert entry["cv"] is None
    assert_block(entry["external"], [together], [])
    assert entry["n_params"] == 10 * 123456
    assert entry["inference_s_per_cell"]["batched"] == pytest.approx(10 * 0.001)


@pytest.mark.parametrize(("column", "key"), [("region", "regions"), ("group", "groups")])
def test_regions_and_groups_are_scored_alone(fake: FakeRun, results: dict[str, Any], column: str, key: str) -> None:
    entry = results["models"]["beta"]
    for file, which in (("predictions", key), ("external", f"external_{key}")):
        frame = read(fake, file, "beta")
        assert set(entry[which]) == set(frame[column].unique())
        for value, block in entry[which].items():
            inside = frame[frame[column] == value]
            parts = split(inside, ["seed"] if file == "predictions" else ["seed", "fold"])
            label = [scores(p)["accuracy"] for p in parts]
            assert block["accuracy"]["mean"] == pytest.approx(np.mean(label), abs=1e-12)
            assert block["n_cells"] == inside["cell_id"].nunique()


@pytest.fixture(scope="module")
def by_percentiles(fake: FakeRun) -> dict[str, Any]:
    settings = fake.config.evaluate.model_copy(update={"interval": "percentile"})
    config = fake.config.model_copy(update={"evaluate": settings})
    return evaluate_run(fake.run, fake.opened.cells, fake.opened.study, config, tasks=fake.tasks).results


@pytest.mark.parametrize(
    ("file", "set_name", "by"), [("predictions", "cv", ["seed"]), ("external", "external", ["seed", "fold"])]
)
def test_intervals_are_widened_percentiles_over_resampled_subjects(
    fake: FakeRun, by_percentiles: dict[str, Any], file: str, set_name: str, by: list[str]
) -> None:
    """The same draws of subjects for all parts, rows copied one by one."""
    frame = read(fake, file, "alpha")
    subjects = sorted(frame["subject"].unique())
    rng = np.random.default_rng([0, len(subjects)])
    taken = rng.integers(0, len(subjects), (400, len(subjects)))
    parts = [
        {s: (g["label"].to_numpy(dtype=str) == np.asarray(CLASSES)[g[PROB].to_numpy().argmax(axis=1)])
         for s, g in part.groupby("subject")}
        for part in split(frame, by)
    ]  # fmt: skip
    draws = [
        np.mean([np.concatenate([correct[subjects[i]] for i in draw]).mean() for correct in parts]) for draw in taken
    ]
    n_of = frame.drop_duplicates("cell_id").groupby("subject").size().to_numpy()
    effective = n_of.sum() ** 2 / (n_of**2).sum()  # animals of equal size that would weigh as much

    def accuracy(kept: list[str]) -> float:
        return float(np.mean([np.concatenate([correct[s] for s in kept]).mean() for correct in parts]))

    without = np.array([accuracy([s for s in subjects if s != out]) for out in subjects])
    jackknife = np.sqrt((len(subjects) - 1) * without.var())
    factor = t.ppf(0.975, effective - 1) / norm.ppf(0.975) * max(1.0, jackknife / np.std(draws))
    estimate, ends = logit(accuracy(subjects)), logit(np.percentile(draws, [2.5, 97.5]))
    expected = expit(estimate + factor * (ends - estimate))
    np.testing.assert_allclose(by_percentiles["models"]["alpha"][set_name]["accuracy"]["ci95"], expected, atol=1e-9)


def test_the_ranking_is_by_external_balanced_accuracy(results: dict[str, Any]) -> None:
    ranking = results["ranking"]
    assert {r["model"] for r in ranking} == set(results["models"])
    assert {r["metric"] for r in ranking} == {"external balanced_accuracy"}
    means = [r["mean"] for r in ranking]
    assert means == sorted(means, reverse=True)
    assert ranking[0]["behind_first"] is None
    for row in ranking:
        assert row["mean"] == results["models"][row["model"]]["external"]["balanced_accuracy"]["mean"]
    last = ranking[-1]["behind_first"]
    assert last["mean"] == pytest.approx(means[0] - means[-1])
    assert last["ci95"][0] <= last["mean"] <= last["ci95"][1]


def test_labels_in_doubt_are_written_beside_the_results(evaluation: Evaluation, tmp_path: Path) -> None:
    assert evaluation.labels is not None
    write_results(RunFolder(tmp_path), evaluation)
    written = read_label_table(tmp_path / LABEL_ISSUES)
    assert written["cell_id"].tolist() == evaluation.labels.table["cell_id"].tolist()


def test_results_are_plain_json_and_the_tidy_table_repeats_them(
    fake: FakeRun, results: dict[str, Any], tmp_path: Path
) -> None:
    run = RunFolder(tmp_path)
    write_results(run, Evaluation(results, None))
    assert json.loads(run.results.read_text()) == results
    table = pd.read_csv(tmp_path / "metrics.csv", keep_default_na=False, na_values=[""])
    key = ["model", "set", "scope", "scope_value", "class", "metric"]
    assert not table.duplicated(key).any()
    row = table[
        (table["model"] == "beta") & (table["set"] == "cv") & (table["scope"] == "region")
        & (table["scope_value"] == "CA3") & (table["class"] == "pyknotic") & (table["metric"] == "recall")
    ]  # fmt: skip
    value = results["models"]["beta"]["regions"]["CA3"]["per_class"]["pyknotic"]
    assert len(row) == 1
    assert row["mean"].item() == pytest.approx(value["recall"]["mean"])
    assert [row["lo"].item(), row["hi"].item()] == pytest.approx(value["recall"]["ci95"])
    assert row["n_cells"].item() == value["n"]


def test_a_partial_run_is_scored_and_says_what_is_missing(tmp_path: Path) -> None:
    missing = [TaskKey("alpha", 0, 3), TaskKey("beta", 0, 0)]
    fake = make_fake_run(tmp_path, skip=missing)
    found = evaluate_run(fake.run, fake.opened.cells, fake.opened.study, fake.config, tasks=fake.tasks).results
    assert found["protocol"]["incomplete"] == ["alpha/seed0/fold3", "beta/seed0/fold0"]
    assert "2 of 10 trainings have not finished" in found["protocol"]["warnings"][0]
    tested = pd.read_parquet(fake.run.folds)
    assert found["models"]["alpha"]["cv"]["n_cells"] == (tested["fold"] != 3).sum()
    assert_block(
        found["models"]["alpha"]["cv"],
        split(read(fake, "predictions", "alpha"), ["seed"]),
        split(read(fake, "predictions", "alpha"), ["seed", "fold"]),
    )


def test_a_run_without_a_finished_task_is_refused(tmp_path: Path) -> None:
    fake = make_fake_run(tmp_path, models=("alpha",), skip=[TaskKey("alpha", 0, k) for k in range(5)])
    with pytest.raises(RunError, match="No task of"):
        evaluate_run(fake.run, fake.opened.cells, fake.opened.study, fake.config, tasks=fake.tasks)


def test_a_single_training_is_ranked_by_the_external_set(tmp_path: Path) -> None:
    fake = make_fake_run(tmp_path, scheme="single", models=("alpha",))
    found = evaluate_run(fake.run, fake.opened.cells, fake.opened.study, fake.config, tasks=fake.tasks).results
    entry = found["models"]["alpha"]
    assert entry["cv"] is None
    assert entry["scopes_of"] == "external"
    assert entry["external"]["accuracy"]["sd_folds"] is None
    assert set(found["models"]) == {"alpha"}, "one network is no ensemble"


def test_without_an_external_set_the_ranking_is_by_cross_validation(tmp_path: Path) -> None:
    fake = make_fake_run(tmp_path, n_external=0, models=("alpha", "beta"))
    found = evaluate_run(fake.run, fake.opened.cells, fake.opened.study, fake.config, tasks=fake.tasks).results
    assert {r["metric"] for r in found["ranking"]} == {"cv balanced_accuracy"}
    assert found["models"]["alpha"]["external"] is None
    assert found["protocol"]["unit"] == "subject"


def test_unknown_animals_give_intervals_over_images_and_a_warning(tmp_path: Path) -> None:
    fake = make_fake_run(tmp_path, subjects_known=False, models=("alpha",))
    found = evaluate_run(fake.run, fake.opened.cells, fake.opened.study, fake.config, tasks=fake.tasks).results
    assert found["protocol"]["interval_unit"] == {"cv": "image_id", "external": "image_id"}
    assert found["models"]["alpha"]["external"]["n_subjects"] is None
    assert any("resample images" in w for w in found["protocol"]["warnings"])


def test_cells_that_nothing_ties_together_get_wilson_intervals(tmp_path: Path) -> None:
    fake = make_fake_run(tmp_path, subjects_known=False, models=("alpha",), scheme="single")
    cells = fake.opened.cells.assign(image_id=fake.opened.cells["cell_id"])
    found = evaluate_run(fake.run, cells, fake.opened.study, fake.config, tasks=fake.tasks).results
    block = found["models"]["alpha"]["external"]
    p, n, z = block["accuracy"]["mean"], 240, 1.959963984540054
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    assert block["accuracy"]["ci95"] == pytest.approx([centre - half, centre + half])
    assert "Wilson" in found["protocol"]["interval_method"]["external"]
    assert any("resample cells" in w for w in found["protocol"]["warnings"])


def test_labels_that_changed_after_training_are_refused(fake: FakeRun) -> None:
    cells = fake.opened.cells.copy()
    cells.loc[cells.index[-1], "label"] = next(c for c in CLASSES if c != cells["label"].iloc[-1])
    with pytest.raises(DataError, match="labels changed after training"):
        evaluate_run(fake.run, cells, fake.opened.study, fake.config, tasks=fake.tasks)


def test_predictions_of_cells_the_study_lacks_are_refused(fake: FakeRun) -> None:
    with pytest.raises(DataError, match="not in the study"):
        evaluate_run(fake.run, fake.opened.cells.iloc[5:], fake.opened.study, fake.config, tasks=fake.tasks)


def test_predictions_of_another_task_are_refused(tmp_path: Path) -> None:
    fake = make_fake_run(tmp_path, models=("alpha",))
    folder = fake.run.task(TaskKey("alpha", 0, 1))
    (fake.run.task(TaskKey("alpha", 0, 2)) / "external.parquet").replace(folder / "external.parquet")
    with pytest.raises(RunError, match="mixed-up task"):
        evaluate_run(fake.run, fake.opened.cells, fake.opened.study, fake.config, tasks=fake.tasks)


def test_tasks_of_different_data_are_not_compared(tmp_path: Path) -> None:
    fake = make_fake_run(tmp_path, models=("alpha",))
    path = fake.run.task(fake.tasks[0]) / "result.json"
    path.write_text(path.read_text().replace(fake.opened.data_hash, "0" * 16))
    with pytest.raises(RunError, match="different data_hash"):
        evaluate_run(fake.run, fake.opened.cells, fake.opened.study, fake.config, tasks=fake.tasks)


def test_a_region_without_a_class_has_no_balanced_accuracy(tmp_path: Path) -> None:
    fake = make_fake_run(tmp_path, models=("alpha",), scheme="single")
    cells = fake.opened.cells.copy()
    cells.loc[(cells["region"] == "DG") & (cells["label"] == "pyknotic"), "region"] = "CA1"
    found = evaluate_run(fake.run, cells, fake.opened.study, fake.config, tasks=fake.tasks).results
    block = found["models"]["alpha"]["regions"]["DG"]
    assert block["balanced_accuracy"] == {"mean": None, "sd_folds": None, "ci95": None}
    assert block["per_class"]["pyknotic"]["recall"]["mean"] is None
    assert block["per_class"]["normal"]["recall"]["mean"] is not None
    assert block["accuracy"]["ci95"] is not None
