"""Which model is best, and which others might be: paired comparisons of models on the same cells.

Everything is paired, and animals stay whole: intervals resample animals, the same ones for both models; p values
exchange the two models' predictions animal by animal (``permutation``) or, for areas under ROC curves, take the
variance between animals (``delong``). Holm's correction covers the pairs of one score.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from perikarya.config import EvaluateConfig
from perikarya.evaluate.best import holm, indistinguishable, model_confidence_set
from perikarya.evaluate.delong import delong, delong_clustered, macro_clustered
from perikarya.evaluate.folds import compare_folds
from perikarya.evaluate.metrics import Floats
from perikarya.evaluate.outputs import ModelScores, Scored
from perikarya.evaluate.paired import PairedModels, pair_up
from perikarya.evaluate.permutation import COUNT_SCORES, PER_TEST, Counts, Exchanges, exchange_p
from perikarya.evaluate.stats import MIN_CLUSTERS, MIN_DEFINED, UNIT_WORDS, draw_chunks, percentile_interval
from perikarya.evaluate.summary import RANKED, finite

COMPARED = ("balanced_accuracy", "accuracy", "macro_auc", "macro_f1")
MAX_ALL_PAIRS = 15  # with more models, only the metric that ranks is compared for all pairs
MAX_DRAWN = 200  # clusters above which the interval of an area follows from its variance: they agree, this is faster
_MAX_PERMUTATIONS = 1_000_000

Pair = tuple[int, int]


@dataclass(frozen=True)
class _Plan:
    """What all comparisons share.

    ``order`` holds positions of the models, best by the metric that ranks first.
    """

    models: PairedModels
    counts: list[Counts]
    order: list[int]
    settings: EvaluateConfig

    @property
    def n_clusters(self) -> int:
        return self.models.clusters.n_clusters

    @property
    def has_draws(self) -> bool:
        """Whether there is something to compare, and enough clusters for an interval."""
        return len(self.order) > 1 and self.n_clusters >= MIN_CLUSTERS

    def exchanges(self, n_pairs: int) -> Exchanges:
        """Return the permutations for one metric: as many as were asked for, and as Holm's correction needs."""
        needed = int(np.ceil(PER_TEST * n_pairs / alpha_of(self.settings.confidence)))
        wanted = min(_MAX_PERMUTATIONS, max(self.settings.n_permutations, needed))
        return Exchanges.plan(self.n_clusters, n_wanted=wanted, seed=self.settings.seed)

    def chunks(self) -> Iterator[Floats]:
        options = {"n_draws": self.settings.n_bootstrap, "seed": self.settings.seed}
        return draw_chunks(self.n_clusters, strata=self.models.strata, **options)

    def pairs(self, score_m: Floats, *, every: bool) -> list[Pair]:
        """Return the pairs to compare, the higher ranked first: all, or those with the best by ``score_m``."""
        found = list(combinations(self.order, 2))
        best = max(self.order, key=lambda m: score_m[m])
        return found if every or len(self.order) <= MAX_ALL_PAIRS else [p for p in found if best in p]

    def interval(self, draws_bm: Floats, pair: Pair) -> tuple[float, float] | None:
        n_strata = len(set(self.models.strata)) if self.models.strata else 1
        return percentile_interval(
            draws_bm[:, pair[0]] - draws_bm[:, pair[1]],
            confidence=self.settings.confidence,
            n_clusters=self.n_clusters,
            n_strata=n_strata,
        )


def alpha_of(confidence: float) -> float:
    """Return the level of the tests that goes with intervals of some confidence, 0.05 for 0.95."""
    return round(1.0 - confidence, 10)


def compare_run(
    scores: Sequence[ModelScores], cells: pd.DataFrame, *, class_names: tuple[str, ...], settings: EvaluateConfig
) -> dict[str, Any]:
    """Compare the models of a run: on the external set where there is one, else by cross-validation.

    Parameters
    ----------
    scores
        The models that compete, from ``outputs.model_scores``; none that is a point of a learning curve.
    cells
        The cells table of the study.

    Returns
    -------
    ``{"set": "external" | "cv"} | compare_models(...) | {"folds": folds.compare_folds(...)}``.
    """
    set_name = "external" if any(s.external for s in scores) else "cv"
    parts = {s.name: s.external if set_name == "external" else s.pooled for s in scores}
    found = compare_models(
        {name: p for name, p in parts.items() if p}, cells, class_names=class_names, settings=settings
    )
    tested = {s.name: _tested(s) for s in scores if s.kind == "network" and s.tests}
    shares = [len(t.row_n) / n_train for blocks in tested.values() for t, n_train in blocks.values() if n_train]
    folds = compare_folds(
        {name: {key: t for key, (t, _) in blocks.items()} for name, blocks in tested.items()},
        metric=RANKED,
        test_per_train=float(np.mean(shares)) if shares else 0.0,
        alpha=alpha_of(settings.confidence),
    )
    return {"set": set_name} | found | {"folds": folds}


def _tested(scores: ModelScores) -> dict[tuple[int, int], tuple[Scored, int]]:
    """Return the tested cells of each network and how many it was trained on, by (seed, fold)."""
    outputs = [o for o in scores.outputs if o.test is not None]
    return {
        (o.key.seed, o.key.fold): (test, int(o.result["n_train"]))
        for o, test in zip(outputs, scores.tests, strict=True)
    }


def compare_models(
    entries: Mapping[str, Sequence[Scored]],
    cells: pd.DataFrame,
    *,
    class_names: tuple[str, ...],
    settings: EvaluateConfig,
) -> dict[str, Any]:
    """Compare every pair of models on the same cells.

    Parameters
    ----------
    entries
        Model name to the parts that are averaged: one per seed of a cross-validation, or one per network on an
        external set.
    cells
        The cells table of the study, to which the rows of the entries refer.
    class_names
        The classes, in the order of the columns of the probabilities.
    settings
        Number of draws and permutations, confidence and seed. ``PER_TEST`` permutations per comparison and alpha are
        the least that is taken, for with fewer Holm's correction could not reject.

    Returns
    -------
    ``{"unit", "n_clusters", "n_cells", "alpha", "models", "not_comparable": [{"model", "reason"}], "metrics": {metric:
    {"test", "permutations": {"n", "exact"} or None, "pairs", "indistinguishable", "confidence_set"}}, "auc": {class:
    {"models": {name: {"auc", "se", "ci95"}}, "pairs"}}}``. ``models`` are in the order of the metric that
    ranks, and each pair names the higher ranked first: ``{"a", "b", "difference", "ci95", "p", "p_holm"}``; pairs of
    areas of one class hold ``p_cells`` besides, DeLong's p value for independent cells. A metric or class that does
    not exist on these cells is None, as is everything where no two parts cover the same cells.
    """
    models, left_out = pair_up(entries, cells, by_group=settings.stratify == "group")
    head: dict[str, Any] = {"not_comparable": left_out, "alpha": alpha_of(settings.confidence)}
    if models is None:
        nothing: dict[str, Any] = {"unit": None, "n_clusters": 0, "n_cells": 0, "models": []}
        return head | nothing | {"metrics": dict.fromkeys(COMPARED), "auc": dict.fromkeys(class_names)}
    plan = _plan(models, settings)
    placement_kmn = models.placements()
    draws = models.count_score_draws(plan.counts, plan.chunks()) if plan.has_draws else {}
    metrics = {name: _compare_counts(plan, name, draws.get(name)) for name in COUNT_SCORES.names()}
    metrics["macro_auc"] = _compare_areas(plan, placement_kmn)
    return head | {
        "unit": models.clusters.unit,
        "n_clusters": plan.n_clusters,
        "n_cells": len(models.label_n),
        "models": [models.names[m] for m in plan.order],
        "metrics": {name: metrics[name] for name in COMPARED},
        "auc": {
            name: None if placement_mn is None else _compare_class(plan, models.label_n == k, placement_mn)
            for k, (name, placement_mn) in enumerate(zip(class_names, placement_kmn, strict=True))
        },
    }


def _plan(models: PairedModels, settings: EvaluateConfig) -> _Plan:
    counts = models.counts()
    score_m = _scores(RANKED, counts)
    if np.isnan(score_m).any():
        score_m = _scores("accuracy", counts)
    order = [int(m) for m in np.argsort(-score_m, kind="stable")]
    return _Plan(models, counts, order, settings)


def _scores(name: str, counts: Sequence[Counts]) -> Floats:
    """Return a score of each model, averaged over its parts, shape (n_models,)."""
    compute = COUNT_SCORES.get(name).compute
    return np.array([compute(Counts(c.found.sum(1), c.predicted.sum(1), c.true.sum(0))).mean() for c in counts])


def _compare_counts(plan: _Plan, name: str, draws_bm: Floats | None) -> dict[str, Any] | None:
    score = COUNT_SCORES.get(name)
    score_m = _scores(name, plan.counts)
    if np.isnan(score_m).any():
        return None
    pairs = plan.pairs(score_m, every=name == RANKED)
    means = Counts(
        np.stack([c.found.mean(axis=0) for c in plan.counts]),
        np.stack([c.predicted.mean(axis=0) for c in plan.counts]),
        plan.counts[0].true,
    )
    exchanges = plan.exchanges(len(pairs))
    p_values = exchange_p(means, pairs, score=score, exchanges=exchanges)
    rows = [
        _pair(
            plan,
            (a, b),
            float(score_m[a] - score_m[b]),
            None if draws_bm is None else plan.interval(draws_bm, (a, b)),
            float(p),
        )
        for (a, b), p in zip(pairs, p_values, strict=True)
    ]
    test = {"test": "permutation", "permutations": {"n": exchanges.n, "exact": exchanges.exact}}
    return test | _summary(plan, name, score_m, rows, exchanges.smallest_p, draws_bm)


def _compare_areas(plan: _Plan, placement_kmn: Sequence[Floats | None]) -> dict[str, Any] | None:
    known = [p for p in placement_kmn if p is not None]
    if len(known) < len(placement_kmn):
        return None
    areas = macro_clustered(plan.models.label_n, np.stack(known), plan.models.clusters.code_n)
    draws_bm = None
    if plan.has_draws and plan.n_clusters <= MAX_DRAWN:
        draws_bm = np.concatenate([plan.models.macro_auc_draws(chunk) for chunk in plan.chunks()])
    rows = []
    for pair in plan.pairs(areas.area_m, every=False):
        gap, interval, p = areas.difference(*pair, confidence=plan.settings.confidence)
        rows.append(_pair(plan, pair, gap, interval if draws_bm is None else plan.interval(draws_bm, pair), p))
    test = {"test": "delong", "permutations": None}
    return test | _summary(plan, "macro_auc", areas.area_m, rows, 0.0, draws_bm)


def _compare_class(plan: _Plan, positive_n: NDArray[np.bool_], placement_mn: Floats) -> dict[str, Any]:
    """Compare the areas of one class against all others: by animals, and beside it as if cells were independent."""
    confidence = plan.settings.confidence
    areas = delong_clustered(positive_n, placement_mn, plan.models.clusters.code_n)
    by_cells = delong(positive_n, placement_mn)
    rows = []
    for pair in plan.pairs(areas.area_m, every=False):
        row = _pair(plan, pair, *areas.difference(*pair, confidence=confidence))
        rows.append(row | {"p_cells": finite(by_cells.difference(*pair, confidence=confidence)[2])})
    singles = {
        plan.models.names[m]: {
            "auc": float(areas.area_m[m]),
            "se": finite(float(np.sqrt(areas.covariance_mm[m, m]))),
            "ci95": _as_list(areas.interval(m, confidence=confidence)),
        }
        for m in plan.order
    }
    return {"models": singles, "pairs": _with_holm(rows)}


def _pair(plan: _Plan, pair: Pair, difference: float, interval: tuple[float, float] | None, p: float) -> dict[str, Any]:
    a, b = (plan.models.names[m] for m in pair)
    return {"a": a, "b": b, "difference": difference, "ci95": _as_list(interval), "p": finite(p)}


def _as_list(interval: tuple[float, float] | None) -> list[float] | None:
    return None if interval is None else list(interval)


def _with_holm(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    corrected = holm([np.nan if r["p"] is None else r["p"] for r in rows])
    return [r | {"p_holm": finite(p)} for r, p in zip(rows, corrected, strict=True)]


def _summary(
    plan: _Plan,
    metric: str,
    score_m: Floats,
    rows: list[dict[str, Any]],
    smallest_p: float,
    draws_bm: Floats | None,
) -> dict[str, Any]:
    names = plan.models.names
    best = names[max(plan.order, key=lambda m: score_m[m])]
    p_of = {r["b"] if r["a"] == best else r["a"]: r["p"] for r in rows if best in (r["a"], r["b"])}
    return {
        "pairs": _with_holm(rows),
        "indistinguishable": indistinguishable(
            {names[m]: float(score_m[m]) for m in plan.order},
            {name: np.nan if p is None else p for name, p in p_of.items()},
            metric=metric,
            alpha=alpha_of(plan.settings.confidence),
            smallest_p=smallest_p,
            unit=UNIT_WORDS[plan.models.clusters.unit],
            n_clusters=plan.n_clusters,
        ),
        "confidence_set": _confidence_set(plan, score_m, draws_bm),
    }


def _confidence_set(plan: _Plan, score_m: Floats, draws_bm: Floats | None) -> list[str] | None:
    if draws_bm is None:
        return None
    defined_bm = draws_bm[np.isfinite(draws_bm).all(axis=1)]
    if len(defined_bm) < MIN_DEFINED * len(draws_bm):
        return None
    kept = model_confidence_set(
        score_m, defined_bm, alpha=alpha_of(plan.settings.confidence), n_clusters=plan.n_clusters
    )
    return [plan.models.names[m] for m in kept]
