"""Folds over groups: all cells of one animal (or image) are on the same side of every split.

Cells of one animal look alike, so a network that has seen the animal is tested on what it knows. Folds are therefore
drawn over groups, and stratified: the classes are spread over the folds as evenly as whole groups allow.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from perikarya.errors import DataError
from perikarya.schema import DEVELOPMENT, read_table, write_table
from perikarya.settings import CvConfig

log = logging.getLogger(__name__)

_MAX_ROUNDS = 60  # over all pairs of folds; the search ends earlier when no exchange helps
_MAX_CANDIDATES = 192  # groups of a fold looked at in one exchange; keeps 5,000 groups within a second
_TOTAL_WEIGHT = 0.25  # how much the size of a fold counts beside one class; above 0, so that no fold stays empty
_MIN_GAIN = 1e-12

_UNKNOWN_SUBJECTS = (
    "The animals are unknown for {missing} of {total} cells, so folds are drawn over images: cells of one animal can "
    "be trained on and held out at once, and the figures may be too good."
)
_OVER_CELLS = (
    "Folds are drawn over single cells, as asked: cells of one animal and of one image are trained on and held out at "
    "once. The figures are too good and say nothing about a new animal."
)


class Roles(NamedTuple):
    """What each cell does in one training: arrays of cell_id, sorted."""

    train: NDArray[np.str_]
    stop: NDArray[np.str_]
    test: NDArray[np.str_]


@dataclass(frozen=True)
class FoldPlan:
    """Which fold each labelled development cell belongs to.

    ``frame`` has the columns ``cell_id`` and ``fold`` (0 to ``n_folds`` - 1), sorted by ``cell_id``; ``warning`` is
    what a reader of the results must know about the plan, or None.
    """

    frame: pd.DataFrame
    group_by: str
    n_folds: int
    seed: int
    warning: str | None = None

    def roles(self, test_fold: int) -> Roles:
        """Return the cells that train, stop and test: fold k tests, fold k+1 (cyclic) stops, the others train.

        Raises
        ------
        DataError
            If the plan has no such fold.
        """
        if not 0 <= test_fold < self.n_folds:
            raise DataError(
                f"There is no fold {test_fold}; this plan has folds 0 to {self.n_folds - 1}.\n"
                "Any other split would leak. Fix: name one of these folds (cv.folds)."
            )
        return self._divide(stop_fold=(test_fold + 1) % self.n_folds, test_fold=test_fold)

    def roles_single(self) -> Roles:
        """Return the cells of the one training on everything: fold 0 stops, the others train, nothing tests."""
        return self._divide(stop_fold=0, test_fold=None)

    def _divide(self, *, stop_fold: int, test_fold: int | None) -> Roles:
        ids = self.frame["cell_id"].to_numpy(dtype=str)
        fold = self.frame["fold"].to_numpy(dtype=np.int64)
        is_stop = fold == stop_fold
        is_test = np.zeros_like(is_stop) if test_fold is None else fold == test_fold
        return Roles(train=ids[~is_stop & ~is_test], stop=ids[is_stop], test=ids[is_test])

    def save(self, path: Path) -> None:
        """Write ``folds.parquet`` whole."""
        extra = {"group_by": self.group_by, "n_folds": str(self.n_folds), "seed": str(self.seed)}
        write_table(path, self.frame, **extra, **({"warning": self.warning} if self.warning else {}))

    @classmethod
    def load(cls, path: Path) -> FoldPlan:
        """Read what ``save`` wrote; raise ``DataError`` when it is missing, damaged or no fold plan."""
        frame, meta = read_table(path, what="a fold plan")
        try:
            plan = cls(
                frame=frame[["cell_id", "fold"]].astype({"cell_id": "string", "fold": "int64"}),
                group_by=meta["group_by"],
                n_folds=int(meta["n_folds"]),
                seed=int(meta["seed"]),
                warning=meta.get("warning"),
            )
        except (KeyError, ValueError) as error:
            raise DataError(f"{path} is not a fold plan ({error}). Fix: start the run in a new folder.") from None
        found = np.unique(plan.frame["fold"])
        if not np.array_equal(found, np.arange(plan.n_folds)) or plan.frame["cell_id"].duplicated().any():
            raise DataError(
                f"{path} should put every cell into one of {plan.n_folds} folds, all of them used; it does not.\n"
                "Training on it could leak. Fix: start the run in a new folder."
            )
        return plan


def rows_of(cell_ids: ArrayLike, wanted: ArrayLike) -> NDArray[np.int64]:
    """Return where the ``wanted`` cells are in ``cell_ids``, shape (n_wanted,).

    Raises
    ------
    DataError
        If a wanted cell is not there: the plan belongs to another study.
    """
    wanted_ids = np.asarray(wanted, dtype=str)
    rows = pd.Index(np.asarray(cell_ids, dtype=object)).get_indexer(pd.Index(wanted_ids.astype(object)))
    if (rows < 0).any():
        raise DataError(
            f"{int((rows < 0).sum())} cells of the fold plan are not in the study, such as "
            f"{wanted_ids[rows < 0][0]}.\nThe study has changed since the plan was made; mixing them would leak.\n"
            "Fix: use the study of that time, or start the run in a new folder."
        )
    return np.asarray(rows, dtype=np.int64)


def plan_folds(
    cells: pd.DataFrame,
    *,
    cv: CvConfig,
    linked: Sequence[tuple[str, str]] = (),
    left_out: Collection[str] = (),
) -> FoldPlan:
    """Put every labelled development cell into a fold, whole groups at a time.

    The plan depends on the seed and on the cells, not on the order of the rows.

    Parameters
    ----------
    cells
        Rows of the cells table (see ``schema.CELL_COLUMNS``).
    cv
        Number of folds, what a group is, and the seed.
    linked
        Pairs of cell_id whose groups must share a fold, because both cells show the same picture.
    left_out
        The cell_id of cells that take no part, because the external set shows the same picture.

    Returns
    -------
    A plan in which no fold is empty, no group is in two folds, and the deviation of the class counts from their
    even share is minimised greedily and then by exchanging groups.

    Raises
    ------
    DataError
        If there is nothing to divide, a subject is missing where subjects are asked for, or there are fewer groups
        than folds.
    """
    takes_part = (cells["set"] == DEVELOPMENT) & cells["label"].notna() & ~cells["cell_id"].isin(set(left_out))
    used = cells.loc[takes_part].sort_values("cell_id")
    if used.empty:
        raise DataError(
            "There is no labelled development cell, so there is nothing to draw folds over.\n"
            "Fix: import cells with labels into the development set."
        )
    group_by, warning = _choose_groups(used, cv.group_by)
    column = "cell_id" if group_by == "cell" else group_by
    names, group_of_cell = np.unique(used[column].to_numpy(dtype=str), return_inverse=True)
    n_groups, group_of_cell = _merge_groups(group_of_cell, len(names), used["cell_id"], linked)
    if n_groups < cv.n_folds:
        raise DataError(_too_few_groups(used, group_by, n_groups=n_groups, n_folds=cv.n_folds))
    classes, class_of_cell = np.unique(used["label"].to_numpy(dtype=str), return_inverse=True)
    counts_gc = np.zeros((n_groups, len(classes)), dtype=np.int64)
    np.add.at(counts_gc, (group_of_cell, class_of_cell), 1)
    rare = _rare_class_sentence(counts_gc, classes.tolist(), group_by, n_folds=cv.n_folds)
    apart = _separated_sentence(len(names) - n_groups, len(left_out), group_by)
    warning = " ".join(s for s in (warning, rare, apart) if s) or None
    if warning:
        log.warning("%s", warning)
    fold_of_group = assign_groups(counts_gc, n_folds=cv.n_folds, seed=cv.seed)
    frame = pd.DataFrame({"cell_id": used["cell_id"].astype("string"), "fold": fold_of_group[group_of_cell]})
    return FoldPlan(frame.reset_index(drop=True), group_by, cv.n_folds, cv.seed, warning)


def _merge_groups(
    group_of_cell: NDArray[np.intp], n_groups: int, cell_ids: pd.Series, linked: Sequence[tuple[str, str]]
) -> tuple[int, NDArray[np.intp]]:
    """Make one group of all groups that are linked, directly or through others."""
    rows = pd.Index(cell_ids.astype(object))
    pairs = rows.get_indexer(pd.Index([cell for pair in linked for cell in pair], dtype=object)).reshape(-1, 2)
    pairs = pairs[(pairs >= 0).all(axis=1)]  # a partner that takes no part links nothing
    if len(pairs) == 0:
        return n_groups, group_of_cell
    ends = group_of_cell[pairs]
    links = coo_array((np.ones(len(ends)), (ends[:, 0], ends[:, 1])), shape=(n_groups, n_groups))
    n_merged, merged_of_group = connected_components(links, directed=False)
    return int(n_merged), merged_of_group[group_of_cell].astype(np.intp)


def _separated_sentence(n_merged: int, n_left_out: int, group_by: str) -> str | None:
    parts = []
    if n_left_out:
        parts.append(f"{n_left_out} development cells whose picture is also in the external set were left out")
    if n_merged:
        parts.append(f"{n_merged} groups ({group_by}) that share a picture with another were kept in its fold")
    return f"{'; '.join(parts)}." if parts else None


def assign_groups(counts_gc: NDArray[np.int64], *, n_folds: int, seed: int) -> NDArray[np.int64]:
    """Spread groups over folds so that every class is spread as evenly as possible.

    The cost is the sum over folds and classes of (share of the class in the fold - 1 / n_folds)^2, so a rare class
    weighs as much as a common one; the number of cells in a fold counts a little beside. Groups with large shares
    are placed first, each where it costs least; then pairs of folds exchange or hand over groups as long as that
    lowers the cost.

    Parameters
    ----------
    counts_gc
        Shape (n_groups, n_classes): cells of each class in each group; at least ``n_folds`` groups, none empty.
    n_folds
        Number of folds.
    seed
        Decides between equally good places.

    Returns
    -------
    Shape (n_groups,), the fold of each group; no fold is empty.
    """
    rng = np.random.default_rng(seed)
    total_c = counts_gc.sum(axis=0)
    size_g = counts_gc.sum(axis=1, keepdims=True)
    share_gc = np.hstack([counts_gc / np.maximum(total_c, 1), np.sqrt(_TOTAL_WEIGHT) * size_g / size_g.sum()])
    # largest first, but not strictly: else another seed would give the same folds where all groups differ in size
    order = np.argsort(-(share_gc**2).sum(axis=1) * rng.uniform(1.0, 4.0, len(share_gc)), kind="stable")
    share_fc = np.zeros((n_folds, share_gc.shape[1]))
    fold_g = np.empty(len(share_gc), dtype=np.int64)
    for group in order:
        # the cost grows by 2 v.s + v.v when a group of shares v joins a fold of shares s; v.v is the same everywhere
        fold = int(np.argmin(share_fc @ share_gc[group]))
        fold_g[group] = fold
        share_fc[fold] += share_gc[group]
    _exchange_groups(share_gc, fold_g, share_fc, rng)
    return fold_g


def _exchange_groups(
    share_gc: NDArray[np.float64], fold_g: NDArray[np.int64], share_fc: NDArray[np.float64], rng: np.random.Generator
) -> None:
    pairs = list(combinations(range(len(share_fc)), 2))
    if len(pairs) > 200:  # many folds: a random part of the pairs per round keeps the time bounded
        pairs = [pairs[i] for i in rng.choice(len(pairs), 200, replace=False)]
    for _ in range(_MAX_ROUNDS):
        improved = [_exchange_pair(share_gc, fold_g, share_fc, pair, rng) for pair in pairs]
        if not any(improved):
            return


def _exchange_pair(
    share_gc: NDArray[np.float64],
    fold_g: NDArray[np.int64],
    share_fc: NDArray[np.float64],
    pair: tuple[int, int],
    rng: np.random.Generator,
) -> bool:
    """Make the best exchange between two folds, if one lowers the cost; a group may also go without a return.

    A fold is never emptied: handing over its only group changes the cost by 2 v.s >= 0.
    """
    a, b = pair
    in_a, in_b = (_candidates(fold_g, fold, rng) for fold in pair)
    none = np.zeros((1, share_gc.shape[1]))
    va, vb = np.vstack([share_gc[in_a], none]), np.vstack([share_gc[in_b], none])
    towards = share_fc[a] - share_fc[b]
    alone_a = (va**2).sum(axis=1) - va @ towards
    alone_b = (vb**2).sum(axis=1) + vb @ towards
    change = alone_a[:, None] + alone_b[None, :] - 2 * va @ vb.T  # half the change of the cost
    i, j = np.unravel_index(int(np.argmin(change)), change.shape)
    if change[i, j] >= -_MIN_GAIN:
        return False
    if i < len(in_a):
        fold_g[in_a[i]] = b
    if j < len(in_b):
        fold_g[in_b[j]] = a
    share_fc[a] += vb[j] - va[i]
    share_fc[b] += va[i] - vb[j]
    return True


def _candidates(fold_g: NDArray[np.int64], fold: int, rng: np.random.Generator) -> NDArray[np.int64]:
    groups = np.flatnonzero(fold_g == fold)
    return groups if len(groups) <= _MAX_CANDIDATES else rng.choice(groups, _MAX_CANDIDATES, replace=False)


def _choose_groups(used: pd.DataFrame, group_by: str) -> tuple[str, str | None]:
    unknown = used["subject"].isna() | (used["subject"].astype("string").str.strip() == "").fillna(False)
    n_unknown = int(unknown.sum())
    if group_by == "auto":
        if n_unknown == 0:
            return "subject", None
        return "image_id", _UNKNOWN_SUBJECTS.format(missing=n_unknown, total=len(used))
    if group_by == "subject" and n_unknown:
        raise DataError(
            f"{n_unknown} of {len(used)} labelled development cells have no subject, such as cell "
            f"{used.loc[unknown, 'cell_id'].iloc[0]}; folds over animals need one for each.\n"
            "A cell without an animal could be on both sides of a split.\n"
            "Fix: give the animals when importing (--metadata), or set cv.group_by: image_id."
        )
    return group_by, _OVER_CELLS if group_by == "cell" else None


def _too_few_groups(used: pd.DataFrame, group_by: str, *, n_groups: int, n_folds: int) -> str:
    fixes = []
    if n_groups >= 3:
        fixes.append(f"set cv.n_folds: {n_groups}")
    n_images = used["image_id"].nunique()
    if group_by == "subject" and n_images >= n_folds:
        fixes.append(f"set cv.group_by: image_id ({n_images} groups), knowing that animals are then split")
    if group_by != "cell" and not fixes and len(used) >= n_folds:
        fixes.append(f"set cv.group_by: cell ({len(used)} groups), only to try things out, for it leaks")
    fixes.append("import more data")
    return (
        f"The labelled development cells come from {n_groups} group(s) ({group_by}) but cv.n_folds is {n_folds}.\n"
        "A group is never divided, so some folds would be empty.\n"
        f"Fix: {', or '.join(fixes)}."
    )


def _rare_class_sentence(
    counts_gc: NDArray[np.int64], classes: list[str], group_by: str, *, n_folds: int
) -> str | None:
    n_groups_c = (counts_gc > 0).sum(axis=0)
    rare = [f"'{c}' ({n})" for c, n in zip(classes, n_groups_c.tolist(), strict=True) if n < n_folds]
    if not rare:
        return None
    return (
        f"Fewer groups ({group_by}) than the {n_folds} folds hold a cell of class {', '.join(rare)}: some folds have "
        "none of it, and its figures rest on the other folds."
    )
