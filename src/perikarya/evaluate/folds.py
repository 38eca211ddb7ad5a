"""Models over the folds of a cross-validation: average ranks, Friedman's test, Nemenyi's critical difference.

These describe how steadily one model comes out ahead of another. They are no proof: the folds of one cross-validation
share most of their training cells, so their scores are not independent (Nadeau & Bengio 2003, Machine Learning
52:239), and a test that takes them as such rejects too often.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.stats import chi2 as chi2_law
from scipy.stats import f as f_law
from scipy.stats import rankdata, studentized_range
from scipy.stats import t as student_t

from perikarya.errors import DataError
from perikarya.evaluate.metrics import OVERALL, Floats, tally_of
from perikarya.evaluate.outputs import Scored

MIN_MODELS, MIN_BLOCKS = 3, 3
SPREAD = ("accuracy", "balanced_accuracy", "macro_auc", "loss")  # what the box plots of the study show


def friedman_nemenyi(
    scores_bm: Floats, names: Sequence[str], *, alpha: float = 0.05, higher_is_better: bool = True
) -> dict[str, Any]:
    """Rank the models within each block and ask whether their average ranks differ.

    Folds of one cross-validation are not independent blocks (see above): read the result as a description.

    Parameters
    ----------
    scores_bm
        Shape (n_blocks, n_models), one block per fold and seed; at least 3 by 3, without NaN.
    names
        Of the models.
    alpha
        Level of the critical difference.
    higher_is_better
        Whether rank 1 goes to the highest score. Equal scores share their mean rank.

    Returns
    -------
    ``{"n_blocks", "chi2", "p_chi2", "f", "p", "alpha", "cd", "ranks": {name: average}, "cliques": [[names]]}``:
    Friedman's statistic corrected for ties; ``f`` and ``p`` after Iman & Davenport (1980), ``f`` None where all blocks
    agree; two models whose average ranks differ by less than ``cd`` are not told apart (Nemenyi 1963; Demsar 2006,
    JMLR 7:1). Cliques are the largest sets within ``cd``, best first; ``ranks`` are sorted.

    Raises
    ------
    DataError
        With fewer than three models or blocks, or a score that does not exist.
    """
    n, k = scores_bm.shape
    if n < MIN_BLOCKS or k < MIN_MODELS or np.isnan(scores_bm).any():
        raise DataError(
            f"Friedman's test needs {MIN_MODELS} models with a score in each of {MIN_BLOCKS} blocks; "
            f"there are {k} models and {n} blocks, {int(np.isnan(scores_bm).sum())} scores are undefined.\n"
            "Fix: leave out models or folds without a score, or compare two models by their predictions."
        )
    rank_bm = rankdata(-scores_bm if higher_is_better else scores_bm, axis=1)
    mean_m = rank_bm.mean(axis=0)
    within = float(((rank_bm - (k + 1) / 2) ** 2).sum()) / (n * (k - 1))  # k (k + 1) / 12 without ties
    chi2 = 0.0 if within == 0 else n * float(((mean_m - (k + 1) / 2) ** 2).sum()) / within
    left = n * (k - 1) - chi2
    f = None if left < 1e-9 else (n - 1) * chi2 / left
    cd = float(studentized_range.ppf(1 - alpha, k, np.inf)) / np.sqrt(2) * np.sqrt(k * (k + 1) / (6 * n))
    order = np.argsort(mean_m, kind="stable")
    return {
        "n_blocks": n,
        "chi2": chi2,
        "p_chi2": float(chi2_law.sf(chi2, k - 1)),
        "f": f,
        "p": 0.0 if f is None else float(f_law.sf(f, k - 1, (k - 1) * (n - 1))),
        "alpha": alpha,
        "cd": float(cd),
        "ranks": {names[i]: float(mean_m[i]) for i in order},
        "cliques": [[names[order[i]] for i in range(*ends)] for ends in _cliques(mean_m[order], float(cd))],
    }


def _cliques(sorted_ranks: Floats, cd: float) -> list[tuple[int, int]]:
    """Return first and last-but-one position of each largest run of at least two models within ``cd``."""
    ends = [int(np.searchsorted(sorted_ranks, r + cd, side="left")) for r in sorted_ranks]
    runs = [(i, end) for i, end in enumerate(ends) if end - i > 1]
    return [(i, end) for i, end in runs if not any(j < i and other >= end for j, other in runs)]


def corrected_t(difference_b: Floats, *, test_per_train: float) -> tuple[float, float] | None:
    """Test a pair of models over folds, allowing for the training cells that folds share.

    The corrected resampled t test (Nadeau & Bengio 2003): the variance of the mean is (1 / n + n_test / n_train) times
    the variance over folds, instead of 1 / n.

    Parameters
    ----------
    difference_b
        Shape (n_blocks,), score of one model minus the other's in each fold.
    test_per_train
        Cells tested per cell trained on, in one fold.

    Returns
    -------
    t with n_blocks - 1 degrees of freedom and its two-sided p value; None with fewer than two folds or where all
    differences agree.
    """
    n = len(difference_b)
    spread = float(np.std(difference_b, ddof=1)) if n > 1 else 0.0
    if spread < 1e-12:
        return None
    t = float(np.mean(difference_b)) / (spread * np.sqrt(1 / n + test_per_train))
    return float(t), float(2 * student_t.sf(abs(t), n - 1))


def network_scores(parts: Sequence[Scored]) -> dict[str, list[float | None]]:
    """Score single networks, one number per part, for box plots: accuracy, balanced accuracy, macro AUC, loss."""
    tallies = [tally_of(p.label_n, p.prob_nk) for p in parts]
    scores = {name: [float(OVERALL.get(name).compute(t)) for t in tallies] for name in SPREAD}
    return {name: [v if np.isfinite(v) else None for v in values] for name, values in scores.items()}


def compare_folds(
    folds: Mapping[str, Mapping[tuple[int, int], Scored]], *, metric: str, test_per_train: float, alpha: float
) -> dict[str, Any]:
    """Compare models over the folds that all of them tested.

    Parameters
    ----------
    folds
        Model name to its tested cells by (seed, fold).
    metric
        Of ``metrics.OVERALL``.
    test_per_train
        Cells tested per cell trained on, in one fold; for the corrected t test.
    alpha
        Level of the critical difference.

    Returns
    -------
    ``{"metric", "n_blocks", "scores": {name: [one per block]}, "friedman": friedman_nemenyi(...) or None, "pairs":
    [{"a", "b", "difference", "t", "p"}], "why"}``: the pairs are the model of best mean against each other one, by the
    corrected t test; ``why`` says why something is missing, else it is None.
    """
    of = OVERALL.get(metric)
    shared = sorted(set.intersection(*(set(f) for f in folds.values()))) if folds else []
    value_bm = np.array(
        [[float(of.compute(tally_of(f[b].label_n, f[b].prob_nk))) for f in folds.values()] for b in shared]
    ).reshape(len(shared), len(folds))
    value_bm = value_bm[np.isfinite(value_bm).all(axis=1)]
    names = list(folds)
    enough = len(value_bm) >= MIN_BLOCKS and len(names) >= MIN_MODELS
    return {
        "metric": metric,
        "n_blocks": len(value_bm),
        "scores": {name: value_bm[:, m].tolist() for m, name in enumerate(names)},
        "friedman": friedman_nemenyi(value_bm, names, alpha=alpha, higher_is_better=of.higher_is_better)
        if enough
        else None,
        "pairs": _with_best(value_bm, names, of.higher_is_better, test_per_train) if len(value_bm) > 1 else [],
        "why": None if enough else _too_few(len(names), len(value_bm), len(shared)),
    }


def _with_best(
    value_bm: Floats, names: Sequence[str], higher_is_better: bool, test_per_train: float
) -> list[dict[str, Any]]:
    mean_m = value_bm.mean(axis=0)
    best = int(np.argmax(mean_m if higher_is_better else -mean_m))
    pairs = []
    for m, name in enumerate(names):
        if m == best:
            continue
        found = corrected_t(value_bm[:, best] - value_bm[:, m], test_per_train=test_per_train)
        t, p = found or (None, None)
        pairs.append({"a": names[best], "b": name, "difference": float(mean_m[best] - mean_m[m]), "t": t, "p": p})
    return pairs


def _too_few(n_models: int, n_blocks: int, n_shared: int) -> str:
    lost = f" ({n_shared - n_blocks} more lack cells of a class)" if n_shared > n_blocks else ""
    return (
        f"Ranks over folds need {MIN_MODELS} models and {MIN_BLOCKS} folds that all of them tested; "
        f"there are {n_models} models and {n_blocks} such folds{lost}."
    )
