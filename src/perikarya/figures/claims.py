"""Figures of what a run claims beyond scores: comparisons, trust, damage, doubtful labels, limits, where it looks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from perikarya.data.splits import rows_of
from perikarya.data.store import OpenStudy
from perikarya.evaluate.calibration import NONE, try_methods
from perikarya.evaluate.folds import network_scores
from perikarya.evaluate.label_quality import LABEL_ISSUES, read_label_table
from perikarya.evaluate.metrics import OVERALL
from perikarya.evaluate.outputs import ModelScores
from perikarya.evaluate.summary import RANKED
from perikarya.figures.calibration import plot_calibration, plot_class_reliability, plot_conformal, plot_risk_coverage
from perikarya.figures.damage import plot_correction, plot_fractions, plot_severity
from perikarya.figures.effects import plot_effects, plot_power
from perikarya.figures.label_quality import plot_label_issues, plot_label_noise
from perikarya.figures.models import plot_regions_heat, plot_scatter, plot_speed, plot_spread
from perikarya.figures.plates import Plate, Press, ordered_models
from perikarya.figures.ranking import plot_critical_difference, plot_pairwise
from perikarya.figures.saliency import saliency_figures
from perikarya.figures.saturation import plot_saturation
from perikarya.schema import SET_WORDS


def comparison_plates(
    press: Press, results: dict[str, Any], scores: Sequence[ModelScores], class_names: tuple[str, ...]
) -> Iterator[Plate]:
    """Draw all models beside each other: spread over networks, time, regions, ranks over folds, pairs."""
    models = ordered_models(results)
    networks = {s.name: s for s in scores if s.kind == "network" and s.name in models}
    spread = {
        "cv": {n: network_scores(networks[n].tests) for n in models if n in networks and networks[n].tests},
        "external": {n: network_scores(networks[n].external) for n in models if n in networks and networks[n].external},
    }
    figure = plot_spread({s: scored for s, scored in spread.items() if scored})
    if figure is not None:
        words = (
            "Single networks",
            "Points: trained networks, one per fold and seed; boxes (five or more): quartiles. Open: cross-validation; "
            "filled: external set.",
            f"Strip and box plots of {', '.join(networks)}: accuracy, balanced accuracy, macro AUC and loss.",
        )
        yield press.plate(figure, "boxes", words)
    figure = plot_scatter(models)
    if figure is not None:
        words = (
            "Cross-validation against other animals",
            "Bars: intervals. On the dotted line a model does as well on other animals as cross-validation promised.",
            f"Scatter plot of external against cross-validated balanced accuracy of {len(networks)} models.",
        )
        yield press.plate(figure, "scatter", words)
    figure = plot_speed(models)
    if figure is not None:
        words = (
            "Time per cell against accuracy",
            "From crop to probabilities on the machine that trained; logarithmic. Open: one cell at a time; filled: in "
            "batches.",
            f"Scatter plot of accuracy against inference time per cell of {len(models)} models.",
        )
        yield press.plate(figure, "speed", words)
    block = results["comparisons"]
    if block["folds"]["friedman"]:
        words = (
            "Average ranks over folds",
            "Rank 1 is best. Models joined by a bar differ by less than Nemenyi's critical difference. Folds share "
            "training cells, so this describes and does not prove.",
            "Critical-difference diagram: " + _ranks(block["folds"]["friedman"]),
        )
        yield press.plate(plot_critical_difference(block["folds"]["friedman"]), "critical_difference", words)
    pairs = block["metrics"].get(RANKED)
    figure = plot_pairwise(RANKED, pairs, block["models"], alpha=block["alpha"]) if pairs and len(models) > 2 else None
    if figure is not None:
        words = (
            "How far apart the models are",
            f"{OVERALL.get(RANKED).title}, {SET_WORDS[block['set']]}: percentage points by which the column's model "
            "leads the row's. Shaded and bold: told apart after Holm's correction.",
            f"Matrix of differences between {len(block['models'])} models.",
        )
        yield press.plate(figure, "ranking", words)
    figure = plot_regions_heat(models, class_names, chosen=next(iter(models)))
    if figure is not None:
        words = (
            "Models by region",
            f"Accuracy of each model, below it the recall of each class by {next(iter(models))}; at the side the "
            "standard deviation over regions.",
            f"Heat map of the accuracy of {len(models)} models by region.",
        )
        yield press.plate(figure, "regions_heat", words)


def _ranks(friedman: Mapping[str, Any]) -> str:
    return "; ".join(f"{name} {rank:.2f}" for name, rank in friedman["ranks"].items())


def trust_plates(
    press: Press, results: dict[str, Any], scores: Sequence[ModelScores], class_names: tuple[str, ...]
) -> Iterator[Plate]:
    """Draw calibration and abstention of the leading model, or of its networks where an ensemble leads."""
    models = ordered_models(results)
    lead = next(iter(models))
    networks = next((s for s in scores if s.name == models[lead]["base"]), None)
    if networks is not None:
        yield from _calibration(press, models, networks, lead, class_names)
    curves = {name: m["abstention"] for name, m in models.items() if m.get("abstention")}
    if any(c["risk_coverage"] for c in curves.values()):
        words = (
            "What a model gets wrong when it may abstain",
            "Error of the cells that are kept, surest first; area under the curve with its interval. Red: thresholds "
            "chosen on validation cells to err on at most 5 and 10 %, and what they did here.",
            f"Risk-coverage curves of {len(curves)} models, {lead} in front.",
        )
        yield press.plate(plot_risk_coverage(curves, leader=lead), "risk_coverage", words)
    deciding = next((n for n in (lead, models[lead]["base"], *curves) if (curves.get(n) or {}).get("conformal")), None)
    if deciding is not None:
        block = curves[deciding]["conformal"]
        words = (
            f"{deciding}: conformal sets",
            f"Sets should hold the true class in {100 * block['nominal']:g} % of the cells of each class; the promise "
            "supposes cells exchangeable with the validation cells, which cells of other animals are not. Right: each "
            "dot an animal of five cells or more; with few cells, much of the spread is chance.",
            f"Coverage of conformal sets of {deciding} by class and by animal.",
        )
        yield press.plate(plot_conformal(block, class_names), "conformal", words)


def _calibration(
    press: Press, models: Mapping[str, Any], networks: ModelScores, lead: str, class_names: tuple[str, ...]
) -> Iterator[Plate]:
    tried = try_methods(networks.outputs).by_entry
    name = lead if lead in tried else networks.name
    block = models[name].get("calibration")
    if block is None or len(tried.get(name, {})) < 2 or not block["sets"]:
        return
    words = (
        f"{name}: before and after calibration",
        "Each network calibrated on its validation fold. On the dotted line, of cells given 80 % confidence, 80 % are "
        "right. Dot size: cells; red: the gap; no line through bins of fewer than five cells.",
        f"Reliability diagrams of {name}, as given and under each method of calibration.",
    )
    yield press.plate(plot_calibration(tried[name], block), "calibration", words)
    method = block["advised"]["method"]
    method = method if method in tried[name] and method != NONE else next(m for m in tried[name] if m != NONE)
    words = (
        f"{name}: calibration of each class",
        f"Share of cells of the class against its predicted probability, as given and by {method}; numbers: "
        "calibration error of the class with its interval.",
        f"Reliability diagram of {name} for each of {', '.join(class_names)}.",
    )
    figure = plot_class_reliability(tried[name], block, class_names, method=method)
    yield press.plate(figure, "class_reliability", words)


def damage_plates(press: Press, damage: dict[str, Any] | None) -> Iterator[Plate]:
    """Draw severity, class fractions, their correction, effects and power; nothing where damage was not quantified."""
    if damage is None:
        return
    first, last = damage["class_names"][0], damage["class_names"][-1]
    words = (
        "Severity of every animal",
        f"0: all cells {first}; 1: all {last}. Points: animals; at their side the mean of the group, with intervals.",
        f"Severity by region and group: {', '.join(damage['groups'] or ['all animals'])}.",
    )
    yield press.plate(plot_severity(damage), "severity", words)
    effects = plot_effects(damage["effects"])
    if effects is not None:
        words = (
            "Effect on severity",
            "Difference between the animals' means in each region with its interval (animals resampled, error of the "
            "correction carried through). Filled: p corrected over regions (Holm) at most 5 %; cross: too few animals "
            "for a test; all regions together is a question of its own.",
            "Forest plot of differences in severity by region.",
        )
        yield press.plate(effects, "effects", words)
    words = (
        "Fractions of the classes",
        "Means over animals, corrected for misclassification as the methods say.",
        f"Stacked bars of the fractions of {', '.join(damage['class_names'])} by region and group.",
    )
    yield press.plate(plot_fractions(damage), "fractions", words)
    words = (
        "What the correction changes",
        "All cells of an animal, means over animals: as counted, as corrected with interval, and by labels where all "
        "cells have one.",
        "Dot plot of counted, corrected and labelled fractions of each class by group.",
    )
    yield press.plate(plot_correction(damage), "correction", words)
    power = plot_power(damage["power"])
    if power is not None:
        words = (
            "What a next study would find",
            "Smallest difference in severity found with 80 % power, by animals per group. Band: what this study knows "
            "of the spread between animals. Plan with the smallest difference that matters, not the observed one.",
            "Curves of the detectable difference against the number of animals per group.",
        )
        yield press.plate(power, "power", words)


def label_plates(press: Press, opened: OpenStudy, block: dict[str, Any] | None) -> Iterator[Plate]:
    """Draw the most suspicious labels and how many labels of each class are probably of another."""
    path = press.run.root / LABEL_ISSUES
    if block is None or not path.is_file():
        return
    table = read_label_table(path)
    table["row"] = rows_of(opened.cells["cell_id"], table["cell_id"].astype(str))
    figure = plot_label_issues(opened, table)
    if figure is not None:
        words = (
            "Labels worth a second look",
            "Recorded class → what networks that never saw the cell take it for, with its probability; then subject "
            f"and image. All of them: {LABEL_ISSUES}.",
            "Photographs of the cells whose label the networks doubt most.",
        )
        yield press.plate(figure, "label_issues", words, photos=True)
    words = (
        "How many labels are doubtful",
        "Of the cells recorded as each class (rows), the percentage that confident learning takes for each class.",
        "Matrix of recorded against likely classes in percent.",
    )
    yield press.plate(plot_label_noise(block, opened.study.class_names), "label_noise", words)


def limit_plates(press: Press, block: dict[str, Any] | None) -> Iterator[Plate]:
    """Draw learning curves, the ceiling of the labels and the spread between networks."""
    if block is None:
        return
    words = (
        "What limits the score",
        "Left: error against training animals, fitted and continued to twice as many. Band: the error that labels "
        "leave to a perfect classifier. Right: all networks, trained on all animals. " + block["sentence"],
        "Learning curves with a fitted power law, the ceiling set by labels, and the scores of all networks.",
    )
    yield press.plate(plot_saturation(block), "saturation", words)


def saliency_plates(press: Press, opened: OpenStudy) -> Iterator[Plate]:
    """Draw what ``perikarya explain`` left in the run."""
    for drawn in saliency_figures(press.run, opened):
        words = (drawn.title, drawn.caption, drawn.alt)
        yield press.plate(drawn.figure, drawn.kind, words, model=drawn.model, photos=drawn.kind == "saliency")
