"""One of two processes that train together; ``python -m tests.train.pair FOLDER`` with the study in FOLDER/study.

All trainings are done one after another, for starting takes longer than any of them. What each process has in the end
goes to FOLDER/<name>.<rank>.pt.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from tests.train.jobs import changed, make_job, network

from perikarya.config import AugmentConfig
from perikarya.errors import InterruptedWorkError
from perikarya.train import distributed, engine
from perikarya.train.distributed import Team, joined_team
from perikarya.train.engine import finetune
from perikarya.train.session import FineTuning

SGD = {"epochs": 3, "optimizer": "sgd", "lr": 0.05}
VIT: dict[str, Any] = {"arch": "vit"}
DROPOUT = {**VIT, "proj_drop_rate": 0.3}
EVERYTHING = {
    "epochs": 3,
    "ema_decay": 0.9,
    "class_weights": "balanced",
    "label_smoothing": 0.1,
    "grad_clip": 0.5,
    "batch_size": 15,
    "augment": AugmentConfig(mixup=0.4, cutmix=1.0),
}
STOPPED_AFTER = 5  # a step in the middle of an epoch

# name -> settings of training, of the network
TRAININGS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "plain": (SGD, VIT),
    "everything": (EVERYTHING, VIT),
    "passes": ({**SGD, "micro_batch": 3}, VIT),
    "phases": ({**SGD, "strategy": "head-then-finetune", "head_epochs": 1}, VIT),
    "lora": ({"epochs": 2, "strategy": "lora", "lora_rank": 2}, {}),
    "batch-norm": ({"epochs": 1}, {"arch": "convnet"}),
    "patience": ({"epochs": 9, "patience": 1, "optimizer": "sgd", "lr": 2.0, "grad_clip": None}, VIT),
    "dropout": ({"epochs": 3}, DROPOUT),
    "interrupted": ({"epochs": 3}, DROPOUT),
    "taken-over": (SGD, VIT),  # from one process, see test_distributed
}


def main() -> None:
    folder, rank = Path(sys.argv[1]), int(os.environ["RANK"])
    distributed._BUCKET_ELEMENTS = 5000  # so that gradients go in several pieces
    writers: list[int] = []
    save = engine.save_state

    def save_slowly(path: Path, state: dict[str, Any]) -> None:  # so that a process which does not wait is found out
        writers.append(rank)
        time.sleep(0.1)
        save(path, state)

    engine.save_state = save_slowly
    job, wish = make_job(folder / "study"), threading.Event()
    with joined_team(rank, 2, wish=wish) as team:
        for name, (settings, net) in TRAININGS.items():
            asked = changed(job, **settings)
            state = folder / f"{name}.state"
            if name == "interrupted":
                _stop_and_check(asked, net, state, team, wish)
            trained = network(asked, **net)
            fitted = finetune(trained, asked, state_path=state, progress=lambda done, total: None)
            found = {"history": fitted.history, "best_epoch": fitted.best_epoch, "tensors": fitted.tensors}
            torch.save(found, folder / f"{name}.{rank}.pt")
    torch.save(writers, folder / f"writers.{rank}.pt")


def _stop_and_check(job: FineTuning, net: dict[str, Any], state: Path, team: Team, wish: threading.Event) -> None:
    """Let the second process wish to stop; both must do so after the following step."""
    taken: list[int] = []

    def progress(done: int, total: int) -> None:
        taken.append(done)
        if done == STOPPED_AFTER - 1 and team.rank == 1:
            wish.set()
        if team.stopping:
            raise InterruptedWorkError("stop")

    with suppress(InterruptedWorkError):
        finetune(network(job, **net), job, state_path=state, progress=progress)
    wish.clear()
    torch.save(taken, state.with_suffix(f".steps.{team.rank}.pt"))


if __name__ == "__main__":
    main()
