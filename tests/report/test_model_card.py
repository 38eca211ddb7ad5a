"""The model card of the leading model."""

from __future__ import annotations

import copy
from typing import Any

from perikarya.report.model_card import CardPart, card_markdown, model_card
from perikarya.report.words import number


def card_of(built: Any, lead: str = "", results: dict[str, Any] | None = None) -> dict[str, CardPart]:
    fake, _, found = built
    results = results or found
    return {p.title: p for p in model_card(results, fake.config, lead or results["ranking"][0]["model"])}


def test_the_card_has_the_parts_of_mitchell_2019(built: Any) -> None:
    assert list(card_of(built)) == ["Model", "Intended use", "Not for", "Data", "Evaluation", "Limits", "Ethics"]


def test_the_card_rules_out_clinical_diagnosis(built: Any) -> None:
    assert "Not for clinical diagnosis" in card_of(built)["Not for"].sentences[0]


def test_licence_and_origin_of_the_weights_are_told(built: Any) -> None:
    text = " ".join(card_of(built, "alpha")["Model"].sentences)
    assert "Weights it started from: made up, licence: Apache-2.0." in text


def test_weights_without_a_licence_are_a_matter_of_ethics(built: Any) -> None:
    results = copy.deepcopy(built[2])
    results["models"]["alpha"]["weights"]["licence"] = None
    assert "No licence is on record" in card_of(built, "alpha", results)["Ethics"].sentences[-1]
    assert "No licence is on record" not in " ".join(card_of(built, "alpha")["Ethics"].sentences)


def test_scores_stand_by_class_region_and_group_with_intervals(built: Any) -> None:
    entry = built[2]["models"]["alpha"]
    captions = [t.caption for t in card_of(built, "alpha")["Evaluation"].tables]
    assert len(captions) == 6  # classes, regions and groups, on both sets
    recall = entry["external"]["per_class"]["normal"]["recall"]
    row = card_of(built, "alpha")["Evaluation"].tables[0].rows[0]
    assert row[2].text == number(recall["mean"])
    assert row[2].note


def test_a_model_without_an_external_test_says_so(built: Any) -> None:
    results = copy.deepcopy(built[2])
    results["models"]["alpha"]["external"] = None
    assert (
        "It has not been tested on animals from outside the study."
        in card_of(built, "alpha", results)["Limits"].sentences
    )


def test_the_markdown_holds_every_sentence_and_table(built: Any) -> None:
    parts = list(card_of(built, "alpha").values())
    text = card_markdown(parts, "Model card: alpha")
    assert text.startswith("# Model card: alpha\n")
    assert "doi:10.1145/3287560.3287596" in text
    assert sum(line.startswith("| ---") for line in text.splitlines()) == 6
    for part in parts:
        assert f"## {part.title}" in text
