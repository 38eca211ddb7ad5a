"""From a run's files to cells: which networks are asked, means over them, and who is the reference."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tests.fake_run import FakeRun, make_fake_run

from perikarya.errors import DataError, RunError, UnknownNameError
from perikarya.evaluate.quantify.gather import AskedModel, Gathered, choose_model, gather_run
from perikarya.runs import RunFolder, write_json


@pytest.fixture(scope="module")
def two_seeds(tmp_path_factory: pytest.TempPathFactory) -> FakeRun:
    return make_fake_run(tmp_path_factory.mktemp("gather"), seeds=(0, 1), n_cells=300, n_external=120)


def gather(fake: FakeRun, cells: pd.DataFrame, asked: AskedModel) -> Gathered:
    return gather_run(fake.run, cells, fake.opened.study, tasks=fake.tasks, asked=asked)


def tables(fake: FakeRun, model: str, name: str) -> pd.DataFrame:
    paths = sorted((fake.run.root / "tasks" / model).glob(f"seed*/fold*/{name}.parquet"))
    return pd.concat([pd.read_parquet(p) for p in paths])


def test_each_cell_is_the_mean_of_the_networks_that_did_not_train_on_it(two_seeds: FakeRun) -> None:
    cells = two_seeds.opened.cells
    found = gather(two_seeds, cells, AskedModel("beta", ("beta",), (False,))).cells
    both = pd.concat([tables(two_seeds, "beta", "predictions"), tables(two_seeds, "beta", "external")])
    columns = [c for c in both if c.startswith("prob_")]
    n = both.groupby("cell_id").size()
    assert set(n[n.index.isin(cells.loc[cells["set"] == "development", "cell_id"])]) == {2}  # seeds
    assert set(n[n.index.isin(cells.loc[cells["set"] == "external", "cell_id"])]) == {10}  # seeds times folds
    expected = both.groupby("cell_id")[columns].mean().loc[cells["cell_id"]]
    np.testing.assert_allclose(found.prob_nk, expected, atol=1e-6)
    first = both.assign(**dict(zip(columns, np.eye(3)[both[columns].to_numpy().argmax(axis=1)].T, strict=True)))
    assert found.vote_nk is not None
    np.testing.assert_allclose(found.vote_nk, first.groupby("cell_id")[columns].mean().loc[cells["cell_id"]])


def test_only_labelled_development_cells_are_the_reference_and_unlabelled_cells_count(two_seeds: FakeRun) -> None:
    cells = two_seeds.opened.cells.copy()
    hidden = (cells["set"] == "external") | (cells.index % 3 == 0)
    cells.loc[hidden, "label"] = pd.NA
    found = gather(two_seeds, cells, AskedModel("beta", ("beta",), (False,)))
    assert len(found.cells.label_n) == len(cells)
    assert found.reference is not None
    assert found.reference.n_cells == int((~hidden).sum())
    assert set(found.reference.names) == set(cells.loc[~hidden, "subject"])
    assert set(found.set_of.values()) == {"development", "external"}


def test_all_models_together_are_averaged(two_seeds: FakeRun) -> None:
    cells = two_seeds.opened.cells
    asked = choose_model(two_seeds.run, two_seeds.tasks, "all models (ensemble)")
    assert asked.bases == ("alpha", "beta")
    joined, alpha, beta = (
        gather(two_seeds, cells, a).cells.prob_nk
        for a in (asked, AskedModel("alpha", ("alpha",), (False,)), AskedModel("beta", ("beta",), (False,)))
    )
    np.testing.assert_allclose(joined, (alpha + beta) / 2)


def test_the_leading_model_is_asked_and_its_ensemble_means_the_same(two_seeds: FakeRun, tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    shutil.copytree(two_seeds.run.root, run.root)
    with pytest.raises(RunError, match="several models and no results"):
        choose_model(run, two_seeds.tasks, None)
    write_json(run.results, {"ranking": [{"model": "beta (ensemble)"}, {"model": "alpha"}]})
    assert choose_model(run, two_seeds.tasks, None) == choose_model(run, two_seeds.tasks, "beta")
    write_json(run.results, {"ranking": []})
    with pytest.raises(RunError, match="ranks no model"):
        choose_model(run, two_seeds.tasks, None)
    only = [key for key in two_seeds.tasks if key.model == "alpha"]
    assert choose_model(run, only, None).name == "alpha"


def test_a_model_that_is_not_in_the_run_is_refused_with_those_that_are(two_seeds: FakeRun) -> None:
    with pytest.raises(
        UnknownNameError, match=r"no model of this run called 'bate'.*\n.*all models \(ensemble\), alpha"
    ):
        choose_model(two_seeds.run, two_seeds.tasks, "bate")
    with pytest.raises(UnknownNameError):  # a point of a learning curve stays out of the ensemble of all
        choose_model(two_seeds.run, two_seeds.tasks, "all models (ensemble)", alone={"beta"})


def test_views_are_asked_where_the_run_has_them(two_seeds: FakeRun, tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    shutil.copytree(two_seeds.run.root, run.root)
    with pytest.raises(UnknownNameError):
        choose_model(run, two_seeds.tasks, "beta (TTA)")
    for path in run.root.glob("tasks/beta/*/*/predictions.parquet"):
        for stem in ("predictions", "external"):
            other = str(path).replace("/beta/", "/alpha/")  # alpha's answers stand in for beta's views
            frame = pd.read_parquet(Path(other).with_name(f"{stem}.parquet")).assign(model="beta")
            write_predictions(frame, path.with_name(f"{stem}_tta.parquet"))
    fake = replace(two_seeds, run=run)
    cells = two_seeds.opened.cells
    asked = choose_model(run, fake.tasks, "beta (TTA, ensemble)")
    assert (asked.name, asked.tta) == ("beta (TTA)", (True,))
    alpha = gather(fake, cells, AskedModel("alpha", ("alpha",), (False,))).cells.prob_nk
    np.testing.assert_allclose(gather(fake, cells, asked).cells.prob_nk, alpha)


def write_predictions(frame: pd.DataFrame, path: Path) -> None:
    from perikarya.schema import write_table

    write_table(path, frame)


def test_cells_without_predictions_and_unfinished_trainings_are_told(tmp_path: Path) -> None:
    from perikarya.runs import TaskKey

    fake = make_fake_run(tmp_path, n_cells=200, n_external=0, models=("alpha",), skip=(TaskKey("alpha", 0, 3),))
    found = gather(fake, fake.opened.cells, AskedModel("alpha", ("alpha",), (False,)))
    n_missing = len(fake.opened.cells) - len(found.cells.label_n)
    assert n_missing > 0
    assert found.notes == (
        "1 of 5 trainings of alpha have not finished.",
        f"{n_missing} cell(s) of the study have no prediction and are not counted.",
    )
    assert json.dumps(found.source)


def test_a_run_of_another_study_or_without_results_is_refused(two_seeds: FakeRun, tmp_path: Path) -> None:
    asked = AskedModel("beta", ("beta",), (False,))
    with pytest.raises(DataError, match="are not in the study, such as cell0"):
        gather(two_seeds, two_seeds.opened.cells.iloc[50:].reset_index(drop=True), asked)
    with pytest.raises(RunError, match="No finished task of beta"):
        gather(replace(two_seeds, run=RunFolder(tmp_path)), two_seeds.opened.cells, asked)


def test_a_reference_cell_of_an_unknown_animal_is_drawn_by_its_image(two_seeds: FakeRun) -> None:
    cells = two_seeds.opened.cells.copy()
    unknown = (cells["set"] == "development") & (cells["subject"] == "sheep000")
    cells.loc[unknown, "subject"] = pd.NA
    found = gather(two_seeds, cells, AskedModel("beta", ("beta",), (False,)))
    assert found.reference is not None
    images = {f"image {name}" for name in cells.loc[unknown, "image_id"]}
    assert images <= set(found.reference.names)
