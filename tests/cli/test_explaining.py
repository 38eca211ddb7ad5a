"""What the command prints, and how it ends."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import typer
from tests.fake_run import make_fake_run

from perikarya.cli import explaining
from perikarya.errors import ConfigError
from perikarya.runs import RunFolder

ENTRY = {
    "method": "gradcam", "layers": [{"layer": "a", "grid": [7, 7]}, {"layer": "b", "grid": [8, 8]}], "n_cells": 120,
    "unit": "subject", "share_inside": {"mean": 0.61234, "ci95": [0.5, 0.7]}, "even_share": 0.25, "s_per_map": 0.0123,
}  # fmt: skip
ASKED: dict[str, Any] = {"models": None, "method": "advised", "cells": 40, "fold": None, "seed": 0, "study": None}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_fake_run(tmp_path, n_cells=60, n_external=30, n_folds=3).run.root


def answer(monkeypatch: pytest.MonkeyPatch, found: dict[str, Any]) -> list[dict[str, Any]]:
    calls: list[dict[str, Any]] = []

    def explain_run(run: RunFolder, opened: Any, config: Any, **asked: Any) -> dict[str, Any]:
        calls.append({"run": run, "opened": opened, "config": config, **asked})
        asked["progress"]("alpha", 1, 2)
        return found

    monkeypatch.setattr(explaining, "explain_run", explain_run)
    return calls


def test_shares_are_printed_with_their_interval_and_that_of_an_even_map(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    calls = answer(monkeypatch, {"alpha": ENTRY, "beta": {**ENTRY, "share_inside": {"mean": 0.4, "ci95": None}}})
    explaining.explain_command(folder, **{**ASKED, "models": ["alpha", "beta"], "cells": 7, "fold": 2, "seed": 5})
    shown = capsys.readouterr().out
    assert "0.612" in shown
    assert "0.500 to 0.700" in shown
    assert "not available" in shown
    assert "7x7 + 8x8" in shown
    assert "0.250" in shown
    (call,) = calls
    assert (call["models"], call["method"], call["n_per_class"], call["fold"], call["seed"]) == (
        ["alpha", "beta"], "advised", 7, 2, 5,
    )  # fmt: skip


def test_a_model_that_is_not_explained_is_named_and_the_exit_code_is_1(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    answer(monkeypatch, {"alpha": ENTRY, "beta": {"reason": "Its weights are gone."}})
    with pytest.raises(typer.Exit) as end:
        explaining.explain_command(folder, **ASKED)
    assert end.value.exit_code == 1
    shown = capsys.readouterr().out
    assert "beta is not explained: Its weights are gone." in shown
    assert "0.612" in shown


def test_a_study_that_has_moved_is_opened_where_it_is(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    moved = (folder.parent / "study").rename(tmp_path / "elsewhere")
    calls = answer(monkeypatch, {"alpha": ENTRY})
    explaining.explain_command(folder, **{**ASKED, "study": moved})
    assert calls[0]["opened"].root == moved


def test_an_unknown_model_is_a_sentence(folder: Path) -> None:
    with pytest.raises(ConfigError, match="has no model 'gamma'"):
        explaining.explain_command(folder, **{**ASKED, "models": ["gamma"]})
