"""The jackknife over clusters, which tells how far single clusters move a score."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from perikarya.evaluate.metrics import Floats, Ints
from perikarya.evaluate.stats import CHUNK_VALUES, SAME, Strata

MAX_LEFT_OUT = 500  # clusters left out one by one; more are left out in blocks, which leaves the skewness as it is


@dataclass(frozen=True)
class LeftOut:
    """What each sample of the jackknife leaves out: ``block_s`` per cluster, ``stratum_j`` and ``n_j`` per block."""

    block_s: Ints
    stratum_j: Ints
    n_j: Ints

    def chunks(self) -> Iterator[Floats]:
        """Yield weights of shape (some blocks, n_clusters): 0 left out, the rest of the stratum weighted up for it."""
        stratum_s = self.stratum_j[self.block_s]
        n_of_stratum = np.bincount(stratum_s)[self.stratum_j]
        up_j = n_of_stratum / (n_of_stratum - self.n_j)
        step = max(1, CHUNK_VALUES // len(self.block_s))
        for start in range(0, len(self.n_j), step):
            block = np.arange(start, min(start + step, len(self.n_j)))[:, None]
            weight = np.where(stratum_s == self.stratum_j[block], up_j[block], 1.0)
            weight[self.block_s == block] = 0.0
            yield weight


def leave_out(n_clusters: int, strata: Strata | None = None) -> LeftOut:
    """Plan the jackknife: one cluster at a time, or blocks within one stratum where there are more than 500."""
    stratum_s = np.asarray(strata if strata is not None else np.zeros(n_clusters), np.int64)
    block_s = np.empty(n_clusters, np.int64)
    stratum_of_block: list[int] = []
    for h in np.unique(stratum_s):
        inside = np.flatnonzero(stratum_s == h)
        n_blocks = len(inside)
        if n_clusters > MAX_LEFT_OUT:
            n_blocks = max(2, round(MAX_LEFT_OUT * len(inside) / n_clusters))
        block_s[inside] = len(stratum_of_block) + np.arange(len(inside)) % n_blocks
        stratum_of_block += [int(h)] * n_blocks
    return LeftOut(block_s, np.array(stratum_of_block, np.int64), np.bincount(block_s).astype(np.int64))


@dataclass(frozen=True)
class Influence:
    """What single clusters do to each score, shape (n_scores,); NaN where a score does not exist without one of them.

    Attributes
    ----------
    se_v
        The standard error of the jackknife, which errs on the wide side where clusters are few or differ in size.
    acceleration_v
        A sixth of the skewness of the influence values, for BCa; 0 where no cluster changes anything.
    """

    se_v: Floats
    acceleration_v: Floats


def influence(left_out_vj: Floats, plan: LeftOut) -> Influence:
    """Compare the scores without each block, shape (n_scores, n_blocks), with their mean.

    Blocks are compared within their stratum (Davison & Hinkley 1997, Bootstrap Methods, sections 2.7.3 and 3.2).
    """
    n_of_j = np.bincount(plan.stratum_j)[plan.stratum_j]
    pull_vj = np.empty_like(left_out_vj)
    for h in np.unique(plan.stratum_j):
        inside = plan.stratum_j == h
        pull_vj[:, inside] = left_out_vj[:, inside].mean(axis=1, keepdims=True) - left_out_vj[:, inside]
    se_v = np.sqrt((pull_vj**2 * (n_of_j - 1) / n_of_j).sum(axis=1))
    pull_vj *= (n_of_j - 1) / n_of_j
    square = (pull_vj**2).sum(axis=1)
    moves = square > SAME**2
    skew = (pull_vj**3).sum(axis=1) / np.where(moves, square, 1.0) ** 1.5
    return Influence(se_v, np.where(moves | np.isnan(square), skew / 6.0, 0.0))
