"""A file is absent or whole; a run folder has one owner."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from perikarya.errors import RunError
from perikarya.registry import Registry
from perikarya.runs import RunFolder, TaskKey, lock_run, read_json, replacing, write_json, write_text


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"old": 1})
    with pytest.raises(ZeroDivisionError), replacing(path) as temporary:
        temporary.write_text(f"half {1 / 0}")
    assert read_json(path, what="it") == {"old": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_numbers_that_other_programs_cannot_read_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "a.json", {"x": float("nan")})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [None, "", "{", "\x00\xff"])
def test_a_missing_or_damaged_json_is_a_sentence(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "r.json"
    if content is not None:
        path.write_text(content, encoding="latin-1")
    with pytest.raises(RunError, match=r"r\.json"):
        read_json(path, what="the result")


def test_what_killed_processes_left_of_finished_tasks_is_cleared_and_unfinished_ones_are_not_touched(
    tmp_path: Path,
) -> None:
    run = RunFolder(tmp_path)
    done, open_one, other = TaskKey("a", 0, 0), TaskKey("b", 0, 0), TaskKey("b", 0, 1)
    left = ("state.pt", "task.log", ".x.k1ll3d.part")
    for key in (done, open_one, other):
        for name in left:
            write_text(run.task(key) / name, "left")
    for key in (done, other):
        write_json(run.task(key) / "result.json", {})
    for model in ("a", "b"):
        write_text(run.features_log(model), "left")
    run.clear_finished([done, open_one, other])
    assert [p.name for p in run.task(done).iterdir()] == ["result.json"]
    assert [p.name for p in run.task(other).iterdir()] == ["result.json"]
    assert {p.name for p in run.task(open_one).iterdir()} == set(left)
    assert [p.name for p in tmp_path.glob("embed-*.log")] == ["embed-b.log"], "b is not done; its log may tell why"


def test_the_lock_of_a_process_that_died_is_free(tmp_path: Path) -> None:
    code = f"""
import os, pathlib
from perikarya.runs import lock_run
with lock_run(pathlib.Path({str(tmp_path)!r})):
    os.kill(os.getpid(), 9)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -9
    with lock_run(tmp_path):
        pass


def test_the_second_owner_is_told_who_is_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("perikarya.runs._LOCK_PATIENCE_S", 0.1)
    with lock_run(tmp_path), pytest.raises(RunError, match=r"started by process \d+ on"), lock_run(tmp_path):
        pass


def test_a_name_can_be_registered_once() -> None:
    registry: Registry[int] = Registry("thing")
    registry.add("a", 1)
    with pytest.raises(ValueError, match="registered already"):
        registry.add("a", 2)
