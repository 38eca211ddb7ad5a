"""Models on the same cells, arranged so that each pair of them can be compared cell by cell and animal by animal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from perikarya.evaluate.delong import placements, won_pairs
from perikarya.evaluate.metrics import Floats, Ints
from perikarya.evaluate.outputs import Scored
from perikarya.evaluate.permutation import COUNT_SCORES, Counts
from perikarya.evaluate.stats import Clusters, Strata, clusters_of, interval_unit, strata_of


@dataclass(frozen=True)
class PairedModels:
    """Predictions of several models for the same cells, in one order of rows.

    Attributes
    ----------
    names
        Of the models.
    prob_mpnk
        Per model one array (n_cells, n_classes) per part; scores are averaged over the parts.
    label_n
        Shape (n_cells,), codes of the true classes.
    clusters
        Which cells belong together.
    strata
        Within which clusters are drawn; None: all together.
    """

    names: tuple[str, ...]
    prob_mpnk: tuple[tuple[Floats, ...], ...]
    label_n: Ints
    clusters: Clusters
    strata: Strata | None = None

    @property
    def n_classes(self) -> int:
        """Number of classes."""
        return int(self.prob_mpnk[0][0].shape[1])

    def counts(self) -> list[Counts]:
        """Count, per model, the cells of each part and cluster: (n_parts, n_clusters, n_classes)."""
        n_clusters, k = self.clusters.n_clusters, self.n_classes
        place_n = self.clusters.code_n * k

        def count(class_n: Ints, weight_n: Floats | None = None) -> Floats:
            sums = np.bincount(place_n + class_n, weight_n, minlength=n_clusters * k)
            return sums.reshape(n_clusters, k).astype(np.float64)

        true = count(self.label_n)
        per_model = []
        for parts in self.prob_mpnk:
            guesses = [prob_nk.argmax(axis=1) for prob_nk in parts]
            found = [count(self.label_n, (g == self.label_n).astype(np.float64)) for g in guesses]
            per_model.append(Counts(np.stack(found), np.stack([count(g) for g in guesses]), true))
        return per_model

    def placements(self) -> list[Floats | None]:
        """Return, per class, the mean placements over the parts, (n_models, n_cells); None without both kinds."""
        per_class: list[Floats | None] = []
        for k in range(self.n_classes):
            positive_n = self.label_n == k
            if positive_n.all() or not positive_n.any():
                per_class.append(None)
                continue
            means = [np.mean([placements(positive_n, p[:, k]) for p in parts], axis=0) for parts in self.prob_mpnk]
            per_class.append(np.stack(means))
        return per_class

    def count_score_draws(self, counts: Sequence[Counts], chunks: Iterable[Floats]) -> dict[str, Floats]:
        """Return each count score in each draw of clusters, averaged over the parts, shape (n_draws, n_models).

        ``counts`` come from ``counts()``, ``chunks`` of draws have shape (some draws, n_clusters).
        """
        rows: dict[str, list[Floats]] = {name: [] for name in COUNT_SCORES.names()}
        for draws_bs in chunks:
            true = draws_bs @ counts[0].true
            drawn = [Counts(draws_bs @ c.found, draws_bs @ c.predicted, true) for c in counts]
            for name, score in COUNT_SCORES.items():
                rows[name].append(np.stack([score.compute(d).mean(axis=0) for d in drawn], axis=1))
        return {name: np.concatenate(found) for name, found in rows.items()}

    def macro_auc_draws(self, draws_bs: Floats) -> Floats:
        """Return the macro AUC in each draw of clusters, averaged over the parts, shape (n_draws, n_models)."""
        code_n, n_clusters = self.clusters.code_n, self.clusters.n_clusters
        total_bm = np.zeros((len(draws_bs), len(self.names)))
        for k in range(self.n_classes):
            positive_n = self.label_n == k
            n_of_kind = [np.bincount(code_n[kind], minlength=n_clusters) for kind in (positive_n, ~positive_n)]
            n_pairs_b = (draws_bs @ n_of_kind[0]) * (draws_bs @ n_of_kind[1])
            for m, parts in enumerate(self.prob_mpnk):
                won_ss = np.mean([won_pairs(positive_n, p[:, k], code_n, n_clusters) for p in parts], axis=0)
                wins_b = np.einsum("bs,bs->b", draws_bs @ won_ss, draws_bs)
                total_bm[:, m] += np.where(n_pairs_b > 0, wins_b / np.maximum(n_pairs_b, 1.0), np.nan)
        return total_bm / self.n_classes


def pair_up(
    entries: Mapping[str, Sequence[Scored]], cells: pd.DataFrame, *, by_group: bool = False
) -> tuple[PairedModels | None, list[dict[str, str]]]:
    """Keep the models that cover the same cells with each of their parts: the cells that most models cover.

    Where two sets of cells are as frequent, the larger one is kept. ``by_group`` makes draws keep the number of
    clusters of every treatment group.

    Returns
    -------
    The models, None where no model's parts agree on their cells; and ``{"model", "reason"}`` of those left out.
    """
    covered = {name: {np.sort(p.row_n).tobytes() for p in parts} for name, parts in entries.items()}
    uniform = Counter(next(iter(rows)) for rows in covered.values() if len(rows) == 1)
    chosen = max(uniform, key=lambda rows: (uniform[rows], len(rows))) if uniform else b""
    row_n = np.frombuffer(chosen, np.int64)
    kept = [name for name in entries if covered[name] == {chosen}]
    left_out = [
        {"model": name, "reason": _why_left_out(parts, row_n)} for name, parts in entries.items() if name not in kept
    ]
    if not kept:
        return None, left_out
    inside = cells.iloc[row_n]
    clusters = clusters_of(inside, interval_unit(inside))
    first = entries[kept[0]][0]
    paired = PairedModels(
        names=tuple(kept),
        prob_mpnk=tuple(tuple(p.prob_nk[np.argsort(p.row_n)] for p in entries[name]) for name in kept),
        label_n=first.label_n[np.argsort(first.row_n)],
        clusters=clusters,
        strata=strata_of(inside, clusters) if by_group else None,
    )
    return paired, left_out


def _why_left_out(parts: Sequence[Scored], row_n: Ints) -> str:
    if len({np.sort(p.row_n).tobytes() for p in parts}) > 1:
        return "its seeds or networks cover different cells; train what is missing to compare it"
    shared = int(np.isin(parts[0].row_n, row_n).sum())
    return (
        f"it covers {len(parts[0].row_n)} cells, {shared} of the {len(row_n)} that the others cover; "
        "scores on different cells cannot be paired"
    )
