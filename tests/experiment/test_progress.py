"""How far a task is can be read while it runs, and costs it next to nothing."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from perikarya.experiment import progress as progress_module
from perikarya.experiment.progress import PROGRESS_FILE, ProgressFile, read_progress


def test_progress_is_written_every_few_seconds_and_tells_the_speed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = 1000.0
    monkeypatch.setattr(progress_module.time, "time", lambda: clock)
    file = ProgressFile(tmp_path / PROGRESS_FILE, every_s=5)
    written = []
    for step in range(40, 61):  # goes on from a saved state, a step a second
        file.note(step, 100)
        written.append(read_progress(tmp_path / PROGRESS_FILE))
        clock += 1
    assert sum(a != b for a, b in pairwise(written)) == 4
    last = written[-1]
    assert last is not None
    assert (last.first, last.done, last.share) == (40, 60, 0.6)
    assert last.whole_s == pytest.approx(100)


def test_a_task_that_ends_at_once_writes_no_progress(tmp_path: Path) -> None:
    file = ProgressFile(tmp_path / PROGRESS_FILE)
    for step in range(100):
        file.note(step, 100)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("content", [None, "", "{", "{}", "[]"])
def test_progress_that_cannot_be_read_is_unknown(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / PROGRESS_FILE).write_text(content)
    assert read_progress(tmp_path / PROGRESS_FILE) is None
