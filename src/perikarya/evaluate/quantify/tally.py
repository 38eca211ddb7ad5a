"""Sums per animal, region and resampled part: all that fractions, intervals and models need to know of the cells."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from perikarya.evaluate.metrics import Floats, Ints
from perikarya.evaluate.quantify.cells import Cells, PredictedCells
from perikarya.evaluate.quantify.severity import severity_weights
from perikarya.evaluate.quantify.survey import MAX_PARTS, Place, Survey, places_of, scopes_of, survey_of
from perikarya.evaluate.stats import IMAGE
from perikarya.schema import NO_LABEL

CELLS_AT_ONCE = 8_000_000  # held where a correction needs the cells themselves; an animal with more is held whole


@dataclass(frozen=True)
class Row:
    """One animal and region, summed up.

    Attributes
    ----------
    subject, group, region
        The animal, its group (None: unknown) and the region, or ``ALL_REGIONS``.
    unit
        What is resampled: ``stats.IMAGE`` or ``stats.CELL``.
    n_u, prob_uk, vote_uk
        Shape (n_parts,) and (n_parts, n_classes): cells, and sums of probabilities and votes, of each part that is
        resampled as one.
    label_k
        Shape (n_classes,): cells with that label.
    severity, severity2
        Sum and sum of squares of the cells' expected severities.
    n_last
        Cells whose most probable class is the last.
    """

    subject: str
    group: str | None
    region: str
    unit: str
    n_u: Floats
    prob_uk: Floats
    vote_uk: Floats
    label_k: Ints
    severity: float
    severity2: float
    n_last: int

    @property
    def n_parts(self) -> int:
        """Parts that are resampled."""
        return len(self.n_u)

    @property
    def n_cells(self) -> int:
        """Cells of the row."""
        return int(self.n_u.sum())


@dataclass(frozen=True)
class Tally:
    """All rows of some cells, and the classes in order of severity."""

    rows: Sequence[Row]
    class_names: tuple[str, ...]


def rows_of(
    cells: Cells, *, groups: Sequence[str], regions: Sequence[str], seed: int, survey: Survey | None = None
) -> list[Row]:
    """List the animals in order of their groups, each with its regions and then with all cells pooled.

    Parameters
    ----------
    cells
        Gone over once, and once before where there is no ``survey`` yet.
    groups, regions
        Their order; animals of other groups come last, other regions follow in order of appearance.
    seed
        Of the random parts of animals with more images, or cells, than are resampled one by one.
    survey
        What ``survey_of`` found in the same cells.

    Raises
    ------
    DataError
        If a cell has no animal, an animal has two groups, or a region is called ``all``.
    """
    found = survey or survey_of(cells)
    sums = _Sums(_Layout(found, seed), len(cells.class_names))
    for chunk in cells.chunks():
        sums.add(chunk)
    return sums.rows(_in_order(found, groups, regions), found)


def _in_order(survey: Survey, groups: Sequence[str], regions: Sequence[str]) -> list[tuple[str, str]]:
    group_rank = {name: i for i, name in enumerate(groups)}
    region_rank = {name: i for i, name in enumerate(dict.fromkeys([*regions, *survey.regions]))}

    def rank(key: tuple[str, str]) -> tuple[int, str, int]:
        subject, region = key
        group = group_rank.get(str(survey.group_of(subject)), len(groups))
        return group, subject, region_rank.get(region, len(region_rank))

    return sorted(survey.scopes, key=rank)


def cells_of_rows(cells: Cells, rows: Sequence[Row], *, survey: Survey, seed: int) -> Iterator[tuple[Floats, Ints]]:
    """Yield the probabilities of each row's cells and their parts, going over all cells as often as needed.

    Not more than ``CELLS_AT_ONCE`` cells are held at a time, or those of one row.
    """
    layout = _Layout(survey, seed)
    first = {i: layout.first_s[layout.number[row.subject, row.region]] for i, row in enumerate(rows)}
    waiting = list(range(len(rows)))
    while waiting:
        ends = np.cumsum([rows[i].n_cells for i in waiting])
        now = waiting[: max(1, int((ends <= CELLS_AT_ONCE).sum()))]
        waiting = waiting[len(now) :]
        row_of_scope = {layout.number[rows[i].subject, rows[i].region]: i for i in now}
        held: dict[int, list[tuple[Floats, Ints]]] = {i: [] for i in now}
        counts = layout.new_counts()
        for chunk in cells.chunks():
            for scope_n, part_n in layout.parts_of(chunk, counts):
                for scope in set(np.unique(scope_n).tolist()) & set(row_of_scope):
                    own, i = np.flatnonzero(scope_n == scope), row_of_scope[scope]
                    held[i].append((chunk.prob_nk[own], (part_n[own] - first[i]).astype(np.int16)))
        for i in now:
            pieces = held.pop(i)
            yield np.concatenate([p for p, _ in pieces]), np.concatenate([p for _, p in pieces]).astype(np.int64)


class _Layout:
    """Which part of which animal and region each cell falls into.

    ``number`` maps animal and region to a scope, and parts of scope s are numbered from ``first_s[s]`` on: images by
    their sorted names, then cells in order. Where there are more than ``MAX_PARTS``, they are spread over so many parts
    at random: images by a hash of their name, cells by one of their place in the order.
    """

    def __init__(self, survey: Survey, seed: int) -> None:
        self.number = {key: i for i, key in enumerate(survey.scopes)}
        self._scopes = list(survey.scopes.values())
        self._by_image_s = np.array([scope.unit == IMAGE for scope in self._scopes], bool)
        self._n_images_s = np.array([len(scope.n_of_image) for scope in self._scopes], np.int64) * self._by_image_s
        n_things = [s.n_images if by else s.n_cells for s, by in zip(self._scopes, self._by_image_s, strict=True)]
        self._spread_s = np.array(n_things) > MAX_PARTS
        self.first_s = np.cumsum([0, *(scope.n_parts for scope in self._scopes)])
        self._rank: dict[int, dict[str, int]] = {}
        self._salt = np.random.default_rng(seed).integers(2**63, dtype=np.uint64)

    def new_counts(self) -> Ints:
        """Return, for ``parts_of`` to count on, how many cells of each scope have been parts of their own: none."""
        return np.zeros(len(self._scopes), np.int64)

    def parts_of(self, cells: PredictedCells, counts: Ints) -> Iterator[tuple[Ints, Ints]]:
        """Yield twice the scope of each cell and its part, shape (n_cells,): by region, -1 if unknown, and pooled."""
        places, place_n = places_of(cells)
        images = np.array([place.image or "" for place in places], dtype=object)
        random_p = self._random_part(pd.util.hash_array(images, categorize=False))
        keys = [list(scopes_of(place)) for place in places]
        for depth in (2, 1):
            scope_p = np.array([self.number[key[-depth]] if len(key) >= depth else -1 for key in keys], np.int64)
            part_p = [self._image_part(*one) for one in zip(scope_p.tolist(), places, random_p.tolist(), strict=True)]
            scope_n, part_n = scope_p[place_n], np.array(part_p, np.int64)[place_n]
            alone = np.flatnonzero((part_n < 0) & (scope_n >= 0))
            part_n[alone] = self._cell_parts(scope_n[alone], counts)
            yield scope_n, part_n

    def _image_part(self, scope: int, place: Place, random_part: int) -> int:
        """Return the part of all cells of one place, -1 where each of them is a part by itself."""
        if scope < 0 or place.image is None or not self._by_image_s[scope]:
            return -1
        if self._spread_s[scope]:
            return int(self.first_s[scope]) + random_part
        if scope not in self._rank:
            self._rank[scope] = {name: i for i, name in enumerate(sorted(self._scopes[scope].n_of_image))}
        return int(self.first_s[scope]) + self._rank[scope][place.image]

    def _cell_parts(self, scope_n: Ints, counts: Ints) -> Ints:
        order_n = counts[scope_n] + pd.Series(scope_n).groupby(scope_n).cumcount().to_numpy(np.int64)
        counts += np.bincount(scope_n, minlength=len(counts))
        part_n = np.where(self._spread_s[scope_n], self._random_part(order_n), self._n_images_s[scope_n] + order_n)
        return np.asarray(self.first_s[scope_n] + part_n)

    def _random_part(self, value_n: NDArray[np.integer[Any]]) -> Ints:
        mixed_n = pd.util.hash_array(value_n.astype(np.uint64) ^ self._salt, categorize=False)
        return np.asarray(mixed_n % np.uint64(MAX_PARTS)).astype(np.int64)


class _Sums:
    """What is summed up: by part, by scope."""

    def __init__(self, layout: _Layout, n_classes: int) -> None:
        self._layout, self._n_classes = layout, n_classes
        self._counts = layout.new_counts()
        n_parts, n_scopes = int(layout.first_s[-1]), len(layout.number)
        self._n_u = np.zeros(n_parts)
        self._prob_ku, self._vote_ku = (np.zeros((n_classes, n_parts)) for _ in range(2))
        self._label_sk = np.zeros((n_scopes, n_classes), np.int64)
        self._severity_s, self._severity2_s, self._last_s = (np.zeros(n_scopes) for _ in range(3))

    def add(self, cells: PredictedCells) -> None:
        """Add some cells one after another, so that the sums do not depend on how the cells are cut into pieces."""
        vote_nk = cells.votes()
        severity_n = cells.prob_nk @ severity_weights(self._n_classes)
        is_last_n = (cells.prob_nk.argmax(axis=1) == self._n_classes - 1).astype(np.float64)
        for scope_n, part_n in self._layout.parts_of(cells, self._counts):
            kept = np.flatnonzero(scope_n >= 0)
            scope, part = scope_n[kept], part_n[kept]
            np.add.at(self._n_u, part, 1.0)
            for k in range(self._n_classes):
                np.add.at(self._prob_ku[k], part, cells.prob_nk[kept, k])
                np.add.at(self._vote_ku[k], part, vote_nk[kept, k])
            np.add.at(self._severity_s, scope, severity_n[kept])
            np.add.at(self._severity2_s, scope, severity_n[kept] ** 2)
            np.add.at(self._last_s, scope, is_last_n[kept])
            labelled = cells.label_n[kept] != NO_LABEL
            np.add.at(self._label_sk, (scope[labelled], cells.label_n[kept][labelled]), 1)

    def rows(self, keys: Sequence[tuple[str, str]], survey: Survey) -> list[Row]:
        """Return the rows of some scopes."""
        return [self._row(*key, survey) for key in keys]

    def _row(self, subject: str, region: str, survey: Survey) -> Row:
        scope = self._layout.number[subject, region]
        own = slice(*self._layout.first_s[scope : scope + 2])
        return Row(
            subject=subject,
            group=survey.group_of(subject),
            region=region,
            unit=survey.scopes[subject, region].unit,
            n_u=self._n_u[own],
            prob_uk=self._prob_ku[:, own].T,
            vote_uk=self._vote_ku[:, own].T,
            label_k=self._label_sk[scope],
            severity=float(self._severity_s[scope]),
            severity2=float(self._severity2_s[scope]),
            n_last=int(self._last_s[scope]),
        )
