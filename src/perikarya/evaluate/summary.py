"""One block of results: every metric of one model on one set of cells, with its spread and its interval."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from perikarya.config import EvaluateConfig
from perikarya.evaluate.intervals import Resampled, effective_clusters, score_intervals
from perikarya.evaluate.jackknife import influence, leave_out
from perikarya.evaluate.metrics import OVERALL, PER_CLASS, Floats, Ints, Metric, Tally, tally_of
from perikarya.evaluate.outputs import Scored
from perikarya.evaluate.stats import (
    CELL,
    MIN_CLUSTERS,
    SUBJECT,
    Clusters,
    Strata,
    clusters_of,
    draw_chunks,
    interval_unit,
    strata_of,
    tally_chunks,
    wilson_interval,
)

RANKED = "balanced_accuracy"


@dataclass(frozen=True)
class Measured:
    """A block of ``results.json`` and, for paired comparisons, the draws of the metric that ranks.

    ``covered`` names the clusters the draws were taken from, ``n_strata`` within how many strata; draws of equal
    ``covered`` are paired.
    """

    block: dict[str, Any]
    draws_b: Floats
    covered: tuple[str, tuple[str, ...]]
    n_strata: int = 1


@dataclass(frozen=True)
class _Sample:
    """Parts of one model on one set of cells, the cluster of each of their cells, and how clusters are drawn."""

    parts: Sequence[Scored]
    code_pn: list[Ints]
    clusters: Clusters
    strata: Strata | None

    @property
    def n_strata(self) -> int:
        return len(set(self.strata)) if self.strata else 1

    def scores(self, chunks: Callable[[], Iterable[Floats]]) -> Floats:
        """Return all scores of each row of weights over clusters, averaged over the parts: (n_scores, n_rows)."""
        each = [
            score_table(tally_chunks(p.label_n, p.prob_nk, code_n, chunks(), n_clusters=self.clusters.n_clusters))
            for p, code_n in zip(self.parts, self.code_pn, strict=True)
        ]
        return np.asarray(np.mean(each, axis=0))

    def draws(self, settings: EvaluateConfig) -> Floats:
        """Return all scores of each bootstrap draw, shape (n_scores, n_draws); no draws of fewer than 3 clusters."""
        n_clusters = self.clusters.n_clusters
        if n_clusters < MIN_CLUSTERS:
            return np.empty((len(score_names(self.parts[0].prob_nk.shape[1])), 0))
        options = {"n_draws": settings.n_bootstrap, "seed": settings.seed}
        return self.scores(lambda: draw_chunks(n_clusters, strata=self.strata, **options))

    def resampled(self, estimate_v: Floats, draws_vb: Floats) -> Resampled:
        plan = leave_out(self.clusters.n_clusters, self.strata)
        return Resampled(
            estimate_v=estimate_v,
            draws_vb=draws_vb,
            influence=influence(self.scores(plan.chunks), plan),
            df_v=self.effective() - self.n_strata,
        )

    def effective(self) -> Floats:
        """Return the effective number of clusters each score rests on, shape (n_scores,)."""
        n_classes, n_clusters = self.parts[0].prob_nk.shape[1], self.clusters.n_clusters
        place = np.concatenate([c * n_classes + p.label_n for p, c in zip(self.parts, self.code_pn, strict=True)])
        cells_sk = np.bincount(place, minlength=n_clusters * n_classes).reshape(n_clusters, n_classes)
        of_all, of_class = effective_clusters(cells_sk.sum(axis=1)), effective_clusters(cells_sk)
        return np.array(
            [
                of_all if _metric(name, k).rests_on == "cells" else of_class.min() if k is None else of_class[k]
                for name, k in score_names(n_classes)
            ]
        )


def _metric(name: str, k: int | None) -> Metric:
    return (OVERALL if k is None else PER_CLASS).get(name)


def score_names(n_classes: int) -> list[tuple[str, int | None]]:
    """Return metric and class of each row of ``score_table``; overall metrics, which come first, have no class."""
    overall: list[tuple[str, int | None]] = [(name, None) for name in OVERALL.names()]
    return overall + [(name, k) for name in PER_CLASS.names() for k in range(n_classes)]


def score_table(tally: Tally) -> Floats:
    """Compute every metric of a tally, shape (n_scores, ...), in the order of ``score_names``."""
    return _table(tally, lambda metric: metric.compute)


def _table(tally: Tally, formula: Callable[[Metric], Callable[[Tally], Floats]]) -> Floats:
    overall = [np.asarray(formula(metric)(tally))[None] for _, metric in OVERALL.items()]
    per_class = [np.moveaxis(formula(metric)(tally), -1, 0) for _, metric in PER_CLASS.items()]
    return np.concatenate([*overall, *per_class])


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
    strata = strata_of(covered, clusters) if settings.stratify == "group" else None
    sample = _Sample(parts, [clusters.code_n[np.searchsorted(rows, p.row_n)] for p in parts], clusters, strata)
    tallies = [tally_of(p.label_n, p.prob_nk) for p in parts]
    mean_v = np.mean([score_table(t) for t in tallies], axis=0)
    draws_vb = sample.draws(settings)
    ends_v2 = np.full((len(mean_v), 2), np.nan)
    if draws_vb.size:
        bounds_v2 = np.array([_metric(name, k).bounds for name, k in score_names(len(class_names))])
        resampled = sample.resampled(mean_v, draws_vb)
        ends_v2 = score_intervals(resampled, bounds_v2, confidence=settings.confidence, bca=settings.interval == "bca")
    if unit == CELL:
        _put_wilson(ends_v2, mean_v, tallies, confidence=settings.confidence)
    values = _values(mean_v, _spread([tally_of(f.label_n, f.prob_nk) for f in folds]), ends_v2)
    confusion = np.mean([t.confusion for t in tallies], axis=0)
    names = covered["cell_id" if unit == CELL else unit].unique()
    return Measured(
        block=_about(covered, unit) | _scores_of(values, covered, class_names) | {"confusion": _whole(confusion)},
        draws_b=draws_vb[OVERALL.names().index(RANKED)],
        covered=(unit, tuple(sorted(str(n) for n in names))),
        n_strata=sample.n_strata,
    )


def _put_wilson(ends_v2: Floats, mean_v: Floats, tallies: list[Tally], *, confidence: float) -> None:
    """Replace the intervals of shares of independent cells, in place."""
    n_v = np.mean([_table(t, lambda metric: metric.trials or _no_trials(metric)) for t in tallies], axis=0)
    for v in np.flatnonzero(~np.isnan(n_v)):
        ends_v2[v] = wilson_interval(mean_v[v], n_v[v], confidence=confidence) or (np.nan, np.nan)


def _no_trials(metric: Metric) -> Callable[[Tally], Floats]:
    return lambda tally: np.full_like(metric.compute(tally), np.nan)


def _spread(tallies: list[Tally]) -> Floats | None:
    """Return the standard deviation of each score over the networks in which it exists; None without networks."""
    if not tallies:
        return None
    table_vf = np.stack([score_table(t) for t in tallies], axis=-1)
    return np.array([np.std(x, ddof=1) if len(x) > 1 else np.nan for x in (row[~np.isnan(row)] for row in table_vf)])


def _values(mean_v: Floats, sd_v: Floats | None, ends_v2: Floats) -> list[dict[str, Any]]:
    return [
        {
            "mean": finite(mean),
            "sd_folds": None if sd_v is None else finite(sd_v[v]),
            "ci95": None if np.isnan(ends_v2[v]).any() else [float(x) for x in ends_v2[v]],
        }
        for v, mean in enumerate(mean_v)
    ]


def _about(covered: pd.DataFrame, unit: str) -> dict[str, Any]:
    return {
        "n_cells": len(covered),
        "n_subjects": int(covered["subject"].nunique()) if _subjects_known(covered) else None,
        "n_images": int(covered["image_id"].nunique()),
        "unit": unit,
    }


def _subjects_known(covered: pd.DataFrame) -> bool:
    return bool(covered["subject"].notna().all())


def _scores_of(values: list[dict[str, Any]], covered: pd.DataFrame, class_names: tuple[str, ...]) -> dict[str, Any]:
    n_of_class = covered["label"].value_counts()
    n_subjects = covered.groupby("label")[SUBJECT].nunique() if _subjects_known(covered) else None
    block: dict[str, Any] = {}
    per_class: dict[str, dict[str, Any]] = {name: {} for name in class_names}
    for (metric, k), value in zip(score_names(len(class_names)), values, strict=True):
        (block if k is None else per_class[class_names[k]])[metric] = value
    for name, scores in per_class.items():
        scores["n"] = int(n_of_class.get(name, 0))
        scores["n_subjects"] = None if n_subjects is None else int(n_subjects.get(name, 0))
    return block | {"per_class": per_class}


def _whole(confusion: Floats) -> list[list[int | float]]:
    return [[int(x) if x == int(x) else float(x) for x in row] for row in confusion]


def spread_over(blocks: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return the standard deviation (n - 1) of each metric over regions or groups.

    It tells how evenly a model does; differences by chance, larger in small regions, are part of it.

    Parameters
    ----------
    blocks
        The blocks of ``results.json`` by region or group.

    Returns
    -------
    ``{"n": number of blocks, <metric>: SD or None, "per_class": {<class>: {<metric>: SD or None}}}``, each over the
    blocks in which the metric exists; None with fewer than two.
    """
    every = list(blocks.values())
    classes = every[0]["per_class"] if every else {}
    return (
        {"n": len(every)}
        | {name: _sd([b[name]["mean"] for b in every]) for name in OVERALL.names()}
        | {
            "per_class": {
                c: {name: _sd([b["per_class"][c][name]["mean"] for b in every]) for name in PER_CLASS.names()}
                for c in classes
            }
        }
    )


def _sd(values: list[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return float(np.std(known, ddof=1)) if len(known) > 1 else None
