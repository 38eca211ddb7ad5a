"""How long the rest takes is judged by what has ended, honestly: nothing known, nothing said."""

from __future__ import annotations

import pytest

from perikarya.cli.pace import Pace, as_clock, in_words
from perikarya.launch.jobs import Event, Job


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


class Run:
    """A run on a clock that is set by hand."""

    def __init__(self, **n_jobs: int) -> None:
        jobs = [Job(f"{m}{i}", {"kind": "task", "model": m}) for m, n in n_jobs.items() for i in range(n)]
        self.clock = Clock()
        self.pace = Pace(jobs, clock=self.clock)

    def start(self, *ids: str) -> None:
        for job_id in ids:
            self.pace.note(Event("started", job_id, message="1, CPU"))

    def end(self, *ids: str) -> None:
        for job_id in ids:
            self.pace.note(Event("done", job_id))

    def wait(self, seconds: float) -> None:
        self.clock.now_s += seconds


def test_while_nothing_has_ended_and_nothing_tells_the_rest_is_not_known() -> None:
    run = Run(a=4)
    run.start("a0")
    run.wait(5)
    assert run.pace.left() is None


def test_the_rest_is_what_remains_shared_by_those_who_work() -> None:
    run = Run(a=10)
    run.start("a0", "a1")
    run.wait(20)
    run.end("a0", "a1")
    run.start("a2", "a3")
    assert run.pace.left() == pytest.approx(8 * 20 / 2)
    run.wait(5)
    assert run.pace.left() == pytest.approx((6 * 20 + 2 * 15) / 2)


def test_each_model_is_judged_by_its_own() -> None:
    run = Run(quick=3, slow=3)
    run.start("quick0")
    run.wait(2)
    run.end("quick0")
    run.start("slow0")
    run.wait(100)
    run.end("slow0")
    assert run.pace.left() == pytest.approx(2 * 2 + 2 * 100)


def test_a_model_of_which_none_has_ended_is_judged_by_the_progress_of_one() -> None:
    run = Run(a=2)
    run.start("a0")
    run.wait(10)  # the worker loads its libraries
    run.pace.note(Event("progress", "a0", 0, 100))
    run.wait(10)
    run.pace.note(Event("progress", "a0", 25, 100))
    assert run.pace.left_of(run.pace.running["a0"]) == pytest.approx(30)
    assert run.pace.left() == pytest.approx(30 + 50)


def test_a_job_that_has_told_nothing_yet_is_judged_by_another_of_its_model() -> None:
    run = Run(a=2)
    run.start("a0")
    run.pace.note(Event("progress", "a0", 0, 100))
    run.wait(10)
    run.pace.note(Event("progress", "a0", 50, 100))
    run.start("a1")
    assert run.pace.left_of(run.pace.running["a1"]) is None
    assert run.pace.left() == pytest.approx(20)


def test_what_was_done_in_an_earlier_attempt_does_not_count_as_speed() -> None:
    run = Run(a=1)
    run.start("a0")
    run.pace.note(Event("progress", "a0", 50, 100))
    run.wait(10)
    run.pace.note(Event("progress", "a0", 60, 100))
    assert run.pace.left() == pytest.approx(40)


def test_the_last_long_job_is_not_divided_among_idle_workers() -> None:
    run = Run(a=4)
    run.start("a0", "a1", "a2")
    run.wait(30)
    run.end("a0", "a1", "a2")
    run.start("a3")
    assert run.pace.left() == pytest.approx(30)


def test_a_job_that_takes_longer_than_the_others_is_judged_by_its_progress() -> None:
    run = Run(a=2)
    run.start("a0")
    run.wait(10)
    run.end("a0")
    run.start("a1")
    run.pace.note(Event("progress", "a1", 0, 4))
    run.wait(30)
    run.pace.note(Event("progress", "a1", 3, 4))
    assert run.pace.left() == pytest.approx(10)


def test_a_job_whose_worker_died_waits_again_and_fewer_workers_are_expected() -> None:
    run = Run(a=6)
    run.start("a0", "a1")
    run.wait(10)
    run.end("a0")
    run.pace.note(Event("died", "a1", message="was killed"))
    run.start("a1")
    assert run.pace.n_waiting == 4
    assert run.pace.left() == pytest.approx(50)


def test_jobs_that_fail_without_a_start_are_counted_once_and_not_waited_for() -> None:
    run = Run(a=3)
    run.start("a0")
    run.wait(10)
    for job_id in ("a0", "a1", "a2"):
        run.pace.note(Event("failed", job_id, message="no"))
    assert (run.pace.n_failed, run.pace.n_waiting, run.pace.n_ended) == (3, 0, 3)
    assert run.pace.left() == 0


def test_an_estimate_is_said_no_finer_than_it_is() -> None:
    told = [in_words(s) for s in (0.2, 31, 59, 61, 3000, 5399, 6000, 100_000, 300_000)]
    assert told == ["10 s", "40 s", "60 s", "1 min", "50 min", "90 min", "2 h", "28 h", "3 days"]


def test_a_time_is_written_as_on_a_clock() -> None:
    assert [as_clock(s) for s in (None, 0, 59.6, 3725, 360_000)] == ["-", "0:00:00", "0:01:00", "1:02:05", "100:00:00"]
