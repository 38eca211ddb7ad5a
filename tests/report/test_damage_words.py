"""Damage and effects: the numbers of damage.json in words, in the headline, by animal and by region."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from perikarya.evaluate.quantify.assemble import quantify_run
from perikarya.report.damage_words import damage, damage_headline, damage_of
from perikarya.report.words import bounds, number, p_value


@pytest.fixture(scope="module")
def results(built: Any) -> dict[str, Any]:
    fake, _, found = built
    quick = fake.config.quantify.model_copy(update={"n_bootstrap": 200, "n_permutations": 500})
    config = fake.config.model_copy(update={"quantify": quick})
    block = quantify_run(fake.run, fake.opened.cells, fake.opened.study, config, tasks=fake.tasks)
    return {**found, "damage": block}


def overall(results: dict[str, Any]) -> dict[str, Any]:
    effects = results["damage"]["effects"]["comparisons"][0]["effects"]
    return next(e for e in effects if e["measure"] == "severity" and e["region"] == "all")


def test_a_run_without_damage_says_nothing(built: Any) -> None:
    results = {k: v for k, v in built[2].items() if k != "damage"}
    assert damage_headline(results) == []
    assert not damage(results).tables
    assert not damage_of(results, "region", "CA1").tables


def test_the_headline_gives_severity_of_each_group_and_each_difference_with_interval_and_p(results: Any) -> None:
    said = damage_headline(results)
    for mean in results["damage"]["group_means"]:
        if mean["region"] == "all" and mean["group"]:
            ends = bounds(mean["severity"]["ci95"], 2)
            assert f"{mean['group']} {number(mean['severity']['estimate'], 2)} ({ends})" in said[0]
    effect = overall(results)
    assert len(said) == 1 + len(results["damage"]["effects"]["comparisons"])
    assert (
        f"by {number(abs(effect['difference']['estimate']))} (difference {bounds(effect['difference']['ci95'])}"
        in said[1]
    )
    assert f"permutation p {p_value(effect['p'])}" in said[1]


@pytest.mark.parametrize(("estimate", "word"), [(0.1, "severity higher by 0.100"), (-0.1, "severity lower by 0.100")])
def test_the_direction_of_an_effect_is_a_word(results: Any, estimate: float, word: str) -> None:
    changed = copy.deepcopy(results)
    overall(changed)["difference"]["estimate"] = estimate
    assert word in damage_headline(changed)[1]


def test_regions_that_differ_after_correction_are_named_and_others_are_not(results: Any) -> None:
    changed = copy.deepcopy(results)
    effects = changed["damage"]["effects"]["comparisons"][0]["effects"]
    for effect in effects:
        effect["p_holm"] = 0.01 if effect["region"] == "CA3" else 0.4
    sentence = damage_headline(changed)[1]
    assert "By region, after Holm's correction: CA3 (" in sentence
    assert "CA1" not in sentence
    for effect in effects:
        effect["p_holm"] = 0.4
    assert "In none of 3 regions alone is p below 0.05" in damage_headline(changed)[1]


def test_too_few_animals_for_a_test_say_why(results: Any) -> None:
    changed = copy.deepcopy(results)
    overall(changed).update(p=None, p_holm=None, reason="2 and 6 animals: too few")
    overall(changed)["difference"]["ci95"] = None
    assert "(difference no interval; 2 and 6 animals: too few)" in damage_headline(changed)[1]


def test_effects_stand_by_region_with_both_analyses(results: Any) -> None:
    comparison = results["damage"]["effects"]["comparisons"][0]
    caption = f"{comparison['group']} against {comparison['reference']}: severity"
    table = next(t for t in damage(results).tables if t.caption == caption)
    effects = [e for e in comparison["effects"] if e["measure"] == "severity"]
    models = {m["region"]: m for m in comparison["models"] if m["measure"] == "severity"}
    assert len(table.rows) == len(effects) == 4
    for row, effect in zip(table.rows, effects, strict=True):
        assert row[2].text == number(effect["difference"]["estimate"])
        assert [c.text for c in row[5:]] == [
            p_value(p) for p in (effect["p"], effect["p_holm"], models[effect["region"]]["p"])
        ]


def test_every_animal_and_every_assumption_is_folded_away(results: Any) -> None:
    folded = {f.title: f for f in damage(results).folded}
    assert len(folded["Every animal"].tables[0].rows) == len(results["damage"]["animals"])
    assert folded["What these figures assume"].sentences == results["damage"]["assumptions"]
    assert folded["The next study: how many animals"].tables


def test_a_region_lists_its_animals_and_its_effects(results: Any) -> None:
    said = damage_of(results, "region", "CA3")
    animals = [a for a in results["damage"]["animals"] if a["region"] == "CA3"]
    assert [row[0].text for row in said.tables[0].rows] == [a["subject"] for a in animals]
    assert [row[2].text for row in said.tables[0].rows] == [number(a["severity"]["estimate"]) for a in animals]
    assert len(said.tables[1].rows) == len(results["damage"]["effects"]["comparisons"])


def test_a_group_lists_each_of_its_animals_once(results: Any) -> None:
    said = damage_of(results, "group", "sham")
    subjects = [row[0].text for row in said.tables[0].rows]
    assert len(subjects) == len(set(subjects)) == results["damage"]["effects"]["groups"]["sham"]
