"""Names of measures and the tables that carry them."""

from __future__ import annotations

import numpy as np
from tests.evaluate.quantify.worlds import make_cells

from perikarya.evaluate.quantify.cells import SEVERITY, fraction_measure, one_hot
from perikarya.evaluate.quantify.correction import Counting
from perikarya.evaluate.quantify.fractions import measure_animals
from perikarya.evaluate.quantify.tally import rows_of


def test_the_table_and_the_draws_name_the_same_measures_in_the_order_of_the_classes() -> None:
    cells = make_cells(one_hot(np.array([0, 1, 2, 1]), 3), ["a", "a", "b", "b"])
    rows = rows_of(cells, groups=(), regions=(), seed=0)
    damage = measure_animals(cells, rows, Counting(soft=False), n_draws=50, seed=0).bounded
    measures = [fraction_measure(name) for name in cells.class_names] + [SEVERITY]
    assert measures == ["fraction_normal", "fraction_intermediate", "fraction_pyknotic", "severity"]
    assert list(damage.table.columns) == ["subject", "group", "region", "n_cells", *measures]
    assert list(damage.draws) == list(damage.shared) == measures
    assert {draws.shape for draws in [*damage.draws.values(), *damage.shared.values()]} == {(50, 2)}
    assert damage.table["group"].isna().all()
