"""A finished run is explained from its files: the right network, held-out cells, numbers that can be recomputed."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from tests.explain.training import train

from perikarya.config import ExperimentConfig
from perikarya.data.augment import resize_batch
from perikarya.data.splits import rows_of
from perikarya.data.store import OpenStudy, open_study
from perikarya.errors import ConfigError, PerikaryaError, RunError, UnknownNameError
from perikarya.evaluate.saliency import DrawnMaps, explained_path, load_explained, maps_path
from perikarya.experiment.plan import load_run_config
from perikarya.explain import run as explaining
from perikarya.explain.run import explain_run
from perikarya.models.explain import class_maps, share_inside
from perikarya.models.trained import trained_network
from perikarya.runs import RunFolder, TaskKey

pytest.importorskip("pytorch_grad_cam", reason="the extra 'explain' is not installed")


def config(study: Path, **changes: object) -> ExperimentConfig:
    content = {
        "name": "tiny",
        "study": str(study),
        "cv": {"n_folds": 4, "folds": [1, 2]},
        "models": [
            {"name": "cnn", "arch": "custom_cnn", "input_px": 32},
            {"name": "head", "arch": "efficientnet_lite0", "weights": "none", "strategy": "head", "input_px": 32},
            {"name": "cnn@3", "arch": "custom_cnn", "input_px": 32, "train_subjects": 3},
        ],
        "train": {"epochs": 2, "batch_size": 16, "tta_views": 1},
        "evaluate": {"n_bootstrap": 100},
        "launch": {"threads": 1},
    }
    return ExperimentConfig.model_validate({**content, **changes})


@pytest.fixture(scope="module")
def trained_run(opened: OpenStudy, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "run"
    train(config(opened.root), out)
    return out


def explain(run: RunFolder, opened: OpenStudy, **asked: Any) -> dict[str, Any]:
    return explain_run(run, opened, load_run_config(run), **{"n_per_class": 4, **asked})


def test_every_model_is_explained_but_the_points_of_a_learning_curve(run: RunFolder, opened: OpenStudy) -> None:
    steps: list[tuple[str, int, int]] = []
    found = explain(run, opened, progress=lambda *step: steps.append(step))
    assert list(found) == ["cnn", "head"]
    assert found == load_explained(run)
    for name, entry in found.items():
        assert entry["difference_from_file"] < 0.005, f"{name} is not the network that was trained"
        assert (entry["fold"], entry["seed"], entry["set"], entry["method"]) == (1, 0, "external", "gradcam")
        assert entry["n_cells"] + entry["n_empty"] == 12
        assert entry["unit"] == "subject"
        assert (run.figures / f"saliency_{name}.png").stat().st_size > 10_000
        assert (run.figures / f"saliency_{name}.pdf").is_file()
        own = [step[1:] for step in steps if step[0] == name]
        assert own[-1][0] == own[-1][1] >= 12
        assert own == sorted(own)
    assert found["cnn"]["layers"] == [{"layer": "backbone.blocks", "grid": [2, 2]}]
    assert (run.figures / "saliency_inside.png").is_file()
    json.loads(explained_path(run).read_text())


def test_shares_and_maps_are_those_of_the_predicted_classes_by_another_path(run: RunFolder, opened: OpenStudy) -> None:
    entry = explain(run, opened, models=["cnn"], n_per_class=500)["cnn"]
    settings = load_run_config(run)
    network = trained_network(run, TaskKey("cnn", 0, 1), settings, n_classes=3, weights_sha256="")
    table = pd.read_parquet(run.root / "tasks/cnn/seed0/fold1/external.parquet")
    rows = rows_of(opened.cells["cell_id"], table["cell_id"])
    assert set(opened.cells["set"].iloc[rows]) == {"external"}
    x = resize_batch(opened.read_crops(rows), 32)
    predicted = table[[f"prob_{n}" for n in opened.study.class_names]].to_numpy().argmax(axis=1)
    maps = class_maps(network, "custom_cnn", torch.from_numpy(x).permute(0, 3, 1, 2), predicted)
    inside = pd.Series(share_inside(maps, x[..., 3])).groupby(opened.labels[rows])
    assert entry["share_inside"]["mean"] == pytest.approx(inside.mean().mean(), abs=1e-5)
    assert entry["n_empty"] == int((inside.size() - inside.count()).sum())
    even = pd.Series((x[..., 3] > 0).mean(axis=(1, 2)))[lambda s: ~np.isnan(share_inside(maps, x[..., 3]))]
    assert entry["even_share"] == pytest.approx(even.groupby(opened.labels[rows][even.index]).mean().mean())
    drawn = DrawnMaps.load(maps_path(run, "cnn"))
    for i, (cell_id, about) in enumerate(zip(drawn.cell_id_m, drawn.about_m, strict=True)):
        at = int(np.flatnonzero(table["cell_id"] == cell_id)[0])
        assert drawn.predicted_m[i] == predicted[at]
        assert drawn.label_m[i] == opened.labels[rows[at]]
        assert about in (predicted[at], opened.labels[rows[at]])
        one = class_maps(network, "custom_cnn", torch.from_numpy(x[at : at + 1]).permute(0, 3, 1, 2), [int(about)])
        np.testing.assert_allclose(drawn.map_mhw[i] / 255, one[0], atol=0.01)
    wrong = drawn.cell_id_m[drawn.label_m != drawn.predicted_m]
    assert (pd.Series(wrong).value_counts() == 2).all()


@pytest.mark.parametrize("kind", ["mask", "even", "outside", "nothing"])
def test_what_is_inside_is_what_the_outline_holds(
    kind: str, run: RunFolder, opened: OpenStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    def made_up(_network: Any, _arch: str, x_nchw: torch.Tensor, _classes: Any, *, method: str) -> Any:
        mask = (x_nchw[:, 3] > 0).float().numpy()
        return {"mask": mask, "even": mask * 0 + 1, "outside": 1 - mask, "nothing": mask * 0}[kind]

    monkeypatch.setattr(explaining, "class_maps", made_up)
    entry = explain(run, opened, models=["cnn"])["cnn"]
    expected = {"mask": 1.0, "even": entry["even_share"], "outside": 0.0, "nothing": None}[kind]
    assert entry["share_inside"]["mean"] == (None if expected is None else pytest.approx(expected))
    assert entry["n_empty"] == (12 if kind == "nothing" else 0)


def test_a_second_call_gives_the_same_and_another_seed_other_cells(run: RunFolder, opened: OpenStudy) -> None:
    first = explain(run, opened, models=["cnn"])["cnn"]
    maps = maps_path(run, "cnn").read_bytes()
    again = explain(run, opened, models=["cnn"])["cnn"]
    assert {**first, "s_per_map": 0} == {**again, "s_per_map": 0}
    assert maps_path(run, "cnn").read_bytes() == maps
    explain(run, opened, models=["cnn"], seed=1)
    assert maps_path(run, "cnn").read_bytes() != maps


def test_models_that_are_not_asked_for_keep_what_they_have(run: RunFolder, opened: OpenStudy) -> None:
    explain(run, opened, models=["head"])
    found = explain(run, opened, models=["cnn"], method="eigencam", fold=2)
    assert list(found) == ["cnn"]
    assert (found["cnn"]["method"], found["cnn"]["fold"]) == ("eigencam", 2)
    assert list(load_explained(run)) == ["cnn", "head"]


def test_what_is_done_is_kept_when_a_call_is_stopped(run: RunFolder, opened: OpenStudy) -> None:
    def stop(model: str, done: int, total: int) -> None:
        if model == "head":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        explain(run, opened, progress=stop)
    assert list(load_explained(run)) == ["cnn"]
    assert (run.figures / "saliency_cnn.png").is_file()


def test_without_an_external_set_the_test_fold_is_explained(run: RunFolder, opened: OpenStudy) -> None:
    (run.root / "tasks/cnn/seed0/fold1/external.parquet").unlink()
    entry = explain(run, opened, models=["cnn"], n_per_class=500)["cnn"]
    table = pd.read_parquet(run.root / "tasks/cnn/seed0/fold1/predictions.parquet")
    assert entry["set"] == "cv"
    assert entry["n_cells"] + entry["n_empty"] == len(table)
    (run.root / "tasks/cnn/seed0/fold1/predictions.parquet").unlink()
    with pytest.raises(RunError, match="no predictions of labelled held-out cells"):
        explain(run, opened, models=["cnn"])


def test_a_model_that_cannot_be_explained_is_told_and_the_others_go_on(run: RunFolder, opened: OpenStudy) -> None:
    (run.root / "tasks/cnn/seed0/fold1/model.safetensors").unlink()
    found = explain(run, opened)
    assert "model.safetensors does not exist" in found["cnn"]["reason"]
    assert found["head"]["share_inside"]["mean"] is not None
    assert load_explained(run) == found
    with pytest.raises(RunError, match="should hold the trained network"):
        explain(run, opened, models=["cnn"])


def test_damaged_weights_are_a_sentence(run: RunFolder, opened: OpenStudy) -> None:
    (run.root / "tasks/cnn/seed0/fold1/model.safetensors").write_bytes(b"cut short")
    with pytest.raises(RunError, match=r"model\.safetensors cannot be read"):
        explain(run, opened, models=["cnn"])


def test_weights_of_another_network_are_refused(run: RunFolder, opened: OpenStudy) -> None:
    other = run.root / "tasks/cnn/seed0/fold2/model.safetensors"
    from safetensors.torch import load_file, save_file

    tensors = load_file(other)
    tensors["backbone.head.bias"] = torch.tensor([50.0, 0.0, -50.0])
    save_file(tensors, run.root / "tasks/cnn/seed0/fold1/model.safetensors")
    with pytest.raises(RunError, match="gives other probabilities than its predictions on file"):
        explain(run, opened, models=["cnn"])


def test_a_head_needs_the_weights_it_was_fitted_on(run: RunFolder, opened: OpenStudy) -> None:
    path = run.root / "tasks/head/seed0/fold1/result.json"
    result = json.loads(path.read_text())
    path.write_text(json.dumps({**result, "weights": {**result["weights"], "sha256": "ab" * 32}}))
    with pytest.raises(PerikaryaError, match="are not those that the head of head was fitted on"):
        explain(run, opened, models=["head"])


def test_an_unfinished_model_is_told(run: RunFolder, opened: OpenStudy) -> None:
    (run.root / "tasks/cnn/seed0/fold1/result.json").unlink()
    assert explain(run, opened, models=["cnn"])["cnn"]["fold"] == 2
    with pytest.raises(RunError, match="cnn has no finished training of fold 1"):
        explain(run, opened, models=["cnn"], fold=1)
    (run.root / "tasks/cnn/seed0/fold2/result.json").unlink()
    assert "cnn has no finished training, so" in explain(run, opened)["cnn"]["reason"]


@pytest.mark.parametrize(
    ("asked", "error", "sentence"),
    [
        ({"models": ["cnm"]}, ConfigError, "has no model 'cnm'"),
        ({"method": "gradcamm"}, UnknownNameError, "Did you mean 'gradcam'"),
        ({"models": ["cnn"], "method": "attention-rollout"}, ConfigError, "does not have"),
    ],
)
def test_what_is_asked_wrongly_is_a_sentence(
    asked: dict[str, Any], error: type[Exception], sentence: str, run: RunFolder, opened: OpenStudy
) -> None:
    with pytest.raises(error, match=sentence):
        explain(run, opened, **asked)
    assert not explained_path(run).exists()


def test_a_missing_package_is_a_sentence(run: RunFolder, opened: OpenStudy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "perikarya.models.cam_methods", raising=False)
    monkeypatch.setitem(sys.modules, "pytorch_grad_cam", None)
    with pytest.raises(ConfigError, match=r"pip install 'perikarya\[explain\]'"):
        explain(run, opened, models=["cnn"])


def test_a_study_that_has_changed_is_refused(run: RunFolder, opened: OpenStudy, tmp_path: Path) -> None:
    root = Path(shutil.copytree(opened.root, tmp_path / "changed"))
    cells = open_study(root).cells
    cells.loc[0, "image_id"] = "another"
    changed = OpenStudy(root, opened.study, cells, opened.crops)
    with pytest.raises(RunError, match="was trained on other data"):
        explain(run, changed, models=["cnn"])
