"""What comparisons, calibration, labels and saliency say: the numbers of results.json, or nothing without them."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from perikarya.report import evidence
from perikarya.report.content import headline
from perikarya.report.words import Said, bounds, number, p_value, percent

NOTHING = Said()


def test_an_older_run_without_any_of_it_says_nothing(built: Any) -> None:
    results = copy.deepcopy(built[2])
    for key in ("comparisons", "label_quality", "saturation", "explain", "damage"):
        results.pop(key, None)
    for model in results["models"].values():
        model.pop("calibration", None)
        model.pop("abstention", None)
    assert evidence.standing(results) == ""
    assert evidence.comparison(results) == NOTHING
    assert evidence.trust(results, "alpha") == NOTHING
    assert evidence.label_quality(results) == evidence.saturation(results) == evidence.explain(results) == NOTHING
    assert headline(results)["sentence"]


def indistinguishable(kept: list[str], rejected: list[str], *, can_reject: bool = True) -> dict[str, Any]:
    decided = {
        "metric": "balanced_accuracy", "best": kept[0], "set": kept, "rejected": rejected, "alpha": 0.05,
        "can_reject": can_reject, "why": "Too few animals.",
    }  # fmt: skip
    pairs = [
        {"a": kept[0], "b": n, "difference": 0.1, "ci95": [0.05, 0.2], "p": 0.01, "p_holm": 0.02} for n in rejected
    ]
    pairs += [
        {"a": n, "b": kept[0], "difference": 0.01, "ci95": [-0.05, 0.02], "p": 0.6, "p_holm": 0.6} for n in kept[1:]
    ]
    metric = {"test": "permutation", "pairs": pairs, "indistinguishable": decided, "confidence_set": None}
    return {
        "comparisons": {
            "set": "external", "unit": "subject", "n_clusters": 8, "n_cells": 100, "alpha": 0.05,
            "metrics": {"balanced_accuracy": metric}, "not_comparable": [{"model": "z", "reason": "it covers 3 cells"}],
        }
    }  # fmt: skip


def test_a_lone_winner_is_called_one() -> None:
    said = evidence.standing(indistinguishable(["a"], ["b", "c"]))
    assert said == (
        "It differs from each of the 2 other models by more than chance (paired permutation over 8 subjects, Holm's "
        "correction, 5 %)."
    )


def test_models_that_cannot_be_told_apart_are_named_together() -> None:
    said = evidence.standing(indistinguishable(["a", "b", "c"], ["d"]))
    assert said.startswith("These data cannot tell a from b and c (")
    many = evidence.standing(indistinguishable(list("abcdefg"), ["h"]))
    assert "cannot tell a from 6 of 7 other models (" in many


def test_too_few_animals_to_tell_any_models_apart_is_said_as_such() -> None:
    assert evidence.standing(indistinguishable(["a", "b"], [], can_reject=False)) == "Too few animals."


def test_differences_are_told_from_the_side_of_the_best() -> None:
    said = evidence.comparison(indistinguishable(["a", "b"], ["c"]))
    rows = {row[0].text: [c.text for c in row[1:]] + [row[1].note] for row in said.tables[0].rows}
    assert rows == {
        "c": ["0.100", "0.01", "yes", "0.050–0.200"],
        "b": ["−0.010", "0.6", "no", "−0.020 to 0.050"],
    }
    assert said.sentences[-1] == "z is not compared: it covers 3 cells."


def test_the_headline_says_which_models_the_data_cannot_tell_apart(built: Any) -> None:
    results = built[2]
    decided = results["comparisons"]["metrics"]["balanced_accuracy"]["indistinguishable"]
    assert decided["best"] == results["ranking"][0]["model"]
    assert evidence.standing(results) == headline(results)["details"][0]


def test_the_table_of_differences_holds_the_numbers_of_the_comparison(built: Any) -> None:
    results = built[2]
    found = results["comparisons"]["metrics"]["balanced_accuracy"]
    best = found["indistinguishable"]["best"]
    rows = {row[0].text: row for row in evidence.comparison(results).tables[0].rows}
    pairs = [p for p in found["pairs"] if p["a"] == best]
    assert set(rows) == {p["b"] for p in pairs}
    for pair in pairs:
        row = rows[pair["b"]]
        assert (row[1].text, row[1].note, row[2].text) == (
            number(pair["difference"]),
            bounds(pair["ci95"]),
            p_value(pair["p"]),
        )


@pytest.mark.parametrize("set_name", ["cv", "external"])
def test_calibration_tells_every_method_and_the_advised_one(built: Any, set_name: str) -> None:
    results = built[2]
    block = results["models"]["alpha"]["calibration"]
    said = evidence.trust(results, "alpha")
    assert any(block["advised"]["reason"] in s for s in said.sentences)
    words = {"cv": "cross-validation", "external": "external set"}[set_name]
    table = next(t for t in said.tables if t.caption == f"Calibration of alpha, {words}")
    assert [row[0].text for row in table.rows] == [
        "as the network gives them" if m == "none" else m for m in block["sets"][set_name]
    ]
    for row, scores in zip(table.rows, block["sets"][set_name].values(), strict=True):
        assert (row[1].text, row[3].text) == (number(scores["loss"]["mean"]), number(scores["ece"]["mean"]))


def test_prediction_sets_are_told_with_their_coverage_of_each_class(built: Any) -> None:
    results = built[2]
    conformal = results["models"]["alpha"]["abstention"]["conformal"]
    table = next(t for t in evidence.trust(results, "alpha").tables if "Prediction sets" in t.caption)
    rows = {row[0].text: [c.text for c in row[1:]] for row in table.rows}
    assert "90 %" in table.caption
    for name in ("normal", "intermediate", "pyknotic"):
        expected = [percent(s["per_class"][name]["mean"]) for s in conformal["sets"].values()]
        assert rows[f"True class in the set: {name}"] == expected


def test_an_ensemble_that_cannot_be_calibrated_hands_over_to_its_networks(built: Any) -> None:
    said = evidence.trust(built[2], "alpha (ensemble)")
    assert any("Prediction sets of alpha" in t.caption for t in said.tables)
    assert any(s.startswith("alpha (ensemble): ") for s in said.sentences)


def test_doubtful_labels_are_counted_and_listed(built: Any) -> None:
    block = built[2]["label_quality"]
    said = evidence.label_quality(built[2])
    assert percent(block["noise_rate"]["estimate"], 1) in said.sentences[0]
    assert [row[2].text for row in said.tables[0].rows] == [str(c["n_flagged"]) for c in block["per_class"].values()]
    listed = said.folded[0].tables[0]
    assert [row[0].text for row in listed.rows] == [t["cell_id"] for t in block["top"]]


def test_what_limits_accuracy_is_the_sentence_of_the_verdict(built: Any) -> None:
    assert evidence.saturation(built[2]).sentences == [built[2]["saturation"]["sentence"]]


def test_saliency_is_told_per_network_and_what_could_not_be_explained() -> None:
    value = {"mean": 0.75, "ci95": [0.7, 0.8]}
    entry = {"method": "gradcam", "n_cells": 90, "share_inside": value, "even_share": 0.25, "beyond_even": value}
    said = evidence.explain({"explain": {"models": {"a": entry, "b": {"reason": "It is not finished."}}}})
    row = said.tables[0].rows[0]
    assert [c.text for c in row] == ["a", "75 %", "25 %", "75 %"]
    assert row[1].note == "70 to 80 %"
    assert said.sentences == ["b is not explained: It is not finished."]
