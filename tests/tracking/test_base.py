"""What is read from a run folder for a tracker, and that it is handed over once."""

from __future__ import annotations

import shutil
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tests.fake_run import FakeRun, make_fake_run

from perikarya.config import ExperimentConfig
from perikarya.errors import RunError
from perikarya.runs import RunFolder, TaskKey, read_json, write_json, write_text
from perikarya.tracking.base import (
    RunRecord,
    TaskRecord,
    flat,
    model_numbers,
    plain_names,
    read_task,
    sync,
    task_settings,
)


@dataclass
class Recorder:
    """A tracker that remembers what it was given."""

    tasks: list[TaskRecord] = field(default_factory=list)
    runs: list[RunRecord] = field(default_factory=list)
    before: set[str] = field(default_factory=set)

    def known(self, digests: Collection[str]) -> set[str]:
        return self.before & set(digests)

    def log_task(self, task: TaskRecord) -> None:
        self.tasks.append(task)

    def log_run(self, run: RunRecord) -> None:
        self.runs.append(run)

    def how_to_look(self) -> str:
        return "look"


LAST = TaskKey("beta", 0, 2)


@pytest.fixture
def fake(tmp_path: Path) -> FakeRun:
    return make_fake_run(tmp_path, n_cells=90, n_external=30, n_folds=3, models=("alpha_head", "beta"), skip=[LAST])


def test_every_finished_task_is_handed_over_and_no_other(fake: FakeRun) -> None:
    recorder = Recorder()
    assert sync(fake.run, recorder) == 5
    assert {t.key for t in recorder.tasks} == set(fake.tasks) - {LAST}
    assert len({t.digest for t in recorder.tasks}) == 5
    assert recorder.runs[0].digest == "", "nothing was evaluated yet"


def test_a_task_the_tracker_has_is_not_handed_over_again_nor_read(fake: FakeRun, tmp_path: Path) -> None:
    first = Recorder()
    sync(fake.run, first)
    shutil.copytree(fake.run.root, tmp_path / "copied")
    copy = RunFolder(tmp_path / "copied")
    write_text(copy.task(fake.tasks[0]) / "history.csv", "damaged")
    assert sync(copy, Recorder(before={t.digest for t in first.tasks})) == 0, "a copy is the same run"


def test_a_task_trained_anew_is_another(fake: FakeRun) -> None:
    first = Recorder()
    sync(fake.run, first)
    path = fake.run.task(fake.tasks[0]) / "result.json"
    write_json(path, read_json(path, what="it") | {"wall_s": 99.0})
    again = Recorder(before={t.digest for t in first.tasks})
    assert sync(fake.run, again) == 1
    assert again.tasks[0].key == fake.tasks[0]


def test_callers_that_come_after_every_task_look_at_new_ones_only(fake: FakeRun) -> None:
    recorder, known = Recorder(), {}
    sync(fake.run, recorder, known=known)
    shutil.copytree(fake.run.task(TaskKey("beta", 0, 1)), fake.run.task(LAST))
    fake.run.task(fake.tasks[0]).joinpath("result.json").write_text("damaged since, and not read again")
    assert sync(fake.run, recorder, known=known) == 1
    assert recorder.tasks[-1].key == LAST
    assert set(known) == set(fake.tasks)


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="not a run folder"):
        sync(RunFolder(tmp_path), Recorder())


def test_curves_numbers_and_times_come_from_the_files_of_the_task(fake: FakeRun) -> None:
    key = TaskKey("beta", 0, 1)
    path = fake.run.task(key) / "result.json"
    write_json(path, read_json(path, what="it") | {"ended": "2026-03-01T12:00:00+00:00", "wall_s": 120.0})
    history = pd.read_csv(fake.run.task(key) / "history.csv")
    task = read_task(fake.run, key, fake.config, digest="d")
    pd.testing.assert_frame_equal(task.curves, history)
    assert task.numbers["best_stop_loss"] == history.loc[4, "stop_loss"]
    assert task.numbers["wall_s"] == 120.0
    assert task.settings["result.n_train"] == 300
    assert task.settings["result.weights.licence"] == "Apache-2.0"
    assert task.facts["config_hash"] == fake.config.content_hash()
    assert task.facts["version.numpy"] == np.__version__
    assert task.ended_s - task.started_s == 120.0
    assert task.time_of(11) == task.ended_s == pd.Timestamp("2026-03-01T12:00Z").timestamp()
    assert task.time_of(5) == task.started_s + 60.0


def test_a_result_that_does_not_say_when_it_ended_is_dated_by_its_file(fake: FakeRun) -> None:
    key = fake.tasks[0]
    path = fake.run.task(key) / "result.json"
    task = read_task(fake.run, key, fake.config, digest="d")
    assert task.ended_s == path.stat().st_mtime
    assert task.started_s == task.ended_s - 12.5


def test_a_task_without_curves_is_logged_too(fake: FakeRun) -> None:
    key = fake.tasks[0]
    (fake.run.task(key) / "history.csv").unlink()
    task = read_task(fake.run, key, fake.config, digest="d")
    assert len(task.curves) == 0
    assert "best_stop_loss" not in task.numbers
    assert task.time_of(0) == task.ended_s


def test_settings_are_those_the_model_was_trained_with(fake: FakeRun) -> None:
    models = [
        {"name": "tuned", "strategy": "finetune", "train": {"lr": 0.5}, "augment": {"flip": False}},
        {"name": "frozen", "strategy": "head", "head": {"penalties": [1.0]}},
    ]
    config = ExperimentConfig.model_validate({**fake.config.model_dump(mode="json"), "models": models})
    tuned, frozen = (task_settings(config, TaskKey(name, 7, 1)) for name in ("tuned", "frozen"))
    assert (tuned["seed"], tuned["fold"], tuned["model.name"]) == (7, 1, "tuned")
    assert (tuned["train.lr"], tuned["augment.flip"]) == (0.5, False)
    assert frozen["head.penalties"] == "[1.0]"
    assert not [name for name in tuned if name.startswith(("head.", "model.train."))]
    assert not [name for name in frozen if name.startswith(("train.", "augment."))]


def test_nested_settings_become_flat_names() -> None:
    content = {"a": {"b": 1, "c": {"d": None}}, "e": [1, "x"], "f": True, "g": "text"}
    assert flat(content) == {"a.b": 1, "a.c.d": "none", "e": '[1, "x"]', "f": True, "g": "text"}


def test_names_every_tracker_takes_stay_apart() -> None:
    names = ["lite0 (TTA, ensemble)", "lite0@8", "a/b", "a_b", "train_loss", "ä"]
    plain = plain_names(names)
    assert plain["lite0 (TTA, ensemble)"] == "lite0_TTA_ensemble"
    assert plain["train_loss"] == "train_loss"
    assert len(set(plain.values())) == len(names)
    assert all(set(p) <= set("abcdefghijklmnopqrstuvwxyzTALE0123456789_.-") for p in plain.values())


def test_numbers_of_models_come_with_their_intervals_and_without_what_is_unknown() -> None:
    value = {"mean": 0.8, "sd_folds": 0.1, "ci95": [0.7, 0.9]}
    unknown = {"mean": None, "sd_folds": None, "ci95": [None, None]}
    block = {"accuracy": value, "qwk": unknown, "per_class": {"dark, red": {"recall": value | {"ci95": None}}}}
    assert model_numbers({"models": {"m (ensemble)": {"external": block, "cv": None}}}) == {
        "m_ensemble/external/accuracy": 0.8,
        "m_ensemble/external/accuracy_low": 0.7,
        "m_ensemble/external/accuracy_high": 0.9,
        "m_ensemble/external/recall_dark_red": 0.8,
    }


def test_a_run_brings_its_figures_and_pages_and_changes_with_them(fake: FakeRun) -> None:
    write_json(fake.run.results, {"models": {}, "provenance": {"versions": {"scipy": "1.0"}}})
    for name in ("b.png", "a.png", "a.pdf"):
        write_text(fake.run.figures / name, name)
    recorder = Recorder()
    sync(fake.run, recorder)
    (first,) = recorder.runs
    assert [p.name for p in first.figures] == ["a.png", "b.png"]
    assert [p.name for p in first.pages] == ["config.yaml", "results.json"]
    hashes = {"config_hash": fake.config.content_hash(), "data_hash": fake.opened.data_hash}
    assert first.facts == {**hashes, "version.scipy": "1.0"}
    assert first.settings["models"] == '["alpha_head", "beta"]'
    sync(fake.run, recorder)
    assert recorder.runs[1] == first
    write_text(fake.run.report, "a page")
    sync(fake.run, recorder)
    assert recorder.runs[2].digest != first.digest
    assert replace(recorder.runs[2], pages=first.pages, digest=first.digest) == first
