"""Commands on studies: import, phantom, check."""

from __future__ import annotations

from pathlib import Path

import typer

from perikarya.cli.console import console
from perikarya.data.importers import import_study
from perikarya.data.importers.base import ImportOptions
from perikarya.data.integrity import CheckReport, check_study, render_check
from perikarya.data.store import OpenStudy, open_study


def import_command(source: Path, out: Path, options: ImportOptions) -> None:
    """Import, then say what came in and what to type next."""
    opened = import_study(source, out, options=options)
    describe(opened)
    for note in opened.study.provenance.get("notes", []):
        console.print(note, markup=False)
    console.print(f"Next: perikarya study check {out}", markup=False)


def phantom_command(
    out: Path, *, n_cells: int, seed: int, difficulty: float, effect: float, label_noise: float, overwrite: bool
) -> None:
    """Paint a phantom study."""
    from perikarya.data.phantom import PhantomSettings, make_phantom

    settings = PhantomSettings(
        n_cells=n_cells, seed=seed, difficulty=difficulty, effect=effect, label_noise=label_noise
    )
    with console.status("Painting fields and cutting cells"):
        opened = make_phantom(out, settings=settings, overwrite=overwrite)
    describe(opened)
    console.print(f"Next: perikarya study check {out}", markup=False)


def check_command(study: Path) -> None:
    """Check a study; exit code 1 when something must be fixed."""
    with console.status("Comparing cells"):
        report = check_study(open_study(study))
    show_check(report)
    if not report.ok:
        raise typer.Exit(1)


def show_check(report: CheckReport) -> None:
    """Print the findings and counts of a check."""
    console.print(render_check(report))


def describe(opened: OpenStudy) -> None:
    """Print one line about a study."""
    cells = opened.cells
    n_external = int((cells["set"] == "external").sum())
    scale = "scale unknown" if opened.study.um_per_px is None else f"{opened.study.um_per_px:g} um/px"
    console.print(
        f"{opened.root}: {len(cells)} cells ({n_external} external), {cells['subject'].nunique()} subjects, "
        f"{cells['image_id'].nunique()} images, classes {', '.join(opened.study.class_names)}; "
        f"window {opened.study.window_px} px, {scale}",
        markup=False,
    )
