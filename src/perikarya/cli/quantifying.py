"""From predictions to damage on the command line: ``perikarya quantify``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import ValidationError
from rich.table import Table

from perikarya.cli.console import console
from perikarya.data.store import open_study
from perikarya.errors import ConfigError, DataError
from perikarya.evaluate.quantify.assemble import quantify_predictions, quantify_run
from perikarya.evaluate.quantify.cells import SEVERITY
from perikarya.evaluate.quantify.export import write_damage
from perikarya.evaluate.quantify.gather import choose_model, reference_of_run
from perikarya.evaluate.quantify.reference import ReferenceSums
from perikarya.evaluate.quantify.tables import PlacedTable, PredictionTable, open_predictions
from perikarya.experiment.plan import load_run_config, task_keys
from perikarya.figures.claims import damage_plates
from perikarya.figures.plates import Press
from perikarya.runs import RunFolder
from perikarya.schema import Study, validation_sentences
from perikarya.settings import QuantifyConfig


def quantify_command(
    source: Path,
    *,
    study: Path | None = None,
    model: str | None = None,
    correction: str | None = None,
    control: str | None = None,
    reference: Path | None = None,
    out: Path | None = None,
) -> None:
    """Write damage per animal and region, and draw it, from a run folder or from predictions.

    Predictions are a table, the folder ``perikarya predict`` wrote, or a folder of Parquet parts. Results go to
    ``out``; by default into the run folder, else into a folder beside the table or in the folder of the parts.
    """
    if not source.exists():
        raise DataError(f"{source} does not exist; it should be a run folder or a table of predicted cells.")
    changes = {k: v for k, v in (("correction", correction), ("control", control)) if v is not None}
    with console.status("Estimating damage"):
        if _is_run(source):
            if reference is not None:
                raise ConfigError("--reference is for tables of predictions; a run brings its own labelled cells.")
            block = _of_run(RunFolder(source), study, model, changes)
        else:
            block = _of_table(source, study, reference, model, changes)
        folder = out or _folder_of(source)
        paths = write_damage(block, folder)
        paths += [plate.path for plate in damage_plates(Press(RunFolder(folder), vectors=True), block)]
    show_damage(block)
    for path in paths:
        console.print(str(path), markup=False)


def _is_run(source: Path) -> bool:
    return source.is_dir() and RunFolder(source).config.is_file()


def _folder_of(source: Path) -> Path:
    """Where results go by default."""
    if _is_run(source):
        return source
    return source / "cells_damage" if source.is_dir() else source.with_name(f"{source.stem}_damage")


def _of_run(run: RunFolder, study: Path | None, model: str | None, changes: dict[str, str]) -> dict[str, Any]:
    config = load_run_config(run)
    config = config.model_copy(update={"quantify": changed_settings(config.quantify, changes)})
    opened = open_study(Path(study or config.study))
    return quantify_run(run, opened.cells, opened.study, config, tasks=task_keys(config), model=model)


def _of_table(
    path: Path, study: Path | None, reference: Path | None, model: str | None, changes: dict[str, str]
) -> dict[str, Any]:
    settings = changed_settings(QuantifyConfig(), changes)
    of_run = reference is not None and _is_run(reference)
    if model is not None and not of_run:
        raise ConfigError("--model is for run folders; a table holds the predictions of one model.")
    table = open_predictions(path)
    known: PredictionTable | ReferenceSums | None = None
    about: Study | None = None
    if reference is not None and of_run:
        known, about = labelled_cells_of(RunFolder(reference), model)
    elif reference is not None:
        known = open_predictions(reference)
    if study is not None:
        opened = open_study(study)
        about, table = opened.study, PlacedTable(table, opened.cells)
    if about is None:
        return quantify_predictions(table, settings=settings, reference=known)
    return quantify_predictions(
        table, about.class_names, settings=settings, reference=known, groups=about.groups, regions=about.regions
    )


def labelled_cells_of(run: RunFolder, model: str | None) -> tuple[ReferenceSums, Study]:
    """Return how a model of a run errs on its labelled cells, and the study they are of."""
    config = load_run_config(run)
    opened = open_study(Path(config.study))
    tasks = task_keys(config)
    asked = choose_model(run, tasks, model, alone={m.name for m in config.models if m.train_subjects is not None})
    return reference_of_run(run, opened.cells, opened.study, tasks=tasks, asked=asked), opened.study


def changed_settings(base: QuantifyConfig, changes: dict[str, str]) -> QuantifyConfig:
    """Return settings with some changed; raise ``ConfigError`` where a value does not fit."""
    try:
        return QuantifyConfig.model_validate({**base.model_dump(), **changes})
    except ValidationError as error:
        raise ConfigError(validation_sentences(error, "The command line")) from None


def show_damage(block: dict[str, Any]) -> None:
    """Print severity by region and group, what differs between groups, and what weakens the figures."""
    means = {(m["group"], m["region"]): m for m in block["group_means"]}
    regions = list(dict.fromkeys(m["region"] for m in block["group_means"]))
    groups: list[str | None] = list(block["groups"]) or [None]
    console.print(f"Severity, 0 ({block['class_names'][0]}) to 1 ({block['class_names'][-1]}): mean over n animals")
    table = Table("region", *(f"{g or 'all animals'}" for g in groups), box=None, header_style="bold")
    for region in regions:
        table.add_row(region, *(_mean(means.get((g, region))) for g in groups))
    console.print(table)
    effects = Table("severity, difference", "region", "estimate", "p", "p (Holm)", box=None, header_style="bold")
    for pair in block["effects"]["comparisons"]:
        for effect in (e for e in pair["effects"] if e["measure"] == SEVERITY):
            pair_words = f"{pair['group']} - {pair['reference']}"
            p_words = (_number(effect["p"], 4), _number(effect["p_holm"], 4))
            effects.add_row(pair_words, effect["region"], _value(effect["difference"]), *p_words)
    if effects.row_count:
        console.print(effects)
    for note in block["notes"]:
        console.print(f"Note: {note}", markup=False)


def _mean(entry: dict[str, Any] | None) -> str:
    return "-" if entry is None else f"{_value(entry[SEVERITY])}, n = {entry['n_animals']}"


def _value(value: dict[str, Any]) -> str:
    low, high = value["ci95"] or (None, None)
    interval = "" if low is None else f" ({low:.3f} to {high:.3f})"
    return f"{_number(value['estimate'], 3)}{interval}"


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
