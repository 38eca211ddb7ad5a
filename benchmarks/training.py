"""How fast a network trains: cells per second of training steps, feeding included, beside a plain loop.

    python benchmarks/training.py [--quick] [--out DIR] [--data RBC]

Contestants, on the same cells, batches of 32, the same ranges of flip, rotation, scale, shift and colour, AdamW with
clipped gradients and a falling learning rate, random weights, all cores:

- perikarya: the session of its training engine;
- plain: a network of timm with four input channels (of ours where timm has none), torchvision's transforms with the
  mask, a DataLoader with one worker process that stays alive, over crops that lie in memory already decoded, and the
  loop of torch's tutorials. timm and torchvision run as they come.

Beside the whole epoch, its two parts are timed alone, for they overlap in it: feeding (all batches, no network) and
stepping (one batch, again and again). Times are medians over interleaved turns; a ratio is the median over turns of
plain / perikarya, so above 1 perikarya is faster. Prints a table, writes ``training.csv`` to --out and prints, as its
last line, one JSON object.
"""

from __future__ import annotations

import argparse
import csv
import os
import statistics
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torchvision import tv_tensors
from torchvision.transforms import v2

from _common import interleaved, machine, parse_arguments, print_json, print_table, ratio
from input_pipeline import write_cells
from perikarya.config import AugmentConfig, TrainConfig
from perikarya.data.store import OpenStudy
from perikarya.models.build import build_network
from perikarya.models.zoo import NETWORKS
from perikarya.schema import Study
from perikarya.train.rows import FoldRows
from perikarya.train.session import FineTuning, Session

BATCH = 32
WINDOW_PX = 80
CLASSES = ("a", "b", "c", "d", "e")
AUGMENT = AugmentConfig()
TRAIN = TrainConfig(epochs=100, batch_size=BATCH, lr=1e-4)
PARTS = ("whole", "feeding", "stepping")


@dataclass(frozen=True)
class Case:
    """A network, the side of its input, and how many batches a turn has: some seconds on two cores."""

    arch: str
    px: int
    n_batches: int


CASES = (
    Case("custom_cnn", 64, 16),
    Case("efficientnet_lite0", 112, 6),
    Case("resnet50", 112, 3),
    Case("vit_base_224", 80, 2),
    Case("convnext_tiny", 64, 4),
)
Contestant = dict[str, Callable[[], object]]  # part -> what is timed


def main() -> None:
    """Compare on every network."""
    arguments = parse_arguments(__doc__, extend=_add_arguments)
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    print(", ".join(f"{k}: {v}" for k, v in machine().items()))
    rows = []
    for case in CASES:
        if not arguments.arch or case.arch in arguments.arch:
            rows += measure(replace(case, n_batches=1) if arguments.quick else case, arguments)
    header = ["network", "px", "part", "perikarya, cells/s", "plain, cells/s", "ratio", "lowest", "highest"]
    print_table(header, rows)
    if arguments.out is not None:
        arguments.out.mkdir(parents=True, exist_ok=True)
        with (arguments.out / "training.csv").open("w", newline="", encoding="utf-8") as handle:
            csv.writer(handle).writerows([header, *rows])
    ratios = {f"{arch} {px} px, {part}": round(found, 3) for arch, px, part, _, _, found, _, _ in rows}
    print_json("training", quick=arguments.quick, batch=BATCH, plain_over_perikarya=ratios)


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, help="folder for training.csv")
    parser.add_argument("--arch", nargs="+", choices=[case.arch for case in CASES], help="these networks only")
    parser.add_argument("--repeats", type=int, default=5, help="turns of each contestant")


def measure(case: Case, arguments: argparse.Namespace) -> list[list[Any]]:
    """Time both contestants on one network and return one row per part."""
    n_cells = case.n_batches * BATCH
    with tempfile.TemporaryDirectory() as folder:
        files = write_cells(Path(folder), arguments.data, window_px=WINDOW_PX, n_cells=n_cells)
        opened = labelled(files.opened)
        contestants = {"perikarya": perikarya(case, opened), "plain": plain(case, opened)}
        timed = {(name, part): run for name, parts in contestants.items() for part, run in parts.items()}
        wall_s = interleaved(timed, repeats=1 if arguments.quick else arguments.repeats)
    rows: list[list[Any]] = []
    for part in PARTS:
        ours, theirs = wall_s["perikarya", part], wall_s["plain", part]
        n_seen = BATCH if part == "stepping" else n_cells
        gains = [t / o for t, o in zip(theirs, ours, strict=True)]
        speeds = [n_seen / statistics.median(seconds) for seconds in (ours, theirs)]
        rows.append([case.arch, case.px, part, *speeds, ratio(theirs, ours), min(gains), max(gains)])
    return rows


def labelled(opened: OpenStudy) -> OpenStudy:
    """Return the same cells with labels, which a training needs; any will do."""
    labels = [CLASSES[i % len(CLASSES)] for i in range(len(opened.cells))]
    study = Study(name="benchmark", class_names=CLASSES, window_px=WINDOW_PX)
    return replace(opened, study=study, cells=pd.DataFrame({"label": labels}))


def perikarya(case: Case, opened: OpenStudy) -> Contestant:
    """Return the parts of an epoch of the training engine."""
    every = np.arange(len(opened.cells))
    none = np.empty(0, np.int64)
    rows = FoldRows(train=every, stop=none, test=none, external=none)
    network = build_network(case.arch, n_classes=len(CLASSES), input_px=case.px)
    network.to(memory_format=torch.channels_last)
    session = Session(network, FineTuning(opened, rows, TRAIN, AUGMENT, case.px, 0, "", torch.device("cpu")))
    session.parts.set_training_mode()
    x_nhwc, y_nk = next(session.batches())
    return {
        "whole": lambda: session.train_epoch(lambda _: None),
        "feeding": lambda: [None for _ in session.batches()],
        "stepping": lambda: session.step(x_nhwc, torch.from_numpy(y_nk)),
    }


def plain(case: Case, opened: OpenStudy) -> Contestant:
    """Return the parts of an epoch of a plain loop."""
    cells = InMemory(opened, plain_transform(case.px, case.arch))
    # timm's reference script and torch's tutorials shuffle and keep their workers
    loader = torch.utils.data.DataLoader(
        cells, batch_size=BATCH, shuffle=True, drop_last=True, num_workers=1, persistent_workers=True
    )
    network = plain_network(case).train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=TRAIN.lr, weight_decay=TRAIN.weight_decay)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=10_000)
    criterion = nn.CrossEntropyLoss()

    def step(x_nchw: Tensor, y_n: Tensor) -> tuple[float, int]:
        optimizer.zero_grad()
        logit_nk = network(x_nchw)
        loss = criterion(logit_nk, y_n)
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), TRAIN.grad_clip or 0)
        optimizer.step()
        scheduler.step()
        return loss.item(), int((logit_nk.argmax(dim=1) == y_n).sum())

    batch = next(iter(loader))
    return {
        "whole": lambda: [step(x_nchw, y_n) for x_nchw, y_n in loader],
        "feeding": lambda: [None for _ in loader],
        "stepping": lambda: step(*batch),
    }


def plain_network(case: Case) -> nn.Module:
    """Build the network as a user of timm would."""
    spec = NETWORKS.get(case.arch)
    if not spec.timm_name:
        return build_network(case.arch, n_classes=len(CLASSES)).backbone
    import timm

    sized = {"img_size": case.px} if spec.sized else {}
    settings = {**spec.timm_kwargs, **sized}
    network: nn.Module = timm.create_model(spec.timm_name, in_chans=4, num_classes=len(CLASSES), **settings)
    return network


class InMemory(torch.utils.data.Dataset[tuple[Tensor, int]]):
    """Crops in memory, as tensors of four channels."""

    def __init__(self, opened: OpenStudy, transform: Callable[[Any, Any], tuple[Tensor, Tensor]]) -> None:
        self.crops: NDArray[np.uint8] = np.array(opened.crops)
        self.labels = opened.labels
        self.transform = transform

    def __len__(self) -> int:
        return len(self.crops)

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        chw = torch.from_numpy(self.crops[i]).permute(2, 0, 1)
        image, mask = self.transform(tv_tensors.Image(chw[:3]), tv_tensors.Mask(chw[3:]))
        return torch.cat([image, mask]), int(self.labels[i])


def plain_transform(px: int, arch: str) -> Callable[[Any, Any], tuple[Tensor, Tensor]]:
    """Return torchvision's transforms in the cheaper order: resized last when cells get larger, else first."""
    spec = NETWORKS.get(arch)
    shift = (AUGMENT.translate, AUGMENT.translate)
    scale = (1 / (1 + AUGMENT.scale), 1 + AUGMENT.scale)
    steps: list[nn.Module] = [
        v2.RandomHorizontalFlip(),
        v2.RandomVerticalFlip(),
        v2.RandomAffine(AUGMENT.rotate_deg, translate=shift, scale=scale, interpolation=v2.InterpolationMode.BILINEAR),
        v2.ColorJitter(brightness=AUGMENT.brightness, contrast=AUGMENT.contrast, saturation=AUGMENT.saturation),
    ]
    resize = v2.Resize((px, px), antialias=True)
    steps = [resize, *steps] if px < WINDOW_PX else [*steps, resize] if px > WINDOW_PX else steps
    compose = v2.Compose([*steps, v2.ToDtype({tv_tensors.Image: torch.float32, "others": None}, scale=True)])
    normalise = v2.Normalize(spec.mean, spec.std)

    def transform(image: Any, mask: Any) -> tuple[Tensor, Tensor]:
        image, mask = compose(image, mask)
        return normalise(image).as_subclass(Tensor), mask.as_subclass(Tensor).float() / 255

    return transform


if __name__ == "__main__":
    main()
