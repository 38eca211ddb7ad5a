"""Workers are supervised: whatever dies, every job ends, and no worker outlives its supervisor."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import psutil
import pytest
from tests.launch.rehearsal import ROOT, rehearsal_crew

from perikarya.launch.jobs import Event, Job
from perikarya.launch.local import MAX_DEATHS, run_jobs


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


def test_workers_stop_when_their_supervisor_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "supervise.py"
    script.write_text(
        textwrap.dedent(f"""
        from perikarya.launch.jobs import Job
        from perikarya.launch.local import run_jobs
        from tests.launch.rehearsal import rehearsal_crew
        from pathlib import Path
        run_jobs([Job("s", {{"do": "work", "sleep_s": 60}})], crew=rehearsal_crew(Path({str(tmp_path)!r})), n_workers=1,
                 listener=lambda e: None, threads=1)
        """)
    )
    supervisor = subprocess.Popen([sys.executable, str(script)])
    wait_for(lambda: list(tmp_path.glob("worker-*")))
    pid = int(next(tmp_path.glob("worker-*")).name.removeprefix("worker-"))
    time.sleep(0.5)
    os.kill(supervisor.pid, signal.SIGKILL)
    supervisor.wait()
    wait_for(lambda: not psutil.pid_exists(pid))


def wait_for(condition: object, seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)
