"""The order of the page: which sentences, tables and figures stand under which heading."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from perikarya.figures.plates import ordered_models
from perikarya.report import content, evidence
from perikarya.report.damage_words import damage
from perikarya.report.images import Shown
from perikarya.report.words import Cell, Folded, Said, Table

_SCOPES = ("regions", "groups", "external_regions", "external_groups")

# Which section a kind of figure belongs to, by its name or the beginning of it up to an underscore, in the order in which
# figures are shown. Kinds not named come last, under a heading of their own.
FIGURES: dict[str, tuple[str, ...]] = {
    "models": (
        "comparison", "critical_difference", "ranking", "recall", "boxes", "scatter", "speed",
    ),
    "lead": ("confusion", "roc", "pr", "curves", "mistakes"),
    "trust": ("reliability", "calibration", "class_reliability", "risk_coverage", "conformal"),
    "damage": ("damage", "severity", "effects", "fractions", "correction", "power"),
    "scopes": ("regions", "groups"),
    "labels": ("label_noise", "label_issues"),
    "limits": ("saturation",),
    "explain": ("saliency",),
    "study": ("counts", "cells", "augmentation"),
}  # fmt: skip
_FIRST = ("comparison", "critical_difference", "severity", "effects")  # these stand before the tables of their section


@dataclass(frozen=True)
class Section:
    """A heading with what stands under it: sentences, ``first`` figures, tables, more figures, folded parts, links."""

    anchor: str
    title: str
    label: str
    sentences: list[str] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    first: list[Shown] = field(default_factory=list)
    plates: list[Shown] = field(default_factory=list)
    folded: list[Folded] = field(default_factory=list)
    pages: list[Cell] = field(default_factory=list)

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to show."""
        return not (self.sentences or self.tables or self.first or self.plates or self.folded)


def page_sections(
    results: Mapping[str, Any], lead: str, plates: Sequence[Shown], pages: Sequence[Cell]
) -> list[Section]:
    """Arrange the evidence; sections without any content are left out.

    Parameters
    ----------
    results
        The content of ``results.json``.
    lead
        The leading model.
    plates
        All figures, embedded.
    pages
        Links to the pages of regions and groups.
    """
    builders: list[Callable[[Mapping[str, Any], str], Section]] = [
        _models, _lead, _trust, _damage, _scopes, _labels, _limits, _explain, _others,
    ]  # fmt: skip
    by_section = _by_section(plates, lead)
    sections = []
    for build in builders:
        section = build(results, lead)
        own = by_section.get(section.anchor, [])
        section = replace(
            section,
            first=[p for p in own if p.kind in _FIRST],
            plates=[p for p in own if p.kind not in _FIRST],
            pages=list(pages) if section.anchor == "scopes" else [],
        )
        if section.anchor == "others":
            section = replace(section, folded=[_with_figures(f, plates) for f in section.folded])
        if not section.is_empty:
            sections.append(section)
    rest = by_section.get("more", [])
    return sections + ([Section("more", "More figures", "More figures", plates=rest)] if rest else [])


def study_plates(plates: Sequence[Shown]) -> list[Shown]:
    """Return the figures of the study itself."""
    return [p for kind in FIGURES["study"] for p in plates if _is(p.kind, kind)]


def _is(kind: str, known: str) -> bool:
    return kind == known or kind.startswith(f"{known}_")


def _by_section(plates: Sequence[Shown], lead: str) -> dict[str, list[Shown]]:
    """Give figures to sections, each once; those of other models are folded into their own place."""
    rest = [p for p in plates if p.model in ("", lead)]
    found: dict[str, list[Shown]] = {}
    for anchor, kinds in FIGURES.items():
        found[anchor] = [p for kind in kinds for p in rest if _is(p.kind, kind)]
        rest = [p for p in rest if not any(_is(p.kind, kind) for kind in kinds)]
    return {**found, "more": rest}


def _with_figures(folded: Folded, plates: Sequence[Shown]) -> Folded:
    return replace(folded, plates=[p for p in plates if p.model == folded.title])


def _models(results: Mapping[str, Any], _: str) -> Section:
    n_models = len(ordered_models(dict(results)))
    title, label = ("Models compared", "Models") if n_models > 1 else ("Scores", "Scores")
    compared = evidence.comparison(results)
    main, more = content.model_tables(results)
    note = content.ordinal_note(results)
    folded = [Folded("More scores", [note] if note else [], more)] if more else []
    return Section("models", title, label, compared.sentences, [*main, *compared.tables], folded=folded)


def _lead(results: Mapping[str, Any], lead: str) -> Section:
    what = "The leading model" if len(ordered_models(dict(results))) > 1 else "The model"
    return Section(
        "lead", f"{what}: {lead}", what.removeprefix("The ").capitalize(), tables=_class_tables(results, lead)
    )


def _class_tables(results: Mapping[str, Any], name: str) -> list[Table]:
    model = results["models"][name]
    return [content.class_table(name, model[s], s) for s in ("external", "cv") if model.get(s)]


def _section(anchor: str, title: str, label: str, said: Said) -> Section:
    return Section(anchor, title, label, said.sentences, said.tables, folded=said.folded)


def _trust(results: Mapping[str, Any], lead: str) -> Section:
    return _section("trust", "Calibration and abstention", "Calibration", evidence.trust(results, lead))


def _damage(results: Mapping[str, Any], _: str) -> Section:
    return _section("damage", "Damage and the effect of treatment", "Damage", damage(results))


def _scopes(results: Mapping[str, Any], lead: str) -> Section:
    entry = results["models"][lead]
    tables = [t for key in _SCOPES if (t := content.scope_table(lead, entry, key))]
    return Section("scopes", "Regions and groups", "Regions and groups", tables=tables)


def _labels(results: Mapping[str, Any], _: str) -> Section:
    return _section("labels", "Quality of the labels", "Labels", evidence.label_quality(results))


def _limits(results: Mapping[str, Any], _: str) -> Section:
    return _section("limits", "What limits accuracy", "Limits", evidence.saturation(results))


def _explain(results: Mapping[str, Any], _: str) -> Section:
    return _section("explain", "Where the networks look", "Explanation", evidence.explain(results))


def _others(results: Mapping[str, Any], lead: str) -> Section:
    names = [n for n in ordered_models(dict(results)) if n != lead]
    return Section(
        "others", "Other models", "Other models", folded=[Folded(n, tables=_class_tables(results, n)) for n in names]
    )
