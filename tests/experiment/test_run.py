"""A run ends with the same files whatever happened on the way."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from tests.tiny import make_study, tiny_config

from perikarya.config import ExperimentConfig
from perikarya.errors import ConfigError, DataError, RunError
from perikarya.experiment.run import RunListener, run_experiment
from perikarya.experiment.status import run_status
from perikarya.launch.jobs import Event
from perikarya.runs import RunFolder, lock_run


def config(study: Path, **changes: object) -> ExperimentConfig:
    settings = {
        "train": {"epochs": 3, "batch_size": 16, "tta_views": 2},
        "evaluate": {"n_bootstrap": 100},
        "launch": {"threads": 1},
    }
    return tiny_config(study, **{**settings, **changes})


def is_worker(child: psutil.Process) -> bool:
    try:
        return "perikarya.experiment.worker" in " ".join(child.cmdline())
    except psutil.ZombieProcess:  # dead, but nobody has asked how it ended
        return False


def fingerprint(run: Path) -> dict[str, str]:
    """Hash of everything that must not depend on what happened on the way."""
    names = (
        "predictions.parquet",
        "validation.parquet",
        "external.parquet",
        "history.csv",
        "model.safetensors",
        "folds.parquet",
    )
    files = sorted(p for p in run.rglob("*") if p.name in names)
    return {str(p.relative_to(run)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_study(tmp_path_factory.mktemp("study") / "tiny").root


@pytest.fixture(scope="module")
def undisturbed(study: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "undisturbed"
    outcome = run_experiment(config(study), out, listener=RunListener())
    assert outcome.failed == {}
    return out


def test_a_run_writes_the_files_of_the_architecture(undisturbed: Path) -> None:
    task = undisturbed / "tasks" / "cnn" / "seed0" / "fold2"
    names = {p.name for p in task.iterdir()}
    wanted = {"result.json", "predictions.parquet", "external.parquet", "history.csv", "model.safetensors"}
    assert names == wanted | {"validation.parquet"}
    assert not list(undisturbed.rglob("*.part"))
    assert not list(undisturbed.glob("embed-*.log")), "logs stay where something went wrong"
    assert json.loads((task / "result.json").read_text())["log"][-1].count("epoch 2") == 2
    results = json.loads((undisturbed / "results.json").read_text())
    assert results["schema_version"] == 1
    assert {"cnn", "cnn (TTA, ensemble)", "lite", "all models (ensemble)"} <= set(results["models"])
    accuracy = results["models"]["cnn"]["external"]["accuracy"]
    assert set(accuracy) >= {"mean", "sd_folds", "ci95"}
    assert 0 <= accuracy["mean"] <= 1


def test_each_cell_is_tested_once_and_never_trained_on_by_its_tester(undisturbed: Path, study: Path) -> None:
    import pandas as pd

    cells = pd.read_parquet(study / "cells.parquet").set_index("cell_id")
    seen: list[str] = []
    for fold in range(4):
        table = pd.read_parquet(undisturbed / f"tasks/cnn/seed0/fold{fold}/predictions.parquet")
        result = json.loads((undisturbed / f"tasks/cnn/seed0/fold{fold}/result.json").read_text())
        stopping = pd.read_parquet(undisturbed / f"tasks/cnn/seed0/fold{fold}/validation.parquet")
        following = pd.read_parquet(undisturbed / f"tasks/cnn/seed0/fold{(fold + 1) % 4}/predictions.parquet")
        assert set(stopping["cell_id"]) == set(following["cell_id"]), "validation cells test the next network"
        assert result["n_train"] + result["n_stop"] + result["n_test"] == (cells["set"] == "development").sum()
        seen += table["cell_id"].tolist()
    assert sorted(seen) == sorted(cells.index[cells["set"] == "development"])


def test_views_of_a_cell_are_averaged_in_columns_of_their_own(undisturbed: Path) -> None:
    import pandas as pd

    table = pd.read_parquet(undisturbed / "tasks/cnn/seed0/fold0/external.parquet")
    names = [c.removeprefix("prob_") for c in table if c.startswith("prob_")]
    one, several = (table[[f"{prefix}_{n}" for n in names]].to_numpy() for prefix in ("prob", "tta"))
    assert abs(one - several).max() > 1e-4
    assert not [c for c in pd.read_parquet(undisturbed / "tasks/lite/seed0/fold0/external.parquet") if "tta" in c]


def test_a_learning_curve_trains_every_model_on_nested_sets_of_animals(study: Path, tmp_path: Path) -> None:
    lite = {"name": "lite", "arch": "efficientnet_lite0", "weights": "none", "strategy": "head", "input_px": 32}
    asked = config(study, models=[lite], learning_curve=[2, 3], cv={"n_folds": 4, "folds": [0, 2]})
    outcome = run_experiment(asked, tmp_path / "run", listener=RunListener())
    assert outcome.failed == {}
    results = {key: json.loads((outcome.plan.run.task(key) / "result.json").read_text()) for key in outcome.plan.tasks}
    n_animals = {str(key): r["n_train_subjects"] for key, r in results.items()}
    assert {n for key, n in n_animals.items() if key.startswith("lite@2/")} == {2}
    assert {n for key, n in n_animals.items() if key.startswith("lite@3/")} == {3}
    of_model = {m: sum(r["n_train"] for k, r in results.items() if k.model == m) for m in ("lite@2", "lite@3", "lite")}
    assert of_model["lite@2"] < of_model["lite@3"] < of_model["lite"]
    assert outcome.results["models"]["lite@2"]["train_subjects"] == 2
    assert {r["model"] for r in outcome.results["ranking"]} == {"lite", "lite (ensemble)"}
    run_experiment(asked, tmp_path / "run", listener=RunListener())  # the same command goes on, adding nothing


def test_more_animals_than_a_fold_leaves_are_refused_before_anything_is_written(study: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="A training on 99 groups"):
        run_experiment(config(study, learning_curve=[99]), tmp_path / "run", listener=RunListener())
    assert not (tmp_path / "run").exists()


def test_a_second_call_keeps_what_is_done(undisturbed: Path, study: Path) -> None:
    before = {p: p.stat().st_mtime_ns for p in undisturbed.rglob("result.json")}
    run_experiment(config(study), undisturbed, listener=RunListener())
    assert {p: p.stat().st_mtime_ns for p in undisturbed.rglob("result.json")} == before


def test_a_killed_worker_changes_nothing_in_the_end(undisturbed: Path, study: Path, tmp_path: Path) -> None:
    class Assassin(RunListener):
        kills = 0

        def event(self, event: Event) -> None:
            if event.kind == "progress" and "cnn" in event.job_id and self.kills < 2:
                workers = [c for c in psutil.Process().children() if is_worker(c)]
                if workers:
                    workers[0].kill()
                    self.kills += 1

    assassin = Assassin()
    outcome = run_experiment(config(study), tmp_path / "run", listener=assassin)
    assert assassin.kills == 2
    assert outcome.failed == {}
    assert fingerprint(tmp_path / "run") == fingerprint(undisturbed)
    assert {p.name for p in (tmp_path / "run/tasks").rglob("*") if p.is_file()} == {
        p.name for p in (undisturbed / "tasks").rglob("*") if p.is_file()
    }


def test_a_killed_supervisor_leaves_a_run_that_the_same_command_finishes(
    undisturbed: Path, study: Path, tmp_path: Path
) -> None:
    import yaml

    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config(study).model_dump(mode="json")))
    out = tmp_path / "run"
    command = [sys.executable, "-m", "perikarya", "train", str(tmp_path / "config.yaml"), "--out", str(out)]
    command += ["--threads", "1"]
    first = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    end = time.monotonic() + 120
    while not list(out.rglob("state.pt")):
        assert time.monotonic() < end
        assert first.poll() is None
        time.sleep(0.02)
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    assert any(s.state != "done" for s in run_status(RunFolder(out)))
    second = subprocess.run(command, capture_output=True, text=True, timeout=250, check=False)
    assert second.returncode == 0, second.stderr
    assert fingerprint(out) == fingerprint(undisturbed)
    assert (out / "report.html").is_file()


def test_two_processes_do_not_share_a_run_folder(study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("perikarya.runs._LOCK_PATIENCE_S", 0.2)
    with lock_run(tmp_path / "run"), pytest.raises(RunError, match="Another process is working on"):
        run_experiment(config(study), tmp_path / "run", listener=RunListener())


def test_a_run_folder_of_other_settings_is_refused_and_the_difference_named(undisturbed: Path, study: Path) -> None:
    other = config(study, train={"epochs": 4, "batch_size": 16, "tta_views": 1})
    with pytest.raises(RunError, match=r"train\.epochs: was 3, now 4"):
        run_experiment(other, undisturbed, listener=RunListener())


def test_another_study_under_the_same_settings_is_refused(undisturbed: Path, tmp_path: Path) -> None:
    other = make_study(tmp_path / "other", seed=1)
    with pytest.raises(RunError, match="has changed since"):
        run_experiment(config(other.root), undisturbed, listener=RunListener())


def test_a_task_that_fails_leaves_its_reason_and_the_others_go_on(study: Path, tmp_path: Path) -> None:
    models = [
        {"name": "diverges", "arch": "custom_cnn", "input_px": 32, "train": {"lr": 1e30, "grad_clip": None}},
        {"name": "cnn", "arch": "custom_cnn", "input_px": 32},
    ]
    cv = {"n_folds": 4, "folds": [0]}
    outcome = run_experiment(config(study, models=models, cv=cv), tmp_path / "run", listener=RunListener())
    assert set(outcome.failed) == {"diverges/seed0/fold0"}
    assert "diverged" in outcome.failed["diverges/seed0/fold0"]
    assert "diverged" in (tmp_path / "run/tasks/diverges/seed0/fold0/task.log").read_text()
    states = {str(s.key): s.state for s in run_status(RunFolder(tmp_path / "run"))}
    assert states == {"diverges/seed0/fold0": "failed", "cnn/seed0/fold0": "done"}
    assert "diverges" not in outcome.results["models"] or outcome.results["protocol"]["incomplete"]


def test_several_jobs_give_the_numbers_of_one(undisturbed: Path, study: Path, tmp_path: Path) -> None:
    run_experiment(config(study, launch={"jobs": 2, "threads": 1}), tmp_path / "run", listener=RunListener())
    assert fingerprint(tmp_path / "run") == fingerprint(undisturbed)


def test_a_run_that_is_refused_leaves_no_folder(tmp_path: Path) -> None:
    twins = make_study(tmp_path / "study", copies=((100, 0),))
    with pytest.raises(DataError, match="problem"):
        run_experiment(config(twins.root), tmp_path / "run", listener=RunListener())
    assert not (tmp_path / "run").exists()
