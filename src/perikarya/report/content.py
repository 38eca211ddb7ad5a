"""What the page says of the run itself: the headline, and tables of models, classes, regions, data and training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from perikarya.evaluate.metrics import OVERALL, PER_CLASS
from perikarya.figures.plates import ordered_models
from perikarya.report.damage_words import damage_headline
from perikarya.report.evidence import standing
from perikarya.report.words import MISSING, Cell, Table, capital, cell, count, interval, listed, number, over
from perikarya.schema import SET_WORDS

MAIN_SCORES = ("balanced_accuracy", "accuracy", "macro_f1", "macro_auc", "loss", "ece")
_TILES = ("balanced_accuracy", "macro_f1", "macro_auc", "qwk", "ece")
_ORDINAL = {"qwk", "adjacent_errors", "severe_errors", "adjacent_error", "severe_error", "mean_absolute_error"}


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
        f"{percent} interval {interval(value)} over {over(block)}"
        if value["ci95"]
        else "no interval: too few independent units, or none of them disagrees"
    )
    animals = "" if block["n_subjects"] is None else f" of {count(block['n_subjects'], 'subject')}"
    kind = "external cell" if set_name == "external" else "cell"
    how = "" if set_name == "external" else " in cross-validation"
    sentence = (
        f"{first['model']} classifies {count(block['n_cells'], kind)}{animals} with a balanced accuracy of "
        f"{number(value['mean'])}{how} ({bounds})."
    )
    told = [standing(results) or _rivals(results), *damage_headline(results)]
    details = [d for d in (*told, weakest_class(block), _own_cv(results, first["model"], set_name)) if d]
    tiles = [
        {"title": OVERALL.get(m).title, "value": number(block[m]["mean"]), "note": interval(block[m])} for m in _TILES
    ]
    return {"sentence": sentence, "details": details, "tiles": tiles, "model": first["model"], "set": set_name}


def weakest_class(block: Mapping[str, Any]) -> str:
    """Name the class with the lowest recall of a block of scores; nothing where fewer than two have one."""
    scored = {n: c for n, c in block["per_class"].items() if c["recall"]["mean"] is not None}
    if len(scored) < 2:
        return ""
    name = min(scored, key=lambda n: scored[n]["recall"]["mean"])
    value = scored[name]["recall"]
    bounds = f" ({interval(value)})" if value["ci95"] else ""
    return f"Hardest class: {name}, recall {number(value['mean'])}{bounds} of {count(scored[name]['n'], 'cell')}."


def _rivals(results: Mapping[str, Any]) -> str:
    others = [r for r in results["ranking"][1:] if r["behind_first"] and r["behind_first"]["ci95"]]
    if not others:
        return ""
    equal = [r["model"] for r in others if r["behind_first"]["ci95"][0] <= 0]
    if not equal:
        whom = "the other model" if len(others) == 1 else f"all {len(others)} other models"
        return f"It leads {whom} by more than chance (paired intervals exclude 0)."
    return f"Not told apart from it by these data: {', '.join(equal)} (paired intervals of the difference include 0)."


def _own_cv(results: Mapping[str, Any], model: str, set_name: str) -> str:
    base = results["models"].get(model.removesuffix(" (ensemble)"), {})
    if set_name == "cv" or not base.get("cv"):
        return ""
    value = base["cv"]["balanced_accuracy"]
    which = "Its networks alone reach" if model.endswith(" (ensemble)") else "It reaches"
    bounds = f" ({interval(value)})" if value["ci95"] else ""
    return f"{which} {number(value['mean'])}{bounds} in cross-validation."


def model_tables(results: Mapping[str, Any]) -> tuple[list[Table], list[Table]]:
    """Compare all models, one table per set: the scores that matter most, and in further tables all others."""
    rest = [m for m in OVERALL.names() if m not in MAIN_SCORES]
    main, more = [], []
    models = ordered_models(dict(results))
    for set_name in ("external", "cv"):
        blocks = {n: m[set_name] for n, m in models.items() if m.get(set_name)}
        if not blocks:
            continue
        block = next(iter(blocks.values()))
        title = f"{SET_WORDS[set_name].capitalize()}: {count(block['n_cells'], 'cell')}, intervals over {over(block)}"
        main.append(_main_table(title, results, set_name, blocks))
        rows = [[Cell(name), *(cell(b[m]) for m in rest)] for name, b in blocks.items()]
        more.append(Table(title, ["Model", *(OVERALL.get(m).title for m in rest)], rows))
    return main, more


def _main_table(title: str, results: Mapping[str, Any], set_name: str, blocks: Mapping[str, Any]) -> Table:
    behind = {r["model"]: r["behind_first"] for r in results["ranking"]}
    is_ranked = len(behind) > 1 and results["ranking"][0]["metric"].startswith(set_name)
    head = ["Model", *(OVERALL.get(m).title for m in MAIN_SCORES)]
    rows = []
    for name, block in blocks.items():
        row = [Cell(name, _size(results["models"][name])), *(cell(block[m]) for m in MAIN_SCORES)]
        if is_ranked:
            row.insert(2, cell(behind.get(name)))
        rows.append(row)
    if is_ranked:
        head.insert(2, "Behind first")
    return Table(title, head, rows, best=0 if is_ranked else None)


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
    return Cell(str(n_cells), "" if block["n_subjects"] is None else count(block["n_subjects"], "subject"))


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


def scope_blocks(entry: Mapping[str, Any], plural: str, set_name: str) -> Mapping[str, Any]:
    """Return the scores of a model by region or group on one set, whichever key of its entry holds them."""
    of_first_set = entry.get("scopes_of") == set_name
    key = plural if of_first_set else f"external_{plural}" if set_name == "external" else ""
    return entry.get(key) or {}


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


def ordinal_note(results: Mapping[str, Any]) -> str:
    """Say which scores presume an order of the classes; nothing for two classes, which are always in order."""
    names = results["study"]["class_names"]
    titles = [OVERALL.get(m).title for m in OVERALL.names() if m in _ORDINAL]
    if len(names) < 3 or not titles:
        return ""
    verb = "means" if len(titles) == 1 else "mean"
    return f"{capital(listed(titles))} {verb} something only if the classes are in order: {' < '.join(names)}."
