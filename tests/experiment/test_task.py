"""A finished task is six files at most; what served it on the way is gone, whenever it was killed."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
import torch
from tests.models.reduced import reduced
from tests.tiny import make_study

from perikarya.config import ExperimentConfig
from perikarya.errors import InterruptedWorkError, RunError
from perikarya.evaluate.outputs import has_views, load_predictions, load_result
from perikarya.experiment.plan import Plan, make_plan
from perikarya.experiment.settle import resolve_config
from perikarya.experiment.task import run_embedding, run_task
from perikarya.models.zoo import NETWORKS
from perikarya.runs import RunFolder, TaskKey, logging_to

log = logging.getLogger("perikarya.a_task")

SIX_FILES = {
    "result.json",
    "model.safetensors",
    "history.csv",
    "predictions.parquet",
    "external.parquet",
    "validation.parquet",
}


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_study(tmp_path_factory.mktemp("study") / "tiny").root


def planned(study: Path, out: Path, **model: object) -> tuple[Plan, TaskKey]:
    content = {
        "name": "one",
        "study": str(study),
        "cv": {"n_folds": 4, "folds": [0]},
        "models": [{"name": "net", "arch": "custom_cnn", "input_px": 32, "weights": "none", **model}],
        "train": {"epochs": 2, "batch_size": 16, "tta_views": 2, "head_epochs": 1},
    }
    plan = make_plan(resolve_config(ExperimentConfig.model_validate(content), on_gpu=False), RunFolder(out))
    return plan, plan.tasks[0]


def silent(done: int, total: int) -> None:
    """Progress nobody hears."""


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def train_as_a_worker_does(plan: Plan, key: TaskKey) -> None:
    """Train with the log open, as in a worker process; the handler outlives the task."""
    with logging_to(plan.run.task_log(key)):
        run_task(plan, key, silent)
        log.info("a last word after the end")


@pytest.mark.parametrize("strategy", ["head", "finetune", "head-then-finetune", "lora"])
def test_a_finished_task_is_six_files_whatever_its_strategy(
    strategy: str, study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if strategy == "lora":
        pytest.importorskip("peft", reason="the extra 'lora' is not installed")
    arch = "vit_base_224"
    monkeypatch.setitem(NETWORKS._entries, arch, reduced(NETWORKS.get(arch)))
    torch.set_num_threads(1)
    plan, key = planned(study, tmp_path / "run", arch=arch, strategy=strategy, input_px=None)
    if strategy == "head":
        with logging_to(plan.run.features_log("net")):
            run_embedding(plan, "net", silent)
        assert not plan.run.features_log("net").exists()
    train_as_a_worker_does(plan, key)
    assert names_in(plan.run.task(key)) == SIX_FILES
    with_views = {
        which
        for which in ("test", "external", "validation")
        if load_predictions(plan.run, [key], plan.opened.study.class_names, which=which)[key].tta_nk is not None
    }
    assert has_views(plan.run, key) == (strategy != "head")
    assert with_views == (set() if strategy == "head" else {"test", "external"}), "a head sees one view"


def test_the_result_keeps_the_end_of_the_log(study: Path, tmp_path: Path) -> None:
    plan, key = planned(study, tmp_path / "run")
    plan.run.task(key).mkdir(parents=True)
    plan.run.task_log(key).write_bytes(b"".join(b"earlier line %d \xff\n" % i for i in range(300)))
    train_as_a_worker_does(plan, key)
    kept = load_result(plan.run, key)["log"]
    assert len(kept) == 200
    assert kept[0].startswith("earlier line 1"), "the oldest lines went"
    assert "INFO epoch 1:" in kept[-1]


def test_a_task_that_no_worker_keeps_a_log_of_has_none(study: Path, tmp_path: Path) -> None:
    plan, key = planned(study, tmp_path / "run")
    run_task(plan, key, silent)
    assert load_result(plan.run, key)["log"] == []


def test_an_interrupted_task_keeps_its_state_and_log_and_goes_on(study: Path, tmp_path: Path) -> None:
    plan, key = planned(study, tmp_path / "run")
    folder = plan.run.task(key)

    def stop_after_an_epoch(done: int, total: int) -> None:
        if (folder / "state.pt").exists():
            raise InterruptedWorkError("enough for today")

    with logging_to(plan.run.task_log(key)):
        log.info("the first attempt")
        with pytest.raises(InterruptedWorkError):
            run_task(plan, key, stop_after_an_epoch)
    assert names_in(folder) == {"state.pt", "task.log"}
    (folder / ".state.pt.k1ll3d.part").write_bytes(b"half a state")
    (folder / "progress.json").write_text("{}")
    (folder / "claim.json").write_text("{}")
    train_as_a_worker_does(plan, key)
    assert names_in(folder) == SIX_FILES
    assert any("the first attempt" in line for line in load_result(plan.run, key)["log"])


def test_files_of_a_killed_writer_are_gone_before_work_starts_again(study: Path, tmp_path: Path) -> None:
    plan, key = planned(study, tmp_path / "run")
    part = plan.run.task(key) / ".state.pt.k1ll3d.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(b"half a state")

    def stop_at_once(done: int, total: int) -> None:
        raise InterruptedWorkError("not now")

    with pytest.raises(InterruptedWorkError):
        run_task(plan, key, stop_at_once)
    assert not part.exists()


@pytest.mark.parametrize("allowed", [0, 1])
def test_a_worker_that_lost_its_task_writes_no_result(allowed: int, study: Path, tmp_path: Path) -> None:
    plan, key = planned(study, tmp_path / "run")
    asked = 0

    def may_write() -> None:
        nonlocal asked
        asked += 1
        if asked > allowed:
            raise RunError("another worker has taken over")

    with pytest.raises(RunError, match="taken over"):
        run_task(plan, key, silent, may_write=may_write)
    written = names_in(plan.run.task(key)) - {"state.pt"}
    assert written == (SIX_FILES - {"result.json"} if allowed else set())
    run_task(plan, key, silent)
    assert names_in(plan.run.task(key)) == SIX_FILES


def test_what_a_kill_after_the_result_left_goes_with_the_next_call(study: Path, tmp_path: Path) -> None:
    plan, key = planned(study, tmp_path / "run")
    folder = plan.run.task(key)
    folder.mkdir(parents=True)
    (folder / "result.json").write_text(json.dumps({"whole": True}))
    for name in ("state.pt", "progress.json", "claim.json", "task.log", ".result.json.k1ll3d.part"):
        (folder / name).write_text("left")
    run_task(plan, key, silent)
    assert names_in(folder) == {"result.json"}
