"""Commands on studies: import, phantom, check."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from perikarya.cli.console import console
from perikarya.data.importers import import_study
from perikarya.data.importers.base import ImportOptions
from perikarya.data.integrity import CheckReport, check_study, render_check
from perikarya.data.store import OpenStudy, open_study
from perikarya.errors import ConfigError

if TYPE_CHECKING:
    from perikarya.data.phantom import PhantomSettings


def import_command(source: Path, out: Path, options: ImportOptions) -> None:
    """Import, then say what came in and what to type next."""
    opened = import_study(source, out, options=options)
    describe(opened)
    for note in opened.study.provenance.get("notes", []):
        console.print(note, markup=False)
    console.print(f"Next: perikarya study check {out}", markup=False)


def phantom_command(
    out: Path,
    *,
    n_cells: int,
    seed: int,
    difficulty: float,
    effect: float,
    label_noise: float,
    n_external: int = 6,
    as_: str = "study",
    overwrite: bool = False,
) -> None:
    """Paint a phantom, as a study or as what a lab exports from QuPath before it has one.

    Raises
    ------
    ConfigError
        If it is asked for as something else.
    """
    from perikarya.data.phantom import PhantomSettings, make_phantom

    if as_ not in ("study", "qupath"):
        raise ConfigError(f"A phantom can be painted --as study or --as qupath, not '{as_}'.")
    settings = PhantomSettings(
        n_cells=n_cells,
        seed=seed,
        difficulty=difficulty,
        effect=effect,
        label_noise=label_noise,
        n_external_subjects=n_external,
    )
    if as_ == "qupath":
        _export(out, settings, overwrite=overwrite)
        return
    with console.status("Painting fields and cutting cells"):
        opened = make_phantom(out, settings=settings, overwrite=overwrite)
    describe(opened)
    console.print(f"Next: perikarya study check {out}", markup=False)


def _export(out: Path, settings: PhantomSettings, *, overwrite: bool) -> None:
    from perikarya.data.phantom_export import METADATA_FILE, export_phantom

    with console.status("Painting fields and tracing cells"):
        export_phantom(out, settings=settings, overwrite=overwrite)
    for folder in sorted(path for path in out.iterdir() if path.is_dir()):
        n_fields = len(list(folder.glob("*.geojson")))
        console.print(f"{folder}: {n_fields} images, each with its .geojson, and {METADATA_FILE}", markup=False)
    console.print(f"{out}: truth.csv and truth.json tell what was painted", markup=False)
    scale = f"--um-per-px {settings.um_per_px:g}"
    console.print(f"Next: perikarya study import {out / 'graded'} --out STUDY {scale}", markup=False)


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
