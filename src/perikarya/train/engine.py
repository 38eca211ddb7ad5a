"""Fine-tune one network on one fold: early stopping, best weights kept, resumable after any epoch."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from perikarya.config import AugmentConfig, ResampleConfig, TrainConfig
from perikarya.data.augment import Augmenter, tta_views
from perikarya.data.loader import iterate_batches
from perikarya.data.mixing import mix_batch
from perikarya.data.resampling import epoch_rows
from perikarya.data.store import OpenStudy
from perikarya.errors import TrainingError
from perikarya.models.build import CellNetwork, n_parameters
from perikarya.train.checkpoint import load_state, save_state
from perikarya.train.ema import WeightAverage
from perikarya.train.losses import CellLoss
from perikarya.train.optim import learning_rate_factor, make_optimizer, peak_rate, phases_of
from perikarya.train.parts import Strategy, TrainedParts
from perikarya.train.rows import Fitted, FoldRows, class_weights, loss_and_accuracy

log = logging.getLogger(__name__)

Progress = Callable[[int, int], None]
_EVAL_BATCH = 64


@dataclass(frozen=True)
class FineTuning:
    """Everything that decides the result of one fine-tuning.

    ``fingerprint`` names the settings and the data, so that a saved state is never continued under others.
    ``train_source`` holds the cells that ``rows.train`` counts, where that is not the study itself (invented cells
    beside the real ones); stopping, test and external rows are always those of ``opened``.
    """

    opened: OpenStudy
    rows: FoldRows
    train: TrainConfig
    augment: AugmentConfig
    input_px: int
    seed: int
    fingerprint: str
    device: torch.device
    strategy: Strategy = "finetune"
    resample: ResampleConfig = field(default_factory=ResampleConfig)
    train_source: OpenStudy | None = None

    @property
    def source(self) -> OpenStudy:
        """Where the training cells come from."""
        return self.opened if self.train_source is None else self.train_source


def finetune(network: CellNetwork, job: FineTuning, *, state_path: Path, progress: Progress) -> Fitted:
    """Train a network and leave it with the weights of its best epoch.

    Parameters
    ----------
    network
        As it was built; to go on from a state it must be built the same way, for what does not train is not saved.
        It is moved to ``job.device`` and trained in place.
    job
        Rows and settings.
    state_path
        Where the state after each epoch is kept; an existing one is continued.
    progress
        Called with (steps done, steps in all).

    Returns
    -------
    The history and the tensors of the network. Training figures are those of the augmented cells as they were
    trained on; a blended cell counts as of the class that has more of it.

    Raises
    ------
    ConfigError
        If the network cannot be trained in the way asked for.
    TrainingError
        If the loss is not finite.
    """
    network.to(job.device).to(memory_format=torch.channels_last)
    torch.manual_seed(job.seed)
    session = Session(network, job)
    saved = load_state(state_path, fingerprint=job.fingerprint)
    if saved is not None:
        session.restore(saved)
    while not session.finished:
        before = session.epoch * session.steps_per_epoch
        row = session.train_epoch(partial(_advance, progress, before, session.n_steps))
        with session.judged_weights():
            session.note(row | session.stopping_figures())
        save_state(state_path, session.state())
    progress(session.n_steps, session.n_steps)
    session.parts.load(session.best_weights)
    session.parts.restore()
    tensors = {name: t.detach().cpu().contiguous() for name, t in network.state_dict().items()}
    return Fitted(
        history=session.history, best_epoch=session.best_epoch, tensors=tensors, n_params=n_parameters(network)
    )


def _advance(progress: Progress, before: int, n_steps: int, step: int) -> None:
    progress(before + step, n_steps)


def predict_rows(
    network: CellNetwork, opened: OpenStudy, rows: NDArray[np.int64], *, input_px: int, tta_n: int, device: torch.device
) -> NDArray[np.float32]:
    """Return the mean probability over ``tta_n`` flips and quarter turns, shape (len(rows), n_classes)."""
    network.eval()
    parts = []
    for x_nhwc, _ in iterate_batches(opened, rows, batch_size=_EVAL_BATCH, out_px=input_px):
        with torch.inference_mode():
            views = [torch.softmax(_forward(network, view, device).float(), dim=1) for view in tta_views(x_nhwc, tta_n)]
            parts.append(torch.stack(views).mean(dim=0).cpu().numpy())
    if not parts:
        return np.empty((0, 0), np.float32)
    prob: NDArray[np.float32] = np.concatenate(parts)
    return prob


def _forward(network: nn.Module, x_nhwc: NDArray[np.uint8], device: torch.device) -> Tensor:
    # an NHWC array seen as NCHW is what torch calls channels-last: nothing is copied
    x_nchw = torch.from_numpy(np.ascontiguousarray(x_nhwc)).permute(0, 3, 1, 2).to(device, non_blocking=True)
    return torch.as_tensor(network(x_nchw))


class Session:
    """The moving parts of one training; ``state`` and ``restore`` make it resumable to the bit on one machine."""

    def __init__(self, network: CellNetwork, job: FineTuning) -> None:
        if job.train.loss == "ordinal" and not network.ordinal:
            raise ValueError("loss 'ordinal' needs a network built with ordinal=True")
        self.network, self.job = network, job
        self.parts = TrainedParts(network, train=job.train, strategy=job.strategy)
        self.phases = phases_of(job.train, job.strategy)
        self.steps_per_epoch = max(1, len(job.rows.train) // job.train.batch_size)
        self.n_steps = self.steps_per_epoch * job.train.epochs
        self.use_amp = job.train.amp and job.device.type == "cuda"
        self.scaler = torch.amp.GradScaler(job.device.type, enabled=self.use_amp)
        self.class_names = job.opened.study.class_names
        weight_k = class_weights(
            job.source.labels[job.rows.train], len(self.class_names), method=job.train.class_weights
        )
        self.loss = CellLoss(job.train, weight_k=weight_k, device=job.device)
        self.augmenter = Augmenter(job.augment, out_px=job.input_px)
        decay = job.train.ema_decay
        self.average = WeightAverage(self.parts.changing(), decay=decay) if decay else None
        self.epoch, self.best_epoch, self.best_loss = 0, -1, math.inf
        self.best_weights: dict[str, Tensor] = {}
        self.history: list[dict[str, float]] = []
        self._enter_phase(0)

    def _enter_phase(self, index: int) -> None:
        self.phase_index, self.phase = index, self.phases[index]
        self.parts.train_classifier_only(self.phase.classifier_only)
        self.optimizer = make_optimizer(self.parts, self.job.train, rate=self.phase.rate)
        n_steps = self.steps_per_epoch * (self.phase.end - self.phase.start)
        factor = partial(learning_rate_factor, n_steps=n_steps, warmup=self.job.train.warmup)
        self.scheduler = torch.optim.lr_scheduler.LambdaLR(self.optimizer, factor)

    @property
    def finished(self) -> bool:
        """Whether all epochs are over, or patience is."""
        # waiting starts with the last phase: what comes before it is only its beginning
        waited = self.epoch - 1 - max(self.best_epoch, self.phases[-1].start - 1)
        return self.epoch >= self.job.train.epochs or (self.epoch > 0 and waited >= self.job.train.patience)

    def train_epoch(self, on_step: Callable[[int], None]) -> dict[str, float]:
        """Train for one epoch, telling how many steps are done, and return its figures."""
        if self.epoch == self.phase.end:
            self._enter_phase(self.phase_index + 1)
        self.parts.set_training_mode()
        lr = max(group["lr"] for group in self.optimizer.param_groups)
        logits, labels = [], []
        for step, (x_nhwc, y_nk) in enumerate(self.batches()):
            logits.append(self.step(x_nhwc, torch.from_numpy(y_nk).to(self.job.device)))
            labels.append(y_nk.argmax(axis=1))
            on_step(step + 1)
        self.parts.refuse_idle_lora()
        prob_nk = torch.softmax(torch.cat(logits).double(), dim=1).cpu().numpy()
        figures = loss_and_accuracy(prob_nk, np.concatenate(labels), self.class_names, prefix="train")
        return {"epoch": float(self.epoch), "lr": float(lr), **figures}

    def batches(self) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.float32]]]:
        """Yield the epoch's cells, (n, side, side, 4), and the shares of their classes, (n, n_classes)."""
        job = self.job
        labels = job.source.labels
        rows = epoch_rows(labels, job.rows.train, config=job.resample, seed=job.seed, epoch=self.epoch)
        batches = iterate_batches(
            job.source,
            rows,
            batch_size=job.train.batch_size,
            out_px=job.input_px,
            augmenter=self.augmenter,
            seed=job.seed,
            epoch=self.epoch,
            shuffle=True,
            drop_last=len(rows) >= job.train.batch_size,
        )
        one_hot = np.eye(len(self.class_names), dtype=np.float32)
        mixes = job.augment.mixup > 0 or job.augment.cutmix > 0
        for step, (x_nhwc, batch_rows) in enumerate(batches):
            y_nk = one_hot[labels[batch_rows]]
            if mixes:
                x_nhwc, y_nk = mix_batch(x_nhwc, y_nk, config=job.augment, seed=job.seed, epoch=self.epoch, step=step)
            yield x_nhwc, y_nk

    def step(self, x_nhwc: NDArray[np.uint8], y_nk: Tensor) -> Tensor:
        """Take one step of the optimizer, on as many cells at once as fit, and return the logits."""
        self.optimizer.zero_grad(set_to_none=True)
        n_at_once = self.job.train.micro_batch or len(x_nhwc)
        weight = self.loss.weight(y_nk)
        logits = [
            self._gradients(x_nhwc[i : i + n_at_once], y_nk[i : i + n_at_once], weight)
            for i in range(0, len(x_nhwc), n_at_once)
        ]
        if self.job.train.grad_clip is not None:
            self.scaler.unscale_(self.optimizer)
            trained = [p for group in self.optimizer.param_groups for p in group["params"]]
            nn.utils.clip_grad_norm_(trained, self.job.train.grad_clip)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.scheduler.step()
        if self.average is not None:
            self.average.update()
        return torch.cat(logits)

    def _gradients(self, x_nhwc: NDArray[np.uint8], y_nk: Tensor, weight: Tensor) -> Tensor:
        """Add the gradients of some cells of a batch of that weight, and return their logits."""
        with torch.autocast(self.job.device.type, dtype=torch.float16, enabled=self.use_amp):
            logit_nk = _forward(self.network, x_nhwc, self.job.device).float()
        loss = self.loss.total(logit_nk, y_nk) / weight
        if not torch.isfinite(loss):
            lr = peak_rate(self.job.train)
            raise TrainingError(
                f"The loss became {loss.item()} in epoch {self.epoch}; the network has diverged.\n"
                f"More epochs would not bring it back. Fix: lower train.lr (now {lr:g}), or set train.grad_clip."
            )
        torch.autograd.backward(self.scaler.scale(loss))
        return logit_nk.detach()

    def judged_weights(self) -> AbstractContextManager[None]:
        """Return a context in which the network has the weights that are judged and kept."""
        return nullcontext() if self.average is None else self.average.in_place_of_weights()

    def stopping_figures(self) -> dict[str, float]:
        """Return loss and accuracy on the rows that decide when to stop."""
        job = self.job
        prob_nk = predict_rows(
            self.network, job.opened, job.rows.stop, input_px=job.input_px, tta_n=1, device=job.device
        ).astype(np.float64)
        return loss_and_accuracy(prob_nk, job.opened.labels[job.rows.stop], self.class_names, prefix="stop")

    def note(self, row: dict[str, float]) -> None:
        """Close an epoch with its figures, and keep the weights when they are the best so far."""
        if not math.isfinite(row["stop_loss"]):
            raise TrainingError(
                f"The loss on the stopping fold is not finite in epoch {self.epoch}. Fix: lower train.lr."
            )
        if row["stop_loss"] < self.best_loss:
            self.best_loss, self.best_epoch = row["stop_loss"], self.epoch
            self.best_weights = {name: t.to("cpu", copy=True) for name, t in self.parts.changing().items()}
        self.history.append(row)
        self.epoch += 1
        log.info("epoch %d: %s", self.epoch - 1, ", ".join(f"{k} {v:.4g}" for k, v in row.items()))

    def state(self) -> dict[str, Any]:
        """Return all that the next epoch depends on."""
        return {
            "fingerprint": self.job.fingerprint,
            "epoch": self.epoch,
            "phase": self.phase_index,
            "best_epoch": self.best_epoch,
            "best_loss": self.best_loss,
            "best_weights": self.best_weights,
            "history": self.history,
            "network": self.parts.changing(),
            "average": {} if self.average is None else self.average.state(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "scaler": self.scaler.state_dict(),
            "rng": torch.get_rng_state(),
            "rng_cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        }

    def restore(self, saved: dict[str, Any]) -> None:
        """Go on from a state."""
        self._enter_phase(saved["phase"])
        self.epoch, self.best_epoch, self.best_loss = saved["epoch"], saved["best_epoch"], saved["best_loss"]
        self.best_weights, self.history = saved["best_weights"], saved["history"]
        self.parts.load(saved["network"])
        if self.average is not None:
            self.average.restore(saved["average"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.scheduler.load_state_dict(saved["scheduler"])
        self.scaler.load_state_dict(saved["scaler"])
        torch.set_rng_state(saved["rng"])
        if saved["rng_cuda"]:
            torch.cuda.set_rng_state_all(saved["rng_cuda"])
        log.info("going on after epoch %d", self.epoch - 1)
