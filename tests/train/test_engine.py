"""Fine-tuning learns, stops early, keeps the best weights and goes on after an interruption to the bit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.train.jobs import CPU, changed, make_job, network
from tests.train.nets import vit

from perikarya.config import AugmentConfig, ResampleConfig
from perikarya.data.store import OpenStudy
from perikarya.errors import ConfigError, TrainingError
from perikarya.models.build import CellNetwork, build_network
from perikarya.train.engine import finetune
from perikarya.train.inference import predict_rows
from perikarya.train.rows import Fitted, class_weights, loss_and_accuracy
from perikarya.train.session import FineTuning, Session


class StoppedError(Exception):
    """What an interruption raises."""


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> FineTuning:
    return make_job(tmp_path_factory.mktemp("engine") / "study")


def fit(job: FineTuning, folder: Path, *, net: CellNetwork | None = None) -> Fitted:
    return finetune(net or network(job), job, state_path=folder / "state.pt", progress=lambda done, total: None)


def test_it_learns_what_there_is_to_learn(job: FineTuning, tmp_path: Path) -> None:
    net = network(job)
    fitted = finetune(net, changed(job, epochs=25), state_path=tmp_path / "state.pt", progress=lambda d, t: None)
    prob = predict_rows(net, job.opened, job.rows.test, input_px=32, tta_n=1, device=CPU)
    assert (prob.argmax(axis=1) == job.opened.labels[job.rows.test]).mean() > 0.7
    assert fitted.history[-1]["train_loss"] < fitted.history[0]["train_loss"]
    assert {"train_loss_small", "stop_accuracy_large", "lr", "epoch"} <= set(fitted.history[0])


@pytest.mark.parametrize(
    ("settings", "after"),
    [
        ({}, 0.7),
        ({"ema_decay": 0.9}, 0.5),
        ({"strategy": "head-then-finetune", "head_epochs": 2}, 0.3),
        ({"strategy": "head-then-finetune", "head_epochs": 2}, 0.45),
        ({"strategy": "head-then-finetune", "head_epochs": 2, "ema_decay": 0.5}, 0.7),
        ({"strategy": "lora", "lora_rank": 2}, 0.5),
        ({"resample": ResampleConfig(method="weighted")}, 0.5),
        ({"micro_batch": 8, "optimizer": "sgd", "layer_decay": 0.7, "last_blocks": 2}, 0.5),
    ],
    ids=str,
)
def test_an_interrupted_training_ends_with_the_weights_of_an_undisturbed_one(
    job: FineTuning, tmp_path: Path, settings: dict[str, object], after: float
) -> None:
    def interrupt(done: int, total: int) -> None:
        if done > after * total:
            raise StoppedError

    asked = changed(job, **settings)
    whole = finetune(network(asked), asked, state_path=tmp_path / "a.pt", progress=lambda d, t: None)
    with pytest.raises(StoppedError):
        finetune(network(asked), asked, state_path=tmp_path / "b.pt", progress=interrupt)
    steps: list[int] = []
    resumed = finetune(network(asked), asked, state_path=tmp_path / "b.pt", progress=lambda d, t: steps.append(d))
    assert min(steps) > 1, "it started from the beginning"
    assert resumed.history == whole.history
    for name, tensor in whole.tensors.items():
        assert torch.equal(tensor, resumed.tensors[name]), name


def test_a_state_of_other_settings_or_a_damaged_one_is_not_continued(job: FineTuning, tmp_path: Path) -> None:
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
    turned_crops = np.ascontiguousarray(np.rot90(job.opened.crops, axes=(1, 2)))
    turned = predict_rows(net, replace(job.opened, crops=turned_crops), rows, input_px=32, tta_n=8, device=CPU)
    np.testing.assert_allclose(whole, turned, atol=1e-5)


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


def test_the_average_of_the_weights_is_judged_and_kept(job: FineTuning, tmp_path: Path) -> None:
    asked = changed(job, epochs=2, ema_decay=0.95)
    net = network(asked)
    fitted = fit(asked, tmp_path, net=net)
    plain = fit(changed(job, epochs=2), tmp_path / "plain")
    assert [row["train_loss"] for row in fitted.history] == [row["train_loss"] for row in plain.history]
    assert [row["stop_loss"] for row in fitted.history] != [row["stop_loss"] for row in plain.history]
    prob = predict_rows(net, job.opened, job.rows.stop, input_px=32, tta_n=1, device=CPU).astype(float)
    figures = loss_and_accuracy(prob, job.opened.labels[job.rows.stop], ("a", "b", "c"), prefix="stop")
    assert figures["stop_loss"] == pytest.approx(fitted.history[fitted.best_epoch]["stop_loss"], rel=1e-5)


def test_an_average_without_memory_is_the_weights(job: FineTuning, tmp_path: Path) -> None:
    averaged, plain = (fit(changed(job, epochs=1, ema_decay=d), tmp_path / str(d)) for d in (1e-9, 0.0))
    assert averaged.history[0]["stop_loss"] == pytest.approx(plain.history[0]["stop_loss"], rel=1e-4)


def test_head_then_finetune_first_leaves_the_features_as_they_are(job: FineTuning, tmp_path: Path) -> None:
    asked = changed(job, strategy="head-then-finetune", head_epochs=2)
    net = network(asked)
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    epochs_frozen = []

    def look(done: int, total: int) -> None:
        epoch = (done - 1) * asked.train.epochs // total
        now = net.state_dict()
        if all(torch.equal(now[n], t) for n, t in before.items() if ".head." not in n):
            epochs_frozen.append(epoch)

    fitted = finetune(net, asked, state_path=tmp_path / "s.pt", progress=look)
    assert set(epochs_frozen) == {0, 1}
    rates = [row["lr"] for row in fitted.history]
    assert rates[0] == pytest.approx(10 * rates[2], rel=0.5)


def test_patience_counts_from_the_last_phase(job: FineTuning) -> None:
    asked = changed(job, strategy="head-then-finetune", head_epochs=3, epochs=9, patience=2)
    session = Session(network(asked), asked)
    ends = {}
    for best_epoch in (0, 4):
        session.best_epoch = best_epoch
        ends[best_epoch] = next(epoch for epoch in range(10) if setattr(session, "epoch", epoch) or session.finished)
    assert ends == {0: 5, 4: 7}


def test_a_first_phase_without_a_second_is_refused(job: FineTuning, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="never finetune"):
        fit(changed(job, strategy="head-then-finetune", head_epochs=5), tmp_path)


def test_lora_ends_with_tensors_that_a_plain_network_loads(job: FineTuning, tmp_path: Path) -> None:
    net = vit()
    fitted = fit(changed(job, strategy="lora", epochs=3), tmp_path, net=net)
    plain = vit(seed=9)
    plain.load_state_dict(fitted.tensors)
    assert fitted.n_params == sum(p.numel() for p in plain.parameters())
    rows = job.rows.test
    expected = predict_rows(net, job.opened, rows, input_px=32, tta_n=1, device=CPU)
    np.testing.assert_array_equal(predict_rows(plain, job.opened, rows, input_px=32, tta_n=1, device=CPU), expected)


@pytest.mark.parametrize("settings", [{}, {"class_weights": "balanced", "label_smoothing": 0.1}, {"loss": "focal"}])
def test_parts_of_a_batch_in_memory_at_once_give_the_gradients_of_the_whole(
    job: FineTuning, tmp_path: Path, settings: dict[str, object]
) -> None:
    uneven = replace(job, rows=replace(job.rows, train=job.rows.train[5:]))
    fits = []
    for micro_batch in (None, 4):
        asked = changed(uneven, epochs=2, optimizer="sgd", lr=0.1, micro_batch=micro_batch, **settings)
        fits.append(fit(asked, tmp_path / str(micro_batch), net=vit()))
    for name, tensor in fits[0].tensors.items():
        torch.testing.assert_close(fits[1].tensors[name], tensor, atol=1e-5, rtol=1e-4, msg=name)
    assert fits[1].history[1]["train_loss"] == pytest.approx(fits[0].history[1]["train_loss"], rel=1e-4)


class Watched(OpenStudy):
    """A study that notes which of its rows were read."""

    def read_crops(self, rows: np.ndarray) -> np.ndarray:
        self.__dict__.setdefault("seen", []).append(rows)
        return super().read_crops(rows)

    @property
    def rows_read(self) -> set[int]:
        return {int(row) for rows in self.__dict__.pop("seen", []) for row in rows}


def watched(opened: OpenStudy) -> Watched:
    return Watched(opened.root, opened.study, opened.cells, opened.crops)


def test_other_cells_to_train_on_are_used_for_training_only(job: FineTuning, tmp_path: Path) -> None:
    study, source = watched(job.opened), watched(job.opened)
    source.__dict__["labels"] = (job.opened.labels + 1) % 3
    asked = changed(job, epochs=12, opened=study, train_source=source)
    fitted = fit(asked, tmp_path)
    assert source.rows_read == set(job.rows.train.tolist())
    assert study.rows_read == set(job.rows.stop.tolist())
    last = fitted.history[-1]
    assert last["train_accuracy"] > 0.6
    assert last["stop_accuracy"] < 0.3, "the labels that were learnt are those of the source"


def test_classes_weigh_by_the_labels_that_are_trained_on(job: FineTuning) -> None:
    source = watched(job.opened)
    source.__dict__["labels"] = np.where(np.arange(len(job.opened.labels)) % 10 == 0, 1, 0)
    session = Session(network(job), changed(job, train_source=source, class_weights="balanced"))
    weights = session.loss.weight(torch.eye(3)[:1]), session.loss.weight(torch.eye(3)[1:2])
    n_rare, n = int(source.labels[job.rows.train].sum()), len(job.rows.train)
    assert [float(w) for w in weights] == pytest.approx([n / (2 * (n - n_rare)), n / (2 * n_rare)])


def test_the_weighted_sampler_draws_anew_in_every_epoch(job: FineTuning, tmp_path: Path) -> None:
    study = watched(job.opened)
    per_epoch = []

    def look(done: int, total: int) -> None:
        if done % (total // asked.train.epochs) == 0:
            per_epoch.append(frozenset(study.rows_read & set(job.rows.train.tolist())))

    # batches that leave no cell out, so that the rows read are those drawn
    asked = changed(job, epochs=3, batch_size=15, opened=study, resample=ResampleConfig(method="weighted"))
    assert len(job.rows.train) % 15 == 0
    finetune(network(asked), asked, state_path=tmp_path / "s.pt", progress=look)
    assert len(set(per_epoch[:3])) == 3
    assert all(len(rows) < len(job.rows.train) for rows in per_epoch[:3])


def test_blended_batches_are_trained_on_as_they_come(
    job: FineTuning, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[int, int]] = []

    def everything_is_small(x: np.ndarray, y: np.ndarray, **asked: Any) -> tuple[np.ndarray, np.ndarray]:
        assert x.dtype == np.uint8
        assert x.shape[1:] == (32, 32, 4)
        assert y.dtype == np.float32
        np.testing.assert_array_equal(y.sum(axis=1), 1)
        assert set(np.unique(y)) == {0, 1}
        assert asked["seed"] == job.seed
        assert asked["config"].mixup == 0.4
        calls.append((asked["epoch"], asked["step"]))
        return x, np.tile(np.array([0.1, 0.2, 0.7], np.float32), (len(x), 1))

    monkeypatch.setattr("perikarya.train.session.mix_batch", everything_is_small)
    asked = changed(job, epochs=4, lr=1e-2, augment=AugmentConfig(mixup=0.4))
    fitted = fit(asked, tmp_path)
    n_steps = len(job.rows.train) // asked.train.batch_size
    assert calls == [(epoch, step) for epoch in range(4) for step in range(n_steps)]
    assert np.isnan(fitted.history[0]["train_loss_large"]), "figures are those of the larger share"
    assert fitted.history[-1]["train_accuracy"] == 1


def test_without_a_learning_rate_it_is_one_in_a_thousand(job: FineTuning, tmp_path: Path) -> None:
    named, unnamed = (fit(changed(job, epochs=1, lr=lr), tmp_path / str(lr)) for lr in (1e-3, None))
    assert named.history == unnamed.history


def test_ordered_classes_are_learnt_by_their_order(job: FineTuning, tmp_path: Path) -> None:
    asked = changed(job, loss="ordinal", epochs=20)
    torch.manual_seed(0)
    net = build_network("custom_cnn", n_classes=3, ordinal=True)
    fitted = fit(asked, tmp_path, net=net)
    prob = predict_rows(net, job.opened, job.rows.test, input_px=32, tta_n=1, device=CPU)
    np.testing.assert_allclose(prob.sum(axis=1), 1, atol=1e-5)
    assert (prob.argmax(axis=1) == job.opened.labels[job.rows.test]).mean() > 0.6
    assert fitted.history[-1]["train_loss"] < fitted.history[0]["train_loss"]


def test_an_ordinal_loss_needs_a_network_of_ordered_classes(job: FineTuning, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="ordinal=True"):
        fit(changed(job, loss="ordinal"), tmp_path)
