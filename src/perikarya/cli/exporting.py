"""The command that makes a folder of a trained model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from perikarya.cli.console import console
from perikarya.errors import ConfigError
from perikarya.predict.folder import ModelFolder
from perikarya.runs import RunFolder


def export_command(
    run: Path,
    *,
    model: str | None,
    out: Path,
    format: str,  # noqa: A002  # the name of the option
    precision: str,
    fold: Sequence[int] | None,
    seed: int | None,
    study: Path | None,
    overwrite: bool,
) -> None:
    """Export a model of a run while drawing the progress, and say what was made."""
    try:
        from perikarya.predict.export import ExportOptions, export_model
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"Exporting builds the trained networks again, which needs the package {error.name}.\n"
            'Fix: pip install "perikarya[train,export]".'
        ) from None

    options = ExportOptions(
        model=model, format=format, precision=precision, seed=seed, folds=fold or None, study=study, overwrite=overwrite
    )
    with Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
        console=console, disable=not console.is_terminal,
    ) as bars:  # fmt: skip
        task = bars.add_task("networks", total=None)
        made = export_model(
            RunFolder(run), out, options, progress=lambda done, total: bars.update(task, completed=done, total=total)
        )
    _say(made)


def _say(made: ModelFolder) -> None:
    manifest = made.manifest
    n, found = len(manifest.networks), manifest.agreement
    networks = "1 network" if n == 1 else f"{n} networks"
    console.print(f"{made.root}: {manifest.name}, {networks}, {manifest.format} in {manifest.precision}", markup=False)
    if found is not None:
        console.print(
            f"Beside torch, {found.cells} {found.of}: probabilities differ by {found.max_abs_diff:.2g} at most, "
            f"same class on {100 * found.same_class:.4g} %",
            markup=False,
        )
    console.print(f"SHA-256 of the model: {made.sha256}", markup=False)
    console.print(f"Next: perikarya predict {made.root} IMAGE --outlines FILE --out DIR", markup=False)
