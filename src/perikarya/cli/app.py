"""Commands and their options. Heavy imports live inside the functions, so that help answers at once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from perikarya import __version__
from perikarya.cli.options import (
    ClassMapOption,
    DryRunOption,
    EngineOption,
    JobsOption,
    NucleusOption,
    RegionsOption,
    RunArgument,
    SetOption,
    UmPerPxOption,
    words,
)
from perikarya.cli.study_app import study_app

app = typer.Typer(
    name="perikarya",
    help="From outlined neurons to a defensible damage figure, with its uncertainty.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode="rich",
)
app.add_typer(study_app, name="study")


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"perikarya {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


@app.command()
def models(
    names: Annotated[list[str] | None, typer.Argument(help="With --measure: these networks only.")] = None,
    measure: Annotated[bool, typer.Option("--measure", help="What each costs on this machine.")] = False,
    train: Annotated[bool, typer.Option("--train", help="With --measure: a training step of 16 cells too.")] = False,
    input_px: Annotated[int | None, typer.Option(help="Side of the input, instead of each network's own.")] = None,
    batch: Annotated[int, typer.Option(help="Cells in the larger of the two batches.", min=2)] = 32,
    as_json: Annotated[bool, typer.Option("--json", help="For other programs.")] = False,
) -> None:
    """List the networks: input size, parameters, weights and their licence; or measure them on this machine."""
    if measure:
        from perikarya.cli.measuring import measure_command

        measure_command(names or [], input_px=input_px, batch=batch, train=train, as_json=as_json)
    else:
        from perikarya.cli.models import models_command

        models_command(as_json=as_json)


@app.command()
def train(
    config: Annotated[Path, typer.Argument(help="An experiment, see examples/.", show_default=False)],
    out: Annotated[Path, typer.Option("--out", help="Run folder; an unfinished run goes on.", show_default=False)],
    study: Annotated[Path | None, typer.Option(help="Study folder, instead of the configuration's.")] = None,
    engine: EngineOption = None,
    jobs: JobsOption = None,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads per worker. Default: cores / jobs.")] = None,
    set_: SetOption = None,
    dry_run: DryRunOption = False,
) -> None:
    """Train models x folds x seeds, then write results.json and the report. Finished tasks are kept."""
    from perikarya.cli.running import train_command

    overrides = [*(set_ or []), *_launch(engine, jobs, threads)]
    overrides += [f"study={_yaml_text(study)}"] if study else []
    train_command(config, out, overrides=overrides, dry_run=dry_run)


def _launch(engine: str | None, jobs: int | None, threads: int | None) -> list[str]:
    asked = {"engine": engine, "jobs": jobs, "threads": threads}
    return [f"launch.{key}={value}" for key, value in asked.items() if value is not None]


def _yaml_text(path: Path) -> str:
    import json

    return json.dumps(str(path))


@app.command()
def status(
    run: Annotated[Path, typer.Argument(help="A run folder, or the --out of a prediction.", show_default=False)],
    as_json: Annotated[bool, typer.Option("--json", help="For other programs.")] = False,
) -> None:
    """Show how far a run or a prediction is, here or on a cluster."""
    from perikarya.cli.following import status_command

    status_command(run, as_json=as_json)


@app.command()
def evaluate(
    run: RunArgument,
    study: Annotated[Path | None, typer.Option(help="Study folder, where it has moved.")] = None,
) -> None:
    """Compute results.json anew from the predictions of a run; needs no torch."""
    from perikarya.cli.running import evaluate_command

    evaluate_command(run, study)


@app.command()
def report(
    run: RunArgument,
    study: Annotated[Path | None, typer.Option(help="Study folder, where it has moved.")] = None,
    pdf: Annotated[bool, typer.Option("--pdf", help="Also as PDF, printed by Chromium, Chrome or Edge.")] = False,
    vectors: Annotated[
        bool, typer.Option("--vectors", help="Every figure also as PDF, for a paper; takes longer.")
    ] = False,
) -> None:
    """Write results.json, figures and report.html anew from the files of a run; needs no torch."""
    from perikarya.cli.running import report_command

    report_command(run, study, pdf=pdf, vectors=vectors)


@app.command()
def explain(
    run: RunArgument,
    model: Annotated[list[str] | None, typer.Option(help="This model only. May be repeated. Default: all.")] = None,
    method: Annotated[
        str,
        typer.Option(
            help="advised, gradcam, gradcam++, scorecam, eigencam; transformers: attention-gradient, attention-rollout."
        ),
    ] = "advised",
    cells: Annotated[int, typer.Option(min=2, help="Cells of each class to measure.")] = 40,
    fold: Annotated[int | None, typer.Option(min=0, help="The network of this fold. Default: the first.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Same seed, same cells.")] = 0,
    study: Annotated[Path | None, typer.Option(help="Study folder, where it has moved.")] = None,
) -> None:
    """Show where trained networks look: maps of cells they never saw, and how much lies inside the outline."""
    from perikarya.cli.explaining import explain_command

    explain_command(run, models=model, method=method, cells=cells, fold=fold, seed=seed, study=study)


@app.command()
def export(
    run: RunArgument,
    out: Annotated[Path, typer.Option("--out", help="Folder to make.", show_default=False)],
    model: Annotated[str | None, typer.Option(help="A model of the run. Default: the leading one.")] = None,
    format_: Annotated[str, typer.Option("--format", help="onnx, openvino or safetensors.")] = "onnx",
    precision: Annotated[
        str, typer.Option(help="fp32, or int8: smaller and faster, refused where classes change.")
    ] = "fp32",
    fold: Annotated[
        list[int] | None, typer.Option(min=0, help="The network of this fold. May be repeated. Default: all.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Networks of this seed. Default: the first.")] = None,
    study: Annotated[Path | None, typer.Option(help="Study folder, where it has moved.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an exported model.")] = False,
) -> None:
    """Make a folder of a trained model that predicts anywhere: networks, classes, scale, calibration, scores."""
    from perikarya.cli.exporting import export_command

    export_command(
        run,
        model=model,
        out=out,
        format=format_,
        precision=precision,
        fold=fold,
        seed=seed,
        study=study,
        overwrite=overwrite,
    )


@app.command()
def predict(
    model: Annotated[Path, typer.Argument(help="A folder made by 'export', or a run.", show_default=False)],
    images: Annotated[
        list[str] | None,
        typer.Argument(help="Fields with outlines beside them: files, folders, 'slides/*.tif'; or a study."),
    ] = None,
    out: Annotated[Path, typer.Option("--out", help="Folder for the results; goes on where it was.")] = Path(
        "predicted"
    ),
    outlines: Annotated[
        str | None, typer.Option(help="Outlines: a file, a folder, or a pattern such as 'qupath/{stem}.geojson'.")
    ] = None,
    table: Annotated[
        Path | None, typer.Option(help="CSV with columns image, outlines, subject, region, group, um_per_px.")
    ] = None,
    formats: Annotated[
        str | None,
        typer.Option(
            "--format",
            help="geojson, roi, overlay, csv, h5ad. Default: the first four; in shards the first three.",
        ),
    ] = None,
    tta: Annotated[bool, typer.Option("--tta", help="Average over flips and quarter turns.")] = False,
    ensemble: Annotated[bool, typer.Option("--ensemble", help="Average over the networks of all folds.")] = False,
    threshold: Annotated[
        float | None, typer.Option(min=0, max=1, help="Below this probability a cell is unsure.")
    ] = None,
    um_per_px: UmPerPxOption = None,
    class_map: ClassMapOption = None,
    regions: RegionsOption = None,
    nucleus: NucleusOption = False,
    features: Annotated[bool, typer.Option("--features", help="Features of the network into the h5ad.")] = False,
    backend: Annotated[str, typer.Option(help="auto, onnxruntime, openvino or torch.")] = "auto",
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads. Default: all cores.")] = None,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Cells at once. Default: what suits the network.")
    ] = None,
    model_name: Annotated[str | None, typer.Option("--model", help="A model of the run, where MODEL is one.")] = None,
    shards: Annotated[
        int | None, typer.Option(min=1, help="Divide the cells into so many parts, one Parquet file each.")
    ] = None,
    engine: EngineOption = None,
    jobs: JobsOption = None,
    config: Annotated[
        Path | None, typer.Option(help="YAML file with a section 'launch', for --engine slurm or ray.")
    ] = None,
    set_: SetOption = None,
    dry_run: DryRunOption = False,
) -> None:
    """Classify outlined cells of whole fields; write them back for QuPath, ImageJ and tables."""
    from perikarya.cli.predicting import predict_command

    predict_command(
        model,
        images or [],
        out=out,
        outlines=outlines,
        table=table,
        formats=formats,
        tta=tta,
        ensemble=ensemble,
        threshold=threshold,
        um_per_px=um_per_px,
        class_map=class_map,
        regions=words(regions),
        nucleus=nucleus,
        features=features,
        backend=backend,
        threads=threads,
        batch_size=batch_size,
        model_name=model_name,
        shards=shards,
        config=config,
        overrides=[*(set_ or []), *_launch(engine, jobs, None)],
        dry_run=dry_run,
    )


@app.command()
def track(
    run: RunArgument,
    to: Annotated[str, typer.Option("--to", help="mlflow or tensorboard.", show_default=False)],
    uri: Annotated[str | None, typer.Option(help="Server, database or folder. Default: beside the run folder.")] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Go on until the run has ended.")] = False,
) -> None:
    """Show a run in MLflow or TensorBoard: settings, curves, figures. Again adds only what is new."""
    from perikarya.cli.tracking import track_command

    track_command(run, to=to, uri=uri, watch=watch)


@app.command()
def quantify(
    source: Annotated[
        Path, typer.Argument(help="A run folder, the --out of a prediction, or a table of cells.", show_default=False)
    ],
    study: Annotated[Path | None, typer.Option(help="Study folder: where it has moved, or to look animals up.")] = None,
    model: Annotated[str | None, typer.Option(help="A model of the run. Default: the leading one.")] = None,
    correction: Annotated[str | None, typer.Option(help="none, adjusted, probabilistic or em.")] = None,
    control: Annotated[str | None, typer.Option(help="The group others are compared with.")] = None,
    reference: Annotated[
        Path | None,
        typer.Option(help="For a table: the run of its model, or labelled predictions, to tell its errors from."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Where results go. Default: into the run, or beside the table.")
    ] = None,
) -> None:
    """Estimate damage per animal and region and the effect of treatment, corrected for misclassification."""
    from perikarya.cli.quantifying import quantify_command

    quantify_command(
        source, study=study, model=model, correction=correction, control=control, reference=reference, out=out
    )


@app.command()
def demo(
    out: Annotated[Path, typer.Option("--out", help="Folder for the phantom study and its run.")] = Path("demo"),
    jobs: Annotated[int | None, typer.Option(min=1, help="Worker processes.")] = None,
) -> None:
    """Paint a phantom study, check it, train two models, validate them and write a report, in minutes."""
    from perikarya.cli.demo import demo_command

    demo_command(out, jobs=jobs)


@app.command()
def review(
    path: Annotated[Path, typer.Argument(help="A study folder or a run folder.", show_default=False)],
    study: Annotated[Path | None, typer.Option(help="Study folder of the run, where it has moved.")] = None,
    reader: Annotated[str | None, typer.Option(help="Who looks; stands in the log. Default: your login.")] = None,
    blind: Annotated[bool, typer.Option("--blind", help="Show nothing that a model says.")] = False,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port on this machine. Default: a free one.")] = 0,
    no_open: Annotated[bool, typer.Option("--no-open", help="Print the address, open no browser.")] = False,
) -> None:
    """Look at cells, correct labels and read blindly, in a page of this machine."""
    from perikarya.cli.reviewing import review_command

    review_command(path, study=study, reader=reader, blind=blind, port=port, open_page=not no_open)
