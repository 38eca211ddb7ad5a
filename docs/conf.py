"""How the site is built: ``make docs``. Everything it shows comes with the packages, nothing from the network."""

from __future__ import annotations

import re
from typing import Any

import perikarya

project = "Perikarya"
author = "The Perikarya developers"
copyright = author  # noqa: A001
version = release = perikarya.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
]
exclude_patterns = ["_build", "**.ipynb_checkpoints"]

# pages are read on GitHub too, so they are plain Markdown; links go to headings by their words there and here
myst_heading_anchors = 4
myst_enable_extensions = ["deflist"]

# notebooks are kept without outputs and run when they have changed; docs/_build/.jupyter_cache keeps what came out
nb_execution_mode = "cache"
nb_execution_in_temp = True
nb_execution_timeout = 600
nb_execution_raise_on_error = True
nb_merge_streams = True
nb_output_stderr = "remove"  # progress bars and notes of libraries

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
napoleon_google_docstring = False
napoleon_use_rtype = False

html_theme = "furo"
html_title = f"Perikarya {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_favicon = "../frontend/public/favicon.svg"
html_copy_source = False
html_show_sphinx = False
html_show_search_summary = False  # needs a server; the site is also read from a disk
copybutton_exclude = ".linenos, .gp, .go"


def returns_in_words(_app: Any, _what: str, _name: str, _obj: Any, _options: Any, lines: list[str]) -> None:
    """Keep sections "Returns" as the words they are; napoleon expects a type there, and takes the first line for it."""
    text = "\n".join(lines)
    section = re.search(r"^Returns\n-------\n(.*?)(?=^\w+\n---+$|\Z)", text, flags=re.DOTALL | re.MULTILINE)
    if section is None:
        return
    words = section[1].strip().replace("\n", "\n    ")
    lines[:] = f"{text[: section.start()]}\n\n:returns: {words}\n\n{text[section.end() :]}".split("\n")


def first_line_of_property(_app: Any, what: str, _name: str, _obj: Any, _options: Any, lines: list[str]) -> None:
    """Put the first line of a property together again; napoleon takes what stands before a colon for its type."""
    kinds = [line for line in lines if line.startswith(":type:")]
    if what == "property" and kinds:
        lines.remove(kinds[0])
        lines[0] = f"{kinds[0].removeprefix(':type:').strip()}: {lines[0]}"


def setup(app: Any) -> None:
    """Sphinx calls this; napoleon comes between the two."""
    app.connect("autodoc-process-docstring", returns_in_words, priority=400)
    app.connect("autodoc-process-docstring", first_line_of_property, priority=600)
