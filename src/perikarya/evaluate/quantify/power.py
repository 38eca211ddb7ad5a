"""The next study: how many animals it needs, and what so many animals can show.

Animals are the sample. Their spread in one region holds what differs between animals and the error of counting a
sample of each animal's cells; the latter's share is told, for only it falls with more cells per animal.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import combinations
from math import sqrt
from typing import Any

import numpy as np
import pandas as pd
from scipy.optimize import brentq
from scipy.stats import chi2, nct, norm
from scipy.stats import t as student_t

from perikarya.evaluate.quantify.cells import SEVERITY, AnimalDamage, fraction_measure
from perikarya.evaluate.quantify.effects import MIN_ANIMALS, TwoGroups, animals_of, group_order, regions_of
from perikarya.evaluate.stats import SAME
from perikarya.settings import QuantifyConfig

POWERS = (0.8, 0.9)
DIFFERENCES = (0.05, 0.1, 0.2)  # on the scale of severity and of fractions, 0 to 1
GROUP_SIZES = tuple(range(4, 21))
MOST_ANIMALS = 1000  # per group; beyond that the answer is "no such study"
_ONE_SIDED = 6.0  # non-centrality from which the wrong side adds less than 1e-11 (and scipy's tail may be NaN)
_FRACTION = fraction_measure("")
CIRCULAR = (
    "Power at the observed difference is circular: it is the p value in another form, and a difference that was "
    "significant is on average too large (Hoenig & Heisey 2001, doi:10.1198/000313001300339897). "
    "Plan with the smallest difference that would matter."
)


def power_block(
    damage: AnimalDamage,
    settings: QuantifyConfig,
    *,
    group_names: Sequence[str] = (),
    differences: Sequence[float] = DIFFERENCES,
    cells_per_animal: int | None = None,
) -> dict[str, Any]:
    """Plan the next study of every pair of groups, region and measure.

    Parameters
    ----------
    damage
        One row per animal and region, of the study just done.
    settings
        The level is 1 - ``confidence``.
    group_names
        As in ``effects.treatment_effects``.
    differences
        Between the means of two groups, to plan for beside the observed one and half of it.
    cells_per_animal
        How many cells per animal and region the next study will have; None: as many as this one.

    Returns
    -------
    Ready for JSON. Per comparison, measure and region: ``sd`` between animals with its interval (chi-square),
    ``counting_share``, ``animals_per_group`` (for each difference and power the number and its range over the interval
    of the SD; None where more than ``most_animals``) and ``detectable`` (the smallest difference found with 80 % power
    by 4 to 20 animals per group).
    """
    fractions = [str(c) for c in damage.table.columns if str(c).startswith(_FRACTION)]
    level = 1 - settings.confidence
    comparisons = []
    for reference, group in combinations(group_order(damage.table, settings.control, group_names), 2):
        plans = []
        for measure in (SEVERITY, *fractions[-1:]):
            for region in regions_of(damage.table):
                animals = animals_of(damage, measure, region, group, reference)
                rows = damage.table[
                    (damage.table["region"] == region) & damage.table["group"].isin([group, reference])
                ].dropna(subset=[measure])
                plan = _plan(animals, _counting(rows, measure, fractions), differences, level, cells_per_animal)
                plans.append({"measure": measure, "region": region, **plan})
        comparisons.append({"group": group, "reference": reference, "plans": plans})
    return {
        "test": "two-sided t test of the animals' values, groups of one size, one region",
        "level": level,
        "powers": list(POWERS),
        "most_animals": MOST_ANIMALS,
        "warning": CIRCULAR,
        "comparisons": comparisons,
    }


def _counting(rows: pd.DataFrame, measure: str, fractions: Sequence[str]) -> tuple[float, float]:
    """Return the mean number of cells of the animals and the mean variance of their values from counting them.

    Counting draws cells of each animal from its fractions, as a multinomial; likeness within images and the
    correction add to it, so the variance is a lower bound.
    """
    share_nk = rows[list(fractions)].to_numpy(dtype=np.float64)
    score_k = np.linspace(0, 1, len(fractions)) if measure == SEVERITY else np.array([f == measure for f in fractions])
    per_cell = share_nk @ score_k**2 - (share_nk @ score_k) ** 2
    n_cells = rows["n_cells"].to_numpy(dtype=np.float64)
    if len(rows) == 0:
        return float("nan"), 0.0
    return float(n_cells.mean()), float(np.nanmean(np.clip(per_cell, 0, None) / n_cells))


def _plan(
    animals: TwoGroups,
    counting: tuple[float, float],
    differences: Sequence[float],
    level: float,
    cells_per_animal: int | None,
) -> dict[str, Any]:
    plan: dict[str, Any] = {"n_group": len(animals.group_n), "n_reference": len(animals.reference_n)}
    empty: dict[str, Any] = {"sd": None, "counting_share": None, "animals_per_group": [], "detectable": []}
    if animals.smallest < MIN_ANIMALS:
        return plan | empty | {"reason": f"a spread between animals needs {MIN_ANIMALS} of them in each group"}
    degrees = len(animals.group_n) + len(animals.reference_n) - 2
    squares = sum(float(((v - v.mean()) ** 2).sum()) for v in (animals.group_n, animals.reference_n))
    if squares < SAME:
        return plan | empty | {"reason": "the animals of a group do not differ, so their spread is unknown"}
    sd, counted = sqrt(squares / degrees), min(1.0, counting[1] * degrees / squares)
    next_sd = sd if cells_per_animal is None else sd * sqrt(1 - counted + counted * counting[0] / cells_per_animal)
    low, high = sd_interval(next_sd, degrees, level=level)
    observed = float(animals.group_n.mean() - animals.reference_n.mean())
    asked = [("observed", observed), ("half of the observed", observed / 2), *(("given", d) for d in differences)]
    return plan | {
        "cells_per_animal": cells_per_animal or counting[0],
        "sd": {"estimate": next_sd, "ci95": [low, high]},
        "counting_share": counted,
        "animals_per_group": [
            {"what": what, "difference": d, "power": power, **_sizes(d, (next_sd, low, high), power, level)}
            for what, d in asked
            for power in POWERS
        ],
        "detectable": [_detectable(n, (next_sd, low, high), level) for n in GROUP_SIZES],
        "reason": None,
    }


def _sizes(difference: float, sds: tuple[float, float, float], power: float, level: float) -> dict[str, Any]:
    n, fewest, most = (animals_per_group(difference / sd, power=power, level=level) for sd in sds)
    return {"n": n, "ci95": [fewest, most]}


def _detectable(n: int, sds: tuple[float, float, float], level: float) -> dict[str, Any]:
    difference, low, high = (detectable_effect(n, power=POWERS[0], level=level) * sd for sd in sds)
    return {"n": n, "difference": difference, "ci95": [low, high]}


def sd_interval(sd: float, degrees: int, *, level: float) -> tuple[float, float]:
    """Return the interval of a standard deviation of normal values with so many degrees of freedom."""
    low, high = (sd * sqrt(degrees / float(chi2.ppf(tail, degrees))) for tail in (1 - level / 2, level / 2))
    return low, high


def power_of(effect: float, n: int, *, level: float) -> float:
    """Return the power of a two-sided t test of two groups of ``n`` animals.

    ``effect`` is the difference of the means over the standard deviation between animals. Noncentral t: Cohen 1988,
    Statistical Power Analysis for the Behavioral Sciences, section 2.
    """
    degrees, centre = 2 * (n - 1), abs(effect) * sqrt(n / 2)
    limit = float(student_t.ppf(1 - level / 2, degrees))
    wrong_side = float(nct.cdf(-limit, degrees, centre)) if centre < _ONE_SIDED else 0.0
    return float(nct.sf(limit, degrees, centre)) + wrong_side


def animals_per_group(effect: float, *, power: float, level: float) -> int | None:
    """Return the fewest animals per group that reach a power; None if more than ``MOST_ANIMALS``."""
    known_spread = 2 * ((norm.ppf(1 - level / 2) + norm.ppf(power)) / max(abs(effect), SAME)) ** 2  # always too few
    if known_spread > MOST_ANIMALS:
        return None
    n = max(2, int(known_spread))
    while n <= MOST_ANIMALS and power_of(effect, n, level=level) < power:
        n += 1
    return n if n <= MOST_ANIMALS else None


@lru_cache(maxsize=256)
def detectable_effect(n: int, *, power: float, level: float) -> float:
    """Return the smallest effect, in standard deviations, that ``n`` animals per group find with this power."""
    limit = float(student_t.ppf(1 - level / 2, 2 * (n - 1)))
    largest = (3 * limit + 10) / sqrt(n / 2)
    return float(brentq(lambda effect: power_of(effect, n, level=level) - power, 0.0, largest))
