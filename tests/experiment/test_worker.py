"""What a worker does around a task: the right run, its claim on it, and what others see of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.tiny import make_study, tiny_config

from perikarya.errors import InterruptedWorkError, RunError
from perikarya.experiment import progress as progress_module
from perikarya.experiment.claim import CLAIM_FILE, Claim
from perikarya.experiment.jobs import missing_jobs
from perikarya.experiment.plan import Plan, make_plan
from perikarya.experiment.progress import PROGRESS_FILE, read_progress
from perikarya.experiment.settle import resolve_config
from perikarya.experiment.worker import TaskWorker, open_worker, training_crew
from perikarya.launch.worker import attempt
from perikarya.runs import RunFolder


def plan_of(root: Path, **launch: object) -> Plan:
    study = make_study(root / "study", cells_per_subject=4).root
    train = {"epochs": 2, "batch_size": 4, "tta_views": 1}
    config = resolve_config(tiny_config(study, train=train, launch=launch), on_gpu=False)
    (root / "run").mkdir()
    return make_plan(config, RunFolder(root / "run"))


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    return plan_of(tmp_path)


def worker_for(plan: Plan) -> TaskWorker:
    return open_worker(training_crew(plan, threads=1).arguments)


def job_of(plan: Plan, name: str) -> dict[str, Any]:
    return next({"id": job.id, **job.payload} for job in missing_jobs(plan) if job.id == name)


def silent(done: int, total: int) -> None:
    pass


def test_a_worker_of_another_configuration_does_nothing(plan: Plan) -> None:
    worker = TaskWorker(plan.run, study=str(plan.opened.root), config_hash="0" * 16, threads=1)
    with pytest.raises(RunError, match="was started for 0000000000000000"):
        worker.do(job_of(plan, "cnn/seed0/fold0"), silent)
    assert not (plan.run.root / "tasks").exists()


def test_a_worker_of_a_study_that_has_changed_does_nothing(plan: Plan, tmp_path: Path) -> None:
    other = make_study(tmp_path / "other", cells_per_subject=4, seed=1).root
    worker = TaskWorker(plan.run, study=str(other), config_hash=plan.config.content_hash(), threads=1)
    with pytest.raises(RunError, match="has changed since"):
        worker.do(job_of(plan, "cnn/seed0/fold0"), silent)


def test_a_task_leaves_neither_claim_nor_progress_when_it_is_done(plan: Plan) -> None:
    worker, job, seen = worker_for(plan), job_of(plan, "cnn/seed0/fold0"), set[str]()
    folder = worker.log_of(job).parent

    def look(done: int, total: int) -> None:
        seen.update(path.name for path in folder.iterdir())

    assert attempt(worker, job, look) is None
    assert CLAIM_FILE in seen
    assert worker.is_done(job)
    assert not {CLAIM_FILE, PROGRESS_FILE, "task.log"} & {path.name for path in folder.iterdir()}


def test_a_task_that_is_stopped_shows_how_far_it_came_and_nobodys_claim(
    plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress_module, "_WRITE_EVERY_S", 0.0)
    monkeypatch.setattr(progress_module.ProgressFile.__init__, "__kwdefaults__", {"every_s": 0.0})
    worker, job = worker_for(plan), job_of(plan, "cnn/seed0/fold0")

    def stop(done: int, total: int) -> None:
        if done >= 2:
            raise InterruptedWorkError("asked to stop")

    with pytest.raises(InterruptedWorkError):
        worker.do(job, stop)
    folder = worker.log_of(job).parent
    assert not (folder / CLAIM_FILE).exists()
    told = read_progress(folder / PROGRESS_FILE)
    assert told is not None
    assert told.done == 2


@pytest.mark.parametrize("name", ["cnn/seed0/fold0", "features of lite"])
def test_work_that_a_newer_worker_takes_is_left_to_it(plan: Plan, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("perikarya.experiment.worker._LOOK_EVERY_S", 0.0)
    worker, job, newer = worker_for(plan), job_of(plan, name), list[Claim]()

    def take_over(done: int, total: int) -> None:
        if not newer:
            claim = next(path for path in Path(plan.run.root.parent).rglob("*claim.json"))
            newer.append(Claim.take(claim.parent, is_done=lambda: False, name=claim.name))

    if name.startswith("features"):  # several chunks, so that there is a next look
        monkeypatch.setattr("perikarya.models.embed.CHUNK", 8)
    with pytest.raises(InterruptedWorkError, match="a newer worker"):
        worker.do(job, take_over)
    assert not worker.is_done(job)
    newer[0].check()


def test_a_task_taken_over_after_its_last_step_writes_no_final_file(
    plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("perikarya.experiment.worker._LOOK_EVERY_S", 3600.0)
    worker, job = worker_for(plan), job_of(plan, "cnn/seed0/fold0")
    folder = worker.log_of(job).parent

    def take_over(done: int, total: int) -> None:
        if done == total:
            Claim.take(folder, is_done=lambda: False)

    with pytest.raises(InterruptedWorkError, match="a newer worker"):
        worker.do(job, take_over)
    assert not list(folder.glob("*.parquet"))
    assert not list(folder.glob("*.safetensors"))


def test_features_are_done_when_they_lie_where_they_are_looked_for(plan: Plan) -> None:
    worker, job = worker_for(plan), job_of(plan, "features of lite")
    assert not worker.is_done(job)
    worker.do(job, silent)
    assert worker.is_done(job)
    assert not list((plan.opened.root / "cache").glob("*claim*"))
    assert "features of lite" not in [j.id for j in missing_jobs(plan)]


def test_a_task_that_trains_its_network_is_given_to_several_processes_where_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_of(tmp_path, processes_per_task=3)
    asked: list[tuple[str, int]] = []

    def together(run: object, key: object, *, n_processes: int, may_write: Any, **_: object) -> None:
        may_write()
        asked.append((str(key), n_processes))

    monkeypatch.setattr("perikarya.experiment.distributed.run_task_distributed", together)
    worker = worker_for(plan)
    worker.do(job_of(plan, "cnn/seed0/fold1"), silent)
    assert asked == [("cnn/seed0/fold1", 3)]
    worker.do(job_of(plan, "features of lite"), silent)
    worker.do(job_of(plan, "lite/seed0/fold1"), silent)
    assert asked == [("cnn/seed0/fold1", 3)]  # a head is fitted by one
