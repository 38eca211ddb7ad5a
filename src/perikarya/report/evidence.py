"""What comparisons, calibration, labels, learning curves and saliency say, where a run has them.

Every function takes ``results.json`` and returns nothing where its part is missing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from perikarya.evaluate.metrics import OVERALL
from perikarya.evaluate.stats import UNIT_WORDS
from perikarya.evaluate.summary import RANKED
from perikarya.figures.plates import ordered_models
from perikarya.report.words import (
    MISSING,
    Cell,
    Folded,
    Said,
    Table,
    bounds,
    cell,
    count,
    listed,
    number,
    p_value,
    percent,
    share,
)
from perikarya.schema import SET_WORDS

_LABEL_COLUMNS = {
    "cell_id": "Cell", "label": "Label", "suggested": "Suggested", "self_confidence": "Probability of its label",
    "subject": "Subject", "region": "Region", "group": "Group", "image_id": "Image",
}  # fmt: skip
_SET_SHARES = {
    "coverage": "True class in the set",
    "decided": "Cells decided: one class in the set",
    "accuracy_decided": "Of these, right",
    "several": "Several classes in the set",
    "empty": "No class in the set",
}
_CALIBRATION_SCORES = ("loss", "brier", "ece", "class_ece", "accuracy")


def standing(results: Mapping[str, Any]) -> str:
    """Say which models cannot be told from the leading one, in one sentence; nothing without a comparison."""
    compared = _ranked_comparison(results)
    if compared is None:
        return ""
    best, kept = compared["best"], compared["set"][1:]
    if not compared["can_reject"]:
        return str(compared["why"])
    if not kept:
        return f"It differs from {_others(compared['rejected'])} by more than chance ({_how(results)})."
    names = listed(kept) if len(kept) <= 4 else f"{len(kept)} of {len(kept) + len(compared['rejected'])} other models"
    return f"These data cannot tell {best} from {names} ({_how(results)})."


def _ranked_comparison(results: Mapping[str, Any]) -> Mapping[str, Any] | None:
    metrics = (results.get("comparisons") or {}).get("metrics") or {}
    found = (metrics.get(RANKED) or {}).get("indistinguishable")
    if not found or len(found["set"]) + len(found["rejected"]) < 2:
        return None
    return dict(found)


def _others(names: list[str]) -> str:
    return f"the other model, {names[0]}," if len(names) == 1 else f"each of the {len(names)} other models"


def _how(results: Mapping[str, Any]) -> str:
    block = results["comparisons"]
    unit = UNIT_WORDS[block["unit"]].removesuffix("s")
    return f"paired permutation over {count(block['n_clusters'], unit)}, Holm's correction, {100 * block['alpha']:g} %"


def comparison(results: Mapping[str, Any]) -> Said:
    """Compare every model with the best one: differences with intervals, p values, and the sets of best models."""
    block = results.get("comparisons") or {}
    tables, sentences = [], []
    for metric, found in (block.get("metrics") or {}).items():
        against = _against_best(metric, found, block) if found and metric in (RANKED, "macro_auc") else None
        if against is not None:
            tables.append(against)
    if _ranked_comparison(results) is not None:
        sentences.append(f"{standing(results)} All pairs are in results.json.")
    folds = (block.get("folds") or {}).get("friedman")
    if folds:
        sentences.append(
            f"Over {folds['n_blocks']} folds the average ranks differ with p {p_value(folds['p'])} (Friedman's test, a "
            "description only: folds share their training cells)."
        )
    sentences += [f"{left['model']} is not compared: {left['reason']}." for left in block.get("not_comparable") or []]
    return Said(sentences, tables)


def _against_best(metric: str, found: Mapping[str, Any], block: Mapping[str, Any]) -> Table | None:
    decided = found.get("indistinguishable")
    if not decided:
        return None
    best = decided["best"]
    rows = []
    for pair in found["pairs"]:
        if best not in (pair["a"], pair["b"]):
            continue
        sign = 1 if pair["a"] == best else -1
        other = pair["b"] if sign == 1 else pair["a"]
        ends = None if pair["ci95"] is None else sorted(sign * x for x in pair["ci95"])
        rejected = "yes" if other in decided["rejected"] else "no"
        rows.append(
            [
                Cell(other),
                Cell(number(sign * pair["difference"]), bounds(ends) or "no interval"),
                Cell(p_value(pair["p"])),
                Cell(rejected),
            ]
        )
    if not rows:
        return None
    title = OVERALL.get(metric).title
    test = {"delong": "DeLong, variance between animals"}.get(found["test"], found["test"])
    caption = f"{title}: how far {best} is ahead, on the {SET_WORDS[block['set']]} ({test})"
    return Table(caption, ["Behind it", "Difference", "p", "Told apart after Holm"], rows)


def trust(results: Mapping[str, Any], lead: str) -> Said:
    """Say how far probabilities can be trusted, what calibration brings and when the model should abstain."""
    models = ordered_models(dict(results))
    names = list(dict.fromkeys((lead, str(models[lead].get("base", lead)), *models)))
    having = [n for n in names if (models.get(n) or {}).get("calibration")]
    calibrated = next((n for n in having if models[n]["calibration"]["advised"]["method"]), next(iter(having), None))
    deciding = next((n for n in names if ((models.get(n) or {}).get("abstention") or {}).get("conformal")), None)
    said = Said()
    if calibrated is not None:
        said += _calibration(calibrated, models[calibrated]["calibration"])
    if deciding is not None:
        said += _abstention(deciding, models[deciding]["abstention"])
    reason = (models[lead].get("abstention") or {}).get("reason")
    return said + Said([f"{lead}: {reason}"]) if reason else said


def _calibration(name: str, block: Mapping[str, Any]) -> Said:
    advised = block["advised"]
    sentences = []
    if advised["method"] and advised["method"] != "none":
        sentences.append(f"Advised calibration of {name}: {advised['method']}. {advised['reason']}")
    elif advised["reason"]:
        sentences.append(f"Calibration of {name}: {advised['reason']}")
    tables = []
    for set_name, methods in block["sets"].items():
        heads = {
            m: OVERALL.get(m).title if m in OVERALL.names() else "Calibration error, mean over classes"
            for m in _CALIBRATION_SCORES
        }
        rows = [
            [
                Cell("as the network gives them" if method == "none" else method),
                *(cell(scores[m]) for m in _CALIBRATION_SCORES),
                cell((scores.get("difference") or {}).get("loss")),
            ]
            for method, scores in methods.items()
        ]
        tables.append(
            Table(
                f"Calibration of {name}, {SET_WORDS[set_name]}",
                ["Probabilities", *heads.values(), "Change of log loss"],
                rows,
            )
        )
    return Said(sentences, tables)


def _abstention(name: str, block: Mapping[str, Any]) -> Said:
    conformal = block["conformal"]
    nominal = percent(conformal["nominal"])
    sets = conformal["sets"]
    rows = [[Cell(title), *(share(s[what]) for s in sets.values())] for what, title in _SET_SHARES.items()]
    rows += [
        [Cell(f"True class in the set: {class_name}"), *(share(s["per_class"][class_name]) for s in sets.values())]
        for class_name in next(iter(sets.values()))["per_class"]
    ]
    heads = [SET_WORDS[s].capitalize() for s in sets]
    tables = [
        Table(
            f"Prediction sets of {name}, meant to hold the true class of {nominal} of each class",
            ["Share of cells", *heads],
            rows,
        )
    ]
    sentences = [_decided(name, nominal, set_name, found) for set_name, found in sets.items()]
    if block.get("targets"):
        tables.append(_targets(name, block["targets"]))
    return Said(sentences, tables)


def _decided(name: str, nominal: str, set_name: str, found: Mapping[str, Any]) -> str:
    right = found["accuracy_decided"]["mean"]
    ending = "" if right is None else f", right in {percent(right)} of them"
    return (
        f"{SET_WORDS[set_name].capitalize()}: with sets that should hold {nominal} of each class, {name} decides "
        f"{percent(found['decided']['mean'])} of the cells{ending}."
    )


def _targets(name: str, targets: list[Mapping[str, Any]]) -> Table:
    rows = []
    for target in targets:
        for set_name, found in target["sets"].items():
            rows.append(
                [Cell(percent(target["error"])), Cell(SET_WORDS[set_name]), share(found["kept"]), share(found["error"])]
            )
    return Table(
        f"{name}: deciding only where it is sure", ["Error aimed at", "Set", "Cells decided", "Error among them"], rows
    )


def label_quality(results: Mapping[str, Any]) -> Said:
    """Say how many labels are probably wrong, of which class, and which cells to look at first."""
    block = results.get("label_quality")
    if not block:
        return Said()
    rate = block["noise_rate"]
    sentences = [
        f"About {percent(rate['estimate'], 1)} of the labels ({bounds(rate['ci95']) or 'no interval'} as a share) disagree "
        f"with what networks say of cells they were not trained on; {count(block['n_flagged'], 'cell')} of {block['n_cells']} "
        "are flagged. A flag is a reason to look, not a verdict: cells between two classes are flagged too. The whole list "
        "is in label_issues.csv."
    ]
    rows = [
        [Cell(name), Cell(str(found["n"])), Cell(str(found["n_flagged"])), share(found["wrong"])]
        for name, found in block["per_class"].items()
    ]
    tables = [Table("Labels by class", ["Label", "Cells", "Flagged", "Probably wrong"], rows)]
    top = block.get("top") or []
    folded = []
    if top:
        keys = [k for k in _LABEL_COLUMNS if any(t.get(k) not in (None, "") for t in top)]
        rows = [[Cell(_plain(t.get(k))) for k in keys] for t in top]
        folded = [
            Folded(
                "The most doubtful labels",
                tables=[Table(f"The {len(top)} most doubtful labels", [_LABEL_COLUMNS[k] for k in keys], rows)],
            )
        ]
    return Said(sentences, tables, folded)


def _plain(value: Any) -> str:
    if value is None or value == "":
        return MISSING
    return f"{value:.2f}" if isinstance(value, float) else str(value)


def saturation(results: Mapping[str, Any]) -> Said:
    """Say what limits accuracy: animals, labels or networks."""
    block = results.get("saturation")
    if not block:
        return Said()
    rows = []
    for name, curve in (block.get("curves") or {}).items():
        if curve.get("gain") and curve.get("doubled"):
            n = curve["doubled"]["n_subjects"]
            rows.append(
                [Cell(f"Gain of {name} from twice the {UNIT_WORDS[block['unit']]} ({n:.0f})"), cell(curve["gain"])]
            )
    if block.get("ceiling"):
        rows.append([Cell("What the labels allow", str(block["ceiling"].get("source", ""))), cell(block["ceiling"])])
    if block.get("headroom"):
        rows.append([Cell("From the best score up to that"), cell(block["headroom"])])
    networks = block.get("networks")
    if networks:
        rows.append([Cell(f"Lead of {networks['best']} over {networks['runner_up']}"), cell(networks["lead"])])
        rows.append(
            [
                Cell("Spread of the networks beyond chance (SD)"),
                Cell(number(networks["tau"]), f"p {p_value(networks['p'])}"),
            ]
        )
    metric = str(block["metric"]).replace("_", " ")
    tables = [Table(f"Limits of the {metric}, {SET_WORDS[block['set']]}", ["What", "Estimate"], rows)] if rows else []
    return Said([block["sentence"]], tables)


def explain(results: Mapping[str, Any]) -> Said:
    """Say how much of what the networks look at lies inside the cells."""
    models = (results.get("explain") or {}).get("models") or {}
    rows, sentences = [], []
    for name, entry in models.items():
        if "share_inside" not in entry:
            sentences.append(f"{name} is not explained: {entry.get('reason', 'no reason on record')}")
            continue
        rows.append(
            [
                Cell(name, f"{entry['method']}, {count(entry['n_cells'], 'cell')}"),
                share(entry["share_inside"]),
                Cell(percent(entry["even_share"])),
                share(entry["beyond_even"]),
            ]
        )
    heads = ["Network", "Of its attention inside the outline", "An even map would have", "Difference"]
    tables = [Table("Where the networks look, held-out cells", heads, rows)] if rows else []
    return Said(sentences, tables)
