"""One block of results: every metric of one model on one set of cells, with its spread and its interval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from perikarya.config import EvaluateConfig
from perikarya.evaluate.metrics import OVERALL, PER_CLASS, Floats, Metric, Tally, tally_of
from perikarya.evaluate.outputs import Scored
from perikarya.evaluate.stats import (
    CELL,
    MIN_CLUSTERS,
    SUBJECT,
    clusters_of,
    draw_counts,
    interval_unit,
    percentile_interval,
    tally_draws,
    wilson_interval,
)

RANKED = "balanced_accuracy"


@dataclass(frozen=True)
class Measured:
    """A block of ``results.json`` and, for paired comparisons, the draws of the metric that ranks.

    ``covered`` names the clusters the draws were taken from; draws of equal ``covered`` are paired.
    """

    block: dict[str, Any]
    draws_b: Floats
    covered: tuple[str, tuple[str, ...]]


@dataclass(frozen=True)
class _Tallies:
    parts: list[Tally]  # averaged: seeds of a cross-validation, networks on an external set
    folds: list[Tally]  # one per network, for the spread
    draws: list[Tally]  # of the parts, with a leading axis of draws; empty without an interval
    unit: str
    n_clusters: int
    confidence: float

    def value(self, metric: Metric, at: int | None) -> dict[str, Any]:
        """Return mean, spread and interval of a metric, for the class at position ``at`` where it has classes."""
        index = ... if at is None else (..., at)
        mean = float(np.mean([metric.compute(t)[index] for t in self.parts]))
        spread = np.array([metric.compute(t)[index] for t in self.folds])
        spread = spread[~np.isnan(spread)]
        return {
            "mean": finite(mean),
            "sd_folds": finite(float(np.std(spread, ddof=1))) if len(spread) > 1 else None,
            "ci95": None if np.isnan(mean) else self._interval(metric, index, mean),
        }

    def _interval(self, metric: Metric, index: Any, mean: float) -> list[float] | None:
        interval = None
        if self.unit == CELL and metric.trials is not None:
            trials = metric.trials
            n = float(np.mean([trials(t)[index] for t in self.parts]))
            interval = wilson_interval(mean, n, confidence=self.confidence)
        elif self.draws:
            interval = percentile_interval(
                self.drawn(metric, index), confidence=self.confidence, n_clusters=self.n_clusters
            )
        return None if interval is None else list(interval)

    def drawn(self, metric: Metric, index: Any) -> Floats:
        """Return a metric of each draw, averaged over the parts, shape (n_draws,)."""
        return np.asarray(np.mean([metric.compute(t)[index] for t in self.draws], axis=0))


def finite(value: float) -> float | None:
    """Return the number, or None for what JSON cannot hold."""
    return float(value) if np.isfinite(value) else None


def measure(
    parts: Sequence[Scored],
    folds: Sequence[Scored],
    cells: pd.DataFrame,
    *,
    class_names: tuple[str, ...],
    settings: EvaluateConfig,
) -> Measured:
    """Score one model on one set of cells.

    Parameters
    ----------
    parts
        What is averaged: one entry per seed (pooled over its folds) or per network (on the same external cells).
        All entries are resampled by the same draws.
    folds
        One entry per trained network; the standard deviation of each metric over them is its ``sd_folds``, over those
        in which the metric exists.
    cells
        The cells table of the study, to which the rows of the entries refer.

    Returns
    -------
    The block M of ``results.json``: ``{"n_cells", "n_subjects", "unit", <metric>: {"mean", "sd_folds", "ci95"},
    "per_class", "confusion"}``. ``confusion`` is the mean over the parts.
    """
    rows = np.unique(np.concatenate([p.row_n for p in parts]))
    covered = cells.iloc[rows]
    unit = interval_unit(covered)
    clusters = clusters_of(covered, unit)
    draws: list[Tally] = []
    if clusters.n_clusters >= MIN_CLUSTERS:
        counts = draw_counts(clusters.n_clusters, n_draws=settings.n_bootstrap, seed=settings.seed)
        codes = [clusters.code_n[np.searchsorted(rows, p.row_n)] for p in parts]
        draws = [tally_draws(p.label_n, p.prob_nk, c, counts) for p, c in zip(parts, codes, strict=True)]
    tallies = _Tallies(
        parts=[tally_of(p.label_n, p.prob_nk) for p in parts],
        folds=[tally_of(p.label_n, p.prob_nk) for p in folds],
        draws=draws,
        unit=unit,
        n_clusters=clusters.n_clusters,
        confidence=settings.confidence,
    )
    names = covered["cell_id" if unit == CELL else unit].unique()
    return Measured(
        block=_block(tallies, covered, class_names),
        draws_b=tallies.drawn(OVERALL.get(RANKED), ...) if draws else np.empty(0),
        covered=(unit, tuple(sorted(str(n) for n in names))),
    )


def _block(tallies: _Tallies, covered: pd.DataFrame, class_names: tuple[str, ...]) -> dict[str, Any]:
    known = covered["subject"].notna().all()
    n_of_class = covered["label"].value_counts()
    block: dict[str, Any] = {
        "n_cells": len(covered),
        "n_subjects": int(covered["subject"].nunique()) if known else None,
        "n_images": int(covered["image_id"].nunique()),
        "unit": tallies.unit,
    }
    block |= {name: tallies.value(metric, None) for name, metric in OVERALL.items()}
    block["per_class"] = {
        class_name: {name: tallies.value(metric, k) for name, metric in PER_CLASS.items()}
        | {
            "n": int(n_of_class.get(class_name, 0)),
            "n_subjects": _subjects_with(covered, class_name) if known else None,
        }
        for k, class_name in enumerate(class_names)
    }
    mean = np.mean([t.confusion for t in tallies.parts], axis=0)
    block["confusion"] = [[int(x) if x == int(x) else float(x) for x in row] for row in mean]
    return block


def _subjects_with(covered: pd.DataFrame, class_name: str) -> int:
    return int(covered.loc[covered["label"] == class_name, SUBJECT].nunique())
