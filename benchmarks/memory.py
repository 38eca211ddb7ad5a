"""Peak memory of a large study: import and head training, each in its own process.

    python benchmarks/memory.py [--quick] [--cells 100000] [--keep DIR]

Paints a phantom of that many cells in 80 px windows (fields, label maps and a table), imports it, computes frozen
features and fits a head on one fold. Peak memory is the largest resident size of any process of the step, as the
operating system accounts it, mapped files included. Prints a table and, as its last line, one JSON object.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import psutil

from _common import parse_arguments, print_json, print_table

LIMIT_GIB = 4.0


def measure(*arguments: str) -> tuple[float, float]:
    """Run a command; return its wall time in seconds and the peak of the sum over its processes, in GiB."""
    start = time.perf_counter()
    process = psutil.Popen([sys.executable, "-m", "perikarya", *arguments])
    peak = 0
    stop = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not stop.wait(0.1):
            total = 0
            for member in [process, *process.children(recursive=True)]:
                try:
                    total += member.memory_info().rss
                except psutil.NoSuchProcess:
                    continue
            peak = max(peak, total)

    thread = threading.Thread(target=watch)
    thread.start()
    code = process.wait()
    stop.set()
    thread.join()
    if code:
        sys.exit(f"perikarya {' '.join(arguments)} ended with exit code {code}")
    return time.perf_counter() - start, peak / 2**30


def _extend(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--cells", type=int, default=100_000)
    parser.add_argument("--keep", type=Path, help="keep study and run in this folder")


def main() -> None:
    """Measure import and training."""
    arguments = parse_arguments(__doc__, extend=_extend)
    n_cells = 2000 if arguments.quick else arguments.cells
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        study = folder / "study"
        config = {
            "name": "memory",
            "study": str(study),
            "cv": {"n_folds": 5, "folds": [0]},
            "models": [{"name": "efficientnet_lite0", "strategy": "head", "input_px": 32}],
            "evaluate": {"n_bootstrap": 200},
        }
        (folder / "memory.yaml").write_text(json.dumps(config))
        steps = {
            "paint and import": ("study", "phantom", "--cells", str(n_cells), "--out", str(study)),
            "train (features, head, report)": ("train", str(folder / "memory.yaml"), "--out", str(folder / "run")),
        }
        measured = {name: measure(*command) for name, command in steps.items()}
    print_table(["step", "wall s", "peak GiB"], [[n, f"{s:.0f}", f"{g:.2f}"] for n, (s, g) in measured.items()])
    peak = max(g for _, g in measured.values())
    summary: dict[str, Any] = {
        "n_cells": n_cells,
        "peak_gib": round(peak, 2),
        "peak_over_limit": round(peak / LIMIT_GIB, 3),
        "steps": {n: {"wall_s": round(s, 1), "peak_gib": round(g, 2)} for n, (s, g) in measured.items()},
    }
    print_json("memory", **summary)


if __name__ == "__main__":
    main()
