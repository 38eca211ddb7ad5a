"""What a second process on the same CPU brings to one training, and how far its loss curve is from that of one.

    python benchmarks/several_processes.py [--quick] [--processes 2]

Contestants, on the same invented cells, in batches of 32 of AdamW: one process with all cores; several processes with
their share of the cores each, started by torch.distributed.run as a task is. Timed is an epoch without its start, its
first epoch left out; turns are interleaved, a ratio is the median over turns of one / several, so above 1 several are
faster. ``difference`` is the largest between the training losses of the epochs: rounding for a network without batch
normalisation, the statistics of smaller batches for one with it. Prints a table and, as its last line, one JSON object.

On a CPU several processes are for tests; the speed that counts is that of several GPUs, which this script uses too
where there are as many.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from _common import machine, parse_arguments, print_json, print_table, ratio

BATCH, WINDOW_PX = 32, 80


@dataclass(frozen=True)
class Case:
    """A network, the side of its input, and how many batches an epoch has."""

    arch: str
    px: int
    n_batches: int


CASES = (Case("custom_cnn", 64, 16), Case("efficientnet_lite0", 112, 4), Case("convnext_tiny", 64, 4))


def main() -> None:
    arguments = parse_arguments(__doc__, extend=_add_arguments)
    if arguments.inside:
        _inside(Case(*json.loads(arguments.inside)), arguments.epochs, arguments.threads)
        return
    print(", ".join(f"{k}: {v}" for k, v in machine().items()))
    epochs, turns = (2, 1) if arguments.quick else (4, 3)
    rows, found = [], {}
    for case in CASES[:1] if arguments.quick else CASES:
        sizes = (1, arguments.processes)
        runs = [{n: _run(case, n, epochs) for n in sizes} for _ in range(turns)]
        one_s, several_s = ([statistics.median(run[n]["epoch_s"]) for run in runs] for n in sizes)
        losses = [np.array(runs[0][n]["losses"]) for n in sizes]
        times = ratio(one_s, several_s)
        difference = float(np.abs(losses[0] - losses[1]).max())
        rows.append([case.arch, case.px, statistics.median(one_s), statistics.median(several_s), times, difference])
        found[case.arch] = {"ratio": times, "difference": difference}
    print_table(["network", "px", "one process s", "several s", "one / several", "difference"], rows)
    print_json({"processes": arguments.processes, "networks": found, **machine()})


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--inside", help=argparse.SUPPRESS)
    parser.add_argument("--epochs", type=int, default=2, help=argparse.SUPPRESS)
    parser.add_argument("--threads", type=int, default=1, help=argparse.SUPPRESS)


def _run(case: Case, n_processes: int, epochs: int) -> dict[str, Any]:
    threads = max(1, len(os.sched_getaffinity(0)) // n_processes)
    launcher = ["torch.distributed.run", "--standalone", "--local-addr", "127.0.0.1"]
    launcher += ["--nproc-per-node", str(n_processes), __file__]
    case_text = json.dumps([case.arch, case.px, case.n_batches])
    words = ["--inside", case_text, "--epochs", str(epochs), "--threads", str(threads)]
    env = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    done = subprocess.run([sys.executable, "-m", *launcher, *words], stdout=subprocess.PIPE, check=True, env=env)
    answer: dict[str, Any] = json.loads(done.stdout.decode().splitlines()[-1])
    return answer


def _inside(case: Case, epochs: int, threads: int) -> None:
    """Be one of the processes; the first prints what it has measured."""
    import torch

    from perikarya.config import AugmentConfig, TrainConfig
    from perikarya.experiment.strategies import device_of
    from perikarya.models.build import build_network
    from perikarya.train.distributed import joined_team
    from perikarya.train.engine import finetune
    from perikarya.train.rows import FoldRows
    from perikarya.train.session import FineTuning

    torch.set_num_threads(threads)
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    opened, rows = _cells(case.n_batches * BATCH), np.arange(case.n_batches * BATCH)
    train = TrainConfig(epochs=epochs, batch_size=BATCH, lr=1e-4, patience=epochs)
    ends: list[float] = []

    def note_epochs(done: int, _: int) -> None:
        if done % case.n_batches == 0 and len(ends) < epochs:
            ends.append(time.perf_counter())

    with joined_team(rank, size), tempfile.TemporaryDirectory() as folder:
        split = FoldRows(train=rows, stop=rows[:BATCH], test=rows[:0], external=rows[:0])
        job = FineTuning(opened, split, train, AugmentConfig(), case.px, 0, "", device_of(rank))
        torch.manual_seed(0)
        network = build_network(case.arch, n_classes=2, input_px=case.px)
        fitted = finetune(network, job, state_path=Path(folder) / "state.pt", progress=note_epochs)
    if rank == 0:
        print(json.dumps({"epoch_s": np.diff(ends).tolist(), "losses": [r["train_loss"] for r in fitted.history]}))


def _cells(n: int) -> Any:
    """Invent cells: discs of two sizes on noise."""
    from perikarya.data.store import OpenStudy
    from perikarya.schema import Study

    rng = np.random.default_rng(0)
    y, x = np.mgrid[:WINDOW_PX, :WINDOW_PX] - WINDOW_PX / 2
    labels = np.arange(n) % 2
    crops = rng.integers(120, 255, (n, WINDOW_PX, WINDOW_PX, 4), dtype=np.uint8)
    disc_nhw = np.hypot(x, y) < np.where(labels == 0, 18, 26)[:, None, None]
    crops[..., :3][disc_nhw] //= 2
    crops[..., 3] = disc_nhw * 255
    names = ("small", "large")
    cells = pd.DataFrame({"label": [names[k] for k in labels]})
    return OpenStudy(Path("invented"), Study(name="invented", class_names=names, window_px=WINDOW_PX), cells, crops)


if __name__ == "__main__":
    main()
