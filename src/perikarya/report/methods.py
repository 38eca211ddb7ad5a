"""The methods of a run as a paper tells them: whole sentences with every setting, and the works they rest on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from perikarya.config import ExperimentConfig
from perikarya.report.evidence_methods import describe_evidence
from perikarya.report.markdown import escape
from perikarya.report.references import cite, numbered
from perikarya.report.training_words import describe_changes, describe_networks, describe_training, describe_views
from perikarya.report.words import capital, count, listed
from perikarya.schema import SET_WORDS

_UNITS = {"subject": "animals", "image_id": "images", "cell": "cells"}


@dataclass(frozen=True)
class Methods:
    """Paragraphs with a heading each, and the works they cite, the first of which is number 1."""

    paragraphs: list[tuple[str, str]]
    references: list[str]

    def markdown(self, title: str) -> str:
        """Write them as a Markdown document."""
        text = [f"# {escape(title)}", ""]
        for heading, paragraph in self.paragraphs:
            text += [f"**{heading}.** {escape(paragraph)}", ""]
        text += ["## References", "", *(f"{i}. {escape(work)}" for i, work in enumerate(self.references, 1)), ""]
        return "\n".join(text)


def write_methods(results: Mapping[str, Any], config: ExperimentConfig) -> Methods:
    """Say how the numbers of a run were made, with every setting that decides them.

    Parameters
    ----------
    results
        The content of ``results.json``.
    config
        The configuration of the run, with nothing left open.
    """
    found = [(heading, text) for heading, text in _paragraphs(results, config) if text]
    texts, works = numbered([text for _, text in found])
    return Methods([(heading, text) for (heading, _), text in zip(found, texts, strict=True)], works)


def _paragraphs(results: Mapping[str, Any], config: ExperimentConfig) -> Iterator[tuple[str, str]]:
    yield "Cells", _cells(results["study"])
    yield "Design", _design(results, config)
    yield "Networks", describe_networks(config, results)
    yield "Training", describe_training(config, results)
    yield "Augmentation and balance of classes", describe_changes(config, results)
    yield "Ensembles and views", describe_views(results)
    yield "Scores", _scores(results)
    yield "Uncertainty", _uncertainty(results, config)
    yield from describe_evidence(results, config)
    yield "Software", _software(results)


def _cells(study: Mapping[str, Any]) -> str:
    said = []
    for name, part in study["sets"].items():
        animals = "" if part["n_subjects"] is None else f" of {count(part['n_subjects'], 'animal')}"
        classes = listed([f"{n} {name}" for name, n in part["n_per_class"].items()])
        said.append(
            f"the {name} set held {count(part['n_cells'], 'outlined cell')}{animals} in {count(part['n_images'], 'image')} "
            f"({classes})"
        )
    width = ""
    if study["um_per_px"]:
        width = f", {study['window_px'] * study['um_per_px']:.3g} µm wide ({study['um_per_px']:.4g} µm per pixel)"
    window = (
        f"Each cell was cut out in a window of {study['window_px']} × {study['window_px']} pixels{width}, not scaled."
    )
    return f"{capital('; '.join(said))}. {window}"


def _design(results: Mapping[str, Any], config: ExperimentConfig) -> str:
    protocol = results["protocol"]
    unit = _UNITS.get(protocol["group_by"], "groups")
    seeds = listed([str(s) for s in protocol["seeds"]])
    seeds = f"seed {seeds}" if len(protocol["seeds"]) == 1 else f"seeds {seeds}"
    apart = {
        "refuse": " Pictures that occurred twice were not allowed to lie on two sides.",
        "separate": " Pictures that occurred twice were kept on one side.",
        "ignore": "",
    }[config.cv.duplicates]
    n_folds = protocol["n_folds"]
    said = [
        f"The development set was divided into {n_folds} folds by {unit} (seed {config.cv.seed}): no "
        f"{unit.removesuffix('s')} was in two folds.{apart}"
    ]
    if protocol["scheme"] == "kfold":
        some = (
            ""
            if len(protocol["folds"]) == n_folds
            else f" for folds {listed([str(k) for k in protocol['folds']])} only"
        )
        said.append(
            f"For each fold k{some} a network was trained on the other folds but k + 1, which decided when to stop and "
            f"which state to keep; fold k was only tested ({seeds})."
        )
    else:
        said.append(
            "One network per model and seed was trained on all folds but the first, which decided when to stop and "
            f"which state to keep ({seeds}); none of the development cells was tested."
        )
    if "external" in protocol["interval_unit"]:
        said.append("The external set was not used for training, stopping or choosing settings.")
    return " ".join(said)


def _scores(results: Mapping[str, Any]) -> str:
    said = []
    if "cv" in results["protocol"]["interval_unit"]:
        said.append("Cross-validated scores pool the test folds of a seed and are averaged over seeds.")
    if "external" in results["protocol"]["interval_unit"]:
        said.append("External scores are those of single networks, averaged, or of their ensemble where it is named.")
    said.append(
        "Balanced accuracy is the mean recall over classes and 'macro' the mean over classes; the area under the ROC "
        f"curve takes each class against all others{cite('auc')}; weighted kappa has quadratic weights and "
        f"presumes classes in order{cite('kappa')}; the expected calibration error has 15 bins of equal "
        f"width{cite('ece')}; log loss is in nats."
    )
    return " ".join(said)


def _uncertainty(results: Mapping[str, Any], config: ExperimentConfig) -> str:
    protocol, settings = results["protocol"], config.evaluate
    level = f"{100 * protocol['confidence']:g} %"
    said = []
    for set_name, unit in protocol["interval_unit"].items():
        works = ["cluster-bootstrap"] if unit != "cell" else ["wilson"]
        works += ["bca" if settings.interval == "bca" else "expanded"]
        said.append(
            f"{level} intervals for the {SET_WORDS[set_name].replace('cross-validation', 'cross-validated scores')}: "
            f"{protocol['interval_method'][set_name]}{cite(*works)}, {protocol['n_bootstrap']} draws, seed "
            f"{protocol['bootstrap_seed']}."
        )
    if settings.stratify == "group":
        said.append("Every draw kept the number of animals of each group.")
    if len(results["models"]) > 1:
        said.append("All models and networks share the draws, so that differences between them are paired.")
    if len(results["ranking"]) > 1 and str(results["ranking"][0]["metric"]).startswith("external"):
        said.append(
            "Models are ordered by their external score; the score of the first of many is flattered by having been "
            "chosen, and the intervals do not include that."
        )
    return " ".join(said)


def _software(results: Mapping[str, Any]) -> str:
    trained = next(iter(results["models"].values()))["training"].get("versions") or {}
    used = results["provenance"]["versions"]
    shown = listed([f"{name} {version}" for name, version in {**used, **trained}.items() if name != "perikarya"])
    return (
        f"Perikarya {used.get('perikarya', 'of unknown version')} with {shown}; settings {results['provenance']['config_hash']}, "
        f"data {results['provenance']['data_hash']}."
    )
