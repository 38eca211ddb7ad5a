"""A rare class: every way of resampling, and class weights, on real cells of which one class was made rare.

    python benchmarks/imbalance.py [--quick] [--data RBC] [--cells 60] [--rare teardrop]
        [--set key=value]... [--keep DIR]

Copies the class folders of the development set with a seeded choice of ``--cells`` cells of the rare class (the
external set stays whole), imports them, and trains ``examples/imbalance.yaml``, or ``--config``, by
``perikarya train``. Scores are those of the external set, a mean over the networks of the folds, with intervals over
smears. Prints a table and, as its last line, one JSON object; with ``--keep``, ``imbalance.csv`` and
``imbalance.png`` (and ``.pdf``) stay in that folder beside the study and the run.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from _common import REPOSITORY, parse_arguments, print_json, print_table
from _rbc import cells_of, make_study, single_networks, train, with_interval
from perikarya.figures.style import light_grid, panels, save_figure, styled

RARE_SCORES = ("recall", "precision")
QUICK = ("cv.folds=[0]", "models.*.input_px=64", "resample.px=24")
COLOUR = "#0072B2"  # of the external set, as in the report


def external_scores(model: dict[str, Any], rare: str) -> dict[str, dict[str, Any]]:
    """Return the scores that are compared, by their titles."""
    block = model["external"]
    scores = {"balanced accuracy": block["balanced_accuracy"], "macro F1": block["macro_f1"]}
    return scores | {f"{rare} {score}": block["per_class"][rare][score] for score in RARE_SCORES}


def tidy(results: dict[str, Any], rare: str) -> pd.DataFrame:
    """Arrange the external scores of all single networks: one row per model and score."""
    rows = []
    for name, model in single_networks(results).items():
        for score, value in external_scores(model, rare).items():
            low, high = value["ci95"] or (None, None)
            rows.append({"model": name, "score": score, "mean": value["mean"], "low": low, "high": high})
    return pd.DataFrame(rows).astype({"mean": float, "low": float, "high": float})


def table_rows(results: dict[str, Any], rare: str) -> list[list[str]]:
    """Return one row per model, each score with its interval."""
    rows = []
    for name, model in single_networks(results).items():
        # a class that a network never predicts has no precision
        defined = [value if value["ci95"] else None for value in external_scores(model, rare).values()]
        rows.append([name, *("undefined" if value is None else with_interval(value) for value in defined)])
    return rows


@styled
def plot_scores(scores: pd.DataFrame) -> Figure:
    """Draw every score of every model with its interval; a line marks the first model, which does nothing."""
    names: Sequence[str] = list(scores["model"].unique())
    titles = list(scores["score"].unique())
    figure, axes = panels(1, len(titles), height_in=0.7 + 0.21 * len(names), sharey=True)
    for ax, title in zip(axes[0], titles, strict=True):
        part = scores[scores["score"] == title]
        y = [names.index(name) for name in part["model"]]
        ax.axvline(part["mean"].iloc[0], color="#6b7785", lw=0.8, ls=(0, (3, 2)))
        ax.hlines(y, part["low"], part["high"], color=COLOUR, lw=1.2)
        ax.plot(part["mean"], y, "o", ms=4.2, color=COLOUR)
        ax.set_title(title[0].upper() + title[1:])
        ax.set_ylim(len(names) - 0.5, -0.5)
        light_grid(ax)
        ax.tick_params(axis="y", length=0)
    axes[0, 0].set_yticks(range(len(names)), names)
    return figure


def _extend(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--cells", type=int, default=60, help="development cells of the rare class")
    parser.add_argument("--rare", default="teardrop", help="the class that is made rare")
    parser.add_argument("--config", type=Path, default=REPOSITORY / "examples" / "imbalance.yaml")
    parser.add_argument("--set", action="append", default=[], help="one setting, as for perikarya train")
    parser.add_argument("--keep", type=Path, help="keep study, run, table and figure in this folder")


def main() -> None:
    """Make the study, train, and show one table."""
    arguments = parse_arguments(__doc__, extend=_extend)
    cells, rare = cells_of(arguments.data), arguments.rare
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.keep or Path(temporary)
        study = folder / "rbc_rare"
        make_study(cells, study, at_most={"development": {rare: arguments.cells}})
        results = train(
            arguments.config, study, folder / "run", settings=[*(QUICK if arguments.quick else ()), *arguments.set]
        )
        scores = tidy(results, rare)
        scores.to_csv(folder / "imbalance.csv", index=False)
        save_figure(plot_scores(scores), folder, "imbalance")
    counts = {name: part["n_per_class"][rare] for name, part in results["study"]["sets"].items()}
    print(f"{rare}: {counts['development']} cells in development, {counts['external']} external")
    for failed in results["protocol"]["incomplete"]:
        print(f"not finished: {failed}")
    print_table(["method", *scores["score"].unique()], table_rows(results, rare))
    print_json(
        "imbalance",
        quick=arguments.quick,
        n_cells=counts,
        external={name: dict(zip(part["score"], part["mean"], strict=True)) for name, part in scores.groupby("model")},
    )


if __name__ == "__main__":
    main()
