"""Exchange the predictions of two models, animal by animal, to see what differences arise between equal models.

If two models are equally good, it is chance which of them made which of two sets of predictions for an animal. Each
permutation exchanges them for some animals, always all cells of an animal together, so that cells may be as alike
within animals as they like.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from perikarya.evaluate.metrics import Floats, Ints
from perikarya.registry import Registry

MAX_BLOCKS = 256  # more clusters are exchanged in so many blocks drawn by chance, which is as valid and much faster
PER_TEST = 10  # permutations per smallest p value that Holm's correction must reach: 10 m / alpha
_AS_LARGE = 1e-10  # rounding must not make an equal difference smaller
_CHUNK_VALUES = 4_000_000


@dataclass(frozen=True)
class Counts:
    """Cells of each class in each cluster: found, predicted and true.

    Shapes (..., n_classes), with models, parts, clusters, draws or permutations in front; ``true`` is the same for all
    models and parts.
    """

    found: Floats
    predicted: Floats
    true: Floats


@dataclass(frozen=True)
class CountScore:
    """A score that follows from counts; ``linear`` ones are sums over clusters, for the true counts never change."""

    compute: Callable[[Counts], Floats]
    linear: bool


def _share(part: Floats, whole: Floats) -> Floats:
    undefined = whole == 0
    return np.where(undefined, np.nan, part / np.where(undefined, 1.0, whole))


def _macro_f1(counts: Counts) -> Floats:
    whole = np.where(counts.true == 0, 0.0, counts.true + counts.predicted)  # no F1 of a class without cells
    return np.asarray(_share(2 * counts.found, whole).mean(-1))


COUNT_SCORES: Registry[CountScore] = Registry("score of counts")
COUNT_SCORES.add("balanced_accuracy", CountScore(lambda c: _share(c.found, c.true).mean(-1), linear=True))
COUNT_SCORES.add("accuracy", CountScore(lambda c: _share(c.found.sum(-1), c.true.sum(-1)), linear=True))
COUNT_SCORES.add("macro_f1", CountScore(_macro_f1, linear=False))


@dataclass(frozen=True)
class Exchanges:
    """Which clusters are exchanged in which permutation.

    Attributes
    ----------
    n_units
        Clusters, or blocks of them where there are more than ``MAX_BLOCKS``.
    n
        Number of permutations.
    exact
        All that exist; half of them are computed, for exchanging everywhere else gives the same distance.
    seed
        Of those drawn at random.
    """

    n_units: int
    n: int
    exact: bool
    seed: int

    @classmethod
    def plan(cls, n_clusters: int, *, n_wanted: int, seed: int) -> Exchanges:
        """Take all permutations where there are at most ``n_wanted``, else so many at random."""
        n_units = min(n_clusters, MAX_BLOCKS)
        exact = n_units <= int(np.log2(n_wanted))
        return cls(n_units, 2**n_units if exact else n_wanted, exact, seed)

    @property
    def smallest_p(self) -> float:
        """The smallest p value that can come out, however different two models are."""
        return 2.0 / self.n if self.exact else 1.0 / (self.n + 1)

    def units_of(self, n_clusters: int) -> Ints:
        """Return the block of each cluster, shape (n_clusters,)."""
        if n_clusters == self.n_units:
            return np.arange(n_clusters)
        return np.random.default_rng([self.seed, n_clusters, 1]).permutation(n_clusters) % self.n_units

    def signs(self) -> Iterator[Floats]:
        """Iterate over permutations, shape (some, n_units): 1 where the models stay, -1 where they are exchanged."""
        rows = max(1, _CHUNK_VALUES // self.n_units)
        rng = np.random.default_rng([self.seed, self.n_units, 2])
        total = self.n // 2 if self.exact else self.n
        for start in range(0, total, rows):
            n = min(rows, total - start)
            if self.exact:
                bits = (np.arange(start, start + n)[:, None] >> np.arange(self.n_units)) & 1
            else:
                bits = rng.integers(0, 2, (n, self.n_units), dtype=np.int8)
            yield np.asarray(1.0 - 2.0 * bits, np.float64)

    def p_values(self, n_as_large: Ints) -> Floats:
        """Turn the number of permutations with as large a distance into p values (Phipson & Smyth 2010)."""
        return n_as_large / (self.n // 2) if self.exact else (n_as_large + 1) / (self.n + 1)


def exchange_p(counts: Counts, pairs: Sequence[tuple[int, int]], *, score: CountScore, exchanges: Exchanges) -> Floats:
    """Return the two-sided p value of each pair of models under exchange of their predictions within clusters.

    Parameters
    ----------
    counts
        ``found`` and ``predicted`` of shape (n_models, n_clusters, n_classes), ``true`` (n_clusters, n_classes).
    pairs
        Positions of two models each.
    score
        Whose difference is looked at.
    exchanges
        The permutations, the same for all pairs.

    Returns
    -------
    Shape (n_pairs,).
    """
    if not pairs:
        return np.empty(0)
    counts = _in_units(counts, exchanges)
    true_k = counts.true.sum(0)
    totals = Counts(counts.found.sum(1), counts.predicted.sum(1), true_k)
    score_m = score.compute(totals)
    observed = np.array([abs(score_m[a] - score_m[b]) for a, b in pairs])
    n_as_large = np.zeros(len(pairs), np.int64)
    for signs in exchanges.signs():
        swung = Counts(signs @ counts.found, signs @ counts.predicted, true_k)  # (n_models, some, n_classes)
        distance = _linear(swung, score) if score.linear else _halves(swung, totals, score)
        for i, (a, b) in enumerate(pairs):
            n_as_large[i] += int((distance(a, b) >= observed[i] - _AS_LARGE).sum())
    return exchanges.p_values(n_as_large)


def _in_units(counts: Counts, exchanges: Exchanges) -> Counts:
    """Add up the clusters that are exchanged together."""
    unit_s = exchanges.units_of(len(counts.true))
    order = np.argsort(unit_s, kind="stable")
    first = np.searchsorted(unit_s[order], np.arange(exchanges.n_units))

    def added(value: Floats) -> Floats:
        return np.asarray(np.add.reduceat(value.take(order, axis=-2), first, axis=-2))

    return Counts(added(counts.found), added(counts.predicted), added(counts.true))


def _linear(swung: Counts, score: CountScore) -> Callable[[int, int], NDArray[np.float64]]:
    score_mp = score.compute(swung)
    return lambda a, b: np.abs(score_mp[a] - score_mp[b])


def _halves(swung: Counts, totals: Counts, score: CountScore) -> Callable[[int, int], NDArray[np.float64]]:
    """Score both models of each permutation: half of what they have together, plus and minus half of what swings."""

    def distance(a: int, b: int) -> NDArray[np.float64]:
        mixed = []
        for sign in (0.5, -0.5):
            found = 0.5 * (totals.found[a] + totals.found[b]) + sign * (swung.found[a] - swung.found[b])
            predicted = 0.5 * (totals.predicted[a] + totals.predicted[b])
            predicted = predicted + sign * (swung.predicted[a] - swung.predicted[b])
            mixed.append(score.compute(Counts(found, predicted, totals.true)))
        return np.abs(mixed[0] - mixed[1])

    return distance
