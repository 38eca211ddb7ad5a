"""Rules of synthetic cells: what imbalanced-learn makes, class by class, and sentences where it gives up."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest
from imblearn.combine import SMOTEENN, SMOTETomek
from imblearn.over_sampling import ADASYN, SMOTE, SVMSMOTE, BorderlineSMOTE
from threadpoolctl import threadpool_limits

from perikarya.data.resampling import RESAMPLERS
from perikarya.data.smote import Synthetic, apply_recipe
from perikarya.errors import DataError
from perikarya.settings import SMOTE_FAMILY

NAMES = ("big", "middle", "small")
SEED = 7


def cells(counts: tuple[int, ...] = (60, 35, 14), *, apart: float = 1.0, seed: int = 0) -> tuple[Any, Any]:
    """Clouds of points in mixed order whose centres are ``apart`` standard deviations away from each other."""
    rng = np.random.default_rng(seed)
    y = rng.permutation(np.repeat(np.arange(len(counts)), counts))
    x = rng.normal(size=(len(y), 6)) + apart * y[:, None] * np.array([1, 1, 0, 0, 0, 0])
    return x.astype(np.float32), y


def make(method: str, x: Any, y: Any, *, neighbours: int = 5, seed: int = SEED) -> Synthetic:
    recipe = RESAMPLERS.get(method).recipe
    assert recipe is not None
    return apply_recipe(recipe, x, y, neighbours=neighbours, seed=seed, class_names=NAMES)


def peer(method: str) -> Any:
    random = np.random.RandomState(SEED)
    return {
        "smote": lambda: SMOTE(random_state=random),
        "borderline-smote-1": lambda: BorderlineSMOTE(random_state=random, kind="borderline-1"),
        "borderline-smote-2": lambda: BorderlineSMOTE(random_state=random, kind="borderline-2"),
        "svm-smote": lambda: SVMSMOTE(random_state=random),
        "adasyn": lambda: ADASYN(random_state=random),
        "smote-tomek": lambda: SMOTETomek(smote=SMOTE(random_state=random)),
        "smote-enn": lambda: SMOTEENN(smote=SMOTE(random_state=random)),
    }[method]()


def sorted_cells(x: Any, y: Any) -> Any:
    table = np.column_stack([y, x])
    return table[np.lexsort(table.T[::-1])]


@pytest.mark.parametrize("method", SMOTE_FAMILY)
def test_all_classes_together_are_what_imbalanced_learn_makes(method: str) -> None:
    x, y = cells()
    made = make(method, x, y)
    expected_x, expected_y = peer(method).fit_resample(x, y)
    found = sorted_cells(np.concatenate([x[made.kept], made.x_new]), np.concatenate([y[made.kept], made.y_new]))
    np.testing.assert_array_equal(found, sorted_cells(expected_x, expected_y))
    assert len(made.x_new) > 0
    assert made.x_new.dtype == np.float32
    assert (np.diff(made.kept) > 0).all()
    if method in ("smote-tomek", "smote-enn"):
        assert len(made.kept) < len(x)
    else:
        assert made.kept.tolist() == list(range(len(x)))


@pytest.mark.parametrize("method", ["smote", "borderline-smote-1", "borderline-smote-2"])
def test_every_class_that_occurs_becomes_as_large_as_the_commonest(method: str) -> None:
    x, y = cells()
    y = y * 2  # a class between them does not occur
    made = apply_recipe(RESAMPLERS.get(method).recipe, x, y, neighbours=5, seed=0, class_names="abcde")  # type: ignore[arg-type]
    assert np.bincount(np.concatenate([y, made.y_new])).tolist() == [60, 0, 60, 0, 60]


@pytest.mark.parametrize("method", SMOTE_FAMILY)
def test_the_same_seed_makes_the_same_cells_and_another_seed_others(method: str) -> None:
    x, y = cells()
    first, again, other = make(method, x, y), make(method, x, y), make(method, x, y, seed=SEED + 1)
    np.testing.assert_array_equal(first.x_new, again.x_new)
    np.testing.assert_array_equal(first.kept, again.kept)
    assert first.x_new.shape != other.x_new.shape or (first.x_new != other.x_new).any()


@pytest.mark.parametrize("method", SMOTE_FAMILY)
def test_the_number_of_threads_changes_nothing_even_where_distances_are_equal(method: str) -> None:
    """What scikit-learn takes for the nearest of equally near cells depends on its threads."""
    _, y = cells((700, 300, 60))
    x = np.random.default_rng(0).integers(0, 3, (len(y), 16)).astype(np.float32)  # few values, as grey levels
    made = []
    for threads in (1, 2, 4):
        with threadpool_limits(threads):
            made.append(make(method, x, y))
    for other in made[1:]:
        np.testing.assert_array_equal(other.kept, made[0].kept)
        np.testing.assert_array_equal(other.x_new, made[0].x_new)


@pytest.mark.parametrize("method", SMOTE_FAMILY)
def test_training_cells_are_not_changed(method: str) -> None:
    x, y = cells()
    before = x.copy(), y.copy()
    make(method, x, y)
    np.testing.assert_array_equal(x, before[0])
    np.testing.assert_array_equal(y, before[1])


def test_a_synthetic_cell_lies_between_two_cells_of_its_class() -> None:
    x, y = cells((30, 4))
    made = make("smote", x, y)
    small = x[y == 1].astype(float)
    starts, ends = (a.ravel() for a in np.meshgrid(range(4), range(4)))
    for cell in made.x_new:
        way = small[ends] - small[starts]
        share = ((cell - small[starts]) * way).sum(axis=1) / np.maximum((way**2).sum(axis=1), 1e-12)
        nearest = np.abs(small[starts] + share[:, None] * way - cell).max(axis=1)
        assert ((nearest < 1e-5) & (share >= -1e-5) & (share <= 1 + 1e-5)).any()


@pytest.mark.parametrize("method", SMOTE_FAMILY)
def test_a_small_class_has_fewer_neighbours_and_the_log_says_so(method: str, caplog: pytest.LogCaptureFixture) -> None:
    x, y = cells((40, 40, 3), apart=0.3)
    with caplog.at_level(logging.WARNING):
        made = make(method, x, y)
    assert set(made.y_new.tolist()) <= {2}
    assert "'small' has 3 training cells: 2 neighbour(s) instead of 5" in caplog.text


def test_a_cell_is_not_its_own_neighbour(caplog: pytest.LogCaptureFixture) -> None:
    x, y = cells((20, 5))
    with caplog.at_level(logging.WARNING):
        make("smote", x, y)
    assert "'middle' has 5 training cells: 4 neighbour(s) instead of 5" in caplog.text


def test_neighbours_are_as_many_as_asked_for_where_the_class_allows_it(caplog: pytest.LogCaptureFixture) -> None:
    x, y = cells((20, 6))
    with caplog.at_level(logging.WARNING):
        five, three = make("smote", x, y), make("smote", x, y, neighbours=3)
    assert not caplog.records
    assert (five.x_new != three.x_new).any()


@pytest.mark.parametrize("method", SMOTE_FAMILY)
def test_very_few_cells_of_all_classes_suffice(method: str) -> None:
    x, y = cells((4, 2), apart=0.0 if method != "smote-enn" else 50.0, seed=3)
    made = make(method, x, y, neighbours=50)
    assert set(made.y_new.tolist()) <= {1}
    assert len(made.kept) > 0


@pytest.mark.parametrize("method", SMOTE_FAMILY)
def test_a_single_cell_cannot_be_blended_with_another(method: str) -> None:
    x, y = cells((10, 8, 1))
    with pytest.raises(DataError, match=r"'small' has a single training cell.*\n.*\n.*oversample"):
        make(method, x, y)


@pytest.mark.parametrize("method", SMOTE_FAMILY)
@pytest.mark.parametrize("counts", [(12,), (1,), (9, 9)])
def test_balanced_classes_get_no_cells(method: str, counts: tuple[int, ...]) -> None:
    x, y = cells(counts, apart=50)
    made = make(method, x, y)
    assert len(made.x_new) == len(made.y_new) == 0
    assert made.kept.tolist() == list(range(len(x)))


@pytest.mark.parametrize(
    ("method", "counts", "apart", "why"),
    [
        ("borderline-smote-1", (40, 12), 50, "no cell of it lies on the border"),
        ("borderline-smote-2", (40, 12), 50, "no cell of it lies on the border"),
        ("adasyn", (40, 12), 50, "no cell of it has a neighbour of another class"),
        ("adasyn", (41, 40), 0.0, "its cells on the border call for less than one"),
        ("svm-smote", (200, 2), 0.0, "all its support vectors lie among cells"),
    ],
)
def test_a_method_without_a_cell_to_start_from_adds_none_and_warns(
    method: str, counts: tuple[int, ...], apart: float, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    x, y = cells(counts, apart=apart)
    with caplog.at_level(logging.WARNING):
        made = make(method, x, y, neighbours=11)
    assert len(made.x_new) == 0
    assert made.kept.tolist() == list(range(len(x)))
    assert f"adds no cell to class 'middle', which stays rare: {why}" in caplog.text.replace("\n", " ")


@pytest.mark.parametrize("method", ["smote-tomek", "smote-enn"])
def test_one_cell_of_each_class_cleans_the_other_away(method: str) -> None:
    x, y = cells((1, 1))
    with pytest.raises(DataError, match="no real training cell"):
        make(method, x, y)


def test_one_class_without_a_start_does_not_keep_others_from_getting_cells() -> None:
    x, y = cells((40, 20, 10), apart=0.5)
    x[y == 1] += 1000
    made = make("adasyn", x, y)
    assert set(made.y_new.tolist()) == {2}


def test_other_errors_of_imbalanced_learn_are_not_hidden() -> None:
    x, y = cells()
    x[0, 0] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        make("smote", x, y)


def test_a_class_whose_real_cells_are_all_cleaned_away_is_refused() -> None:
    x, y = cells((60, 2), apart=0.0)
    x[np.flatnonzero(y == 0)[:30]] += 1000  # the common class is two clouds, with one rare cell in each
    x[np.flatnonzero(y == 1)[0]] += 1000
    with pytest.raises(DataError, match="no real training cell of class 'middle'"):
        make("smote-enn", x, y)
    assert len(make("smote", x, y).kept) == 62
