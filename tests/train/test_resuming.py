"""A training that is interrupted at any step ends as one that was left alone, to the bit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.train.jobs import CPU, changed, make_job, network

from perikarya.config import AugmentConfig, ResampleConfig
from perikarya.data.store import OpenStudy
from perikarya.errors import InterruptedWorkError
from perikarya.models.build import CellNetwork
from perikarya.train.engine import finetune
from perikarya.train.inference import predict_rows
from perikarya.train.rows import Fitted
from perikarya.train.session import FineTuning

STEPS = 3  # per epoch
VIT_WITH_DROPOUT = {"arch": "vit", "proj_drop_rate": 0.3, "drop_path_rate": 0.2}


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> FineTuning:
    return changed(make_job(tmp_path_factory.mktemp("resuming") / "study"), epochs=3)


def stop_after(step: int) -> Callable[[int, int], None]:
    def progress(done: int, total: int) -> None:
        if done == step:
            raise InterruptedWorkError("stop")

    return progress


def answers(net: CellNetwork, job: FineTuning) -> np.ndarray:
    return predict_rows(net, job.opened, job.rows.test, input_px=32, tta_n=1, device=CPU)


def assert_same(found: Fitted, expected: Fitted) -> None:
    assert str(found.history) == str(expected.history)  # as text, for a figure of no cells is not a number
    assert found.best_epoch == expected.best_epoch
    for name, tensor in expected.tensors.items():
        assert torch.equal(tensor, found.tensors[name]), name


def interrupted_everywhere(job: FineTuning, path: Path, **net: object) -> tuple[Fitted, CellNetwork, list[list[int]]]:
    """Train, killed after each step; return what came out, and the steps that each start took."""
    taken: list[list[int]] = []

    def progress(done: int, total: int) -> None:
        taken[-1].append(done)
        raise InterruptedWorkError("stop")

    while sum(map(len, taken)) < STEPS * job.train.epochs:
        taken.append([])
        with pytest.raises(InterruptedWorkError):
            finetune(network(job, **net), job, state_path=path, progress=progress)
        torch.manual_seed(12345)  # what another process would find
    last = network(job, **net)
    return finetune(last, job, state_path=path, progress=lambda done, total: None), last, taken


@pytest.mark.parametrize(
    ("settings", "net"),
    [
        ({}, {}),
        ({"ema_decay": 0.9, "micro_batch": 5}, {}),
        ({"strategy": "head-then-finetune", "head_epochs": 1, "class_weights": "balanced"}, {}),
        ({"strategy": "head-then-finetune", "head_epochs": 2, "ema_decay": 0.5}, VIT_WITH_DROPOUT),
        ({"strategy": "lora", "lora_rank": 2}, {}),
        ({"resample": ResampleConfig(method="weighted"), "augment": AugmentConfig(mixup=0.4, cutmix=1.0)}, {}),
        ({"optimizer": "sgd", "layer_decay": 0.7, "last_blocks": 2, "grad_clip": 0.1}, {}),
    ],
    ids=str,
)
def test_a_training_killed_after_every_step_ends_as_an_undisturbed_one(
    job: FineTuning, tmp_path: Path, settings: dict[str, object], net: dict[str, object]
) -> None:
    asked = changed(job, **settings)
    alone = network(asked, **net)
    whole = finetune(alone, asked, state_path=tmp_path / "a.pt", progress=lambda done, total: None)
    pieced, last, taken = interrupted_everywhere(asked, tmp_path / "b.pt", **net)
    assert taken == [[step] for step in range(1, STEPS * 3 + 1)], "each start takes the step after the last"
    assert_same(pieced, whole)
    np.testing.assert_array_equal(answers(last, job), answers(alone, job))


@pytest.mark.parametrize("step", [1, 2, 3, 4, 8, 9], ids="after step {}".format)
def test_one_interruption_changes_nothing(job: FineTuning, tmp_path: Path, step: int) -> None:
    asked = changed(job, strategy="head-then-finetune", head_epochs=1, ema_decay=0.9)
    whole = finetune(network(asked), asked, state_path=tmp_path / "a.pt", progress=lambda done, total: None)
    with pytest.raises(InterruptedWorkError):
        finetune(network(asked), asked, state_path=tmp_path / "b.pt", progress=stop_after(step))
    state = torch.load(tmp_path / "b.pt", weights_only=True)
    assert (state["epoch"], state["steps_done"]) == ((step - 1) // STEPS, (step - 1) % STEPS + 1)
    steps: list[int] = []
    resumed = finetune(network(asked), asked, state_path=tmp_path / "b.pt", progress=lambda d, t: steps.append(d))
    assert steps == [*range(step + 1, 10), 9]
    assert_same(resumed, whole)


def test_an_epoch_without_end_of_patience_is_judged_once(job: FineTuning, tmp_path: Path) -> None:
    asked = changed(job, epochs=2)
    with pytest.raises(InterruptedWorkError):
        finetune(network(asked), asked, state_path=tmp_path / "s.pt", progress=stop_after(STEPS))
    assert torch.load(tmp_path / "s.pt", weights_only=True)["history"] == []
    fitted = finetune(network(asked), asked, state_path=tmp_path / "s.pt", progress=lambda done, total: None)
    assert [row["epoch"] for row in fitted.history] == [0, 1]


def test_no_cell_of_an_earlier_step_is_made_again(
    job: FineTuning, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []
    original = OpenStudy.read_crops

    def noting(self: OpenStudy, rows: np.ndarray) -> np.ndarray:
        read.append(len(rows))
        return original(self, rows)

    asked = changed(job, epochs=1)
    with pytest.raises(InterruptedWorkError):
        finetune(network(asked), asked, state_path=tmp_path / "s.pt", progress=stop_after(2))
    monkeypatch.setattr(OpenStudy, "read_crops", noting)
    finetune(network(asked), asked, state_path=tmp_path / "s.pt", progress=lambda done, total: None)
    assert sum(read) == 16 + len(job.rows.stop)


def test_a_state_of_an_earlier_layout_is_not_continued(job: FineTuning, tmp_path: Path) -> None:
    asked = changed(job, epochs=1)
    finetune(network(asked), asked, state_path=tmp_path / "s.pt", progress=lambda done, total: None)
    state = torch.load(tmp_path / "s.pt", weights_only=True)
    torch.save(state | {"fingerprint": job.fingerprint}, tmp_path / "s.pt")
    steps: list[int] = []
    finetune(network(asked), asked, state_path=tmp_path / "s.pt", progress=lambda d, t: steps.append(d))
    assert steps[0] == 1


def test_any_other_error_leaves_the_state_of_the_last_epoch(job: FineTuning, tmp_path: Path) -> None:
    def fail(done: int, total: int) -> None:
        if done == STEPS + 2:
            raise OSError("no space left")

    with pytest.raises(OSError, match="no space"):
        finetune(network(job), job, state_path=tmp_path / "s.pt", progress=fail)
    state = torch.load(tmp_path / "s.pt", weights_only=True)
    assert (state["epoch"], state["steps_done"]) == (1, 0)


def test_a_training_set_smaller_than_a_batch_is_one_step(job: FineTuning, tmp_path: Path) -> None:
    few = replace(changed(job, epochs=2), rows=replace(job.rows, train=job.rows.train[:7]))
    steps: list[tuple[int, int]] = []
    finetune(network(few), few, state_path=tmp_path / "s.pt", progress=lambda d, t: steps.append((d, t)))
    assert steps == [(1, 2), (2, 2), (2, 2)]
