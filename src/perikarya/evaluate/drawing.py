"""Bootstrap draws of whole animals for numbers that follow from sums over cells."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

import numpy as np
import pandas as pd

from perikarya.config import EvaluateConfig
from perikarya.evaluate.metrics import Floats, Ints
from perikarya.evaluate.stats import (
    CELL,
    MIN_CLUSTERS,
    Clusters,
    Strata,
    clusters_of,
    draw_chunks,
    interval_unit,
    percentile_interval,
    strata_of,
)


@dataclass(frozen=True)
class Drawing:
    """How the animals (or images, or cells) of some cells are drawn; equal cells and settings give equal draws.

    ``row_n`` holds the sorted rows of the cells table that are covered, shape (n_cells,).
    """

    row_n: Ints
    clusters: Clusters
    strata: Strata | None
    settings: EvaluateConfig

    @classmethod
    def of(cls, row_n: Ints, cells: pd.DataFrame, settings: EvaluateConfig) -> Self:
        """Prepare draws for the cells in these rows, which must be sorted."""
        covered = cells.iloc[row_n]
        clusters = clusters_of(covered, interval_unit(covered))
        strata = strata_of(covered, clusters) if settings.stratify == "group" else None
        return cls(row_n, clusters, strata, settings)

    def kinds(self, row_n: Ints, kind_n: Ints, n_kinds: int, *, paired: bool = True) -> tuple[Floats, Floats]:
        """Count cells by kind: in all, shape (n_kinds,), and in each draw, shape (n_draws, n_kinds).

        No draws of fewer than three clusters. ``paired`` draws can be compared with those of other counts; where cells
        are drawn one by one, drawing their kinds instead takes far less time.
        """
        n = self.clusters.n_clusters
        total = np.bincount(kind_n, minlength=n_kinds).astype(np.float64)
        if self.clusters.unit == CELL and n >= MIN_CLUSTERS and not paired:
            rng = np.random.default_rng([self.settings.seed, n])
            drawn = rng.multinomial(n, total / total.sum(), self.settings.n_bootstrap)
            return total, drawn.astype(np.float64)
        cluster_n = self.clusters.code_n[np.searchsorted(self.row_n, row_n)]
        sums = np.bincount(cluster_n * n_kinds + kind_n, minlength=n * n_kinds).reshape(n, n_kinds)
        return total, self.draw(sums.astype(np.float64))

    def draw(self, sums_sq: Floats) -> Floats:
        """Sum the rows of each draw of clusters, shape (n_draws, n_columns); no draws of fewer than three clusters."""
        n = self.clusters.n_clusters
        if n < MIN_CLUSTERS:
            return np.empty((0, sums_sq.shape[1]))
        return np.concatenate([counts @ sums_sq for counts in self.chunks()])

    @property
    def n_strata(self) -> int:
        """Within how many strata clusters are drawn."""
        return len(set(self.strata)) if self.strata else 1

    def chunks(self) -> Iterator[Floats]:
        """Iterate over the draws, some at a time, each of shape (n_draws, n_clusters): how often a cluster is taken."""
        options = {"n_draws": self.settings.n_bootstrap, "seed": self.settings.seed}
        return draw_chunks(self.clusters.n_clusters, strata=self.strata, **options)

    def interval(self, draws_b: Floats) -> list[float] | None:
        """Return the interval of a number of each draw; None without draws or where it is mostly undefined."""
        if not len(draws_b):
            return None
        found = percentile_interval(
            draws_b,
            confidence=self.settings.confidence,
            n_clusters=self.clusters.n_clusters,
            n_strata=self.n_strata,
        )
        return None if found is None else list(found)
