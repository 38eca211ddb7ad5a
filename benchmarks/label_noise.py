"""How many of the flagged labels are wrong, on a phantom whose wrong labels were planted.

    python benchmarks/label_noise.py [--quick] [--cells N] [--noise P] [--difficulty D] [--keep DIR]

Paints a study, trains linear heads on two frozen networks (five folds over animals) and compares what confident
learning flags with the truth. Prints a table and, as its last line, one JSON object. With ``--keep``, a study and a run
that are there already are used again.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from _common import parse_arguments, print_json, print_table
from perikarya.config import EvaluateConfig, load_config
from perikarya.data.phantom import read_truth
from perikarya.data.store import OpenStudy, open_study
from perikarya.evaluate.label_quality import label_issues, out_of_sample
from perikarya.evaluate.outputs import Scored, load_outputs, model_scores
from perikarya.experiment.plan import task_keys
from perikarya.runs import RunFolder

NETWORKS = {"efficientnet_lite0": 96, "efficientnet_lite1": 80}  # side in pixels
TOPS = (20, 50, 100)


def perikarya(*arguments: str) -> None:
    """Run a command."""
    subprocess.run([sys.executable, "-m", "perikarya", *arguments], check=True, stdout=subprocess.DEVNULL)


def prepare(folder: Path, arguments: argparse.Namespace) -> None:
    """Paint the study and train the heads, where they are not there yet."""
    study, run = folder / "study", folder / "run"
    if not study.is_dir():
        cells = 600 if arguments.quick else arguments.cells
        options = {"--cells": cells, "--label-noise": arguments.noise, "--difficulty": arguments.difficulty}
        perikarya("study", "phantom", "--out", str(study), *(str(x) for pair in options.items() for x in pair))
    if not (run / "results.json").is_file():
        names = list(NETWORKS)[:1] if arguments.quick else list(NETWORKS)
        config = {
            "name": "label noise",
            "study": str(study),
            "cv": {"duplicates": "separate"},
            "models": [{"name": n, "strategy": "head", "input_px": NETWORKS[n]} for n in names],
        }
        (folder / "config.yaml").write_text(json.dumps(config))
        perikarya("train", str(folder / "config.yaml"), "--out", str(run))


def measure(by_model: dict[str, list[Scored]], opened: OpenStudy) -> dict[str, Any]:
    """Compare flagged with planted labels: estimated and planted rate, precision, recall, precision at the top."""
    truth = read_truth(opened.root).set_index("cell_id")
    wrong = truth["true_class"] != truth["recorded_class"]
    quality = label_issues(by_model, opened.cells, opened.study.class_names, settings=EvaluateConfig())
    judged = opened.cells["cell_id"].iloc[next(iter(by_model.values()))[0].row_n]
    flagged = wrong[quality.table.loc[quality.table["flagged"] == "yes", "cell_id"]]
    return {
        "planted": float(wrong[judged].mean()),
        **quality.block["noise_rate"],
        "n_flagged": len(flagged),
        "precision": float(flagged.mean()),
        "recall": float(flagged.sum() / wrong[judged].sum()),
        **{f"precision_at_{n}": float(flagged.iloc[:n].mean()) for n in TOPS},
    }


def _extend(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--cells", type=int, default=3000)
    parser.add_argument("--noise", type=float, default=0.08, help="share of labels moved to a neighbouring class")
    parser.add_argument("--difficulty", type=float, default=0.3)
    parser.add_argument("--keep", type=Path, help="keep study and run in this folder")


def main() -> None:
    """Measure each network alone and both together."""
    arguments = parse_arguments(__doc__, extend=_extend)
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        prepare(folder, arguments)
        opened, run = open_study(folder / "study"), RunFolder(folder / "run")
        tasks = task_keys(load_config(run.config))
        asked = out_of_sample(model_scores(load_outputs(run, tasks, opened.cells, opened.study.class_names)))
        groups = {name: {name: parts} for name, parts in asked.items()}
        groups |= {"together": asked} if len(asked) > 1 else {}
        found = {name: measure(by_model, opened) for name, by_model in groups.items()}
    columns = ["planted", "estimate", "n_flagged", "precision", "recall", *(f"precision_at_{n}" for n in TOPS)]
    print_table(["network", *columns], [[name, *(row[c] for c in columns)] for name, row in found.items()])
    print_json("label_noise", quick=arguments.quick, networks=found)


if __name__ == "__main__":
    main()
