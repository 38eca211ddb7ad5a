"""A new version of a study, with what people said of its cells in ``perikarya review``."""

from __future__ import annotations

import hashlib
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from perikarya.data.corrections import LOG_PATH, CorrectionLog, Entry, Standing, present_labels
from perikarya.data.store import OpenStudy, new_study_folder, open_study, save_tables
from perikarya.errors import DataError
from perikarya.runs import provenance, write_bytes
from perikarya.schema import Study, label_codes

TABLE_PATH = Path("corrections", "applied.csv")  # inside the new study
_NOT_COPIED = ("cache", "corrections", "cells.parquet", "study.yaml")
_NO_CLASS = ""  # in the table and the provenance


@dataclass(frozen=True)
class Applied:
    """What came of it.

    Attributes
    ----------
    opened
        The new study.
    n_entries
        Entries of the log that count in it.
    n_changed, n_confirmed
        Cells with another label than before, and those whose label a person confirmed.
    changes
        (from, to, number of cells), most frequent first; "" stands for no label.
    log_sha256
        Of the log up to the last of these entries.
    """

    opened: OpenStudy
    n_entries: int
    n_changed: int
    n_confirmed: int
    changes: tuple[tuple[str, str, int], ...]
    log_sha256: str


def apply_corrections(opened: OpenStudy, out: Path, *, until: int | None = None, overwrite: bool = False) -> Applied:
    """Make a study with the labels that the log of corrections leads to; the old one stays as it is.

    Crops, files and blind readings are copied, cached features are not. ``study.yaml`` tells what was changed, by whom,
    and the hash of the log; ``corrections/applied.csv`` lists the cells; the log goes along, so that the next review
    goes on from it.

    Parameters
    ----------
    opened
        The study with the log.
    out
        The folder to be made.
    until
        The last entry that counts; None: all.
    overwrite
        Replace another study at ``out``.

    Raises
    ------
    DataError
        If there is nothing to apply, the log does not fit the study, or ``out`` exists or is the study itself.
    """
    _check_place(opened.root, out)
    log = CorrectionLog(opened.root)
    entries = _entries(log, until)
    labels, reviewed = present_labels(opened.cells, entries)
    label_codes(labels, opened.study.class_names)
    content = log.lines(len(entries))
    summary = summary_of(opened.cells, labels, reviewed, entries)
    changed = summary[summary["from"] != summary["to"]]
    counted = Counter(zip(changed["from"], changed["to"], strict=True))
    changes = tuple((old, new, n) for (old, new), n in counted.most_common())
    digest = hashlib.sha256(content).hexdigest()
    said = provenance() | {
        "study": opened.study.name,
        "data_hash": opened.data_hash,
        "log_sha256": digest,
        "n_entries": len(entries),
        "n_changed": len(changed),
        "n_confirmed": len(summary) - len(changed),
        "readers": dict(Counter(entry.by for entry in entries).most_common()),
        "changes": [{"from": old, "to": new, "n_cells": n} for old, new, n in changes],
    }
    with new_study_folder(out, overwrite=overwrite) as root:
        shutil.copytree(opened.root, root, dirs_exist_ok=True, symlinks=True, ignore=_left_out(opened.root))
        write_bytes(root / LOG_PATH, content)
        write_bytes(root / TABLE_PATH, summary.to_csv(index=False, lineterminator="\n").encode("utf-8"))
        save_tables(root, _described(opened, out.name, said), opened.cells.assign(label=labels))
    return Applied(open_study(out), len(entries), len(changed), len(summary) - len(changed), changes, digest)


def _check_place(root: Path, out: Path) -> None:
    here, there = root.resolve(), out.resolve()
    if here.is_relative_to(there) or there.is_relative_to(here):
        raise DataError(
            f"{out} is the study itself, or one lies in the other; corrections make a new study beside the old one.\n"
            "Fix: choose another --out."
        )


def _entries(log: CorrectionLog, until: int | None) -> list[Entry]:
    entries = log.read()
    if not entries:
        raise DataError(
            f"There are no corrections in {log.path}.\nFix: give labels with 'perikarya review {log.path.parents[1]}'."
        )
    if until is not None and not 1 <= until <= len(entries):
        raise DataError(f"{log.path} has entries 1 to {len(entries)}; --until {until} is none of them.")
    return entries[:until]


def summary_of(
    cells: pd.DataFrame, labels: pd.Series, reviewed: NDArray[np.bool_], entries: Sequence[Entry]
) -> pd.DataFrame:
    """List the cells whose label a person gave, or that differ because one was taken back.

    Parameters
    ----------
    cells
        The study's table.
    labels, reviewed
        From ``present_labels``.
    entries
        Of the log.

    Returns
    -------
    Text columns cell_id, source, from, to, by, at, entry; "" where there is no class, or nobody's label stands.
    """
    standing = Standing()
    for entry in entries:
        standing.take_in(entry)
    before, after = cells["label"].fillna(_NO_CLASS), labels.fillna(_NO_CLASS)
    rows = np.flatnonzero(reviewed | (before != after).to_numpy())
    last = [standing.last_of(cell_id) for cell_id in cells["cell_id"].iloc[rows]]
    return pd.DataFrame(
        {
            "cell_id": cells["cell_id"].iloc[rows].to_numpy(),
            "source": cells["source"].iloc[rows].to_numpy(),
            "from": before.iloc[rows].to_numpy(),
            "to": after.iloc[rows].to_numpy(),
            "by": ["" if entry is None else entry.by for entry in last],
            "at": ["" if entry is None else entry.at for entry in last],
            "entry": ["" if entry is None else str(entry.seq) for entry in last],
        }
    )


def _described(opened: OpenStudy, name: str, said: dict[str, Any]) -> Study:
    """Return the study's description with one more set of corrections in its provenance."""
    before = opened.study.provenance
    earlier = before.get("corrections", [])
    return opened.study.model_copy(update={"name": name, "provenance": before | {"corrections": [*earlier, said]}})


def _left_out(root: Path) -> Callable[[str, list[str]], list[str]]:
    """Return which names of a folder are not copied: what is made anew, and files that were being written."""

    def names(folder: str, inside: list[str]) -> list[str]:
        top = Path(folder) == root
        return [name for name in inside if (top and name in _NOT_COPIED) or name.endswith((".part", ".old"))]

    return names
