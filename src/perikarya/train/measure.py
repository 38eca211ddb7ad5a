"""What a network costs on this machine, measured in a process of its own, so that its peak memory is its own."""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from perikarya.errors import TrainingError
from perikarya.models.zoo import NETWORKS, check_input_px

if TYPE_CHECKING:
    import torch

_BUDGET_S = 6.0  # for repeats of one timing, after a first pass that warms up
_MAX_REPEATS = 10
_N_CLASSES = 3
_STEP_CELLS = 16  # the batch of the published study
_SPARE = 0.9  # of the available memory that a measurement may plan with


@dataclass(frozen=True)
class Cost:
    """What one network costs.

    ``gmacs`` are multiplications and additions of one cell, in 10^9, as torch counts them (convolutions and matrix
    products). Speeds are in cells/s, from pixel values to logits. Peaks are in GiB, above what torch needs for
    itself. A training step takes ``step_cells`` cells with AdamW, ``micro_batch`` at a time, and with
    ``checkpointing`` where the zoo says so; None where it was not measured.
    """

    name: str
    input_px: int
    params_m: float
    gmacs: float
    cells_per_s_1: float
    cells_per_s_batch: float
    batch: int
    peak_gib: float
    step_cells: int | None = None
    micro_batch: int | None = None
    checkpointing: bool | None = None
    step_cells_per_s: float | None = None
    step_peak_gib: float | None = None


def measure(arch: str, *, input_px: int | None, batch: int, train: bool) -> Cost:
    """Measure one network with random weights in fresh processes; ``train`` adds a training step.

    Raises
    ------
    UnknownNameError, ConfigError
        If there is no such network, or it takes no input of that size.
    TrainingError
        If it would not fit into memory, or a measuring process ends badly.
    """
    side = input_px or NETWORKS.get(arch).input_px
    check_input_px(arch, side)
    _refuse_too_large(arch, train=train)
    found = _in_process(arch, side, batch, "predict")
    if train:
        found |= _in_process(arch, side, batch, "train")
    return Cost(**found)


def _refuse_too_large(arch: str, *, train: bool) -> None:
    import psutil

    copies = 4 if train else 1  # weights; gradients and two moments of AdamW
    needed = NETWORKS.get(arch).params_m * 1e6 * 4 * copies
    available = _SPARE * psutil.virtual_memory().available
    if needed > available:
        raise TrainingError(
            f"{arch} needs more than {needed / 2**30:.1f} GiB, and {available / 2**30:.1f} GiB are free.\n"
            "Measured while swapping, its figures would mean nothing. Fix: close other programs, or leave it out."
        )


def _in_process(arch: str, input_px: int, batch: int, what: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "perikarya.train.measure", arch, str(input_px), str(batch), what]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - our own module
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or [f"its process ended with {done.returncode} (-9: out of memory)"]
        raise TrainingError(f"{arch} could not be measured: {lines[-1][:300]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    """Measure what the arguments name and print it as JSON; the other side of ``measure``."""
    parser = argparse.ArgumentParser()
    parser.add_argument("arch")
    parser.add_argument("input_px", type=int)
    parser.add_argument("batch", type=int)
    parser.add_argument("what", choices=["predict", "train"])
    arguments = parser.parse_args()
    work = _prediction if arguments.what == "predict" else _training
    print(json.dumps(work(arguments.arch, arguments.input_px, arguments.batch)))  # noqa: T201 - read by the parent


def _prediction(arch: str, input_px: int, batch: int) -> dict[str, Any]:
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from perikarya.models.build import build_network, n_parameters

    _limit_threads()
    idle = _idle_gib()
    network = build_network(arch, n_classes=_N_CLASSES, input_px=input_px).to(memory_format=torch.channels_last).eval()
    one, many = (_crops(n, input_px) for n in (1, batch))
    with torch.inference_mode():
        with FlopCounterMode(display=False) as counter:
            network(one)
        speeds = [len(x) / _median_s(partial(network, x)) for x in (one, many)]
    cost = Cost(
        name=arch,
        input_px=input_px,
        params_m=n_parameters(network) / 1e6,
        gmacs=counter.get_total_flops() / 2e9,
        cells_per_s_1=speeds[0],
        cells_per_s_batch=speeds[1],
        batch=batch,
        peak_gib=_peak_gib() - idle,
    )
    return asdict(cost)


def _training(arch: str, input_px: int, _: int) -> dict[str, Any]:
    import torch

    from perikarya.config import TrainConfig
    from perikarya.models.build import build_network
    from perikarya.train.optim import make_optimizer
    from perikarya.train.parts import TrainedParts

    _limit_threads()
    idle = _idle_gib()
    spec = NETWORKS.get(arch)
    micro = min(spec.micro_batch or _STEP_CELLS, _STEP_CELLS)
    settings = TrainConfig(batch_size=_STEP_CELLS, micro_batch=micro, checkpointing=spec.checkpointing, lr=spec.lr)
    network = build_network(arch, n_classes=_N_CLASSES, input_px=input_px).to(memory_format=torch.channels_last)
    parts = TrainedParts(network, train=settings, strategy="finetune")
    optimizer = make_optimizer(parts, settings, rate=spec.lr)
    network.train()
    x, y = _crops(micro, input_px), torch.arange(micro) % _N_CLASSES

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        for _ in range(_STEP_CELLS // micro):
            torch.autograd.backward(torch.nn.functional.cross_entropy(network(x), y))
        optimizer.step()

    seconds = _median_s(step)
    return {
        "step_cells": _STEP_CELLS,
        "micro_batch": micro,
        "checkpointing": spec.checkpointing,
        "step_cells_per_s": _STEP_CELLS / seconds,
        "step_peak_gib": _peak_gib() - idle,
    }


def _limit_threads() -> None:
    import torch

    torch.set_num_threads(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


def _crops(n: int, side: int) -> torch.Tensor:
    import torch

    generator = torch.Generator().manual_seed(0)
    x_nhwc = torch.randint(0, 256, (n, side, side, 4), dtype=torch.uint8, generator=generator)
    x_nhwc[..., 3] = (x_nhwc[..., 3] > 127) * 255
    return x_nhwc.permute(0, 3, 1, 2)


def _median_s(work: Callable[[], object]) -> float:
    """Run once to warm up, then as often as the budget allows, at least once; return the median time in seconds."""
    work()
    seconds: list[float] = []
    while not seconds or (sum(seconds) < _BUDGET_S and len(seconds) < _MAX_REPEATS):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return median(seconds)


def _idle_gib() -> float:
    """Return what the process holds now, and forget what it held before: imports and the parent's own peak."""
    import psutil

    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # Linux: the peak starts anew
    return float(psutil.Process().memory_info().rss) / 2**30


def _peak_gib() -> float:
    status = Path("/proc/self/status")
    if status.is_file():
        peak_kib = next(line.split()[1] for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(peak_kib) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**30  # macOS counts bytes


if __name__ == "__main__":
    main()
