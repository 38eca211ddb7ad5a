"""A task that several processes do together ends with the files of one, whatever is killed on the way."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pytest
import torch
from tests.tiny import make_study

from perikarya.config import ExperimentConfig
from perikarya.errors import InterruptedWorkError, RunError, TrainingError
from perikarya.experiment.distributed import run_task_distributed
from perikarya.experiment.plan import Plan, make_plan
from perikarya.experiment.settle import resolve_config
from perikarya.experiment.task import run_task
from perikarya.runs import RunFolder, TaskKey, read_json

EPOCHS, STEPS = 4, 3  # steps per epoch
KEY = TaskKey("cnn", 0, 0)
Progress = Callable[[int, int], None]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_study(tmp_path_factory.mktemp("study") / "tiny").root


def planned(study: Path, out: Path, **train: object) -> Plan:
    content = {
        "name": "tiny",
        "study": str(study),
        "cv": {"n_folds": 4, "folds": [0, 1]},
        "models": [{"name": "cnn", "arch": "custom_cnn", "input_px": 32}],
        "train": {"epochs": EPOCHS, "batch_size": 16, "tta_views": 1, **train},
    }
    return make_plan(resolve_config(ExperimentConfig.model_validate(content), on_gpu=False), RunFolder(out))


def ignore(done: int, total: int) -> None:
    """Progress that nobody follows."""


def do(
    plan: Plan,
    progress: Progress = ignore,
    *,
    key: TaskKey = KEY,
    n_processes: int = 2,
    may_write: Callable[[], object] = lambda: None,
) -> None:
    run_task_distributed(
        plan.run,
        key,
        study=plan.config.study,
        n_processes=n_processes,
        threads=1,
        progress=progress,
        may_write=may_write,
    )


def files(plan: Plan) -> set[str]:
    return {path.name for path in plan.run.task(KEY).iterdir()}


def hashes(plan: Plan) -> dict[str, str]:
    """Of everything that must not depend on what happened on the way."""
    paths = [p for p in plan.run.task(KEY).iterdir() if p.name != "result.json"]
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in paths}


def processes_of(root: psutil.Process | None = None) -> list[psutil.Process]:
    """The launcher and the processes that train, below a process of ours."""
    below = (root or psutil.Process()).children(recursive=True)
    alive = [p for p in below if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]
    return [p for p in alive if "perikarya.experiment.rank" in " ".join(p.cmdline())]


def ranks_of(root: psutil.Process | None = None) -> dict[int, psutil.Process]:
    found = [p for p in processes_of(root) if "torch.distributed.run" not in " ".join(p.cmdline())]
    return {int(p.environ()["RANK"]): p for p in found}


def launcher_of() -> psutil.Process:
    return next(p for p in processes_of() if "torch.distributed.run" in " ".join(p.cmdline()))


def at_step(step: int, act: Callable[[], None]) -> Progress:
    def progress(done: int, total: int) -> None:
        if done == step:
            act()

    return progress


def stop() -> None:
    raise InterruptedWorkError("time is nearly over")


def test_two_processes_write_the_files_of_one(study: Path, tmp_path: Path) -> None:
    alone, pair = planned(study, tmp_path / "alone"), planned(study, tmp_path / "pair")
    run_task(alone, KEY, ignore)
    steps: list[tuple[int, int]] = []
    asked: list[set[str]] = []
    do(pair, lambda done, total: steps.append((done, total)), may_write=lambda: asked.append(files(pair)))
    assert files(pair) == files(alone)
    total = EPOCHS * STEPS
    assert steps == [(done, total) for done in [*range(1, total + 1), total]], "told once, by one of them"
    assert asked[0] == {"state.pt"}, "asked before any result is written"
    assert "result.json" not in asked[-1]
    results = [read_json(plan.run.task(KEY) / "result.json", what="a result") for plan in (alone, pair)]
    for name in ("n_train", "n_stop", "n_test", "n_params", "n_epochs", "data_hash", "config_hash"):
        assert results[0][name] == results[1][name], name
    assert [result["processes"] for result in results] == [1, 2]
    tables = [pd.read_parquet(plan.run.task(KEY) / "predictions.parquet") for plan in (alone, pair)]
    assert tables[0]["cell_id"].tolist() == tables[1]["cell_id"].tolist()
    histories = [pd.read_csv(plan.run.task(KEY) / "history.csv") for plan in (alone, pair)]
    np.testing.assert_array_equal(histories[0]["lr"], histories[1]["lr"])
    # dropout and the batches of its normalisation differ, so that the curves are alike but not the same
    np.testing.assert_allclose(histories[0]["train_loss"], histories[1]["train_loss"], rtol=0.3)
    assert not processes_of()
    do(pair, at_step(1, stop))
    assert files(pair) == files(alone), "a finished task is left as it is"


@pytest.fixture(scope="module")
def undisturbed(study: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    plan = planned(study, tmp_path_factory.mktemp("undisturbed") / "run")
    do(plan)
    return hashes(plan)


@pytest.mark.slow
@pytest.mark.parametrize("step", [1, 5, 6, 12])
def test_all_stop_after_the_same_step_and_go_on_from_there(
    study: Path, tmp_path: Path, undisturbed: dict[str, str], step: int
) -> None:
    plan = planned(study, tmp_path / "run")
    with pytest.raises(InterruptedWorkError, match="time is nearly over"):
        do(plan, at_step(step, stop))
    state = torch.load(plan.run.task(KEY) / "state.pt", weights_only=True)
    n_done = state["epoch"] * STEPS + state["steps_done"]
    assert step <= n_done <= step + 2, "they hear of it a step or two later"
    assert files(plan) == {"state.pt"}
    steps: list[int] = []
    do(plan, lambda done, total: steps.append(done))
    assert steps[0] == min(n_done + 1, EPOCHS * STEPS)
    assert hashes(plan) == undisturbed


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_process_costs_the_steps_since_the_last_state(
    study: Path, tmp_path: Path, undisturbed: dict[str, str], rank: int, caplog: pytest.LogCaptureFixture
) -> None:
    plan = planned(study, tmp_path / "run")
    steps: list[int] = []

    def kill_once(done: int, total: int) -> None:
        if done == STEPS + 2 and done not in steps:
            ranks_of()[rank].kill()
        steps.append(done)

    do(plan, kill_once)
    assert f"Process {rank} of the 2 processes that train {KEY} together was killed by SIGKILL" in caplog.text
    assert steps.count(1) == 1
    assert steps.count(STEPS + 1) == 2, "they went on after the first epoch"
    assert hashes(plan) == undisturbed


@pytest.mark.slow
def test_who_is_killed_time_and_again_is_named_and_nobody_is_left_behind(study: Path, tmp_path: Path) -> None:
    plan = planned(study, tmp_path / "run", epochs=500)
    ranks: set[psutil.Process] = set()

    def kill_launcher(done: int, total: int) -> None:
        for process in processes_of():
            if "torch.distributed.run" in process.cmdline():
                ranks.update(ranks_of().values())
                process.kill()

    with pytest.raises(RunError, match=r"The launcher of the 2 processes .* was killed by SIGKILL.*, 3 times"):
        do(plan, kill_launcher)
    assert len(ranks) == 6
    _, alive = psutil.wait_procs(ranks, timeout=10)
    assert [p for p in alive if p.status() != psutil.STATUS_ZOMBIE] == []


@pytest.mark.slow
@pytest.mark.parametrize("before_training", [False, True])
def test_a_killed_parent_leaves_nobody_behind(study: Path, tmp_path: Path, before_training: bool) -> None:
    plan = planned(study, tmp_path / "run", epochs=500)
    code = (
        "import sys; from pathlib import Path\n"
        "from perikarya.experiment.distributed import run_task_distributed\n"
        "from perikarya.runs import RunFolder, TaskKey\n"
        "run_task_distributed(RunFolder(Path(sys.argv[1])), TaskKey('cnn', 0, 0), study=sys.argv[2], n_processes=2,\n"
        "    threads=1, progress=lambda done, total: None)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code, str(plan.run.root), str(study)])
    end = time.monotonic() + 120
    while len(ranks_of(psutil.Process(parent.pid))) < 2 or not (
        before_training or (plan.run.task(KEY) / "state.pt").is_file()
    ):
        assert time.monotonic() < end
        assert parent.poll() is None
        time.sleep(0.05)
    everyone = processes_of(psutil.Process(parent.pid))
    parent.kill()
    parent.wait()
    assert len(everyone) == 3
    _, alive = psutil.wait_procs(everyone, timeout=30)
    assert [p for p in alive if p.status() != psutil.STATUS_ZOMBIE] == []


@pytest.mark.slow
def test_the_systems_wish_to_end_is_an_interruption(study: Path, tmp_path: Path) -> None:
    plan = planned(study, tmp_path / "run", epochs=500)
    with pytest.raises(InterruptedWorkError, match="asked to stop"):
        do(plan, at_step(4, lambda: launcher_of().terminate()))
    state = torch.load(plan.run.task(KEY) / "state.pt", weights_only=True)
    assert state["epoch"] * STEPS + state["steps_done"] >= 4
    assert not processes_of()


@pytest.mark.slow
def test_a_training_that_cannot_be_done_says_why(study: Path, tmp_path: Path) -> None:
    plan = planned(study, tmp_path / "run", lr=1e30, grad_clip=None)
    with pytest.raises(TrainingError, match="the network has diverged"):
        do(plan)
    assert not processes_of()


@pytest.mark.slow
def test_nothing_is_written_where_somebody_else_has_taken_over(study: Path, tmp_path: Path) -> None:
    plan = planned(study, tmp_path / "run", epochs=1)
    with pytest.raises(InterruptedWorkError, match="time is nearly over"):
        do(plan, may_write=stop)
    assert files(plan) == {"state.pt"}


@pytest.mark.slow
def test_another_error_of_the_listener_ends_all_and_is_passed_on(study: Path, tmp_path: Path) -> None:
    def fail() -> None:
        raise OSError("no space left")

    with pytest.raises(OSError, match="no space left"):
        do(planned(study, tmp_path / "run", epochs=500), at_step(2, fail))
    assert not processes_of()


@pytest.mark.slow
def test_two_tasks_at_once_do_not_get_in_each_others_way(
    study: Path, tmp_path: Path, undisturbed: dict[str, str]
) -> None:
    plan = planned(study, tmp_path / "run")
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda fold: do(plan, key=TaskKey("cnn", 0, fold)), [0, 1]))
    assert hashes(plan) == undisturbed
    assert plan.run.task_is_done(TaskKey("cnn", 0, 1))


def test_what_processes_log_is_kept_and_what_they_refuse_is_told(
    study: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    plan = planned(study, tmp_path / "run", batch_size=2)
    with caplog.at_level("INFO"), pytest.raises(TrainingError, match="2 cells cannot be shared out among 3 processes"):
        do(plan, n_processes=3)
    assert "local_rank" in caplog.text, "what the launcher says"
    assert not processes_of()
