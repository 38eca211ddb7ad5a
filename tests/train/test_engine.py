"""Fine-tuning learns, stops early, keeps the best weights and goes on after an interruption to the bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tests.tiny import make_study

from perikarya.config import AugmentConfig, TrainConfig
from perikarya.errors import TrainingError
from perikarya.models.build import CellNetwork, build_network
from perikarya.train.engine import FineTuning, finetune, learning_rate_factor, predict_rows
from perikarya.train.rows import FoldRows, class_weights, loss_and_accuracy

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> FineTuning:
    torch.set_num_threads(1)
    opened = make_study(tmp_path_factory.mktemp("engine") / "study")
    animal = opened.cells["subject"].str.removeprefix("animal").astype(int).to_numpy()
    part = lambda low, high: np.flatnonzero((animal >= low) & (animal < high))  # noqa: E731
    rows = FoldRows(train=part(0, 5), stop=part(5, 8), test=part(8, 12), external=part(8, 12))
    train = TrainConfig(epochs=5, batch_size=16, lr=3e-3, tta_views=1)
    return FineTuning(opened, rows, train, AugmentConfig(), 32, 0, "fingerprint", CPU)


def network(job: FineTuning) -> CellNetwork:
    torch.manual_seed(job.seed)
    return build_network("custom_cnn", n_classes=3)


def changed(job: FineTuning, **settings: object) -> FineTuning:
    from dataclasses import replace

    return replace(job, train=job.train.model_copy(update=settings))


def test_it_learns_what_there_is_to_learn(job: FineTuning, tmp_path: Path) -> None:
    net = network(job)
    fitted = finetune(net, changed(job, epochs=25), state_path=tmp_path / "state.pt", progress=lambda d, t: None)
    prob = predict_rows(net, job.opened, job.rows.test, input_px=32, tta_n=1, device=CPU)
    assert (prob.argmax(axis=1) == job.opened.labels[job.rows.test]).mean() > 0.7
    assert fitted.history[-1]["train_loss"] < fitted.history[0]["train_loss"]
    assert {"train_loss_small", "stop_accuracy_large", "lr", "epoch"} <= set(fitted.history[0])


def test_an_interrupted_training_ends_with_the_weights_of_an_undisturbed_one(job: FineTuning, tmp_path: Path) -> None:
    class StoppedError(Exception):
        pass

    def interrupt(done: int, total: int) -> None:
        if done > 0.7 * total:
            raise StoppedError

    whole = finetune(network(job), job, state_path=tmp_path / "a.pt", progress=lambda d, t: None)
    with pytest.raises(StoppedError):
        finetune(network(job), job, state_path=tmp_path / "b.pt", progress=interrupt)
    steps: list[int] = []
    resumed = finetune(network(job), job, state_path=tmp_path / "b.pt", progress=lambda d, t: steps.append(d))
    assert min(steps) > 1, "it started from the beginning"
    assert resumed.history == whole.history
    for name, tensor in whole.tensors.items():
        assert torch.equal(tensor, resumed.tensors[name]), name


def test_a_state_of_other_settings_or_a_damaged_one_is_not_continued(job: FineTuning, tmp_path: Path) -> None:
    from dataclasses import replace

    path = tmp_path / "state.pt"

    def first_step(asked: FineTuning) -> int:
        steps: list[int] = []
        finetune(network(asked), asked, state_path=path, progress=lambda d, t: steps.append(d))
        return steps[0]

    last_step = first_step(job) + 14
    assert first_step(job) == last_step, "the finished state is taken as it is"
    assert first_step(replace(job, fingerprint="x")) == 1
    path.write_bytes(b"half a fi")
    assert first_step(job) == 1


def test_the_best_weights_are_kept_and_patience_stops_the_training(job: FineTuning, tmp_path: Path) -> None:
    hopeless = changed(job, epochs=30, patience=2, lr=0.5)
    net = network(job)
    fitted = finetune(net, hopeless, state_path=tmp_path / "s.pt", progress=lambda d, t: None)
    losses = [row["stop_loss"] for row in fitted.history]
    assert len(losses) < 30
    assert fitted.best_epoch == int(np.argmin(losses)) == len(losses) - 1 - 2
    prob = predict_rows(net, job.opened, job.rows.stop, input_px=32, tta_n=1, device=CPU).astype(float)
    figures = loss_and_accuracy(prob, job.opened.labels[job.rows.stop], ("a", "b", "c"), prefix="stop")
    assert figures["stop_loss"] == pytest.approx(min(losses), rel=1e-5)


def test_a_loss_that_is_not_finite_stops_with_a_sentence(job: FineTuning, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"diverged|not finite"):
        finetune(
            network(job), changed(job, lr=1e30, grad_clip=None), state_path=tmp_path / "s", progress=lambda d, t: None
        )


def test_all_eight_views_make_the_answer_independent_of_orientation(job: FineTuning) -> None:
    net = network(job).eval()
    rows = job.rows.test[:6]
    whole = predict_rows(net, job.opened, rows, input_px=32, tta_n=8, device=CPU)
    from dataclasses import replace

    turned_crops = np.ascontiguousarray(np.rot90(job.opened.crops, axes=(1, 2)))
    turned = predict_rows(net, replace(job.opened, crops=turned_crops), rows, input_px=32, tta_n=8, device=CPU)
    np.testing.assert_allclose(whole, turned, atol=1e-5)


def test_the_learning_rate_rises_then_falls_to_nothing() -> None:
    factors = [learning_rate_factor(s, n_steps=100, warmup=0.25) for s in range(100)]
    assert int(np.argmax(factors)) in (24, 25)
    assert max(factors) == 1.0
    assert factors[0] < 0.05
    assert factors[-1] < 0.01
    assert learning_rate_factor(0, n_steps=10, warmup=0) == 1.0


def test_balanced_weights_give_each_class_the_same_say() -> None:
    labels = np.array([0] * 6 + [1] * 3 + [2] * 1)
    weights = class_weights(labels, 4, method="balanced")
    said = [weights[k] * (labels == k).sum() for k in range(3)]
    np.testing.assert_allclose(said, 10 / 3, rtol=1e-6)
    assert weights[3] == 0
    assert weights[labels].mean() == pytest.approx(1)


def test_figures_per_class_are_those_of_a_hand_calculation() -> None:
    prob = np.array([[0.5, 0.5], [0.25, 0.75], [0.9, 0.1]])
    figures = loss_and_accuracy(prob, np.array([0, 1, 1]), ("x", "y"), prefix="t")
    assert figures["t_accuracy"] == pytest.approx(2 / 3)
    assert figures["t_loss_y"] == pytest.approx(-(np.log(0.75) + np.log(0.1)) / 2)
    assert figures["t_accuracy_x"] == 1.0
