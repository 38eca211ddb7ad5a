"""Docstrings of the house reach the reference in words: free text under Returns, colons in the line of a property."""

from __future__ import annotations

import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

CONF = Path(__file__).parents[2] / "docs" / "conf.py"


@pytest.fixture(scope="module")
def shown() -> Callable[..., str]:
    """What autodoc makes of a docstring, as reStructuredText."""
    pytest.importorskip("sphinx", reason="the extra 'docs' is not installed")
    from sphinx.ext.napoleon import Config, NumpyDocstring

    conf = runpy.run_path(str(CONF))
    settings = Config(napoleon_google_docstring=False, napoleon_use_rtype=False)

    def convert(text: str, what: str = "function") -> str:
        lines = text.split("\n")
        told: tuple[Any, ...] = (None, what, "x", None, None, lines)
        conf["returns_in_words"](*told)
        lines[:] = NumpyDocstring(list(lines), settings, what=what, name="x").lines()
        conf["first_line_of_property"](*told)
        return "\n".join(lines)

    return convert


def test_what_is_returned_keeps_its_words_and_the_sections_around_it(shown: Callable[..., str]) -> None:
    text = shown(
        "Do.\n\nParameters\n----------\na\n    Of b.\n\nReturns\n-------\nOne row, in order: class (first),\nthen more."
        "\n\nRaises\n------\nDataError\n    If not.\n"
    )
    assert ":returns: One row, in order: class (first),\n    then more." in text
    assert ":param a: Of b." in text
    assert ":raises DataError: If not." in text


def test_returns_at_the_end_and_not_at_all(shown: Callable[..., str]) -> None:
    assert shown("Do.\n\nReturns\n-------\nShape (n,): a.").rstrip().endswith(":returns: Shape (n,): a.")
    assert shown("Do: it.\n\nReturns nothing.").strip() == "Do: it.\n\nReturns nothing."


@pytest.mark.parametrize("line", ["The models, best first: name, mean.", "The folder.", "A hash (16 digits): of all."])
def test_the_line_of_a_property_stays_one(shown: Callable[..., str], line: str) -> None:
    assert shown(line, "property").strip() == line
