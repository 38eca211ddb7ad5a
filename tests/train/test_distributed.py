"""Two processes that train together do what one does alone."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.train.jobs import changed, make_job, network
from tests.train.nets import convnet
from tests.train.pair import STOPPED_AFTER, TRAININGS
from torch import nn

from perikarya.errors import ConfigError, InterruptedWorkError
from perikarya.train.distributed import Team, current_team, synchronised_batch_norm
from perikarya.train.engine import finetune
from perikarya.train.rows import Fitted
from perikarya.train.session import FineTuning

# Gradients of one batch added in another order differ by the rounding of float32, 6e-8 of their size; nine steps of
# plain gradient descent carry that on, hardly enlarged. Adam divides by the size of a gradient, so that of weights
# whose gradient is nearly zero the direction of a step itself is uncertain.
SGD_TOLERANCE, ADAM_TOLERANCE = 1e-5, 1e-3


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pair")


@pytest.fixture(scope="module")
def job(folder: Path) -> FineTuning:
    return make_job(folder / "study")


@pytest.fixture(scope="module")
def pair(folder: Path, job: FineTuning) -> Path:
    """Do all trainings of ``tests.train.pair``; the last is continued from where one process has left it."""
    with pytest.raises(InterruptedWorkError):
        alone(job, "taken-over", folder / "taken-over.state", stop_after=STOPPED_AFTER)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    env = {**os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2"}
    command = [sys.executable, "-m", "tests.train.pair", str(folder)]
    processes = [subprocess.Popen(command, env={**env, "RANK": str(rank)}) for rank in (0, 1)]
    try:
        assert [process.wait(timeout=200) for process in processes] == [0, 0]
    finally:
        for process in processes:
            process.kill()
    return folder


def alone(job: FineTuning, name: str, state: Path, *, stop_after: int = -1, **settings: object) -> Fitted:
    def progress(done: int, total: int) -> None:
        if done == stop_after:
            raise InterruptedWorkError("stop")

    of_training, net = TRAININGS[name]
    asked = changed(job, **{**of_training, **settings})
    return finetune(network(asked, **net), asked, state_path=state, progress=progress)


def of_pair(pair: Path, name: str, rank: int = 0) -> dict[str, Any]:
    return torch.load(pair / f"{name}.{rank}.pt", weights_only=True)


def assert_close(found: dict[str, Any], expected: Fitted, *, tolerance: float) -> None:
    assert len(found["history"]) == len(expected.history)
    for row, wanted in zip(found["history"], expected.history, strict=True):
        assert row == pytest.approx(wanted, rel=tolerance, abs=tolerance, nan_ok=True)
    assert found["best_epoch"] == expected.best_epoch
    for name, tensor in expected.tensors.items():
        torch.testing.assert_close(found["tensors"][name], tensor, rtol=tolerance, atol=tolerance, msg=name)


@pytest.mark.parametrize("name", TRAININGS)
def test_all_processes_end_with_the_same_weights_and_figures(pair: Path, name: str) -> None:
    first, second = of_pair(pair, name, 0), of_pair(pair, name, 1)
    assert str(first["history"]) == str(second["history"])
    for key, tensor in first["tensors"].items():
        assert torch.equal(tensor, second["tensors"][key]), key


@pytest.mark.parametrize("name", ["plain", "passes", "phases", "patience"])
def test_the_loss_curve_is_that_of_one_process(pair: Path, job: FineTuning, tmp_path: Path, name: str) -> None:
    assert_close(of_pair(pair, name), alone(job, name, tmp_path / "s"), tolerance=SGD_TOLERANCE)


@pytest.mark.parametrize("name", ["everything", "lora"])
def test_so_is_that_of_adam_with_all_that_can_be_asked_for(
    pair: Path, job: FineTuning, tmp_path: Path, name: str
) -> None:
    assert_close(of_pair(pair, name), alone(job, name, tmp_path / "s"), tolerance=ADAM_TOLERANCE)


def test_it_is_to_the_bit_that_of_one_process_which_takes_the_shares_in_turn(
    pair: Path, job: FineTuning, tmp_path: Path
) -> None:
    in_turn = alone(job, "plain", tmp_path / "s", micro_batch=8)
    assert str(of_pair(pair, "plain")["history"]) == str(in_turn.history)
    for name, tensor in in_turn.tensors.items():
        assert torch.equal(of_pair(pair, "plain")["tensors"][name], tensor), name


def test_on_a_cpu_batch_norm_sees_the_share_of_its_process(pair: Path, job: FineTuning, tmp_path: Path) -> None:
    whole, in_turn = (alone(job, "batch-norm", tmp_path / str(m), micro_batch=m) for m in (None, 8))
    of_training = lambda history: [{k: v for k, v in row.items() if k.startswith("train")} for row in history]  # noqa: E731
    found = of_pair(pair, "batch-norm")
    assert str(of_training(found["history"])) == str(of_training(in_turn.history))
    assert found["history"][0]["train_loss"] != pytest.approx(whole.history[0]["train_loss"], rel=1e-3)
    means = {n for n in in_turn.tensors if n.endswith("running_mean")}
    assert means
    assert not any(torch.equal(found["tensors"][n], in_turn.tensors[n]) for n in means), "means of both, not the last"


def test_one_process_writes(pair: Path) -> None:
    assert set(torch.load(pair / "writers.0.pt", weights_only=True)) == {0}
    assert torch.load(pair / "writers.1.pt", weights_only=True) == []


@pytest.mark.parametrize("rank", [0, 1])
def test_when_one_wishes_to_stop_all_do_after_the_same_step(pair: Path, rank: int) -> None:
    steps = torch.load(pair / f"interrupted.steps.{rank}.pt", weights_only=True)
    assert steps == list(range(1, STOPPED_AFTER + 1))


def test_an_interrupted_training_of_two_ends_as_an_undisturbed_one_of_two(pair: Path) -> None:
    interrupted, undisturbed = of_pair(pair, "interrupted"), of_pair(pair, "dropout")
    assert str(interrupted["history"]) == str(undisturbed["history"])
    for name, tensor in undisturbed["tensors"].items():
        assert torch.equal(interrupted["tensors"][name], tensor), name


def test_dropout_draws_other_numbers_in_each_process(pair: Path, job: FineTuning, tmp_path: Path) -> None:
    in_turn = alone(job, "dropout", tmp_path / "s", micro_batch=8)
    assert of_pair(pair, "dropout")["history"][0]["train_loss"] != in_turn.history[0]["train_loss"]


def test_what_one_process_began_two_can_end_and_the_other_way_round(
    pair: Path, job: FineTuning, tmp_path: Path
) -> None:
    assert_close(of_pair(pair, "taken-over"), alone(job, "plain", tmp_path / "s"), tolerance=SGD_TOLERANCE)
    state = pair / "plain.state"  # finished, and so the answer is that of two processes
    assert str(alone(job, "plain", state).history) == str(of_pair(pair, "plain")["history"])


def test_by_itself_a_process_is_a_team_of_one_for_which_nothing_is_sent() -> None:
    team = current_team()
    tensor = torch.ones(3)
    assert (team.rank, team.size, team.is_first, team.share(7)) == (0, 1, True, slice(0, 7))
    assert team.sum(tensor) is tensor
    assert team.gather(tensor)[0] is tensor
    assert team.dealt(5, block=2).tolist() == [0, 1, 2, 3, 4]


def test_items_are_dealt_out_in_blocks() -> None:
    assert [Team(rank, 2).dealt(7, block=2).tolist() for rank in (0, 1)] == [[0, 1, 4, 5], [2, 3, 6]]


@pytest.mark.parametrize(
    ("n_cells", "size", "micro_batch", "passes"),
    [(16, 1, None, 1), (16, 1, 4, 4), (16, 1, 5, 4), (16, 2, 3, 3), (15, 2, 4, 2), (15, 2, 1, 7), (16, 2, 100, 1)],
)
def test_all_processes_take_as_many_passes_and_none_is_empty(
    n_cells: int, size: int, micro_batch: int | None, passes: int
) -> None:
    teams = [Team(rank, size) for rank in range(size)]
    assert {team.n_passes(n_cells, micro_batch) for team in teams} == {passes}


def test_more_processes_than_cells_in_a_batch_are_refused() -> None:
    with pytest.raises(ConfigError, match="2 cells cannot be shared out among 3 processes"):
        Team(0, 3).n_passes(2, None)


def test_batch_norm_is_synchronised_on_gpus_for_the_time_of_training() -> None:
    network = convnet()
    before = dict(network.named_modules())
    tensors = {name: tensor.data_ptr() for name, tensor in network.state_dict().items()}
    with synchronised_batch_norm(network, Team(0, 2), torch.device("cuda")):
        kinds = [type(m) for m in network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
        assert kinds
        assert all(issubclass(kind, nn.SyncBatchNorm) for kind in kinds)
    assert dict(network.named_modules()) == before
    assert {name: tensor.data_ptr() for name, tensor in network.state_dict().items()} == tensors


@pytest.mark.parametrize(("team", "device"), [(Team(0, 2), "cpu"), (Team(0, 1), "cuda")])
def test_elsewhere_batch_norm_stays_as_it_is(team: Team, device: str) -> None:
    network = convnet()
    before = dict(network.named_modules())
    with synchronised_batch_norm(network, team, torch.device(device)):
        assert dict(network.named_modules()) == before
