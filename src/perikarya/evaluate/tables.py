"""Tidy tables for statistics programs: one row per number; and how a number is written for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

from perikarya.evaluate.metrics import OVERALL, PER_CLASS

COLUMNS = (
    "model", "kind", "set", "scope", "scope_value", "class", "metric",
    "mean", "sd_folds", "lo", "hi", "n_cells", "n_subjects", "unit",
)  # fmt: skip


def blocks(results: dict[str, Any]) -> Iterator[tuple[dict[str, str], dict[str, Any]]]:
    """Iterate over all blocks M of ``results.json`` with what each is about: model, kind, set, scope, scope_value."""
    for name, model in results["models"].items():
        about = {"model": name, "kind": model["kind"]}
        for set_name in ("cv", "external"):
            if model.get(set_name) is not None:
                yield about | {"set": set_name, "scope": "overall", "scope_value": ""}, model[set_name]
        for prefix, set_name in (("", model.get("scopes_of", "cv")), ("external_", "external")):
            for scope in ("region", "group"):
                for value, block in (model.get(f"{prefix}{scope}s") or {}).items():
                    yield about | {"set": set_name, "scope": scope, "scope_value": value}, block


def tidy_metrics(results: dict[str, Any]) -> pd.DataFrame:
    """Unfold ``results.json`` into one row per model, set, scope, class and metric.

    Returns
    -------
    Columns ``COLUMNS``; ``class`` is empty for overall metrics; ``lo`` and ``hi`` bound the interval; ``n_cells`` is
    the number of cells of the class where there is one. What is undefined is null.
    """
    rows = [row for about, block in blocks(results) for row in _rows(about, block)]
    frame = pd.DataFrame(rows, columns=list(COLUMNS))
    numbers, counts = ["mean", "sd_folds", "lo", "hi"], ["n_cells", "n_subjects"]
    return frame.astype(dict.fromkeys(numbers, "float64") | dict.fromkeys(counts, "Int64"))


def interval_text(value: Mapping[str, Any], digits: int = 3) -> str:
    """Write a value of ``results.json`` as ``0.873 (0.851–0.894)``, without brackets where it has no interval."""
    if value["mean"] is None:
        return "–"
    text = f"{value['mean']:.{digits}f}"
    if value["ci95"] is not None:
        low, high = value["ci95"]
        dash = "–" if low >= 0 else " to "
        text += f" ({low:.{digits}f}{dash}{high:.{digits}f})"
    return text


def _rows(about: dict[str, str], block: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for name in OVERALL.names():
        yield about | {"class": "", "metric": name} | _value(block[name], block, block["n_cells"], block["n_subjects"])
    for class_name, scores in block["per_class"].items():
        for name in PER_CLASS.names():
            number = _value(scores[name], block, scores["n"], scores["n_subjects"])
            yield about | {"class": class_name, "metric": name} | number


def _value(value: dict[str, Any], block: dict[str, Any], n_cells: int, n_subjects: int | None) -> dict[str, Any]:
    low, high = value["ci95"] or (None, None)
    return {
        "mean": value["mean"],
        "sd_folds": value["sd_folds"],
        "lo": low,
        "hi": high,
        "n_cells": n_cells,
        "n_subjects": n_subjects,
        "unit": block["unit"],
    }
