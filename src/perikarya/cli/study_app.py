"""``perikarya study``: commands on a study folder. Heavy imports live inside the functions, as in ``cli.app``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from perikarya.cli.options import ClassMapOption, NucleusOption, RegionsOption, UmPerPxOption, words

study_app = typer.Typer(help="Make, paint, check and correct studies.", no_args_is_help=True)
StudyArgument = Annotated[Path, typer.Argument(help="A study folder.", show_default=False)]


@study_app.command("import")
def study_import(
    source: Annotated[Path, typer.Argument(help="Folder of outlined cells, or a COCO file.", show_default=False)],
    out: Annotated[Path, typer.Option("--out", help="Study folder to make.", show_default=False)],
    layout: Annotated[str, typer.Option(help="auto, folders, labels, geojson, imagej or coco.")] = "auto",
    metadata: Annotated[
        Path | None,
        typer.Option(help="CSV with a column 'file' and subject, image, region, group. Default: SRC/metadata.csv."),
    ] = None,
    external: Annotated[Path | None, typer.Option(help="Second source: cells of other animals.")] = None,
    external_metadata: Annotated[Path | None, typer.Option(help="CSV of the second source.")] = None,
    name_pattern: Annotated[
        str | None,
        typer.Option(help="Regular expression on file names with groups named subject, image_id, region, group."),
    ] = None,
    classes: Annotated[str | None, typer.Option(help="Class names in order of severity: a,b,c.")] = None,
    um_per_px: UmPerPxOption = None,
    class_map: ClassMapOption = None,
    regions: RegionsOption = None,
    nucleus: NucleusOption = False,
    window: Annotated[str | None, typer.Option(help="Side of the window around a cell: 80 or 80px, or 40um.")] = None,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Import what is fine; list the rest.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing study.")] = False,
    name: Annotated[str | None, typer.Option(help="Name of the study. Default: that of its folder.")] = None,
) -> None:
    """Bring outlined cells into a study folder."""
    from perikarya.cli.studies import import_command
    from perikarya.data.importers.base import ImportOptions

    options = ImportOptions(
        layout=layout,
        metadata=metadata,
        external=external,
        external_metadata=external_metadata,
        name_pattern=name_pattern,
        classes=words(classes) or None,
        um_per_px=um_per_px,
        class_map=class_map,
        regions=words(regions),
        nucleus=nucleus,
        window=window,
        skip_bad=skip_bad,
        overwrite=overwrite,
        name=name,
        progress=True,
    )
    import_command(source, out, options)


@study_app.command("phantom")
def study_phantom(
    out: Annotated[Path, typer.Option("--out", help="Folder to make.", show_default=False)],
    cells: Annotated[int, typer.Option(min=60, help="How many cells to paint.")] = 1200,
    seed: Annotated[int, typer.Option(min=0, help="Same seed, same pictures.")] = 0,
    difficulty: Annotated[float, typer.Option(min=0, max=1, help="0: classes far apart; 1: hardly told apart.")] = 0.3,
    effect: Annotated[float, typer.Option(min=0, max=2, help="0: treatment and injury change nothing.")] = 1.0,
    label_noise: Annotated[float, typer.Option(min=0, max=0.5, help="Share of labels moved to a neighbour.")] = 0.0,
    external: Annotated[int, typer.Option(min=0, help="Animals besides the 18 of the development set.")] = 6,
    as_: Annotated[
        str, typer.Option("--as", help="study, or qupath: images with GeoJSON beside them, before any import.")
    ] = "study",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")] = False,
) -> None:
    """Paint a synthetic study whose truth is known."""
    from perikarya.cli.studies import phantom_command

    phantom_command(
        out,
        n_cells=cells,
        seed=seed,
        difficulty=difficulty,
        effect=effect,
        label_noise=label_noise,
        n_external=external,
        as_=as_,
        overwrite=overwrite,
    )


@study_app.command("check")
def study_check(
    study: StudyArgument,
) -> None:
    """Look for leakage, duplicates and broken masks; exit code 1 when something must be fixed."""
    from perikarya.cli.studies import check_command

    check_command(study)


@study_app.command("apply-corrections")
def study_apply_corrections(
    study: StudyArgument,
    out: Annotated[Path, typer.Option("--out", help="Study folder to make.", show_default=False)],
    until: Annotated[
        int | None, typer.Option(min=1, help="Only entries of the log up to this number. Default: all.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing study.")] = False,
) -> None:
    """Make a new study with the labels that were corrected in 'perikarya review'; the old one stays as it is."""
    from perikarya.cli.correcting import apply_command

    apply_command(study, out, until=until, overwrite=overwrite)


@study_app.command("export-corrections")
def study_export_corrections(
    study: StudyArgument,
    out: Annotated[Path, typer.Option("--out", help="Folder to write to.", show_default=False)],
    format_: Annotated[str, typer.Option("--format", help="geojson (QuPath), roi (ImageJ), or both.")] = "geojson,roi",
) -> None:
    """Write the study's outlines with their corrected classes, for QuPath and ImageJ."""
    from perikarya.cli.correcting import export_command

    export_command(study, out, formats=words(format_))


@study_app.command("agreement")
def study_agreement(
    study: StudyArgument,
    as_json: Annotated[bool, typer.Option("--json", help="For other programs.")] = False,
    table: Annotated[
        Path | None, typer.Option(help="Also write all readings to this CSV; STUDY/readings.csv gives the ceiling.")
    ] = None,
) -> None:
    """Show how far readers agree with each other, with themselves and with the labels (kappa, with intervals)."""
    from perikarya.cli.correcting import agreement_command

    agreement_command(study, as_json=as_json, table=table)
