"""Trackers come along while a run goes on; what ails them never reaches it."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.fake_run import FakeRun
from tests.tracking.test_base import Recorder

from perikarya import tracking
from perikarya.errors import ConfigError, RunError
from perikarya.runs import RunFolder
from perikarya.settings import LaunchConfig

BOTH = LaunchConfig(tracking=("tensorboard", "mlflow"))


@pytest.fixture
def recorders(monkeypatch: pytest.MonkeyPatch) -> dict[str, Recorder]:
    found = {"tensorboard": Recorder(), "mlflow": Recorder()}
    monkeypatch.setattr(tracking, "open_tracker", lambda run, name, uri: found[name])
    monkeypatch.setattr(tracking, "_PAUSE_S", 0.01)
    return found


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_the_default_is_no_tracker_and_no_thread(done: FakeRun, recorders: dict[str, Recorder]) -> None:
    with tracking.Follower(done.run, LaunchConfig()) as follower:
        follower.task_ended()
        assert not follower._thread.is_alive()
    tracking.follow(done.run, LaunchConfig())
    assert not any(r.tasks for r in recorders.values())


def test_all_trackers_get_all_tasks_at_the_end(done: FakeRun, recorders: dict[str, Recorder]) -> None:
    tracking.follow(done.run, BOTH)
    assert [len(r.tasks) for r in recorders.values()] == [6, 6]


def test_tasks_are_logged_as_they_end_and_once(done: FakeRun, recorders: dict[str, Recorder], tmp_path: Path) -> None:
    run, last = RunFolder(tmp_path / "going on"), done.tasks[-1]
    shutil.copytree(done.run.root, run.root)
    shutil.rmtree(run.task(last))
    with tracking.Follower(run, BOTH) as follower:
        follower.task_ended()
        wait_for(lambda: all(len(r.tasks) == 5 for r in recorders.values()))
        shutil.copytree(done.run.task(last), run.task(last))
        follower.task_ended()
        wait_for(lambda: all(len(r.tasks) == 6 for r in recorders.values()))
    assert not follower._thread.is_alive()


@pytest.mark.parametrize("error", [RunError("the server is on holiday"), ValueError("the server is on holiday")])
def test_a_tracker_that_fails_is_a_sentence_in_the_log_and_the_other_goes_on(
    error: Exception,
    done: FakeRun,
    recorders: dict[str, Recorder],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def open_tracker(run: RunFolder, name: str, uri: str | None) -> Recorder:
        if name == "tensorboard":
            raise error
        return recorders[name]

    monkeypatch.setattr(tracking, "open_tracker", open_tracker)
    with caplog.at_level(logging.INFO), tracking.Follower(done.run, BOTH) as follower:
        follower.task_ended()
        wait_for(lambda: len(recorders["mlflow"].tasks) == 6)
        follower.task_ended()
    told = [r for r in caplog.records if "holiday" in r.message]
    assert [r.levelname for r in told] == ["WARNING"], "told once"
    tracking.follow(done.run, BOTH)
    assert len([r for r in caplog.records if "holiday" in r.message]) == 2
    assert "the server is on holiday" in caplog.text


def test_the_address_of_the_settings_is_for_mlflow(
    done: FakeRun, recorders: dict[str, Recorder], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = {}

    def open_tracker(run: RunFolder, name: str, uri: str | None) -> Recorder:
        asked[name] = uri
        return recorders[name]

    monkeypatch.setattr(tracking, "open_tracker", open_tracker)
    tracking.follow(done.run, BOTH.model_copy(update={"mlflow_uri": "http://tracking:5000"}))
    assert asked == {"mlflow": "http://tracking:5000", "tensorboard": None}


def test_a_missing_package_is_told_before_anything_is_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    tracking.check_installed(())
    with pytest.raises(ConfigError, match=r"mlflow.*\n?.*pip install 'perikarya\[tracking\]'"):
        tracking.check_installed(("mlflow",))
