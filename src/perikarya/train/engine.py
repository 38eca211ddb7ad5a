"""Fine-tune one network on one fold: early stopping, best weights kept, resumable after any epoch."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from perikarya.config import AugmentConfig, TrainConfig
from perikarya.data.augment import Augmenter, tta_views
from perikarya.data.loader import iterate_batches
from perikarya.data.store import OpenStudy
from perikarya.errors import TrainingError
from perikarya.models.build import CellNetwork, n_parameters
from perikarya.train.checkpoint import load_state, save_state
from perikarya.train.rows import Fitted, FoldRows, class_weights, loss_and_accuracy

log = logging.getLogger(__name__)

Progress = Callable[[int, int], None]
_EVAL_BATCH = 64


@dataclass(frozen=True)
class FineTuning:
    """Everything that decides the result of one fine-tuning.

    ``fingerprint`` names the settings and the data, so that a saved state is never continued under others.
    """

    opened: OpenStudy
    rows: FoldRows
    train: TrainConfig
    augment: AugmentConfig
    input_px: int
    seed: int
    fingerprint: str
    device: torch.device


def finetune(network: CellNetwork, job: FineTuning, *, state_path: Path, progress: Progress) -> Fitted:
    """Train a network and leave it with the weights of its best epoch.

    Parameters
    ----------
    network
        Four channels in; it is moved to ``job.device`` and trained in place.
    job
        Rows and settings.
    state_path
        Where the state after each epoch is kept; an existing one is continued.
    progress
        Called with (steps done, steps in all).

    Raises
    ------
    TrainingError
        If the loss is not finite.
    """
    network.to(job.device).to(memory_format=torch.channels_last)
    steps_per_epoch = max(1, len(job.rows.train) // job.train.batch_size)
    session = _Session(network, job, n_steps=steps_per_epoch * job.train.epochs)
    saved = load_state(state_path, fingerprint=job.fingerprint)
    if saved is not None:
        session.restore(saved)
    while not session.finished:
        before = session.epoch * steps_per_epoch
        row = session.train_epoch(partial(_advance, progress, before, session.n_steps))
        row |= session.stopping_figures()
        session.note(row)
        save_state(state_path, session.state())
    progress(session.n_steps, session.n_steps)
    network.load_state_dict(session.best_weights)
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


def learning_rate_factor(step: int, *, n_steps: int, warmup: float) -> float:
    """Return the share of the peak learning rate at a step: a linear rise, then a half cosine down to 0."""
    n_rise = max(1, round(warmup * n_steps)) if warmup > 0 else 0
    if step < n_rise:
        return (step + 1) / n_rise
    return 0.5 * (1 + math.cos(math.pi * (step - n_rise) / max(1, n_steps - n_rise)))


class _Session:
    """The moving parts of one training; ``state`` and ``restore`` make it resumable to the bit on one machine."""

    def __init__(self, network: CellNetwork, job: FineTuning, *, n_steps: int) -> None:
        self.network, self.job, self.n_steps = network, job, n_steps
        self.optimizer = _optimizer(network, job.train)
        self.scheduler = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer, lambda step: learning_rate_factor(step, n_steps=n_steps, warmup=job.train.warmup)
        )
        self.use_amp = job.train.amp and job.device.type == "cuda"
        self.scaler = torch.amp.GradScaler(job.device.type, enabled=self.use_amp)
        self.class_names = job.opened.study.class_names
        labels = job.opened.labels[job.rows.train]
        weight_k = class_weights(labels, len(self.class_names), method=job.train.class_weights)
        self.loss = nn.CrossEntropyLoss(
            weight=torch.from_numpy(weight_k).to(job.device), label_smoothing=job.train.label_smoothing
        )
        self.augmenter = Augmenter(job.augment, out_px=job.input_px)
        self.epoch, self.best_epoch, self.best_loss = 0, -1, math.inf
        self.best_weights: dict[str, Tensor] = {}
        self.history: list[dict[str, float]] = []
        torch.manual_seed(job.seed)

    @property
    def finished(self) -> bool:
        waited = self.epoch - 1 - self.best_epoch
        return self.epoch >= self.job.train.epochs or (self.epoch > 0 and waited >= self.job.train.patience)

    def train_epoch(self, on_step: Callable[[int], None]) -> dict[str, float]:
        self.network.train()
        job = self.job
        probs, labels = [], []
        lr = self.optimizer.param_groups[0]["lr"]
        batches = iterate_batches(
            job.opened,
            job.rows.train,
            batch_size=job.train.batch_size,
            out_px=job.input_px,
            augmenter=self.augmenter,
            seed=job.seed,
            epoch=self.epoch,
            shuffle=True,
            drop_last=len(job.rows.train) >= job.train.batch_size,
        )
        for step, (x_nhwc, rows) in enumerate(batches):
            y_n = torch.from_numpy(job.opened.labels[rows]).to(job.device)
            prob_nk = self._step(x_nhwc, y_n)
            probs.append(prob_nk)
            labels.append(job.opened.labels[rows])
            on_step(step + 1)
        figures = loss_and_accuracy(np.concatenate(probs), np.concatenate(labels), self.class_names, prefix="train")
        return {"epoch": float(self.epoch), "lr": float(lr), **figures}

    def _step(self, x_nhwc: NDArray[np.uint8], y_n: Tensor) -> NDArray[np.float64]:
        self.optimizer.zero_grad(set_to_none=True)
        with torch.autocast(self.job.device.type, dtype=torch.float16, enabled=self.use_amp):
            logit_nk = _forward(self.network, x_nhwc, self.job.device)
            loss = self.loss(logit_nk.float(), y_n)
        if not torch.isfinite(loss):
            raise TrainingError(
                f"The loss became {loss.item()} in epoch {self.epoch}; the network has diverged.\n"
                f"More epochs would not bring it back. Fix: lower train.lr (now {self.job.train.lr:g}), "
                "or set train.grad_clip."
            )
        self.scaler.scale(loss).backward()
        if self.job.train.grad_clip is not None:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.network.parameters(), self.job.train.grad_clip)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.scheduler.step()
        prob_nk: NDArray[np.float64] = torch.softmax(logit_nk.detach().double(), dim=1).cpu().numpy()
        return prob_nk

    def stopping_figures(self) -> dict[str, float]:
        job = self.job
        prob_nk = predict_rows(
            self.network, job.opened, job.rows.stop, input_px=job.input_px, tta_n=1, device=job.device
        ).astype(np.float64)
        return loss_and_accuracy(prob_nk, job.opened.labels[job.rows.stop], self.class_names, prefix="stop")

    def note(self, row: dict[str, float]) -> None:
        if not math.isfinite(row["stop_loss"]):
            raise TrainingError(
                f"The loss on the stopping fold is not finite in epoch {self.epoch}. Fix: lower train.lr."
            )
        if row["stop_loss"] < self.best_loss:
            self.best_loss, self.best_epoch = row["stop_loss"], self.epoch
            self.best_weights = {name: t.detach().cpu().clone() for name, t in self.network.state_dict().items()}
        self.history.append(row)
        self.epoch += 1
        log.info("epoch %d: %s", self.epoch - 1, ", ".join(f"{k} {v:.4g}" for k, v in row.items()))

    def state(self) -> dict[str, Any]:
        return {
            "fingerprint": self.job.fingerprint,
            "epoch": self.epoch,
            "best_epoch": self.best_epoch,
            "best_loss": self.best_loss,
            "best_weights": self.best_weights,
            "history": self.history,
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "scaler": self.scaler.state_dict(),
            "rng": torch.get_rng_state(),
            "rng_cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        }

    def restore(self, saved: dict[str, Any]) -> None:
        self.epoch, self.best_epoch, self.best_loss = saved["epoch"], saved["best_epoch"], saved["best_loss"]
        self.best_weights, self.history = saved["best_weights"], saved["history"]
        self.network.load_state_dict(saved["network"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.scheduler.load_state_dict(saved["scheduler"])
        self.scaler.load_state_dict(saved["scaler"])
        torch.set_rng_state(saved["rng"])
        if saved["rng_cuda"]:
            torch.cuda.set_rng_state_all(saved["rng_cuda"])
        log.info("going on after epoch %d", self.epoch - 1)


def _optimizer(network: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """Weight decay spares biases and normalisation, as is usual since Loshchilov & Hutter (2019)."""
    decayed = [p for p in network.parameters() if p.requires_grad and p.ndim > 1]
    spared = [p for p in network.parameters() if p.requires_grad and p.ndim <= 1]
    groups: list[dict[str, Any]] = [
        {"params": decayed, "weight_decay": config.weight_decay},
        {"params": spared, "weight_decay": 0.0},
    ]
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=config.lr, momentum=0.9, nesterov=True)
    if config.optimizer == "adam":
        return torch.optim.Adam(groups, lr=config.lr)
    return torch.optim.AdamW(groups, lr=config.lr)
