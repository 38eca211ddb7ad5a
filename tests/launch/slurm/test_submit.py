"""Whatever happens between two calls of sbatch, the same command ends with every job in the queue once."""

from __future__ import annotations

import fcntl
import subprocess
import sys
import textwrap
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from tests.launch.slurm.fake_cluster import FakeCluster, make_fake_cluster

from perikarya.config import LaunchConfig
from perikarya.errors import RunError
from perikarya.launch.jobs import Crew, Job
from perikarya.launch.slurm import Submission, client, job_states, live_jobs, submit_jobs
from perikarya.launch.slurm.record import job_ids, read_submissions

FINALE = ("-m", "perikarya", "report", "RUN")
GRID = [Job(f"f{m}", {}) for m in range(2)] + [
    Job(f"t{m}-{i}", {"n": i}, frozenset({f"f{m}"})) for m in range(2) for i in range(4)
]


def submit(folder: Path, work: list[Job] = GRID, *, finale: tuple[str, ...] = FINALE, **launch: Any) -> Submission:
    settings = LaunchConfig.model_validate({"engine": "slurm", **launch})
    crew = Crew("some.module", (str(folder),))
    return submit_jobs(folder, name="my grid", jobs=work, crew=crew, finale=finale, launch=settings)


def submit_and_be_killed(folder: Path) -> None:
    """Submit in a process of its own, which the fake sbatch kills."""
    code = f"""
        from pathlib import Path
        from tests.launch.slurm.test_submit import submit
        submit(Path({str(folder)!r}))
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, check=False)
    assert done.returncode == -9, done.stderr


def submitted(folder: Path, cluster: FakeCluster) -> Counter[str]:
    """Count how often each job is in the queue, whoever put it there."""
    jobs = {
        script.job_name: job_ids(folder, one.number, script)
        for one in read_submissions(folder)
        for script in one.scripts
    }
    return Counter(job for cells in cluster.queue() for job in jobs.get(cells[1], [f"unknown {cells[1]}"]))


def finales(cluster: FakeCluster) -> list[list[str]]:
    return [cells for cells in cluster.queue() if "-finale-" in cells[1]]


def test_jobs_wait_for_what_they_need_and_the_finale_for_all(tmp_path: Path, cluster: FakeCluster) -> None:
    done = submit(tmp_path / "run")
    assert done.job_ids == ("101", "102", "103", "104")
    assert (done.n_jobs, done.n_live) == (10, 0)
    assert [cells[2:] for cells in cluster.queue()] == [
        ["1", "PENDING", "none"],
        ["3", "PENDING", "afterok:101_0"],
        ["3", "PENDING", "afterok:101_1"],
        ["none", "PENDING", "afterany:101:102:103"],
    ]
    assert [path.read_text() for path in done.scripts] == list(done.texts)


def test_with_a_limit_on_how_many_run_arrays_also_follow_one_another(tmp_path: Path, cluster: FakeCluster) -> None:
    submit(tmp_path / "run", jobs=1)
    dependencies = [cells[4] for cells in cluster.queue()]
    assert dependencies[1:3] == ["afterok:101_0,afterany:101", "afterok:101_1,afterany:102"]


def test_elements_that_do_several_jobs_are_what_others_wait_for(tmp_path: Path, cluster: FakeCluster) -> None:
    submit(tmp_path / "run", slurm={"tasks_per_job": 2})
    assert [cells[4] for cells in cluster.queue()][1:3] == ["afterok:101_0", "afterok:101_0"]


def test_arrays_are_split_where_the_cluster_says(tmp_path: Path, cluster: FakeCluster) -> None:
    cluster.tell("max-array", 3)
    submit(tmp_path / "run", [Job(str(i), {}) for i in range(10)])
    assert [cells[2] for cells in cluster.queue()] == ["2", "2", "2", "0", "none"]
    assert submitted(tmp_path / "run", cluster) == Counter(str(i) for i in range(10))


def test_jobs_in_the_queue_are_not_submitted_again(tmp_path: Path, cluster: FakeCluster) -> None:
    first = submit(tmp_path / "run")
    again = submit(tmp_path / "run")
    assert (again.n_jobs, again.n_live, again.scripts) == (0, 10, ())
    assert [cells[0] for cells in cluster.queue()] == list(first.job_ids)
    assert len(live_jobs(tmp_path / "run")) == 11


def test_a_script_that_somebody_submitted_by_hand_counts_as_in_the_queue(tmp_path: Path, cluster: FakeCluster) -> None:
    done = submit(tmp_path / "run")
    cluster.finish("102")
    by_hand = client.call(["sbatch", str(done.scripts[1])]).strip()
    again = submit(tmp_path / "run")
    assert (again.n_jobs, again.n_live) == (0, 10)
    assert job_states(tmp_path / "run")["t0-2"].cluster_id == f"{by_hand}_2"


def test_what_has_ended_is_submitted_anew_and_one_finale_waits_for_old_and_new(
    tmp_path: Path, cluster: FakeCluster
) -> None:
    submit(tmp_path / "run")
    cluster.finish("102")
    again = submit(tmp_path / "run", [job for job in GRID if job.id != "t0-1"])
    assert (again.n_jobs, again.n_live) == (3, 6)
    assert [cells[0] for cells in cluster.queue()] == ["101", "103", "105", "106"]
    assert cluster.queue()[2][4] == "afterok:101_0"
    assert [cells[4] for cells in finales(cluster)] == ["afterany:101:103:105"]


def test_a_finale_that_was_lost_is_submitted_alone(tmp_path: Path, cluster: FakeCluster) -> None:
    submit(tmp_path / "run")
    cluster.finish("104")
    again = submit(tmp_path / "run")
    assert (again.n_jobs, len(again.scripts)) == (0, 1)
    assert len(finales(cluster)) == 1


def test_where_few_may_run_what_is_new_waits_for_what_is_there(tmp_path: Path, cluster: FakeCluster) -> None:
    submit(tmp_path / "run", [Job("a", {})], jobs=1)
    submit(tmp_path / "run", [Job("a", {}), Job("b", {})], jobs=1)
    assert cluster.queue()[1][4] == "afterany:101"


@pytest.mark.parametrize("switch", ["kill-before", "kill-after"])
@pytest.mark.parametrize("call", [1, 2, 3, 4])
def test_a_command_killed_at_any_sbatch_loses_and_doubles_nothing(
    tmp_path: Path, cluster: FakeCluster, switch: str, call: int
) -> None:
    cluster.tell(switch, call)
    submit_and_be_killed(tmp_path / "run")
    submit(tmp_path / "run")
    assert submitted(tmp_path / "run", cluster) == Counter(job.id for job in GRID)
    (finale,) = finales(cluster)
    arrays = {cells[0] for cells in cluster.queue()} - {finale[0]}
    assert set(finale[4].removeprefix("afterany:").split(":")) == arrays
    names = [cells[1] for cells in cluster.queue()]
    assert len(set(names)) == len(names)


def test_what_ended_before_anybody_asked_is_found_in_the_accounts(tmp_path: Path, cluster: FakeCluster) -> None:
    cluster.tell("kill-after", 1)
    submit_and_be_killed(tmp_path / "run")
    (lost,) = cluster.queue()
    cluster.finish(lost[0])
    cluster.tell("accounts", f"101_[0-1]|{lost[1]}\n")
    submit(tmp_path / "run")
    assert read_submissions(tmp_path / "run")[0].scripts[0].cluster_id == "101"


def test_a_second_command_waits_for_an_sbatch_whose_caller_was_killed(tmp_path: Path, cluster: FakeCluster) -> None:
    slow = cluster.programs / "sbatch"
    text = slow.read_text()
    text = text.replace("kill -9 $PPID; exit 1; }", "kill -9 $PPID; sleep 1; orphan=yes; trap '' PIPE; }", 1)
    slow.write_text(text + 'if [ "$orphan" ]; then touch woken; fi\n')
    assert slow.read_text().count("sleep") == 1
    cluster.tell("kill-before", 1)
    submit_and_be_killed(tmp_path / "run")
    submit(tmp_path / "run")
    while not (cluster.state / "woken").exists():
        time.sleep(0.05)
    assert submitted(tmp_path / "run", cluster) == Counter(job.id for job in GRID)


def test_two_commands_at_once_are_one_too_many(
    tmp_path: Path, cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("perikarya.runs._LOCK_PATIENCE_S", 0.0)
    (tmp_path / "run" / "slurm").mkdir(parents=True)
    with (tmp_path / "run" / "slurm" / ".lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(RunError, match="Another process"):
            submit(tmp_path / "run")


def test_a_refusal_of_the_first_script_leaves_nothing_behind(tmp_path: Path, cluster: FakeCluster) -> None:
    cluster.tell("refuse-at", 1)
    cluster.tell("refusal", "sbatch: error: invalid partition specified: nosuch\n")
    with pytest.raises(RunError, match=r"(?s)Nothing was submitted.*launch\.slurm\.partition.*sinfo"):
        submit(tmp_path / "run")
    assert [path.name for path in (tmp_path / "run").rglob("*")] == ["slurm", ".lock"]


def test_a_refusal_of_a_later_one_says_what_runs_and_the_same_command_ends_it(
    tmp_path: Path, cluster: FakeCluster
) -> None:
    cluster.tell("refuse-at", 3)
    cluster.tell(
        "refusal", "sbatch: error: AssocMaxSubmitJobLimit\nsbatch: error: Batch job submission failed: Job violates ..."
    )
    with pytest.raises(RunError, match=r"(?s)6 of 10 jobs were submitted.*tasks_per_job"):
        submit(tmp_path / "run")
    submit(tmp_path / "run")
    assert submitted(tmp_path / "run", cluster) == Counter(job.id for job in GRID)
    assert len(finales(cluster)) == 1


def test_a_controller_that_does_not_answer_is_asked_again(
    tmp_path: Path, cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "_PAUSES_S", (0.0,))
    cluster.tell("silent")
    assert submit(tmp_path / "run").n_jobs == 10


def test_more_jobs_than_a_cluster_can_hold_are_refused_before_anything_is_written(
    tmp_path: Path, cluster: FakeCluster
) -> None:
    with pytest.raises(RunError, match=r"(?s)10000 jobs are more than.*tasks_per_job"):
        submit(tmp_path / "run", [Job(str(i), {}) for i in range(10_000)])
    assert cluster.queue() == []
    submit(tmp_path / "run", [Job(str(i), {}) for i in range(10_000)], slurm={"tasks_per_job": 2})


def test_a_time_that_no_partition_allows_is_refused_for_slurm_would_take_it(
    tmp_path: Path, cluster: FakeCluster
) -> None:
    with pytest.raises(RunError, match=r"partition short lets a job last 30:00 at most"):
        submit(tmp_path / "run", slurm={"partition": "short", "time": "0:31:00"})
    submit(tmp_path / "run", slurm={"partition": "short", "time": "30"})


def test_a_rehearsal_shows_the_scripts_and_touches_nothing(tmp_path: Path, cluster: FakeCluster) -> None:
    launch = LaunchConfig.model_validate({"engine": "slurm"})
    crew = Crew("some.module", ())
    done = submit_jobs(tmp_path / "run", name="g", jobs=GRID, crew=crew, finale=FINALE, launch=launch, dry_run=True)
    assert (done.n_jobs, len(done.texts), done.job_ids) == (10, 4, ())
    assert not (tmp_path / "run").exists()
    assert cluster.queue() == []


def test_a_rehearsal_needs_no_slurm_but_a_submission_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_fake_cluster(tmp_path / "none", monkeypatch, without=("sbatch", "squeue", "sacct", "scontrol", "sinfo"))
    monkeypatch.setenv("PATH", str(tmp_path / "none" / "programs"))
    launch = LaunchConfig.model_validate({"engine": "slurm"})
    crew = Crew("some.module", ())
    assert submit_jobs(tmp_path, name="g", jobs=GRID, crew=crew, finale=(), launch=launch, dry_run=True).n_jobs == 10
    with pytest.raises(RunError, match="no 'sbatch' on this machine"):
        submit(tmp_path)


def test_settings_of_the_shell_do_not_override_the_scripts(
    tmp_path: Path, cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SBATCH_PARTITION", "elsewhere")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "5")
    monkeypatch.setenv("SLURM_CONF", "/etc/slurm/slurm.conf")
    sbatch = cluster.programs / "sbatch"
    sbatch.write_text(sbatch.read_text().replace('cd "$FAKE_SLURM"', 'env > "$FAKE_SLURM/env"; cd "$FAKE_SLURM"', 1))
    submit(tmp_path / "run")
    seen = (cluster.state / "env").read_text()
    assert "SBATCH_PARTITION" not in seen
    assert "SLURM_ARRAY_TASK_ID" not in seen
    assert "SLURM_CONF=/etc/slurm/slurm.conf" in seen
