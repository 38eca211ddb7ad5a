"""Head route against fine-tuning the same network: wall time and balanced accuracy of a grouped cross-validation.

    python benchmarks/cross_validation.py [--quick] [--data RBC] [--folds N] [--keep DIR]

Both are run by ``perikarya train`` on the same study, folds and machine, one after the other; the wall time of the
head route includes computing the features. Needs real outlined cells (class folders ``development`` and
``external``). Prints a table and, as its last line, one JSON object.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from _common import parse_arguments, print_json, print_table

NETWORK = "efficientnet_lite0"


def perikarya(*arguments: str) -> float:
    """Run a command and return its wall time in seconds."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-m", "perikarya", *arguments], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def run_route(folder: Path, strategy: str, *, n_tested: int, quick: bool) -> dict[str, Any]:
    """Train one strategy and return its wall time and figures."""
    config = {
        "name": f"cross-validation, {strategy}",
        "study": str(folder / "study"),
        "cv": {"n_folds": 5, "duplicates": "separate", "folds": list(range(n_tested))},
        "models": [{"name": NETWORK, "strategy": strategy}],
        "train": {"epochs": 2} if quick else {},
    }
    path = folder / f"{strategy}.yaml"
    path.write_text(json.dumps(config))
    wall_s = perikarya("train", str(path), "--out", str(folder / strategy))
    model = json.loads((folder / strategy / "results.json").read_text())["models"][NETWORK]
    return {"wall_s": wall_s, **{name: model[name]["balanced_accuracy"] for name in ("cv", "external")}}


def _with_interval(value: dict[str, Any]) -> str:
    low, high = value["ci95"]
    return f"{value['mean']:.3f} ({low:.3f}-{high:.3f})"


def _extend(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--folds", type=int, default=5, help="how many of the five folds are trained and tested")
    parser.add_argument("--keep", type=Path, help="keep study and runs in this folder")


def main() -> None:
    """Compare the two routes."""
    arguments = parse_arguments(__doc__, extend=_extend)
    cells = arguments.data / "cells"
    if not cells.is_dir():
        sys.exit(f"There are no cells at {cells}; name the folder above it with --data.")
    n_tested = 1 if arguments.quick else arguments.folds
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.keep or Path(temporary)
        source = [str(cells / "development"), "--external", str(cells / "external")]
        import_s = perikarya("study", "import", *source, "--out", str(folder / "study"))
        routes = {s: run_route(folder, s, n_tested=n_tested, quick=arguments.quick) for s in ("head", "finetune")}
    rows = [
        [n, f"{r['wall_s']:.0f}", _with_interval(r["cv"]), _with_interval(r["external"])] for n, r in routes.items()
    ]
    print(f"import: {import_s:.0f} s")
    print_table(["route", "wall s", "balanced accuracy, CV", "external"], rows)
    head, tuned = routes["head"], routes["finetune"]
    summary: dict[str, Any] = {
        "quick": arguments.quick,
        "n_folds_of_5": n_tested,
        "finetune_over_head_wall": round(tuned["wall_s"] / head["wall_s"], 2),
        "head_over_finetune_external": round(head["external"]["mean"] / tuned["external"]["mean"], 4),
        "routes": {
            n: {"wall_s": round(r["wall_s"], 1), "cv": r["cv"]["mean"], "external": r["external"]["mean"]}
            for n, r in routes.items()
        },
    }
    print_json("cross_validation", **summary)


if __name__ == "__main__":
    main()
