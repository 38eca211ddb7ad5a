"""What the page says: sentences and table rows made of ``results.json``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from perikarya.evaluate.metrics import OVERALL, PER_CLASS
from perikarya.evaluate.stats import UNIT_WORDS
from perikarya.figures.book import ordered_models
from perikarya.figures.style import SET_WORDS

MISSING = "–"


@dataclass(frozen=True)
class Cell:
    """One cell of a table: a value and, smaller, its interval."""

    text: str
    note: str = ""


@dataclass(frozen=True)
class Table:
    """A table with a caption; the first column names the rows."""

    caption: str
    head: list[str]
    rows: list[list[Cell]]
    best: int | None = None  # the row to stress
    notes: list[str] = field(default_factory=list)


def number(value: float | None, digits: int = 3) -> str:
    """Write a number, or a dash where it is undefined."""
    return MISSING if value is None else f"{value:.{digits}f}"


def interval(value: Mapping[str, Any], digits: int = 3) -> str:
    """Write the interval of a value as ``0.851–0.894``, or nothing."""
    if value.get("ci95") is None:
        return ""
    low, high = value["ci95"]
    dash = " to " if low < 0 else "–"
    return f"{low:.{digits}f}{dash}{high:.{digits}f}"


def cell(value: Mapping[str, Any] | None) -> Cell:
    """Make a table cell of a value of ``results.json``."""
    if value is None or value["mean"] is None:
        return Cell(MISSING)
    return Cell(number(value["mean"]), interval(value) or "no interval")


def _count(n: int | None, singular: str, plural: str = "") -> str:
    if n is None:
        return f"unknown {plural or singular + 's'}"
    return f"{n:,} {singular if n == 1 else plural or singular + 's'}".replace(",", "\u202f")


def _over(block: Mapping[str, Any]) -> str:
    n = {"subject": block["n_subjects"], "image_id": block["n_images"], "cell": block["n_cells"]}[block["unit"]]
    return _count(n, UNIT_WORDS[block["unit"]].removesuffix("s"))


def headline(results: Mapping[str, Any]) -> dict[str, Any]:
    """Say which model leads, how well it does on how many cells and animals, and how sure that is.

    Returns
    -------
    ``{"sentence", "details": [sentence], "tiles": [{"title", "value", "note"}], "model", "set"}``.
    """
    ranking = results["ranking"]
    if not ranking:
        sentence = "No model has a balanced accuracy: not every class has labelled cells."
        return {"sentence": sentence, "details": [], "tiles": [], "model": "", "set": ""}
    first = ranking[0]
    set_name = str(first["metric"]).split(" ", 1)[0]
    block = results["models"][first["model"]][set_name]
    percent = f"{100 * results['protocol']['confidence']:g} %"
    value = block["balanced_accuracy"]
    bounds = (
        f"{percent} interval {interval(value)} over {_over(block)}"
        if value["ci95"]
        else "no interval: too few independent units, or none of them disagrees"
    )
    animals = "" if block["n_subjects"] is None else f" of {_count(block['n_subjects'], 'subject')}"
    kind = "external cell" if set_name == "external" else "cell"
    how = "" if set_name == "external" else " in cross-validation"
    sentence = (
        f"{first['model']} classifies {_count(block['n_cells'], kind)}{animals} with a balanced accuracy of "
        f"{number(value['mean'])}{how} ({bounds})."
    )
    details = [d for d in (_weakest(block), _rivals(results), _own_cv(results, first["model"], set_name)) if d]
    shown = ("balanced_accuracy", "macro_f1", "macro_auc", "qwk", "ece")
    tiles = [
        {"title": OVERALL.get(m).title, "value": number(block[m]["mean"]), "note": interval(block[m])} for m in shown
    ]
    return {"sentence": sentence, "details": details, "tiles": tiles, "model": first["model"], "set": set_name}


def _weakest(block: Mapping[str, Any]) -> str:
    scored = {n: c for n, c in block["per_class"].items() if c["recall"]["mean"] is not None}
    if len(scored) < 2:
        return ""
    name = min(scored, key=lambda n: scored[n]["recall"]["mean"])
    value = scored[name]["recall"]
    bounds = f" ({interval(value)})" if value["ci95"] else ""
    return f"Hardest class: {name}, recall {number(value['mean'])}{bounds} of {_count(scored[name]['n'], 'cell')}."


def _rivals(results: Mapping[str, Any]) -> str:
    others = [r for r in results["ranking"][1:] if r["behind_first"] and r["behind_first"]["ci95"]]
    if not others:
        return ""
    equal = [r["model"] for r in others if r["behind_first"]["ci95"][0] <= 0]
    if not equal:
        return f"It leads all {_count(len(others), 'other model')} by more than chance (paired intervals exclude 0)."
    return f"Not told apart from it by these data: {', '.join(equal)} (paired intervals of the difference include 0)."


def _own_cv(results: Mapping[str, Any], model: str, set_name: str) -> str:
    base = results["models"].get(model.removesuffix(" (ensemble)"), {})
    if set_name == "cv" or not base.get("cv"):
        return ""
    value = base["cv"]["balanced_accuracy"]
    which = "Its networks alone reach" if model.endswith(" (ensemble)") else "It reaches"
    bounds = f" ({interval(value)})" if value["ci95"] else ""
    return f"{which} {number(value['mean'])}{bounds} in cross-validation."


def model_tables(results: Mapping[str, Any]) -> list[Table]:
    """Compare all models, one table per set: every overall metric with its interval, and what a cell costs."""
    tables = []
    behind = {r["model"]: r["behind_first"] for r in results["ranking"]}
    models = ordered_models(dict(results))
    for set_name in ("external", "cv"):
        blocks = {n: m for n, m in models.items() if m.get(set_name)}
        if not blocks:
            continue
        is_ranked = bool(results["ranking"]) and results["ranking"][0]["metric"].startswith(set_name)
        metrics = sorted(OVERALL.names(), key=lambda name: name != "balanced_accuracy")
        head = ["Model", *(OVERALL.get(m).title for m in metrics)]
        if is_ranked:
            head.insert(2, "Behind first")
        rows = []
        for name, model in blocks.items():
            row = [Cell(name, _size(model)), *(cell(model[set_name][m]) for m in metrics)]
            if is_ranked:
                row.insert(2, cell(behind.get(name)) if behind.get(name) else Cell(MISSING))
            rows.append(row)
        block = next(iter(blocks.values()))[set_name]
        title = f"{SET_WORDS[set_name].capitalize()}: {_count(block['n_cells'], 'cell')}, intervals over {_over(block)}"
        tables.append(Table(title, head, rows, best=0 if is_ranked else None))
    return tables


def _size(model: Mapping[str, Any]) -> str:
    n_params, speed = model.get("n_params"), (model.get("inference_s_per_cell") or {}).get("batched")
    words = [] if n_params is None else [f"{n_params / 1e6:.3g} M parameters"]
    if speed is not None:
        words.append(f"{1000 * speed:.3g} ms per cell")
    return ", ".join(words)


def class_table(name: str, block: Mapping[str, Any], set_name: str) -> Table:
    """Show every metric of every class of one model on one set."""
    head = ["Class", "Cells", *(PER_CLASS.get(m).title for m in PER_CLASS.names())]
    rows = [
        [Cell(class_name), _n_cell(scores), *(cell(scores[m]) for m in PER_CLASS.names())]
        for class_name, scores in block["per_class"].items()
    ]
    return Table(f"{name}, {SET_WORDS[set_name]}: each class", head, rows)


def _n_cell(block: Mapping[str, Any]) -> Cell:
    n_cells = block["n_cells"] if "n_cells" in block else block["n"]
    return Cell(str(n_cells), "" if block["n_subjects"] is None else _count(block["n_subjects"], "subject"))


def scope_table(name: str, entry: Mapping[str, Any], key: str) -> Table | None:
    """Show accuracy and recall of each class by region or group; ``key`` is such as ``external_regions``."""
    blocks = entry.get(key)
    if not blocks:
        return None
    set_name = "external" if key.startswith("external_") else entry["scopes_of"]
    scope = key.removeprefix("external_").removesuffix("s")
    classes = list(next(iter(blocks.values()))["per_class"])
    head = [scope.capitalize(), "Cells", "Accuracy", "Balanced accuracy", *(f"Recall: {c}" for c in classes)]
    rows = [
        [Cell(value), _n_cell(b), cell(b["accuracy"]), cell(b["balanced_accuracy"])]
        + [cell(b["per_class"][c]["recall"]) for c in classes]
        for value, b in blocks.items()
    ]
    return Table(f"{name}, {SET_WORDS[set_name]}: by {scope}", head, rows)


def study_table(results: Mapping[str, Any]) -> Table:
    """Count the cells of each set by class, with their subjects and images."""
    study = results["study"]
    head = ["Set", "Cells", "Subjects", "Images", *study["class_names"]]
    rows = [
        [
            Cell(name),
            *(Cell(MISSING if s[key] is None else str(s[key])) for key in ("n_cells", "n_subjects", "n_images")),
            *(Cell(str(s["n_per_class"][c])) for c in study["class_names"]),
        ]
        for name, s in study["sets"].items()
    ]
    return Table("Cells of the study", head, rows)


def training_table(results: Mapping[str, Any]) -> Table:
    """Say for each network where its weights come from, under which licence, and what training cost."""
    head = ["Model", "Network", "Strategy", "Input", "Weights", "Licence", "Trainings", "Time", "Peak memory"]
    rows = []
    for name, model in results["models"].items():
        if model["kind"] != "network":
            continue
        weights, cost = model.get("weights") or {}, model["training"]
        digest = str(weights.get("sha256") or "")
        source = Cell(str(weights.get("source") or "none"), f"sha256 {digest[:16]}…" if digest else "")
        plain = (weights.get("licence") or MISSING, model["n_networks"], _duration(cost["wall_s"]))
        shown = Cell(f"{model['input_px']} px", str(model["channels"])) if model.get("input_px") else Cell(MISSING)
        network = [Cell(name), Cell(str(model["arch"])), Cell(str(model["strategy"])), shown, source]
        rows.append([*network, *(Cell(str(x)) for x in plain), Cell(f"{cost['peak_memory_mib']:.0f} MiB")])
    return Table("Networks, weights and what training cost", head, rows)


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def warnings_of(results: Mapping[str, Any], check: Mapping[str, Any] | None) -> list[dict[str, str]]:
    """Collect what a reader must know first: of the run, then of the data.

    ``check`` is ``{"ok": bool, "findings": [{"severity", "sentence"}]}``, or None where the study was not checked.
    """
    found = [{"severity": "warning", "sentence": str(w)} for w in results["protocol"]["warnings"]]
    for finding in (check or {}).get("findings", []):
        severity = str(finding["severity"])
        if severity in ("error", "warning"):
            found.append({"severity": severity, "sentence": str(finding["sentence"])})
    return sorted(found, key=lambda f: f["severity"] != "error")


def methods(results: Mapping[str, Any]) -> list[str]:
    """Say in sentences, as a paper's methods section would, how the numbers were made."""
    protocol = results["protocol"]
    unit = {"subject": "subjects", "image_id": "images", "cell": "cells"}.get(protocol["group_by"], "groups")
    said = []
    if protocol["scheme"] == "kfold":
        said.append(
            f"The development set was divided into {protocol['n_folds']} folds by {unit}: no "
            f"{unit.removesuffix('s')} is in two folds. For each fold k a network was trained on the others, fold k + 1 "
            "decided when to stop, and fold k was only tested. Cross-validated scores pool the test folds of a seed "
            f"and average over {len(protocol['seeds'])} seed(s)."
        )
    else:
        said.append("Networks were trained on all of the development set but one fold, which decided when to stop.")
    if any(m.get("external") for m in results["models"].values()):
        said.append(
            "No external cell was seen in training, stopping or choosing settings. External scores are those of single "
            "networks, averaged; an ensemble averages the probabilities of all networks of a model before they are scored."
        )
        if len(results["models"]) > 1:
            said.append(
                "Models are ordered by their external score. The score of the first of many is flattered by having "
                "been chosen; the intervals do not include that."
            )
    for set_name, method in protocol["interval_method"].items():
        said.append(
            f"Intervals for {SET_WORDS[set_name]} ({100 * protocol['confidence']:g} %): {method}, "
            f"{protocol['n_bootstrap']} draws, seed {protocol['bootstrap_seed']}; all models and networks share the draws, "
            "so that their difference is a paired comparison. A dash: the score does not exist, as a class is absent."
        )
    said.append(
        "Balanced accuracy: mean recall over classes. Macro: mean over classes. AUC: each class against all others. "
        "Weighted kappa: quadratic weights, classes in order. Calibration error: 15 bins of equal width. "
        "Log loss in nats."
    )
    return said
