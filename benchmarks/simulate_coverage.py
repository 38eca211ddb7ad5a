"""How often 95 % intervals hold the truth when cells of one animal resemble each other.

    python benchmarks/simulate_coverage.py [--quick] [--replicates 2000] [--out docs/figures]

Plays studies whose animals differ, so that their cells are correlated, and counts how often the intervals of accuracy,
balanced accuracy, and recall and AUC of the rarest class hold the value that infinitely many animals would give: by
resampling animals (BCa, percentile, within treatment groups) and by taking cells as independent (Wilson, bootstrap,
DeLong). Draws ``coverage.png``, writes ``coverage.csv`` beside it, prints a table and, as its last line, one JSON
object.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.stats import norm

from _common import REPOSITORY, parse_arguments, print_json, print_table
from perikarya.evaluate.intervals import Resampled, effective_clusters, score_intervals
from perikarya.evaluate.jackknife import influence, leave_out
from perikarya.evaluate.metrics import Floats, Ints, confusion, tally_of
from perikarya.evaluate.stats import Strata, draw_counts, percentile_interval, tally_draws, wilson_interval
from perikarya.evaluate.summary import score_names, score_table
from perikarya.figures.style import FAINT, light_grid, panels, styled
from perikarya.runs import replacing, write_text

CONFIDENCE = 0.95
N_CLASSES, RAREST = 3, 2
SCORES: dict[str, tuple[str, int | None]] = {
    "accuracy": ("accuracy", None),
    "balanced accuracy": ("balanced_accuracy", None),
    "recall of the rarest class": ("recall", RAREST),
    "AUC of the rarest class": ("auc", RAREST),
}
ROWS = [score_names(N_CLASSES).index(key) for key in SCORES.values()]
METHODS = {
    "bca": "animals, BCa (interval: bca)",
    "percentile": "animals, percentile (interval: percentile)",
    "stratified": "animals within groups, BCa (stratify: group)",
    "expanded": "animals, expanded percentile (no other correction)",
    "cells": "cells, as if independent",
}


@dataclass(frozen=True)
class Population:
    """Where the animals come from: half control, half treated.

    ``share_gk`` holds the mean shares of the classes in each group; ``concentration`` says how alike the shares of
    animals of a group are (Dirichlet), ``animal_sd`` how far the stain and grader of an animal move its cells, in steps
    of severity, and ``cell_sd`` how far cells of one animal and class differ.
    """

    share_gk: tuple[tuple[float, ...], ...] = ((0.55, 0.35, 0.10), (0.35, 0.45, 0.20))
    concentration: float = 15.0
    animal_sd: float = 0.45
    cell_sd: float = 0.45
    mean_cells: float = 60.0
    size_sd: float = 0.5  # of the logarithm of the number of cells


@dataclass(frozen=True)
class Played:
    """The cells of one study: true class, probabilities, animal; and the group of each animal."""

    label_n: Ints
    prob_nk: Floats
    animal_n: Ints
    group_s: Ints


def play_study(population: Population, n_animals: int, rng: np.random.Generator) -> Played:
    """Draw animals, then their cells, then what a network says of them."""
    group_s = np.arange(n_animals) % 2
    shares = np.asarray(population.share_gk)[group_s] * population.concentration
    share_sk = rng.gamma(shares)
    share_sk /= share_sk.sum(axis=1, keepdims=True)
    log_mean = np.log(population.mean_cells) - population.size_sd**2 / 2
    n_s = np.maximum(5, rng.lognormal(log_mean, population.size_sd, n_animals)).astype(np.int64)
    animal_n = np.repeat(np.arange(n_animals), n_s)
    label_n = (rng.random((len(animal_n), 1)) > np.cumsum(share_sk, axis=1)[animal_n, :-1]).sum(axis=1)
    shift_s = rng.normal(0, population.animal_sd, n_animals)
    severity = label_n + shift_s[animal_n] + rng.normal(0, population.cell_sd, len(animal_n))
    weight = np.exp(-2.0 * (severity[:, None] - np.arange(N_CLASSES)) ** 2)
    return Played(label_n, weight / weight.sum(axis=1, keepdims=True), animal_n, group_s)


def true_scores(population: Population, *, n_animals: int = 20_000) -> tuple[Floats, float]:
    """Return the scores of a very large study, shape (n_scores,), and the intraclass correlation of being right."""
    played = play_study(population, n_animals, np.random.default_rng(1))
    right = (played.prob_nk.argmax(axis=1) == played.label_n).astype(np.float64)
    return score_table(tally_of(played.label_n, played.prob_nk))[ROWS], intraclass_correlation(right, played.animal_n)


def intraclass_correlation(value_n: Floats, animal_n: Ints) -> float:
    """Return the share of variance between animals, by one-way analysis of variance with unequal sizes."""
    n_s = np.bincount(animal_n)
    mean_s = np.bincount(animal_n, value_n) / n_s
    between = (n_s * (mean_s - value_n.mean()) ** 2).sum() / (len(n_s) - 1)
    within = ((value_n - mean_s[animal_n]) ** 2).sum() / (len(value_n) - len(n_s))
    size = (len(value_n) - (n_s**2).sum() / len(value_n)) / (len(n_s) - 1)
    return float((between - within) / (between + (size - 1) * within))


def simulate_coverage(
    n_animals: int,
    *,
    n_replicates: int,
    n_draws: int = 1000,
    seed: int = 0,
    population: Population | None = None,
    methods: Sequence[str] = tuple(METHODS),
) -> pd.DataFrame:
    """Count how often intervals hold the truth.

    Returns
    -------
    One row per method and score: ``animals``, ``method``, ``score``, ``coverage`` (share of the intervals there are),
    ``width`` (their mean), ``missing`` (share of studies without an interval), ``replicates``.
    """
    population = population or Population()
    truth_v, _ = true_scores(population)
    rng = np.random.default_rng([seed, n_animals])
    found = np.empty((n_replicates, len(methods), len(SCORES), 2))
    for i in range(n_replicates):
        found[i] = _all_intervals(play_study(population, n_animals, rng), methods, n_draws=n_draws, rng=rng)
    low, high = found[..., 0], found[..., 1]
    there = ~np.isnan(low)
    n_there = there.sum(axis=0)
    inside = ((low <= truth_v) & (truth_v <= high)).sum(axis=0)
    return pd.DataFrame(
        [
            {
                "animals": n_animals,
                "method": method,
                "score": score,
                "coverage": inside[m, v] / n_there[m, v] if n_there[m, v] else np.nan,
                "width": float(np.nanmean((high - low)[:, m, v])) if n_there[m, v] else np.nan,
                "missing": 1 - n_there[m, v] / n_replicates,
                "replicates": n_replicates,
            }
            for m, method in enumerate(methods)
            for v, score in enumerate(SCORES)
        ]
    )


def _all_intervals(played: Played, methods: Sequence[str], *, n_draws: int, rng: np.random.Generator) -> Floats:
    """Return the intervals of one study, shape (n_methods, n_scores, 2)."""
    resampled = {None: _resample(played, None, n_draws=n_draws)}
    found = []
    for method in methods:
        strata = tuple(played.group_s.tolist()) if method == "stratified" else None
        if method == "cells":
            found.append(_cell_intervals(played, n_draws=n_draws, rng=rng))
        elif method == "expanded":
            found.append(_expanded(resampled[None].draws_vb, len(played.group_s)))
        else:
            if strata not in resampled:
                resampled[strata] = _resample(played, strata, n_draws=n_draws)
            bounds_v2 = np.tile([0.0, 1.0], (len(SCORES), 1))
            bca = method != "percentile"
            found.append(score_intervals(resampled[strata], bounds_v2, confidence=CONFIDENCE, bca=bca))
    return np.stack(found)


def _resample(played: Played, strata: Strata | None, *, n_draws: int) -> Resampled:
    """Score the study, its draws and what remains without each animal, as ``evaluate.summary.measure`` does."""
    n = len(played.group_s)

    def scores(counts_bs: Floats) -> Floats:
        return score_table(tally_draws(played.label_n, played.prob_nk, played.animal_n, counts_bs))[ROWS]

    plan = leave_out(n, strata)
    cells_sk = np.bincount(played.animal_n * N_CLASSES + played.label_n, minlength=n * N_CLASSES).reshape(n, N_CLASSES)
    of_all, of_class = effective_clusters(cells_sk.sum(axis=1)), effective_clusters(cells_sk)
    return Resampled(
        estimate_v=scores(np.ones((1, n)))[:, 0],
        draws_vb=scores(draw_counts(n, n_draws=n_draws, seed=0, strata=strata)),
        influence=influence(scores(np.concatenate(list(plan.chunks()))), plan),
        df_v=np.array([of_all, of_class.min(), of_class[RAREST], of_class[RAREST]]) - len(set(strata or (0,))),
    )


def _expanded(draws_vb: Floats, n_animals: int) -> Floats:
    found = [percentile_interval(d, confidence=CONFIDENCE, n_clusters=n_animals) for d in draws_vb]
    return np.array([(np.nan, np.nan) if ends is None else ends for ends in found])


def _cell_intervals(played: Played, *, n_draws: int, rng: np.random.Generator) -> Floats:
    """Take cells as independent: Wilson for shares, bootstrap for balanced accuracy, DeLong for the AUC."""
    label_n, n = played.label_n, len(played.label_n)
    table = confusion(label_n, played.prob_nk.argmax(axis=1), N_CLASSES)
    n_rarest = int(table[RAREST].sum())
    drawn = rng.multinomial(n, table.ravel() / n, n_draws).reshape(-1, N_CLASSES, N_CLASSES)
    n_true = drawn.sum(axis=2)
    recall = np.divide(
        np.diagonal(drawn, axis1=1, axis2=2), n_true, out=np.full(n_true.shape, np.nan), where=n_true > 0
    )
    nothing = (np.nan, np.nan)
    return np.array(
        [
            wilson_interval(np.trace(table) / n, n, confidence=CONFIDENCE) or nothing,
            np.nanquantile(recall.mean(axis=1), [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2]),
            wilson_interval(table[RAREST, RAREST] / max(n_rarest, 1), n_rarest, confidence=CONFIDENCE) or nothing,
            _delong(label_n == RAREST, played.prob_nk[:, RAREST]),
        ]
    )


def _delong(positive_n: NDArray[np.bool_], score_n: Floats) -> tuple[float, float]:
    """Return the normal interval of the AUC for independent cells (DeLong et al. 1988)."""
    if positive_n.sum() < 2:
        return np.nan, np.nan
    positive, negative = np.sort(score_n[positive_n]), np.sort(score_n[~positive_n])
    won = np.searchsorted(negative, positive) / len(negative)
    lost_to = 1 - np.searchsorted(positive, negative, side="right") / len(positive)
    half = norm.ppf(0.5 + CONFIDENCE / 2) * np.sqrt(
        won.var(ddof=1) / len(positive) + lost_to.var(ddof=1) / len(negative)
    )
    return float(won.mean() - half), float(won.mean() + half)


@styled
def plot_coverage(coverage: pd.DataFrame) -> Figure:
    """Draw coverage against the number of animals, one panel per score, one line per method."""
    figure, axes = panels(1, len(SCORES), height_in=3.1, sharey=True)
    colours = dict(zip(METHODS, ("#0072B2", "#56B4E9", "#0B1F4B", "#E69F00", "#A50026"), strict=True))
    sizes = sorted(coverage["animals"].unique())
    for ax, score in zip(axes[0], SCORES, strict=True):
        ax.axhspan(0.93, 0.97, color="#e8eef4", lw=0)
        ax.axhline(CONFIDENCE, color=FAINT, lw=0.7, ls=":")
        for i, (method, title) in enumerate(METHODS.items()):
            part = coverage[(coverage["score"] == score) & (coverage["method"] == method)].sort_values("animals")
            ax.plot(range(len(sizes)), part["coverage"], marker="osD^v"[i], ms=4, color=colours[method], label=title)
        ax.set_xticks(range(len(sizes)), [str(n) for n in sizes])
        ax.set(ylim=(0.4, 1.0), xlabel="Animals")
        ax.set_title(score[0].upper() + score[1:], fontsize=7.5)
        light_grid(ax, axis="y")
    axes[0, 0].set_ylabel("Share of 95 % intervals\nthat hold the truth")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure


def _extend(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--replicates", type=int, default=2000)
    parser.add_argument("--animals", type=int, nargs="+", default=[8, 12, 20, 40])
    parser.add_argument("--out", type=Path, default=REPOSITORY / "docs" / "figures", help="folder of figure and table")


def main() -> None:
    """Simulate, draw, write and print."""
    arguments = parse_arguments(__doc__, extend=_extend)
    n_replicates = 50 if arguments.quick else arguments.replicates
    start = time.process_time()
    coverage = pd.concat([simulate_coverage(n, n_replicates=n_replicates) for n in arguments.animals])
    cpu_s = time.process_time() - start
    truth_v, icc = true_scores(Population())
    if not arguments.quick:
        write_text(arguments.out / "coverage.csv", coverage.to_csv(index=False, float_format="%.4f"))
        with replacing(arguments.out / "coverage.png") as temporary:
            plot_coverage(coverage).savefig(temporary, format="png", dpi=200)
    wide = coverage.pivot(index=["method", "animals"], columns="score", values="coverage")[list(SCORES)]
    rows: list[list[Any]] = [[f"{method}, {n}", *(f"{x:.3f}" for x in row)] for (method, n), row in wide.iterrows()]
    print_table(["method, animals", *SCORES], rows)
    print_json(
        "simulate_coverage",
        replicates=n_replicates,
        cpu_s=round(cpu_s, 1),
        intraclass_correlation=round(icc, 3),
        truth={score: round(float(x), 4) for score, x in zip(SCORES, truth_v, strict=True)},
        coverage=coverage.drop(columns="replicates").round(4).to_dict(orient="records"),
    )


if __name__ == "__main__":
    main()
