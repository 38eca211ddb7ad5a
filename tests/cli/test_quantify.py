"""``perikarya quantify`` on a run and on tables: files, what is printed, what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
from tests.fake_run import CLASSES, FakeRun, make_fake_run

from perikarya.cli.quantifying import quantify_command
from perikarya.errors import ConfigError, DataError
from perikarya.runs import RunFolder, write_text


@pytest.fixture(scope="module")
def fake(tmp_path_factory: pytest.TempPathFactory) -> FakeRun:
    made = make_fake_run(tmp_path_factory.mktemp("quantify"), models=("alpha",), n_cells=600, n_external=200)
    quick = made.config.quantify.model_copy(update={"n_bootstrap": 200, "n_permutations": 200})
    write_text(made.run.config, made.config.model_copy(update={"quantify": quick}).dump())
    return made


@pytest.fixture(scope="module")
def table(fake: FakeRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The predictions of the fold that tests half a dozen animals, with their places, as a CSV."""
    paths = fake.run.root.glob("tasks/alpha/seed0/fold*/predictions.parquet")
    frame = pd.concat([pd.read_parquet(p) for p in paths]).drop(columns=["label", "set"])
    cells = fake.opened.cells[["cell_id", "subject", "region", "group", "image_id", "label"]]
    path = tmp_path_factory.mktemp("table") / "cells.csv"
    frame.merge(cells, on="cell_id").to_csv(path, index=False)
    return path


def test_a_run_gets_its_files_and_figures_and_a_table_on_the_screen(
    fake: FakeRun, capsys: pytest.CaptureFixture[str]
) -> None:
    quantify_command(fake.run.root)
    block = json.loads((fake.run.root / "damage.json").read_text())
    assert block["settings"]["correction"] == "probabilistic"
    assert block["settings"]["n_bootstrap"] == 200
    drawn = ("severity", "effects", "fractions", "correction", "power")
    for name in ("damage.csv", "damage_groups.csv", *(f"figures/{kind}.png" for kind in drawn)):
        assert (fake.run.root / name).stat().st_size > 0
    shown = capsys.readouterr().out
    sham = next(m for m in block["group_means"] if m["group"] == "sham" and m["region"] == "CA1")
    assert f"{sham['severity']['estimate']:.3f} ({sham['severity']['ci95'][0]:.3f} to" in shown
    effect = block["effects"]["comparisons"][0]["effects"][0]["difference"]["estimate"]
    assert "ischemia - sham" in shown
    assert f"{effect:.3f}" in shown
    assert all(f"Note: {note}" in shown for note in block["notes"])


def test_options_change_the_settings_of_the_run(fake: FakeRun, tmp_path: Path) -> None:
    quantify_command(
        fake.run.root, study=fake.opened.root, model="alpha", correction="none", control="ischemia", out=tmp_path / "x"
    )
    block = json.loads((tmp_path / "x" / "damage.json").read_text())
    assert (block["settings"]["correction"], block["control"]) == ("none", "ischemia")
    with pytest.raises(ConfigError, match=r"(?s)correction: Input should be 'none', 'adjusted'"):
        quantify_command(fake.run.root, correction="magic", out=tmp_path)


def test_a_table_is_counted_beside_itself(table: Path) -> None:
    quantify_command(table, correction="none")
    block = json.loads((table.parent / "cells_damage" / "damage.json").read_text())
    assert block["class_names"] == list(CLASSES)
    assert len(block["animals"]) == 12 * 4


def test_predictions_of_a_task_find_their_animals_in_the_study(fake: FakeRun, tmp_path: Path) -> None:
    path = fake.run.root / "tasks" / "alpha" / "seed0" / "fold0" / "external.parquet"
    with pytest.raises(DataError, match="lacks subject"):
        quantify_command(path, correction="none", out=tmp_path)
    quantify_command(path, study=fake.opened.root, correction="none", out=tmp_path)
    block = json.loads((tmp_path / "damage.json").read_text())
    assert block["groups"] == list(fake.opened.study.groups)
    assert {a["subject"] for a in block["animals"]} == set(
        fake.opened.cells.loc[fake.opened.cells["set"] == "external", "subject"]
    )


def test_an_unlabelled_table_is_corrected_by_a_reference(table: Path, tmp_path: Path) -> None:
    frame = pd.read_csv(table)
    bare = tmp_path / "bare.csv"
    frame.drop(columns="label").to_csv(bare, index=False)
    with pytest.raises(DataError, match="--reference TABLE"):
        quantify_command(bare)
    quantify_command(bare, reference=table, correction="adjusted", out=tmp_path / "out")
    block = json.loads((tmp_path / "out" / "damage.json").read_text())
    assert block["correction"]["reference"]["n_cells"] == len(frame)
    assert all(a["labelled"] is None for a in block["animals"])


def test_an_unlabelled_table_is_corrected_by_the_run_of_its_model(fake: FakeRun, table: Path, tmp_path: Path) -> None:
    new = tmp_path / "new.csv"
    pd.read_csv(table).drop(columns="label").to_csv(new, index=False)
    quantify_command(new, reference=fake.run.root, model="alpha", out=tmp_path / "new")
    quantify_command(fake.run.root, out=tmp_path / "run")
    by_run, whole = (json.loads((tmp_path / name / "damage.json").read_text()) for name in ("new", "run"))
    assert by_run["correction"]["reference"] == whole["correction"]["reference"]
    assert by_run["correction"]["reference"]["n_cells"] == 600
    assert by_run["regions"] == whole["regions"]


def test_a_run_that_tested_no_development_cell_is_a_reference_by_its_external_ones(
    fake: FakeRun, table: Path, tmp_path: Path
) -> None:
    run = RunFolder(tmp_path / "single")
    shutil.copytree(fake.run.root, run.root)
    for path in run.root.glob("tasks/*/*/*/predictions*.parquet"):
        path.unlink()
    quantify_command(table, reference=run.root, model="alpha", out=tmp_path / "out")
    block = json.loads((tmp_path / "out" / "damage.json").read_text())
    assert block["correction"]["reference"]["n_cells"] == 200


@pytest.fixture
def prediction(table: Path, tmp_path: Path) -> Path:
    """The folder of a prediction in three shards, of cells nobody has labelled."""
    frame = pd.read_csv(table).drop(columns=["label", "model", "seed", "fold"], errors="ignore")
    (tmp_path / "predicted" / "parts").mkdir(parents=True)
    for i in range(3):
        path = tmp_path / "predicted" / "parts" / f"part-0000{i}-of-00003.parquet"
        frame.iloc[i::3].to_parquet(path, index=False)
    write_text(tmp_path / "predicted" / "shards.json", json.dumps({"shards": [{}, {}, {}]}))
    return tmp_path / "predicted"


def test_a_prediction_in_shards_is_corrected_by_the_run_of_its_model_as_one_table_is(
    fake: FakeRun, prediction: Path, tmp_path: Path
) -> None:
    quantify_command(prediction, reference=fake.run.root, model="alpha")
    by_parts = json.loads((prediction / "cells_damage" / "damage.json").read_text())
    whole = pd.concat([pd.read_parquet(path) for path in sorted((prediction / "parts").iterdir())])
    whole.to_parquet(tmp_path / "whole.parquet", index=False)
    quantify_command(tmp_path / "whole.parquet", reference=fake.run.root, model="alpha")
    by_table = json.loads((tmp_path / "whole_damage" / "damage.json").read_text())
    del by_parts["provenance"], by_table["provenance"]
    assert by_parts == by_table
    assert by_parts["correction"]["reference"]["n_cells"] == 600
    assert all(a["labelled"] is None for a in by_parts["animals"])


def test_animals_of_a_prediction_in_shards_are_looked_up_in_a_study(
    fake: FakeRun, prediction: Path, tmp_path: Path
) -> None:
    for path in (prediction / "parts").iterdir():
        pd.read_parquet(path).drop(columns=["subject", "region", "group", "image_id"]).to_parquet(path, index=False)
    with pytest.raises(DataError, match="lacks subject"):
        quantify_command(prediction, correction="none", out=tmp_path)
    quantify_command(prediction, study=fake.opened.root, correction="none", out=tmp_path)
    block = json.loads((tmp_path / "damage.json").read_text())
    assert len(block["animals"]) == 12 * 4


def test_a_prediction_that_is_not_finished_is_refused_with_what_to_type(prediction: Path) -> None:
    next((prediction / "parts").glob("part-00001-*")).unlink()
    with pytest.raises(DataError, match=r"2 of 3 parts are there[\s\S]*predict … --out .*predicted --shards 3"):
        quantify_command(prediction, correction="none")


def test_a_folder_that_holds_nothing_to_count_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds neither a run"):
        quantify_command(tmp_path)


def test_options_that_do_not_belong_are_refused(fake: FakeRun, table: Path) -> None:
    with pytest.raises(ConfigError, match="--model is for run folders"):
        quantify_command(table, model="alpha")
    with pytest.raises(ConfigError, match="--reference is for tables"):
        quantify_command(RunFolder(fake.run.root).root, reference=table)


def test_a_source_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nothing\.csv does not exist; it should be a run folder or a table"):
        quantify_command(tmp_path / "nothing.csv")
    assert not list(tmp_path.iterdir())
