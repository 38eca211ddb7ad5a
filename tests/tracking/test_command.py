"""``perikarya track`` on the command line."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.fake_run import FakeRun
from typer.testing import CliRunner

from perikarya.cli import tracking as command
from perikarya.cli.app import app
from perikarya.errors import RunError, UnknownNameError
from perikarya.runs import write_text

pytest.importorskip("tensorboard", reason="the extra 'tracking' is not installed")


def test_track_logs_a_run_and_says_how_to_look(done: FakeRun, tmp_path: Path) -> None:
    words = ["track", str(done.run.root), "--to", "tensorboard", "--uri", str(tmp_path / "logs")]
    first, second = (CliRunner().invoke(app, words) for _ in range(2))
    assert first.exit_code == 0, first.output
    assert "6 task(s) logged now, 0 before." in first.output
    assert f"tensorboard --logdir {tmp_path / 'logs'}" in first.output.replace("\n", "")
    assert "0 task(s) logged now, 6 before." in second.output
    assert len(list((tmp_path / "logs").rglob("events.*"))) == 7


def test_watching_goes_on_until_all_is_done_and_logs_what_came_last(
    done: FakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = done.run.report.read_text()
    done.run.report.unlink()
    last = done.run.task(done.tasks[-1])
    last.rename(tmp_path / "not yet")
    slept = []

    def sleep(seconds: float) -> None:
        slept.append(len(list((tmp_path / "logs").rglob("events.*"))))
        if len(slept) == 1:
            (tmp_path / "not yet").rename(last)
        if len(slept) == 2:
            write_text(done.run.report, page)

    monkeypatch.setattr(command.time, "sleep", sleep)
    command.track_command(done.run.root, to="tensorboard", uri=str(tmp_path / "logs"), watch=True)
    assert slept == [6, 7], "five tasks and the run; then all"
    (of_run,) = (tmp_path / "logs/run/results").iterdir()
    monkeypatch.undo()
    command.track_command(done.run.root, to="tensorboard", uri=str(tmp_path / "logs"), watch=True)
    assert [*(tmp_path / "logs/run/results").iterdir()] == [of_run], "the report was among what was logged"


def test_an_unknown_tracker_and_a_folder_that_is_no_run_are_refused_before_anything_is_made(
    done: FakeRun, tmp_path: Path
) -> None:
    with pytest.raises(UnknownNameError, match=r"no tracker called 'mflow'. Did you mean 'mlflow'\?"):
        command.track_command(done.run.root, to="mflow")
    (tmp_path / "no run").mkdir()
    with pytest.raises(RunError, match="not a run folder"):
        command.track_command(tmp_path / "no run", to="tensorboard")
    assert not (tmp_path / "tensorboard").exists()
