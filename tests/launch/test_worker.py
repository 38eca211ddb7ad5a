"""The worker's side: one job, its log, its sentence; and when it stops."""

from __future__ import annotations

import logging
import select
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.launch.rehearsal import ROOT, Rehearsal, rehearsal_crew

from perikarya.errors import InterruptedWorkError, RunError
from perikarya.launch.jobs import Job
from perikarya.launch.process import WorkerProcess
from perikarya.launch.worker import ORPHANED, Progress, Worker, attempt, main


class Doing:
    """A worker that does one thing, whatever the job."""

    def __init__(self, folder: Path, thing: Callable[[Progress], object]) -> None:
        self.folder, self.thing = folder, thing

    def do(self, job: dict[str, Any], progress: Progress) -> None:
        self.thing(progress)

    def is_done(self, job: dict[str, Any]) -> bool:
        return False

    def log_of(self, job: dict[str, Any]) -> Path:
        return self.folder / "log"


def raising(error: BaseException) -> Callable[[Progress], object]:
    def thing(progress: Progress) -> None:
        raise error

    return thing


class OutOfMemoryError(RuntimeError):
    """Called like torch's."""


def ignore(done: int, total: int) -> None:
    pass


def test_work_that_ends_well_has_no_sentence_and_a_log(tmp_path: Path) -> None:
    worker = Doing(tmp_path, lambda progress: logging.getLogger("perikarya.some").info("all is well"))
    assert attempt(worker, {"id": "a"}, ignore) is None
    assert "INFO all is well" in (tmp_path / "log").read_text()


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (RunError("It is so.\nFix: mend it."), ["It is so.\nFix: mend it."]),
        (ValueError("no good"), ["ValueError: no good"]),
        (MemoryError(), ["Memory ran out (MemoryError)", "train.micro_batch"]),
        (
            OutOfMemoryError("CUDA out of memory.\nmuch more"),
            ["Memory ran out (OutOfMemoryError: CUDA out of memory.)"],
        ),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), ["Memory ran out", "fewer jobs"]),
        (OSError(28, "No space left on device", "/data/x"), ["/data/x: No space left on device.", "free space"]),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_what_goes_wrong_is_one_sentence_for_people(tmp_path: Path, error: Exception, words: list[str]) -> None:
    told = attempt(Doing(tmp_path, raising(error)), {"id": "a"}, ignore)
    assert told is not None
    assert all(word in told for word in words), told


def test_the_traceback_of_an_error_without_a_sentence_is_in_the_log(tmp_path: Path) -> None:
    attempt(Doing(tmp_path, raising(ValueError("no good"))), {"id": "a"}, ignore)
    log = (tmp_path / "log").read_text()
    assert "ERROR Traceback" in log
    assert "in thing" in log


def test_a_log_that_cannot_be_written_fails_the_job_only(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    told = attempt(Doing(tmp_path / "file", lambda progress: None), {"id": "a"}, ignore)
    assert told is not None
    assert str(tmp_path / "file") in told


def test_work_that_was_asked_to_stop_has_not_failed(tmp_path: Path) -> None:
    with pytest.raises(InterruptedWorkError, match="time is over"):
        attempt(Doing(tmp_path, raising(InterruptedWorkError("time is over"))), {"id": "a"}, ignore)
    assert "ERROR" not in (tmp_path / "log").read_text()


@pytest.fixture
def listed(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """Stand in for the elements of Slurm; what they are given is kept."""
    given: dict[str, Any] = {}

    def do_listed(worker: Worker, **how: Any) -> int:
        given.update(how, worker=worker)
        return 7

    element = types.ModuleType("perikarya.launch.slurm.element")
    element.do_listed = do_listed  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "perikarya.launch.slurm.element", element)
    yield given
    logging.captureWarnings(capture=False)


def test_an_element_of_an_array_gets_its_lines_and_its_log(
    tmp_path: Path, listed: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["--jobs-file", "/x/jobs.jsonl", "--first", "40", "--count", "4", "--own-log", "/x/7.out"]
    monkeypatch.setattr(sys, "argv", ["worker", str(tmp_path), "--extra", "1", *words])
    seen: list[list[str]] = []

    def open_worker(arguments: Any) -> Rehearsal:
        seen.append(list(arguments))
        return Rehearsal(tmp_path)

    with pytest.raises(SystemExit) as ended:
        main(open_worker)
    assert ended.value.code == 7
    assert seen == [[str(tmp_path), "--extra", "1"]]
    assert isinstance(listed.pop("worker"), Rehearsal)
    assert listed == {"jobs_file": Path("/x/jobs.jsonl"), "first": 40, "count": 4, "own_log": Path("/x/7.out")}


def test_words_of_a_worker_that_begin_like_ours_stay_its_own(
    tmp_path: Path, listed: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["worker", "--fir", "x", "--jobs-file", "f"])
    seen: list[str] = []
    with pytest.raises(SystemExit):
        main(lambda words: seen.extend(words) or Rehearsal(tmp_path))  # type: ignore[func-returns-value]
    assert seen == ["--fir", "x"]


class Talk:
    """A worker process and what it tells."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PYTHONPATH", str(ROOT))
        self.process = WorkerProcess(rehearsal_crew(folder).command(), env={}, keep_fds=[])
        self.told: list[dict[str, Any]] = []

    def until(self, kind: str) -> dict[str, Any]:
        while not (found := [note for note in self.told if note["kind"] == kind]):
            assert select.select([self.process.events_fd], [], [], 30)[0], "waited in vain"
            notes, last = self.process.read_events()
            self.told += notes
            assert notes or not last, self.process.printed
        return found[-1]


def test_a_worker_says_when_it_is_ready_and_ends_when_its_input_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    talk = Talk(tmp_path, monkeypatch)
    talk.until("ready")
    talk.process.let_go()
    assert talk.process.bury(patience_s=20) == 0


def test_a_worker_that_is_asked_to_stop_tells_so_and_takes_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    talk = Talk(tmp_path, monkeypatch)
    talk.process.give(Job("a", {"do": "work", "steps": 10_000, "sleep_s": 0.02}))
    talk.process.give(Job("b", {"do": "work"}))
    talk.until("progress")
    talk.process.ask_to_stop()
    assert talk.until("stopped")["id"] == "a"
    assert talk.process.bury(patience_s=20) == 0
    assert not (tmp_path / "started" / "b").exists()


def test_an_orphan_in_the_midst_of_a_long_step_ends_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    talk = Talk(tmp_path, monkeypatch)
    talk.process.give(Job("a", {"do": "work", "steps": 2, "sleep_s": 3600}))
    talk.until("progress")
    talk.process.let_go()
    assert talk.process.bury(patience_s=20) == ORPHANED
