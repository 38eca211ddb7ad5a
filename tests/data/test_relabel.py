"""Corrections make a new study; the old one stays as it is, byte for byte."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from tests.tiny import make_study

from perikarya.data.corrections import CorrectionLog, NewEntry, present_labels
from perikarya.data.integrity import check_study
from perikarya.data.relabel import apply_corrections
from perikarya.data.store import OpenStudy, open_study
from perikarya.errors import DataError


@pytest.fixture
def opened(tmp_path: Path) -> OpenStudy:
    return make_study(tmp_path / "study", cells_per_subject=4)


def say(opened: OpenStudy, row: int, new: str, *, by: str = "Ann") -> str:
    """Label a cell; the id of the click."""
    cell, click = opened.cells.iloc[row], str(uuid.uuid4())
    CorrectionLog(opened.root).append([NewEntry(click, "label", cell["cell_id"], cell["label"], new)], by=by)
    return click


def take_back(opened: OpenStudy, row: int, undoes: str) -> None:
    entry = NewEntry(str(uuid.uuid4()), "undo", opened.cells["cell_id"].iloc[row], None, None, None, undoes)
    CorrectionLog(opened.root).append([entry], by="Bob")


def other(opened: OpenStudy, row: int) -> str:
    return next(name for name in opened.study.class_names if name != opened.cells["label"].iloc[row])


def content(root: Path) -> dict[str, str]:
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in root.rglob("*")
        if path.is_file()
    }


def test_the_new_study_has_the_corrected_labels_and_the_old_one_is_untouched(opened: OpenStudy, tmp_path: Path) -> None:
    new_label, same_label = other(opened, 3), opened.cells["label"].iloc[5]
    say(opened, 3, new_label)
    say(opened, 5, same_label, by="Bob")
    take_back(opened, 7, say(opened, 7, other(opened, 7)))
    before = content(opened.root)
    applied = apply_corrections(opened, tmp_path / "new")
    assert content(opened.root) == before
    assert (applied.n_entries, applied.n_changed, applied.n_confirmed) == (4, 1, 1)
    assert applied.changes == ((opened.cells["label"].iloc[3], new_label, 1),)
    cells = applied.opened.cells
    expected = opened.cells["label"].copy()
    expected.iloc[3] = new_label
    pd.testing.assert_series_equal(cells["label"], expected)
    pd.testing.assert_frame_equal(cells.drop(columns="label"), opened.cells.drop(columns="label"))
    assert (applied.opened.crops == opened.crops).all()
    assert applied.opened.data_hash != opened.data_hash
    assert check_study(applied.opened).ok


def test_the_provenance_tells_what_was_changed_and_by_whom(opened: OpenStudy, tmp_path: Path) -> None:
    old, new = opened.cells["label"].iloc[3], other(opened, 3)
    say(opened, 3, new)
    applied = apply_corrections(opened, tmp_path / "new")
    log = opened.root / "corrections" / "log.jsonl"
    said = open_study(tmp_path / "new").study.provenance["corrections"][0]
    assert said["log_sha256"] == applied.log_sha256 == hashlib.sha256(log.read_bytes()).hexdigest()
    assert said["data_hash"] == opened.data_hash
    assert (said["n_entries"], said["n_changed"], said["n_confirmed"]) == (1, 1, 0)
    assert said["readers"] == {"Ann": 1}
    assert said["changes"] == [{"from": old, "to": new, "n_cells": 1}]
    assert applied.opened.study.name == "new"
    table = pd.read_csv(tmp_path / "new" / "corrections" / "applied.csv", dtype="string", keep_default_na=False)
    assert table[["cell_id", "from", "to", "by", "entry"]].to_numpy().tolist() == [
        [opened.cells["cell_id"].iloc[3], old, new, "Ann", "1"]
    ]


def test_only_entries_up_to_a_number_count_and_come_along(opened: OpenStudy, tmp_path: Path) -> None:
    say(opened, 3, other(opened, 3))
    say(opened, 4, other(opened, 4))
    applied = apply_corrections(opened, tmp_path / "new", until=1)
    assert applied.n_changed == 1
    log = CorrectionLog(tmp_path / "new")
    assert log.read() == CorrectionLog(opened.root).read()[:1]
    for until in (0, 3):
        with pytest.raises(DataError, match="has entries 1 to 2"):
            apply_corrections(opened, tmp_path / "newer", until=until)


def test_the_next_review_goes_on_from_the_new_study(opened: OpenStudy, tmp_path: Path) -> None:
    first = say(opened, 3, other(opened, 3))
    second = apply_corrections(opened, tmp_path / "second").opened
    labels, reviewed = present_labels(second.cells, CorrectionLog(second.root).read())
    pd.testing.assert_series_equal(labels, second.cells["label"])
    assert reviewed.sum() == 1
    say(second, 4, other(second, 4))
    take_back(second, 3, first)
    third = apply_corrections(second, tmp_path / "third")
    changed = third.opened.cells["label"] != opened.cells["label"]
    assert changed.to_numpy().nonzero()[0].tolist() == [4]
    assert third.n_changed == 2
    assert [said["n_changed"] for said in third.opened.study.provenance["corrections"]] == [1, 2]


def test_files_and_readings_come_along_but_no_cache(opened: OpenStudy, tmp_path: Path) -> None:
    for name in ("fields/f.png", "readings/r.json", "readings.csv", "cache/features.npy", ".crops.npy.x.part"):
        path = opened.root / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(name.encode())
    say(opened, 3, other(opened, 3))
    apply_corrections(opened, tmp_path / "new")
    assert set(content(tmp_path / "new")) == {
        "cells.parquet", "crops.npy", "study.yaml", "corrections/log.jsonl", "corrections/applied.csv", "fields/f.png",
        "readings/r.json", "readings.csv",
    }  # fmt: skip


def test_a_cell_without_a_label_gets_one_and_loses_it_again(tmp_path: Path) -> None:
    opened = make_study(tmp_path / "study", cells_per_subject=4)
    opened.cells.loc[2, "label"] = pd.NA
    click = say_of_none(opened, 2, "small")
    assert apply_corrections(opened, tmp_path / "a").changes == (("", "small", 1),)
    take_back(opened, 2, click)
    assert pd.isna(apply_corrections(opened, tmp_path / "b").opened.cells["label"].iloc[2])


def say_of_none(opened: OpenStudy, row: int, new: str) -> str:
    click = str(uuid.uuid4())
    entry = NewEntry(click, "label", opened.cells["cell_id"].iloc[row], None, new)
    CorrectionLog(opened.root).append([entry], by="Ann")
    return click


def test_a_class_that_the_study_does_not_have_is_refused(opened: OpenStudy, tmp_path: Path) -> None:
    say(opened, 3, "huge")
    with pytest.raises(DataError, match="'huge' is not a class of the study"):
        apply_corrections(opened, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_without_corrections_there_is_nothing_to_apply(opened: OpenStudy, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="There are no corrections"):
        apply_corrections(opened, tmp_path / "new")


@pytest.mark.parametrize("place", [lambda root: root, lambda root: root / "new", lambda root: root.parent])
def test_a_study_is_never_replaced_by_its_own_correction(opened: OpenStudy, place: Callable[[Path], Path]) -> None:
    say(opened, 3, other(opened, 3))
    before = content(opened.root)
    with pytest.raises(DataError, match="make a new study beside the old one"):
        apply_corrections(opened, place(opened.root), overwrite=True)
    assert content(opened.root) == before


def test_another_study_is_replaced_only_when_asked(opened: OpenStudy, tmp_path: Path) -> None:
    say(opened, 3, other(opened, 3))
    apply_corrections(opened, tmp_path / "new")
    with pytest.raises(DataError, match="exists already"):
        apply_corrections(opened, tmp_path / "new")
    say(opened, 4, other(opened, 4))
    assert apply_corrections(opened, tmp_path / "new", overwrite=True).n_changed == 2
