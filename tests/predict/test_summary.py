"""Counts per image, region, animal and group; agreement with classes a person gave; what could not be predicted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tests.predict.made import CLASSES, made_field, made_manifest

from perikarya.predict.outputs import finish, write_field
from perikarya.predict.outputs.cells import cells_table
from perikarya.predict.outputs.summary import Summary, agreement, summarise, write_problems, write_summary


@pytest.fixture
def tables(tmp_path: Path) -> list:
    """Three images of two animals; every image has a normal, a pyknotic, an unsure intermediate and a normal cell."""
    told = [
        {"subject": "s1", "group": "sham", "region": "CA1"},
        {"subject": "s1", "group": "sham", "region": "DG"},
        {"subject": "s2", "group": "ischemia", "region": "CA1"},
    ]
    return [cells_table(made_field(tmp_path, f"i{n}", words=words), CLASSES) for n, words in enumerate(told)]


def written(tmp_path: Path, tables: list) -> pd.DataFrame:
    write_summary(tmp_path / "summary.csv", summarise(tables, CLASSES))
    return pd.read_csv(tmp_path / "summary.csv", keep_default_na=False)


def test_every_scope_counts_every_cell_once(tmp_path: Path, tables: list) -> None:
    frame = written(tmp_path, tables)
    assert frame.groupby("scope", sort=False)["n_cells"].agg(["size", "sum"]).to_dict("index") == {
        "all": {"size": 1, "sum": 12},
        "group": {"size": 2, "sum": 12},
        "region": {"size": 2, "sum": 12},
        "animal": {"size": 2, "sum": 12},
        "animal and region": {"size": 3, "sum": 12},
        "image": {"size": 3, "sum": 12},
    }
    ca1 = frame[(frame["scope"] == "region") & (frame["region"] == "CA1")].iloc[0]
    assert (ca1["n_cells"], ca1["n_abstained"], ca1["n_normal"], ca1["n_pyknotic"]) == (8, 2, 4, 2)


def test_fractions_are_of_predicted_classes_and_means_of_probabilities(tmp_path: Path, tables: list) -> None:
    row = written(tmp_path, tables).iloc[0]
    assert [row[f"fraction_{c}"] for c in CLASSES] == [0.5, 0.25, 0.25]
    # 0.9 and 0.7 for normal; half of what 0.8 and 0.4 leave for the two other cells
    assert row["mean_prob_normal"] == pytest.approx((0.9 + 0.7 + 0.1 + 0.3) / 4)
    assert sum(row[f"mean_prob_{c}"] for c in CLASSES) == pytest.approx(1, abs=2e-4)


def test_rows_say_which_animal_group_and_region_they_are_of(tmp_path: Path, tables: list) -> None:
    frame = written(tmp_path, tables)
    of_animals = frame[frame["scope"] == "animal"][["group", "subject", "region", "image_id"]]
    assert of_animals.to_numpy().tolist() == [["ischemia", "s2", "", ""], ["sham", "s1", "", ""]]
    of_images = frame[frame["scope"] == "image"][["group", "subject", "region", "image_id"]]
    assert of_images.to_numpy().tolist()[0] == ["ischemia", "s2", "", "i2"]


def test_what_nobody_told_is_left_out_and_what_is_missing_of_some_has_an_empty_name(tmp_path: Path) -> None:
    bare = cells_table(made_field(tmp_path, "a"), CLASSES)
    assert written(tmp_path, [bare])["scope"].tolist() == ["all", "image"]
    named = cells_table(made_field(tmp_path, "b", words={"subject": "s1"}), CLASSES)
    frame = written(tmp_path, [bare, named])
    animals = frame[frame["scope"] == "animal"]
    assert animals[["subject", "n_cells"]].to_numpy().tolist() == [["", 4], ["s1", 4]]
    assert "animal and region" not in frame["scope"].tolist()


def test_agreement_counts_cells_with_a_class_of_the_model_only(tmp_path: Path) -> None:
    manifest = made_manifest()
    write_field(tmp_path, made_field(tmp_path), manifest, ())
    found = finish(tmp_path, ["f1"], manifest, ())
    assert found.summary.n_labelled == 2
    assert agreement(found.summary.confusion_kk) == 0.5
    frame = pd.read_csv(tmp_path / "confusion.csv", index_col=0)
    assert frame.columns.tolist() == ["as_normal", "as_intermediate", "as_pyknotic", "n_cells"]
    assert frame.loc["intermediate"].tolist() == [0, 0, 1, 1]
    assert frame.loc["normal"].tolist() == [1, 0, 0, 1]


def test_unsure_cells_are_in_the_matrix_of_all_cells_but_not_of_the_sure_ones(tmp_path: Path) -> None:
    cells = ((0, 0.9, False, "normal"), (1, 0.4, True, "normal"))
    summary = Summary(CLASSES)
    summary.add(cells_table(made_field(tmp_path, cells=cells), CLASSES))
    assert (agreement(summary.confusion_kk), agreement(summary.sure_kk)) == (0.5, 1.0)
    assert agreement(Summary(CLASSES).confusion_kk) is None


def test_a_confusion_of_an_earlier_call_does_not_stay(tmp_path: Path) -> None:
    manifest = made_manifest()
    write_field(tmp_path, made_field(tmp_path), manifest, ())
    finish(tmp_path, ["f1"], manifest, ())
    assert (tmp_path / "confusion.csv").is_file()
    write_field(tmp_path, made_field(tmp_path, label_n=np.full(4, None, dtype=object)), manifest, ())
    finish(tmp_path, ["f1"], manifest, ())
    assert not (tmp_path / "confusion.csv").exists()


def test_problems_are_a_table_also_when_there_are_none(tmp_path: Path) -> None:
    write_problems(tmp_path / "p.csv", [("a.png", "", 'the image, "a"'), ("b.png", "key1", "it is empty")])
    frame = pd.read_csv(tmp_path / "p.csv", keep_default_na=False)
    assert frame.to_numpy().tolist() == [["a.png", "", 'the image, "a"'], ["b.png", "key1", "it is empty"]]
    write_problems(tmp_path / "p.csv", [])
    assert (tmp_path / "p.csv").read_text() == "image,object,reason\n"
