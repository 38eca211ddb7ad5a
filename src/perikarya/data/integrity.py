"""Check a study before anything is trained on it: the same cell twice, leakage, masks, missing words, counts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from perikarya.data.splits import FoldPlan
from perikarya.data.store import OpenStudy
from perikarya.data.twins import CropFacts, Twin, find_twins, read_facts
from perikarya.schema import DEVELOPMENT, EXTERNAL

Severity = Literal["error", "warning", "info"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "info")
USUAL_FOLDS = 5
_AREA_Z = 6.0  # robust standard deviations of log area within a class; 1 in 10^9 of normally spread cells
_NAMED = 5  # cells named in a sentence
_SHOWN = 20  # findings of one kind that are printed


@dataclass(frozen=True)
class Finding:
    """One thing that must be fixed (error), should be known (warning) or helps to read the results (info)."""

    severity: Severity
    code: str
    sentence: str
    cells: tuple[str, ...] = ()


@dataclass(frozen=True)
class CheckReport:
    """All findings, errors first, and counts of cells: class by set, region, group and subject."""

    name: str
    findings: tuple[Finding, ...]
    counts: dict[str, pd.DataFrame]

    @property
    def ok(self) -> bool:
        """Tell whether nothing must be fixed."""
        return not any(finding.severity == "error" for finding in self.findings)


def check_study(opened: OpenStudy, *, folds: FoldPlan | None = None) -> CheckReport:
    """Look for everything that would make the figures of a study untrue.

    Parameters
    ----------
    opened
        The study; all its crops are read once.
    folds
        The folds cells were or will be divided into, where they are fixed already.

    Raises
    ------
    DataError
        If the tables cannot be used at all (an unknown label, a damaged descriptor).
    """
    labels = opened.labels  # raises on labels outside the classes
    facts = read_facts(opened)
    findings = [
        *_on_twins(opened, find_twins(opened, facts), folds),
        *_on_sides(opened.cells, folds),
        *_on_words(opened.cells),
        *_on_classes(opened, labels, folds),
        *_on_masks(opened, facts),
    ]
    opened.give_pages_back()
    findings.sort(key=lambda finding: SEVERITIES.index(finding.severity))  # stable
    return CheckReport(opened.study.name, tuple(findings), _counts(opened))


def render_check(report: CheckReport) -> RenderableType:
    """Return the report for a terminal: counts, then findings, errors first."""
    parts: list[RenderableType] = []
    for title, frame in report.counts.items():
        if title == "subject" or frame.empty:
            continue  # there may be hundreds; they are in report.counts
        table = Table(title=f"cells by class and {title}", title_justify="left")
        table.add_column("class")
        for column in frame.columns:
            table.add_column(Text(str(column)), justify="right")
        for name, row in frame.iterrows():
            table.add_row(Text(str(name)), *(str(n) for n in row))
        parts.append(table)
    parts += [Text(line) for line in check_lines(report)]
    return Group(*parts)


def check_lines(report: CheckReport) -> list[str]:
    """Return the findings as plain lines, at most 20 of a kind, and a last line that sums up."""
    lines: list[str] = []
    shown: dict[tuple[str, str], int] = {}
    for finding in report.findings:
        kind = (finding.severity, finding.code)
        shown[kind] = shown.get(kind, 0) + 1
        if shown[kind] <= _SHOWN:
            lines.append(f"{finding.severity}: {finding.sentence}")
    lines += [f"{kind[0]}: … and {n - _SHOWN} more ({kind[1]})" for kind, n in shown.items() if n > _SHOWN]
    n_errors = sum(finding.severity == "error" for finding in report.findings)
    n_warnings = sum(finding.severity == "warning" for finding in report.findings)
    verdict = "must be fixed" if n_errors else "nothing must be fixed"
    lines.append(f"{report.name}: {n_errors} error(s), {n_warnings} warning(s); {verdict}.")
    return lines


def _on_twins(opened: OpenStudy, twins: list[Twin], folds: FoldPlan | None) -> Iterator[Finding]:
    cells = opened.cells
    fold_of = {} if folds is None else dict(zip(folds.frame["cell_id"], folds.frame["fold"], strict=True))
    n_two_cells = 0
    for twin in twins:
        a, b = cells.iloc[twin.row_a], cells.iloc[twin.row_b]
        ids = (str(a["cell_id"]), str(b["cell_id"]))
        how = "the same picture" if twin.exact else f"nearly the same picture (similarity {twin.similarity:.2f})"
        what = f"{_where(a)} and {_where(b)} show {how}"
        side = _separation(a, b, fold_of)
        if side is not None:
            yield Finding("error", side[0], f"{what}, {side[1]}", ids)
        elif not twin.one_cell:
            n_two_cells += 1
            continue
        else:
            sentence = f"{what}, of one subject; the cell counts twice. Keep one."
            yield Finding("warning", "duplicate", sentence, ids)
        if twin.one_cell and pd.notna(a["label"]) and pd.notna(b["label"]) and a["label"] != b["label"]:
            sentence = f"{what}, but one is labelled {a['label']}, the other {b['label']}. Decide which holds."
            yield Finding("error", "two-labels", sentence, ids)
    if n_two_cells:
        sentence = f"{n_two_cells} picture(s) show several outlined cells each; they count as cells of one image."
        yield Finding("info", "shared-picture", sentence)


def _separation(a: pd.Series, b: pd.Series, fold_of: dict[str, int]) -> tuple[str, str] | None:
    """Tell which border lies between two rows that show the same picture, with the code of the finding."""
    if a["set"] != b["set"]:
        return (
            "leak-sets",
            "on both sides of development and external: the external figures would be too good. Remove one.",
        )
    if pd.notna(a["subject"]) and pd.notna(b["subject"]):
        if a["subject"] != b["subject"]:
            return "duplicate-subjects", (
                f"of two subjects ({a['subject']} and {b['subject']}), so it can be trained on and tested at once. "
                "Correct the subject or remove one."
            )
    elif a["image_id"] != b["image_id"]:
        return "duplicate-images", (
            f"of two images ({a['image_id']} and {b['image_id']}) whose subjects are unknown, so it can be trained on "
            "and tested at once. Give the subjects or remove one."
        )
    fold_a, fold_b = fold_of.get(str(a["cell_id"])), fold_of.get(str(b["cell_id"]))
    if fold_a is not None and fold_b is not None and fold_a != fold_b:
        return (
            "leak-folds",
            f"in folds {fold_a} and {fold_b}: it is trained on and tested at once. Draw the folds again.",
        )
    return None


def _where(row: pd.Series) -> str:
    return f"{row['source']} ({row['set']})"


def _on_sides(cells: pd.DataFrame, folds: FoldPlan | None) -> Iterator[Finding]:
    """Subjects, and images of unknown subjects, on both sides of a border."""
    for column, known in (("subject", cells["subject"].notna()), ("image_id", cells["subject"].isna())):
        some = cells[known & ~_has_own_id(cells)] if column == "image_id" else cells[known]
        if some.empty:
            continue
        both = some.groupby(column)["set"].nunique()
        for name in both.index[both > 1]:
            sentence = (
                f"{_word(column)} {name} is in the development and in the external set; the external figures would say "
                "nothing about new animals. Move all its cells to one side."
            )
            yield Finding("error", f"{column}-in-both-sets", sentence, _ids(some[some[column] == name]))
        if folds is None:
            continue
        n_folds = some.merge(folds.frame, on="cell_id").groupby(column)["fold"].nunique()
        # folds over single cells are asked for in so many words, and the plan itself warns of them
        severity: Severity = "warning" if folds.group_by == "cell" else "error"
        for name in n_folds.index[n_folds > 1]:
            sentence = f"{_word(column)} {name} is in {n_folds[name]} folds: it is trained on and tested at once."
            yield Finding(severity, f"{column}-in-several-folds", sentence, _ids(some[some[column] == name]))
    for column, of, why in (
        ("image_id", "subject", "image names must differ between subjects"),
        ("subject", "group", "a subject has one treatment"),
    ):
        several = cells.groupby(column)[of].nunique()
        for name in several.index[several > 1]:
            found = ", ".join(sorted(cells.loc[cells[column] == name, of].dropna().unique())[:_NAMED])
            sentence = f"{_word(column)} {name} has several entries of {of} ({found}); {why}."
            yield Finding("warning", f"several-{of}s", sentence, _ids(cells[cells[column] == name]))


def _on_words(cells: pd.DataFrame) -> Iterator[Finding]:
    n = len(cells)
    missing = int(cells["subject"].isna().sum())
    if missing:
        sentence = (
            f"The subject of {missing} of {n} cells is unknown: folds will be drawn over images, and no interval can "
            "take the animal as the unit. Give --metadata with a column subject, or --name-pattern."
        )
        yield Finding("warning", "no-subject", sentence)
    own = int(_has_own_id(cells).sum())
    if own:
        sentence = (
            f"The image of {own} of {n} cells is unknown, so each file counts as an image of its own: cells of one "
            "photograph may be trained on and tested at once. Give --metadata with a column image_id."
        )
        # where animals are known, folds are drawn over them and images decide nothing
        yield Finding("warning" if missing else "info", "no-image", sentence)
    for word, use in (("region", "per region"), ("group", "per treatment group")):
        missing = int(cells[word].isna().sum())
        if missing:
            sentence = f"The {word} of {missing} of {n} cells is unknown; figures {use} leave them out."
            yield Finding("info" if missing == n else "warning", f"no-{word}", sentence)
    unlabelled = int(cells["label"].isna().sum())
    if unlabelled:
        yield Finding("info", "no-label", f"{unlabelled} of {n} cells have no label; they are only predicted.")


def _on_classes(opened: OpenStudy, labels: NDArray[np.int64], folds: FoldPlan | None) -> Iterator[Finding]:
    cells = opened.cells
    n_folds = USUAL_FOLDS if folds is None else folds.n_folds
    unit = "subject" if cells["subject"].notna().all() else "image_id"
    development = (cells["set"] == DEVELOPMENT).to_numpy()
    if not development.any():
        yield Finding("error", "no-development", "The study has no development cells; nothing can be trained.")
        return
    for code, name in enumerate(opened.study.class_names):
        own = cells[development & (labels == code)]
        n_units = own[unit].nunique()
        if own.empty:
            sentence = f"Class {name} has no development cell; no network can learn it."
            yield Finding("warning", "empty-class", sentence)
        elif n_units < n_folds:
            units = "subjects" if unit == "subject" else "images"
            sentence = (
                f"Class {name} has cells of {n_units} {units} only, fewer than {n_folds} folds; some test without it."
            )
            yield Finding("warning", "few-groups", sentence)


def _on_masks(opened: OpenStudy, facts: CropFacts) -> Iterator[Finding]:
    cells = opened.cells
    area = cells["area_px"].to_numpy()
    window = opened.study.window_px
    cut = facts.area_px < area
    for code, severity, rows, text in (
        ("empty-mask", "error", facts.area_px == 0, "have no outline inside their window; they must be outlined again"),
        ("several-parts", "warning", facts.n_parts > 1, "have an outline of several parts"),
        ("cut-mask", "warning", cut & (facts.area_px > 0), f"are larger than the window of {window} px and cut by it"),
        ("at-border", "warning", facts.at_border & ~cut, "touch the edge of their window, so part may be missing"),
        (
            "odd-area",
            "warning",
            _odd_areas(area, opened.labels),
            "are far smaller or larger than others of their class",
        ),
    ):
        if rows.any():
            some = cells[rows]
            names = ", ".join(_where(row) for _, row in some.head(_NAMED).iterrows())
            more = f" and {len(some) - _NAMED} more" if len(some) > _NAMED else ""
            yield Finding(severity, code, f"{len(some)} cell(s) {text}: {names}{more}.", _ids(some))  # type: ignore[arg-type]


def _odd_areas(area_px: NDArray[np.int64], labels: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Mark areas far from the median of their class, on a logarithmic scale, in units of the median deviation."""
    odd = np.zeros(len(area_px), np.bool_)
    logs = np.log(np.maximum(area_px, 1))
    for code in np.unique(labels):
        own = labels == code
        deviation = np.abs(logs[own] - np.median(logs[own]))
        spread = max(1.4826 * float(np.median(deviation)), 0.05)  # 1.4826: median deviation to standard deviation
        odd[own] = deviation > _AREA_Z * spread
    return odd


def _counts(opened: OpenStudy) -> dict[str, pd.DataFrame]:
    cells = opened.cells
    label = pd.Categorical(cells["label"].fillna("(none)"), categories=[*opened.study.class_names, "(none)"])
    counts = {}
    for column in ("set", "region", "group", "subject"):
        if cells[column].notna().any():
            table = pd.crosstab(label, cells[column].fillna("(unknown)"))
            order = [c for c in (DEVELOPMENT, EXTERNAL) if c in table] if column == "set" else list(table.columns)
            names = [name for name in opened.study.class_names if name not in table.index]
            table = pd.concat([table, pd.DataFrame(0, index=names, columns=table.columns)]) if names else table
            kept = [name for name in (*opened.study.class_names, "(none)") if name in table.index]
            counts[column] = table.loc[kept, order]
    return counts


def _has_own_id(cells: pd.DataFrame) -> NDArray[np.bool_]:
    """Tell whose image is named after its own file, as importers do when they know none; shape (n_cells,)."""
    # cells of fields have '#' in their source; names that are not unique carry their class in front
    own = [
        "#" not in source and PurePosixPath(source).stem == image.rpartition("/")[2]
        for source, image in zip(cells["source"], cells["image_id"], strict=True)
    ]
    return np.array(own, np.bool_)


def _word(column: str) -> str:
    return "Image" if column == "image_id" else "Subject"


def _ids(cells: pd.DataFrame) -> tuple[str, ...]:
    return tuple(cells["cell_id"].astype(str))
