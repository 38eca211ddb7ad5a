"""Whole fields on the command line: ``perikarya predict``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.table import Table

from perikarya.cli.console import console
from perikarya.data.outlines import ClassMap, ReadOptions
from perikarya.errors import ConfigError, DataError
from perikarya.predict.fields import PredictOptions
from perikarya.predict.inputs import FieldInput, FoundFields, find_fields
from perikarya.predict.manifest import ModelManifest
from perikarya.predict.outputs import FORMATS, Finished, finish, parse_formats
from perikarya.predict.outputs.record import write_record
from perikarya.predict.outputs.summary import Counts, Summary, agreement, write_problems
from perikarya.predict.run import DEFAULT_FORMATS, FieldsDone, run_predictions
from perikarya.predict.shards import has_plan
from perikarya.predict.source import open_source
from perikarya.runs import read_json

if TYPE_CHECKING:
    from perikarya.predict.source import Model

STUDY_FILE = "study.yaml"
_MAX_ROWS = 20  # images that are listed on the screen


def predict_command(
    model: Path,
    images: Sequence[str],
    *,
    out: Path,
    outlines: str | None = None,
    table: Path | None = None,
    formats: str | None = None,
    tta: bool = False,
    ensemble: bool = False,
    threshold: float | None = None,
    um_per_px: float | None = None,
    class_map: str | None = None,
    regions: Sequence[str] = (),
    nucleus: bool = False,
    features: bool = False,
    backend: str = "auto",
    threads: int | None = None,
    batch_size: int | None = None,
    model_name: str | None = None,
    shards: int | None = None,
    config: Path | None = None,
    overrides: Sequence[str] = (),
    dry_run: bool = False,
) -> None:
    """Predict fields, write the results and say what came out; exit code 1 when an image or an outline failed.

    ``formats`` None: all that people look at, and tables. Where any of the last four is given, or the folder holds a
    prediction in shards, it is one in shards; see ``cli.sharding``.
    """
    in_shards = shards is not None or config is not None or bool(overrides) or dry_run or has_plan(out)
    wanted = DEFAULT_FORMATS if formats is None else parse_formats(formats)
    if features and "h5ad" not in wanted:
        raise ConfigError("--features go into cells.h5ad, which is not asked for.\nFix: add h5ad to --format.")
    source = open_source(model, model_name)
    rules = ClassMap.parse(class_map)
    options = PredictOptions(
        tta=tta,
        ensemble=ensemble,
        threshold=threshold,
        batch_size=batch_size,
        threads=threads,
        backend=backend,
        features=features,
        um_per_px=um_per_px,
        read=ReadOptions(class_map=rules, regions=frozenset(regions), nucleus=nucleus),
    )
    cells = _cells_of(images, out, outlines=outlines, table=table)
    if in_shards:
        from perikarya.cli.sharding import load_launch, predict_in_shards
        from perikarya.predict.planning import Wish

        launch = load_launch(config, overrides)
        kept = [name for name in wanted if FORMATS[name]] if formats is None else wanted  # no table beside the parts
        wish = Wish(source, model, model_name, options, tuple(kept), shards, at_once=launch.jobs or 1)
        predict_in_shards(wish, cells, out, launch, dry_run=dry_run)
        return
    if isinstance(cells, Path):
        done, records = _predict_study(cells, source, out, options)
        wanted = tuple(name for name in wanted if FORMATS[name] is None)  # a study holds windows, not fields
    else:
        done, records = _predict_fields(cells, source, out, options, wanted)
    finished = _write_tables(out, source, options, wanted, done, records)
    show_counts(finished.summary)
    show_agreement(finished.summary)
    show_written(out, done, finished, wanted)
    for rule in rules.unused() if done.n_kept < len(done.image_ids) else ():
        console.print(f"--class-map: the rule '{rule}' fitted nothing.", markup=False)
    if done.problems:
        show_problems(out, done.problems)
        raise typer.Exit(1)


def _cells_of(images: Sequence[str], out: Path, *, outlines: str | None, table: Path | None) -> Path | FoundFields:
    """Return what is to be predicted: a study by itself, or images with outlines.

    Raises
    ------
    ConfigError
        If a study is named beside other images, outlines or a table.
    DataError
        If nothing is named, or results would go where something is read.
    """
    studies = [Path(text) for text in images if (Path(text) / STUDY_FILE).is_file()]
    if studies and (len(images) > 1 or outlines is not None or table is not None):
        raise ConfigError(
            "A study brings its own cells and words; other images, --outlines and --table do not go with it.\n"
            "Fix: predict the study by itself."
        )
    if studies:
        check_out(out, [studies[0] / STUDY_FILE])
        return studies[0]
    found = find_fields(images, outlines=outlines, table=table)
    check_out(out, [path for item in found.fields for path in (item.image, item.outlines)])
    return found


def _predict_fields(
    found: FoundFields, source: Model, out: Path, options: PredictOptions, formats: Sequence[str]
) -> tuple[FieldsDone, list[dict[str, Any]]]:
    for note in found.notes:
        console.print(note, markup=False)
    done = run_predictions(found.fields, source, out, options, formats=formats, show=console.is_terminal)
    done.problems[:0] = [(where, "", reason) for where, reason in found.problems]
    return done, list(image_records(out, found.fields, done.image_ids))


def _predict_study(
    study: Path, source: Model, out: Path, options: PredictOptions
) -> tuple[FieldsDone, list[dict[str, Any]]]:
    from perikarya.predict.study import predict_study

    parts = predict_study(study, source, out, options, show=console.is_terminal)
    return FieldsDone(image_ids=parts), [{"study": str(study)}]


def _write_tables(
    out: Path,
    source: Model,
    options: PredictOptions,
    formats: Sequence[str],
    done: FieldsDone,
    records: Sequence[dict[str, Any]],
) -> Finished:
    with console.status("Writing the tables"):
        finished = finish(
            out,
            done.image_ids,
            source.manifest,
            formats,
            model_sha256=source.sha256,
            features=options.features,
        )
    write_problems(out / "problems.csv", done.problems)
    write_record(
        out / "predict.json",
        manifest=source.manifest,
        model_sha256=source.sha256,
        options=describe_options(options, source.manifest, formats),
        images=records,
        summary=finished.summary,
        n_problems=len(done.problems),
    )
    return finished


def check_out(out: Path, sources: Iterable[Path]) -> None:
    """Raise ``DataError`` where results would go into the folder of what is read: ``cells.csv`` may be both."""
    for path in sources:
        if path.parent.resolve() == out.resolve():
            raise DataError(
                f"--out {out} is the folder of {path.name}, which is read here.\n"
                "Results could replace outlines somebody drew, or be taken for them. Fix: choose another --out."
            )


def describe_options(options: PredictOptions, manifest: ModelManifest, formats: Sequence[str]) -> dict[str, Any]:
    """Return the options as they took effect, ready for JSON."""
    plain = {
        key: getattr(options, key) for key in ("tta", "ensemble", "calibrated", "backend", "features", "um_per_px")
    }
    plain["threshold"] = manifest.threshold if options.threshold is None else options.threshold
    plain["n_networks"] = len(manifest.networks) if options.ensemble else 1
    plain["class_map"] = [rule.text for rule in options.read.class_map.rules]
    return plain | {"regions": sorted(options.read.regions), "nucleus": options.read.nucleus, "formats": list(formats)}


def image_records(out: Path, fields: Iterable[FieldInput], image_ids: Iterable[str]) -> Iterator[dict[str, Any]]:
    """Iterate over the images that are done: id, files, number of cells, and the hashes of all they follow from."""
    done = set(image_ids)
    for item in fields:
        if item.image_id in done:
            mark = read_json(out / "done" / f"{item.image_id}.json", what="the mark of a finished image")
            files = {"image_id": item.image_id, "image": str(item.image), "outlines": str(item.outlines)}
            yield files | {"n_cells": mark["n_cells"], "sha256": mark["from"]}


def show_counts(summary: Summary) -> None:
    """Print how many cells of each image have each class."""
    images = summary.of("image")
    if not images:
        return
    abstains = any(counts.n_abstained for counts in images.values())
    header = ["image", "cells", *summary.class_names, *(["unsure"] if abstains else [])]
    table = Table(*header, box=None, header_style="bold")
    for names, counts in list(images.items())[:_MAX_ROWS]:
        table.add_row(names[-1], *_numbers(counts, abstains=abstains))
    if len(images) > _MAX_ROWS:
        table.add_row(f"... and {len(images) - _MAX_ROWS} more, in summary.csv")
    if len(images) > 1:
        table.add_row("all", *_numbers(summary.of("all")[()], abstains=abstains), style="bold")
    console.print(table)


def _numbers(counts: Counts, *, abstains: bool) -> list[str]:
    n_k = counts.n_k.tolist()
    return [str(n) for n in (sum(n_k), *n_k, *([counts.n_abstained] if abstains else []))]


def show_agreement(summary: Summary) -> None:
    """Print the confusion matrix of cells whose class the files give, and what it does not say."""
    if summary.unknown:
        classes = ", ".join(f"{name} ({n})" for name, n in summary.unknown.most_common(8))
        console.print(f"The model does not know classes of the files: {classes}. --class-map translates.", markup=False)
    if summary.n_own:
        console.print(f"{summary.n_own} cells have their class from an earlier prediction; it is not compared with.")
    n = summary.n_labelled
    if n == 0:
        return
    table = Table("class in the file", *(f"as {c}" for c in summary.class_names), box=None, header_style="bold")
    for name, row in zip(summary.class_names, summary.confusion_kk.tolist(), strict=True):
        if sum(row):
            table.add_row(name, *(str(count) for count in row))
    console.print(table)
    words = f"{_percent(agreement(summary.confusion_kk))} of {n} cells have the class that the file gives them"
    n_sure = int(summary.sure_kk.sum())
    if n_sure < n:
        words += f", {_percent(agreement(summary.sure_kk))} of the {n_sure} that are not unsure"
    console.print(f"{words}.", markup=False)
    console.print("That is no validation: it has no interval, and cells the model was trained on count as well.")


def _percent(share: float | None) -> str:
    return "none" if share is None else f"{100 * share:.1f} %"


def show_written(out: Path, done: FieldsDone, finished: Finished, formats: Sequence[str]) -> None:
    """Print which files there are now and what can be done with them."""
    if not done.image_ids:
        return
    n_kept = f" ({done.n_kept} were done before and are kept)" if done.n_kept else ""
    endings = ", ".join(f"<image>{FORMATS[name]}" for name in formats if FORMATS[name])
    tables = ", ".join(path.name for path in finished.paths)
    if endings:
        console.print(f"{len(done.image_ids)} image(s){n_kept}. In {out}: {endings}", markup=False)
    console.print(f"Over all cells, in {out}: {tables}, problems.csv, predict.json", markup=False)
    if "geojson" in formats:
        console.print("QuPath: drop <image>.geojson onto the open image.", markup=False)
    if "roi" in formats:
        console.print("ImageJ: drop <image>.rois.zip onto its bar while the image is open.", markup=False)
    known = any(name for names in finished.summary.of("animal") for name in names[1:])
    if known:
        table = out / "cells.parquet"
        console.print(f"Next: perikarya quantify {table} --reference RUN (the run of the model)", markup=False)
    else:
        console.print(
            "For damage per animal, tell which animal each image is of: --table with columns image, subject, group.",
            markup=False,
        )


def show_problems(out: Path, problems: Sequence[tuple[str, str, str]]) -> None:
    """Print what could not be predicted."""
    n_images = sum(1 for _, key, _ in problems if not key)
    console.print(
        f"{n_images} image(s) and {len(problems) - n_images} outline(s) were not predicted, the rest was:", markup=False
    )
    for where, key, reason in problems[:_MAX_ROWS]:
        console.print(f"  {where}{f', {key}' if key else ''}: {reason}", markup=False)
    if len(problems) > _MAX_ROWS:
        console.print(f"  ... and {len(problems) - _MAX_ROWS} more", markup=False)
    console.print(f"All of them: {out / 'problems.csv'}", markup=False)
