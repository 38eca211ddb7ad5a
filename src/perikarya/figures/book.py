"""All figures of a run, each with the words that go with it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from perikarya.config import ExperimentConfig
from perikarya.data.store import OpenStudy
from perikarya.evaluate.outputs import ModelScores, Scored, average, load_history
from perikarya.evaluate.stats import UNIT_WORDS
from perikarya.figures.augmentation import plot_augmentation
from perikarya.figures.compare import plot_comparison, plot_counts, plot_recall, plot_scopes
from perikarya.figures.curves import plot_curves
from perikarya.figures.galleries import plot_contact_sheet, plot_mistakes, worst_mistakes
from perikarya.figures.scores import Parts, plot_confusion, plot_reliability, plot_roc
from perikarya.figures.style import SET_WORDS, save_figure
from perikarya.runs import RunFolder
from perikarya.schema import safe_name

log = logging.getLogger(__name__)

N_MISTAKES = 24


@dataclass(frozen=True)
class Plate:
    """A figure on disk with its words.

    Attributes
    ----------
    kind
        What it shows: ``comparison``, ``recall``, ``roc``, ``confusion``, ``reliability``, ``curves``, ``regions``,
        ``groups``, ``mistakes``, ``augmentation``, ``counts`` or ``cells``.
    model
        The model it is about, or an empty text.
    path
        The PNG; a PDF of the same name lies beside it.
    title
        A short headline.
    caption
        What a reader needs to read it alone.
    alt
        What it shows, for those who cannot see it.
    """

    kind: str
    model: str
    path: Path
    title: str
    caption: str
    alt: str


def ordered_models(results: dict[str, Any]) -> dict[str, Any]:
    """Return the models of ``results.json``, the ranked first in their order, then the others."""
    ranked = [entry["model"] for entry in results["ranking"]]
    return {n: results["models"][n] for n in [*ranked, *(m for m in results["models"] if m not in ranked)]}


def draw_all(
    run: RunFolder,
    opened: OpenStudy,
    config: ExperimentConfig,
    results: dict[str, Any],
    scores: list[ModelScores],
) -> Iterator[Plate]:
    """Draw every figure of a run into ``RUN/figures``, one after another, the most important first.

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
    names = opened.study.class_names
    models = ordered_models(results)
    yield from _comparisons(run, models, names, results["protocol"])
    by_name = {s.name: s for s in scores}
    for i, (name, entry) in enumerate(models.items()):
        if i and entry["kind"] == "ensemble":
            continue  # its numbers are in the tables; a reader wants the plots of single networks and of the leader
        log.info("drawing %s", name)
        yield from _of_model(run, by_name[name], entry, names)
        if i == 0:
            yield from _scopes(run, name, entry, names)
            yield from _mistakes(run, opened, by_name[name])
    yield from _augmentation(run, opened, config)
    yield from _of_study(run, opened)


def _intervals(protocol: dict[str, Any]) -> str:
    units = {UNIT_WORDS[u] for u in protocol["interval_unit"].values()}
    return f"{100 * protocol['confidence']:g} % intervals over {' and '.join(sorted(units))}"


def _plate(
    run: RunFolder, figure: Figure, kind: str, words: tuple[str, str, str], *, model: str = "", photos: bool = False,
    part: str = "",
) -> Plate:  # fmt: skip
    name = "+".join(safe_name(x) for x in model.split(" ("))  # no model is called with a plus, so an ensemble is unique
    stem = "_".join(x for x in (kind, safe_name(part) if part else "", name if model else "") if x)
    path = save_figure(figure, run.figures, stem, photos=photos)
    return Plate(kind, model, path, *words)


def _comparisons(
    run: RunFolder, models: dict[str, Any], names: tuple[str, ...], protocol: dict[str, Any]
) -> Iterator[Plate]:
    how = f"Points: means; bars: {_intervals(protocol)}. Open: cross-validation; filled: external set."
    words = ("Models compared", how, f"Dot plot of {len(models)} models: balanced accuracy, macro F1 and macro AUC.")
    yield _plate(run, plot_comparison(models), "comparison", words)
    words = ("Recall of each class", how, f"Dot plot of the recall of {', '.join(names)} by {len(models)} models.")
    yield _plate(run, plot_recall(models, names), "recall", words)


def parts_of(scores: ModelScores) -> Parts:
    """Return what is averaged and what shows the spread, per set that was scored."""
    sets = {"cv": (scores.pooled, scores.tests), "external": (scores.external, scores.external_folds)}
    return {name: parts for name, parts in sets.items() if parts[0]}


def _of_model(run: RunFolder, scores: ModelScores, entry: dict[str, Any], names: tuple[str, ...]) -> Iterator[Plate]:
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
    yield _plate(run, plot_confusion(blocks, names), "confusion", words, model=name)
    aucs = "; ".join(
        f"{n} {_number(blocks[s]['per_class'][n]['auc']['mean'])} ({SET_WORDS[s]})" for s in blocks for n in names
    )
    words = (
        f"{name}: ROC curves",
        "Each class against all others; the area under each curve with its interval."
        + (" Thin: single networks." if any(len(p[1]) > 1 for p in parts.values()) else ""),
        f"ROC curves of {name}. Areas: {aucs}.",
    )
    yield _plate(run, plot_roc(parts, blocks, names), "roc", words, model=name)
    words = (
        f"{name}: how far its probabilities can be trusted",
        "On the dotted line, of cells given 80 % confidence, 80 % are right. Dot size: number of cells; red: the gap.",
        f"Reliability diagram of {name} in {sets}.",
    )
    yield _plate(run, plot_reliability(parts, blocks), "reliability", words, model=name)
    if scores.kind == "network":
        yield from _curves(run, scores, names)


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.3f}"


def _curves(run: RunFolder, scores: ModelScores, names: tuple[str, ...]) -> Iterator[Plate]:
    found = [(load_history(run, o.key), o.result.get("best_epoch")) for o in scores.outputs]
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
    yield _plate(run, plot_curves(histories, names, best=best), "curves", words, model=scores.name)


def _scopes(run: RunFolder, name: str, entry: dict[str, Any], names: tuple[str, ...]) -> Iterator[Plate]:
    of_set = SET_WORDS.get(entry.get("scopes_of") or "", "")
    for scope in ("regions", "groups"):
        if not entry.get(scope):
            continue
        words = (
            f"{name}: by {scope[:-1]}",
            f"Accuracy and recall of each class, {of_set}, with intervals. No bar: too few subjects for an interval.",
            f"Dot plot of accuracy and recall per class of {name} in {', '.join(entry[scope])}.",
        )
        yield _plate(run, plot_scopes(entry[scope], names), scope, words, model=name)


def _mistakes(run: RunFolder, opened: OpenStudy, scores: ModelScores) -> Iterator[Plate]:
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
    yield _plate(run, plot_mistakes(opened, mistakes), "mistakes", words, model=scores.name, photos=True)


def _augmentation(run: RunFolder, opened: OpenStudy, config: ExperimentConfig) -> Iterator[Plate]:
    trained = [m for m in config.models if m.strategy != "head"]  # a head sees its cells as they are
    figure = plot_augmentation(opened, {m.name: config.augment_of(m) for m in trained}) if trained else None
    if figure is not None:
        words = (
            "What training shows of the cells",
            "The same cells in every row, changed at random as that preset allows; the line is the outline.",
            "Photographs of cells before and after the random changes of each preset of augmentation.",
        )
        yield _plate(run, figure, "augmentation", words, photos=True)


def _of_study(run: RunFolder, opened: OpenStudy) -> Iterator[Plate]:
    names = opened.study.class_names
    labelled = opened.cells[opened.cells["label"].notna()]
    if len(labelled):
        words = (
            "What the study holds",
            "Labelled cells of each class by set, region and group.",
            f"Stacked bars of {len(labelled)} cells of the classes {', '.join(names)}.",
        )
        yield _plate(run, plot_counts(labelled, names), "counts", words)
    for k, name in enumerate(names):
        figure = plot_contact_sheet(opened, k)
        if figure is not None:
            words = (
                f"Cells labelled {name}",
                "Drawn by chance, taking turns over the subjects; the line is the outline.",
                f"Contact sheet of photographs of cells labelled {name}.",
            )
            yield _plate(run, figure, "cells", words, part=f"{k}_{name}", photos=True)
