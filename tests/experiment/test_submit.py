"""What of an experiment goes to a cluster, what comes back to it when it was lost, and what is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from tests.launch.slurm.fake_cluster import FakeCluster, make_fake_cluster
from tests.tiny import make_study, tiny_config

from perikarya.cli import finale
from perikarya.config import ExperimentConfig
from perikarya.errors import DataError, RunError
from perikarya.experiment import submit
from perikarya.experiment.plan import load_run_config, make_plan
from perikarya.experiment.settle import resolve_config
from perikarya.experiment.submit import find_lost, read_launch, submit_experiment, submit_lost
from perikarya.launch.jobs import Job
from perikarya.launch.slurm import JobState, Submission, refuse_live_jobs
from perikarya.runs import RunFolder, TaskKey, lock_run, write_text

STAMP = "2026-01-02 03:04:05,678"


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeCluster:
    return make_fake_cluster(tmp_path / "cluster", monkeypatch)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_study(tmp_path_factory.mktemp("study") / "tiny", cells_per_subject=4).root


@pytest.fixture(scope="module")
def template(study: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = RunFolder(tmp_path_factory.mktemp("template") / "run")
    make_plan(resolve_config(config(study), on_gpu=False), run)
    return run.root


@pytest.fixture
def out(template: Path, tmp_path: Path) -> Path:
    """A run that is planned and of which nothing is done."""
    shutil.copytree(template, tmp_path / "run")
    return tmp_path / "run"


def config(study: Path, **changes: object) -> ExperimentConfig:
    return tiny_config(study, **{"launch": {"engine": "slurm", "slurm": {"cpus": 3}}, **changes})


def submitted(out: Path) -> list[str]:
    files = sorted((out / "slurm").glob("*/*.jobs.jsonl"))
    return [json.loads(line)["id"] for file in files for line in file.read_text().splitlines()]


def test_missing_tasks_are_submitted_after_the_features_they_need(
    cluster: FakeCluster, study: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    write_text(RunFolder(out).task(TaskKey("cnn", 0, 1)) / "result.json", "{}")
    done = submit_experiment(config(study), out)
    cnn, lite = [f"cnn/seed0/fold{k}" for k in (0, 2, 3)], [f"lite/seed0/fold{k}" for k in range(4)]
    assert sorted(submitted(out)) == sorted(["features of lite", *cnn, *lite])
    assert (done.n_jobs, done.n_live) == (8, 0)
    assert len(cluster.queue()) == len(done.job_ids)
    assert cluster.queue()[-1][4].startswith("afterany:")
    assert "perikarya.cli.finale" in done.texts[-1]
    assert "--threads 3" in done.texts[0]
    assert (out / "config.yaml").is_file()


def test_the_same_command_leaves_alone_what_is_in_the_queue(cluster: FakeCluster, study: Path, out: Path) -> None:
    submit_experiment(config(study), out)
    again = submit_experiment(config(study), out)
    assert (again.n_jobs, again.n_live) == (0, 9)


def test_a_run_whose_tasks_are_done_submits_nothing(cluster: FakeCluster, study: Path, out: Path) -> None:
    for model in ("cnn", "lite"):
        for fold in range(4):
            write_text(RunFolder(out).task(TaskKey(model, 0, fold)) / "result.json", "{}")
    assert submit_experiment(config(study), out) == Submission((), (), (), 0, 0)
    assert cluster.queue() == []


def test_a_rehearsal_writes_nothing_and_shows_the_true_paths(cluster: FakeCluster, study: Path, tmp_path: Path) -> None:
    shown = submit_experiment(config(study), tmp_path / "run", dry_run=True)
    assert not (tmp_path / "run").exists()
    assert cluster.queue() == []
    assert all(str(tmp_path / "run") in text for text in shown.texts)
    done = submit_experiment(config(study), tmp_path / "run")
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    submit_experiment(config(study), tmp_path / "run", dry_run=True)
    assert {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()} == before
    assert [p.name for p in shown.scripts] == [p.name for p in done.scripts]


@pytest.mark.parametrize(("gpus", "strategy"), [(0, "head"), (1, "finetune")])
def test_what_is_trained_follows_from_the_gpus_of_the_jobs(
    cluster: FakeCluster, study: Path, tmp_path: Path, gpus: int, strategy: str
) -> None:
    asked = config(study, models=["efficientnet_lite0"], launch={"engine": "slurm", "slurm": {"gpus": gpus}})
    submit_experiment(asked, tmp_path / "run")
    assert load_run_config(RunFolder(tmp_path / "run")).models[0].strategy == strategy


def test_a_run_that_is_refused_leaves_no_folder(cluster: FakeCluster, tmp_path: Path) -> None:
    twins = make_study(tmp_path / "twins", copies=((100, 0),))
    with pytest.raises(DataError, match="problem"):
        submit_experiment(config(twins.root), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_run_that_goes_on_here_is_not_submitted(
    cluster: FakeCluster, study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("perikarya.runs._LOCK_PATIENCE_S", 0.2)
    with lock_run(tmp_path / "run"), pytest.raises(RunError, match="Another process is working on"):
        submit_experiment(config(study), tmp_path / "run")


def test_a_run_whose_jobs_are_in_a_queue_is_not_run_here(cluster: FakeCluster, study: Path, out: Path) -> None:
    run = RunFolder(out)
    refuse_live_jobs(run.root)  # never submitted
    done = submit_experiment(config(study), run.root)
    with pytest.raises(RunError, match=r"still in the queue of Slurm: 10\d") as refused:
        refuse_live_jobs(run.root)
    assert f"scancel {' '.join(done.job_ids)}" in str(refused.value)
    cluster.finish(*done.job_ids)
    refuse_live_jobs(run.root)


def test_where_slurm_cannot_be_asked_a_local_run_is_not_refused(
    cluster: FakeCluster, study: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit_experiment(config(study), out)
    monkeypatch.setenv("PATH", str(out))
    refuse_live_jobs(out)


# --- what was lost


@pytest.fixture
def planned(tmp_path: Path) -> tuple[RunFolder, list[Job]]:
    features = Job("features of lite", {"kind": "embed", "model": "lite", "file": "cache/x.npy"})
    keys = [TaskKey(model, 0, fold) for model in ("cnn", "lite") for fold in range(4)]
    needs = {"cnn": frozenset[str](), "lite": frozenset({features.id})}
    tasks = [Job(str(key), {"kind": "task", **asdict(key)}, needs[key.model]) for key in keys]
    return RunFolder(tmp_path / "run"), [features, *tasks]


def state(kind: str, cause: str = "") -> JobState:
    return JobState(kind, "", None, 1, "7_0", cause)  # type: ignore[arg-type]


def logged(run: RunFolder, fold: int, text: str) -> None:
    write_text(run.task_log(TaskKey("cnn", 0, fold)), text)


@pytest.mark.parametrize("cause", ["signal", "node", "preemption", "time limit"])
def test_what_a_machine_or_the_cluster_broke_off_is_lost(planned: tuple[RunFolder, list[Job]], cause: str) -> None:
    run, jobs = planned
    assert find_lost(run, jobs, {"cnn/seed0/fold0": state("failed", cause)}) == {"cnn/seed0/fold0"}


@pytest.mark.parametrize(
    "found",
    [
        None,
        state("failed", "cancelled"),
        state("failed", "memory"),
        state("running"),
        state("queued"),
        state("requeued", "node"),
        state("unknown"),
        state("failed", "exit code"),  # and no log: the environment is broken
    ],
)
def test_what_a_person_stopped_or_would_fail_again_is_not_lost(
    planned: tuple[RunFolder, list[Job]], found: JobState | None
) -> None:
    run, jobs = planned
    assert find_lost(run, jobs, {"cnn/seed0/fold0": found} if found else {}) == frozenset()


def test_what_failed_with_an_error_is_not_lost_but_what_was_broken_off_after_its_start_is(
    planned: tuple[RunFolder, list[Job]],
) -> None:
    run, jobs = planned
    logged(run, 0, f"{STAMP} ERROR It diverged.\n")
    logged(run, 1, f"{STAMP} ERROR Once.\n{STAMP} INFO started on cn1 by process 2\n")
    states = {f"cnn/seed0/fold{k}": state("failed", "exit code") for k in (0, 1)}
    assert find_lost(run, jobs, states) == {"cnn/seed0/fold1"}


def test_tasks_are_lost_with_the_features_they_waited_for_and_not_without(
    planned: tuple[RunFolder, list[Job]],
) -> None:
    run, jobs = planned
    waited = {f"lite/seed0/fold{k}": state("failed", "dependency") for k in range(4)}
    assert find_lost(run, jobs, {"features of lite": state("failed", "signal"), **waited}) == {
        "features of lite",
        *waited,
    }
    assert find_lost(run, jobs, {"features of lite": state("failed", "memory"), **waited}) == frozenset()


@pytest.fixture
def lost_one(
    cluster: FakeCluster, study: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[RunFolder, FakeCluster]:
    run = RunFolder(out)
    cluster.finish(*submit_experiment(config(study), run.root).job_ids)
    monkeypatch.setattr(submit, "job_states", lambda _: {"cnn/seed0/fold2": state("failed", "signal")})
    return run, cluster


def test_only_what_was_lost_is_submitted_again_as_it_was_before(
    lost_one: tuple[RunFolder, FakeCluster], study: Path
) -> None:
    run, _ = lost_one
    before = len(submitted(run.root))
    again = submit_lost(run, study=study, round_=1)
    assert again is not None
    assert submitted(run.root)[before:] == ["cnn/seed0/fold2"]
    assert "--cpus-per-task=3" in again.texts[0]
    assert "--round 2" in again.texts[-1]
    assert read_launch(run).slurm.cpus == 3


def test_what_is_lost_again_and_again_is_left_to_a_person(lost_one: tuple[RunFolder, FakeCluster], study: Path) -> None:
    run, _ = lost_one
    assert submit_lost(run, study=study, round_=submit.MAX_ROUNDS) is None


def test_the_last_job_submits_what_was_lost_instead_of_a_report(
    lost_one: tuple[RunFolder, FakeCluster], study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, cluster = lost_one
    reports: list[Path] = []
    monkeypatch.setattr("perikarya.cli.running.report_command", lambda root, *a, **k: reports.append(root))
    words: Sequence[Any] = [str(run.root), "--study", str(study)]
    assert finale.main([*words, "--round", "1"]) == 0
    assert reports == []
    assert len(cluster.queue()) == 2
    assert finale.main([*words, "--round", "3"]) == 1  # tasks are missing
    assert reports == [run.root]


def test_the_last_job_reports_where_it_cannot_ask_the_cluster(
    lost_one: tuple[RunFolder, FakeCluster],
    study: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def silent(_: Path) -> dict[str, JobState]:
        raise RunError("There is no 'squeue' on this machine.")

    run, _ = lost_one
    reports: list[Path] = []
    monkeypatch.setattr(submit, "job_states", silent)
    monkeypatch.setattr("perikarya.cli.running.report_command", lambda root, *a, **k: reports.append(root))
    assert finale.main([str(run.root), "--study", str(study), "--round", "1"]) == 1
    assert reports == [run.root]
    assert "not submitted again. There is no 'squeue'" in capsys.readouterr().err
