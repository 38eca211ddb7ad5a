"""The model card of the leading model, after Mitchell et al. 2019 (doi:10.1145/3287560.3287596)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from perikarya.config import ExperimentConfig
from perikarya.report import content
from perikarya.report.markdown import escape, table_lines
from perikarya.report.references import REFERENCES
from perikarya.report.words import Table, count, interval, listed, number

_PARTS = ("regions", "groups", "external_regions", "external_groups")


@dataclass(frozen=True)
class CardPart:
    """One heading of the card with what stands under it."""

    title: str
    sentences: list[str]
    tables: list[Table] = field(default_factory=list)


def model_card(results: Mapping[str, Any], config: ExperimentConfig, lead: str) -> list[CardPart]:
    """Describe the leading model: what it is, what it is for and not for, on what data and how well it works.

    Parameters
    ----------
    results
        The content of ``results.json``.
    config
        The configuration of the run.
    lead
        The name of the leading model in ``results["models"]``.
    """
    entry = results["models"][lead]
    return [
        CardPart("Model", _details(results, config, lead, entry)),
        CardPart("Intended use", _intended(results["study"])),
        CardPart("Not for", _not_for()),
        CardPart("Data", _data(results)),
        CardPart("Evaluation", _evaluation(results, entry), _tables(lead, entry)),
        CardPart("Limits", _limits(results, entry)),
        CardPart("Ethics", _ethics(entry)),
    ]


def card_markdown(parts: list[CardPart], title: str) -> str:
    """Write a card as a Markdown document."""
    lines = [f"# {escape(title)}", ""]
    for part in parts:
        lines += [f"## {part.title}", "", *(line for s in part.sentences for line in (escape(s), ""))]
        for table in part.tables:
            lines += table_lines(table)
    return "\n".join([*lines, f"After {escape(REFERENCES['model-card'])}", ""])


def _details(results: Mapping[str, Any], config: ExperimentConfig, lead: str, entry: Mapping[str, Any]) -> list[str]:
    base = next((m for m in config.models if m.name == entry.get("base", lead)), None)
    said = [
        f"{lead} assigns an outlined cell to one of {listed(results['study']['class_names'], 'or')} and gives a probability of each."
    ]
    if entry["kind"] == "ensemble":
        said.append(f"It averages the probabilities of {count(entry['n_networks'], 'network')}.")
    if base is not None:
        said.append(
            f"Network {base.arch}, strategy '{base.strategy}', input {base.input_px} × {base.input_px} px, channels {base.channels}."
        )
    weights = entry.get("weights") or {}
    if weights.get("source"):
        said.append(
            f"Weights it started from: {weights['source']}, licence: {weights.get('licence') or 'not stated'}. What is "
            "trained on them is a work based on them: their licence holds for this model too."
        )
    version = results["provenance"]["versions"].get("perikarya", "unknown")
    said.append(
        f"Made with Perikarya {version}, settings {results['provenance']['config_hash']}, data "
        f"{results['provenance']['data_hash']}, evaluated {results['provenance']['created']}. Every setting: "
        "config.yaml and methods.md in the run folder."
    )
    return said


def _intended(study: Mapping[str, Any]) -> list[str]:
    scale = f", at {study['um_per_px']:.4g} µm per pixel" if study["um_per_px"] else ""
    return [
        "Research: grading outlined cells of animals in histological sections that were prepared, stained and "
        f"photographed as those of the study '{study['name']}'{scale}, to compare regions and groups of animals.",
        "Users: laboratories that can check a sample of its grades against their own reading.",
    ]


def _not_for() -> list[str]:
    return [
        "Not for clinical diagnosis, nor for any decision about a patient or a single animal.",
        "Not for other species, stains, scanners or ways of outlining without a new external test; not for finding cells: "
        "it grades what was outlined by others.",
    ]


def _data(results: Mapping[str, Any]) -> list[str]:
    said = []
    for name, part in results["study"]["sets"].items():
        animals = "animals not known" if part["n_subjects"] is None else count(part["n_subjects"], "animal")
        classes = listed([f"{n} {c}" for c, n in part["n_per_class"].items()])
        said.append(f"{name.capitalize()} set: {count(part['n_cells'], 'cell')}, {animals} ({classes}).")
    return said


def _evaluation(results: Mapping[str, Any], entry: Mapping[str, Any]) -> list[str]:
    where = results["protocol"]["interval_method"]
    level = f"{100 * results['protocol']['confidence']:g} %"
    said = [f"{level} intervals, {name}: {method}." for name, method in where.items() if entry.get(name)]
    for name, words in (("external", "On the external set"), ("cv", "In cross-validation")):
        block = entry.get(name)
        if block:
            value = block["balanced_accuracy"]
            said.append(f"{words}: balanced accuracy {number(value['mean'])} ({interval(value) or 'no interval'}).")
    return said


def _tables(lead: str, entry: Mapping[str, Any]) -> list[Table]:
    tables = [content.class_table(lead, entry[s], s) for s in ("external", "cv") if entry.get(s)]
    return tables + [t for key in _PARTS if (t := content.scope_table(lead, entry, key))]


def _limits(results: Mapping[str, Any], entry: Mapping[str, Any]) -> list[str]:
    said = list(results["protocol"]["warnings"])
    if not entry.get("external"):
        said.append("It has not been tested on animals from outside the study.")
    for set_name in ("external", "cv"):
        block = entry.get(set_name)
        weakest = content.weakest_class(block) if block else ""
        if weakest:
            said.append(weakest)
            break
    said.append(
        "Its probabilities and class shares hold for mixtures of classes like those it was tested on; counts of another "
        "mixture need correction ('perikarya quantify')."
    )
    return said


def _ethics(entry: Mapping[str, Any]) -> list[str]:
    said = [
        "The cells come from experiments on animals; the authors of the study state who approved them.",
        "Errors are not spread evenly over regions, groups and animals (tables above): a treatment that changes how cells "
        "look may be over- or underrated.",
    ]
    if not (entry.get("weights") or {}).get("licence"):
        said.append("No licence is on record for the weights it started from: ask before passing the model on.")
    return said
