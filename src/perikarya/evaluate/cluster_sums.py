"""Scores that follow from a few sums over cells, with their spread over networks and their bootstrap interval.

A mean, a share or a binned calibration error is a formula over sums. Summed by animal first, a thousand draws of
animals are one matrix product, and scores of two models on the same cells are paired draw by draw.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
import pandas as pd

from perikarya.config import EvaluateConfig
from perikarya.evaluate.drawing import Drawing
from perikarya.evaluate.intervals import Resampled, effective_clusters, score_intervals
from perikarya.evaluate.jackknife import influence, leave_out
from perikarya.evaluate.metrics import Floats, Ints, ratio
from perikarya.evaluate.stats import MIN_CLUSTERS
from perikarya.evaluate.summary import finite


@dataclass(frozen=True)
class Formulas:
    """Some scores as formulas over sums.

    Attributes
    ----------
    compute
        From sums, shape (..., n_columns), to scores, shape (n_scores, ...).
    bounds
        Per score, its least and largest possible value.
    rests_on
        Per score, the column that counts the cells it rests on.
    """

    compute: Callable[[Floats], Floats]
    bounds: tuple[tuple[float, float], ...]
    rests_on: tuple[int, ...]


class HasRows(Protocol):
    """Anything about cells of a study: ``row_n``, shape (n_cells,), are rows of the cells table."""

    @property
    def row_n(self) -> Ints:
        """Rows of the cells table."""


PartT = TypeVar("PartT", bound=HasRows)


@dataclass(frozen=True)
class DrawnScores:
    """Scores of one model on one set of cells, averaged over its parts (seeds of a cross-validation, networks).

    Attributes
    ----------
    mean_v
        Shape (n_scores,).
    fold_vf
        Shape (n_scores, n_networks), each network alone.
    draws_vb
        Shape (n_scores, n_draws); no draws of fewer than three clusters.
    intervals
        Per score, its interval or None.
    """

    mean_v: Floats
    fold_vf: Floats
    draws_vb: Floats
    intervals: list[list[float] | None]

    def values(self) -> list[dict[str, Any]]:
        """Return ``{"mean", "sd_folds", "ci95"}`` of each score, None where it is undefined."""
        spread = (row[~np.isnan(row)] for row in self.fold_vf)
        return [
            {
                "mean": finite(mean),
                "sd_folds": finite(float(np.std(known, ddof=1))) if len(known) > 1 else None,
                "ci95": None if np.isnan(mean) else interval,
            }
            for mean, known, interval in zip(self.mean_v, spread, self.intervals, strict=True)
        ]


class ClusterDraws(Drawing):
    """Scores of draws of animals (or images, or cells), for one set of cells."""

    @classmethod
    def over(cls, parts: Sequence[HasRows], cells: pd.DataFrame, settings: EvaluateConfig) -> ClusterDraws:
        """Prepare draws for the cells that the parts cover together."""
        is_covered = np.zeros(len(cells), bool)
        for part in parts:
            is_covered[part.row_n] = True
        return cls.of(np.flatnonzero(is_covered).astype(np.int64), cells, settings)

    def score(
        self,
        parts: Sequence[PartT],
        folds: Sequence[PartT],
        sum_by: Callable[[PartT, Ints, int], Floats],
        formulas: Formulas,
    ) -> DrawnScores:
        """Score parts, single networks and draws.

        Parameters
        ----------
        parts
            What is averaged; each covers cells of this set.
        folds
            The single networks.
        sum_by
            Sums up a part, given the cluster of each of its cells and the number of clusters: shape (n_clusters,
            n_columns).
        formulas
            What to make of the sums.
        """
        n = self.clusters.n_clusters
        sums = [sum_by(p, self.clusters.code_n[np.searchsorted(self.row_n, p.row_n)], n) for p in parts]

        def weighted(chunks: Iterable[Floats]) -> Floats:
            each = [[formulas.compute(weight @ s) for s in sums] for weight in chunks]
            return np.concatenate([np.mean(e, axis=0) for e in each], axis=1)

        mean_v = np.mean([formulas.compute(s.sum(axis=0)) for s in sums], axis=0)
        alone = [formulas.compute(sum_by(f, np.zeros(len(f.row_n), np.int64), 1)[0]) for f in folds]
        draws_vb, found = np.empty((len(mean_v), 0)), np.full((len(mean_v), 2), np.nan)
        if n >= MIN_CLUSTERS:
            draws_vb = weighted(self.chunks())
            plan = leave_out(n, self.strata)
            df_v = effective_clusters(np.sum(sums, axis=0)[:, list(formulas.rests_on)].astype(np.int64)) - self.n_strata
            resampled = Resampled(mean_v, draws_vb, influence(weighted(plan.chunks()), plan), df_v)
            settings = self.settings
            found = score_intervals(
                resampled,
                np.array(formulas.bounds, np.float64),
                confidence=settings.confidence,
                bca=settings.interval == "bca",
            )
        return DrawnScores(
            mean_v=mean_v,
            fold_vf=np.stack(alone, axis=1) if alone else np.empty((len(mean_v), 0)),
            draws_vb=draws_vb,
            intervals=[None if np.isnan(ends).any() else [float(x) for x in ends] for ends in found],
        )

    def differences(self, scores: DrawnScores, reference: DrawnScores) -> list[dict[str, Any]]:
        """Return ``{"estimate", "ci95"}`` of scores minus those of ``reference`` on these cells, paired by draw.

        No interval where all draws agree.
        """
        pairs = zip(scores.mean_v - reference.mean_v, scores.draws_vb - reference.draws_vb, strict=True)
        return [{"estimate": finite(estimate), "ci95": self.interval(draws_b)} for estimate, draws_b in pairs]


def shares(*columns: tuple[int, int]) -> Formulas:
    """Return formulas that divide one column of the sums by another, for each pair of columns."""
    return Formulas(
        lambda sums: np.stack([ratio(sums[..., a], sums[..., b]) for a, b in columns]),
        bounds=((0.0, 1.0),) * len(columns),
        rests_on=tuple(b for _, b in columns),
    )


def sum_columns(value_nc: Floats, cluster_n: Ints, n_clusters: int) -> Floats:
    """Sum the rows of ``value_nc``, shape (n_cells, n_columns), by cluster: shape (n_clusters, n_columns)."""
    columns = [np.bincount(cluster_n, column, minlength=n_clusters) for column in value_nc.T]
    return np.stack(columns, axis=1).astype(np.float64)
