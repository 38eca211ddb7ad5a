"""What a run draws: a table that fits the terminal, or as many lines as a person wants to read."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from perikarya.cli.screen import RunScreen
from perikarya.launch.jobs import Event, Job


def console_of(monkeypatch: pytest.MonkeyPatch, *, terminal: bool, height: int = 24) -> io.StringIO:
    out = io.StringIO()
    made = Console(file=out, force_terminal=terminal, width=100, height=height, highlight=False, soft_wrap=True)
    monkeypatch.setattr("perikarya.cli.screen.console", made)
    return out


def jobs_of(n: int) -> list[Job]:
    return [Job(f"net/seed0/fold{i}", {"kind": "task", "model": "net"}) for i in range(n)]


def finish(screen: RunScreen, job: Job) -> None:
    screen.event(Event("started", job.id, message="1, CPU"))
    screen.event(Event("done", job.id))


def drawn(screen: RunScreen, *, height: int = 24) -> list[str]:
    out = io.StringIO()
    Console(file=out, width=100, height=height, highlight=False).print(screen.draw())
    return out.getvalue().splitlines()


def test_without_a_terminal_each_of_a_few_jobs_gets_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    out = console_of(monkeypatch, terminal=False)
    jobs = jobs_of(3)
    with RunScreen() as screen:
        screen.planned(jobs, n_done=2)
        for job in jobs:
            finish(screen, job)
    lines = out.getvalue().splitlines()
    assert lines[:2] == ["2 task(s) are finished already and kept.", "3 task(s) to do."]
    assert [line.split(" done in")[0] for line in lines[2:5]] == [f"{i + 1}/3 {j.id}" for i, j in enumerate(jobs)]
    assert "left" in lines[2]
    assert "left" not in lines[4]
    assert lines[5].startswith("3 of 3 tasks done in 0:00:0")


def test_ten_thousand_jobs_get_as_many_lines_as_a_person_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    out = console_of(monkeypatch, terminal=False)
    jobs = jobs_of(10_000)
    with RunScreen() as screen:
        screen.planned(jobs, n_done=0)
        for job in jobs:
            finish(screen, job)
    lines = out.getvalue().splitlines()
    assert 50 <= len(lines) <= 60
    assert lines[1].startswith("1/10000 ")  # the first tells that it works at all
    assert lines[-2].startswith("10000/10000 ")


def test_after_a_long_silence_a_line_is_told_however_many_jobs_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    out = console_of(monkeypatch, terminal=False)
    monkeypatch.setattr("perikarya.cli.screen._LONGEST_SILENCE_S", 0.0)
    jobs = jobs_of(500)
    with RunScreen() as screen:
        screen.planned(jobs, n_done=0)
        for job in jobs[:5]:
            finish(screen, job)
    assert out.getvalue().count(" done in ") == 5


@pytest.mark.parametrize("terminal", [False, True])
def test_what_failed_and_what_died_is_told_with_its_reason(monkeypatch: pytest.MonkeyPatch, terminal: bool) -> None:
    out = console_of(monkeypatch, terminal=terminal)
    with RunScreen() as screen:
        screen.planned(jobs_of(2), n_done=0)
        screen.event(Event("started", "net/seed0/fold0", message="1, CPU"))
        screen.event(Event("died", "net/seed0/fold0", message="was killed by [SIGKILL]"))
        screen.event(Event("failed", "net/seed0/fold1", message="No [space].\nFix: make some."))
    told = out.getvalue()
    assert "its worker was killed by [SIGKILL]." in told
    assert "No [space].\nFix: make some." in told


def test_of_many_failures_the_first_are_told_and_the_rest_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    out = console_of(monkeypatch, terminal=False)
    jobs = jobs_of(5000)
    with RunScreen() as screen:
        screen.planned(jobs, n_done=0)
        for job in jobs:
            screen.event(Event("failed", job.id, message="needs 'features', which failed"))
    assert out.getvalue().count("which failed") == 20
    assert "4980 more troubles" in out.getvalue()


def test_the_table_names_what_is_done_where_and_how_far(monkeypatch: pytest.MonkeyPatch) -> None:
    console_of(monkeypatch, terminal=True)
    screen = RunScreen()
    screen.planned(jobs_of(8), n_done=0)
    screen.event(Event("started", "net/seed0/fold0", message="1, GPU 0"))
    screen.event(Event("started", "net/seed0/fold1", message="2, GPU 1"))
    screen.event(Event("progress", "net/seed0/fold1", 30, 120))
    screen.event(Event("failed", "net/seed0/fold2", message="no"))
    lines = drawn(screen)
    assert lines[0].split() == ["task", "worker", "time", "left"]
    assert "net/seed0/fold0" in lines[1]
    assert "1, GPU 0" in lines[1]
    assert "25%" in lines[2]
    assert "1 failed" in lines[3]
    assert "1/8" in lines[3]


def test_the_table_is_no_higher_than_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    console_of(monkeypatch, terminal=True, height=12)
    screen = RunScreen()
    screen.planned(jobs_of(64), n_done=0)
    for job in jobs_of(40):
        screen.event(Event("started", job.id, message="1, CPU"))
    lines = drawn(screen)
    assert len(lines) <= 12
    assert "and 32 more" in lines[-2]


def stop_with(error: BaseException, jobs: list[Job]) -> None:
    with RunScreen() as screen:
        screen.planned(jobs, n_done=3)
        finish(screen, jobs[0])
        screen.event(Event("started", jobs[1].id, message="1, CPU"))
        raise error


def test_a_run_that_is_stopped_says_what_is_finished_and_what_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    out = console_of(monkeypatch, terminal=False)
    with pytest.raises(KeyboardInterrupt):
        stop_with(KeyboardInterrupt(), jobs_of(5))
    last = out.getvalue().splitlines()[-1]
    assert last.startswith("4 of 8 tasks are finished, 1 under way")
    assert last.endswith("3 waiting.")


def test_an_error_of_the_run_is_not_told_as_a_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    out = console_of(monkeypatch, terminal=False)
    with pytest.raises(ValueError, match="no"):
        stop_with(ValueError("no"), jobs_of(5))
    assert "under way" not in out.getvalue()
