"""Jobs are shared out over arrays: each once, in order of need, never more at once than asked."""

from __future__ import annotations

import pytest

from perikarya.config import LaunchConfig
from perikarya.errors import RunError
from perikarya.launch.jobs import Job
from perikarya.launch.slurm.arrays import Array, arrange


def launch(jobs: int | None = None, tasks_per_job: int = 1) -> LaunchConfig:
    return LaunchConfig.model_validate({"engine": "slurm", "jobs": jobs, "slurm": {"tasks_per_job": tasks_per_job}})


def grid(n_models: int, n_tasks: int) -> list[Job]:
    features = [Job(f"f{m}", {}) for m in range(n_models)]
    return features + [Job(f"t{m}-{i}", {}, frozenset({f"f{m}"})) for m in range(n_models) for i in range(n_tasks)]


def most_at_once(arrays: list[Array], stage: str) -> int:
    """How many elements of a stage may run at once: of each chain of arrays its widest."""
    members = {a.label: a for a in arrays if a.label.startswith(stage)}
    widths: dict[str, int] = {}
    for label, array in members.items():
        first = label
        while (before := [x for x in members[first].follows if x in members]) != []:
            first = before[0]
        widths[first] = max(widths.get(first, 0), array.throttle or array.n_elements)
    return sum(widths.values())


@pytest.mark.parametrize(("n_jobs", "at_once", "per_element"), [(1, 1, 1), (37, None, 4), (37, 3, 4), (100, 2, 7)])
def test_every_job_is_in_one_array_whatever_the_limits(n_jobs: int, at_once: int | None, per_element: int) -> None:
    jobs = [*grid(3, n_jobs), Job("free", {})]
    arrays = arrange(jobs, launch(at_once, per_element), max_elements=5)
    assert sorted(job.id for a in arrays for job in a.jobs) == sorted(job.id for job in jobs)
    assert all(a.n_elements <= 5 for a in arrays)
    assert len({a.label for a in arrays}) == len(arrays)


def test_one_array_is_enough_where_it_may_hold_all() -> None:
    (array,) = arrange([Job(str(i), {}) for i in range(1001)], launch(), max_elements=1001)
    assert (array.n_elements, array.throttle, array.follows) == (1001, None, ())


def test_arrays_of_a_stage_share_what_may_run_at_once_in_proportion() -> None:
    jobs = [
        *[Job(f"a{i}", {}, frozenset({"x"})) for i in range(30)],
        *[Job(f"b{i}", {}, frozenset({"y"})) for i in range(10)],
    ]
    arrays = arrange(jobs, launch(8), max_elements=1001)
    assert [a.throttle for a in arrays] == [6, 2]


@pytest.mark.parametrize("at_once", [1, 2, 3, 5, 8])
def test_no_more_run_at_once_than_asked_and_rows_are_equally_long(at_once: int) -> None:
    arrays = arrange(grid(4, 30), launch(at_once), max_elements=11)
    assert most_at_once(arrays, "stage1") <= at_once
    assert most_at_once(arrays, "stage2") == at_once


def test_rows_of_arrays_take_equally_long_even_where_models_do_not_share_out() -> None:
    stage2 = [a for a in arrange(grid(3, 10), launch(2), max_elements=1001) if a.label.startswith("stage2")]
    assert [(a.n_elements, a.throttle) for a in stage2] == [(10, 1), (5, 1), (5, 1), (10, 1)]
    assert [a.follows for a in stage2] == [("stage1",), ("stage2-1",), ("stage1",), ("stage2-3",)]


def test_a_model_waits_for_its_own_features_only() -> None:
    arrays = arrange(grid(3, 2), launch(), max_elements=1001)
    assert [a.label for a in arrays] == ["stage1", "stage2-1", "stage2-2", "stage2-3"]
    assert [a.needs for a in arrays[1:]] == [frozenset({f"f{m}"}) for m in range(3)]
    assert all(a.follows == () for a in arrays)


def test_jobs_without_needs_do_not_hold_up_those_that_others_wait_for() -> None:
    arrays = arrange([Job("free", {}), *grid(1, 2)], launch(), max_elements=1001)
    assert [[job.id for job in a.jobs] for a in arrays] == [["f0"], ["free"], ["t0-0", "t0-1"]]
    assert arrays[1].needs == frozenset()


def test_needs_that_differ_from_job_to_job_make_one_array_that_waits_for_all() -> None:
    arrays = arrange(grid(60, 1), launch(), max_elements=1001)
    assert [len(a.jobs) for a in arrays] == [60, 60]
    assert arrays[1].needs == frozenset(f"f{m}" for m in range(60))


def test_needs_of_needs_come_first() -> None:
    jobs = [Job("c", {}, frozenset("b")), Job("b", {}, frozenset("a")), Job("a", {})]
    assert [a.jobs[0].id for a in arrange(jobs, launch(), max_elements=9)] == ["a", "b", "c"]


def test_a_circle_of_needs_is_refused() -> None:
    with pytest.raises(RunError, match="circle: a, b"):
        arrange([Job("a", {}, frozenset("b")), Job("b", {}, frozenset("a"))], launch(), max_elements=9)


def test_nothing_to_do_makes_no_array() -> None:
    assert arrange([], launch(3), max_elements=9) == []
