"""The command that shows where trained networks look."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from perikarya.cli.console import console
from perikarya.data.store import open_study
from perikarya.evaluate.saliency import explained_path
from perikarya.evaluate.stats import UNIT_WORDS
from perikarya.experiment.plan import load_run_config
from perikarya.explain.run import explain_run
from perikarya.runs import RunFolder


def explain_command(
    run: Path,
    *,
    models: Sequence[str] | None,
    method: str,
    cells: int,
    fold: int | None,
    seed: int,
    study: Path | None,
) -> None:
    """Explain the networks of a run while drawing the progress; exit code 1 when one cannot be explained."""
    folder = RunFolder(run)
    config = load_run_config(folder)
    opened = open_study(Path(study or config.study))
    with _bars() as bars:
        tasks: dict[str, Any] = {}

        def show(model: str, done: int, total: int) -> None:
            if model not in tasks:
                tasks[model] = bars.add_task(model, total=total)
            bars.update(tasks[model], completed=done)

        found = explain_run(
            folder,
            opened,
            config,
            models=models or None,
            method=method,  # type: ignore[arg-type]  # checked there, with the nearest name
            n_per_class=cells,
            fold=fold,
            seed=seed,
            progress=show,
        )
    explained = {name: entry for name, entry in found.items() if "reason" not in entry}
    if explained:
        console.print(_table(explained))
        console.print(f"Numbers: {explained_path(folder)}; figures: {folder.figures}/saliency_*.png", markup=False)
    for name, entry in found.items():
        if "reason" in entry:
            console.print(f"{name} is not explained: {entry['reason']}", markup=False)
    if len(explained) < len(found):
        raise typer.Exit(1)


def _bars() -> Progress:
    return Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("left"),
        TimeRemainingColumn(), console=console, disable=not console.is_terminal,
    )  # fmt: skip


def _table(models: dict[str, Any]) -> Table:
    unit = UNIT_WORDS[next(iter(models.values()))["unit"]]
    table = Table(
        "model", "method", "grid", "cells", "inside the outline", f"interval over {unit}", "even map", "s per map",
        box=None, header_style="bold",
    )  # fmt: skip
    for name, entry in models.items():
        grid = " + ".join(f"{g['grid'][0]}x{g['grid'][1]}" for g in entry["layers"])
        value = entry["share_inside"]
        interval = "not available" if value["ci95"] is None else "{:.3f} to {:.3f}".format(*value["ci95"])
        shares = ["not available" if x is None else f"{x:.3f}" for x in (value["mean"], entry["even_share"])]
        row = [name, entry["method"], grid, str(entry["n_cells"]), shares[0], interval, shares[1]]
        table.add_row(*row, f"{entry['s_per_map']:.2g}")
    return table
