"""How often exchanging the group labels of animals, which is chance alone, would give as large a difference."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from itertools import combinations
from math import comb
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perikarya.evaluate.metrics import Floats
from perikarya.evaluate.stats import SAME

_CHUNK_LABELINGS = 20_000  # of 40 animals: 6 MB
_TIE = 1e-9  # statistics that differ by less differ by rounding only


def permutation_test(group_n: Floats, reference_n: Floats, *, n_permutations: int, seed: int) -> dict[str, Any]:
    """Test by exchanging the group labels of animals whether two groups have the same mean, both sides.

    The statistic is Welch's: a difference divided by its own standard error keeps the level when the groups differ in
    spread, which a plain difference of means does not (Janssen 1997, doi:10.1016/S0167-7152(97)00043-6). All labelings
    are gone through where there are no more than ``n_permutations``; otherwise so many are drawn, and
    p = (b + 1) / (m + 1) (Phipson & Smyth 2010, doi:10.2202/1544-6115.1585).

    Returns
    -------
    ``p``; ``p_smallest``, the least that so few animals can give; ``n_labelings`` gone through; ``exact``.
    """
    n_group, n = len(group_n), len(group_n) + len(reference_n)
    value_n = np.concatenate([group_n, reference_n])
    value_n = (value_n - value_n.mean()) / max(float(value_n.std()), SAME)
    observed = abs(float(_welch(value_n, np.arange(n)[None] < n_group)[0])) * (1 - _TIE)
    n_all = comb(n, n_group)
    if n_all <= n_permutations:
        n_extreme = int((np.abs(_welch(value_n, labelings(n, n_group))) >= observed).sum())
        smallest = (2 if 2 * n_group == n else 1) / n_all  # swapped groups of one size give the same difference
        return {"p": n_extreme / n_all, "p_smallest": smallest, "n_labelings": n_all, "exact": True}
    drawn = _random_labelings(n, n_group, n_permutations, np.random.default_rng([seed, n, n_group]))
    n_extreme = sum(int((np.abs(_welch(value_n, part)) >= observed).sum()) for part in drawn)
    smallest = 1 / (n_permutations + 1)
    p = (n_extreme + 1) / (n_permutations + 1)
    return {"p": p, "p_smallest": smallest, "n_labelings": n_permutations, "exact": False}


@lru_cache(maxsize=8)
def labelings(n: int, n_group: int) -> NDArray[np.bool_]:
    """Return every way to call ``n_group`` of ``n`` animals a group, shape (n_labelings, n), read-only."""
    members = np.array(list(combinations(range(n), n_group)))
    inside = np.zeros((len(members), n), dtype=bool)
    np.put_along_axis(inside, members, values=True, axis=1)
    inside.setflags(write=False)
    return inside


def _random_labelings(n: int, n_group: int, n_draws: int, rng: np.random.Generator) -> Iterator[NDArray[np.bool_]]:
    for start in range(0, n_draws, _CHUNK_LABELINGS):
        order = rng.random((min(_CHUNK_LABELINGS, n_draws - start), n)).argsort(axis=1)
        yield order < n_group


def _welch(value_n: Floats, inside_ln: NDArray[np.bool_]) -> Floats:
    """Return the studentised difference of each labeling; infinite where the groups differ but do not vary."""
    n_in = int(inside_ln[0].sum())
    n_out = len(value_n) - n_in
    inside = inside_ln.astype(np.float64)
    sum_in, square_in = inside @ value_n, inside @ value_n**2
    mean_in, mean_out = sum_in / n_in, (value_n.sum() - sum_in) / n_out
    variance_in = (square_in - n_in * mean_in**2) / (n_in - 1)
    variance_out = ((value_n**2).sum() - square_in - n_out * mean_out**2) / (n_out - 1)
    difference, variance = mean_in - mean_out, variance_in / n_in + variance_out / n_out
    flat = variance < SAME
    no_spread = np.where(np.abs(difference) < _TIE, 0.0, np.copysign(np.inf, difference))
    return np.where(flat, no_spread, difference / np.sqrt(np.where(flat, 1.0, variance)))
