"""Counts per image, region, animal and group, and agreement with the classes a file already gives.

All of these are bare counts of predicted classes; ``perikarya quantify`` corrects them for misclassification and says
how sure they are.
"""

from __future__ import annotations

import csv
import io
import json
import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
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
MAX_IMAGES = 200_000  # with counts of their own; more would take more memory than all that is read at once
_Names: TypeAlias = tuple[str | None, ...]

log = logging.getLogger(__name__)


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

    def add(self, n_k: NDArray[np.int64], prob_k: NDArray[np.float64], n_abstained: int) -> None:
        """Add cells that were counted."""
        self.n_k += n_k
        self.prob_k += prob_k
        self.n_abstained += n_abstained


class Summary:
    """Counts of every scope, and the confusion matrix of the cells whose class the file gives.

    Attributes
    ----------
    class_names
        Of the model.
    too_many_images
        Whether there are more than ``MAX_IMAGES``; none of them has counts of its own then.
    confusion_kk, sure_kk
        Cells by class of the file (rows) and predicted class (columns): all of them, and those not below the threshold.
    unknown
        Classes in the files that are none of the model, with the number of their cells.
    n_own
        Cells whose class in the file an earlier prediction wrote; they count as having none.
    """

    def __init__(self, class_names: tuple[str, ...]) -> None:
        self.class_names = class_names
        self.too_many_images = False
        self._counts: dict[str, dict[_Names, Counts]] = {scope: {} for scope in SCOPES}
        k = len(class_names)
        self.confusion_kk, self.sure_kk = np.zeros((k, k), np.int64), np.zeros((k, k), np.int64)
        self.unknown: Counter[str] = Counter()
        self.n_own = 0

    @property
    def n_labelled(self) -> int:
        """Cells whose class the files give."""
        return int(self.confusion_kk.sum())

    def of(self, scope: str) -> dict[_Names, Counts]:
        """Return the counts of one scope by names, in the order in which these were met."""
        return self._counts[scope]

    def add(self, table: pa.Table) -> None:
        """Add the cells of one part of the cells table."""
        k = len(self.class_names)
        if len(table):
            code_n, label_n = (_codes(table[column], self.class_names) for column in ("class", "label"))
            prob_nk = np.stack([table[f"{PROB}{c}"].to_numpy() for c in self.class_names], axis=1).astype(np.float64)
            abstained_n = table["abstained"].to_numpy()
            self._count(table, code_n, prob_nk, abstained_n)
            known = label_n >= 0
            self.confusion_kk += _crosstab(label_n[known], code_n[known], k)
            sure = known & ~abstained_n
            self.sure_kk += _crosstab(label_n[sure], code_n[sure], k)
        left_out = json.loads((table.schema.metadata or {}).get(LABELS_LEFT_OUT.encode(), b"{}"))
        self.unknown.update(left_out.get("unknown", {}))
        self.n_own += left_out.get("own", 0)

    def _count(
        self,
        table: pa.Table,
        code_n: NDArray[np.int64],
        prob_nk: NDArray[np.float64],
        abstained_n: NDArray[np.bool_],
    ) -> None:
        """Count the cells of each combination of names once, and add these counts to every scope."""
        told = [name for name in NAMES if name != "image_id" or not self.too_many_images]
        found, which_n = _combinations(table, told)
        n, k = len(found), len(self.class_names)
        n_ck = np.bincount(which_n * k + code_n, minlength=n * k).reshape(n, k)
        prob_ck = np.stack([np.bincount(which_n, prob_nk[:, j], n) for j in range(k)], axis=1)
        abstained_c = np.bincount(which_n[abstained_n], minlength=n)
        for scope, (keys, _) in SCOPES.items():
            if not set(keys) <= set(told):
                continue
            places = [told.index(key) for key in keys]
            for c, names in enumerate(found):
                counts = self._counts[scope].setdefault(tuple(names[i] for i in places), Counts.none(k))
                counts.add(n_ck[c], prob_ck[c], int(abstained_c[c]))
        if len(self.of("image")) > MAX_IMAGES:
            self.too_many_images = True
            self.of("image").clear()


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
    if summary.too_many_images:
        log.warning("There are more than %d images; %s has no rows for each of them.", MAX_IMAGES, path.name)
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
    found = pc.index_in(column, pa.array(class_names, pa.string()))
    return np.asarray(pc.fill_null(found, -1).to_numpy(), np.int64)


def _combinations(table: pa.Table, columns: Sequence[str]) -> tuple[list[_Names], NDArray[np.int64]]:
    """Return the combinations of names in the order in which they are met, and the number of the one of each cell."""
    names: list[list[str | None]] = []
    code_n: NDArray[np.int64] = np.zeros(len(table), np.int64)
    for name in columns:
        encoded = table[name].combine_chunks().dictionary_encode(null_encoding="encode")
        names.append(encoded.dictionary.to_pylist())
        code_n = code_n * len(names[-1]) + np.asarray(encoded.indices.to_numpy(), np.int64)
    codes, first, inverse_n = np.unique(code_n, return_index=True, return_inverse=True)
    order = np.argsort(first)
    found = []
    for code in codes[order].tolist():
        told: list[str | None] = []
        for known in reversed(names):
            code, place = divmod(code, len(known))
            told.append(known[place])
        found.append(tuple(reversed(told)))
    return found, np.argsort(order)[inverse_n.reshape(-1)]


def _crosstab(row_n: NDArray[np.int64], column_n: NDArray[np.int64], k: int) -> NDArray[np.int64]:
    """Count pairs of codes below ``k``, shape (k, k)."""
    return np.bincount(row_n * k + column_n, minlength=k * k).reshape(k, k)
