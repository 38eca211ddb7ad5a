"""Tables of predictions: read, checked, completed from a study; their reference."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from tests.evaluate.quantify.whole_tables import cells_of_table, read_predictions
from tests.evaluate.quantify.worlds import CLASS_NAMES, bayes

from perikarya.errors import DataError
from perikarya.evaluate.quantify import parts
from perikarya.evaluate.quantify.survey import Survey
from perikarya.evaluate.quantify.tables import (
    PlacedTable,
    TableCells,
    TableInMemory,
    class_names_of,
    gather_tables,
    open_predictions,
)
from perikarya.schema import NO_LABEL


def some_table(n: int = 120, *, labelled: bool = True, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    label_n = rng.choice(3, n)
    prob = bayes(label_n, rng, prior=[0.4, 0.4, 0.2])
    frame = pd.DataFrame(prob, columns=[f"prob_{name}" for name in CLASS_NAMES])
    frame.insert(0, "cell_id", [f"cell{i}" for i in range(n)])
    frame["subject"] = [f"a{i % 6}" for i in range(n)]
    frame["region"] = np.where(np.arange(n) % 4 < 2, "CA1", "DG")
    frame["group"] = np.where(np.arange(n) % 6 < 3, "sham", "injured")
    frame["label"] = np.asarray(CLASS_NAMES)[label_n] if labelled else None
    return frame


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_both_kinds_of_file_give_the_same_cells(suffix: str, tmp_path: Path) -> None:
    frame, path = some_table(), tmp_path / f"table{suffix}"
    frame.to_csv(path, index=False) if suffix == ".csv" else frame.to_parquet(path)
    read = read_predictions(path)
    assert class_names_of(read, where="it") == CLASS_NAMES
    cells = cells_of_table(read, CLASS_NAMES, where="it")
    np.testing.assert_allclose(cells.prob_nk, frame.filter(like="prob_"))
    assert cells.subject_n.tolist() == frame["subject"].tolist()
    assert cells.group_n is not None
    assert cells.group_n.tolist() == frame["group"].tolist()
    assert [CLASS_NAMES[k] for k in cells.label_n] == frame["label"].tolist()


def test_names_of_digits_stay_text(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    some_table().assign(subject="007", group="1").to_csv(path, index=False)
    cells = cells_of_table(read_predictions(path), CLASS_NAMES, where="it")
    assert cells.group_n is not None
    assert (cells.subject_n[0], cells.group_n[0]) == ("007", "1")


def test_what_is_not_there_is_unknown_and_each_cell_is_an_image_of_its_own() -> None:
    frame = some_table().drop(columns=["region", "group", "label", "cell_id"])
    cells = cells_of_table(frame, CLASS_NAMES, where="it")
    assert cells.region_n is None
    assert cells.group_n is None
    assert (cells.label_n == NO_LABEL).all()
    images = frame.assign(image_id=["x"] * 60 + [None] * 60)
    for table, n_images in ((frame, 120), (images, 61)):
        survey = Survey()
        survey.add(cells_of_table(table.assign(subject="a"), CLASS_NAMES, where="it"))
        assert survey.scopes["a", "all"].n_images == n_images


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda f: f.drop(columns="subject"), r"it lacks subject\..*\n?.*--study to look the rest up"),
        (lambda f: f.drop(columns="prob_pyknotic"), "it lacks prob_pyknotic"),
        (lambda f: f.iloc[:0], "it lacks rows"),
        (lambda f: f.assign(cell_id="x"), "holds cell x twice"),
        (lambda f: f.assign(prob_normal=2.0), r"row 1: prob_normal, .* are not probabilities .*\(120 such"),
        (lambda f: f.assign(prob_normal=-f["prob_normal"]), "are not probabilities"),
        (lambda f: f.assign(prob_normal=np.nan), "are not probabilities"),
        (lambda f: f.assign(prob_normal="high"), "are not probabilities"),
        (lambda f: f.assign(label="dead"), "Label 'dead' is not a class"),
    ],
)
def test_a_table_that_does_not_fit_is_refused(change: Any, sentence: str) -> None:
    with pytest.raises(DataError, match=f"(?s){sentence}"):
        cells_of_table(change(some_table()), CLASS_NAMES, where="it")


def test_files_that_are_no_tables_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        read_predictions(tmp_path / "none.csv")
    with pytest.raises(DataError, match=r"neither \.parquet nor \.csv"):
        read_predictions(tmp_path / "cells.xlsx")
    for name in ("broken.parquet", "broken.csv"):
        (tmp_path / name).write_bytes(b"")
        with pytest.raises(DataError, match="cannot be read"):
            read_predictions(tmp_path / name)
    with pytest.raises(DataError, match=r"it has 1 column\(s\) called 'prob_<class>'"):
        class_names_of(pd.DataFrame({"prob_x": [1.0]}), where="it")


def test_places_come_from_the_study_cell_by_cell() -> None:
    frame = some_table()
    study = frame[["cell_id", "subject", "region", "group", "label"]].assign(image_id="i").iloc[::-1]
    bare = frame[["cell_id", *[c for c in frame if c.startswith("prob_")]]]
    placed = PlacedTable(TableInMemory(bare, "it"), study.reset_index(drop=True))
    ((_, _, found),) = placed.frames(["label", "subject", "region"])
    pd.testing.assert_frame_equal(found, frame[["label", "subject", "region"]])
    with pytest.raises(DataError, match=r"it: 2 cell\(s\) are not in the study, such as cell3"):
        list(
            PlacedTable(TableInMemory(bare, "it"), study[~study["cell_id"].isin(["cell3", "cell9"])]).frames(["label"])
        )
    with pytest.raises(DataError, match="it has no column 'cell_id'"):
        PlacedTable(TableInMemory(bare.drop(columns="cell_id"), "it"), study)


def test_labelled_rows_are_the_reference_unless_a_table_is_named() -> None:
    half = some_table()
    half.loc[half.index >= 60, "label"] = None
    own = gather_tables(TableInMemory(half), CLASS_NAMES)
    assert own.reference is not None
    assert own.reference.n_cells == 60
    assert own.others is None
    named = gather_tables(TableInMemory(half), CLASS_NAMES, TableInMemory(some_table(90, seed=1)))
    assert named.reference is not None
    assert named.reference.n_cells == 90
    assert named.others is not None
    assert named.others.n_cells == 60
    assert gather_tables(TableInMemory(some_table(labelled=False)), CLASS_NAMES).reference is None


def test_rows_are_counted_over_all_pieces_of_a_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "ROWS_AT_ONCE", 25)
    frame = some_table()
    frame.loc[[60, 110], "prob_normal"] += 0.5
    frame.to_parquet(tmp_path / "cells.parquet")
    cells = gather_cells(tmp_path / "cells.parquet")
    with pytest.raises(DataError, match=r"cells\.parquet, row 61: .* sum to 1 \(2 such row"):
        list(cells.chunks())


def gather_cells(path: Path) -> Any:
    return TableCells(open_predictions(path), CLASS_NAMES)
