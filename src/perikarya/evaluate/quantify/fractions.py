"""Class fractions and severity per animal and region, and their means over animals, each with an interval.

An animal's own interval speaks of that animal: another sample of its cells, another set of reference animals, and the
way the network may err on this very animal. Groups are means over animals, never over pooled cells, and their intervals
resample animals.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from perikarya.errors import DataError
from perikarya.evaluate.metrics import Floats, Ints
from perikarya.evaluate.quantify.cells import (
    ALL_REGIONS,
    SEVERITY,
    AnimalDamage,
    PredictedCells,
    Texts,
    fraction_measure,
)
from perikarya.evaluate.quantify.correction import Correction, Fitted, Fractions, Sample
from perikarya.evaluate.quantify.severity import severity_of
from perikarya.evaluate.quantify.simplex import project
from perikarya.evaluate.stats import CELL, IMAGE, MIN_CLUSTERS, draw_counts, percentile_interval
from perikarya.schema import NO_LABEL

MAX_PARTS = 400  # cells of one animal and region are resampled one by one up to here, beyond in so many random parts
_SEED_STEP = 1_000_003  # keeps the draws of rows, groups and reference animals apart


@dataclass(frozen=True)
class Row:
    """One animal and region: which cells, and what is resampled within them."""

    subject: str
    group: str | None
    region: str
    cell_n: Ints
    unit: str
    part_n: Ints
    n_parts: int


def rows_of(cells: PredictedCells, *, groups: Sequence[str], regions: Sequence[str], seed: int) -> list[Row]:
    """List the animals in order of their groups, each with its regions and then with all cells pooled.

    Raises
    ------
    DataError
        If a cell has no animal, an animal has two groups, or a region is called ``all``.
    """
    _check_animals(cells)
    if ALL_REGIONS in regions:
        raise DataError(f"A region is called '{ALL_REGIONS}', the name of all regions together. Fix: rename it.")
    rank = {name: i for i, name in enumerate(groups)}
    group_of = dict(zip(cells.subject_n, cells.group_n, strict=True)) if cells.group_n is not None else {}
    by_animal = pd.Series(np.arange(len(cells.subject_n))).groupby(cells.subject_n.astype(str)).indices
    subjects = sorted(map(str, by_animal), key=lambda s: (rank.get(str(group_of.get(s)), len(rank)), s))
    rng = np.random.default_rng(seed)
    rows = []
    for subject in subjects:
        own_n = np.asarray(by_animal[subject], np.int64)
        parts = [(ALL_REGIONS, own_n)]
        if cells.region_n is not None:
            region_n = cells.region_n[own_n]
            parts = [(r, own_n[region_n == r]) for r in regions if (region_n == r).any()] + parts
        for region, cell_n in parts:
            unit, part_n, n_parts = _parts(cells.image_n[cell_n], rng)
            rows.append(Row(subject, group_of.get(subject), region, cell_n, unit, part_n, n_parts))
    return rows


def _check_animals(cells: PredictedCells) -> None:
    unknown_n = pd.isna(cells.subject_n)
    if unknown_n.any():
        raise DataError(
            f"{int(unknown_n.sum())} of {len(unknown_n)} cell(s) to be counted have no subject.\n"
            "The animal is the unit of every damage figure; cells without one cannot be placed.\n"
            "Fix: give the animals when the study is imported (--metadata), or a column 'subject' in the table."
        )
    if cells.group_n is None:
        return
    n_groups = pd.Series(cells.group_n).groupby(cells.subject_n.astype(str)).nunique(dropna=False)
    if (n_groups > 1).any():
        raise DataError(
            f"Animal {n_groups.index[n_groups > 1][0]} has cells in {int(n_groups.max())} groups.\n"
            "An animal has one treatment. Fix: correct its group, or give the animals different names."
        )


def _parts(image_n: Texts, rng: np.random.Generator) -> tuple[str, Ints, int]:
    """Choose what is resampled within an animal: its images where there are three or more, else its cells."""
    names, part_n = np.unique(image_n.astype(str), return_inverse=True)
    if len(names) >= MIN_CLUSTERS and len(names) < len(image_n):
        return IMAGE, part_n.astype(np.int64), len(names)
    n_parts = min(len(image_n), MAX_PARTS)
    return CELL, rng.permutation(len(image_n)) % n_parts, n_parts


@dataclass(frozen=True)
class Measured:
    """Damage of every row: ``bounded`` to possible fractions, to be shown; ``free``, to be averaged and compared."""

    bounded: AnimalDamage
    free: AnimalDamage


def measure_animals(
    cells: PredictedCells, rows: Sequence[Row], correction: Correction, *, n_draws: int, seed: int
) -> Measured:
    """Estimate fractions and severity of every row with draws of their error.

    An animal that is among the reference is corrected by the other animals only.
    """
    vote_nk = votes_of(cells)
    fits: dict[str | None, Fitted] = {}
    found = []
    for i, row in enumerate(rows):
        left_out = row.subject if row.subject in correction.animals else None
        if left_out not in fits:
            fits[left_out] = correction.without(left_out)
        own_seed = seed + _SEED_STEP * (i + 1)
        counts = draw_counts(row.n_parts, n_draws=n_draws, seed=own_seed)
        sample = Sample(cells.prob_nk[row.cell_n], vote_nk[row.cell_n], row.part_n, counts, own_seed)
        found.append(fits[left_out].correct(sample))
    return Measured(
        _animal_damage([f.bounded for f in found], rows, cells.class_names),
        _animal_damage([f.free for f in found], rows, cells.class_names),
    )


def _animal_damage(found: Sequence[Fractions], rows: Sequence[Row], class_names: Sequence[str]) -> AnimalDamage:
    table = pd.DataFrame(
        {
            "subject": [r.subject for r in rows],
            "group": pd.Series([r.group for r in rows], dtype=object),
            "region": [r.region for r in rows],
            "n_cells": [len(r.cell_n) for r in rows],
            **by_measure(np.stack([f.point_k for f in found]), class_names),
        }
    )
    draws = by_measure(np.stack([f.draws_bk for f in found], axis=1), class_names)
    shared = by_measure(np.stack([f.shared_bk for f in found], axis=1), class_names)
    return AnimalDamage(table, draws, shared)


def by_measure(fraction_k: Floats, class_names: Sequence[str]) -> dict[str, Floats]:
    """Split fractions, shape (..., n_classes), into one array per class and one of their severity."""
    fractions = {fraction_measure(name): fraction_k[..., k] for k, name in enumerate(class_names)}
    return fractions | {SEVERITY: severity_of(fraction_k)}


def votes_of(cells: PredictedCells) -> Floats:
    """Return the share of networks that rank each class first, shape (n_cells, n_classes)."""
    if cells.vote_nk is not None:
        return cells.vote_nk
    return one_hot(cells.prob_nk.argmax(axis=1), cells.prob_nk.shape[1])


def one_hot(code_n: Ints, n_classes: int) -> Floats:
    """Return rows with a single 1, shape (n_cells, n_classes)."""
    return np.asarray(np.eye(n_classes)[code_n])


def labelled_shares(cells: PredictedCells, rows: Sequence[Row]) -> pd.DataFrame:
    """Return fractions and severity by labels for every row, and ``n_labelled``; NaN where no cell has a label."""
    n_classes = len(cells.class_names)
    share_rk = np.full((len(rows), n_classes), np.nan)
    n_labelled = np.zeros(len(rows), dtype=np.int64)
    for i, row in enumerate(rows):
        label_n = cells.label_n[row.cell_n]
        label_n = label_n[label_n != NO_LABEL]
        n_labelled[i] = len(label_n)
        if len(label_n):
            share_rk[i] = np.bincount(label_n, minlength=n_classes) / len(label_n)
    return pd.DataFrame({"n_labelled": n_labelled, **by_measure(share_rk, cells.class_names)})


def counted_shares(cells: PredictedCells, rows: Sequence[Row]) -> pd.DataFrame:
    """Return fractions and severity by predicted labels, uncorrected, for every row."""
    share_rk = np.stack([votes_of(cells)[row.cell_n].mean(axis=0) for row in rows])
    return pd.DataFrame(by_measure(share_rk, cells.class_names))


Ends = list[float] | None  # of an interval


def row_intervals(
    damage: AnimalDamage, rows: Sequence[Row], *, confidence: float, n_reference: int | None
) -> dict[str, list[Ends]]:
    """Return the interval of every measure and row; None for a single cell or where all draws agree.

    The tails are taken as far out as the smaller of two numbers asks: parts resampled, reference animals.
    """
    n_clusters = [min(r.n_parts, n_reference or r.n_parts) for r in rows]
    return {
        measure: [ends(draws_br[:, i], confidence=confidence, n_clusters=n) for i, n in enumerate(n_clusters)]
        for measure, draws_br in damage.draws.items()
    }


def ends(draws_b: Floats, *, confidence: float, n_clusters: int) -> Ends:
    """Return the expanded percentile interval of ``n_clusters`` resampled things; None where one says nothing."""
    found = percentile_interval(draws_b, confidence=confidence, n_clusters=n_clusters) if n_clusters > 1 else None
    return None if found is None else [found[0], found[1]]


@dataclass(frozen=True)
class GroupMean:
    """The mean over the animals of one group and region: the estimate and the draws behind its interval."""

    group: str | None
    region: str
    n_animals: int
    n_cells: int
    estimate: dict[str, float]
    draws: dict[str, Floats]


def group_means(
    free: AnimalDamage, class_names: Sequence[str], *, groups: Sequence[str], regions: Sequence[str], seed: int
) -> list[GroupMean]:
    """Average over the animals of every group and region, and over those of all groups (``group`` None).

    A draw takes animals with replacement and, for all of them, one draw of the correction's error. Means are bounded to
    possible fractions; the animals' values they are made of are ``Measured.free``.
    """
    table = free.table
    share_rk = table[[fraction_measure(name) for name in class_names]].to_numpy(np.float64)
    shared_brk = np.stack([free.shared[fraction_measure(name)] for name in class_names], axis=2)
    scopes: list[str | None] = [*groups, None]
    found = []
    for g, group in enumerate(scopes):
        of_group = (table["group"] == group).to_numpy(bool) if group is not None else np.ones(len(table), bool)
        for region in [*regions, ALL_REGIONS]:
            member = np.flatnonzero(of_group & (table["region"] == region).to_numpy(bool))
            if not len(member):
                continue
            counts_ba = draw_counts(len(member), n_draws=len(shared_brk), seed=seed + _SEED_STEP * (g + 1))
            drawn_bk = np.einsum("ba,bak->bk", counts_ba, shared_brk[:, member]) / len(member)
            mean_k = project(share_rk[member].mean(axis=0)[None])[0]
            found.append(
                GroupMean(
                    group=group,
                    region=region,
                    n_animals=len(member),
                    n_cells=int(table["n_cells"].to_numpy()[member].sum()),
                    estimate={m: float(v) for m, v in by_measure(mean_k, class_names).items()},
                    draws=by_measure(project(drawn_bk), class_names),
                )
            )
    return found
