"""Joining and averaging predictions of several networks."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tests.fake_run import FakeRun

from perikarya.errors import DataError, RunError
from perikarya.evaluate.outputs import (
    Scored,
    TaskOutput,
    average,
    has_views,
    load_history,
    load_outputs,
    load_result,
    model_scores,
    pool,
)
from perikarya.runs import RunFolder, TaskKey
from perikarya.schema import Predictions, read_table, write_table

A = Scored(np.array([4, 2]), np.array([0, 1]), np.array([[0.9, 0.1], [0.4, 0.6]]))
B = Scored(np.array([2, 4]), np.array([1, 0]), np.array([[0.2, 0.8], [0.7, 0.3]]))


def test_networks_are_averaged_cell_by_cell_whatever_their_order() -> None:
    mean = average([A, B])
    assert mean.row_n.tolist() == [2, 4]
    assert mean.label_n.tolist() == [1, 0]
    np.testing.assert_allclose(mean.prob_nk, [[0.3, 0.7], [0.8, 0.2]])


def test_networks_of_different_cells_are_not_averaged() -> None:
    with pytest.raises(DataError, match="different external cells"):
        average([A, A.inside(np.array([False, False, True, False, False]))])


def test_a_cell_tested_twice_is_refused() -> None:
    with pytest.raises(DataError, match="tested in two folds"):
        pool([A, B])


def test_a_missing_history_is_none_and_a_damaged_one_names_the_file(fake: FakeRun) -> None:
    assert load_history(fake.run, TaskKey("nobody", 0, 0)) is None
    history = load_history(fake.run, fake.tasks[0])
    assert isinstance(history, pd.DataFrame)
    path = fake.run.task(fake.tasks[0]) / "history.csv"
    kept = path.read_bytes()
    try:
        path.write_bytes(b"")
        with pytest.raises(RunError, match=r"history\.csv is not a readable table"):
            load_history(fake.run, fake.tasks[0])
    finally:
        path.write_bytes(kept)


def test_a_truncated_result_names_what_it_lacks(fake: FakeRun) -> None:
    path = fake.run.task(fake.tasks[0]) / "result.json"
    kept = path.read_bytes()
    try:
        path.write_text('{"schema_version": 1, "config_hash": "x"}')
        with pytest.raises(RunError, match="lacks data_hash, n_train, n_stop"):
            load_result(fake.run, fake.tasks[0])
    finally:
        path.write_bytes(kept)


def scored(rows: list[int], seed: int) -> Scored:
    prob_nk = np.random.default_rng(seed).dirichlet([1, 1], len(rows))
    return Scored(np.array(rows), np.array(rows) % 2, prob_nk)


def output(model: str, seed: int, fold: int, *, tta: bool = False, external: bool = True) -> TaskOutput:
    draw = 100 * seed + 10 * fold + ord(model[0])
    test, outside = scored([2 * fold, 2 * fold + 1], draw), scored([10, 11, 12], draw + 1)
    return TaskOutput(
        key=TaskKey(model, seed, fold),
        result={},
        test=test,
        external=outside if external else None,
        validation=scored([6, 7], draw + 2),
        test_tta=scored([2 * fold, 2 * fold + 1], draw + 3) if tta else None,
        external_tta=scored([10, 11, 12], draw + 4) if tta and external else None,
    )


def test_views_and_ensembles_are_entries_of_their_own_and_the_last_asks_all_models() -> None:
    outputs = [output("lite0", s, f, tta=True) for s in (0, 1) for f in (0, 1)]
    outputs += [output("vit", s, f) for s in (0, 1) for f in (0, 1)]
    entries = {m.name: m for m in model_scores(outputs)}
    assert list(entries) == [
        "lite0", "lite0 (ensemble)", "lite0 (TTA)", "lite0 (TTA, ensemble)", "vit", "vit (ensemble)",
        "all models (ensemble)",
    ]  # fmt: skip
    assert [m.base for m in entries.values()] == ["lite0"] * 4 + ["vit"] * 2 + ["all models"]
    np.testing.assert_array_equal(entries["lite0 (TTA)"].tests[1].prob_nk, outputs[1].test_tta.prob_nk)
    views = [o.external_tta.prob_nk for o in outputs[:4]]
    np.testing.assert_allclose(entries["lite0 (TTA, ensemble)"].external[0].prob_nk, np.mean(views, axis=0))
    everyone = entries["all models (ensemble)"]
    assert len(everyone.outputs) == 8
    assert [m.tta for m in entries.values()] == [False, False, True, True, False, False, True]
    np.testing.assert_allclose(
        everyone.external[0].prob_nk, np.mean([*views, *(o.external.prob_nk for o in outputs[4:])], axis=0)
    )
    assert len(everyone.pooled) == 2, "one per seed"
    of_seed_1 = np.mean([np.vstack([outputs[i].test_tta.prob_nk for i in (2, 3)]),
                         np.vstack([outputs[i].test.prob_nk for i in (6, 7)])], axis=0)  # fmt: skip
    np.testing.assert_allclose(everyone.pooled[1].prob_nk, of_seed_1)


def test_a_model_that_stays_alone_is_not_part_of_the_ensemble_of_all() -> None:
    outputs = [output(m, 0, f) for m in ("lite0", "vit", "lite0@3") for f in (0, 1)]
    entries = {m.name: m for m in model_scores(outputs, alone=["lite0@3"])}
    assert {o.key.model for o in entries["all models (ensemble)"].outputs} == {"lite0", "vit"}
    assert "lite0@3" in entries
    assert "all models (ensemble)" not in {m.name for m in model_scores(outputs, alone=["lite0@3", "vit"])}


def test_models_tested_on_different_cells_have_no_cross_validated_ensemble() -> None:
    outputs = [output("lite0", 0, 0), output("lite0", 0, 1), output("vit", 0, 0)]  # a fold of vit is not finished
    everyone = model_scores(outputs)[-1]
    assert everyone.name == "all models (ensemble)"
    assert everyone.pooled == []
    assert len(everyone.external) == 1


def test_half_a_run_with_views_has_no_entry_for_them() -> None:
    outputs = [output("lite0", 0, 0, tta=True), output("lite0", 0, 1)]
    assert [m.name for m in model_scores(outputs)] == ["lite0", "lite0 (ensemble)"]


def split_views(fake: FakeRun, which: str, *, order: slice = slice(None)) -> Path:
    """Bring views into a task, in a file of their own as runs of before had them; return its path."""
    path = fake.run.task(fake.tasks[0]) / f"{which}.parquet"
    one = Predictions.load(path, fake.opened.study.class_names)
    several = replace(one, cell_id=one.cell_id[order], label_n=one.label_n[order], prob_nk=one.prob_nk[order][:, ::-1])
    several.save(path.with_name(f"{which}_tta.parquet"))
    return path.with_name(f"{which}_tta.parquet")


@pytest.fixture
def own_fake(fake: FakeRun, tmp_path: Path) -> FakeRun:
    """Copy the run, to be changed."""
    shutil.copytree(fake.run.root, tmp_path / "run")
    return replace(fake, run=RunFolder(tmp_path / "run"))


@pytest.mark.parametrize("order", [slice(None), slice(None, None, -1)])
def test_views_in_files_of_their_own_are_read_as_those_in_columns(own_fake: FakeRun, order: slice) -> None:
    key, names = own_fake.tasks[0], own_fake.opened.study.class_names
    assert not has_views(own_fake.run, key)
    paths = [split_views(own_fake, which, order=order) for which in ("predictions", "external")]
    assert has_views(own_fake.run, key)
    (old,) = load_outputs(own_fake.run, [key], own_fake.opened.cells, names)
    for path in paths:
        path.unlink()
        beside = path.with_name(path.name.replace("_tta", ""))
        one = Predictions.load(beside, names)
        replace(one, tta_nk=one.prob_nk[:, ::-1]).save(beside)
    assert has_views(own_fake.run, key)
    (new,) = load_outputs(own_fake.run, [key], own_fake.opened.cells, names)
    for a, b, plain in ((old.test_tta, new.test_tta, new.test), (old.external_tta, new.external_tta, new.external)):
        assert a is not None
        assert b is not None
        np.testing.assert_array_equal(a.prob_nk, b.prob_nk)
        np.testing.assert_array_equal(b.prob_nk, plain.prob_nk[:, ::-1])
        np.testing.assert_array_equal(a.row_n, b.row_n)


def test_views_of_other_cells_are_refused(own_fake: FakeRun) -> None:
    split_views(own_fake, "external", order=slice(1, None))
    with pytest.raises(DataError, match=r"external_tta\.parquet names other cells than external\.parquet"):
        load_outputs(own_fake.run, own_fake.tasks[:1], own_fake.opened.cells, own_fake.opened.study.class_names)


def test_half_a_set_of_columns_of_views_is_refused(own_fake: FakeRun) -> None:
    path = own_fake.run.task(own_fake.tasks[0]) / "external.parquet"
    frame, _ = read_table(path, what="predictions")
    write_table(path, frame.assign(tta_normal=1.0))
    with pytest.raises(DataError, match="lacks tta_intermediate, tta_pyknotic"):
        load_outputs(own_fake.run, own_fake.tasks[:1], own_fake.opened.cells, own_fake.opened.study.class_names)


@pytest.mark.parametrize(("change", "words"), [(2.0, "do not sum to 1"), (None, "of views")])
def test_views_that_are_no_probabilities_are_refused(fake: FakeRun, change: float | None, words: str) -> None:
    one = Predictions.load(fake.run.task(fake.tasks[0]) / "external.parquet", fake.opened.study.class_names)
    with pytest.raises(DataError, match=words):
        replace(one, tta_nk=one.prob_nk[:-1] if change is None else one.prob_nk * np.float32(change))


def test_validation_cells_come_back_with_the_task(fake: FakeRun) -> None:
    outputs = load_outputs(fake.run, fake.tasks, fake.opened.cells, fake.opened.study.class_names)
    for one in outputs:
        following = next(o for o in outputs if (o.key.model, o.key.seed) == (one.key.model, one.key.seed)
                         and o.key.fold == (one.key.fold + 1) % 5)  # fmt: skip
        assert one.validation is not None
        assert set(one.validation.row_n) == set(following.test.row_n), "fold k stops with fold k + 1"
