"""What TensorBoard's own reader finds in the event files of a run."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from tests.fake_run import FakeRun

from perikarya.runs import RunFolder, read_json, write_json, write_text
from perikarya.tracking import open_tracker
from perikarya.tracking.base import sync
from perikarya.tracking.tensorboard import TensorBoardTracker, default_folder

pytest.importorskip("tensorboard", reason="the extra 'tracking' is not installed")


def read(folder: Path) -> Any:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    return EventAccumulator(str(folder), size_guidance={"images": 0, "scalars": 0}).Reload()


def event_files(root: Path) -> dict[str, int]:
    return {str(p.relative_to(root)): p.stat().st_mtime_ns for p in root.rglob("*") if p.is_file()}


def test_curves_settings_numbers_and_figures_are_read_back(done: FakeRun, tmp_path: Path) -> None:
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    assert sync(done.run, TensorBoardTracker(done.run, tmp_path / "logs")) == 6
    root = tmp_path / "logs" / "run"
    of_task = read(root / "beta/seed0/fold1")
    history = pd.read_csv(done.run.root / "tasks/beta/seed0/fold1/history.csv")
    points = of_task.Scalars("stop_loss")
    assert [p.step for p in points] == history["epoch"].tolist()
    assert [p.value for p in points] == pytest.approx(history["stop_loss"].tolist())
    assert points[-1].wall_time - points[0].wall_time == pytest.approx(12.5 * 11 / 12)
    assert of_task.Scalars("best_stop_loss")[0].value == pytest.approx(history.loc[4, "stop_loss"])
    assert "train_loss_dark_red" in of_task.Tags()["scalars"]
    assert "epoch" not in of_task.Tags()["scalars"]
    plugin = of_task.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    settings = HParamsPluginData.FromString(plugin).session_start_info
    assert settings.group_name == "beta seed0 fold1"
    assert settings.hparams["model.name"].string_value == "beta"
    assert settings.hparams["fold"].number_value == 1
    of_run = read(root / "results")
    assert of_run.Scalars("beta_ensemble/external/accuracy_low")[0].value == pytest.approx(0.7)
    (picture,) = of_run.Images("figures/comparison")
    assert (picture.width, picture.height) == (30, 20)
    assert picture.encoded_image_string == (done.run.figures / "comparison.png").read_bytes()


def test_a_class_without_cells_leaves_no_points(done: FakeRun, tmp_path: Path) -> None:
    sync(done.run, TensorBoardTracker(done.run, tmp_path / "logs"))
    of_task = read(tmp_path / "logs/run/beta/seed0/fold2")
    assert "train_loss_normal" not in of_task.Tags()["scalars"]
    assert "stop_loss_normal" in of_task.Tags()["scalars"]


def test_a_second_call_or_a_copy_of_the_run_writes_nothing(done: FakeRun, tmp_path: Path) -> None:
    logs = tmp_path / "logs"
    sync(done.run, TensorBoardTracker(done.run, logs))
    before = event_files(logs)
    assert len(before) == 7, "one per task, one for the run; nothing else is left"
    assert sync(done.run, TensorBoardTracker(done.run, logs)) == 0
    shutil.copytree(done.run.root, tmp_path / "copied")
    assert sync(RunFolder(tmp_path / "copied"), TensorBoardTracker(RunFolder(tmp_path / "copied"), logs)) == 0
    assert event_files(logs) == before


def test_another_run_of_the_same_name_gets_a_folder_of_its_own(done: FakeRun, tmp_path: Path) -> None:
    logs = tmp_path / "logs"
    sync(done.run, TensorBoardTracker(done.run, logs))
    before = event_files(logs)
    other = RunFolder(tmp_path / "elsewhere" / "run")
    shutil.copytree(done.run.root, other.root)
    for path in other.root.rglob("result.json"):
        write_json(path, read_json(path, what="it") | {"wall_s": 1.0})
    assert sync(other, TensorBoardTracker(other, logs)) == 6
    assert {p.name for p in logs.iterdir()} == {"run", "run-2"}
    assert before.items() <= event_files(logs).items()


def test_a_task_trained_anew_and_changed_results_take_the_place_of_the_old(done: FakeRun, tmp_path: Path) -> None:
    logs = tmp_path / "logs"
    sync(done.run, TensorBoardTracker(done.run, logs))
    before = event_files(logs)
    path = done.run.task(done.tasks[0]) / "result.json"
    write_json(path, read_json(path, what="it") | {"wall_s": 99.0})
    write_text(done.run.report, "<p>another page</p>")
    assert sync(done.run, TensorBoardTracker(done.run, logs)) == 1
    after = event_files(logs)
    changed = {Path(name).parent.as_posix() for name in after.keys() - before.keys()}
    assert changed == {"run/alpha_head/seed0/fold0", "run/results"}
    assert len(after) == len(before)


def test_runs_lie_beside_each_other_unless_told(done: FakeRun) -> None:
    assert default_folder(done.run) == done.run.root.parent / "tensorboard"
    tracker = open_tracker(done.run, "tensorboard")
    sync(done.run, tracker)
    assert (done.run.root.parent / "tensorboard/run/beta/seed0/fold0").is_dir()
    assert tracker.how_to_look() == f"tensorboard --logdir '{done.run.root.parent}/tensorboard'"
