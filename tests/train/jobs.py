"""A fine-tuning of the tiny study that takes a second, and the networks it is tried with."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from tests.tiny import make_study
from tests.train.nets import convnet, vit

from perikarya.config import AugmentConfig, TrainConfig
from perikarya.data.store import open_study
from perikarya.models.build import CellNetwork, build_network
from perikarya.train.rows import FoldRows
from perikarya.train.session import FineTuning

CPU = torch.device("cpu")


def make_job(root: Path) -> FineTuning:
    """Three steps of 16 cells per epoch, 36 cells to stop by; the study is made where it is not yet."""
    torch.set_num_threads(1)
    opened = open_study(root) if root.is_dir() else make_study(root)
    animal = opened.cells["subject"].str.removeprefix("animal").astype(int).to_numpy()
    part = lambda low, high: np.flatnonzero((animal >= low) & (animal < high))  # noqa: E731
    rows = FoldRows(train=part(0, 5), stop=part(5, 8), test=part(8, 12), external=part(8, 12))
    train = TrainConfig(epochs=5, batch_size=16, lr=3e-3, tta_views=1)
    return FineTuning(opened, rows, train, AugmentConfig(), 32, 0, "fingerprint", CPU)


def changed(job: FineTuning, **settings: object) -> FineTuning:
    """The job with other settings of training; those of the job itself are recognised by their names."""
    own = {key: settings.pop(key) for key in list(settings) if hasattr(job, key)}
    return replace(job, train=job.train.model_copy(update=settings), **own)


def network(job: FineTuning, *, arch: str = "custom_cnn", **settings: object) -> CellNetwork:
    """The zoo's small network, or one of the tests': a transformer without batch normalisation, or convolutions."""
    if arch == "convnet":
        return convnet(seed=job.seed)
    if job.strategy == "lora" or arch == "vit":
        return vit(seed=job.seed, **settings)
    torch.manual_seed(job.seed)
    return build_network(arch, n_classes=3)
