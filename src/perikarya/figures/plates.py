"""A figure on disk with its words, and the order in which models stand."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from perikarya.figures.style import DPI, save_figure
from perikarya.runs import RunFolder
from perikarya.schema import safe_name


@dataclass(frozen=True)
class Plate:
    """A figure on disk with its words.

    Attributes
    ----------
    kind
        What it shows, such as ``comparison``, ``roc`` or ``severity``; the report sorts figures by it.
    model
        The model it is about, or an empty text.
    path
        The PNG; where there is one, a PDF of the same name lies beside it.
    title
        A short headline.
    caption
        What a reader needs to read it alone.
    alt
        What it shows, for those who cannot see it.
    """

    kind: str
    model: str
    path: Path
    title: str
    caption: str
    alt: str


@dataclass(frozen=True)
class Press:
    """Where figures go: ``RUN/figures``, as PNG and, with ``vectors``, as PDF too; photographs have no PDF."""

    run: RunFolder
    vectors: bool = False
    dpi: int = DPI

    def plate(
        self, figure: Figure, kind: str, words: tuple[str, str, str], *, model: str = "", photos: bool = False,
        part: str = "",
    ) -> Plate:  # fmt: skip
        """Save a figure as ``<kind>[_<part>][_<model>]``; ``words`` are title, caption and alt."""
        name = "+".join(safe_name(x) for x in model.split(" ("))  # no model has a plus in its name
        stem = "_".join(x for x in (kind, safe_name(part) if part else "", name if model else "") if x)
        path = save_figure(
            figure, self.run.figures, stem, photos=photos, vectors=self.vectors and not photos, dpi=self.dpi
        )
        return Plate(kind, model, path, *words)


def ordered_models(results: dict[str, Any]) -> dict[str, Any]:
    """Return the models of ``results.json``, the ranked first in their order; without points of a learning curve."""
    ranked = [entry["model"] for entry in results["ranking"]]
    others = [n for n, m in results["models"].items() if n not in ranked and m.get("train_subjects") is None]
    return {name: results["models"][name] for name in [*ranked, *others]}
