"""Class fractions and severity per animal and region, and their means over animals, each with an interval.

An animal's own interval speaks of that animal: another sample of its cells, another set of reference animals, and the
way the network may err on this very animal. Groups are means over animals, never over pooled cells, and their intervals
resample animals.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import repeat

import numpy as np
import pandas as pd

from perikarya.evaluate.metrics import Floats, Ints
from perikarya.evaluate.quantify.cells import ALL_REGIONS, SEVERITY, AnimalDamage, Cells, fraction_measure
from perikarya.evaluate.quantify.correction import Correction, Fractions, Sample
from perikarya.evaluate.quantify.severity import severity_of
from perikarya.evaluate.quantify.simplex import project
from perikarya.evaluate.quantify.survey import Survey, survey_of
from perikarya.evaluate.quantify.tally import Row, Tally, cells_of_rows
from perikarya.evaluate.stats import draw_counts, percentile_interval

_SEED_STEP = 1_000_003  # keeps the draws of rows, groups and reference animals apart


@dataclass(frozen=True)
class Measured:
    """Damage of every row: ``bounded`` to possible fractions, to be shown; ``free``, to be averaged and compared."""

    bounded: AnimalDamage
    free: AnimalDamage


def measure_animals(
    cells: Cells,
    rows: Sequence[Row],
    correction: Correction,
    *,
    n_draws: int,
    seed: int,
    survey: Survey | None = None,
) -> Measured:
    """Estimate fractions and severity of every row with draws of their error.

    An animal that is among the reference is corrected by the other animals only. The cells are gone over again only for
    a correction that needs them; ``seed`` and ``survey`` are those of ``tally.rows_of``.
    """
    animals = correction.animals
    fit = lru_cache(maxsize=2)(correction.without)  # rows of one animal follow each other
    found = []
    for i, sample in enumerate(_samples(cells, rows, correction, n_draws=n_draws, seed=seed, survey=survey)):
        subject = rows[i].subject
        found.append(fit(subject if subject in animals else None).correct(sample))
    return Measured(
        _animal_damage([f.bounded for f in found], rows, cells.class_names),
        _animal_damage([f.free for f in found], rows, cells.class_names),
    )


def _samples(
    cells: Cells, rows: Sequence[Row], correction: Correction, *, n_draws: int, seed: int, survey: Survey | None
) -> Iterator[Sample]:
    """Yield what is to be corrected of each row."""
    held: Iterator[tuple[Floats | None, Ints | None]] = repeat((None, None))
    if correction.needs_cells:
        held = cells_of_rows(cells, rows, survey=survey or survey_of(cells), seed=seed)
    for i, (row, (prob_nk, part_n)) in enumerate(zip(rows, held, strict=False)):
        own_seed = seed + _SEED_STEP * (i + 1)
        counts = draw_counts(row.n_parts, n_draws=n_draws, seed=own_seed)
        yield Sample(row.n_u, row.prob_uk, row.vote_uk, counts, own_seed, prob_nk, part_n)


def _animal_damage(found: Sequence[Fractions], rows: Sequence[Row], class_names: Sequence[str]) -> AnimalDamage:
    table = pd.DataFrame(
        {
            "subject": [r.subject for r in rows],
            "group": pd.Series([r.group for r in rows], dtype=object),
            "region": [r.region for r in rows],
            "n_cells": [r.n_cells for r in rows],
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


def labelled_shares(tally: Tally) -> pd.DataFrame:
    """Return fractions and severity by labels for every row, and ``n_labelled``; NaN where no cell has a label."""
    label_rk = np.stack([row.label_k for row in tally.rows]).astype(np.float64)
    n_labelled = label_rk.sum(axis=1)
    share_rk = label_rk / np.where(n_labelled > 0, n_labelled, np.nan)[:, None]
    return pd.DataFrame({"n_labelled": n_labelled.astype(np.int64), **by_measure(share_rk, tally.class_names)})


def counted_shares(tally: Tally) -> pd.DataFrame:
    """Return fractions and severity by predicted labels, uncorrected, for every row."""
    share_rk = np.stack([row.vote_uk.sum(axis=0) / row.n_cells for row in tally.rows])
    return pd.DataFrame(by_measure(share_rk, tally.class_names))


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
