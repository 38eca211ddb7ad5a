from __future__ import annotations

import json
import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from tests.predict.tiny_models import CLASS_NAMES, WINDOW_PX, cells, make_field, tiny_model
from tests.tiny import make_study

import perikarya
from perikarya.cli.predicting import predict_command
from perikarya.cli.quantifying import quantify_command
from perikarya.data.store import OpenStudy
from perikarya.errors import ConfigError, DataError, RunError
from perikarya.experiment.run import Outcome
from perikarya.library import Run, load_run, load_study, train
from perikarya.predictor import Predictor
from perikarya.runs import write_json

CONFIG: dict[str, Any] = {
    "name": "tiny",
    "study": "nowhere",
    "cv": {"n_folds": 4, "folds": [0]},
    "models": [{"name": "cnn", "arch": "custom_cnn", "input_px": 32}],
    "train": {"epochs": 1, "warmup": 0.0, "tta_views": 1},
    "quantify": {"correction": "none"},
    "evaluate": {"n_bootstrap": 200},
}


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> OpenStudy:
    return make_study(tmp_path_factory.mktemp("library") / "study", cells_per_subject=4)


@pytest.fixture(scope="module")
def run(opened: OpenStudy, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return train(CONFIG, tmp_path_factory.mktemp("library") / "run", study=opened)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("model"), n_networks=2).root


def test_importing_the_package_imports_nothing_else_and_names_come_when_they_are_used() -> None:
    code = (
        "import sys, perikarya\n"
        "assert not {'numpy', 'pandas', 'torch', 'perikarya.library'} & set(sys.modules)\n"
        "assert set(perikarya.__all__) <= set(dir(perikarya))\n"
        "from perikarya import load_study, Predictor\n"
        "assert load_study.__module__ == 'perikarya.library'\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_name_that_does_not_exist_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'learn'"):
        perikarya.learn  # noqa: B018
    assert all(hasattr(perikarya, name) for name in perikarya.__all__)


def test_a_study_says_in_one_line_what_is_in_it(opened: OpenStudy) -> None:
    study = load_study(str(opened.root))
    assert study.class_names == ("large", "medium", "small")
    assert study.crops.shape == (48, 32, 32, 4)
    assert study.labels.tolist() == opened.labels.tolist()
    assert repr(study) == (
        "Study 'tiny': 48 cells (32 development, 16 external), 12 subjects, 12 images; classes large, medium, small; "
        "window 32 px, scale unknown"
    )


def test_a_run_gives_its_scores_as_the_files_have_them(run: Run) -> None:
    written = pd.read_csv(run.root / "metrics.csv")
    assert len(written) == len(run.results)
    np.testing.assert_allclose(run.results["mean"], written["mean"])
    assert run.status[["model", "seed", "fold", "state", "share"]].values.tolist() == [["cnn", 0, 0, "done", 1.0]]
    damage = pd.read_csv(run.root / "damage.csv")
    assert run.damage[["subject", "measure"]].values.tolist() == damage[["subject", "measure"]].values.tolist()
    np.testing.assert_allclose(run.damage["estimate"].astype(float), damage["estimate"])
    assert run.config.models[0].name == "cnn"


def test_a_ranking_has_the_intervals_that_are_known(tmp_path: Path) -> None:
    metric = "cv balanced_accuracy"
    ranking = [
        {"model": "a", "metric": metric, "mean": 0.8, "ci95": [0.7, 0.9], "set": "cv"},
        {"model": "b", "metric": metric, "mean": 0.5, "ci95": None, "set": "cv"},
    ]
    write_json(tmp_path / "results.json", {"ranking": ranking})
    columns = ["model", "metric", "mean", "lo", "hi"]
    expected = pd.DataFrame([["a", metric, 0.8, 0.7, 0.9], ["b", metric, 0.5, np.nan, np.nan]], columns=columns)
    pd.testing.assert_frame_equal(Run(tmp_path).ranking, expected)


def test_damage_that_was_not_quantified_is_a_sentence(run: Run, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_bytes((run.root / "config.yaml").read_bytes())
    with pytest.raises(RunError, match="was not quantified"):
        load_run(tmp_path).damage  # noqa: B018


def test_training_again_keeps_what_is_done_and_a_file_says_the_same_as_a_dict(
    run: Run, opened: OpenStudy, tmp_path: Path
) -> None:
    trained = run.root / "tasks" / "cnn" / "seed0" / "fold0" / "result.json"
    before = trained.stat().st_mtime_ns
    path = tmp_path / "config.yaml"
    path.write_text(
        "name: tiny\ncv: {n_folds: 4, folds: [0]}\nmodels: [{name: cnn, arch: custom_cnn, input_px: 32}]\n"
        "train: {epochs: 7, warmup: 0.0, tta_views: 1}\nquantify: {correction: none}\nevaluate: {n_bootstrap: 200}\n"
    )
    again = train(path, run.root, study=str(opened.root), overrides=["train.epochs=1"])
    assert trained.stat().st_mtime_ns == before
    assert again.root == run.root


def test_a_dict_is_neither_changed_nor_allowed_settings_that_do_not_exist(opened: OpenStudy, tmp_path: Path) -> None:
    config = {**CONFIG, "train": {"epoch": 3}}
    with pytest.raises(ConfigError, match="epoch"):
        train(config, tmp_path / "run", study=opened, overrides=["train.lr=0.1"])
    assert config == {**CONFIG, "train": {"epoch": 3}}
    assert not (tmp_path / "run").exists()


def test_a_cluster_is_for_the_command_line(opened: OpenStudy, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--engine slurm"):
        train(CONFIG, tmp_path / "run", study=opened, overrides=["launch.engine=slurm"])


def test_a_task_that_failed_is_an_error_that_names_it(
    run: Run, opened: OpenStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcome = Outcome(plan=None, failed={"cnn/seed0/fold1": "the loss is not a number"}, results={})  # type: ignore[arg-type]
    monkeypatch.setattr("perikarya.library.run_experiment", lambda *_, **__: outcome)
    with pytest.raises(RunError, match=r"1 task\(s\) of .* failed. cnn/seed0/fold1: the loss is not a number"):
        train(CONFIG, run.root, study=opened)


def test_progress_is_drawn_only_when_asked_for(run: Run, opened: OpenStudy, capsys: pytest.CaptureFixture[str]) -> None:
    train(CONFIG, run.root, study=opened)
    assert capsys.readouterr().out == ""
    train(CONFIG, run.root, study=opened, progress=True)
    assert "1 task" in capsys.readouterr().out


@pytest.mark.slow
def test_a_report_is_written_from_a_run(run: Run) -> None:
    page = load_run(run.root).report()
    assert page == run.root / "report.html"
    assert "cnn" in page.read_text()


def test_what_is_no_run_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="is no run folder"):
        load_run(tmp_path)


def test_a_run_predicts_a_study_and_its_windows_alike(run: Run, opened: OpenStudy) -> None:
    predictor = run.predictor()
    table = predictor.predict(opened)
    assert table["cell_id"].tolist() == opened.cells["cell_id"].tolist()
    assert table["subject"].tolist() == opened.cells["subject"].tolist()
    bare = predictor.predict(np.asarray(opened.crops))
    pd.testing.assert_frame_equal(table[list(bare.columns)], bare)
    pd.testing.assert_frame_equal(predictor.predict(str(opened.root)), table)
    np.testing.assert_allclose(bare[[f"prob_{c}" for c in predictor.class_names]].sum(axis=1), 1, atol=1e-5)


def test_damage_of_predicted_cells_is_what_the_command_finds(run: Run, opened: OpenStudy, tmp_path: Path) -> None:
    predicted = run.predictor().predict(opened)
    predicted.to_parquet(tmp_path / "cells.parquet")
    quantify_command(tmp_path / "cells.parquet", reference=run.root, correction="none", control="ischemia")
    expected = json.loads((tmp_path / "cells_damage" / "damage.json").read_text())
    found = run.quantify(predicted, correction="none", control="ischemia")
    assert found["control"] == "ischemia"
    for part in ("animals", "group_means", "effects"):
        assert json.loads(json.dumps(found[part])) == expected[part]
    with pytest.raises(ConfigError, match="correction"):
        run.quantify(predicted, correction="magic")


def test_a_study_the_model_was_trained_on_is_told_of(
    run: Run, opened: OpenStudy, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, logger="perikarya"):
        run.predictor("cnn").predict(opened)
    assert "was trained on this very study" in caplog.text


def test_fields_are_predicted_as_the_command_predicts_them(model: Path, tmp_path: Path) -> None:
    for seed, name in enumerate("ab"):
        make_field(tmp_path / "fields", name, seed=seed)
    (tmp_path / "t.csv").write_text("image,subject,group\na.png,s1,sham\nb,s2,ischemia\n")
    predict_command(model, [str(tmp_path / "fields")], out=tmp_path / "out", table=tmp_path / "t.csv", formats="csv")
    expected = pd.read_parquet(tmp_path / "out" / "cells.parquet")
    found = Predictor(model).predict(tmp_path / "fields", table=tmp_path / "t.csv")
    assert found.attrs["problems"] == []
    pd.testing.assert_frame_equal(found, expected, check_dtype=False)
    assert found["subject"].tolist() == ["s1"] * 12 + ["s2"] * 12
    one_by_one = [str(tmp_path / "fields" / f"{name}.png") for name in "ab"]
    assert Predictor(model).predict(one_by_one)["cell_id"].tolist() == expected["cell_id"].tolist()


def test_outlines_that_cannot_be_used_are_listed_and_images_that_cannot_are_refused(
    model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    good = cells(4)
    flat = {**good[3], "id": "flat", "geometry": {"type": "Polygon", "coordinates": [[[9, 9], [20, 9], [9, 9]]]}}
    make_field(tmp_path, "a", features=[*good[:3], flat])
    with caplog.at_level(logging.WARNING, logger="perikarya"):
        frame = Predictor(model).predict(tmp_path / "a.png")
    assert len(frame) == 3
    assert [(Path(image).name, key) for image, key, _ in frame.attrs["problems"]] == [("a.png", "flat")]
    assert "flat" in caplog.text
    with pytest.raises(DataError, match="there is no such image"):
        Predictor(model).predict([tmp_path / "a.png", tmp_path / "b.png"])


def test_options_change_what_is_asked_of_the_networks(model: Path) -> None:
    crops = np.random.default_rng(0).integers(0, 256, (6, WINDOW_PX, WINDOW_PX, 4), np.uint8)
    one, all_ = Predictor(model), Predictor(model, ensemble=True)
    prob = [f"prob_{name}" for name in CLASS_NAMES]
    assert not np.allclose(one.predict(crops)[prob], all_.predict(crops)[prob])
    assert not np.allclose(one.predict(crops)[prob], Predictor(model, tta=True).predict(crops)[prob])
    assert not one.predict(crops)["abstained"].any()
    assert Predictor(model, threshold=1.0).predict(crops)["abstained"].all()
    assert "1 network(s)" in repr(one)
    assert "2 network(s)" in repr(all_)


def test_windows_of_another_size_are_refused_and_none_give_an_empty_table(model: Path) -> None:
    with pytest.raises(DataError, match=r"takes uint8 \(n, 24, 24, 4\)"):
        Predictor(model).predict(np.zeros((2, 32, 32, 4), np.uint8))
    empty = Predictor(model).predict(np.zeros((0, 24, 24, 4), np.uint8))
    assert len(empty) == 0
    assert "prob_normal" in empty


def test_a_table_does_not_go_with_windows(model: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="images only"):
        Predictor(model).predict(np.zeros((1, 24, 24, 4), np.uint8), table=tmp_path / "t.csv")
