"""All figures of a run, each with the words that go with it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from perikarya.config import ExperimentConfig
from perikarya.data.store import OpenStudy
from perikarya.evaluate.outputs import ModelScores, Scored, average, load_history
from perikarya.evaluate.stats import UNIT_WORDS
from perikarya.figures.augmentation import plot_augmentation
from perikarya.figures.claims import (
    comparison_plates,
    damage_plates,
    label_plates,
    limit_plates,
    saliency_plates,
    trust_plates,
)
from perikarya.figures.compare import plot_comparison, plot_counts, plot_recall, plot_scopes
from perikarya.figures.curves import plot_curves
from perikarya.figures.galleries import plot_contact_sheet, plot_mistakes, worst_mistakes
from perikarya.figures.plates import Plate, Press, ordered_models
from perikarya.figures.scores import Parts, plot_confusion, plot_precision_recall, plot_reliability, plot_roc
from perikarya.parallel import ForkedWork
from perikarya.runs import RunFolder
from perikarya.schema import SET_WORDS

log = logging.getLogger(__name__)

N_MISTAKES = 24
OTHERS_DPI = 200  # figures of models that do not lead: sharp on a screen, in a third less time and room


def draw_all(
    run: RunFolder,
    opened: OpenStudy,
    config: ExperimentConfig,
    results: dict[str, Any],
    scores: list[ModelScores],
    *,
    vectors: bool = False,
) -> list[Plate]:
    """Draw every figure of a run into ``RUN/figures``, the most important first.

    Each is a PNG; ``vectors`` writes those without photographs as PDF, too, in about twice the time.

    Parameters
    ----------
    run
        The run folder.
    opened
        The study it was trained on, for its cells and crops.
    config
        The experiment, for its augmentation.
    results
        The content of ``results.json``.
    scores
        From ``evaluate.outputs.model_scores``: the predictions behind the results.
    """
    press = Press(run, vectors=vectors)
    names = opened.study.class_names
    models = ordered_models(results)
    by_name = {s.name: s for s in scores}
    lead, *others = models
    chapters = [
        _comparisons(press, models, names, results["protocol"]),
        comparison_plates(press, results, scores, names),
        damage_plates(press, results.get("damage")),
        trust_plates(press, results, scores, names),
        limit_plates(press, results.get("saturation")),
        _of_model(press, by_name[lead], models[lead], names),
        _scopes(press, lead, models[lead], names),
    ]
    # the numbers of other ensembles are in the tables; a reader wants the plots of single networks
    drawn = [n for n in others if models[n]["kind"] == "network" and not models[n]["tta"]]
    draft = replace(press, dpi=OTHERS_DPI)
    chapters += [_of_model(draft, by_name[n], models[n], names) for n in drawn]
    photographs = [  # OpenCV, which does not survive a fork
        label_plates(press, opened, results.get("label_quality")),
        saliency_plates(press, opened),
        _mistakes(press, opened, by_name[lead]),
        _augmentation(press, opened, config),
        _of_study(press, opened),
    ]
    log.info("drawing figures")
    work: ForkedWork[Iterator[Plate], list[Plate]] = ForkedWork(list, chapters)
    drawn_here = [plate for chapter in photographs for plate in chapter]
    return [plate for plates in work.results() for plate in plates] + drawn_here


def _intervals(protocol: dict[str, Any]) -> str:
    units = {UNIT_WORDS[u] for u in protocol["interval_unit"].values()}
    return f"{100 * protocol['confidence']:g} % intervals over {' and '.join(sorted(units))}"


def _comparisons(
    press: Press, models: dict[str, Any], names: tuple[str, ...], protocol: dict[str, Any]
) -> Iterator[Plate]:
    how = f"Points: means; bars: {_intervals(protocol)}."
    if len(protocol["interval_unit"]) > 1:
        how += " Open: cross-validation; filled: external set."
    words = ("Models compared", how, f"Dot plot of {len(models)} models: balanced accuracy, macro F1 and macro AUC.")
    yield press.plate(plot_comparison(models), "comparison", words)
    words = ("Recall of each class", how, f"Dot plot of the recall of {', '.join(names)} by {len(models)} models.")
    yield press.plate(plot_recall(models, names), "recall", words)


def parts_of(scores: ModelScores) -> Parts:
    """Return what is averaged and what shows the spread, per set that was scored."""
    sets = {"cv": (scores.pooled, scores.tests), "external": (scores.external, scores.external_folds)}
    return {name: parts for name, parts in sets.items() if parts[0]}


def _of_model(press: Press, scores: ModelScores, entry: dict[str, Any], names: tuple[str, ...]) -> Iterator[Plate]:
    name, parts = scores.name, parts_of(scores)
    blocks = {s: entry[s] for s in parts}
    sets = " and ".join(SET_WORDS[s] for s in parts)
    if not parts:
        return
    words = (
        f"{name}: confusion matrices",
        "Rows are true classes."
        + (" Counts are means over seeds or networks." if any(len(p[0]) > 1 for p in parts.values()) else ""),
        f"Confusion matrices of {name} in {sets}, as counts and as percent of each true class.",
    )
    yield press.plate(plot_confusion(blocks, names), "confusion", words, model=name)
    aucs = "; ".join(
        f"{n} {_number(blocks[s]['per_class'][n]['auc']['mean'])} ({SET_WORDS[s]})" for s in blocks for n in names
    )
    words = (
        f"{name}: ROC curves",
        "Each class against all others; the area under each curve with its interval."
        + (" Thin: single networks." if any(len(p[1]) > 1 for p in parts.values()) else ""),
        f"ROC curves of {name}. Areas: {aucs}.",
    )
    yield press.plate(plot_roc(parts, blocks, names), "roc", words, model=name)
    words = (
        f"{name}: precision and recall",
        "Each class against all others; average precision with its interval. Dotted: the share of the class, which "
        "guessing would reach.",
        f"Precision-recall curves of {name}.",
    )
    yield press.plate(plot_precision_recall(parts, blocks, names), "pr", words, model=name)
    words = (
        f"{name}: how far its probabilities can be trusted",
        "On the dotted line, of cells given 80 % confidence, 80 % are right. Dot size: number of cells; red: the gap.",
        f"Reliability diagram of {name} in {sets}.",
    )
    yield press.plate(plot_reliability(parts, blocks), "reliability", words, model=name)
    if scores.kind == "network":
        yield from _curves(press, scores, names)


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.3f}"


def _curves(press: Press, scores: ModelScores, names: tuple[str, ...]) -> Iterator[Plate]:
    found = [(load_history(press.run, o.key), o.result.get("best_epoch")) for o in scores.outputs]
    histories = [h for h, _ in found if h is not None]
    if not histories:
        return
    best = [epoch for h, epoch in found if h is not None]
    words = (
        f"{scores.name}: training",
        f"Mean and standard deviation over {len(histories)} network(s), as long as half of them were still training. "
        "Circles: the weights that were kept.",
        f"Curves of loss and accuracy of {scores.name}, for all cells and per class.",
    )
    yield press.plate(plot_curves(histories, names, best=best), "curves", words, model=scores.name)


def _scopes(press: Press, name: str, entry: dict[str, Any], names: tuple[str, ...]) -> Iterator[Plate]:
    of_set = SET_WORDS.get(entry.get("scopes_of") or "", "")
    for scope in ("regions", "groups"):
        if not entry.get(scope):
            continue
        words = (
            f"{name}: by {scope[:-1]}",
            f"Accuracy and recall of each class, {of_set}, with intervals. No bar: too few subjects for an interval.",
            f"Dot plot of accuracy and recall per class of {name} in {', '.join(entry[scope])}.",
        )
        yield press.plate(plot_scopes(entry[scope], names), scope, words, model=name)


def _mistakes(press: Press, opened: OpenStudy, scores: ModelScores) -> Iterator[Plate]:
    set_name = "external" if scores.external else "cv"
    scored: Scored = average(scores.external) if scores.external else scores.pooled[0]
    mistakes = worst_mistakes(scored, n=N_MISTAKES)
    if not mistakes:
        return
    words = (
        f"{scores.name}: surest mistakes",
        f"The {len(mistakes)} cells of the {SET_WORDS[set_name]} with the highest probability for a wrong class: true "
        "class, → predicted class with its probability, then subject and image. Worth a second look: some may be "
        "labelled wrongly.",
        f"Photographs of {len(mistakes)} cells that {scores.name} classified wrongly with high confidence.",
    )
    yield press.plate(plot_mistakes(opened, mistakes), "mistakes", words, model=scores.name, photos=True)


def _augmentation(press: Press, opened: OpenStudy, config: ExperimentConfig) -> Iterator[Plate]:
    trained = [m for m in config.models if m.strategy != "head"]  # a head sees its cells as they are
    figure = plot_augmentation(opened, {m.name: config.augment_of(m) for m in trained}) if trained else None
    if figure is not None:
        words = (
            "What training shows of the cells",
            "The same cells in every row, changed at random as that preset allows; the line is the outline.",
            "Photographs of cells before and after the random changes of each preset of augmentation.",
        )
        yield press.plate(figure, "augmentation", words, photos=True)


def _of_study(press: Press, opened: OpenStudy) -> Iterator[Plate]:
    names = opened.study.class_names
    labelled = opened.cells[opened.cells["label"].notna()]
    if len(labelled):
        words = (
            "What the study holds",
            "Labelled cells of each class by set, region and group.",
            f"Stacked bars of {len(labelled)} cells of the classes {', '.join(names)}.",
        )
        yield press.plate(plot_counts(labelled, names), "counts", words)
    for k, name in enumerate(names):
        figure = plot_contact_sheet(opened, k)
        if figure is not None:
            words = (
                f"Cells labelled {name}",
                "Drawn by chance, taking turns over the subjects; the line is the outline.",
                f"Contact sheet of photographs of cells labelled {name}.",
            )
            yield press.plate(figure, "cells", words, part=f"{k}_{name}", photos=True)
