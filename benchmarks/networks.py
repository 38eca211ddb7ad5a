"""Every network of the zoo on the same real cells, or any other experiment on them, as one table.

    python benchmarks/networks.py [--quick] [--data RBC] [--config CONFIG] [--cells N] [--set key=value]... [--keep DIR]

Imports the red blood cells (``--cells``: at most so many of each class in either set, chosen by a seed), trains the
experiment (``examples/networks.yaml``) by ``perikarya train``, and prints one row per model: scores on the external
set, a mean over the networks of the folds, with intervals over smears; and of all its folds together. The last line is
one JSON object. With ``--keep`` the study, the run and its report stay in that folder.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import pandas as pd

from _common import REPOSITORY, parse_arguments, print_json, print_table
from _rbc import SETS, cells_of, make_study, single_networks, train, with_interval

HEADER = ("model", "strategy", "weights", "px", "parameters", "balanced accuracy", "ensemble", "macro AUC", "min")


def smaller(cells: Path, most: int | None) -> dict[str, dict[str, int]]:
    """Return set -> class -> number of cells, none above ``most``."""
    if most is None:
        return {}
    counts = {name: pd.read_csv(cells / name / "metadata.csv", dtype=str)["label"].value_counts() for name in SETS}
    return {name: {str(label): min(most, n) for label, n in of_set.items()} for name, of_set in counts.items()}


def table_rows(results: dict[str, Any]) -> list[list[object]]:
    """Return one row per network, in the order of the configuration."""
    rows: list[list[object]] = []
    for name, model in single_networks(results).items():
        together = results["models"].get(f"{name} (ensemble)")
        rows.append(
            [
                name,
                model["strategy"],
                str(model["weights"]["source"]).split(":")[0],
                model["input_px"],
                f"{model['n_params'] / 1e6:.1f} M",
                with_interval(model["external"]["balanced_accuracy"]),
                with_interval(together["external"]["balanced_accuracy"]) if together else None,
                with_interval(model["external"]["macro_auc"]),
                f"{model['training']['wall_s'] / 60:.1f}",
            ]
        )
    return rows


def _extend(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", type=Path, default=REPOSITORY / "examples" / "networks.yaml")
    parser.add_argument("--cells", type=int, help="at most so many cells of each class in either set; all by default")
    parser.add_argument("--set", action="append", default=[], help="one setting, as for perikarya train")
    parser.add_argument("--keep", type=Path, help="keep study and run in this folder")


def main() -> None:
    """Make the study, train, and show one table."""
    arguments = parse_arguments(__doc__, extend=_extend)
    cells = cells_of(arguments.data)
    quick = ["models.*.input_px=64", "train.epochs=1"] if arguments.quick else []
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.keep or Path(temporary)
        study = folder / (f"rbc_{arguments.cells}" if arguments.cells else "rbc")
        make_study(cells, study, at_most=smaller(cells, 20 if arguments.quick else arguments.cells))
        run = folder / arguments.config.stem
        results = train(arguments.config, study, run, settings=[*quick, *arguments.set])
    counts = {name: part["n_cells"] for name, part in results["study"]["sets"].items()}
    print(", ".join(f"{n} cells {name}" for name, n in counts.items()))
    for failed in results["protocol"]["incomplete"]:
        print(f"not finished: {failed}")
    print_table(HEADER, table_rows(results))
    scores = {name: model["external"]["balanced_accuracy"] for name, model in results["models"].items()}
    print_json(arguments.config.stem, quick=arguments.quick, n_cells=counts, external=scores)


if __name__ == "__main__":
    main()
