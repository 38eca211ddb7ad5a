"""Counts per image, region, animal and group, and agreement with the classes a file already gives.

All of these are bare counts of predicted classes; ``perikarya quantify`` corrects them for misclassification and says
how sure they are.
"""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from perikarya.predict.outputs.cells import LABELS_LEFT_OUT, PROB
from perikarya.runs import write_text

NAMES = ("group", "subject", "region", "image_id")
# scope -> the names that tell its rows apart, and those without which there is nothing to tell
SCOPES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "all": ((), ()),
    "group": (("group",), ("group",)),
    "region": (("region",), ("region",)),
    "animal": (("group", "subject"), ("subject",)),
    "animal and region": (("group", "subject", "region"), ("subject", "region")),
    "image": (("group", "subject", "image_id"), ()),
}
_Names: TypeAlias = tuple[str | None, ...]


@dataclass
class Counts:
    """Cells of one row of the summary, added up."""

    n_k: NDArray[np.int64]  # (n_classes,), by predicted class
    prob_k: NDArray[np.float64]  # (n_classes,), sums of probabilities
    n_abstained: int = 0

    @classmethod
    def none(cls, n_classes: int) -> Counts:
        """Return counts of no cell."""
        return cls(np.zeros(n_classes, np.int64), np.zeros(n_classes))

    def add(self, code_n: NDArray[np.int64], prob_nk: NDArray[np.float64], abstained_n: NDArray[np.bool_]) -> None:
        """Add cells."""
        self.n_k += np.bincount(code_n, minlength=len(self.n_k))
        self.prob_k += prob_nk.sum(axis=0)
        self.n_abstained += int(abstained_n.sum())


class Summary:
    """Counts of every scope, and the confusion matrix of the cells whose class the file gives.

    Attributes
    ----------
    class_names
        Of the model.
    counts
        (scope, names) to counts, in the order in which they were met.
    confusion_kk, sure_kk
        Cells by class of the file (rows) and predicted class (columns): all of them, and those not below the threshold.
    unknown
        Classes in the files that are none of the model, with the number of their cells.
    n_own
        Cells whose class in the file an earlier prediction wrote; they count as having none.
    """

    def __init__(self, class_names: tuple[str, ...]) -> None:
        self.class_names = class_names
        self.counts: dict[tuple[str, _Names], Counts] = {}
        k = len(class_names)
        self.confusion_kk, self.sure_kk = np.zeros((k, k), np.int64), np.zeros((k, k), np.int64)
        self.unknown: Counter[str] = Counter()
        self.n_own = 0

    @property
    def n_labelled(self) -> int:
        """Cells whose class the files give."""
        return int(self.confusion_kk.sum())

    def of(self, scope: str) -> dict[_Names, Counts]:
        """Return the counts of one scope by names."""
        return {names: counts for (s, names), counts in self.counts.items() if s == scope}

    def add(self, table: pa.Table) -> None:
        """Add the cells of one part of the cells table."""
        k = len(self.class_names)
        code_n, label_n = (_codes(table[column], self.class_names) for column in ("class", "label"))
        prob_nk = np.stack([table[f"{PROB}{c}"].to_numpy() for c in self.class_names], axis=1).astype(np.float64)
        abstained_n = table["abstained"].to_numpy()
        names = {name: table[name].to_pylist() for name in NAMES}
        for scope, (keys, _) in SCOPES.items():
            rows: dict[_Names, list[int]] = {}
            for i in range(len(code_n)):
                rows.setdefault(tuple(names[key][i] for key in keys), []).append(i)
            for found, places in rows.items():
                counts = self.counts.setdefault((scope, found), Counts.none(k))
                counts.add(code_n[places], prob_nk[places], abstained_n[places])
        known = label_n >= 0
        np.add.at(self.confusion_kk, (label_n[known], code_n[known]), 1)
        sure = known & ~abstained_n
        np.add.at(self.sure_kk, (label_n[sure], code_n[sure]), 1)
        left_out = json.loads((table.schema.metadata or {}).get(LABELS_LEFT_OUT.encode(), b"{}"))
        self.unknown.update(left_out.get("unknown", {}))
        self.n_own += left_out.get("own", 0)


def summarise(tables: Iterable[pa.Table], class_names: tuple[str, ...]) -> Summary:
    """Add up the parts of a cells table, one in memory at a time."""
    summary = Summary(class_names)
    for table in tables:
        summary.add(table)
    return summary


def agreement(confusion_kk: NDArray[np.int64]) -> float | None:
    """Return the share of cells on the diagonal, None where there are none."""
    n = int(confusion_kk.sum())
    return int(np.trace(confusion_kk)) / n if n else None


def write_summary(path: Path, summary: Summary) -> None:
    """Write one row per scope and name: n_cells, n_abstained; per class the count, its fraction, the mean probability.

    Unsure cells count under their most probable class. Scopes nobody named (no region known of any cell) are left out;
    cells without a name in a scope others are named in stand in a row with an empty name.
    """
    classes = summary.class_names
    header = ["scope", *NAMES, "n_cells", "n_abstained"]
    header += [f"{kind}_{c}" for kind in ("n", "fraction", "mean_prob") for c in classes]
    rows = []
    for scope, (keys, needed) in SCOPES.items():
        found = summary.of(scope)
        if not all(any(names[keys.index(key)] for names in found) for key in needed):
            continue
        for names, counts in sorted(found.items(), key=lambda pair: [name or "" for name in pair[0]]):
            told = dict(zip(keys, names, strict=True))
            n = int(counts.n_k.sum())
            shares = [f"{x / n:.4f}" for x in (*counts.n_k, *counts.prob_k)]
            rows.append([scope, *(told.get(name) or "" for name in NAMES), n, counts.n_abstained, *counts.n_k, *shares])
    _write_csv(path, header, rows)


def write_confusion(path: Path, summary: Summary) -> None:
    """Write how many cells of each class of the file were given each class: one row per class of the file."""
    header = ["class_in_file", *(f"as_{c}" for c in summary.class_names), "n_cells"]
    rows = [[c, *row, row.sum()] for c, row in zip(summary.class_names, summary.confusion_kk, strict=True)]
    _write_csv(path, header, rows)


def write_problems(path: Path, problems: Sequence[tuple[str, str, str]]) -> None:
    """Write (image, object, reason) of everything that was not predicted; a table without rows when all was."""
    _write_csv(path, ["image", "object", "reason"], problems)


def _write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    write_text(path, text.getvalue())


def _codes(column: Any, class_names: tuple[str, ...]) -> NDArray[np.int64]:
    code = {name: k for k, name in enumerate(class_names)}
    return np.array([code.get(name, -1) for name in column.to_pylist()], np.int64)
