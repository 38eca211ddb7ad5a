"""How comparisons, calibration, damage, labels, learning curves and saliency were made, for the methods of a paper."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from perikarya.config import ExperimentConfig
from perikarya.evaluate.metrics import OVERALL
from perikarya.evaluate.stats import UNIT_WORDS
from perikarya.report.references import cite
from perikarya.report.words import count, listed

_CORRECTION_WORKS = {
    "none": (),
    "adjusted": ("adjusted-count",),
    "probabilistic": ("probabilistic-count",),
    "em": ("saerens",),
}
_CALIBRATIONS = {
    "temperature": f"temperature scaling{cite('temperature')}",
    "vector": "vector scaling",
    "isotonic": f"isotonic regression of each class{cite('isotonic')}",
}
_SALIENCY_WORKS = {
    "gradcam": ("Grad-CAM", "grad-cam"),
    "gradcam++": ("Grad-CAM++", "grad-cam-plus"),
    "scorecam": ("Score-CAM", "score-cam"),
    "eigencam": ("Eigen-CAM", "eigen-cam"),
    "attention-rollout": ("attention rollout", "rollout"),
}


def describe_evidence(results: Mapping[str, Any], config: ExperimentConfig) -> Iterator[tuple[str, str]]:
    """Yield a heading and a paragraph for everything the run has; an empty paragraph for what it has not."""
    yield "Comparison of models", _comparison(results)
    yield "Calibration and abstention", _calibration(results, config)
    yield "Damage and the effect of treatment", _damage(results)
    yield "Labels", _labels(results)
    yield "Limits of accuracy", _saturation(results, config)
    yield "Saliency", _explain(results)


def _comparison(results: Mapping[str, Any]) -> str:
    block = results.get("comparisons")
    if not block or len(block["models"]) < 2:
        return ""
    unit = UNIT_WORDS[block["unit"]]
    one = unit.removesuffix("s")
    metrics = {m: found for m, found in block["metrics"].items() if found}
    exchanged = [OVERALL.get(m).title for m, found in metrics.items() if found["test"] == "permutation"]
    said = [f"Models were compared in pairs on the same {count(block['n_cells'], 'cell')}."]
    if exchanged:
        tests = next(found["permutations"] for found in metrics.values() if found["test"] == "permutation")
        exchanges = f"all {tests['n']}" if tests["exact"] else f"{tests['n']} random"
        said.append(
            f"For {listed([title[0].lower() + title[1:] for title in exchanged])} the test takes {exchanges} exchanges of "
            f"the two models' predictions, {one} by {one}{cite('permutation')}."
        )
    if any(found["test"] == "delong" for found in metrics.values()):
        said.append(
            f"Areas under ROC curves were compared by DeLong's test{cite('delong')} with the variance between "
            f"{unit}{cite('obuchowski')}."
        )
    said.append(
        f"P values were corrected by Holm's method{cite('holm')} at {100 * block['alpha']:g} %; the models that a comparison "
        "with the best does not reject are called indistinguishable from it."
    )
    if (block.get("folds") or {}).get("friedman"):
        said.append(
            f"Average ranks over folds are shown with Nemenyi's critical difference{cite('demsar')}, as a description."
        )
    return " ".join(said)


def _calibration(results: Mapping[str, Any], config: ExperimentConfig) -> str:
    entries = results["models"].values()
    tried = {m for e in entries for s in ((e.get("calibration") or {}).get("sets") or {}).values() for m in s}
    said = []
    methods = [words for name, words in _CALIBRATIONS.items() if name in tried]
    if methods:
        said.append(
            f"Probabilities of every network were calibrated on the fold that stopped its training, by {listed(methods)}."
        )
        if results["protocol"]["scheme"] == "kfold":
            said.append("The method with the lowest cross-validated log loss is advised; the external set had no say.")
    if any((e.get("abstention") or {}).get("conformal") for e in entries):
        said.append(
            "Class-conditional prediction sets were fitted to the same folds to hold the true class of "
            f"{100 * config.evaluate.conformal:g} % of the cells of each class{cite('conformal')}; a cell is decided where "
            "its set holds one class."
        )
    if config.evaluate.threshold > 0:
        said.append(f"Cells with a largest probability below {config.evaluate.threshold:g} were not decided.")
    return " ".join(said)


def _damage(results: Mapping[str, Any]) -> str:
    block = results.get("damage")
    if not block:
        return ""
    settings = block["settings"]
    works = _CORRECTION_WORKS.get(settings["correction"], ())
    first, *others = [a for a in block["assumptions"] if "--" not in a]  # options of the command are no method
    said = [f"{first.removesuffix('.')}{cite(*works)}.", *others]
    said.append(
        f"Intervals are {100 * settings['confidence']:g} %, from {settings['n_bootstrap']} draws, seed {settings['seed']}."
    )
    if block["effects"]["comparisons"]:
        said.append(
            f"Groups were compared by a permutation test of the animals' group labels (studentised difference of means, at "
            f"most {settings['n_permutations']} labelings{cite('permutation')}), with the difference, the ratio of means and "
            f"Cliff's delta{cite('cliff')} and their bootstrap intervals; p values were corrected over regions by Holm's "
            f"method{cite('holm')}. As a second opinion on uncorrected cells, severity was fitted by a linear mixed model "
            f"with an intercept per animal{cite('mixed')} and the last class by a logistic GEE{cite('gee')}, with degrees of "
            f"freedom of a comparison between animals."
        )
    return " ".join(said)


def _labels(results: Mapping[str, Any]) -> str:
    block = results.get("label_quality")
    if not block:
        return ""
    return (
        f"Labels that are probably wrong were found by confident learning{cite('confident')} from predictions of "
        f"{count(block['n_cells'], 'cell')} by {listed(block['models'])}, of networks not trained on them."
    )


def _saturation(results: Mapping[str, Any], config: ExperimentConfig) -> str:
    block = results.get("saturation")
    if not block:
        return ""
    said = []
    curves = {name: c for name, c in (block.get("curves") or {}).items() if c.get("n_parameters")}
    if curves:
        sizes = listed([str(n) for n in config.learning_curve])
        said.append(
            f"Learning curves were fitted by a power law{cite('learning-curve')} to the error of {listed(list(curves))} "
            f"trained on nested subsets{f' of {sizes} animals' if sizes else ''} and on all of them."
        )
    if block.get("ceiling"):
        said.append(f"What the labels allow was estimated from {block['ceiling']['source']}.")
    if block.get("networks"):
        said.append("The spread between networks beyond chance was taken from paired draws.")
    return " ".join(said)


def _explain(results: Mapping[str, Any]) -> str:
    models = {n: e for n, e in ((results.get("explain") or {}).get("models") or {}).items() if "share_inside" in e}
    by_method: dict[str, list[str]] = {}
    for name, entry in models.items():
        by_method.setdefault(str(entry["method"]), []).append(name)
    if not by_method:
        return ""
    how = listed([f"{_named(method)} for {listed(names)}" for method, names in by_method.items()])
    return (
        f"Saliency maps were made of held-out cells by {how}; the share of each map inside the outline was averaged, every "
        "class counting alike."
    )


def _named(method: str) -> str:
    name, work = _SALIENCY_WORKS.get(method, (method, ""))
    return f"{name}{cite(work)}" if work else name
