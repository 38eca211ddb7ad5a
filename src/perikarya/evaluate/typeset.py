"""Tables for print, as LaTeX and Markdown; names come from users and are escaped."""

from __future__ import annotations

import re
from dataclasses import dataclass

LINE_LETTERS = 92  # letters of \\footnotesize that fit on a line of an A4 page with LaTeX's usual margins

_LATEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "%": r"\%", "_": r"\_",
    "^": r"\textasciicircum{}", "~": r"\textasciitilde{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", '"': r"\textquotedbl{}", "–": "--", "'": r"\textquotesingle{}", "`": r"\textasciigrave{}",
    "[": "{[}", "]": "{]}",
}  # fmt: skip


@dataclass(frozen=True)
class Sheet:
    """A table for print: the first column names the rows; the last ``n_footer`` rows are set off by a line."""

    caption: str
    header: list[str]
    rows: list[list[str]]
    n_footer: int = 0


def one_line(text: str) -> str:
    """Put text on one line, without control characters."""
    return " ".join(re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]", " ", text).split())


def escape_latex(text: str) -> str:
    """Write text so that LaTeX prints it as it is."""
    return "".join(_LATEX.get(letter, letter) for letter in one_line(text))


def escape_markdown(text: str) -> str:
    """Write text so that Markdown, and the HTML made of it, show it as it is."""
    text = one_line(text).replace("&", "&amp;").replace("<", "&lt;")
    return re.sub(r"([\\`*_\[\]|~$#])", r"\\\1", text)


def to_latex(sheet: Sheet, *, label: str) -> str:
    r"""Write a table for ``\input``; it needs the packages booktabs and textcomp.

    Columns that do not fit side by side follow below in a second part with the names of the rows repeated.
    """
    parts = [_tabular(sheet, columns) for columns in _parts(sheet)]
    return "\n".join(
        [
            r"% needs \usepackage{booktabs} and \usepackage{textcomp}",
            r"\begin{table}[htbp]",
            r"\centering\footnotesize",
            rf"\caption{{{escape_latex(sheet.caption)}}}",
            rf"\label{{tab:{re.sub(r'[^A-Za-z0-9.:+-]', '-', label)}}}",
            "\n\\par\\medskip\n".join(parts),
            r"\end{table}",
            "",
        ]
    )


def _parts(sheet: Sheet) -> list[list[int]]:
    """Split the columns after the first so that every part fits on a line."""
    letters = [max(len(one_line(row[i])) for row in [sheet.header, *sheet.rows]) + 2 for i in range(len(sheet.header))]
    parts: list[list[int]] = [[]]
    for i in range(1, len(sheet.header)):
        if parts[-1] and letters[0] + sum(letters[j] for j in parts[-1]) + letters[i] > LINE_LETTERS:
            parts.append([])
        parts[-1].append(i)
    return parts


def _tabular(sheet: Sheet, columns: list[int]) -> str:
    def line(row: list[str]) -> str:
        return " & ".join(escape_latex(row[i]) for i in [0, *columns]) + r" \\"

    body = [line(row) for row in sheet.rows]
    if sheet.n_footer:
        body.insert(len(body) - sheet.n_footer, r"\midrule")
    top = [rf"\begin{{tabular}}{{l{'r' * len(columns)}}}", r"\toprule", line(sheet.header), r"\midrule"]
    return "\n".join([*top, *body, r"\bottomrule", r"\end{tabular}"])


def to_markdown(sheet: Sheet) -> str:
    """Write a table with its caption above."""
    lines = [sheet.header, ["---"] + ["---:"] * (len(sheet.header) - 1)]
    text = ["| " + " | ".join(escape_markdown(x) for x in lines[0]) + " |", "| " + " | ".join(lines[1]) + " |"]
    text += ["| " + " | ".join(escape_markdown(x) for x in row) + " |" for row in sheet.rows]
    return "\n".join([escape_markdown(sheet.caption), "", *text, ""])
