"""A cell is explained by a network that was not trained on it, or not at all."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.explain.training import train

from perikarya.config import ExperimentConfig
from perikarya.data.augment import resize_batch
from perikarya.data.splits import FoldPlan, rows_of
from perikarya.data.store import OpenStudy, open_study, save_tables
from perikarya.errors import ConfigError, DataError, RunError
from perikarya.experiment.plan import load_run_config
from perikarya.explain import one
from perikarya.explain.one import CellExplainer
from perikarya.models import trained
from perikarya.models.explain import class_maps
from perikarya.models.trained import trained_network
from perikarya.runs import RunFolder, TaskKey
from perikarya.schema import EXTERNAL

pytest.importorskip("pytorch_grad_cam", reason="the extra 'explain' is not installed")

EXTERNAL_ROW = 143


def config(study: Path, **changes: object) -> ExperimentConfig:
    content = {
        "name": "tiny",
        "study": str(study),
        "cv": {"n_folds": 4, "folds": [1, 2]},
        "models": [
            {"name": "cnn", "arch": "custom_cnn", "input_px": 32},
            {"name": "head", "arch": "efficientnet_lite0", "weights": "none", "strategy": "head", "input_px": 32},
        ],
        "train": {"epochs": 1, "batch_size": 16},
        "evaluate": {"n_bootstrap": 100},
        "launch": {"threads": 1},
    }
    return ExperimentConfig.model_validate({**content, **changes})


@pytest.fixture(scope="module")
def trained_run(opened: OpenStudy, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "run"
    train(config(opened.root), out)
    return out


def row_of_fold(run: RunFolder, opened: OpenStudy, fold: int) -> int:
    """The first cell that a fold tests."""
    return int(rows_of(opened.cells["cell_id"], FoldPlan.load(run.folds).roles(fold).test)[0])


def row_of_fold_named(opened: OpenStudy, cell_id: str) -> int:
    return int(np.flatnonzero(opened.cells["cell_id"] == cell_id)[0])


def explainer(run: RunFolder, opened: OpenStudy) -> CellExplainer:
    return CellExplainer(run, opened, load_run_config(run))


def by_hand(run: RunFolder, opened: OpenStudy, key: TaskKey, row: int, about: int) -> np.ndarray:
    network = trained_network(run, key, load_run_config(run), n_classes=3, weights_sha256="")
    x_nhwc = resize_batch(opened.read_crops(np.array([row])), 32)
    x_nchw = torch.from_numpy(x_nhwc).permute(0, 3, 1, 2)
    return class_maps(network, "custom_cnn", x_nchw, [about], method="gradcam")[0]


@pytest.mark.parametrize("fold", [1, 2])
def test_the_network_that_tested_a_cell_explains_it(run: RunFolder, opened: OpenStudy, fold: int) -> None:
    row = row_of_fold(run, opened, fold)
    ask = explainer(run, opened)
    for about in range(3):
        found = ask.explain("cnn", row, about)
        assert found.shape == (32, 32)
        np.testing.assert_array_equal(found, by_hand(run, opened, TaskKey("cnn", 0, fold), row, about))
    other = by_hand(run, opened, TaskKey("cnn", 0, 3 - fold), row, 0)
    assert not np.array_equal(ask.explain("cnn", row, 0), other)


def test_any_network_explains_a_cell_of_the_external_set(run: RunFolder, opened: OpenStudy) -> None:
    assert opened.cells["set"][EXTERNAL_ROW] == EXTERNAL
    found = explainer(run, opened).explain("cnn", EXTERNAL_ROW, 1)
    np.testing.assert_array_equal(found, by_hand(run, opened, TaskKey("cnn", 0, 1), EXTERNAL_ROW, 1))


def test_a_head_on_frozen_features_is_explained(run: RunFolder, opened: OpenStudy) -> None:
    found = explainer(run, opened).explain("head", EXTERNAL_ROW, 0)
    assert found.shape == (32, 32)
    assert 0 <= found.min() <= found.max() <= 1


@pytest.mark.parametrize("fold", [0, 3])
def test_a_cell_that_every_network_was_trained_on_or_stopped_by_is_refused(
    run: RunFolder, opened: OpenStudy, fold: int
) -> None:
    row = row_of_fold(run, opened, fold)
    with pytest.raises(RunError, match=f"trained on this cell, or stopped by it(.|\n)*train fold {fold}"):
        explainer(run, opened).explain("cnn", row, 0)


def test_where_all_cells_trained_one_network_only_external_cells_are_explained(
    run: RunFolder, opened: OpenStudy
) -> None:
    settings = load_run_config(run)
    single = settings.model_copy(update={"cv": settings.cv.model_copy(update={"scheme": "single", "folds": None})})
    shutil.copytree(run.task(TaskKey("cnn", 0, 1)), run.task(TaskKey("cnn", 0, 0)))
    ask = CellExplainer(run, opened, single)
    with pytest.raises(RunError, match=r"cell of the external set\.$"):
        ask.explain("cnn", row_of_fold(run, opened, 0), 0)
    assert ask.explain("cnn", EXTERNAL_ROW, 0).shape == (32, 32)


def test_a_model_without_a_finished_training_is_told(run: RunFolder, opened: OpenStudy) -> None:
    for fold in (1, 2):
        (run.task(TaskKey("cnn", 0, fold)) / "result.json").unlink()
    with pytest.raises(RunError, match="cnn has no finished training"):
        explainer(run, opened).explain("cnn", EXTERNAL_ROW, 0)


def test_a_network_whose_weights_were_not_kept_is_passed_over_or_told(run: RunFolder, opened: OpenStudy) -> None:
    (run.task(TaskKey("cnn", 0, 1)) / "model.safetensors").unlink()
    found = explainer(run, opened).explain("cnn", EXTERNAL_ROW, 0)
    np.testing.assert_array_equal(found, by_hand(run, opened, TaskKey("cnn", 0, 2), EXTERNAL_ROW, 0))
    with pytest.raises(RunError, match=r"model\.safetensors does not exist(.|\n)*Fix"):
        explainer(run, opened).explain("cnn", row_of_fold(run, opened, 1), 0)


def changed(opened: OpenStudy, root: Path, **columns: list[Any]) -> OpenStudy:
    """The study with other entries in its first rows."""
    shutil.copytree(opened.root, root)
    cells = opened.cells.copy()
    for name, values in columns.items():
        cells.loc[: len(values) - 1, name] = values
    save_tables(root, opened.study, cells)
    return open_study(root)


def test_a_study_whose_labels_were_corrected_is_explained_as_before(
    run: RunFolder, opened: OpenStudy, tmp_path: Path
) -> None:
    row = row_of_fold(run, opened, 1)
    corrected = changed(opened, tmp_path / "corrected", label=["small"] * 6)
    assert corrected.data_hash != opened.data_hash
    for cell in (row, EXTERNAL_ROW):
        before = explainer(run, opened).explain("cnn", cell, 0)
        np.testing.assert_array_equal(explainer(run, corrected).explain("cnn", cell, 0), before)


def test_a_cell_that_an_earlier_state_of_the_study_names_differently_is_refused(
    run: RunFolder, opened: OpenStudy, tmp_path: Path
) -> None:
    renamed = changed(opened, tmp_path / "renamed", cell_id=["somebody"])
    with pytest.raises(RunError, match=r"earlier state(.|\n)*--study"):
        explainer(run, renamed).explain("cnn", 0, 0)


def test_a_cell_that_had_no_label_was_not_trained_on(opened: OpenStudy, run: RunFolder) -> None:
    plan = FoldPlan.load(run.folds)
    without = str(opened.cells["cell_id"][row_of_fold(run, opened, 3)])
    FoldPlan(plan.frame[plan.frame["cell_id"] != without], plan.group_by, plan.n_folds, plan.seed).save(run.folds)
    row = row_of_fold_named(opened, without)
    assert explainer(run, opened).explain("cnn", row, 0).shape == (32, 32)


def test_other_classes_are_refused(run: RunFolder, opened: OpenStudy, tmp_path: Path) -> None:
    root = Path(shutil.copytree(opened.root, tmp_path / "other"))
    study = opened.study.model_copy(update={"class_names": ("small", "medium", "large")})
    save_tables(root, study, opened.cells)
    with pytest.raises(RunError, match=r"not trained on the classes of .* \(small, medium, large\)"):
        explainer(run, open_study(root)).explain("cnn", EXTERNAL_ROW, 0)


@pytest.mark.parametrize(
    ("asked", "kind", "words"),
    [
        (("nobody", 0, 0), ConfigError, "nobody"),
        (("cnn", -1, 0), DataError, "no cell in row -1"),
        (("cnn", 144, 0), DataError, "no cell in row 144"),
        (("cnn", 0, 3), DataError, "no class 3"),
        (("cnn", 0, -1), DataError, "no class -1"),
    ],
)
def test_what_is_not_there_is_a_sentence(
    run: RunFolder, opened: OpenStudy, asked: tuple[str, int, int], kind: type[Exception], words: str
) -> None:
    with pytest.raises(kind, match=words):
        explainer(run, opened).explain(*asked)


def test_without_torch_the_way_to_get_it_is_said(
    run: RunFolder, opened: OpenStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(one.util, "find_spec", lambda name: None if name == "torch" else name)
    with pytest.raises(ConfigError, match=r"takes torch(.|\n)*perikarya\[train,explain\]"):
        explainer(run, opened).explain("cnn", EXTERNAL_ROW, 0)


def test_networks_are_read_once_and_few_are_kept(
    run: RunFolder, opened: OpenStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[TaskKey] = []

    def noted(folder: RunFolder, key: TaskKey, *args: Any, **options: Any) -> Any:
        read.append(key)
        return trained_network(folder, key, *args, **options)

    monkeypatch.setattr(trained, "trained_network", noted)
    monkeypatch.setattr(one, "_MOST_NETWORKS", 1)
    ask = explainer(run, opened)
    first, second = row_of_fold(run, opened, 1), row_of_fold(run, opened, 2)
    for row in (first, first, second, first):
        ask.explain("cnn", row, 0)
    assert [key.fold for key in read] == [1, 2, 1]
