"""Numbers as words, and the tables a page is made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from perikarya.evaluate.stats import UNIT_WORDS
from perikarya.report.images import Shown

MISSING = "–"
_THIN_SPACE, _MINUS = "\u202f", "\u2212"


@dataclass(frozen=True)
class Cell:
    """One cell of a table: a value and, smaller, its interval; ``href`` links the value to a page beside this one."""

    text: str
    note: str = ""
    href: str = ""


@dataclass(frozen=True)
class Table:
    """A table with a caption; the first column names the rows.

    ``best`` is the row to stress. ``shades``, shape (rows, columns after the first), from 0 to 1, tints cells such as
    those of a confusion matrix.
    """

    caption: str
    head: list[str]
    rows: list[list[Cell]]
    best: int | None = None
    shades: list[list[float]] = field(default_factory=list)


@dataclass(frozen=True)
class Folded:
    """What is folded away under a title until a reader opens it."""

    title: str
    sentences: list[str] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    plates: list[Shown] = field(default_factory=list)


@dataclass(frozen=True)
class Said:
    """What there is to say of something: sentences, tables, and folded parts; all empty where there is nothing."""

    sentences: list[str] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    folded: list[Folded] = field(default_factory=list)

    def __add__(self, other: Said) -> Said:
        return Said(self.sentences + other.sentences, self.tables + other.tables, self.folded + other.folded)


def number(value: float | None, digits: int = 3) -> str:
    """Write a number, or a dash where it is undefined."""
    if value is None:
        return MISSING
    text = f"{value:.{digits}f}"
    return text.replace("-", _MINUS) if float(text) else text.removeprefix("-")  # no minus zero


def percent(value: float | None, digits: int = 0) -> str:
    """Write a share as ``87 %``, or a dash where it is undefined."""
    return MISSING if value is None else f"{number(100 * value, digits)} %"


def p_value(value: float | None) -> str:
    """Write a p value as journals ask for it: two leading digits, and no zero."""
    if value is None:
        return MISSING
    return "< 0.001" if value < 0.001 else f"{value:.2g}"


def bounds(ci: Sequence[float] | None, digits: int = 3) -> str:
    """Write an interval as ``0.851–0.894``, with 'to' where a minus stands in the way, or nothing."""
    if ci is None or ci[0] is None or ci[1] is None:
        return ""
    dash = " to " if ci[0] < 0 else "–"
    return f"{number(ci[0], digits)}{dash}{number(ci[1], digits)}"


def interval(value: Mapping[str, Any], digits: int = 3) -> str:
    """Write the interval of a value of ``results.json``, or nothing."""
    return bounds(value.get("ci95"), digits)


def cell(value: Mapping[str, Any] | None) -> Cell:
    """Make a table cell of a value of ``results.json``: a score (``mean``) or an effect (``estimate``)."""
    centre = None if value is None else value.get("mean", value.get("estimate"))
    if value is None or centre is None:
        return Cell(MISSING)
    return Cell(number(centre), interval(value) or "no interval")


def share(value: Mapping[str, Any] | None, digits: int = 0) -> Cell:
    """Make a table cell of a value that is a share, in percent."""
    centre = None if value is None else value.get("mean", value.get("estimate"))
    if value is None or centre is None:
        return Cell(MISSING)
    ends = value.get("ci95")
    note = f"{number(100 * ends[0], digits)} to {number(100 * ends[1], digits)} %" if ends else "no interval"
    return Cell(percent(centre, digits), note)


def count(n: int | None, singular: str, plural: str = "") -> str:
    """Write ``1 cell`` or ``2 cells``, with a thin space between thousands."""
    if n is None:
        return f"unknown {plural or singular + 's'}"
    return f"{n:,} {singular if n == 1 else plural or singular + 's'}".replace(",", _THIN_SPACE)


def over(block: Mapping[str, Any]) -> str:
    """Say over how many independent units the intervals of a block of scores were drawn."""
    n = {"subject": block["n_subjects"], "image_id": block["n_images"], "cell": block["n_cells"]}[block["unit"]]
    return count(n, UNIT_WORDS[block["unit"]].removesuffix("s"))


def listed(items: Sequence[str], last: str = "and") -> str:
    """Join words as prose does: ``a``, ``a and b``, ``a, b and c``."""
    if len(items) < 2:
        return "".join(items)
    return f"{', '.join(items[:-1])} {last} {items[-1]}"


def capital(text: str) -> str:
    """Begin a sentence with a capital, leaving the rest as it is."""
    return text[:1].upper() + text[1:]
