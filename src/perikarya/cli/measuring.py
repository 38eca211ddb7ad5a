"""What the networks cost on this machine, a row at a time."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict

import typer

from perikarya.cli.console import console
from perikarya.errors import PerikaryaError
from perikarya.models.zoo import NETWORKS
from perikarya.train.measure import Cost, measure

_HEADS = ("network", "px", "params M", "GMACs", "cells/s, 1", "cells/s, {batch}", "peak GiB")
_STEP_HEADS = ("step: micro-batch", "cells/s", "peak GiB")
_WIDTH = 11


def measure_command(names: Sequence[str], *, input_px: int | None, batch: int, train: bool, as_json: bool) -> None:
    """Measure networks one after another; one that fails is a row that says why, and makes the exit code 1."""
    chosen = list(names) or NETWORKS.names()
    for name in chosen:
        NETWORKS.get(name)  # a misspelt name is told before minutes of measuring
    heads = [h.format(batch=batch) for h in (*_HEADS, *(_STEP_HEADS if train else ()))]
    if not as_json:
        console.print(_line(heads))
    failed = False
    found: list[dict[str, object]] = []
    for name in chosen:
        try:
            with console.status(f"measuring {name}"):
                cost = measure(name, input_px=input_px, batch=batch, train=train)
        except PerikaryaError as error:
            failed = True
            found.append({"name": name, "failed": str(error)})
            if not as_json:
                console.print(f"{name}: {error}")
            continue
        found.append(asdict(cost))
        if not as_json:
            console.print(_line(_row(cost)))
    if as_json:
        typer.echo(json.dumps(found, indent=1))
    if failed:
        raise typer.Exit(1)


def _row(cost: Cost) -> list[str]:
    row = [cost.name, str(cost.input_px), f"{cost.params_m:.1f}", f"{cost.gmacs:.2f}"]
    row += [f"{cost.cells_per_s_1:.3g}", f"{cost.cells_per_s_batch:.3g}", f"{cost.peak_gib:.2f}"]
    if cost.step_peak_gib is not None:
        again = " checkpointed" if cost.checkpointing else ""
        row += [f"{cost.micro_batch}{again}", f"{cost.step_cells_per_s:.3g}", f"{cost.step_peak_gib:.2f}"]
    return row


def _line(cells: Sequence[str]) -> str:
    first, *others = cells
    return "  ".join([first.ljust(22), *(cell.rjust(_WIDTH) for cell in others)])
