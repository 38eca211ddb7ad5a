"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

UmPerPxOption = Annotated[
    float | None, typer.Option(help="Micrometres per pixel of images that do not tell theirs.", show_default=False)
]
ClassMapOption = Annotated[
    str | None,
    typer.Option(
        help="What names in the files mean: 'Tumor=pyknotic,group:2=normal,colour:#ff0000=pyknotic,name:^PN=pyknotic', "
        "or a CSV with columns from, to."
    ),
]
RegionsOption = Annotated[
    str | None,
    typer.Option(help="Classes of annotations that are regions, not cells: CA1,cortex. Default: told apart."),
]
NucleusOption = Annotated[
    bool, typer.Option("--nucleus", help="Where a cell has two outlines, take that of its nucleus.")
]
EngineOption = Annotated[
    str | None,
    typer.Option(help="Where the work is done: local, slurm or ray. Default: what the configuration says, else local."),
]
JobsOption = Annotated[
    int | None,
    typer.Option(
        min=1, help="Processes or cluster jobs at once. Default: one, or one per GPU; a cluster: as it likes."
    ),
]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", help="Change a setting: launch.slurm.mem=16G. May be repeated.")
]
DryRunOption = Annotated[
    bool, typer.Option("--dry-run", help="With --engine slurm: print the scripts, submit and write nothing.")
]
RunArgument = Annotated[Path, typer.Argument(help="A run folder, as given to 'train --out'.", show_default=False)]


def words(text: str | None) -> tuple[str, ...]:
    """Return the parts of a list written with commas."""
    return tuple(word.strip() for word in text.split(",")) if text else ()
