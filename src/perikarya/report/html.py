"""Write the report of a finished run: one HTML file with everything inside, and a light page per region and group."""

from __future__ import annotations

import base64
import hashlib
import logging
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from typing import TYPE_CHECKING, Any

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined

from perikarya.config import ExperimentConfig
from perikarya.data.store import OpenStudy
from perikarya.evaluate.outputs import ModelScores, load_outputs, model_scores
from perikarya.evaluate.quantify.export import FILES as DAMAGE_FILES
from perikarya.evaluate.saliency import load_explained
from perikarya.figures.book import draw_all
from perikarya.figures.plates import Plate, ordered_models
from perikarya.report import content
from perikarya.report.checklist import checklist_tables, facts_of
from perikarya.report.explore import Explorer, explore
from perikarya.report.images import Shown, embed
from perikarya.report.methods import write_methods
from perikarya.report.model_card import card_markdown, model_card
from perikarya.report.scope_pages import write_scope_pages
from perikarya.report.sections import page_sections, study_plates
from perikarya.runs import RunFolder, TaskKey, now, read_json, write_text

if TYPE_CHECKING:
    from pathlib import Path

log = logging.getLogger(__name__)

MAX_IMAGE_BYTES_TOTAL = 8_500_000  # leaves 1.5 MB of a 10 MB page for text
METHODS_FILE, CARD_FILE = "methods.md", "model_card.md"


def build_report(
    run: RunFolder,
    opened: OpenStudy,
    config: ExperimentConfig,
    results: dict[str, Any],
    check: Mapping[str, Any] | None = None,
    *,
    vectors: bool = False,
) -> Path:
    """Draw all figures into ``RUN/figures`` and write ``RUN/report.html`` and what goes with it.

    Beside the page: ``RUN/report/region_<name>.html`` and ``group_<name>.html``, ``RUN/methods.md`` and
    ``RUN/model_card.md``.

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
    vectors
        Write the figures as PDF, too, in about twice the time.

    Returns
    -------
    The path of the page. It loads nothing from elsewhere, allows one script by its hash, says all it has to say
    without that script too, and stays below 10 MB.
    """
    results = results | _beside(run, results)
    curve = [m.name for m in config.models if m.train_subjects is not None]
    outputs = load_outputs(run, _tasks(results), opened.cells, opened.study.class_names)
    scores = model_scores(outputs, alone=curve)
    headline = content.headline(results)
    lead = headline["model"] or next(iter(ordered_models(results)))
    explorer = _explorer(opened, scores, lead)
    room = MAX_IMAGE_BYTES_TOTAL - (explorer.sprite.n_bytes if explorer else 0)
    plates = _shown(draw_all(run, opened, config, results, scores, vectors=vectors), lead, room)
    methods = write_methods(results, config)
    card = model_card(results, config, lead)
    environment, css, script = page_environment(), read_own("report.css"), read_own("report.js")
    pages = write_scope_pages(run, opened, results, lead, environment=environment, css=css)
    page = environment.get_template("report.html.j2").render(
        css=css,
        script=script,
        script_hash=script_hash(script),
        study=results["study"],
        protocol=results["protocol"],
        provenance=results["provenance"],
        headline=headline,
        lead=lead,
        warnings=content.warnings_of(results, check),
        sections=page_sections(results, lead, plates, pages),
        explore=explorer,
        study_table=content.study_table(results),
        study_plates=study_plates(plates),
        check=check,
        methods=methods,
        card=card,
        checklists=checklist_tables(facts_of(results, config, lead, checked=check is not None)),
        training_table=content.training_table(results),
        config_yaml=yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True),
        written=now(),
    )
    name = results["study"]["name"]
    write_text(run.root / METHODS_FILE, methods.markdown(f"Methods: {name}"))
    write_text(run.root / CARD_FILE, card_markdown(card, f"Model card: {lead}, {name}"))
    write_text(run.report, page)
    return run.report


def _beside(run: RunFolder, results: Mapping[str, Any]) -> dict[str, Any]:
    """Read what 'quantify' and 'explain' left beside ``results.json``, where the results do not hold it."""
    found: dict[str, Any] = {}
    damage = run.root / DAMAGE_FILES[0]
    if "damage" not in results and damage.is_file():
        found["damage"] = read_json(damage, what="the damage of a run's animals")
    if "explain" not in results:
        found["explain"] = {"models": load_explained(run)}
    return found


def _explorer(opened: OpenStudy, scores: Iterable[ModelScores], lead: str) -> Explorer | None:
    leading = next((s for s in scores if s.name == lead), None)
    return None if leading is None else explore(opened, leading)


def _tasks(results: Mapping[str, Any]) -> list[TaskKey]:
    """Return the tasks behind the results, each once: entries with several views repeat those of their model."""
    keys = [
        TaskKey(str(model.get("base", name)), task["seed"], task["fold"])
        for name, model in results["models"].items()
        if model["kind"] == "network"
        for task in model["training"]["tasks"]
    ]
    return list(dict.fromkeys(keys))


def _shown(drawn: Sequence[Plate], lead: str, room: int) -> list[Shown]:
    """Embed figures until the page is full: those of other models than the leading one come last."""
    order = sorted(range(len(drawn)), key=lambda i: (drawn[i].model not in ("", lead), i))
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


def script_hash(script: str) -> str:
    """Return what a Content-Security-Policy calls an inline script by: ``sha256-`` and its digest in base 64."""
    return f"sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}"


def read_own(name: str) -> str:
    """Read a file that ships with this package."""
    return (resources.files("perikarya.report") / name).read_text(encoding="utf-8")


def page_environment() -> Environment:
    """Return the templates; names of studies, classes, models and animals come from others: everything is escaped."""
    loader = PackageLoader("perikarya.report", package_path="")
    return Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
