"""Commands on what people said in ``perikarya review``: apply corrections, export them, show how readers agree."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import typer
from rich.markup import escape
from rich.table import Table

from perikarya.cli.console import console
from perikarya.cli.studies import describe
from perikarya.data.corrections import CorrectionLog
from perikarya.data.relabel import apply_corrections
from perikarya.data.store import open_study
from perikarya.review.readings import Readings
from perikarya.review.writing_back import export_corrections, parse_formats
from perikarya.runs import write_text


def apply_command(study: Path, out: Path, *, until: int | None, overwrite: bool) -> None:
    """Make the new study, then say what changed and what to type next."""
    with console.status("Copying the study"):
        applied = apply_corrections(open_study(study), out, until=until, overwrite=overwrite)
    describe(applied.opened)
    console.print(
        f"{applied.n_entries} entries of the log: {applied.n_changed} labels changed, {applied.n_confirmed} confirmed.",
        markup=False,
    )
    for old, new, n_cells in applied.changes:
        console.print(f"  {old or '(no label)'} -> {new or '(no label)'}: {n_cells}", markup=False)
    console.print(f"Next: perikarya study check {out}", markup=False)


def export_command(study: Path, out: Path, *, formats: Sequence[str]) -> None:
    """Write the files, then say how many and what is to be known of them."""
    kinds = parse_formats(formats)
    opened = open_study(study)
    with console.status("Writing outlines"):
        exported = export_corrections(opened, CorrectionLog(opened.root).read(), out, formats=kinds)
    console.print(
        f"{out}: {exported.n_cells} cells of {exported.n_images} images, {len(exported.files)} files", markup=False
    )
    for note in exported.notes:
        console.print(note, markup=False)


def agreement_command(study: Path, *, as_json: bool, table: Path | None = None) -> None:
    """Print the kappas of all blind readings; write the readings themselves where ``table`` says so."""
    readings = Readings(open_study(study))
    with console.status("Drawing animals"):
        found = readings.agreement()
    if table is not None:
        write_text(table, readings.table().to_csv(index=False, lineterminator="\n"))
    if as_json:
        typer.echo(json.dumps(found, indent=1, allow_nan=False, ensure_ascii=False))
        return
    if found["pairs"]:
        console.print(_pairs(found["pairs"]))
    if found["fleiss"] is not None:
        console.print(_all_readers(found["fleiss"]))
    if found["intra"]:
        console.print(_intra(found["intra"]))
    for note in found["notes"]:
        console.print(note, markup=False)


def _pairs(pairs: Sequence[dict[str, Any]]) -> Table:
    weighted = any(pair["weighted"] is not None for pair in pairs)
    classes = [one["class_name"] for one in pairs[0]["per_class"]]
    kappas = ["Cohen's kappa", *(["weighted"] if weighted else []), *classes]
    table = _table("Two readers", "readers", "cells", "agree", *kappas)
    for pair in pairs:
        scores = [pair["cohen"], *([pair["weighted"]] if weighted else [])]
        scores += [one["kappa"] for one in pair["per_class"]]
        names = escape(f"{pair['a']} / {pair['b']}")
        table.add_row(names, str(pair["n_cells"]), _share(pair["observed"]), *map(_kappa, scores))
    return table


def _all_readers(fleiss: dict[str, Any]) -> Table:
    table = _table("All readers", "readers", "cells", "Fleiss' kappa", *(o["class_name"] for o in fleiss["per_class"]))
    scores = [fleiss["kappa"], *(one["kappa"] for one in fleiss["per_class"])]
    table.add_row(escape(", ".join(fleiss["readers"])), str(fleiss["n_cells"]), *map(_kappa, scores))
    return table


def _intra(intra: Sequence[dict[str, Any]]) -> Table:
    table = _table("The same reader twice", "reader", "cells", "agree", "Cohen's kappa")
    for one in intra:
        table.add_row(escape(one["reader"]), str(one["n_cells"]), _share(one["observed"]), _kappa(one["cohen"]))
    return table


def _table(title: str, first: str, *numbers: str) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column(first)
    for name in numbers:
        table.add_column(escape(name), justify="right")
    return table


def _kappa(kappa: dict[str, Any]) -> str:
    if kappa["estimate"] is None:
        return "-"
    ends = "" if kappa["ci95"] is None else " ({:.2f} to {:.2f})".format(*kappa["ci95"])
    return f"{kappa['estimate']:.2f}{ends}"


def _share(share: float | None) -> str:
    return "-" if share is None else f"{share:.0%}"
