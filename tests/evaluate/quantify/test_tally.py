"""Sums per animal, region and part: those of the cells, whatever is resampled and however the cells are cut."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest
from tests.evaluate.quantify.test_survey import piece, some_cells
from tests.evaluate.quantify.worlds import make_cells, make_reference, sums_of

from perikarya.evaluate.quantify import tally
from perikarya.evaluate.quantify.cells import PredictedCells
from perikarya.evaluate.quantify.reference import Pile
from perikarya.evaluate.quantify.survey import MAX_PARTS, survey_of
from perikarya.evaluate.quantify.tally import Row, cells_of_rows, rows_of


@dataclass(frozen=True)
class Cut:
    """The same cells in pieces."""

    whole: PredictedCells
    size: int

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.whole.class_names

    def chunks(self) -> Iterator[PredictedCells]:
        for start in range(0, len(self.whole.label_n), self.size):
            yield piece(self.whole, start, start + self.size)


def rows(cells: PredictedCells | Cut, *, seed: int = 0) -> list[Row]:
    return rows_of(cells, groups=("sham", "injured"), regions=("y", "x"), seed=seed)


def test_a_row_holds_the_sums_of_its_cells() -> None:
    cells = some_cells()
    assert cells.region_n is not None
    found = {(r.subject, r.region): r for r in rows(cells)}
    assert list(found) == [("a", "y"), ("a", "x"), ("a", "all"), ("b", "y"), ("b", "x"), ("b", "all")]
    for (subject, region), row in found.items():
        own = (cells.subject_n == subject) & ((region == "all") | (cells.region_n == region))
        prob = cells.prob_nk[own]
        severity = prob @ [0, 0.5, 1]
        assert row.n_cells == own.sum()
        np.testing.assert_allclose(row.prob_uk.sum(axis=0), prob.sum(axis=0))
        np.testing.assert_allclose(row.vote_uk.sum(axis=0), np.bincount(prob.argmax(axis=1), minlength=3))
        assert (row.severity, row.severity2) == pytest.approx((severity.sum(), (severity**2).sum()))
        assert row.n_last == (prob.argmax(axis=1) == 2).sum()
        images, n = np.unique(cells.image_n[own & (cells.image_n != None)].astype(str), return_counts=True)  # noqa: E711
        assert row.n_u[: len(images)].tolist() == n.tolist(), "parts are the images by name"
        assert set(row.n_u[len(images) :]) == {1.0}, "and then the cells of unknown images"
        for u, image in enumerate(images):
            np.testing.assert_allclose(row.prob_uk[u], cells.prob_nk[own & (cells.image_n == image)].sum(axis=0))


@pytest.mark.parametrize("size", [1, 7, 299])
def test_sums_are_the_same_bit_by_bit_however_the_cells_are_cut(size: int) -> None:
    cells = some_cells()
    for one, other in zip(rows(cells), rows(Cut(cells, size)), strict=True):
        assert (one.subject, one.region, one.severity, one.n_last) == (
            other.subject,
            other.region,
            other.severity,
            other.n_last,
        )
        for name in ("n_u", "prob_uk", "vote_uk", "label_k"):
            assert np.array_equal(getattr(one, name), getattr(other, name))


def many(image_of: str) -> PredictedCells:
    n = 20 * MAX_PARTS
    images = {"unknown": [None] * n, "many": [f"i{i // 4}" for i in range(n)]}[image_of]
    return make_cells(np.eye(3)[np.arange(n) % 3], ["a"] * n, image_n=images)  # type: ignore[arg-type]


@pytest.mark.parametrize(("images", "n_things"), [("unknown", 20 * MAX_PARTS), ("many", 5 * MAX_PARTS)])
def test_more_than_are_resampled_one_by_one_fall_into_random_parts(images: str, n_things: int) -> None:
    (row,) = rows(many(images))
    assert (row.n_parts, row.n_cells) == (MAX_PARTS, 20 * MAX_PARTS)
    cells_each = row.n_cells / n_things
    assert row.n_u.var() == pytest.approx(cells_each**2 * n_things / MAX_PARTS, rel=0.25), "as by chance"
    (again,) = rows(many(images))
    (other,) = rows(many(images), seed=1)
    assert np.array_equal(row.n_u, again.n_u)
    assert not np.array_equal(row.n_u, other.n_u)
    share = row.prob_uk[:, 0] / np.maximum(row.n_u, 1)
    assert abs(np.corrcoef(share[:-1], share[1:])[0, 1]) < 0.2


@pytest.mark.parametrize("at_once", [1, 150, 10**6])
def test_the_cells_of_a_row_come_with_the_parts_they_were_summed_up_in(
    at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tally, "CELLS_AT_ONCE", at_once)
    for cells in (Cut(some_cells(), 41), Cut(many("many"), 1000)):
        listed = rows(cells)
        held = list(cells_of_rows(cells, listed, survey=survey_of(cells), seed=0))
        assert len(held) == len(listed)
        for row, (prob_nk, part_n) in zip(listed, held, strict=True):
            sums = np.zeros_like(row.prob_uk)
            np.add.at(sums, part_n, prob_nk)
            np.testing.assert_allclose(sums, row.prob_uk)
            assert np.bincount(part_n, minlength=row.n_parts).tolist() == row.n_u.tolist()


def test_a_reference_is_summed_up_the_same_bit_by_bit_in_pieces() -> None:
    rng = np.random.default_rng(0)
    label_n = rng.integers(0, 3, 500)
    prob = rng.dirichlet([1, 1, 1], 500)
    units = [f"r{i}" for i in rng.integers(0, 9, 500)]
    whole = sums_of(make_reference(label_n, units, prob))
    pile = Pile(whole.class_names, keep_cells=True)
    for start in range(0, 500, 33):
        own = slice(start, start + 33)
        pile.add(make_reference(label_n[own], units[own], prob[own]))
    found = pile.sums()
    assert found is not None
    assert found.names == whole.names
    assert found.cells is not None
    assert np.array_equal(found.cells.prob_nk, prob)
    for one, other in ((found.soft, whole.soft), (found.hard, whole.hard)):
        assert np.array_equal(one.sum_skk, other.sum_skk)
        assert np.array_equal(one.product_skij, other.product_skij)
    own = np.array(units) == "r3"
    expected = sum(np.outer(p, p) for p in prob[own & (label_n == 1)])
    np.testing.assert_allclose(found.soft.product_skij[found.names.index("r3"), 1], expected)
    assert found.without(["r3"]).names == [name for name in found.names if name != "r3"]
