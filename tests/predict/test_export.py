"""A model of a run becomes a folder that answers as the run did, or nothing at all."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.explain.training import train
from tests.tiny import CLASS_NAMES, WINDOW_PX, make_study

from perikarya.cli.exporting import export_command
from perikarya.config import ExperimentConfig
from perikarya.data.augment import resize_batch
from perikarya.data.splits import rows_of
from perikarya.data.store import OpenStudy, open_study
from perikarya.errors import ConfigError, DataError, PerikaryaError, RunError, UnknownNameError
from perikarya.evaluate.calibration_map import softmax
from perikarya.evaluate.collect import evaluate_run, write_results
from perikarya.models import trained
from perikarya.palette import class_colours
from perikarya.predict import agreement, export
from perikarya.predict.backends import open_backend
from perikarya.predict.export import ExportOptions, export_model
from perikarya.predict.folder import ModelFolder, file_sha256, open_model
from perikarya.predict.from_run import model_of_run
from perikarya.runs import RunFolder, TaskKey
from perikarya.schema import Predictions

pytest.importorskip("onnxscript", reason="the extra 'export' is not installed")


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> OpenStudy:
    torch.set_num_threads(1)
    return make_study(tmp_path_factory.mktemp("study") / "tiny", cells_per_subject=20)


@pytest.fixture(scope="module")
def trained_run(opened: OpenStudy, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "run"
    content = {
        "name": "tiny",
        "study": str(opened.root),
        "cv": {"n_folds": 4, "folds": [1, 2]},
        "models": [
            {"name": "cnn", "arch": "custom_cnn", "input_px": 32},
            {"name": "head", "arch": "efficientnet_lite0", "weights": "none", "strategy": "head", "input_px": 32},
        ],
        "train": {"epochs": 2, "batch_size": 16, "tta_views": 2},
        "evaluate": {"n_bootstrap": 100, "n_permutations": 100, "threshold": 0.4},
        "launch": {"threads": 1},
    }
    plan = train(ExperimentConfig.model_validate(content), out)
    write_results(plan.run, evaluate_run(plan.run, opened.cells, opened.study, plan.config, tasks=plan.tasks))
    return out


@pytest.fixture
def run(trained_run: Path, tmp_path: Path) -> RunFolder:
    return RunFolder(Path(shutil.copytree(trained_run, tmp_path / "run")))


def change_results(run: RunFolder, change: Any) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(run.results.read_text())
    change(content)
    run.results.write_text(json.dumps(content))
    return content


def probabilities(model: ModelFolder, i: int, opened: OpenStudy, cell_ids: Any) -> Any:
    rows = np.sort(rows_of(opened.cells["cell_id"], cell_ids))
    crops = resize_batch(opened.read_crops(rows), model.manifest.input_px)
    return rows, softmax(open_backend(model, i).run(crops)[0].astype(np.float64))


@pytest.mark.parametrize(("name", "kind"), [("cnn", "onnx"), ("head", "safetensors")])
def test_an_exported_model_repeats_the_predictions_of_its_run(
    run: RunFolder, opened: OpenStudy, tmp_path: Path, name: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = export_model(run, tmp_path / "model", ExportOptions(model=name, format=kind))
    monkeypatch.setattr(trained, "resolve_weights", lambda *_: pytest.fail("weights of the zoo were asked for"))
    moved = open_model((tmp_path / "model").rename(tmp_path / "elsewhere"))
    assert moved.sha256 == made.sha256
    assert [network.fold for network in moved.manifest.networks] == [1, 2]
    for i, fold in enumerate((1, 2)):
        on_file = Predictions.load(run.task(TaskKey(name, 0, fold)) / "predictions.parquet", CLASS_NAMES)
        rows, prob_nk = probabilities(moved, i, opened, on_file.cell_id)
        order = np.argsort(rows_of(opened.cells["cell_id"], on_file.cell_id))
        # the run predicted a head from features in float16
        np.testing.assert_allclose(prob_nk, on_file.prob_nk[order], atol=0.02 if name == "head" else 1e-4)
        assert len(rows) > 10


def test_the_manifest_tells_what_the_run_knows(run: RunFolder, tmp_path: Path, opened: OpenStudy) -> None:
    manifest = export_model(run, tmp_path / "model", ExportOptions(model="cnn", format="safetensors")).manifest
    results = json.loads(run.results.read_text())
    assert manifest.class_names == CLASS_NAMES
    assert manifest.class_colours == tuple(class_colours(3))
    assert (manifest.window_px, manifest.um_per_px, manifest.input_px, manifest.bits) == (WINDOW_PX, None, 32, None)
    assert (manifest.tta_views, manifest.threshold, manifest.n_features) == (2, 0.4, 160)
    assert manifest.metrics["external"]["accuracy"] == results["models"]["cnn"]["external"]["accuracy"]
    assert manifest.metrics["ensemble"]["ece"] == results["models"]["cnn (ensemble)"]["external"]["ece"]
    assert manifest.study.data_hash == opened.data_hash
    assert (manifest.study.n_cells, manifest.study.n_subjects) == (240, 12)
    assert manifest.agreement is not None
    assert manifest.agreement.of == "held-out cells"
    assert manifest.agreement.max_abs_diff <= agreement.MAX_DIFFERENCE
    assert "random" not in manifest.agreement.of
    assert manifest.provenance["exported"]["versions"]["perikarya"]


def test_the_card_names_classes_hash_and_limits(run: RunFolder, tmp_path: Path) -> None:
    made = export_model(run, tmp_path / "model", ExportOptions(model="cnn", format="safetensors"))
    text = (made.root / "README.md").read_text()
    for words in (
        *CLASS_NAMES,
        made.sha256,
        "Research use only",
        "window of 32 px",
        "perikarya predict",
        "not calibrated",
    ):
        assert words in text, words
    assert made.sha256 == file_sha256(made.root / "model.json")


def test_each_network_gets_the_calibration_the_evaluation_advises(run: RunFolder) -> None:
    def advise(content: dict[str, Any]) -> None:
        content["models"]["cnn"]["calibration"]["advised"]["method"] = "temperature"

    # the fits of the evaluation itself, made by other code
    entry = change_results(run, advise)["models"]["cnn"]
    model = model_of_run(run, "cnn")
    for key, network in zip(model.keys, model.manifest.networks, strict=True):
        assert network.calibration == entry["calibration"]["fits"]["temperature"][str(key)]
        assert network.conformal is not None
        assert network.conformal["floor"] != entry["abstention"]["conformal"]["fits"][str(key)]["floor"]
    change_results(run, lambda content: content["models"]["cnn"]["calibration"]["advised"].update(method="none"))
    for key, network in zip(model.keys, model_of_run(run, "cnn").manifest.networks, strict=True):
        assert network.calibration is None
        assert network.conformal == entry["abstention"]["conformal"]["fits"][str(key)]


def test_without_a_name_the_leading_model_is_taken_and_an_entry_stands_for_its_model(run: RunFolder) -> None:
    change_results(run, lambda content: content["ranking"].sort(key=lambda r: r["model"] != "head (ensemble)"))
    assert model_of_run(run).manifest.name == "head"
    change_results(run, lambda content: content["ranking"].insert(0, {"model": "all models (ensemble)"}))
    assert model_of_run(run).manifest.name == "head"
    assert model_of_run(run, "cnn (TTA, ensemble)").manifest.name == "cnn"
    with pytest.raises(RunError, match="averages networks of several models"):
        model_of_run(run, "all models (ensemble)")


def test_one_fold_alone_can_be_taken(run: RunFolder) -> None:
    assert [key.fold for key in model_of_run(run, "cnn", folds=[2]).keys] == [2]


def test_the_hash_of_a_runs_model_changes_with_its_networks_only(run: RunFolder) -> None:
    before = model_of_run(run, "cnn").sha256
    assert model_of_run(run, "cnn").sha256 == before
    path = run.task(TaskKey("cnn", 0, 1)) / "model.safetensors"
    shutil.copyfile(run.task(TaskKey("cnn", 0, 2)) / "model.safetensors", path)
    assert model_of_run(run, "cnn").sha256 != before


@pytest.mark.parametrize(
    ("asked", "error", "said"),
    [
        ({"model": "cn"}, UnknownNameError, "Did you mean 'cnn'"),
        ({"model": "nothing (ensemble)"}, UnknownNameError, "There is no model"),
        ({"format": "pickle"}, UnknownNameError, "There is no format"),
        ({"precision": "int4"}, UnknownNameError, "There is no precision"),
        ({"format": "safetensors", "precision": "int8"}, ConfigError, "not of bare tensors"),
        ({"folds": [0]}, RunError, "no finished training of fold 0"),
        ({"seed": 7}, RunError, "no finished training with seed 7"),
        ({"study": Path("nowhere")}, DataError, "There is no study at nowhere"),
    ],
)
def test_what_cannot_be_exported_is_said_before_anything_is_written(
    run: RunFolder, tmp_path: Path, asked: dict[str, Any], error: type[PerikaryaError], said: str
) -> None:
    with pytest.raises(error, match=said):
        export_model(run, tmp_path / "model", ExportOptions(**{"model": "cnn", **asked}))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]


def test_a_run_without_finished_tasks_or_scores_is_refused(run: RunFolder) -> None:
    shutil.rmtree(run.root / "tasks" / "cnn")
    with pytest.raises(RunError, match="cnn has no finished training, so there is no network to predict with"):
        model_of_run(run, "cnn")
    change_results(run, lambda content: content["models"].pop("head"))
    with pytest.raises(RunError, match="has no scores of head"):
        model_of_run(run, "head")
    run.results.unlink()
    with pytest.raises(RunError, match="perikarya evaluate RUN"):
        model_of_run(run, "head")
    with pytest.raises(RunError, match="is not a run folder"):
        model_of_run(RunFolder(run.root / "tasks"), "cnn")


def test_a_network_that_answers_otherwise_is_refused_and_nothing_is_left(
    run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = export.write_tensors

    def write_wrong(network: Any, path: Path) -> None:
        network.backbone.get_classifier().bias[0] += 0.01
        write(network, path)
        network.backbone.get_classifier().bias[0] -= 0.01

    monkeypatch.setattr(export, "write_tensors", write_wrong)
    with torch.no_grad(), pytest.raises(RunError, match="gives other probabilities than in torch"):
        export_model(run, tmp_path / "model", ExportOptions(model="cnn", format="safetensors"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]


def test_where_the_study_is_not_at_hand_random_cells_are_compared_and_int8_is_refused(
    run: RunFolder, tmp_path: Path, opened: OpenStudy
) -> None:
    run.config.write_text(run.config.read_text().replace(str(opened.root), str(tmp_path / "gone")))
    options = ExportOptions(model="cnn", format="safetensors", folds=[1])
    made = export_model(run, tmp_path / "model", options)
    assert made.manifest.agreement is not None
    assert made.manifest.agreement.of.startswith("random pictures")
    with pytest.raises(RunError, match="the study is not here"):
        export_model(run, tmp_path / "int8", ExportOptions(model="cnn", precision="int8"))
    named = ExportOptions(model="cnn", format="safetensors", folds=[1], study=opened.root, overwrite=True)
    found = export_model(run, tmp_path / "model", named).manifest.agreement
    assert found is not None
    assert found.of == "held-out cells"


def test_a_study_that_has_changed_is_refused(run: RunFolder, tmp_path: Path) -> None:
    other = make_study(tmp_path / "other", seed=1)
    with pytest.raises(RunError, match="has changed since"):
        export_model(run, tmp_path / "model", ExportOptions(model="cnn", study=other.root))


def test_an_exported_model_is_not_overwritten_unless_asked(run: RunFolder, tmp_path: Path) -> None:
    options = ExportOptions(model="cnn", format="safetensors", folds=[1])
    export_model(run, tmp_path / "model", options)
    with pytest.raises(DataError, match="exists already"):
        export_model(run, tmp_path / "model", options)


def test_the_command_says_what_was_made(run: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    export_command(
        run.root, model="cnn", out=tmp_path / "model", format="safetensors", precision="fp32",
        fold=None, seed=None, study=None, overwrite=False,
    )  # fmt: skip
    said = " ".join(capsys.readouterr().out.split())
    assert "cnn, 2 networks, safetensors in fp32" in said
    assert "same class on 100 %" in said
    assert open_model(tmp_path / "model").sha256 in said


def test_held_out_cells_had_no_part_in_training(run: RunFolder, opened: OpenStudy) -> None:
    cells = agreement.cells_of_run(run, None)
    assert cells is not None
    key = TaskKey("cnn", 0, 1)
    crops = cells.held_out(key, input_px=WINDOW_PX, n=1000)
    tested = Predictions.load(run.task(key) / "predictions.parquet", CLASS_NAMES).cell_id
    same = open_study(opened.root).crops[np.sort(rows_of(opened.cells["cell_id"], tested))]
    np.testing.assert_array_equal(crops, resize_batch(np.ascontiguousarray(same), WINDOW_PX))
    trained_on = cells.training(key, input_px=WINDOW_PX, n=1000)
    as_bytes = {crop.tobytes() for crop in trained_on}
    assert as_bytes.isdisjoint({crop.tobytes() for crop in crops})
    assert len(cells.training(key, input_px=WINDOW_PX, n=5)) == 5
