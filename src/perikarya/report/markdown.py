"""Markdown that says what it is given: names of classes and animals cannot become links, tables or HTML."""

from __future__ import annotations

import re

from perikarya.report.words import Table

# an underscore inside a word is no emphasis, and [1] is no link; a bracket is only where something follows it
_SPECIAL = re.compile(r"[\\`*<>|#&]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])|\[(?![0-9, ]+\](?![(\[:]))|!(?=\[)")


def escape(text: str) -> str:
    """Return text that renders as itself, on one line."""
    return _SPECIAL.sub(lambda m: "\\" + m.group(0), " ".join(text.split()))


def table_lines(table: Table) -> list[str]:
    """Write a table as lines of Markdown; intervals stand in brackets behind their value."""
    lines = [f"**{escape(table.caption)}**", "", _row(table.head), _row(["---"] * len(table.head), raw=True)]
    lines += [_row([f"{c.text} ({c.note})" if c.note else c.text for c in row]) for row in table.rows]
    return [*lines, ""]


def _row(cells: list[str], *, raw: bool = False) -> str:
    return f"| {' | '.join(c if raw else escape(c) for c in cells)} |"
