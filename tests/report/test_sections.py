"""Which figure stands under which heading."""

from __future__ import annotations

from typing import Any

import pytest

from perikarya.report.images import Shown
from perikarya.report.sections import FIGURES, Section, page_sections, study_plates


def shown(kind: str, model: str = "") -> Shown:
    return Shown(kind, model, f"title of {kind} {model}", "caption", "alternative text")


def sections_of(built: Any, plates: list[Shown]) -> dict[str, Section]:
    return {s.anchor: s for s in page_sections(built[2], "alpha", plates, [])}


@pytest.mark.parametrize(
    ("kind", "anchor"),
    [
        ("comparison", "models"), ("roc", "lead"), ("reliability", "trust"), ("damage", "damage"),
        ("effects_CA1", "damage"),
        ("groups", "scopes"), ("saturation", "limits"), ("saliency_inside", "explain"), ("never_heard_of", "more"),
    ],
)  # fmt: skip
def test_a_figure_stands_in_its_section_once(built: Any, kind: str, anchor: str) -> None:
    plate = shown(kind)
    found = sections_of(built, [plate])
    places = [s.anchor for s in found.values() if plate in s.first + s.plates]
    assert places == [anchor]


def test_figures_of_other_models_are_folded_under_their_name(built: Any) -> None:
    own, other = shown("roc", "alpha"), shown("roc", "beta")
    found = sections_of(built, [own, other])
    assert found["lead"].plates == [own]
    folded = {f.title: f for f in found["others"].folded}
    assert folded["beta"].plates == [other]
    assert "alpha" not in folded
    assert {"alpha (ensemble)", "beta", "beta (ensemble)"} <= set(folded)


def test_figures_of_the_study_are_not_among_the_evidence(built: Any) -> None:
    plates = [shown(kind) for kind in FIGURES["study"]]
    assert study_plates(plates) == plates
    assert all(not s.first + s.plates for s in sections_of(built, plates).values())


def test_sections_without_content_are_left_out(built: Any) -> None:
    found = sections_of(built, [])
    assert "explain" not in found
    assert list(found)[:2] == ["models", "lead"]
    assert not any(s.is_empty for s in found.values())
