"""Balance the classes of the training rows; held-out rows are never touched.

A method takes the codes of the rows to train on and returns which of them to show, with repetition. It sees nothing
but training rows, so it cannot carry a held-out cell into training.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from perikarya.config import ResampleConfig
from perikarya.errors import DataError
from perikarya.registry import Registry
from perikarya.schema import NO_LABEL

Resampler = Callable[[NDArray[np.int64], np.random.Generator], NDArray[np.int64]]
"""(codes of the training rows, generator) -> positions in them, with repetition."""

RESAMPLERS: Registry[Resampler] = Registry("resampling method")


def resample_rows(
    labels_n: NDArray[np.int64], rows: NDArray[np.int64], *, config: ResampleConfig, seed: int
) -> NDArray[np.int64]:
    """Choose which training rows an epoch shows, so that the classes are balanced as the configuration asks.

    Parameters
    ----------
    labels_n
        Shape (n_cells,), the codes of all cells of the study.
    rows
        Shape (n_train,), the rows of the training cells; each needs a label.
    config
        The method.
    seed
        Decides which rows are left out or repeated.

    Returns
    -------
    Shape (n_shown,), elements of ``rows`` with repetition, ordered by row.

    Raises
    ------
    DataError
        If there is no training row, or one has no label.
    """
    rows = np.asarray(rows, dtype=np.int64)
    if rows.size == 0:
        raise DataError(
            "There is no training cell to resample.\nAll cells are held out, or none has a label.\n"
            "Fix: use fewer held-out cells (cv.n_folds) or import more labelled ones."
        )
    codes = labels_n[rows]
    if (codes == NO_LABEL).any():
        raise DataError(
            f"{int((codes == NO_LABEL).sum())} training cells have no label: row {rows[codes == NO_LABEL][0]}.\n"
            "A class cannot be balanced without knowing it. Fix: train on labelled cells only."
        )
    # sorted first: the same cells in another order must give the same choice
    order = np.argsort(rows, kind="stable")
    chosen = RESAMPLERS.get(config.method)(codes[order], np.random.default_rng(seed))
    return np.sort(rows[order][chosen])


def _keep_all(codes: NDArray[np.int64], _: np.random.Generator) -> NDArray[np.int64]:
    return np.arange(len(codes), dtype=np.int64)


def _undersample(codes: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    """Leave out cells at random until every class that occurs is as small as the rarest."""
    classes, counts = np.unique(codes, return_counts=True)
    kept = [rng.choice(np.flatnonzero(codes == c), counts.min(), replace=False) for c in classes]
    return np.concatenate(kept)


def _oversample(codes: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    """Show every cell, and repeat cells until every class that occurs is as large as the commonest.

    Cells of a class are shown equally often, give or take one: whole rounds first, then a random part of one.
    """
    classes, counts = np.unique(codes, return_counts=True)
    shown = []
    for c, count in zip(classes, counts, strict=True):
        of_class = np.flatnonzero(codes == c)
        rounds, rest = divmod(int(counts.max()), int(count))
        shown += [np.tile(of_class, rounds), rng.choice(of_class, rest, replace=False)]
    return np.concatenate(shown)


RESAMPLERS.add("none", _keep_all)
RESAMPLERS.add("undersample", _undersample)
RESAMPLERS.add("oversample", _oversample)
