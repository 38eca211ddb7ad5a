"""How far readers agree with each other, with themselves and with the labels of the study."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np

from perikarya.config import EvaluateConfig
from perikarya.data.importers.write import SEVERITY
from perikarya.data.store import OpenStudy
from perikarya.evaluate.metrics import Ints
from perikarya.evaluate.raters import Estimate, agreement_of_all, agreement_of_two
from perikarya.evaluate.stats import MIN_CLUSTERS, UNIT_WORDS, clusters_of, interval_unit
from perikarya.review.rounds import SKIPPED, Round
from perikarya.schema import NO_LABEL, Study

LABELS = "labels of the study"  # as one of the readers
FEW_CELLS = 30  # that two have both read; below, a kappa says little
_Codes = dict[int, int]  # row -> code of the class


def agreement_of(
    opened: OpenStudy,
    rounds: Sequence[Round],
    *,
    settings: EvaluateConfig = EvaluateConfig(),  # noqa: B008
) -> dict[str, Any]:
    """Compare what readers read.

    Between readers, and with the labels in the study's table, the first reading of a cell counts; with themselves, the
    first and the second. A cell on which somebody did not decide is left out where that reading is needed.

    Returns
    -------
    ``Agreement`` of the page's ``types.ts``.
    """
    firsts, seconds = _by_reader(rounds)
    read_rows = {row for codes in firsts.values() for row in codes}
    known = {row: int(opened.labels[row]) for row in sorted(read_rows) if opened.labels[row] != NO_LABEL}
    raters = firsts | ({LABELS: known} if known else {})
    pairs = [_pair(opened, a, b, raters, settings) for a, b in combinations(raters, 2)]
    intra = [_intra(opened, reader, firsts[reader], seconds[reader], settings) for reader in firsts if seconds[reader]]
    return {
        "pairs": pairs,
        "fleiss": _all_readers(opened, firsts, settings),
        "intra": intra,
        "notes": _notes(opened, firsts, pairs, intra, settings),
    }


def in_order_of_severity(study: Study) -> bool:
    """Tell whether the order of the classes means something: they are named as a scale, or a person ordered them."""
    names = [name.lower() for name in study.class_names]
    said = study.provenance.get("options")
    by_person = isinstance(said, dict) and bool(said.get("classes"))
    return by_person or names == [name for name in SEVERITY if name in names]


def _by_reader(rounds: Sequence[Round]) -> tuple[dict[str, _Codes], dict[str, _Codes]]:
    """Return each reader's first and second readings of cells, rounds in the order they were begun."""
    firsts: dict[str, _Codes] = {}
    seconds: dict[str, _Codes] = {}
    for one in rounds:
        first, second = firsts.setdefault(one.reader, {}), seconds.setdefault(one.reader, {})
        for row, code in zip(one.rows, one.read, strict=True):
            if code is None or code == SKIPPED:
                continue
            if row in first:
                second.setdefault(row, code)
            else:
                first[row] = code
    return {r: codes for r, codes in firsts.items() if codes}, seconds


def _shared(*raters: _Codes) -> tuple[Ints, Ints]:
    """Return the rows that all have read, sorted, and their codes, shape (n_cells, n_raters)."""
    rows = sorted(set.intersection(*(set(codes) for codes in raters)))
    codes = [[codes[row] for codes in raters] for row in rows]
    return np.array(rows, np.int64), np.array(codes, np.int64).reshape(len(rows), len(raters))


def _pair(opened: OpenStudy, a: str, b: str, raters: dict[str, _Codes], settings: EvaluateConfig) -> dict[str, Any]:
    names = opened.study.class_names
    rows, code_n2 = _shared(raters[a], raters[b])
    ordered = len(names) > 2 and in_order_of_severity(opened.study)
    found = agreement_of_two(code_n2, opened.cells.iloc[rows], len(names), ordered=ordered, settings=settings)
    return {
        "a": a,
        "b": b,
        "n_cells": found.n_cells,
        "observed": found.observed,
        "cohen": found.cohen.as_dict(),
        "weighted": None if found.weighted is None else found.weighted.as_dict(),
        "per_class": _by_class(names, found.per_class),
    }


def _intra(opened: OpenStudy, reader: str, first: _Codes, second: _Codes, settings: EvaluateConfig) -> dict[str, Any]:
    rows, code_n2 = _shared(first, second)
    n_classes = len(opened.study.class_names)
    found = agreement_of_two(code_n2, opened.cells.iloc[rows], n_classes, ordered=False, settings=settings)
    return {
        "reader": reader, "n_cells": found.n_cells, "cohen": found.cohen.as_dict(), "observed": found.observed,
    }  # fmt: skip


def _all_readers(opened: OpenStudy, firsts: dict[str, _Codes], settings: EvaluateConfig) -> dict[str, Any] | None:
    """Compare three readers or more; with two, Cohen's kappa says all."""
    if len(firsts) < 3:
        return None
    names = opened.study.class_names
    rows, code_nr = _shared(*firsts.values())
    found = agreement_of_all(code_nr, opened.cells.iloc[rows], len(names), settings=settings)
    return {
        "readers": [*firsts],
        "n_cells": found.n_cells,
        "kappa": found.kappa.as_dict(),
        "per_class": _by_class(names, found.per_class),
    }


def _by_class(names: Sequence[str], kappas: Sequence[Estimate]) -> list[dict[str, Any]]:
    return [{"class_name": name, "kappa": kappa.as_dict()} for name, kappa in zip(names, kappas, strict=True)]


def _notes(
    opened: OpenStudy,
    firsts: dict[str, _Codes],
    pairs: Sequence[dict[str, Any]],
    intra: Sequence[dict[str, Any]],
    settings: EvaluateConfig,
) -> list[str]:
    if not firsts:
        return ["Nobody has read cells blind yet."]
    rows = sorted({row for codes in firsts.values() for row in codes})
    read = opened.cells.iloc[rows]
    unit = interval_unit(read)
    notes = [
        "Cells of a round are drawn evenly from the classes, so a kappa is that of such a mix, not of the study's own.",
        f"Intervals: {settings.confidence:.0%}, bootstrap over {UNIT_WORDS[unit]}.",
    ]
    if clusters_of(read, unit).n_clusters < MIN_CLUSTERS:
        notes.append(f"The cells are from fewer than {MIN_CLUSTERS} {UNIT_WORDS[unit]}: no intervals.")
    if any(pair["weighted"] is not None for pair in pairs):
        notes.append(f"The weighted kappa takes the classes in this order: {', '.join(opened.study.class_names)}.")
    few = [f"{pair['a']} and {pair['b']} ({pair['n_cells']})" for pair in pairs if pair["n_cells"] < FEW_CELLS]
    few += [f"{one['reader']} twice ({one['n_cells']})" for one in intra if one["n_cells"] < FEW_CELLS]
    if few:
        notes.append(f"Fewer than {FEW_CELLS} cells, too few to rely on: {'; '.join(few)}.")
    nothing = [f"{p['a']} and {p['b']}" for p in pairs if p["n_cells"] and p["cohen"]["estimate"] is None]
    nothing += [f"{one['reader']} twice" for one in intra if one["cohen"]["estimate"] is None]
    if nothing:
        notes.append(f"No kappa where both readings know one class only: {'; '.join(nothing)}.")
    return notes
