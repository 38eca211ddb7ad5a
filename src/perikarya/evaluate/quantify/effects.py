"""What a treatment does to the damage: each animal is one value per region, and animals are what gets resampled.

Three statements per pair of groups, region and measure: a difference of the animals' means (with the ratio of means
and Cliff's delta) and its interval, a permutation test of the group labels, and Holm's correction over the regions.
Cells never count as independent; ``benchmarks/simulate_effects.py`` shows what happens when they do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import norm
from scipy.stats import t as student_t

from perikarya.errors import DataError, UnknownNameError
from perikarya.evaluate.best import holm
from perikarya.evaluate.metrics import Floats
from perikarya.evaluate.quantify.cells import (
    ALL_REGIONS,
    SEVERITY,
    AnimalDamage,
    fraction_measure,
)
from perikarya.evaluate.quantify.mixed import mixed_models
from perikarya.evaluate.quantify.permutation import permutation_test
from perikarya.evaluate.quantify.tally import Tally
from perikarya.evaluate.stats import MIN_CLUSTERS, MIN_DEFINED, SAME
from perikarya.evaluate.summary import finite
from perikarya.settings import QuantifyConfig

MIN_ANIMALS = MIN_CLUSTERS  # per group, for an interval or a p value
PRIMARY = "permutation of the animals' group labels, studentised difference of means"


@dataclass(frozen=True)
class TwoGroups:
    """The animals of two groups, one value each, of one measure in one region.

    Attributes
    ----------
    group_n, reference_n
        Shape (n_animals of the group,).
    group_dn, reference_dn
        Shape (n_draws, n_animals of the group): the same values in joint draws of the error that all animals share;
        one row, the values themselves, where there is none.
    """

    group_n: Floats
    reference_n: Floats
    group_dn: Floats
    reference_dn: Floats

    @property
    def smallest(self) -> int:
        """Number of animals of the smaller group."""
        return min(len(self.group_n), len(self.reference_n))


def treatment_effects(
    damage: AnimalDamage, tally: Tally, settings: QuantifyConfig, *, group_names: Sequence[str] = ()
) -> dict[str, Any]:
    """Compare every pair of groups in every region, in severity and in the fraction of the last class.

    Parameters
    ----------
    damage
        One row per animal and region. Animals without a group, and values that do not exist, are left out and counted.
    tally
        The sums behind it, for the mixed models.
    settings
        Its ``control`` is the reference of every pair it belongs to.
    group_names
        The study's order of groups: the earlier one of a pair is its reference. Groups not named come after them in
        their order in the table.

    Returns
    -------
    Ready for JSON. ``comparisons`` holds for each pair ``effects`` (one entry per measure and region: ``difference``,
    ``ratio``, ``cliffs_delta`` with ``estimate`` and ``ci95``, ``p``, ``p_holm``, ``p_smallest``, ``reason``) and
    ``models``, the second opinion of ``mixed.mixed_models``. Differences are group minus reference.

    Raises
    ------
    DataError
        If an animal belongs to two groups or stands twice in a region.
    UnknownNameError
        If the control is not a group.
    """
    groups = group_order(damage.table, settings.control, group_names)
    measures = [SEVERITY, fraction_measure(tally.class_names[-1])]
    comparisons = []
    for reference, group in combinations(groups, 2):
        comparisons.append(
            {
                "group": group,
                "reference": reference,
                "effects": [e for m in measures for e in _over_regions(damage, m, group, reference, settings)],
                "models": mixed_models(tally, group=group, reference=reference, confidence=settings.confidence),
            }
        )
    per_group = damage.table.groupby("group")["subject"].nunique()
    return {
        "unit": "animal",
        "primary": PRIMARY,
        "groups": {name: int(per_group[name]) for name in groups},
        "n_animals_without_group": int(damage.table["subject"].nunique() - per_group.sum()),
        "control": groups[0] if groups else None,
        "measures": measures,
        "confidence": settings.confidence,
        "comparisons": comparisons,
        "reason": None if len(groups) > 1 else "a treatment effect needs two groups of animals or more",
    }


def group_order(table: pd.DataFrame, control: str | None, group_names: Sequence[str] = ()) -> list[str]:
    """Return the groups that have animals, the control first; check that each animal belongs to one of them."""
    if table.duplicated(["subject", "region"]).any():
        twice = table.loc[table.duplicated(["subject", "region"]), ["subject", "region"]].iloc[0]
        raise DataError(
            f"Animal {twice['subject']} has two rows of damage in region {twice['region']}.\n"
            "An animal that counts twice makes every effect look surer than it is. Fix: one row per animal and region."
        )
    grouped = table.dropna(subset=["group"])
    n_groups = grouped.groupby("subject", sort=True)["group"].nunique()
    if (n_groups > 1).any():
        subject = n_groups.index[n_groups > 1][0]
        found = ", ".join(sorted(grouped.loc[grouped["subject"] == subject, "group"].astype(str).unique()))
        raise DataError(
            f"Animal {subject} belongs to more than one group ({found}).\n"
            "Groups are compared animal by animal, so each animal must have had one treatment.\n"
            "Fix: correct the group in the study's metadata, or give the two animals different names."
        )
    present = [str(name) for name in grouped["group"].unique()]
    ordered = [name for name in group_names if name in present]
    ordered += [name for name in present if name not in ordered]
    if control is None:
        return ordered
    if control not in ordered:
        raise UnknownNameError("group of animals (setting quantify.control)", control, ordered)
    return [control, *(name for name in ordered if name != control)]


def animals_of(damage: AnimalDamage, measure: str, region: str, group: str, reference: str) -> TwoGroups:
    """Take the animals of two groups out of the table, sorted by name, those without a value left out."""
    table = damage.table.reset_index(drop=True)
    rows = table[(table["region"] == region) & table[measure].notna()].sort_values("subject")
    found = []
    for name in (group, reference):
        index = rows.index[rows["group"] == name].to_numpy()
        value_n = table[measure].to_numpy(dtype=np.float64)[index]
        draws = damage.shared.get(measure)
        found.append((value_n, value_n[None] if draws is None or len(draws) == 0 else draws[:, index]))
    return TwoGroups(found[0][0], found[1][0], found[0][1], found[1][1])


def regions_of(table: pd.DataFrame) -> list[str]:
    """Return the regions of a damage table, all regions together first."""
    names = [str(name) for name in table["region"].unique()]
    return [name for name in names if name == ALL_REGIONS] + [name for name in names if name != ALL_REGIONS]


def _over_regions(
    damage: AnimalDamage, measure: str, group: str, reference: str, settings: QuantifyConfig
) -> list[dict[str, Any]]:
    effects = []
    for region in regions_of(damage.table):
        animals = animals_of(damage, measure, region, group, reference)
        effects.append({"measure": measure, "region": region, **_effect(animals, settings)})
    # all regions together is one question of its own; the regions are a family of them
    family = [e for e in effects if e["region"] != ALL_REGIONS and e["p"] is not None]
    for effect, p_holm in zip(family, holm([e["p"] for e in family]), strict=True):
        effect["p_holm"] = float(p_holm)
    return effects


def _effect(animals: TwoGroups, settings: QuantifyConfig) -> dict[str, Any]:
    found: dict[str, Any] = {
        "n_group": len(animals.group_n),
        "n_reference": len(animals.reference_n),
        "mean_group": _mean(animals.group_n),
        "mean_reference": _mean(animals.reference_n),
    }
    found |= effect_sizes(animals, n_draws=settings.n_bootstrap, confidence=settings.confidence, seed=settings.seed)
    found |= {"p": None, "p_holm": None, "p_smallest": None, "n_labelings": None, "exact": None, "reason": None}
    if animals.smallest < MIN_ANIMALS:
        found["reason"] = (
            f"{len(animals.group_n)} and {len(animals.reference_n)} animals: a test and an interval "
            f"need {MIN_ANIMALS} in each group"
        )
        return found
    found |= permutation_test(
        animals.group_n, animals.reference_n, n_permutations=settings.n_permutations, seed=settings.seed
    )
    found["p_holm"] = found["p"]  # over the regions: set by the caller
    return found


def _mean(value_n: Floats) -> float | None:
    return float(value_n.mean()) if len(value_n) else None


def effect_sizes(animals: TwoGroups, *, n_draws: int, confidence: float, seed: int) -> dict[str, Any]:
    """Estimate difference and ratio of the animals' means and Cliff's delta, each with its interval.

    A draw takes animals with replacement within each group and reads their values from one joint draw of the error
    they share. The percentiles are taken further out than usual, as ``stats.percentile_interval`` does for one mean
    (Hesterberg 2015, The American Statistician 69:371), here for a difference of two: Student's t with Welch's degrees
    of freedom, times the ratio of the standard error to the spread of the draws, which dividing by n instead of n - 1
    makes too small.

    Cliff's delta (1993, doi:10.1037/0033-2909.114.3.494) is the chance that an animal of the group has more damage than
    one of the reference, less the chance of the reverse.
    """
    names = ("difference", "ratio", "cliffs_delta")
    if animals.smallest == 0:
        return {name: {"estimate": None, "ci95": None} for name in names}
    ones = np.ones((1, len(animals.group_n))), np.ones((1, len(animals.reference_n)))
    estimates = _sizes(animals.group_n[None], animals.reference_n[None], *ones)
    if animals.smallest < MIN_ANIMALS:
        return {name: {"estimate": finite(estimates[name][0]), "ci95": None} for name in names}
    rng = np.random.default_rng([seed, len(animals.group_n), len(animals.reference_n)])
    counts = [_animal_draws(len(v), n_draws, rng) for v in (animals.group_n, animals.reference_n)]
    row_b = rng.integers(0, len(animals.group_dn), n_draws)
    drawn = _sizes(animals.group_dn[row_b], animals.reference_dn[row_b], *counts)
    tail = _tail(animals, confidence)
    return {
        name: {"estimate": finite(estimates[name][0]), "ci95": _interval(drawn[name], tail) if tail else None}
        for name in names
    }


def _animal_draws(n: int, n_draws: int, rng: np.random.Generator) -> Floats:
    return rng.multinomial(n, np.full(n, 1 / n), n_draws).astype(np.float64)


def _sizes(group_bn: Floats, reference_bn: Floats, group_counts: Floats, reference_counts: Floats) -> dict[str, Floats]:
    n_group, n_reference = group_bn.shape[1], reference_bn.shape[1]
    mean = (group_counts * group_bn).sum(1) / n_group
    reference_mean = (reference_counts * reference_bn).sum(1) / n_reference
    wins = np.zeros(len(group_bn))
    for i in range(n_group):  # one animal at a time: all pairs of all draws would not fit into memory
        outcome = np.sign(group_bn[:, i : i + 1] - reference_bn)
        wins += group_counts[:, i] * (reference_counts * outcome).sum(1)
    positive = reference_mean > SAME  # corrected fractions may fall below zero, ratios may not
    return {
        "difference": mean - reference_mean,
        "ratio": np.where(positive, np.maximum(mean, 0.0) / np.where(positive, reference_mean, 1.0), np.nan),
        "cliffs_delta": wins / (n_group * n_reference),
    }


def _tail(animals: TwoGroups, confidence: float) -> float | None:
    """Return the share of draws beyond each end of the interval; None where nothing varies."""
    n = np.array([len(animals.group_n), len(animals.reference_n)])
    between = np.array([animals.group_n.var(ddof=1), animals.reference_n.var(ddof=1)]) / n
    shared = float((animals.group_dn.mean(1) - animals.reference_dn.mean(1)).var())
    total = between.sum() + shared
    if total < SAME**2 or between.sum() < SAME**2:
        return None
    degrees = (
        total**2 / (between**2 / (n - 1)).sum()
    )  # Welch 1947; the shared error is known, as if from infinitely many
    spread = (between * (n - 1) / n).sum() + shared
    quantile = float(student_t.ppf(0.5 + confidence / 2, degrees))
    return float(norm.cdf(-quantile * np.sqrt(total / spread)))


def _interval(draws_b: Floats, tail: float) -> list[float] | None:
    defined = draws_b[np.isfinite(draws_b)]
    if len(defined) < MIN_DEFINED * len(draws_b) or float(np.ptp(defined)) < SAME:
        return None
    low, high = np.quantile(defined, [tail, 1.0 - tail])
    return [float(low), float(high)]
