"""The moving parts of one training: steps, epochs, and the state they can go on from."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from perikarya.config import AugmentConfig, ResampleConfig, TrainConfig
from perikarya.data.augment import Augmenter
from perikarya.data.loader import iterate_batches, share_of
from perikarya.data.mixing import mix_batch
from perikarya.data.resampling import epoch_rows
from perikarya.data.store import OpenStudy
from perikarya.errors import TrainingError
from perikarya.models.build import CellNetwork
from perikarya.train.distributed import current_team
from perikarya.train.ema import WeightAverage
from perikarya.train.inference import EVAL_BATCH, forward, predict_rows
from perikarya.train.losses import CellLoss
from perikarya.train.optim import learning_rate_factor, make_optimizer, peak_rate, phases_of
from perikarya.train.parts import Strategy, TrainedParts
from perikarya.train.record import EpochRecord
from perikarya.train.rows import FoldRows, class_weights, loss_and_accuracy

log = logging.getLogger(__name__)


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


class Session:
    """The moving parts of one training; ``state`` and ``restore`` make it resumable to the bit on one machine."""

    def __init__(self, network: CellNetwork, job: FineTuning) -> None:
        if job.train.loss == "ordinal" and not network.ordinal:
            raise ValueError("loss 'ordinal' needs a network built with ordinal=True")
        self.network, self.job = network, job
        self.parts = TrainedParts(network, train=job.train, strategy=job.strategy)
        self.phases = phases_of(job.train, job.strategy)
        self.team = current_team()
        self.batch_cells = min(job.train.batch_size, len(job.rows.train))
        self.n_passes = self.team.n_passes(self.batch_cells, job.train.micro_batch)
        self.steps_per_epoch = len(job.rows.train) // self.batch_cells
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
        self._enter_epoch()

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

    def _enter_epoch(self) -> None:
        self.steps_done = 0
        self.lr = max(group["lr"] for group in self.optimizer.param_groups)
        n_cells = self.steps_per_epoch * self.batch_cells
        self.record = EpochRecord(n_cells, len(self.class_names), device=self.job.device)

    def train_epoch(self, on_step: Callable[[int], None]) -> dict[str, float]:
        """Train for one epoch, or what is left of it, telling how many steps are done, and return its figures."""
        if self.epoch == self.phase.end:
            self._enter_phase(self.phase_index + 1)
        if self.steps_done == 0:
            self._enter_epoch()
        self.parts.set_training_mode()
        share = self.team.share(self.batch_cells)
        is_first_step = True
        for x_nhwc, y_nk in self.batches():
            start = self.steps_done * self.batch_cells
            logit_nk = self.step(x_nhwc, torch.from_numpy(y_nk).to(self.job.device))
            self.record.note(slice(start + share.start, start + share.stop), logit_nk, y_nk.argmax(axis=1))
            if is_first_step:
                self.parts.refuse_idle_lora()
                is_first_step = False
            self.steps_done += 1
            on_step(self.steps_done)
        self.steps_done = 0
        logit_nk, label_n = self.record.joined(self.team)
        prob_nk = torch.softmax(logit_nk.double(), dim=1).cpu().numpy()
        figures = loss_and_accuracy(prob_nk, label_n.cpu().numpy(), self.class_names, prefix="train")
        return {"epoch": float(self.epoch), "lr": float(self.lr), **figures}

    def batches(self) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.float32]]]:
        """Yield what is left of the epoch, of each batch the share of this process.

        That is cells, (n, side, side, 4), and the shares of their classes, (n, n_classes).
        """
        job, team = self.job, self.team
        labels = job.source.labels
        rows = epoch_rows(labels, job.rows.train, config=job.resample, seed=job.seed, epoch=self.epoch)
        mixes = job.augment.mixup > 0 or job.augment.cutmix > 0
        batches = iterate_batches(
            job.source,
            rows,
            batch_size=self.batch_cells,
            out_px=job.input_px,
            augmenter=self.augmenter,
            seed=job.seed,
            epoch=self.epoch,
            shuffle=True,
            drop_last=True,
            first=self.steps_done,
            share=(0, 1) if mixes else (team.rank, team.size),  # cells are mixed with any of the whole batch
        )
        one_hot = np.eye(len(self.class_names), dtype=np.float32)
        for step, (x_nhwc, batch_rows) in enumerate(batches, start=self.steps_done):
            y_nk = one_hot[labels[batch_rows]]
            if mixes:
                x_nhwc, y_nk = mix_batch(x_nhwc, y_nk, config=job.augment, seed=job.seed, epoch=self.epoch, step=step)
                own = team.share(len(x_nhwc))
                x_nhwc, y_nk = x_nhwc[own], y_nk[own]
            yield x_nhwc, y_nk

    def step(self, x_nhwc: NDArray[np.uint8], y_nk: Tensor) -> Tensor:
        """Take one step of the optimizer, on as many cells at once as fit, and return the logits.

        Cells are the share of this process; the step is that of the whole batch.
        """
        self.optimizer.zero_grad(set_to_none=True)
        weight = self.team.batch_weight(self.loss.weight(y_nk))
        parts = [share_of(len(x_nhwc), k, self.n_passes) for k in range(self.n_passes)]
        logits = [self._gradients(x_nhwc[part], y_nk[part], weight) for part in parts]
        trained = [p for group in self.optimizer.param_groups for p in group["params"]]
        self.team.sum_gradients(trained)
        if self.job.train.grad_clip is not None:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(trained, self.job.train.grad_clip)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.scheduler.step()
        self.team.average_statistics(self.network)
        if self.average is not None:
            self.average.update()
        return torch.cat(logits)

    def _gradients(self, x_nhwc: NDArray[np.uint8], y_nk: Tensor, weight: Tensor) -> Tensor:
        """Add the gradients of some cells of a batch of that weight, and return their logits."""
        with torch.autocast(self.job.device.type, dtype=torch.float16, enabled=self.use_amp):
            logit_nk = forward(self.network, x_nhwc, self.job.device).float()
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
        rows, labels = job.rows.stop, job.opened.labels[job.rows.stop]
        own = self.team.dealt(len(rows), block=EVAL_BATCH)  # the batches of one process, so that figures are its own
        prob_nk = torch.zeros(len(rows), len(self.class_names))
        if len(own):
            found = predict_rows(self.network, job.opened, rows[own], input_px=job.input_px, tta_n=1, device=job.device)
            prob_nk[own] = torch.from_numpy(found)
        prob_nk = self.team.sum(prob_nk)
        return loss_and_accuracy(prob_nk.double().numpy(), labels, self.class_names, prefix="stop")

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
        """Return all that the next step depends on; in a team, all processes must call it."""
        on_gpu = self.job.device.type == "cuda"
        rng_cuda = torch.cuda.get_rng_state(self.job.device) if on_gpu else torch.empty(0, dtype=torch.uint8)
        return {
            "epoch": self.epoch,
            "phase": self.phase_index,
            "best_epoch": self.best_epoch,
            "best_loss": self.best_loss,
            "best_weights": self.best_weights,
            "history": self.history,
            "steps_done": self.steps_done,
            "lr": self.lr,
            "record": self.record.state(self.team) if self.steps_done else {},
            "network": self.parts.changing(),
            "average": {} if self.average is None else self.average.state(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "scaler": self.scaler.state_dict(),
            "rng": self.team.gather(torch.get_rng_state()),
            "rng_cuda": self.team.gather(rng_cuda),
        }

    def restore(self, saved: dict[str, Any]) -> None:
        """Go on from a state, in a team of any size; random numbers of processes it has not seen start anew."""
        self._enter_phase(saved["phase"])
        self.epoch, self.best_epoch, self.best_loss = saved["epoch"], saved["best_epoch"], saved["best_loss"]
        self.best_weights, self.history = saved["best_weights"], saved["history"]
        self.parts.load(saved["network"])
        if self.average is not None:
            self.average.restore(saved["average"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.scheduler.load_state_dict(saved["scheduler"])
        self.scaler.load_state_dict(saved["scaler"])
        self._enter_epoch()
        self.steps_done, self.lr = saved["steps_done"], saved["lr"]
        if self.steps_done:
            self.record.restore(saved["record"], self.team)
        if self.team.rank < len(saved["rng"]):
            torch.set_rng_state(saved["rng"][self.team.rank])
            if self.job.device.type == "cuda" and len(saved["rng_cuda"][self.team.rank]):
                torch.cuda.set_rng_state(saved["rng_cuda"][self.team.rank], self.job.device)
        log.info("going on in epoch %d after step %d", self.epoch, self.steps_done)
