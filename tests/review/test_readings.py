"""Blind rounds: which cells, in which order, kept how; and what they say of readers."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score
from tests.tiny import CLASS_NAMES, make_study

from perikarya.config import EvaluateConfig
from perikarya.data.store import OpenStudy, open_study
from perikarya.errors import ConfigError, DataError
from perikarya.evaluate.ceiling import READINGS_FILE, read_readings
from perikarya.review.agreement import LABELS, agreement_of, in_order_of_severity
from perikarya.review.readings import Readings
from perikarya.review.rounds import SKIPPED, Round
from perikarya.schema import NO_LABEL

SETTINGS = EvaluateConfig(n_bootstrap=200)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> OpenStudy:
    return make_study(tmp_path_factory.mktemp("readings") / "study", cells_per_subject=12)


@pytest.fixture
def opened(tmp_path: Path) -> OpenStudy:
    return make_study(tmp_path / "study", cells_per_subject=6)


def click() -> str:
    return str(uuid.uuid4())


def a_round(reader: str, read: dict[int, int], *, again: dict[int, int] | None = None) -> Round:
    rows, codes = [*read, *(again or {})], [*read.values(), *(again or {}).values()]
    return Round(reader, reader, "2026-01-01T00:00:00+00:00", tuple(rows), tuple(codes))


def test_each_class_gets_as_many_cells_as_there_are_evenly(opened: OpenStudy) -> None:
    labels = opened.cells["label"]
    rare = labels.index[labels == "small"][3:]
    opened.cells.loc[rare, "label"] = "large"  # three small ones are left
    one = Readings(opened).start("Ann", n_cells=31, n_repeats=0, seed=0)
    assert len(set(one.rows)) == 31
    counts = opened.cells["label"].iloc[list(one.rows)].value_counts()
    assert counts["small"] == 3
    assert counts["large"] == counts["medium"] == 14


def test_cells_without_a_label_are_read_too(opened: OpenStudy) -> None:
    opened.cells.loc[:9, "label"] = None
    one = Readings(opened).start("Ann", n_cells=40, n_repeats=0, seed=0)
    assert sum(opened.labels[row] == NO_LABEL for row in one.rows) == 10


@pytest.mark.parametrize(("n_cells", "n_repeats"), [(2, 1), (3, 1), (7, 3), (60, 12), (60, 30)])
def test_repeats_come_at_least_half_a_round_later(opened: OpenStudy, n_cells: int, n_repeats: int) -> None:
    for seed in range(10):
        rows = Readings(opened).start("Ann", n_cells=n_cells, n_repeats=n_repeats, seed=seed).rows
        assert len(rows) == n_cells + n_repeats
        assert len(set(rows)) == n_cells
        places = {row: [i for i, other in enumerate(rows) if other == row] for row in set(rows)}
        twice = [p for p in places.values() if len(p) == 2]
        assert len(twice) == n_repeats
        assert all(second - first > n_cells // 2 for first, second in twice)


def test_equal_seeds_draw_equal_cells_for_all_readers_in_their_own_order(study: OpenStudy) -> None:
    readings = Readings(study)
    ann, bob = (readings.start(name, n_cells=50, n_repeats=0, seed=3) for name in ("Ann", "Bob"))
    other = readings.start("Bob", n_cells=50, n_repeats=0, seed=4)
    assert set(ann.rows) == set(bob.rows) != set(other.rows)
    assert ann.rows != bob.rows


def test_a_round_is_as_long_as_the_study_at_most(opened: OpenStudy) -> None:
    assert len(Readings(opened).start("Ann", n_cells=1000, n_repeats=0, seed=0).rows) == len(opened.cells)


@pytest.mark.parametrize(("n_cells", "n_repeats"), [(0, 0), (10, 6), (10, -1), (1, 1), (-5, 0)])
def test_numbers_that_do_not_fit_get_a_sentence(opened: OpenStudy, n_cells: int, n_repeats: int) -> None:
    with pytest.raises(ConfigError, match="cannot repeat"):
        Readings(opened).start("Ann", n_cells=n_cells, n_repeats=n_repeats, seed=0)
    assert Readings(opened).rounds() == []


def test_what_was_read_is_kept_and_a_place_can_be_read_again(opened: OpenStudy) -> None:
    readings = Readings(opened)
    one = readings.start("Ann", n_cells=4, n_repeats=1, seed=0)
    assert one.read == (None,) * 5
    readings.record(one.round, reader="Ann", place=0, code=2, click=click())
    readings.record(one.round, reader="Ann", place=3, code=SKIPPED, click=click())
    after = readings.record(one.round, reader="Ann", place=0, code=1, click=click())
    assert after.read == (1, None, None, SKIPPED, None)
    again = Readings(open_study(opened.root)).rounds("Ann")
    assert again == [after]
    assert len((opened.root / "readings" / f"{one.round}.jsonl").read_text().splitlines()) == 3


def test_a_click_sent_twice_is_one_reading(opened: OpenStudy) -> None:
    readings = Readings(opened)
    one = readings.start("Ann", n_cells=4, n_repeats=0, seed=0)
    first = click()
    readings.record(one.round, reader="Ann", place=0, code=2, click=first)
    readings.record(one.round, reader="Ann", place=0, code=1, click=click())
    assert readings.record(one.round, reader="Ann", place=0, code=2, click=first).read[0] == 1


def test_the_table_of_readings_is_one_that_the_ceiling_of_the_labels_is_read_from(opened: OpenStudy) -> None:
    readings = Readings(opened)
    one = readings.start("Ann", n_cells=4, n_repeats=1, seed=0)
    for place, code in enumerate((0, 1, SKIPPED, 2)):
        readings.record(one.round, reader="Ann", place=place, code=code, click=click())
    readings.table().to_csv(opened.root / READINGS_FILE, index=False)
    labels_nr = read_readings(opened.root / READINGS_FILE, opened.cells, opened.study.class_names)
    assert labels_nr is not None
    assert [labels_nr[one.rows[place], 1] for place in (0, 1, 3)] == [0, 1, 2]
    assert (labels_nr[:, 1] == NO_LABEL).sum() == len(opened.cells) - 3


def test_readers_see_and_write_only_their_own_rounds(opened: OpenStudy) -> None:
    readings = Readings(opened)
    one = readings.start("Ann", n_cells=4, n_repeats=0, seed=0)
    assert readings.rounds("Bob") == []
    for name, reader in ((one.round, "Bob"), ("../../x", "Ann"), ("none", "Ann")):
        with pytest.raises(DataError, match="no such round of this reader"):
            readings.record(name, reader=reader, place=0, code=0, click=click())


@pytest.mark.parametrize(("place", "code"), [(-1, 0), (4, 0), (0, 3), (0, -2)])
def test_places_and_classes_that_are_not_there_are_refused(opened: OpenStudy, place: int, code: int) -> None:
    readings = Readings(opened)
    one = readings.start("Ann", n_cells=4, n_repeats=0, seed=0)
    with pytest.raises(ConfigError, match="places 0 to 3 and classes 0 to 2"):
        readings.record(one.round, reader="Ann", place=place, code=code, click=click())


def test_the_file_of_a_round_tells_neither_labels_nor_models(opened: OpenStudy) -> None:
    one = Readings(opened).start("Ann", n_cells=6, n_repeats=0, seed=0)
    text = (opened.root / "readings" / f"{one.round}.json").read_text()
    assert not any(name in text for name in CLASS_NAMES)
    assert set(one.as_dict()) == {"round", "reader", "started", "rows", "read"}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda plan: "not json", "does not hold a blind round"),
        (lambda plan: json.dumps(plan | {"round": "../../x"}), "does not hold a blind round: round"),
        (lambda plan: json.dumps(plan | {"round": "other"}), "it is called"),
        (lambda plan: json.dumps(plan | {"cells": ["elsewhere"]}), "1 cells that this study does not have"),
        (lambda plan: json.dumps(plan | {"cells": []}), "does not hold a blind round: cells"),
        (lambda plan: json.dumps(plan | {"reader": "\x1b[2J"}), "does not hold a blind round: reader"),
        (lambda plan: json.dumps(plan | {"schema_version": 2}), "does not hold a blind round: schema_version"),
    ],
)
def test_a_damaged_round_gets_a_sentence(opened: OpenStudy, change: Callable[[dict[str, Any]], str], said: str) -> None:
    one = Readings(opened).start("Ann", n_cells=4, n_repeats=0, seed=0)
    path = opened.root / "readings" / f"{one.round}.json"
    path.write_text(change(json.loads(path.read_text())))
    with pytest.raises(DataError, match=said):
        Readings(opened).rounds()


def test_readings_of_a_class_that_is_gone_get_a_sentence(opened: OpenStudy) -> None:
    readings = Readings(opened)
    one = readings.start("Ann", n_cells=4, n_repeats=0, seed=0)
    readings.record(one.round, reader="Ann", place=0, code=0, click=click())
    path = opened.root / "readings" / f"{one.round}.jsonl"
    path.write_text(path.read_text().replace('"large"', '"huge"'))
    with pytest.raises(DataError, match="Line 1 of round"):
        Readings(opened).rounds()


def test_a_folder_that_cannot_be_written_to_gets_a_sentence(opened: OpenStudy) -> None:
    (opened.root / "readings").write_text("a file")
    with pytest.raises(DataError, match="cannot be written"):
        Readings(opened).start("Ann", n_cells=4, n_repeats=0, seed=0)


def test_pairs_are_all_readers_and_the_labels_over_cells_both_have_read(study: OpenStudy) -> None:
    rng = np.random.default_rng(0)
    ann = {row: int(study.labels[row]) if rng.random() < 0.8 else 0 for row in range(100)}
    bob = {row: int(study.labels[row]) if rng.random() < 0.7 else 1 for row in range(40, 140)}
    bob[41] = SKIPPED
    found = agreement_of(study, [a_round("Ann", ann), a_round("Bob", bob)], settings=SETTINGS)
    assert [(p["a"], p["b"], p["n_cells"]) for p in found["pairs"]] == [
        ("Ann", "Bob", 59), ("Ann", LABELS, 100), ("Bob", LABELS, 99),
    ]  # fmt: skip
    both = [row for row in range(40, 100) if row != 41]
    expected = cohen_kappa_score([ann[row] for row in both], [bob[row] for row in both])
    pair = found["pairs"][0]
    assert pair["cohen"]["estimate"] == pytest.approx(expected)
    low, high = pair["cohen"]["ci95"]
    assert low < expected < high
    assert [one["class_name"] for one in pair["per_class"]] == list(CLASS_NAMES)
    assert pair["weighted"] is None
    assert found["fleiss"] is None
    assert found["intra"] == []
    assert any("bootstrap over subjects" in note for note in found["notes"])
    json.dumps(found, allow_nan=False)


def test_three_readers_have_a_fleiss_kappa_over_cells_all_have_read(study: OpenStudy) -> None:
    rounds = [
        a_round(name, {row: (row * k) % 3 for row in range(start, 80)})
        for k, (name, start) in enumerate((("Ann", 0), ("Bob", 10), ("Cleo", 20)), start=1)
    ]
    fleiss = agreement_of(study, rounds, settings=SETTINGS)["fleiss"]
    assert fleiss["readers"] == ["Ann", "Bob", "Cleo"]
    assert fleiss["n_cells"] == 60
    assert len(fleiss["per_class"]) == 3


def test_the_same_reader_twice_within_a_round_or_in_two(study: OpenStudy) -> None:
    first = a_round("Ann", {0: 0, 1: 1, 2: 2, 3: SKIPPED}, again={0: 0, 1: 2})
    second = a_round("Ann", {2: 2, 0: 1, 3: 0})
    found = agreement_of(study, [first, second], settings=SETTINGS)
    assert [(one["reader"], one["n_cells"]) for one in found["intra"]] == [("Ann", 3)]  # 0 and 1 in the round, 2 later
    assert found["intra"][0]["observed"] == pytest.approx(2 / 3)
    assert [p["n_cells"] for p in found["pairs"]] == [4]  # 3 was decided in the second round
    assert any("Fewer than 30 cells" in note for note in found["notes"])


def test_nobody_and_nothing_are_no_error(study: OpenStudy) -> None:
    assert agreement_of(study, []) == {
        "pairs": [], "fleiss": None, "intra": [], "notes": ["Nobody has read cells blind yet."],
    }  # fmt: skip
    only_skips = agreement_of(study, [a_round("Ann", {0: SKIPPED})])
    assert only_skips["pairs"] == []


def test_one_class_only_is_said(study: OpenStudy) -> None:
    rows = np.flatnonzero(study.labels == 0)[:40].tolist()
    found = agreement_of(study, [a_round("Ann", dict.fromkeys(rows, 0))], settings=SETTINGS)
    assert found["pairs"][0]["cohen"] == {"estimate": None, "ci95": None}
    assert found["pairs"][0]["observed"] == 1.0
    assert any(note.startswith("No kappa where both readings know one class only: Ann and") for note in found["notes"])


@pytest.mark.parametrize(
    ("names", "said", "expected"),
    [
        (("normal", "intermediate", "pyknotic"), None, True),
        (("Normal", "Pyknotic"), None, True),
        (("pyknotic", "normal"), None, False),
        (("large", "medium", "small"), None, False),
        (("large", "medium", "small"), ["large", "medium", "small"], True),
    ],
)
def test_only_classes_in_order_have_a_weighted_kappa(
    study: OpenStudy, names: tuple[str, ...], said: list[str] | None, expected: bool
) -> None:
    ordered = study.study.model_copy(update={"class_names": names, "provenance": {"options": {"classes": said}}})
    assert in_order_of_severity(ordered) is expected


def test_the_weighted_kappa_is_there_for_classes_in_order(opened: OpenStudy) -> None:
    by_person = opened.study.model_copy(update={"provenance": {"options": {"classes": list(CLASS_NAMES)}}})
    ordered = OpenStudy(opened.root, by_person, opened.cells, opened.crops)
    found = agreement_of(ordered, [a_round("Ann", {row: row % 3 for row in range(40)})], settings=SETTINGS)
    expected = cohen_kappa_score([row % 3 for row in range(40)], opened.labels[:40], weights="quadratic")
    assert found["pairs"][0]["weighted"]["estimate"] == pytest.approx(expected)
    assert any("in this order: large, medium, small" in note for note in found["notes"])
