from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tests import tiny
from tests.predict.tiny_models import answer, tiny_model

from perikarya.config import ExperimentConfig
from perikarya.data.augment import resize_batch
from perikarya.data.store import OpenStudy
from perikarya.errors import DataError
from perikarya.evaluate.calibration_map import softmax
from perikarya.predict.fields import PredictOptions
from perikarya.predict.folder import ModelFolder
from perikarya.predict.outputs import finish
from perikarya.predict.study import is_study, predict_study
from perikarya.runs import RunFolder
from perikarya.schema import NO_LABEL, Predictions


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> OpenStudy:
    return tiny.make_study(tmp_path_factory.mktemp("tiny") / "study")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ModelFolder:
    root = tmp_path_factory.mktemp("model")
    return tiny_model(root, window_px=tiny.WINDOW_PX, class_names=("large", "medium", "other"))


def test_every_cell_of_a_study_is_predicted_in_its_order(opened: OpenStudy, model: ModelFolder, tmp_path: Path) -> None:
    assert is_study(opened.root)
    predict_study(opened.root, model, tmp_path)
    predictions = Predictions.load(tmp_path / "predictions.parquet", model.manifest.class_names)
    expected = softmax(answer(resize_batch(np.asarray(opened.crops), model.manifest.input_px), 0)[0].astype(float))
    assert predictions.cell_id.tolist() == opened.cells["cell_id"].tolist()
    np.testing.assert_allclose(predictions.prob_nk, expected, atol=1e-5)
    known = opened.cells["label"].isin(["large", "medium"]).to_numpy()
    assert (predictions.label_n[~known] == NO_LABEL).all()
    assert (predictions.label_n[known] == opened.labels[known]).all()


def test_tables_of_a_study_hold_the_words_of_its_cells(opened: OpenStudy, model: ModelFolder, tmp_path: Path) -> None:
    parts = predict_study(opened.root, model, tmp_path, PredictOptions(features=True))
    finish(tmp_path, parts, model.manifest, ("csv",))
    table = pd.read_parquet(tmp_path / "cells.parquet").set_index("cell_id").loc[opened.cells["cell_id"]]
    for word in ("image_id", "subject", "region", "group", "set"):
        assert table[word].tolist() == opened.cells[word].tolist()
    assert table["area_px"].tolist() == opened.cells["area_px"].tolist()
    assert table["area_um2"].isna().all()
    features = np.load(next((tmp_path / "done").glob("*.features.npy")))
    assert features.shape == (len(opened.cells), 4)


def test_areas_are_in_micrometres_of_the_image_each_cell_is_from(
    opened: OpenStudy, model: ModelFolder, tmp_path: Path
) -> None:
    from perikarya.data.store import save_tables

    root = tmp_path / "study"
    root.mkdir()
    (root / "crops.npy").symlink_to(opened.root / "crops.npy")
    scale_n = np.where(np.arange(len(opened.cells)) % 3 == 0, 0.5, np.nan)
    save_tables(root, opened.study, opened.cells.assign(um_per_px=scale_n))
    parts = predict_study(root, model, tmp_path / "out")
    finish(tmp_path / "out", parts, model.manifest, ("csv",))
    table = pd.read_parquet(tmp_path / "out" / "cells.parquet").set_index("cell_id").loc[opened.cells["cell_id"]]
    np.testing.assert_allclose(table["area_um2"], opened.cells["area_px"] * scale_n**2)


def test_a_study_of_another_window_or_scale_is_refused(opened: OpenStudy, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="windows of 32 px"):
        predict_study(opened.root, tiny_model(tmp_path / "small", window_px=24), tmp_path / "out")
    scaled = tiny_model(tmp_path / "scaled", window_px=tiny.WINDOW_PX, um_per_px=0.5)
    with pytest.raises(DataError, match="does not tell its scale"):
        predict_study(opened.root, scaled, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert predict_study(opened.root, scaled, tmp_path / "out", PredictOptions(um_per_px=0.5))


def test_a_study_the_model_was_trained_on_is_pointed_out(
    opened: OpenStudy, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    study = {"name": "tiny", "data_hash": opened.data_hash, "n_cells": len(opened.cells)}
    predict_study(opened.root, tiny_model(tmp_path / "m", window_px=tiny.WINDOW_PX, study=study), tmp_path / "out")
    assert "was trained on this very study" in caplog.text


@pytest.mark.slow
def test_networks_of_a_run_say_what_the_run_itself_predicted(opened: OpenStudy, tmp_path: Path) -> None:
    from tests.explain.training import train

    from perikarya.experiment.run import evaluate_again
    from perikarya.predict.from_run import model_of_run

    config = ExperimentConfig.model_validate(
        {
            "name": "tiny",
            "study": str(opened.root),
            "cv": {"n_folds": 3},
            "models": [{"name": "custom_cnn", "input_px": 32}],
            "train": {"epochs": 2, "lr": 0.01, "tta_views": 2},
            "evaluate": {"n_bootstrap": 100, "n_permutations": 100},
        }
    )
    train(config, tmp_path / "run")
    run = RunFolder(tmp_path / "run")
    evaluate_again(run)
    model = model_of_run(run)
    names = opened.study.class_names
    of_run = Predictions.load(run.task(model.keys[0]) / "external.parquet", names)
    for tta, theirs in ((False, of_run), (True, of_run.over_views())):
        assert theirs is not None
        predict_study(opened.root, model, tmp_path / f"tta {tta}", PredictOptions(calibrated=False, tta=tta))
        ours = Predictions.load(tmp_path / f"tta {tta}" / "predictions.parquet", names)
        place = {cell_id: i for i, cell_id in enumerate(ours.cell_id.tolist())}
        rows = [place[cell_id] for cell_id in theirs.cell_id.tolist()]
        np.testing.assert_allclose(ours.prob_nk[rows], theirs.prob_nk, atol=1e-4)
