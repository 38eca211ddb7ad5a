"""The checklists say what the files of a run show, and no more."""

from __future__ import annotations

import copy
from dataclasses import fields, replace
from typing import Any

import pytest

from perikarya.report.checklist import checklist_tables, facts_of
from perikarya.report.guidelines import STATUSES, Facts, claim_items, tripod_items

NOTHING = Facts(**{f.name: 0 if f.type == "int" else False for f in fields(Facts)})  # type: ignore[arg-type]
ALL = Facts(**{f.name: 0 if f.type == "int" else True for f in fields(Facts)})  # type: ignore[arg-type]


def status(facts: Facts, guideline: str, number: str) -> str:
    items = tripod_items(facts) if guideline == "TRIPOD+AI" else claim_items(facts)
    return {i.number: i.status for i in items}[number]


@pytest.mark.parametrize(
    ("fact", "guideline", "number", "with_it", "without"),
    [
        ("has_external", "CLAIM", "33", "met", "not met"),
        ("has_cv", "CLAIM", "32", "met", "not met"),
        ("by_animal", "CLAIM", "20", "met", "partly"),
        ("by_animal", "TRIPOD+AI", "12a", "met", "partly"),
        ("has_intervals", "TRIPOD+AI", "23a", "met", "partly"),
        ("has_explain", "CLAIM", "31", "met", "not met"),
        ("has_ensemble", "CLAIM", "27", "met", "not applicable"),
        ("has_check", "TRIPOD+AI", "7", "met", "not met"),
        ("has_saturation", "TRIPOD+AI", "10", "partly", "not met"),
        ("has_labels", "CLAIM", "18", "partly", "not met"),
        ("weights_named", "CLAIM", "24", "met", "partly"),
        ("has_scopes", "TRIPOD+AI", "14", "partly", "not met"),
    ],
)
def test_an_item_follows_its_fact(fact: str, guideline: str, number: str, with_it: str, without: str) -> None:
    assert status(replace(NOTHING, **{fact: True}), guideline, number) == with_it
    assert status(replace(ALL, **{fact: False}), guideline, number) == without


def test_what_only_authors_know_is_never_met() -> None:
    for facts in (NOTHING, ALL):
        assert status(facts, "TRIPOD+AI", "17") == "authors"
        assert status(facts, "CLAIM", "44") == "authors"
        assert status(facts, "CLAIM", "21") == "not met"  # no calculation of the sample size, whatever there is


def test_every_item_of_both_guidelines_is_covered_once() -> None:
    def numbers(items: Any) -> list[int]:
        found = []
        for item in items:
            ends = [int("".join(c for c in end if c.isdigit())) for end in item.number.split("–")]
            found += range(ends[0], ends[-1] + 1)
        return found

    assert sorted(set(numbers(tripod_items(ALL)))) == list(range(1, 28))
    assert numbers(claim_items(ALL)) == list(range(1, 45))


def test_facts_are_read_from_the_run(built: Any) -> None:
    fake, _, results = built
    lead = results["ranking"][0]["model"]
    facts = facts_of(results, fake.config, lead, checked=True)
    assert facts.has_external
    assert facts.has_cv
    assert facts.by_animal
    assert facts.animals_known
    assert facts.has_scopes
    assert facts.n_unlabelled == 0
    assert not facts.balances
    changed = copy.deepcopy(results)
    changed["protocol"]["group_by"] = "image_id"
    for model in changed["models"].values():
        model["external"] = None
    changed["explain"] = {"models": {}}
    facts = facts_of(changed, fake.config, "alpha", checked=False)
    assert not facts.by_animal
    assert not facts.has_external
    assert not facts.has_check


def test_the_caption_counts_what_the_table_says(built: Any) -> None:
    for table in checklist_tables(ALL):
        said = [row[2].text for row in table.rows]
        for name in STATUSES:
            if name in said:
                assert f"{said.count(name)} {name}" in table.caption
        assert all(row[3].text for row in table.rows)
