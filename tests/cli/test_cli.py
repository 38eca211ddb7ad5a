"""The command line: exit codes, sentences instead of tracebacks, and the whole way on a small source."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from tests.tiny import make_study


def perikarya(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "perikarya", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=280, check=False)


def test_help_names_every_command_and_imports_nothing_heavy(tmp_path: Path) -> None:
    done = perikarya("--help", cwd=tmp_path)
    assert done.returncode == 0
    for command in ("study", "models", "train", "status", "evaluate", "report", "demo"):
        assert command in done.stdout
    code = (
        "import sys; from typer.testing import CliRunner; from perikarya.cli.app import app\n"
        "assert CliRunner().invoke(app, ['--help']).exit_code == 0\n"
        "print([m for m in ('torch', 'pandas', 'numpy', 'cv2', 'matplotlib') if m in sys.modules])"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert loaded.stdout.strip() == "[]"


def test_wrong_usage_is_exit_code_2(tmp_path: Path) -> None:
    assert perikarya("train", cwd=tmp_path).returncode == 2
    assert perikarya("nonsense", cwd=tmp_path).returncode == 2


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("train", "absent.yaml", "--out", "run"), "absent.yaml does not exist"),
        (("train", "misspelt.yaml", "--out", "run"), "train.epoch: Extra inputs are not permitted"),
        (("train", "good.yaml", "--out", "run", "--set", "train.epochs"), "--set takes key=value"),
        (("train", "good.yaml", "--out", "run", "--set", "train.epochs=none"), "train.epochs"),
        (("train", "good.yaml", "--out", "run"), "There is no study at nowhere"),
        (("train", "good.yaml", "--out", "run", "--engine", "cloud"), "launch.engine"),
        (("status", "."), "is not a run folder"),
        (("report", "."), "is not a run folder"),
        (("evaluate", "."), "is not a run folder"),
        (("study", "check", "nowhere"), "There is no study at nowhere"),
        (("study", "import", "nowhere", "--out", "study"), "nowhere"),
    ],
)
def test_what_a_person_can_mend_is_a_sentence_and_exit_code_1(
    arguments: tuple[str, ...], sentence: str, tmp_path: Path
) -> None:
    good = {"name": "x", "study": "nowhere", "models": ["custom_cnn"]}
    (tmp_path / "good.yaml").write_text(yaml.safe_dump(good))
    (tmp_path / "misspelt.yaml").write_text(yaml.safe_dump({**good, "train": {"epoch": 3}}))
    done = perikarya(*arguments, cwd=tmp_path)
    assert done.returncode == 1
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.rglob("config.yaml")) and not (tmp_path / "study").exists()  # noqa: PT018


def test_train_status_evaluate_and_report_on_a_small_study(tmp_path: Path) -> None:
    make_study(tmp_path / "study")
    config = {
        "name": "small",
        "study": "study",
        "cv": {"n_folds": 4, "folds": [0, 1]},
        "models": [{"name": "cnn", "arch": "custom_cnn", "input_px": 32}],
        "train": {"epochs": 1, "tta_views": 1},
        "evaluate": {"n_bootstrap": 100},
    }
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(config))
    trained = perikarya("train", "small.yaml", "--out", "run", "--jobs", "1", cwd=tmp_path)
    assert trained.returncode == 0, trained.stderr
    assert "Report: run/report.html" in trained.stdout
    assert "\x1b[" not in trained.stdout, "colour although the output is no terminal"
    status = perikarya("status", "run", cwd=tmp_path)
    assert "2 of 2 tasks are done" in status.stdout
    before = (tmp_path / "run" / "results.json").read_text()
    assert perikarya("evaluate", "run", cwd=tmp_path).returncode == 0
    after = (tmp_path / "run" / "results.json").read_text()
    assert json.loads(after)["models"] == json.loads(before)["models"]
    (tmp_path / "run" / "report.html").unlink()
    assert perikarya("report", "run", cwd=tmp_path).returncode == 0
    assert (tmp_path / "run" / "report.html").stat().st_size < 10 * 2**20


def test_the_zoo_is_listed(tmp_path: Path) -> None:
    done = perikarya("models", cwd=tmp_path)
    assert done.returncode == 0
    for name in ("custom_cnn", "resnet50", "efficientnet_lite0"):
        assert name in done.stdout
