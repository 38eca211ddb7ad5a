"""Kappas are those of other programs, their intervals hold, and what cannot be told is not told."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import cohen_kappa_score
from statsmodels.stats.inter_rater import aggregate_raters, cohens_kappa, fleiss_kappa

from perikarya.config import EvaluateConfig
from perikarya.evaluate.raters import agreement_of_all, agreement_of_two

SETTINGS = EvaluateConfig(n_bootstrap=500)


def readings(n_cells: int, n_readers: int, *, n_classes: int = 4, seed: int = 0, right: float = 0.7) -> np.ndarray:
    rng = np.random.default_rng(seed)
    true_n = rng.choice(n_classes, n_cells, p=np.arange(1, n_classes + 1) / (n_classes * (n_classes + 1) / 2))
    known_nr = rng.random((n_cells, n_readers)) < right
    return np.where(known_nr, true_n[:, None], rng.integers(0, n_classes, (n_cells, n_readers))).astype(np.int64)


def cells(n_cells: int, *, n_subjects: int | None = None) -> pd.DataFrame:
    """Cells of some animals, or of none that is known, one on each image."""
    subjects = [None] * n_cells if n_subjects is None else [f"s{i % n_subjects}" for i in range(n_cells)]
    return pd.DataFrame({"subject": subjects, "image_id": [f"i{i}" for i in range(n_cells)], "group": [None] * n_cells})


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("n_classes", [2, 3, 5])
def test_cohens_kappa_and_its_kin_are_those_of_scikit_learn(seed: int, n_classes: int) -> None:
    code_n2 = readings(150, 2, n_classes=n_classes, seed=seed)
    found = agreement_of_two(code_n2, cells(150), n_classes, ordered=True, settings=SETTINGS)
    a, b = code_n2.T
    assert found.n_cells == 150
    assert found.observed == pytest.approx((a == b).mean())
    assert found.cohen.estimate == pytest.approx(cohen_kappa_score(a, b))
    assert found.weighted is not None
    assert found.weighted.estimate == pytest.approx(cohen_kappa_score(a, b, weights="quadratic"))
    assert [k.estimate for k in found.per_class] == pytest.approx(
        [cohen_kappa_score(a == k, b == k) for k in range(n_classes)]
    )


@pytest.mark.parametrize("n_readers", [2, 3, 6])
def test_fleiss_kappa_is_that_of_statsmodels(n_readers: int) -> None:
    code_nr = readings(120, n_readers)
    found = agreement_of_all(code_nr, cells(120), 4, settings=SETTINGS)
    assert found.kappa.estimate == pytest.approx(fleiss_kappa(aggregate_raters(code_nr, 4)[0]))
    assert [k.estimate for k in found.per_class] == pytest.approx(
        [fleiss_kappa(aggregate_raters((code_nr == k).astype(int), 2)[0]) for k in range(4)]
    )


def test_a_worked_example_of_fleiss_kappa() -> None:
    """Ten subjects, fourteen readers, five classes: 0.210, as worked out step by step in Wikipedia's article on it."""
    rows = (
        (0, 0, 0, 0, 14), (0, 2, 6, 4, 2), (0, 0, 3, 5, 6), (0, 3, 9, 2, 0), (2, 2, 8, 1, 1),
        (7, 7, 0, 0, 0), (3, 2, 6, 3, 0), (2, 5, 3, 2, 2), (6, 5, 2, 1, 0), (0, 2, 2, 3, 7),
    )  # fmt: skip
    code_nr = np.array([np.repeat(np.arange(5), row) for row in rows])
    found = agreement_of_all(code_nr, cells(10), 5, settings=SETTINGS)
    assert found.kappa.estimate == pytest.approx(0.210, abs=5e-4)


def test_the_order_of_two_readers_does_not_matter() -> None:
    code_n2 = readings(100, 2)
    one = agreement_of_two(code_n2, cells(100), 4, ordered=True, settings=SETTINGS)
    two = agreement_of_two(code_n2[:, ::-1], cells(100), 4, ordered=True, settings=SETTINGS)
    assert one.cohen.estimate == pytest.approx(two.cohen.estimate)


def test_for_independent_cells_the_interval_is_about_that_of_large_samples() -> None:
    code_n2 = readings(400, 2)
    found = agreement_of_two(code_n2, cells(400), 4, ordered=False, settings=EvaluateConfig()).cohen
    table = np.zeros((4, 4))
    np.add.at(table, (code_n2[:, 0], code_n2[:, 1]), 1)
    expected = cohens_kappa(table)
    assert found.ci95 == pytest.approx((expected.kappa_low, expected.kappa_upp), abs=0.015)


def test_cells_of_few_animals_tell_less() -> None:
    rng = np.random.default_rng(3)
    good = np.repeat(rng.random(6) < 0.5, 60)  # readers agree in some animals and not in others
    code_n2 = readings(360, 2, right=0.4)
    code_n2[good, 1] = code_n2[good, 0]
    frame = cells(360).assign(subject=np.repeat([f"s{i}" for i in range(6)], 60))
    by_animal = agreement_of_two(code_n2, frame, 4, ordered=False, settings=SETTINGS).cohen.ci95
    by_cell = agreement_of_two(code_n2, cells(360), 4, ordered=False, settings=SETTINGS).cohen.ci95
    assert by_animal is not None
    assert by_cell is not None
    assert by_animal[1] - by_animal[0] > 2 * (by_cell[1] - by_cell[0])


def test_where_both_know_one_class_only_there_is_no_kappa() -> None:
    same = np.ones((20, 2), np.int64)
    found = agreement_of_two(same, cells(20), 3, ordered=True, settings=SETTINGS)
    assert found.observed == 1.0
    assert found.weighted is not None
    for kappa in (found.cohen, found.weighted, *found.per_class):
        assert (kappa.estimate, kappa.ci95) == (None, None)
    several = agreement_of_all(np.ones((20, 3), np.int64), cells(20, n_subjects=5), 3, settings=SETTINGS)
    for kappa in (several.kappa, *several.per_class):
        assert (kappa.estimate, kappa.ci95) == (None, None)


def test_a_class_that_nobody_gave_has_no_kappa() -> None:
    code_n2 = readings(60, 2, n_classes=3)
    found = agreement_of_two(code_n2, cells(60), 4, ordered=False, settings=SETTINGS)
    assert [kappa.estimate is None for kappa in found.per_class] == [False, False, False, True]
    several = agreement_of_all(code_n2, cells(60, n_subjects=7), 4, settings=SETTINGS)
    assert [kappa.estimate is None for kappa in several.per_class] == [False, False, False, True]


def test_full_agreement_is_one_without_an_interval() -> None:
    code_n2 = np.repeat(np.arange(3), 10)[:, None].repeat(2, axis=1)
    found = agreement_of_two(code_n2, cells(30), 3, ordered=False, settings=SETTINGS).cohen
    assert (found.estimate, found.ci95) == (1.0, None)


def test_worse_than_chance_is_negative() -> None:
    code_n2 = np.array([[0, 1], [1, 0]] * 20)
    assert agreement_of_two(code_n2, cells(40), 2, ordered=False, settings=SETTINGS).cohen.estimate == -1.0


@pytest.mark.parametrize("n_cells", [0, 1, 2])
def test_hardly_any_cells_are_no_error(n_cells: int) -> None:
    code_n2 = np.array([[0, 0], [1, 2]])[:n_cells]
    found = agreement_of_two(code_n2, cells(n_cells), 3, ordered=True, settings=SETTINGS)
    assert found.n_cells == n_cells
    assert found.cohen.ci95 is None
    assert (found.observed is None) == (n_cells == 0)
    assert agreement_of_all(code_n2, cells(n_cells), 3, settings=SETTINGS).kappa.ci95 is None


def test_no_interval_from_two_animals() -> None:
    found = agreement_of_two(readings(80, 2), cells(80, n_subjects=2), 4, ordered=False, settings=SETTINGS)
    assert found.cohen.estimate is not None
    assert found.cohen.ci95 is None
