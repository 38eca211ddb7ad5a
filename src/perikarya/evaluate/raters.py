"""How far readers agree: kappas of two readers, of several, of one with themselves, in all and class by class.

A kappa is a formula over counts, so its bootstrap draws whole animals as those of all other scores do.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from perikarya.config import EvaluateConfig
from perikarya.evaluate.cluster_sums import ClusterDraws, Formulas, sum_columns
from perikarya.evaluate.metrics import Floats, Ints, ratio
from perikarya.evaluate.summary import finite


@dataclass(frozen=True)
class Estimate:
    """A number and its interval; None where it does not exist or cells are too few to tell."""

    estimate: float | None
    ci95: tuple[float, float] | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return it for JSON."""
        return {"estimate": self.estimate, "ci95": None if self.ci95 is None else list(self.ci95)}


@dataclass(frozen=True)
class PairAgreement:
    """How far two readings of the same cells agree.

    Attributes
    ----------
    n_cells
        Cells that have both.
    observed
        Share of cells with the same class in both; None without cells.
    cohen
        Cohen's kappa (1960, doi:10.1177/001316446002000104): the share of agreement beyond what the two would have by
        chance. It does not exist where both know one class only, for then chance agreement is complete.
    weighted
        With quadratic weights (Cohen 1968, doi:10.1037/h0026256); None unless asked for.
    per_class
        Cohen's kappa of each class against all others.
    """

    n_cells: int
    observed: float | None
    cohen: Estimate
    weighted: Estimate | None
    per_class: tuple[Estimate, ...]


@dataclass(frozen=True)
class GroupAgreement:
    """How far several readers agree: Fleiss' kappa (1971, doi:10.1037/h0031619), in all and class by class."""

    n_cells: int
    kappa: Estimate
    per_class: tuple[Estimate, ...]


@dataclass(frozen=True)
class _Readings:
    """Codes of the classes, shape (n_cells, n_readers), of the cells in ``row_n`` of a table."""

    row_n: Ints
    code_nr: Ints


def agreement_of_two(
    code_n2: Ints, cells: pd.DataFrame, n_classes: int, *, ordered: bool, settings: EvaluateConfig
) -> PairAgreement:
    """Compare two readings of the same cells.

    Parameters
    ----------
    code_n2
        Shape (n_cells, 2), codes of the classes; every cell has both.
    cells
        The cells' rows of the study's table, which tell what animal or image a cell is from.
    n_classes
        How many classes there are.
    ordered
        Whether the classes are in order, so that a miss by two classes weighs more: adds the weighted kappa.
    settings
        The bootstrap's.
    """
    costs = [_off_diagonal(n_classes)]
    if ordered:
        costs.append(np.subtract.outer(np.arange(n_classes), np.arange(n_classes)).astype(np.float64) ** 2)
    costs += [_one_against_rest(k, n_classes) for k in range(n_classes)]
    scores = _score(code_n2, cells, _count_pairs(n_classes), partial(_kappas, np.stack(costs)), len(costs), settings)
    return PairAgreement(
        n_cells=len(code_n2),
        observed=float((code_n2[:, 0] == code_n2[:, 1]).mean()) if len(code_n2) else None,
        cohen=scores[0],
        weighted=scores[1] if ordered else None,
        per_class=tuple(scores[-n_classes:]),
    )


def agreement_of_all(code_nr: Ints, cells: pd.DataFrame, n_classes: int, *, settings: EvaluateConfig) -> GroupAgreement:
    """Compare two or more readers of the same cells.

    Parameters
    ----------
    code_nr
        Shape (n_cells, n_readers), codes of the classes; every cell has all.
    cells, n_classes, settings
        As in ``agreement_of_two``.
    """
    n_readers = code_nr.shape[1]
    compute = partial(_fleiss, n_readers)
    scores = _score(code_nr, cells, _count_classes(n_classes, n_readers), compute, n_classes + 1, settings)
    return GroupAgreement(n_cells=len(code_nr), kappa=scores[0], per_class=tuple(scores[1:]))


def _score(
    code_nr: Ints,
    cells: pd.DataFrame,
    sum_by: Callable[[_Readings, Ints, int], Floats],
    compute: Callable[[Floats], Floats],
    n_scores: int,
    settings: EvaluateConfig,
) -> list[Estimate]:
    """Compute kappas from sums over cells, of which the last column counts the cells."""
    if not len(code_nr):
        return [Estimate(None)] * n_scores
    readings = _Readings(np.arange(len(code_nr), dtype=np.int64), code_nr)
    n_columns = sum_by(readings, np.zeros(len(code_nr), np.int64), 1).shape[1]
    formulas = Formulas(compute, ((-1.0, 1.0),) * n_scores, (n_columns - 1,) * n_scores)
    drawn = ClusterDraws.over([readings], cells, settings).score([readings], [], sum_by, formulas)
    return [
        Estimate(finite(mean), None if np.isnan(mean) or interval is None else (interval[0], interval[1]))
        for mean, interval in zip(drawn.mean_v, drawn.intervals, strict=True)
    ]


def _count_pairs(n_classes: int) -> Callable[[_Readings, Ints, int], Floats]:
    """Count, by cluster, how often each pair of classes was given, and the cells."""

    def sum_by(readings: _Readings, cluster_n: Ints, n_clusters: int) -> Floats:
        kind_n = readings.code_nr[:, 0] * n_classes + readings.code_nr[:, 1]
        flat = np.bincount(cluster_n * n_classes**2 + kind_n, minlength=n_clusters * n_classes**2)
        pairs = flat.reshape(n_clusters, n_classes**2)
        return np.column_stack([pairs, pairs.sum(axis=1)]).astype(np.float64)

    return sum_by


def _kappas(cost_vkk: Floats, sums: Floats) -> Floats:
    """Return 1 - observed / expected cost for each table of costs, shape (n_scores, ...)."""
    k = cost_vkk.shape[-1]
    pairs = sums[..., :-1].reshape(*sums.shape[:-1], k, k)
    observed = np.einsum("...ij,vij->v...", pairs, cost_vkk) * sums[..., -1]
    by_chance = np.einsum("...i,vij,...j->v...", pairs.sum(-1), cost_vkk, pairs.sum(-2))
    return np.asarray(1.0 - ratio(observed, by_chance))


def _off_diagonal(n_classes: int) -> Floats:
    return 1.0 - np.eye(n_classes)


def _one_against_rest(k: int, n_classes: int) -> Floats:
    is_k = np.arange(n_classes) == k
    return np.asarray(is_k[:, None] != is_k, np.float64)


def _count_classes(n_classes: int, n_readers: int) -> Callable[[_Readings, Ints, int], Floats]:
    """Sum up, by cluster and class, how many readers gave it and how many pairs of them disagreed on it; the cells."""

    def sum_by(readings: _Readings, cluster_n: Ints, n_clusters: int) -> Floats:
        given_nk = np.stack([(readings.code_nr == k).sum(axis=1) for k in range(n_classes)], axis=1)
        value_nc = np.column_stack([given_nk, given_nk * (n_readers - given_nk), np.ones(len(given_nk))])
        return sum_columns(value_nc.astype(np.float64), cluster_n, n_clusters)

    return sum_by


def _fleiss(n_readers: int, sums: Floats) -> Floats:
    """Return Fleiss' kappa in all, then of each class: shape (1 + n_classes, ...)."""
    n_classes = (sums.shape[-1] - 1) // 2
    n_cells = sums[..., -1:]
    share = ratio(sums[..., :n_classes], n_cells * n_readers)
    by_chance = n_cells * n_readers * (n_readers - 1) * share * (1.0 - share)
    disagree = sums[..., n_classes : 2 * n_classes]
    total = ratio(disagree.sum(-1, keepdims=True), by_chance.sum(-1, keepdims=True))
    return np.asarray(np.moveaxis(1.0 - np.concatenate([total, ratio(disagree, by_chance)], axis=-1), -1, 0))
