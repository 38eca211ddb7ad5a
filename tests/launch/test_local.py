"""Workers are supervised: whatever dies, every job ends, and no worker outlives its supervisor."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from tests.launch.rehearsal import ROOT, rehearsal_crew

from perikarya.errors import RunError
from perikarya.launch.ends import MemoryWatch
from perikarya.launch.jobs import Crew, Event, Job
from perikarya.launch.local import MAX_DEATHS, run_jobs
from perikarya.launch.process import WorkerProcess


@pytest.fixture(autouse=True)
def _rehearsal_can_be_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


def run(folder: Path, jobs: list[Job], n_workers: int = 2) -> tuple[dict[str, str], list[Event]]:
    events: list[Event] = []
    failed = run_jobs(jobs, crew=rehearsal_crew(folder), n_workers=n_workers, listener=events.append, threads=1)
    return failed, events


def test_every_job_is_done_once_and_workers_are_started_once(tmp_path: Path) -> None:
    failed, events = run(tmp_path, [Job(f"j{i}", {"do": "work"}) for i in range(20)])
    assert failed == {}
    assert sorted((tmp_path / "order").read_text().split()) == sorted(f"j{i}" for i in range(20))
    assert [e.kind for e in events].count("done") == 20
    assert len(list(tmp_path.glob("worker-*"))) == 2


def test_a_killed_worker_costs_only_a_restart_of_its_job(tmp_path: Path) -> None:
    failed, events = run(tmp_path, [Job("a", {"do": "die-once"}), *[Job(f"j{i}", {"do": "work"}) for i in range(5)]])
    assert failed == {}
    assert "a" in (tmp_path / "order").read_text().split()
    assert [e.job_id for e in events if e.kind == "died"] == ["a"]
    assert "SIGKILL" in next(e.message for e in events if e.kind == "died")


def test_a_job_that_always_kills_its_worker_fails_and_the_others_go_on(tmp_path: Path) -> None:
    failed, events = run(tmp_path, [Job("bad", {"do": "die"}), Job("good", {"do": "work"})], n_workers=1)
    assert set(failed) == {"bad"}
    assert "exit code 7" in failed["bad"]
    assert [e.kind for e in events if e.job_id == "bad"].count("died") == MAX_DEATHS - 1
    assert "good" in (tmp_path / "order").read_text()


def test_a_job_that_raises_is_told_and_its_dependants_are_not_started(tmp_path: Path) -> None:
    jobs = [Job("a", {"do": "raise"}), Job("b", {"do": "work"}, frozenset({"a"})), Job("c", {"do": "work"})]
    failed, _ = run(tmp_path, jobs)
    assert "Traceback" in (tmp_path / "log" / "a").read_text()
    assert failed == {"a": "ValueError: no good", "b": "needs 'a', which failed"}
    assert (tmp_path / "order").read_text().split() == ["c"]


def test_a_job_waits_for_what_it_needs(tmp_path: Path) -> None:
    run(tmp_path, [Job("late", {"do": "work"}, frozenset({"early"})), Job("early", {"do": "work"})])
    assert (tmp_path / "order").read_text().split() == ["early", "late"]


def test_needs_that_form_a_circle_fail_instead_of_hanging(tmp_path: Path) -> None:
    jobs = [Job("a", {"do": "work"}, frozenset({"b"})), Job("b", {"do": "work"}, frozenset({"a"}))]
    failed, _ = run(tmp_path, jobs)
    assert set(failed) == {"a", "b"}


INTERRUPTED = """
import json, signal, sys
from pathlib import Path
from perikarya.launch import local
from perikarya.launch.jobs import Job
from tests.launch.rehearsal import rehearsal_crew
folder, local.STOP_WAIT_S = Path(sys.argv[1]), float(sys.argv[3])
jobs = [Job("a", json.loads(sys.argv[2])), Job("b", {"do": "work"})]
def listen(event):
    if event.kind in ("started", "progress"):
        (folder / event.kind).mkdir(exist_ok=True)
        (folder / event.kind / event.job_id).touch()
    else:
        print(event.kind, event.job_id, flush=True)
try:
    local.run_jobs(jobs, crew=rehearsal_crew(folder), n_workers=1, listener=listen, threads=1)
except KeyboardInterrupt:
    print("interrupted", signal.getsignal(signal.SIGINT) is signal.default_int_handler)
"""


class Interrupted:
    """A supervisor in a process of its own, to be sent signals."""

    def __init__(self, folder: Path, payload: dict[str, Any], *, stop_wait_s: float = 10) -> None:
        self.folder = folder
        command = [sys.executable, "-c", INTERRUPTED, str(folder), json.dumps(payload), str(stop_wait_s)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        wait_for(lambda: (folder / "progress" / "a").exists())

    def end(self, *signals: signal.Signals) -> tuple[int, list[str]]:
        for signum in signals:
            self.process.send_signal(signum)
            time.sleep(0.3)
        told, _ = self.process.communicate(timeout=30)
        return self.process.returncode, told.splitlines()

    @property
    def worker_pid(self) -> int:
        return int(next(self.folder.glob("worker-*")).name.removeprefix("worker-"))


def test_ctrl_c_lets_workers_save_their_state_and_is_passed_on_as_ever(tmp_path: Path) -> None:
    run_on = Interrupted(tmp_path, {"do": "work", "steps": 1000, "sleep_s": 0.05})
    assert run_on.end(signal.SIGINT) == (0, ["interrupted True"])
    assert int((tmp_path / "saved" / "a").read_text()) > 0
    assert not psutil.pid_exists(run_on.worker_pid)
    assert not (tmp_path / "started" / "b").exists()


def test_sigterm_lets_workers_save_their_state_and_ends_the_process(tmp_path: Path) -> None:
    run_on = Interrupted(tmp_path, {"do": "work", "steps": 1000, "sleep_s": 0.05})
    assert run_on.end(signal.SIGTERM)[0] == -signal.SIGTERM
    assert (tmp_path / "saved" / "a").exists()


def test_a_job_that_ends_while_it_should_stop_counts_as_done(tmp_path: Path) -> None:
    run_on = Interrupted(tmp_path, {"do": "work", "steps": 2, "sleep_s": 0.5})
    (tmp_path / "progress" / "a").unlink()
    wait_for(lambda: (tmp_path / "progress" / "a").exists())  # the last step has begun
    assert run_on.end(signal.SIGINT) == (0, ["done a", "interrupted True"])


def test_a_second_ctrl_c_does_not_wait_for_a_step_that_takes_long(tmp_path: Path) -> None:
    run_on = Interrupted(tmp_path, {"do": "work", "steps": 2, "sleep_s": 3600})
    assert run_on.end(signal.SIGINT, signal.SIGINT) == (0, ["interrupted True"])
    assert not psutil.pid_exists(run_on.worker_pid)


def test_a_step_that_takes_too_long_is_not_waited_for(tmp_path: Path) -> None:
    run_on = Interrupted(tmp_path, {"do": "work", "steps": 2, "sleep_s": 3600}, stop_wait_s=0.5)
    assert run_on.end(signal.SIGINT) == (0, ["interrupted True"])
    assert not psutil.pid_exists(run_on.worker_pid)


def test_a_worker_whose_supervisor_was_killed_saves_its_state_and_ends(tmp_path: Path) -> None:
    run_on = Interrupted(tmp_path, {"do": "work", "steps": 1000, "sleep_s": 0.05})
    run_on.end(signal.SIGKILL)
    wait_for(lambda: not psutil.pid_exists(run_on.worker_pid))
    assert (tmp_path / "saved" / "a").exists()


def test_a_worker_asked_to_end_by_somebody_saves_its_state_and_another_goes_on(tmp_path: Path) -> None:
    events: list[Event] = []

    def listen(event: Event) -> None:
        events.append(event)
        if event.kind == "progress" and not any(e.kind == "died" for e in events):
            os.kill(int(next(tmp_path.glob("worker-*")).name.removeprefix("worker-")), signal.SIGTERM)

    jobs = [Job("a", {"do": "work", "steps": 8, "sleep_s": 0.1})]
    assert run_jobs(jobs, crew=rehearsal_crew(tmp_path), n_workers=1, listener=listen, threads=1) == {}
    assert (tmp_path / "saved" / "a").exists()
    assert "asked to stop" in next(e.message for e in events if e.kind == "died")


def test_a_worker_that_cannot_start_is_told_with_its_own_words(tmp_path: Path) -> None:
    crew = Crew("tests.launch.no_such_module", (str(tmp_path),))
    with pytest.raises(RunError, match=r"No worker can be started.*No module named tests\.launch\.no_such_module"):
        run_jobs([Job("a", {})], crew=crew, n_workers=2, listener=lambda event: None, threads=1)


def test_a_worker_that_refuses_to_start_is_told_with_its_whole_sentence(tmp_path: Path) -> None:
    crew = Crew("tests.launch.rehearsal", (str(tmp_path), "--refuse"))
    with pytest.raises(RunError, match=r"The folder is not as it must be\.\nFix: mend it\."):
        run_jobs([Job("a", {})], crew=crew, n_workers=1, listener=lambda event: None, threads=1)


def test_an_interpreter_that_is_not_there_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Crew, "command", lambda self: ["/nowhere/python", "-c", "pass"])
    with pytest.raises(RunError, match="/nowhere/python: No such file"):
        run(tmp_path, [Job("a", {"do": "work"})])


@pytest.mark.parametrize("which", [0, 1])
def test_where_some_workers_cannot_start_the_others_do_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, which: int
) -> None:
    good, n_starts = rehearsal_crew(tmp_path).command(), iter(range(100))
    monkeypatch.setattr(WorkerProcess, "__init__", _start_every(WorkerProcess.__init__, n_starts, good, which=which))
    jobs = [Job(f"j{i}", {"do": "work", "sleep_s": 0.1, "steps": 2}) for i in range(12)]
    failed, _ = run(tmp_path, jobs, n_workers=2)
    assert failed == {}
    assert "the other 1 do the work" in caplog.text


def _start_every(start: Any, n_starts: Iterator[int], good: list[str], *, which: int) -> Any:
    def started(self: WorkerProcess, command: list[str], **how: Any) -> None:
        start(self, good if next(n_starts) == which else [sys.executable, "-c", "raise SystemExit('no GPU')"], **how)

    return started


def test_lack_of_memory_costs_a_worker_and_no_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MemoryWatch, "ended_one", lambda self: True)
    jobs = [Job("big", {"do": "die-once"}), *[Job(f"j{i}", {"do": "work"}) for i in range(5)]]
    failed, events = run(tmp_path, jobs, n_workers=2)
    assert failed == {}
    told = next(e.message for e in events if e.kind == "died")
    assert "memory of this machine ran out" in told
    assert "1 at once" in told
    assert len(list(tmp_path.glob("worker-*"))) == 2  # nobody took the place of the one that died


def test_a_job_too_large_for_the_machine_fails_in_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MemoryWatch, "ended_one", lambda self: True)
    failed, _ = run(tmp_path, [Job("big", {"do": "be-killed"}), Job("small", {"do": "work"})], n_workers=2)
    assert set(failed) == {"big"}


def test_a_worker_that_ends_by_itself_is_not_taken_for_a_lack_of_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MemoryWatch, "ended_one", lambda self: True)  # of somebody else
    failed, events = run(tmp_path, [Job("bad", {"do": "die"}), Job("good", {"do": "work"})], n_workers=2)
    assert set(failed) == {"bad"}
    assert not [e for e in events if "memory" in e.message]


def test_a_worker_that_dies_while_a_child_of_it_lives_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("perikarya.launch.local._LOOK_EVERY_S", 0.2)
    failed, _ = run(tmp_path, [Job("a", {"do": "die-leaving-a-child"}), Job("b", {"do": "work"})], n_workers=1)
    assert set(failed) == {"a"}
    assert "SIGKILL" in failed["a"]
    assert not [p for p in psutil.process_iter(["cmdline"]) if str(tmp_path) in " ".join(p.info["cmdline"] or [])]


def test_a_crash_in_native_code_leaves_its_trace_in_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="perikarya")
    failed, _ = run(tmp_path, [Job("a", {"do": "crash"})], n_workers=1)
    assert "SIGSEGV" in failed["a"]
    assert "rehearsal.py" in caplog.text


def test_workers_share_the_gpus_in_turn_and_say_where_they_work(tmp_path: Path) -> None:
    events: list[Event] = []
    jobs = [Job(f"j{i}", {"do": "work", "steps": 2, "sleep_s": 0.3}) for i in range(4)]
    run_jobs(
        jobs, crew=rehearsal_crew(tmp_path), n_workers=4, listener=events.append, threads=3, gpus=["GPU-a", "GPU-b"]
    )
    places = sorted(e.message for e in events if e.kind == "started")
    assert [place.split(", ")[1] for place in places] == ["GPU GPU-a", "GPU GPU-b"] * 2
    seen = [json.loads(path.read_text()) for path in tmp_path.glob("worker-*")]
    assert sorted(env["CUDA_VISIBLE_DEVICES"] for env in seen) == ["GPU-a", "GPU-a", "GPU-b", "GPU-b"]
    assert {env["OMP_NUM_THREADS"] for env in seen} == {"3"}


def wait_for(condition: object, seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)
