"""Fractions per animal, region and group: which cells count, animals as units, intervals."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tests.evaluate.quantify.worlds import CLASS_NAMES, bayes, make_cells, make_reference

from perikarya.errors import DataError
from perikarya.evaluate.quantify.cells import PredictedCells, one_hot
from perikarya.evaluate.quantify.correction import Counting, make_correction
from perikarya.evaluate.quantify.fractions import (
    counted_shares,
    ends,
    group_means,
    labelled_shares,
    measure_animals,
    row_intervals,
)
from perikarya.evaluate.quantify.survey import MAX_PARTS
from perikarya.evaluate.quantify.tally import Tally, rows_of
from perikarya.schema import NO_LABEL

GROUPS, REGIONS = ("sham", "injured"), ("CA1", "DG")


def some_cells(**changes: Any) -> PredictedCells:
    """Four animals with 2, 4, 6 and 8 cells; predicted classes go round."""
    subject = np.repeat(["d", "c", "b", "a"], [2, 4, 6, 8]).tolist()
    group = ["injured" if s in "cd" else "sham" for s in subject]
    region = ["DG" if i % 2 else "CA1" for i in range(20)]
    options: dict[str, Any] = {"region_n": region, "group_n": group} | changes
    return make_cells(one_hot(np.arange(20) % 3, 3), options.pop("subject_n", subject), **options)


def rows(cells: PredictedCells, **changes: Any) -> Any:
    return rows_of(cells, **({"groups": GROUPS, "regions": REGIONS, "seed": 0} | changes))


def test_animals_stand_in_order_of_their_group_each_with_its_regions_and_then_all_cells() -> None:
    found = [(r.subject, r.group, r.region, r.n_cells) for r in rows(some_cells())]
    assert found[:6] == [
        ("a", "sham", "CA1", 4), ("a", "sham", "DG", 4), ("a", "sham", "all", 8),
        ("b", "sham", "CA1", 3), ("b", "sham", "DG", 3), ("b", "sham", "all", 6),
    ]  # fmt: skip
    assert [f[0] for f in found[6::3]] == ["c", "d"]


def test_cells_without_a_region_count_among_all_and_a_missing_region_has_no_row() -> None:
    region = ["CA1"] * 12 + ["DG"] * 7 + [None]
    found = {(r.subject, r.region): r.n_cells for r in rows(some_cells(region_n=region))}
    assert found == {
        ("a", "DG"): 7, ("a", "all"): 8, ("b", "CA1"): 6, ("b", "all"): 6,
        ("c", "CA1"): 4, ("c", "all"): 4, ("d", "CA1"): 2, ("d", "all"): 2,
    }  # fmt: skip
    assert {r.region for r in rows(some_cells(region_n=None), regions=())} == {"all"}


def test_images_are_resampled_where_there_are_three_else_cells_and_many_cells_in_parts() -> None:
    images = ["x", "x", *["y", "z"] * 2, *["p", "q", "r"] * 2, *"stuvwxyz"]
    found = {r.subject: (r.unit, r.n_parts) for r in rows(some_cells(image_n=images, region_n=None), regions=())}
    assert found == {"d": ("cell", 2), "c": ("cell", 4), "b": ("image_id", 3), "a": ("cell", 8)}
    many = make_cells(np.full((3 * MAX_PARTS + 1, 3), 1 / 3), ["a"] * (3 * MAX_PARTS + 1))
    (row,) = rows(many, groups=(), regions=())
    assert (row.n_parts, row.n_cells) == (MAX_PARTS, 3 * MAX_PARTS + 1)
    assert row.n_u.var() == pytest.approx(3, rel=0.3), "as cells fall at random"


def test_cells_of_one_image_are_drawn_together() -> None:
    """Ten images of one class each: the fraction then varies as ten things do, not as two hundred."""
    label = np.repeat(np.arange(10) % 2, 20)
    images = [f"i{i}" for i in np.repeat(np.arange(10), 20)]
    spread = []
    for image_n in (images, None):
        cells = make_cells(one_hot(label, 3), ["a"] * 200, image_n=image_n)
        measured = measure_animals(cells, rows(cells, regions=()), Counting(soft=False), n_draws=2000, seed=0)
        spread.append(measured.bounded.draws["severity"][:, 0].std())
    np.testing.assert_allclose(spread[0], 0.25 / np.sqrt(10), rtol=0.05)  # severities 0 and 0.5: sd 0.25
    np.testing.assert_allclose(spread[1], 0.25 / np.sqrt(200), rtol=0.05)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"subject_n": [None, *"aaabbbbcccccddddddd"]}, r"1 of 20 cell\(s\) to be counted have no subject"),
        ({"group_n": ["sham"] * 19 + ["injured"]}, "Animal a has cells in 2 groups"),
    ],
)
def test_cells_that_cannot_be_placed_are_refused(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(DataError, match=sentence):
        rows(some_cells(**changes))


def test_a_region_called_all_is_refused() -> None:
    with pytest.raises(DataError, match="A region is called 'all'"):
        rows(some_cells(region_n=["CA1", "all"] * 10))


def test_counts_and_labels_are_those_of_the_rows_cells() -> None:
    label = np.array([NO_LABEL] * 6 + [0, 0, 1, 2, 2, 2] + [1] * 4 + [NO_LABEL] * 4)
    cells = some_cells(label_n=label)
    listed = rows(cells)
    by_place = {(r.subject, r.region): i for i, r in enumerate(listed)}
    labelled, counted = (shares(Tally(listed, CLASS_NAMES)) for shares in (labelled_shares, counted_shares))
    b, a, d = (labelled.iloc[by_place[s, "all"]] for s in "bad")
    assert (b["n_labelled"], b["fraction_normal"], b["fraction_pyknotic"]) == (6, 2 / 6, 3 / 6)
    assert b["severity"] == pytest.approx((0.5 + 3) / 6)
    assert (a["n_labelled"], a["severity"]) == (4, 0.5)
    assert d["n_labelled"] == 0
    assert np.isnan(d["severity"])
    assert counted.iloc[by_place["d", "all"]].tolist() == [0.5, 0.5, 0.0, 0.25]  # cells 0 and 1


def test_one_labelled_cell_is_a_whole_of_its_own() -> None:
    label = np.full(20, NO_LABEL)
    label[0] = 2
    share = labelled_shares(Tally(rows(some_cells(label_n=label)), CLASS_NAMES))
    one = share[share["n_labelled"] == 1]
    assert len(one) > 0
    assert (one["fraction_pyknotic"] == 1.0).all()


def test_votes_of_several_networks_are_counted_as_shares() -> None:
    votes = np.tile([0.5, 0.25, 0.25], (20, 1))
    cells = some_cells(vote_nk=votes)
    measured = measure_animals(cells, rows(cells), Counting(soft=False), n_draws=100, seed=0)
    np.testing.assert_allclose(measured.bounded.table["fraction_normal"], 0.5)
    np.testing.assert_allclose(measured.bounded.table["severity"], 0.375)


def test_every_animal_weighs_the_same_in_its_group_however_many_cells_it_has() -> None:
    cells = some_cells(region_n=None)
    measured = measure_animals(cells, rows(cells, regions=()), Counting(soft=False), n_draws=400, seed=0)
    means = {m.group: m for m in group_means(measured.free, CLASS_NAMES, groups=GROUPS, regions=(), seed=0)}
    own = measured.free.table.set_index("subject")["severity"]
    assert means["sham"].estimate["severity"] == pytest.approx((own["a"] + own["b"]) / 2)
    assert means[None].estimate["severity"] == pytest.approx(own.mean())
    assert (means["sham"].n_animals, means["sham"].n_cells, means[None].n_cells) == (2, 14, 20)


def test_the_mean_of_a_group_varies_as_means_of_animals_do() -> None:
    rng = np.random.default_rng(0)
    n_animals, n_cells = 40, 50
    share = rng.uniform(0.1, 0.9, n_animals)
    label = (rng.random((n_animals, n_cells)) < share[:, None]).astype(int).ravel()
    subject = np.repeat([f"a{i:02d}" for i in range(n_animals)], n_cells).tolist()
    cells = make_cells(one_hot(label, 3), subject)
    measured = measure_animals(cells, rows(cells, regions=()), Counting(soft=False), n_draws=2000, seed=0)
    (mean,) = group_means(measured.free, CLASS_NAMES, groups=(), regions=(), seed=0)
    per_animal = label.reshape(n_animals, n_cells).mean(axis=1)
    expected = per_animal.std() / np.sqrt(n_animals)
    assert mean.draws["fraction_intermediate"].std() == pytest.approx(expected, rel=0.05)
    low, high = ends(mean.draws["fraction_intermediate"], confidence=0.95, n_clusters=n_animals) or (0, 0)
    t_half = 2.0227 * per_animal.std(ddof=1) / np.sqrt(n_animals)  # Student's t, 39 degrees of freedom
    np.testing.assert_allclose([low, high], [per_animal.mean() - t_half, per_animal.mean() + t_half], atol=0.012)


def test_fractions_cut_off_at_zero_do_not_pull_means_of_animals_inwards() -> None:
    """A class of two percent, ten cells per animal: half of the corrected fractions are negative before the cut."""
    rng = np.random.default_rng(1)
    prior = [0.4, 0.4, 0.2]
    reference_label = rng.choice(3, 20_000, p=prior)
    units = [f"r{i % 20}" for i in range(20_000)]
    reference = make_reference(reference_label, units, bayes(reference_label, rng, prior=prior))
    n_animals = 250
    label = rng.choice(3, 10 * n_animals, p=[0.9, 0.08, 0.02])
    subject = np.repeat([f"a{i:03d}" for i in range(n_animals)], 10).tolist()
    cells = make_cells(bayes(label, rng, prior=prior), subject)
    correction = make_correction("probabilistic", reference, n_draws=100, seed=0)
    measured = measure_animals(cells, rows(cells, regions=()), correction, n_draws=100, seed=0)
    true = label.mean() / 2
    assert measured.bounded.table["severity"].mean() - true > 0.02
    (mean,) = group_means(measured.free, CLASS_NAMES, groups=(), regions=(), seed=0)
    assert mean.estimate["severity"] == pytest.approx(true, abs=0.013)  # two standard errors
    assert (measured.bounded.table["fraction_pyknotic"] >= 0).all()
    assert (measured.free.table["fraction_pyknotic"] < 0).any()


def test_an_animal_of_one_cell_has_no_interval() -> None:
    cells = make_cells(one_hot(np.array([0, 1, 2, 2]), 3), ["a", "b", "b", "b"])
    listed = rows(cells, regions=())
    measured = measure_animals(cells, listed, Counting(soft=False), n_draws=200, seed=0)
    found = row_intervals(measured.bounded, listed, confidence=0.95, n_reference=None)
    assert found["severity"][0] is None
    assert found["severity"][1] is not None


def test_intervals_reach_further_out_for_few_reference_animals() -> None:
    label = np.arange(90) % 3
    cells = make_cells(one_hot(label, 3), ["a"] * 90)
    listed = rows(cells, regions=())
    measured = measure_animals(cells, listed, Counting(soft=False), n_draws=2000, seed=0)
    widths = []
    for n_reference in (None, 5):
        low, high = row_intervals(measured.bounded, listed, confidence=0.95, n_reference=n_reference)["severity"][
            0
        ] or (0, 0)
        widths.append(high - low)
    assert widths[1] > 1.3 * widths[0]


def test_animals_do_not_share_the_draws_of_their_cells_but_share_those_of_the_reference() -> None:
    """Reference animals of different stain, so that every animal's draws hold a deviation of its own."""
    rng = np.random.default_rng(2)
    prior = [0.4, 0.4, 0.2]
    label = rng.choice(3, 2000, p=prior)
    stained = label + np.repeat(0.5 * rng.standard_normal(20), 100)
    units = np.repeat([f"r{i}" for i in range(20)], 100).tolist()
    reference = make_reference(label, units, bayes(stained, rng, prior=prior))
    prob = np.tile(bayes(rng.choice(3, 60, p=prior), rng, prior=prior), (2, 1))
    cells = make_cells(prob, ["a"] * 60 + ["b"] * 60)
    correction = make_correction("probabilistic", reference, n_draws=800, seed=0)
    measured = measure_animals(cells, rows(cells, regions=()), correction, n_draws=800, seed=0).free
    shared = measured.shared["severity"]
    np.testing.assert_allclose(shared[:, 0], shared[:, 1])
    own = measured.draws["severity"] - shared
    assert abs(np.corrcoef(own[:, 0], own[:, 1])[0, 1]) < 0.1
