"""An element does its share, saves what it has when Slurm wants its machine, and comes back when it should."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from perikarya.errors import RunError
from perikarya.launch.slurm.element import REQUEUE_ME, STOPPED, do_listed
from perikarya.launch.slurm.notices import seconds

_SCONTROL = """#!/bin/sh
echo "$@" >> "{folder}/asked"
[ -e "{folder}/refusal" ] && {{ echo "Job is gone" >&2; exit 1; }}
exit 0
"""
_SQUEUE = """#!/bin/sh
while read -r line; do echo "$line"; done < "{folder}/times"
"""


class Scripted:
    """A worker that sends itself what Slurm would send, at given steps; what it was stopped at is saved."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.starts: list[str] = []

    def do(self, job: dict[str, Any], progress: Callable[[int, int], None]) -> None:
        self.starts.append(job["id"])
        if job.get("refuse"):
            raise RunError("It is not as it must be.")
        saved = self.folder / f"{job['id']}.saved"
        first = int(saved.read_text()) if saved.exists() else 0
        for step in range(first, job.get("steps", 3)):
            for name in job.get("signals", {}).get(str(step), []):
                os.kill(os.getpid(), signal.Signals[name])
                time.sleep(0.1)
            time.sleep(job.get("step_s", 0))
            if step and job.get("saves", True):
                saved.write_text(str(step))
            progress(step, 3)
        (self.folder / f"{job['id']}.done").touch()

    def is_done(self, job: dict[str, Any]) -> bool:
        return (self.folder / f"{job['id']}.done").exists()

    def log_of(self, job: dict[str, Any]) -> Path:
        return self.folder / f"{job['id']}.log"


class Element:
    """An element of array 7 with index 3, and the cluster around it."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.monkeypatch = folder, monkeypatch
        self.worker = Scripted(folder)
        self.own_log = folder / "stage1-3.log"
        self.programs = folder / "programs"
        self.programs.mkdir()
        for name, text in (("scontrol", _SCONTROL), ("squeue", _SQUEUE)):
            (self.programs / name).write_text(text.format(folder=folder))
            (self.programs / name).chmod(0o755)
        monkeypatch.setenv("PATH", str(self.programs))
        monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "7")
        monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "3")
        monkeypatch.setenv("PERIKARYA_SIGNAL_S", "60")
        for name in ("SLURM_RESTART_COUNT", "SLURM_JOB_END_TIME"):
            monkeypatch.delenv(name, raising=False)
        self.ends_in(60)

    def ends_in(self, s: float, *, limit_s: float | None = None) -> None:
        """Let squeue say when the job ends, and how much its time limit leaves (as much, unless it is preempted)."""
        left = round(s if limit_s is None else limit_s)
        clock = f"{left // 3600}:{left % 3600 // 60:02d}:{left % 60:02d}"
        (self.folder / "times").write_text(f"{round(time.time() + s)}|{clock}\n")

    def run(self, *jobs: dict[str, Any], first: int = 0, count: int = 9) -> int:
        (self.folder / "jobs.jsonl").write_text("".join(json.dumps(job) + "\n" for job in jobs))
        self.own_log.touch()
        return do_listed(
            self.worker, jobs_file=self.folder / "jobs.jsonl", first=first, count=count, own_log=self.own_log
        )

    @property
    def asked(self) -> list[str]:
        path = self.folder / "asked"
        return path.read_text().splitlines() if path.exists() else []

    def log(self, job: str) -> str:
        return (self.folder / f"{job}.log").read_text()


@pytest.fixture
def element(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Element:
    return Element(tmp_path, monkeypatch)


def stopped_at_1(*names: str, **more: object) -> dict[str, Any]:
    return {"id": "a", "signals": {"1": list(names)}, "steps": 200, "step_s": 0.02, **more}


def test_an_element_does_its_lines_only_and_leaves_out_what_is_done(element: Element) -> None:
    (element.folder / "c.done").touch()
    assert element.run(*({"id": name} for name in "abcde"), first=1, count=3) == 0
    assert element.worker.starts == ["b", "d"]
    assert not element.own_log.exists()


def test_a_job_that_fails_does_not_keep_the_next_from_being_done(element: Element) -> None:
    assert element.run({"id": "a", "refuse": True}, {"id": "b"}) == 1
    assert (element.folder / "b.done").exists()
    assert "ERROR It is not as it must be." in element.log("a")
    assert element.own_log.exists()


def test_before_the_time_limit_the_state_is_saved_and_the_element_requeued_under_its_own_name(element: Element) -> None:
    assert element.run(stopped_at_1("SIGUSR1"), {"id": "b"}) == STOPPED
    assert element.asked == ["requeue 7_3"]
    assert 1 <= int((element.folder / "a.saved").read_text()) < 150
    assert element.worker.starts == ["a"]
    assert "saved and requeued" in element.log("a")
    assert "ERROR" not in element.log("a")
    element.monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert element.run({"id": "a"}, {"id": "b"}) == 0
    assert not list(element.folder.glob("*.restart.json"))


def test_a_cancelled_element_saves_its_state_and_never_comes_back_by_itself(element: Element) -> None:
    assert element.run(stopped_at_1("SIGTERM")) == STOPPED
    assert element.asked == []
    assert (element.folder / "a.saved").exists()


def test_an_element_that_is_cancelled_after_the_warning_does_not_come_back_either(element: Element) -> None:
    assert element.run(stopped_at_1("SIGUSR1", "SIGTERM")) == STOPPED
    assert element.asked == []


def test_without_scontrol_the_exit_code_asks_for_the_requeue(element: Element) -> None:
    (element.programs / "scontrol").unlink()
    assert element.run(stopped_at_1("SIGUSR1")) == REQUEUE_ME
    assert "there is no scontrol here" in element.log("a")
    assert "ERROR" not in element.log("a")


def test_a_requeue_that_slurm_refuses_is_told(element: Element) -> None:
    (element.folder / "refusal").touch()
    assert element.run(stopped_at_1("SIGUSR1")) == REQUEUE_ME
    assert "Job is gone" in element.log("a")


def test_a_step_that_outlasts_the_warning_does_not_keep_the_element_from_being_requeued(element: Element) -> None:
    element.ends_in(9)
    asked_while_at_work: list[bool] = []
    job = {"id": "a", "signals": {"1": ["SIGUSR1"]}, "step_s": 2.5}
    do = element.worker.do

    def watched(job: dict[str, Any], progress: Callable[[int, int], None]) -> None:
        def note(done: int, total: int) -> None:
            asked_while_at_work.append(bool(element.asked))
            progress(done, total)

        do(job, note)

    element.monkeypatch.setattr(element.worker, "do", watched)
    assert element.run(job) == STOPPED
    assert asked_while_at_work == [False, True]
    assert element.asked == ["requeue 7_3"]  # once


def test_an_element_that_was_restarted_too_often_fails_with_a_sentence(element: Element) -> None:
    element.monkeypatch.setenv("PERIKARYA_MAX_RESTARTS", "2")
    element.monkeypatch.setenv("SLURM_RESTART_COUNT", "2")
    assert element.run({"id": "a"}) == 0
    element.monkeypatch.setenv("SLURM_RESTART_COUNT", "3")
    assert element.run({"id": "a"}, {"id": "b"}) == 1
    assert "ERROR Slurm has restarted this job 3 times" in element.log("b")
    assert element.worker.starts == ["a"]


def test_a_job_that_saves_nothing_within_its_time_limit_fails_instead_of_going_on_for_ever(element: Element) -> None:
    for _ in range(2):
        assert element.run(stopped_at_1("SIGUSR1", saves=False)) == STOPPED
    assert element.run(stopped_at_1("SIGUSR1", saves=False)) == 1
    assert "raise launch.slurm.time" in element.log("a")
    assert element.worker.starts == ["a", "a"]
    assert len(element.asked) == 2
    assert element.run({"id": "a"}) == 0  # a person who has raised it is not refused


def test_a_job_that_comes_on_with_every_time_limit_is_never_given_up(element: Element) -> None:
    for step in (1, 4, 8):
        job = {"id": "a", "signals": {str(step): ["SIGUSR1"]}, "steps": 200, "step_s": 0.02}
        (element.folder / "a.saved").write_text(str(step))
        assert element.run(job) == STOPPED
    assert len(element.asked) == 3


def test_preemptions_say_nothing_about_the_time_limit(element: Element) -> None:
    element.ends_in(60, limit_s=7200)
    for _ in range(3):
        assert element.run(stopped_at_1("SIGUSR1", saves=False)) == STOPPED
    assert len(element.asked) == 3


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")  # there is a thread; the child only sleeps
def test_a_child_that_is_told_to_end_ends_and_does_not_stop_its_parent(
    element: Element, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends: list[int] = []

    def do(job: dict[str, Any], progress: Callable[[int, int], None]) -> None:
        hears, tells = os.pipe()
        child = os.fork()
        if child == 0:
            os.write(tells, b"I am myself")
            time.sleep(20)
            os._exit(0)
        os.read(hears, 20)  # a child that has not run yet still shares all with its parent
        os.kill(child, signal.SIGTERM)
        ends.append(os.waitpid(child, 0)[1])
        os.close(hears)
        os.close(tells)
        time.sleep(0.2)
        progress(1, 1)

    monkeypatch.setattr(element.worker, "do", do)
    assert element.run({"id": "a"}) == 0
    assert os.WTERMSIG(ends[0]) == signal.SIGTERM


def test_a_missing_list_of_jobs_is_told(element: Element, capsys: pytest.CaptureFixture[str]) -> None:
    missing = element.folder / "none.jsonl"
    assert do_listed(element.worker, jobs_file=missing, first=0, count=1, own_log=element.own_log) == 1
    assert "none.jsonl is missing" in capsys.readouterr().out


def test_signals_are_handled_as_before_once_an_element_has_ended(element: Element) -> None:
    before = [signal.getsignal(s) for s in (signal.SIGUSR1, signal.SIGTERM)]
    element.run({"id": "a"})
    assert [signal.getsignal(s) for s in (signal.SIGUSR1, signal.SIGTERM)] == before


@pytest.mark.parametrize(
    ("text", "expected"),
    [("9:56", 596), ("1-02:03:04", 93784), ("2:00:00", 7200), ("0:00", 0), ("UNLIMITED", None), ("", None)],
)
def test_durations_are_read_as_slurm_writes_them(text: str, expected: float | None) -> None:
    assert seconds(text) == expected
