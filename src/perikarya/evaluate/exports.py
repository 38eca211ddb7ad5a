"""Results for other programs and for a paper: tidy tables, one JSON per model, LaTeX and Markdown tables."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from perikarya.evaluate.metrics import OVERALL, PER_CLASS
from perikarya.evaluate.summary import spread_over
from perikarya.evaluate.tables import interval_text, tidy_metrics
from perikarya.evaluate.typeset import Sheet, to_latex, to_markdown
from perikarya.runs import RunFolder, write_json, write_text
from perikarya.schema import SET_WORDS, safe_name, write_table

_NONE = "–"


def write_exports(run: RunFolder, results: dict[str, Any]) -> None:
    """Write everything that follows from ``results.json`` alone, each file whole.

    ``metrics.csv`` and ``metrics.parquet`` (one row per number), ``models/<model>.json`` (one file per model) and
    ``tables/<what>.tex`` and ``.md``: models compared, report of each class, regions, groups, confusion matrices.

    Parameters
    ----------
    run
        The run folder.
    results
        The content of ``results.json``.
    """
    tidy = tidy_metrics(results)
    write_text(run.root / "metrics.csv", tidy.to_csv(index=False))
    write_table(run.root / "metrics.parquet", tidy)
    shared = {k: results[k] for k in ("schema_version", "study", "protocol", "provenance")}
    stems = file_stems(results["models"])
    for name, model in results["models"].items():
        write_json(run.root / "models" / f"{stems[name]}.json", shared | {"model": name} | model)
    for stem, sheet in sheets(results):
        write_text(run.root / "tables" / f"{stem}.tex", to_latex(sheet, label=stem))
        write_text(run.root / "tables" / f"{stem}.md", to_markdown(sheet))


def file_stems(names: Iterable[str]) -> dict[str, str]:
    """Return a file name without ending for each model; names that would become equal get a number."""
    stems: dict[str, str] = {}
    taken: set[str] = set()
    for name in names:
        first = "+".join(safe_name(part) for part in name.split(" ("))
        stem, n = first, 1
        while stem.casefold() in taken:
            n += 1
            stem = f"{first}~{n}"
        taken.add(stem.casefold())
        stems[name] = stem
    return stems


def sheets(results: dict[str, Any]) -> Iterator[tuple[str, Sheet]]:
    """Iterate over all tables for print with the name of each file."""
    models, stems = results["models"], file_stems(results["models"])
    how = _how(results["protocol"])
    for set_name in SET_WORDS:
        scored = {name: m[set_name] for name, m in models.items() if m.get(set_name)}
        if not scored:
            continue
        yield f"models_{set_name}", models_sheet(scored, set_name, how.get(set_name, ""))
        for name, block in scored.items():
            yield f"classes_{set_name}_{stems[name]}", classes_sheet(name, block, set_name, how.get(set_name, ""))
            yield f"confusion_{set_name}_{stems[name]}", confusion_sheet(name, block, set_name)
            for plural in ("regions", "groups"):
                blocks = _scopes(models[name], plural, set_name)
                if blocks:
                    yield f"{plural}_{set_name}_{stems[name]}", scopes_sheet(name, blocks, plural, set_name)


def _scopes(model: dict[str, Any], plural: str, set_name: str) -> dict[str, Any]:
    main = model.get("scopes_of") == set_name
    return (model.get(plural) if main else model.get(f"{set_name}_{plural}")) or {}


def _how(protocol: dict[str, Any]) -> dict[str, str]:
    """Say in a few words, per set, what the brackets hold."""
    percent = f"{100 * protocol['confidence']:g}"
    return {s: f"In brackets: {percent} % interval ({how})." for s, how in protocol["interval_method"].items()}


def models_sheet(blocks: Mapping[str, Any], set_name: str, how: str) -> Sheet:
    """Compare models: one row each, all overall metrics with their intervals."""
    rows = [[name, *(interval_text(block[m]) for m in OVERALL.names())] for name, block in blocks.items()]
    first = next(iter(blocks.values()))
    subjects = "" if first["n_subjects"] is None else f" of {first['n_subjects']} subjects"
    caption = f"Models compared, {SET_WORDS[set_name]}: {first['n_cells']} cells{subjects}. {how}"
    return Sheet(caption.strip(), ["Model", *(metric.title for _, metric in OVERALL.items())], rows)


def classes_sheet(name: str, block: dict[str, Any], set_name: str, how: str) -> Sheet:
    """Report every class of one model, then the plain mean over classes and the mean weighted by their cells."""
    per_class = block["per_class"]
    rows = [
        [c, *(interval_text(scores[m]) for m in PER_CLASS.names()), str(scores["n"])] for c, scores in per_class.items()
    ]
    support = np.array([scores["n"] for scores in per_class.values()], np.float64)
    for title, weight in (("mean over classes", np.ones(len(support))), ("weighted by cells", support)):
        means = [_average([s[m]["mean"] for s in per_class.values()], weight) for m in PER_CLASS.names()]
        rows.append([title, *means, f"{support.sum():.0f}"])
    header = ["Class", *(metric.title for _, metric in PER_CLASS.items()), "Cells"]
    return Sheet(f"{name}: report of each class, {SET_WORDS[set_name]}. {how}".strip(), header, rows, n_footer=2)


def _average(values: Sequence[float | None], weight: np.ndarray[Any, np.dtype[np.float64]]) -> str:
    """Write a mean over classes; a class without cells counts nothing where cells weigh, else it leaves none."""
    known = [(v, w) for v, w in zip(values, weight, strict=True) if w > 0]
    if not known or any(v is None for v, _ in known):
        return _NONE
    return f"{np.average([v for v, _ in known if v is not None], weights=[w for _, w in known]):.3f}"


def scopes_sheet(name: str, blocks: Mapping[str, Any], plural: str, set_name: str) -> Sheet:
    """Show regions or groups one by one: cells, accuracy, balanced accuracy, recall of each class; mean and SD."""
    classes = list(next(iter(blocks.values()))["per_class"])
    overall = ("accuracy", "balanced_accuracy")
    rows = [
        [value, str(b["n_cells"]), _NONE if b["n_subjects"] is None else str(b["n_subjects"])]
        + [interval_text(b[m]) for m in overall]
        + [interval_text(b["per_class"][c]["recall"]) for c in classes]
        for value, b in blocks.items()
    ]
    picked = [[b[m]["mean"] for b in blocks.values()] for m in overall]
    picked += [[b["per_class"][c]["recall"]["mean"] for b in blocks.values()] for c in classes]
    sd = spread_over(blocks)
    sds = [sd[m] for m in overall] + [sd["per_class"][c]["recall"] for c in classes]
    rows.append(["mean", "", "", *(_mean(values) for values in picked)])
    rows.append([f"SD over {plural}", "", "", *(_NONE if x is None else f"{x:.3f}" for x in sds)])
    header = [plural[:-1].capitalize(), "Cells", "Subjects", *(OVERALL.get(m).title for m in overall)]
    header += [f"Recall {c}" for c in classes]
    return Sheet(f"{name}: by {plural[:-1]}, {SET_WORDS[set_name]}.", header, rows, n_footer=2)


def _mean(values: Sequence[float | None]) -> str:
    known = [v for v in values if v is not None]
    return f"{np.mean(known):.3f}" if known else _NONE


def confusion_sheet(name: str, block: dict[str, Any], set_name: str) -> Sheet:
    """Show the confusion matrix as counts and as percent of each true class."""
    classes = list(block["per_class"])
    rows = []
    for c, counts in zip(classes, block["confusion"], strict=True):
        total = sum(counts)
        shares = [f"{100 * x / total:.1f}" if total else _NONE for x in counts]
        rows.append([c, *(f"{x:.1f}" if isinstance(x, float) else str(x) for x in counts), *shares])
    header = ["True class", *(f"as {c}" for c in classes), *(f"as {c}, %" for c in classes)]
    caption = f"{name}: confusion matrix, {SET_WORDS[set_name]}; cells by predicted class, then percent of the row."
    return Sheet(caption, header, rows)
