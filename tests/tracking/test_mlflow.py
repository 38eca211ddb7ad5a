"""What an MLflow database holds of a run, asked through MLflow's own client."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from tests.fake_run import FakeRun
from tests.tracking.conftest import RESULTS

from perikarya.errors import RunError
from perikarya.runs import RunFolder, read_json, write_json, write_text
from perikarya.tracking.base import read_task, sync
from perikarya.tracking.mlflow import MlflowTracker, default_uri

pytest.importorskip("mlflow", reason="the extra 'tracking' is not installed")
# MLflow 3.17 with SQLAlchemy 2.1
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated:DeprecationWarning")


@pytest.fixture(scope="module")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with MLflow's tables, which take seconds to make, and no run."""
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    from mlflow.tracking import MlflowClient

    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    MlflowClient(tracking_uri=f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def store(empty_database: Path, tmp_path: Path) -> Path:
    """A folder for runs; it has a blank in its name."""
    (tmp_path / "all runs").mkdir()
    shutil.copy(empty_database, tmp_path / "all runs" / "mlflow.db")
    return tmp_path / "all runs"


def runs_in(store: Path) -> tuple[Any, list[Any], list[Any]]:
    """Return a client, the runs at the top and the runs below them."""
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{store / 'mlflow.db'}")
    found = client.search_runs([e.experiment_id for e in client.search_experiments()], max_results=1000)
    return (
        client,
        [r for r in found if "mlflow.parentRunId" not in r.data.tags],
        [r for r in found if "mlflow.parentRunId" in r.data.tags],
    )


def test_a_run_is_one_run_with_its_figures_and_one_below_it_per_task(done: FakeRun, store: Path) -> None:
    assert sync(done.run, MlflowTracker(done.run, str(store))) == 6
    client, (parent,), tasks = runs_in(store)
    assert parent.info.run_name == "run"
    assert parent.info.status == "FINISHED"
    assert parent.data.tags["perikarya.config_hash"] == done.config.content_hash()
    assert parent.data.params["models"] == '["alpha_head", "beta"]'
    assert parent.data.metrics["beta_ensemble/external/accuracy_high"] == 0.9
    files = {f.path for f in client.list_artifacts(parent.info.run_id)}
    assert files == {"config.yaml", "figures", "report.html", "results.json"}
    (figure,) = client.list_artifacts(parent.info.run_id, "figures")
    kept = store / "artifacts" / parent.info.run_id / "artifacts" / figure.path
    assert kept.read_bytes() == (done.run.figures / "comparison.png").read_bytes(), "beside the database"

    assert {t.data.tags["mlflow.parentRunId"] for t in tasks} == {parent.info.run_id}
    assert len({t.info.run_name for t in tasks}) == 6
    task = next(t for t in tasks if t.info.run_name == "beta seed0 fold1")
    assert (task.data.params["model.name"], task.data.params["fold"]) == ("beta", "1")
    assert task.data.params["result.n_train"] == "300"
    assert task.data.tags["perikarya.data_hash"] == done.opened.data_hash
    assert task.data.tags["perikarya.version.numpy"]
    assert task.info.end_time - task.info.start_time == 12_500
    history = pd.read_csv(done.run.root / "tasks/beta/seed0/fold1/history.csv")
    points = client.get_metric_history(task.info.run_id, "stop_loss")
    assert [(p.step, p.value) for p in points] == list(zip(history["epoch"], history["stop_loss"], strict=True))
    assert "epoch" not in task.data.metrics
    without = next(t for t in tasks if t.info.run_name == "beta seed0 fold2")
    assert "train_loss_normal" not in without.data.metrics, "the class had no cells"


def test_a_second_call_or_a_copy_of_the_run_logs_nothing(done: FakeRun, store: Path, tmp_path: Path) -> None:
    sync(done.run, MlflowTracker(done.run, str(store)))
    assert sync(done.run, MlflowTracker(done.run, str(store))) == 0
    copy = RunFolder(tmp_path / "copied")
    shutil.copytree(done.run.root, copy.root)
    assert sync(copy, MlflowTracker(copy, str(store))) == 0
    _, parents, tasks = runs_in(store)
    assert (len(parents), len(tasks)) == (1, 6)
    assert parents[0].info.run_name == "run"


def test_what_was_interrupted_is_completed_without_a_second_point(
    done: FakeRun, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    first = MlflowTracker(done.run, str(store))
    with monkeypatch.context() as patch:
        patch.setattr(first._client, "set_terminated", killed)
        with pytest.raises(KeyboardInterrupt):
            sync(done.run, first)
    _, _, (begun,) = runs_in(store)
    assert sync(done.run, MlflowTracker(done.run, str(store))) == 6
    client, parents, tasks = runs_in(store)
    assert (len(parents), len(tasks)) == (1, 6)
    assert {t.info.status for t in tasks} == {"FINISHED"}
    assert len(client.get_metric_history(begun.info.run_id, "stop_loss")) == 7, "of the head's 7 penalties"


def test_another_training_of_the_same_settings_is_a_run_of_its_own(done: FakeRun, store: Path, tmp_path: Path) -> None:
    sync(done.run, MlflowTracker(done.run, str(store)))
    other = RunFolder(tmp_path / "again")
    shutil.copytree(done.run.root, other.root)
    for path in other.root.rglob("result.json"):
        write_json(path, read_json(path, what="it") | {"wall_s": 1.0})
    assert sync(other, MlflowTracker(other, str(store))) == 6
    _, parents, tasks = runs_in(store)
    assert sorted(p.info.run_name for p in parents) == ["again", "run"]
    by_parent = [t.data.tags["mlflow.parentRunId"] for t in tasks]
    assert sorted(by_parent.count(p.info.run_id) for p in parents) == [6, 6]


def test_results_are_logged_again_when_they_changed(done: FakeRun, store: Path) -> None:
    done.run.results.rename(done.run.root / "kept.json")
    tracker = MlflowTracker(done.run, str(store))
    sync(done.run, tracker)
    client, (parent,), _ = runs_in(store)
    assert parent.info.status == "RUNNING", "not evaluated yet"
    assert not client.list_artifacts(parent.info.run_id)
    better = {"beta (ensemble)": {"external": {"accuracy": {"mean": 0.95, "ci95": None}}}}
    for models in (RESULTS["models"], better):
        write_json(done.run.results, {**RESULTS, "models": models})
        sync(done.run, tracker)
    client, (parent,), _ = runs_in(store)
    assert parent.info.status == "FINISHED"
    assert parent.data.metrics["beta_ensemble/external/accuracy"] == 0.95
    write_text(done.run.root / "unrelated.txt", "x")
    n_points = len(client.get_metric_history(parent.info.run_id, "beta_ensemble/external/accuracy"))
    sync(done.run, MlflowTracker(done.run, str(store)))
    assert len(client.get_metric_history(parent.info.run_id, "beta_ensemble/external/accuracy")) == n_points == 2


def test_more_settings_and_points_than_one_request_takes_are_all_logged(done: FakeRun, store: Path) -> None:
    from dataclasses import replace

    task = read_task(done.run, done.tasks[-1], done.config, digest="d")
    many = pd.concat([task.curves.assign(epoch=task.curves["epoch"] + 12 * i) for i in range(60)], ignore_index=True)
    settings = {f"s{i}": "x" * 9000 for i in range(230)}
    MlflowTracker(done.run, str(store)).log_task(replace(task, curves=many, settings=settings))
    client, _, (logged,) = runs_in(store)
    assert len(logged.data.params) == 230
    assert len(client.get_metric_history(logged.info.run_id, "stop_loss")) == 720


def test_a_server_that_is_not_there_is_a_sentence(done: FakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(RunError, match=r"MLflow at http://127\.0\.0\.1:9 refused:.*\n.*perikarya track"):
        MlflowTracker(done.run, "http://127.0.0.1:9")


def test_a_folder_that_cannot_be_made_is_a_sentence(done: FakeRun, tmp_path: Path) -> None:
    write_text(tmp_path / "a file", "x")
    with pytest.raises(RunError, match="Nothing can be logged to sqlite:"):
        MlflowTracker(done.run, str(tmp_path / "a file" / "below"))


def test_runs_lie_beside_each_other_unless_told_and_the_command_says_where(done: FakeRun, store: Path) -> None:
    assert default_uri(done.run) == f"sqlite:///{done.run.root.parent}/mlflow/mlflow.db"
    looked = MlflowTracker(done.run, str(store)).how_to_look()
    assert looked == f"MLFLOW_DISABLE_TELEMETRY=true mlflow ui --backend-store-uri 'sqlite:///{store}/mlflow.db'"


def test_mlflow_tells_nobody_what_it_is_used_for(done: FakeRun, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_DISABLE_TELEMETRY")
    MlflowTracker(done.run, str(store))
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"
