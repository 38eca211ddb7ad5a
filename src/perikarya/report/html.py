"""Write the report of a finished run: one HTML file with everything inside."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING, Any

import yaml
from jinja2 import Environment, StrictUndefined

from perikarya.config import ExperimentConfig
from perikarya.data.store import OpenStudy
from perikarya.evaluate.outputs import load_outputs, model_scores
from perikarya.figures.book import Plate, draw_all, ordered_models
from perikarya.report import content
from perikarya.report.images import embed
from perikarya.runs import RunFolder, TaskKey, now, write_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

log = logging.getLogger(__name__)

MAX_IMAGE_BYTES_TOTAL = 8_500_000  # leaves 1.5 MB of a 10 MB page for text
_SCOPES = ("regions", "groups", "external_regions", "external_groups")


@dataclass(frozen=True)
class Shown:
    """A figure on the page; without ``uri`` the page was full and only names the file."""

    kind: str
    model: str
    title: str
    caption: str
    alt: str
    file: str
    uri: str = ""
    width: int = 0
    height: int = 0


def build_report(
    run: RunFolder,
    opened: OpenStudy,
    config: ExperimentConfig,
    results: dict[str, Any],
    check: Mapping[str, Any] | None = None,
) -> Path:
    """Draw all figures into ``RUN/figures`` and write ``RUN/report.html``.

    Parameters
    ----------
    run
        A run with at least one finished task.
    opened
        The study it was trained on.
    config
        The experiment's configuration.
    results
        What ``evaluate.collect.evaluate_run`` returned.
    check
        What was found in the data: ``{"ok": bool, "findings": [{"severity", "sentence"}]}``.

    Returns
    -------
    The path of the page. It loads nothing from elsewhere, runs no scripts and stays below 10 MB.
    """
    outputs = load_outputs(run, _tasks(results), opened.cells, opened.study.class_names)
    plates = _shown(draw_all(run, opened, config, results, model_scores(outputs)))
    page = (
        _environment()
        .from_string(_read("report.html.j2"))
        .render(
            css=_read("report.css"),
            plates=plates,
            check=check,
            config_yaml=yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True),
            written=now(),
            **_words(results, check),
        )
    )
    write_text(run.report, page)
    return run.report


def _words(results: dict[str, Any], check: Mapping[str, Any] | None) -> dict[str, Any]:
    lead = content.headline(results)
    models = ordered_models(results)
    lead_name = lead["model"] or next(iter(models))
    return {
        "study": results["study"],
        "protocol": results["protocol"],
        "provenance": results["provenance"],
        "headline": lead,
        "lead": lead_name,
        "others": [n for n in models if n != lead_name],
        "warnings": content.warnings_of(results, check),
        "methods": content.methods(results),
        "model_tables": content.model_tables(results),
        "class_tables": {n: _class_tables(n, m) for n, m in models.items()},
        "scope_tables": [t for s in _SCOPES if (t := content.scope_table(lead_name, models[lead_name], s))],
        "study_table": content.study_table(results),
        "training_table": content.training_table(results),
    }


def _class_tables(name: str, model: Mapping[str, Any]) -> list[content.Table]:
    return [content.class_table(name, model[s], s) for s in ("external", "cv") if model.get(s)]


def _tasks(results: Mapping[str, Any]) -> list[TaskKey]:
    return [
        TaskKey(name, task["seed"], task["fold"])
        for name, model in results["models"].items()
        if model["kind"] == "network"
        for task in model["training"]["tasks"]
    ]


def _shown(plates: Iterable[Plate]) -> list[Shown]:
    """Embed figures until the page is full: first those of the study and of the leading model, as they are drawn."""
    drawn = list(plates)
    room = MAX_IMAGE_BYTES_TOTAL
    # photographs of the study are drawn last but matter more than the curves of the tenth model
    order = sorted(range(len(drawn)), key=lambda i: (drawn[i].kind not in ("counts", "cells"), i))
    shown: dict[int, Shown] = {}
    for i in order:
        plate = drawn[i]
        about = (plate.kind, plate.model, plate.title, plate.caption, plate.alt, f"figures/{plate.path.name}")
        image = embed(plate.path)
        if image.n_bytes > room:
            log.warning("%s is not in the report, which is full; the file is in the run folder", plate.path.name)
            shown[i] = Shown(*about)
            continue
        room -= image.n_bytes
        shown[i] = Shown(*about, image.uri, image.width, image.height)
    return [shown[i] for i in range(len(drawn))]


def _read(name: str) -> str:
    return (resources.files("perikarya.report") / name).read_text(encoding="utf-8")


def _environment() -> Environment:
    # names of studies, classes, models and animals come from files of others: everything is escaped
    return Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
