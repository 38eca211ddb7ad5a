from __future__ import annotations

import base64
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from tests.fake_run import CLASSES, FakeRun, make_fake_run
from tests.review.log_entries import Said

from perikarya.config import load_config
from perikarya.data.store import save_tables
from perikarya.errors import ConfigError, DataError, RunError
from perikarya.review.cells import ReviewTable, open_review
from perikarya.review.schemas import Query
from perikarya.runs import TaskKey, write_text

MODEL_KEYS = ("predicted", "confidence", "entropy", "disagrees", "abstained", "label_doubt", "flagged")


@pytest.fixture(scope="module")
def fake(tmp_path_factory: pytest.TempPathFactory) -> FakeRun:
    made = make_fake_run(tmp_path_factory.mktemp("review"), n_cells=120, n_external=40, seeds=(0, 1), n_folds=3)
    cells = made.opened.cells.copy()
    cells.loc[cells.index[:7], "label"] = None
    cells.loc[cells.index[3:9], "region"] = None
    cells["area_px"] = np.arange(len(cells)) % 50 + 10
    save_tables(made.opened.root, made.opened.study, cells)
    return made


@pytest.fixture
def table(fake: FakeRun) -> ReviewTable:
    return open_review(fake.run.root, reader="ann")


@pytest.fixture
def alone(fake: FakeRun) -> ReviewTable:
    return open_review(fake.opened.root, reader="ann")


def rows_of(table: ReviewTable, **question: Any) -> list[int]:
    answer = table.query(Query.model_validate(question))
    rows = np.frombuffer(base64.b64decode(answer["rows_b64"]), "<u4")
    assert len(rows) == answer["n"]
    return [int(row) for row in rows]


def frame_of(table: ReviewTable) -> pd.DataFrame:
    return table.opened.cells


def held_out(fake: FakeRun, model: str) -> dict[str, NDArray[np.float64]]:
    """Average the predictions of a model over its networks, cell by cell, from the files."""
    paths = [
        p for n in ("predictions", "external") for p in sorted((fake.run.root / "tasks" / model).rglob(f"{n}.parquet"))
    ]
    frame = pd.concat([pd.read_parquet(p) for p in paths])
    columns = [f"prob_{name}" for name in CLASSES]
    return {str(name): row.to_numpy() for name, row in frame.groupby("cell_id")[columns].mean().iterrows()}


def test_a_study_alone_has_no_models_and_no_columns_of_models(alone: ReviewTable) -> None:
    info = alone.info()
    assert info["models"] == []
    assert info["table_model"] is None
    assert info["source"] == "study study"
    assert not {column["key"] for column in info["columns"]} & set(MODEL_KEYS)
    cell = alone.cells([5])[0]
    assert [cell[key] for key in ("predicted", "confidence", "abstained", "prob")] == [None] * 4
    assert alone.probabilities(5) == []
    assert alone.run is None


def test_the_information_is_what_the_page_is_promised(table: ReviewTable, fake: FakeRun) -> None:
    info = table.info()
    json.dumps(info, allow_nan=False)
    assert info["source"] == "run run"
    assert info["class_names"] == list(CLASSES)
    assert len(info["class_colours"]) == len(CLASSES)
    assert info["n_cells"] == 160
    assert info["data_hash"] == table.opened.data_hash
    assert [model["name"] for model in info["models"]] == ["all models (ensemble)", "alpha", "beta"]
    assert info["table_model"] == "all models (ensemble)"
    assert info["revision"] == 0
    keys = [column["key"] for column in info["columns"]]
    assert len(set(keys)) == len(keys)
    assert {"label", "imported_label", "predicted", "predicted:alpha", "confidence:beta", "disagrees", "entropy"} <= {
        *keys
    }
    assert {"subject", "region", "group", "set", "image_id", "cluster", "reviewed", "corrected", "queue"} <= {*keys}


def test_a_models_probabilities_are_the_mean_over_networks_that_were_not_trained_on_the_cell(
    table: ReviewTable, fake: FakeRun
) -> None:
    wanted = held_out(fake, "beta")
    for row in (0, 20, 119, 120, 159):
        said = {entry["model"]: entry for entry in table.probabilities(row)}["beta"]
        np.testing.assert_allclose(said["prob"], wanted[table.cells([row])[0]["cell_id"]], atol=1e-6)
        assert said["n_networks"] == (2 if row < 120 else 6)  # two seeds; of the external set, all folds of both
        assert said["held_out"] is True


def test_the_table_shows_all_models_together_each_counting_alike(table: ReviewTable, fake: FakeRun) -> None:
    cell = table.cells([33])[0]
    mean = (held_out(fake, "alpha")[cell["cell_id"]] + held_out(fake, "beta")[cell["cell_id"]]) / 2
    np.testing.assert_allclose(cell["prob"], mean, atol=1e-6)
    assert cell["predicted"] == int(mean.argmax())
    assert cell["confidence"] == pytest.approx(mean.max(), abs=1e-6)
    assert table.probabilities(33)[0]["model"] == "all models (ensemble)"


def test_cells_are_described_in_the_order_they_are_asked_for(table: ReviewTable) -> None:
    cells = table.cells([9, 4, 4])
    assert [cell["row"] for cell in cells] == [9, 4, 4]
    expected = frame_of(table).iloc[4]
    assert cells[1]["cell_id"] == expected["cell_id"]
    assert cells[1]["subject"] == expected["subject"]
    assert cells[1]["region"] is None
    assert cells[1]["label"] == cells[1]["imported_label"] == -1
    assert cells[1]["set"] == "development"
    assert cells[0]["label"] == CLASSES.index(frame_of(table)["label"].iloc[9])
    json.dumps(cells, allow_nan=False)


@pytest.mark.parametrize("rows", [[-1], [160], [0, 10**30], [-(2**70)]])
def test_rows_outside_the_table_are_refused(table: ReviewTable, rows: list[int]) -> None:
    with pytest.raises(ConfigError, match="160 cells"):
        table.cells(rows)
    with pytest.raises(ConfigError, match="160 cells"):
        table.query(Query(within=rows))


def test_a_filter_by_class_keeps_its_cells_and_counts_them(table: ReviewTable) -> None:
    labels = frame_of(table)["label"]
    rows = rows_of(table, filters=[{"column": "label", "values": ["pyknotic", ""]}])
    assert rows == np.flatnonzero((labels == "pyknotic").fillna(False) | labels.isna()).tolist()
    answer = table.query(Query.model_validate({"filters": [{"column": "label", "values": ["pyknotic", ""]}]}))
    assert answer["counts"] == [0, 0, int((labels == "pyknotic").sum()), 7]


def test_filters_must_all_hold(table: ReviewTable) -> None:
    cells = frame_of(table)
    rows = rows_of(
        table,
        filters=[
            {"column": "region", "values": ["CA1", "DG"]},
            {"column": "set", "values": ["external"]},
            {"column": "area_px", "min": 20, "max": 40},
        ],
    )
    keep = cells["region"].isin(["CA1", "DG"]) & (cells["set"] == "external") & cells["area_px"].between(20, 40)
    assert rows == np.flatnonzero(keep.fillna(False)).tolist()
    assert rows


def test_a_bound_that_is_a_cells_own_number_keeps_the_cell(table: ReviewTable) -> None:
    confidence = table.cells([17])[0]["confidence"]
    assert 17 in rows_of(table, filters=[{"column": "confidence", "min": confidence, "max": None}])
    assert 17 in rows_of(table, filters=[{"column": "confidence", "min": None, "max": confidence}])
    rounded = float(f"{confidence:.6g}")
    assert 17 in rows_of(table, filters=[{"column": "confidence", "min": rounded - 1e-6, "max": rounded + 1e-6}])


def test_disagreement_is_between_the_present_label_and_the_model(table: ReviewTable) -> None:
    rows = set(rows_of(table, filters=[{"column": "disagrees", "values": ["yes"]}]))
    cells = table.cells(range(160))
    assert rows == {c["row"] for c in cells if c["label"] != -1 and c["predicted"] != c["label"]}
    cell = cells[min(rows)]
    name = CLASSES[cell["predicted"]]
    table.take_in([Said().label(cell["cell_id"], CLASSES[cell["label"]], name)])
    assert cell["row"] not in rows_of(table, filters=[{"column": "disagrees", "values": ["yes"]}])


def test_sorting_goes_by_the_first_key_first_and_equal_rows_keep_their_order(table: ReviewTable) -> None:
    sort = [{"column": "group"}, {"column": "area_px", "descending": True}]
    cells = frame_of(table).reset_index()
    wanted = cells.sort_values(["group", "area_px", "index"], ascending=[True, False, True])
    assert rows_of(table, sort=sort) == wanted["index"].tolist()


@pytest.mark.parametrize("descending", [False, True])
def test_cells_without_a_value_come_last_whichever_way_one_sorts(table: ReviewTable, descending: bool) -> None:
    rows = rows_of(table, sort=[{"column": "region", "descending": descending}])
    assert rows[-6:] == [3, 4, 5, 6, 7, 8]
    regions = [str(name) for name in frame_of(table)["region"].iloc[rows[:-6]]]
    assert regions == sorted(regions, reverse=descending)


@pytest.mark.parametrize("text", ["SHEEP10", "sheep10", "  sheep10 "])
def test_text_finds_names_whatever_their_case(table: ReviewTable, text: str) -> None:
    found = rows_of(table, text=text)
    assert found == np.flatnonzero(frame_of(table)["subject"].str.contains("sheep10")).tolist()
    assert found


def test_text_finds_one_cell_and_one_image(table: ReviewTable) -> None:
    assert rows_of(table, text="cell00042") == [42]
    image = frame_of(table)["image_id"].iloc[42]
    assert rows_of(table, text=image) == np.flatnonzero(frame_of(table)["image_id"] == image).tolist()


@pytest.mark.parametrize(
    "text", [".*", "[", "\\", "%", "'; DROP TABLE cells; --", "<script>", "\x00", "ẞ", "‮", "{0}", "a" * 200]
)
def test_any_text_is_only_text(table: ReviewTable, text: str) -> None:
    assert rows_of(table, text=text) == []
    assert rows_of(table, filters=[{"column": "label", "values": [text]}]) == []
    with pytest.raises(ConfigError, match="no column"):
        table.query(Query.model_validate({"filters": [{"column": text, "values": []}]}))


def test_an_unknown_column_gets_a_sentence_with_the_known_ones(table: ReviewTable) -> None:
    with pytest.raises(ConfigError, match=r"Did you mean 'region'"):
        table.query(Query.model_validate({"sort": [{"column": "regoin"}]}))
    with pytest.raises(ConfigError, match="no column called 'nothing'"):
        table.column("nothing")


def test_a_filter_of_the_wrong_kind_gets_a_sentence(table: ReviewTable) -> None:
    with pytest.raises(ConfigError, match="is a number"):
        table.query(Query.model_validate({"filters": [{"column": "area_px", "values": ["10"]}]}))
    with pytest.raises(ConfigError, match="is a category"):
        table.query(Query.model_validate({"filters": [{"column": "label", "min": 0, "max": 1}]}))


def test_within_keeps_to_a_selection(table: ReviewTable) -> None:
    assert rows_of(table, within=[7, 3, 3, 159]) == [3, 7, 159]
    assert rows_of(table, within=[]) == []
    assert rows_of(table, within=[7, 3], sort=[{"column": "area_px", "descending": True}]) == [7, 3]


def test_a_correction_changes_label_counts_and_progress_and_an_undo_brings_all_back(alone: ReviewTable) -> None:
    said = Said()
    cell = alone.cells([50])[0]
    old = CLASSES[cell["label"]]
    new = next(name for name in CLASSES if name != old)
    before = alone.progress()
    change = said.label(cell["cell_id"], old, new)
    alone.take_in([change])
    now = alone.cells([50])[0]
    assert (now["label"], now["imported_label"], now["reviewed"]) == (CLASSES.index(new), CLASSES.index(old), True)
    assert rows_of(alone, filters=[{"column": "corrected", "values": ["yes"]}]) == [50]
    assert rows_of(alone, filters=[{"column": "reviewed", "values": ["yes"]}]) == [50]
    assert 50 not in rows_of(alone, filters=[{"column": "label", "values": [old]}])
    assert alone.progress()["n_reviewed"] == 1
    assert alone.progress()["revision"] == 1
    assert sum(alone.progress()["counts"]) == 160
    assert alone.progress()["counts"] != before["counts"]
    alone.take_in([said.undo(change)])
    assert alone.cells([50])[0] == cell
    assert alone.progress() == before | {"revision": 2}


def test_confirming_counts_as_reviewed_but_not_as_corrected_and_a_skip_as_neither(alone: ReviewTable) -> None:
    said = Said()
    ids = frame_of(alone)["cell_id"]
    label = frame_of(alone)["label"].iloc[60]
    alone.take_in([said.label(ids.iloc[60], label, label), said.skip(ids.iloc[61])])
    assert rows_of(alone, filters=[{"column": "reviewed", "values": ["yes"]}]) == [60]
    assert rows_of(alone, filters=[{"column": "corrected", "values": ["yes"]}]) == []


def test_entries_that_come_twice_count_once_and_later_ones_win(alone: ReviewTable) -> None:
    said = Said()
    name = frame_of(alone)["cell_id"].iloc[2]
    first, second = said.label(name, None, "normal"), said.label(name, "normal", "pyknotic")
    alone.take_in([first])
    alone.take_in([first, second])
    alone.take_in([first])
    assert alone.cells([2])[0]["label"] == CLASSES.index("pyknotic")
    assert [entry["seq"] for entry in alone.detail(2)["history"]] == [1, 2]
    assert alone.detail(2)["history"][0]["row"] == 2
    assert alone.history(name) == (first, second)
    assert alone.progress()["n_reviewed"] == 1


def test_a_person_may_say_that_a_cell_is_of_no_class(alone: ReviewTable) -> None:
    name = frame_of(alone)["cell_id"].iloc[50]
    alone.take_in([Said().label(name, frame_of(alone)["label"].iloc[50], None)])
    cell = alone.cells([50])[0]
    assert (cell["label"], cell["reviewed"]) == (-1, True)
    assert 50 in rows_of(alone, filters=[{"column": "label", "values": [""]}])
    assert alone.codes[50] == -1


def test_one_cells_correction_leaves_others_alone(alone: ReviewTable) -> None:
    said = Said()
    ids = frame_of(alone)["cell_id"]
    alone.take_in([said.label(ids.iloc[0], None, "pyknotic")])
    alone.take_in([said.label(ids.iloc[1], None, "normal")])
    assert [cell["label"] for cell in alone.cells([0, 1, 2])] == [2, 0, -1]


def test_blind_leaves_out_everything_a_model_says(fake: FakeRun) -> None:
    issues = fake.run.root / "label_issues.csv"
    write_text(issues, "cell_id,flagged,label,self_confidence\ncell00020,yes,normal,0.01\n")
    blind = open_review(fake.run.root, reader="ann", blind=True)
    issues.unlink()
    said = json.dumps([blind.info(), blind.cells(range(160)), blind.detail(20)])
    assert not [word for word in ("alpha", "beta", "ensemble") if word in said]
    keys = {column["key"] for column in blind.info()["columns"]}
    assert not keys & set(MODEL_KEYS)
    assert blind.info()["blind"] is True
    assert blind.info()["models"] == []
    assert {cell["predicted"] for cell in blind.cells(range(160))} == {None}
    assert (blind.run, blind.config) == (None, None)
    alone = open_review(fake.opened.root, reader="ann")
    queue = {"sort": [{"column": "queue"}]}
    assert rows_of(blind, **queue) == rows_of(alone, **queue)  # an order that no model has a part in


def test_cells_below_the_threshold_of_the_run_are_abstained_from(fake: FakeRun, tmp_path: Path) -> None:
    made = make_fake_run(tmp_path, n_cells=60, n_external=0, models=("alpha",), n_folds=3)
    config = load_config(made.run.config)
    settings = config.evaluate.model_copy(update={"threshold": 0.6})
    write_text(made.run.config, config.model_copy(update={"evaluate": settings}).dump())
    table = open_review(made.run.root, reader="ann")
    rows = rows_of(table, filters=[{"column": "abstained", "values": ["yes"]}])
    cells = table.cells(range(60))
    assert rows == [cell["row"] for cell in cells if cell["confidence"] < 0.6]
    assert 0 < len(rows) < 60
    assert rows == [cell["row"] for cell in cells if cell["abstained"]]


def test_a_single_model_stands_in_the_table_itself(tmp_path: Path) -> None:
    made = make_fake_run(tmp_path, n_cells=60, n_external=0, models=("alpha",), n_folds=3)
    info = open_review(made.run.root, reader="ann").info()
    assert [model["name"] for model in info["models"]] == ["alpha"]
    assert info["table_model"] == "alpha"
    assert not [column for column in info["columns"] if ":" in column["key"]]
    assert "abstained" not in {column["key"] for column in info["columns"]}  # the run has no threshold


def test_area_is_given_in_the_scale_of_the_cells_own_image(alone: ReviewTable, fake: FakeRun, tmp_path: Path) -> None:
    area = int(frame_of(alone)["area_px"].iloc[4])
    assert alone.detail(4)["area_um2"] == pytest.approx(area * 0.25)
    cells = frame_of(alone).copy()
    cells.loc[cells.index[4], "um_per_px"] = 2.0
    root = tmp_path / "scaled"
    root.mkdir()
    save_tables(root, fake.opened.study.model_copy(update={"um_per_px": None}), cells)
    (root / "crops.npy").symlink_to(fake.opened.root / "crops.npy")
    scaled = open_review(root, reader="ann")
    assert scaled.detail(4)["area_um2"] == pytest.approx(area * 4)
    assert scaled.detail(5)["area_um2"] is None


def test_a_columns_values_can_be_read_as_the_page_reads_them(table: ReviewTable) -> None:
    codes = np.frombuffer(base64.b64decode(table.column("region")["values_b64"]), "<i4")
    values = next(c["values"] for c in table.info()["columns"] if c["key"] == "region")
    read = [None if code < 0 else values[code] for code in codes]
    assert read == [None if pd.isna(name) else name for name in frame_of(table)["region"]]
    area = np.frombuffer(base64.b64decode(table.column("area_px")["values_b64"]), "<f4")
    assert area.tolist() == frame_of(table)["area_px"].tolist()


def test_the_row_of_a_cell_is_found_by_its_identity(alone: ReviewTable) -> None:
    assert alone.row_of("cell00123") == 123
    with pytest.raises(DataError, match="has no cell 'nobody'"):
        alone.row_of("nobody")


def test_a_run_can_be_looked_at_with_its_study_after_labels_were_corrected(fake: FakeRun, tmp_path: Path) -> None:
    corrected = tmp_path / "corrected"
    corrected.mkdir()
    cells = fake.opened.cells.copy()
    cells["label"] = "pyknotic"
    save_tables(corrected, fake.opened.study, cells)
    (corrected / "crops.npy").symlink_to(fake.opened.root / "crops.npy")
    table = open_review(fake.run.root, study=corrected, reader="ann")
    assert {cell["label"] for cell in table.cells(range(160))} == {2}
    assert table.probabilities(20) == open_review(fake.run.root, reader="ann").probabilities(20)


def test_a_study_of_other_cells_is_refused(fake: FakeRun, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    cells = fake.opened.cells.assign(cell_id=[f"other{i}" for i in range(160)])
    save_tables(other, fake.opened.study, cells)
    (other / "crops.npy").symlink_to(fake.opened.root / "crops.npy")
    with pytest.raises(DataError, match="None of the cells"):
        open_review(fake.run.root, study=other, reader="ann")


def test_what_cannot_be_opened_is_refused_with_a_way_out(fake: FakeRun, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="leave out --study"):
        open_review(fake.opened.root, study=fake.opened.root, reader="ann")
    with pytest.raises(DataError, match="does not exist"):
        open_review(tmp_path / "nothing", reader="ann")
    with pytest.raises(RunError, match="not a run folder"):
        open_review(tmp_path, reader="ann")
    with pytest.raises(DataError, match="There is no study at"):
        open_review(fake.run.root, study=tmp_path / "nothing", reader="ann")


def test_a_run_without_a_finished_task_says_so(tmp_path: Path) -> None:
    every = [TaskKey(m, 0, f) for m in ("alpha", "beta") for f in range(3)]
    made = make_fake_run(tmp_path, n_cells=40, n_external=0, n_folds=3, skip=every)
    with pytest.raises(RunError, match=r"No task .* has finished"):
        open_review(made.run.root, reader="ann")


def test_words_that_are_unknown_or_too_many_are_no_columns(
    fake: FakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("perikarya.review.names.MAX_VALUES", 5)
    keys = {column["key"] for column in open_review(fake.opened.root, reader="ann").info()["columns"]}
    assert "image_id" not in keys
    assert {"group", "region"} <= keys


def test_opening_loads_no_torch(fake: FakeRun) -> None:
    code = (
        "import sys; from pathlib import Path; from perikarya.review.cells import open_review; "
        f"open_review(Path({str(fake.run.root)!r}), reader='x').info(); "
        "print([name for name in ('torch', 'sklearn', 'timm', 'matplotlib') if name in sys.modules])"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"
