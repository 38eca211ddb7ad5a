"""Rules of the fold plan: no group on two sides, no cell forgotten, classes spread evenly."""

from __future__ import annotations

import logging
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedGroupKFold

from perikarya.config import CvConfig
from perikarya.data.splits import FoldPlan, assign_groups, plan_folds, rows_of
from perikarya.errors import DataError
from perikarya.schema import as_cells, write_table

RBC = Path(__file__).parents[3] / "shared" / "data" / "rbc" / "cells" / "development" / "metadata.csv"


def make_cells(
    subjects: list[str | None], labels: list[str | None], *, external: NDArray[np.bool_] | None = None
) -> pd.DataFrame:
    n = len(subjects)
    frame = pd.DataFrame(
        {
            "cell_id": [f"cell{i:06d}" for i in range(n)],
            "label": labels,
            "subject": subjects,
            "image_id": [f"image{i // 2}" for i in range(n)],
            "set": np.where(external, "external", "development") if external is not None else "development",
            "x_px": 0.0,
            "y_px": 0.0,
            "area_px": 1,
            "image_sha256": "0",
            "crop_phash": "0",
            "source": "made",
        }
    )
    return as_cells(frame)


def random_cells(n_subjects: int, n_cells: int, *, n_classes: int = 3, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    subject = np.r_[np.arange(n_subjects), rng.choice(n_subjects, n_cells, p=rng.dirichlet(np.full(n_subjects, 2.0)))]
    preference = rng.dirichlet(np.full(n_classes, 1.5), size=n_subjects)
    labels = [f"class{rng.choice(n_classes, p=preference[s])}" for s in subject]
    return make_cells([f"animal{s}" for s in subject], labels)


def imbalance(counts_gc: NDArray[np.int64], fold_g: NDArray[np.int64], n_folds: int) -> float:
    """Mean over classes of the standard deviation over folds of the class's share, as scikit-learn minimises it."""
    share = np.zeros((n_folds, counts_gc.shape[1]))
    np.add.at(share, fold_g, counts_gc / np.maximum(counts_gc.sum(axis=0), 1))
    return float(share.std(axis=0).mean())


def peer_imbalance(counts_gc: NDArray[np.int64], n_folds: int, seed: int) -> float:
    group, label = (np.repeat(axis.ravel(), counts_gc.ravel()) for axis in np.indices(counts_gc.shape))
    fold_g = np.empty(len(counts_gc), dtype=np.int64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # rare classes
        peer = StratifiedGroupKFold(n_folds, shuffle=True, random_state=seed)
        for fold, (_, held_out) in enumerate(peer.split(group, label, group)):
            fold_g[group[held_out]] = fold
    return imbalance(counts_gc, fold_g, n_folds)


@st.composite
def studies(draw: st.DrawFn) -> tuple[pd.DataFrame, int]:
    n_folds = draw(st.integers(3, 6))
    n_groups = draw(st.integers(n_folds, 20))
    extra = draw(st.lists(st.integers(0, n_groups - 1), max_size=60))
    groups = [*range(n_groups), *extra]
    labels: list[str | None] = ["a"] * n_groups
    labels += draw(st.lists(st.sampled_from(["a", "b", "c", None]), min_size=len(extra), max_size=len(extra)))
    external = [False] * n_groups + draw(st.lists(st.booleans(), min_size=len(extra), max_size=len(extra)))
    return make_cells([f"s{g}" for g in groups], labels, external=np.array(external)), n_folds


@settings(max_examples=60, deadline=None)
@given(study=studies(), seed=st.integers(0, 2**31), order_seed=st.integers(0, 100))
def test_folds_keep_groups_whole_and_cover_exactly_the_labelled_development_cells(
    study: tuple[pd.DataFrame, int], seed: int, order_seed: int
) -> None:
    cells, n_folds = study
    cv = CvConfig(n_folds=n_folds, seed=seed)
    plan = plan_folds(cells, cv=cv)
    joined = cells.merge(plan.frame, on="cell_id")
    eligible = cells.loc[(cells["set"] == "development") & cells["label"].notna(), "cell_id"]
    assert plan.group_by == "subject"
    assert sorted(plan.frame["cell_id"]) == sorted(eligible)
    assert (joined.groupby("subject")["fold"].nunique() == 1).all()
    assert sorted(plan.frame["fold"].unique()) == list(range(n_folds))
    shuffled = cells.sample(frac=1, random_state=order_seed)
    pd.testing.assert_frame_equal(plan_folds(shuffled, cv=cv).frame, plan.frame)


@pytest.mark.parametrize("seed", range(12))
def test_classes_are_spread_at_least_as_evenly_as_by_scikit_learn(seed: int) -> None:
    rng = np.random.default_rng(seed)
    cells = random_cells(int(rng.integers(8, 90)), int(rng.integers(200, 1500)), n_classes=4, seed=seed)
    counts = pd.crosstab(cells["subject"], cells["label"]).to_numpy(dtype=np.int64)
    ours = imbalance(counts, assign_groups(counts, n_folds=5, seed=seed), 5)
    assert ours <= peer_imbalance(counts, 5, seed) + 1e-12


def test_real_smears_are_spread_at_least_as_evenly_as_by_scikit_learn() -> None:
    if not RBC.is_file():
        pytest.skip("the red blood cells (shared/data/rbc) are not beside the repository")
    table = pd.read_csv(RBC)
    counts = pd.crosstab(table["subject"], table["label"]).to_numpy(dtype=np.int64)
    for seed in range(3):
        ours = imbalance(counts, assign_groups(counts, n_folds=5, seed=seed), 5)
        assert ours <= peer_imbalance(counts, 5, seed) + 1e-12


def test_five_thousand_groups_take_seconds_at_most() -> None:
    cells = random_cells(5000, 95_000, seed=1)
    start = time.perf_counter()
    plan = plan_folds(cells, cv=CvConfig())
    assert time.perf_counter() - start < 10  # 0.5 s on an idle core
    sizes = plan.frame["fold"].value_counts()
    assert sizes.max() - sizes.min() <= 20


def test_another_seed_gives_other_folds() -> None:
    cells = random_cells(40, 600)
    first, second = (plan_folds(cells, cv=CvConfig(seed=s)).frame["fold"] for s in (0, 1))
    assert (first != second).any()
    # not a renaming of the same folds either
    assert pd.crosstab(first, second).gt(0).to_numpy().sum() > 5


def test_images_stand_in_where_a_subject_is_missing_and_the_plan_says_so(caplog: pytest.LogCaptureFixture) -> None:
    cells = make_cells(["s1", None, "s2", *["s3"] * 17], ["a"] * 20)
    with caplog.at_level(logging.WARNING):
        plan = plan_folds(cells, cv=CvConfig())
    assert plan.group_by == "image_id"
    assert plan.warning is not None
    assert "1 of 20 cells" in plan.warning
    assert "1 of 20 cells" in caplog.text
    assert (cells.merge(plan.frame, on="cell_id").groupby("image_id")["fold"].nunique() == 1).all()


def test_a_blank_subject_is_a_missing_subject() -> None:
    cells = make_cells(["s1", " ", *["s2"] * 18], ["a"] * 20)
    assert plan_folds(cells, cv=CvConfig()).group_by == "image_id"


def test_subjects_of_cells_outside_the_plan_do_not_matter() -> None:
    subjects: list[str | None] = [f"s{i}" for i in range(10)]
    cells = make_cells([*subjects, None, None], ["a"] * 11 + [None], external=np.array([False] * 10 + [True, False]))
    assert plan_folds(cells, cv=CvConfig()).group_by == "subject"


def test_folds_over_subjects_refuse_cells_without_one() -> None:
    cells = make_cells(["s1", None, *["s2"] * 18], ["a"] * 20)
    with pytest.raises(DataError, match=r"1 of 20 .* cell000001[\s\S]*image_id"):
        plan_folds(cells, cv=CvConfig(group_by="subject"))


def test_folds_over_cells_are_drawn_on_demand_only_and_carry_a_warning() -> None:
    cells = random_cells(8, 200)
    plan = plan_folds(cells, cv=CvConfig(group_by="cell"))
    assert plan.warning is not None
    assert "single cells" in plan.warning
    assert plan_folds(cells, cv=CvConfig()).warning is None


def test_too_few_animals_name_what_would_work() -> None:
    cells = make_cells([f"s{i % 3}" for i in range(40)], ["a"] * 40)
    with pytest.raises(DataError, match=r"3 group[\s\S]*n_folds: 3[\s\S]*image_id \(20 groups\)"):
        plan_folds(cells, cv=CvConfig())


def test_too_few_groups_never_suggest_a_number_of_folds_that_is_refused() -> None:
    cells = make_cells(["s1", "s2"], ["a", "b"])
    with pytest.raises(DataError) as caught:
        plan_folds(cells, cv=CvConfig())
    assert "n_folds: 2" not in str(caught.value).replace("cv.n_folds is", "")
    assert "import more data" in str(caught.value)


def test_nothing_labelled_is_an_error() -> None:
    with pytest.raises(DataError, match="no labelled development cell"):
        plan_folds(make_cells(["s"] * 9, [None] * 9), cv=CvConfig())


def test_a_class_with_fewer_groups_than_folds_is_named(caplog: pytest.LogCaptureFixture) -> None:
    cells = make_cells([f"s{i}" for i in range(20)], ["rare", "rare"] + ["common"] * 18)
    with caplog.at_level(logging.WARNING):
        plan = plan_folds(cells, cv=CvConfig())
    assert plan.warning is not None
    assert "'rare' (2)" in plan.warning
    assert "common" not in plan.warning
    assert plan.warning in caplog.text


def test_each_fold_tests_once_stops_once_and_the_others_train() -> None:
    cells = random_cells(12, 300)
    plan = plan_folds(cells, cv=CvConfig())
    fold_of = dict(zip(plan.frame["cell_id"], plan.frame["fold"], strict=True))
    tested: list[str] = []
    for k in range(5):
        train, stop, test = plan.roles(k)
        assert {fold_of[c] for c in test} == {k}
        assert {fold_of[c] for c in stop} == {(k + 1) % 5}
        assert {fold_of[c] for c in train} == set(range(5)) - {k, (k + 1) % 5}
        assert len(train) + len(stop) + len(test) == len(cells)
        tested += test.tolist()
    assert sorted(tested) == sorted(cells["cell_id"])


@pytest.mark.parametrize("fold", [-1, 5])
def test_a_fold_out_of_range_is_refused(fold: int) -> None:
    with pytest.raises(DataError, match="folds 0 to 4"):
        plan_folds(random_cells(12, 100), cv=CvConfig()).roles(fold)


def test_a_single_training_stops_on_fold_0_and_tests_nothing() -> None:
    cells = random_cells(12, 100)
    plan = plan_folds(cells, cv=CvConfig(scheme="single"))
    train, stop, test = plan.roles_single()
    assert len(test) == 0
    assert set(stop) == set(plan.frame.loc[plan.frame["fold"] == 0, "cell_id"])
    assert set(train) == set(plan.frame.loc[plan.frame["fold"] != 0, "cell_id"])


@pytest.mark.parametrize("group_by", ["auto", "cell"])
def test_a_saved_plan_is_read_back_whole(tmp_path: Path, group_by: str) -> None:
    cv = CvConfig.model_validate({"group_by": group_by, "seed": 3})
    plan = plan_folds(random_cells(12, 100), cv=cv)
    plan.save(tmp_path / "folds.parquet")
    back = FoldPlan.load(tmp_path / "folds.parquet")
    pd.testing.assert_frame_equal(back.frame, plan.frame)
    assert (back.group_by, back.n_folds, back.seed, back.warning) == (plan.group_by, 5, 3, plan.warning)


@pytest.mark.parametrize(
    ("fold", "meta"),
    [
        ([0, 1, 2], {"group_by": "subject", "n_folds": "5", "seed": "0"}),  # empty folds
        ([0, 1, 7], {"group_by": "subject", "n_folds": "3", "seed": "0"}),  # a fold that is not there
        ([0, 1, 2], {"group_by": "subject", "n_folds": "many", "seed": "0"}),
        ([0, 1, 2], {"n_folds": "3", "seed": "0"}),
    ],
)
def test_a_file_that_is_no_plan_is_refused(tmp_path: Path, fold: list[int], meta: dict[str, str]) -> None:
    write_table(tmp_path / "folds.parquet", pd.DataFrame({"cell_id": ["a", "b", "c"], "fold": fold}), **meta)
    with pytest.raises(DataError, match=r"folds\.parquet"):
        FoldPlan.load(tmp_path / "folds.parquet")


def test_rows_are_found_by_identity_and_a_foreign_cell_is_refused() -> None:
    ids = pd.Series(["c", "a", "b"], dtype="string")
    assert rows_of(ids, np.array(["b", "c"])).tolist() == [2, 0]
    assert rows_of(ids, np.array([], dtype=str)).tolist() == []
    with pytest.raises(DataError, match="1 cells of the fold plan are not in the study, such as x"):
        rows_of(ids, np.array(["b", "x"]))
