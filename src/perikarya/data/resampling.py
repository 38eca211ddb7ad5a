"""Balance the classes of the training rows; held-out rows are never touched.

There are three ways, and a method is one of them: choose among the real cells before training, draw among them anew
in every epoch, or invent cells of rare classes (``data.smote`` has the recipes, ``data.synthetic`` applies them). All
of them are given training rows and nothing else, so they cannot carry a held-out cell into training.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from perikarya.data import smote
from perikarya.errors import DataError
from perikarya.registry import Registry
from perikarya.schema import NO_LABEL
from perikarya.settings import ResampleConfig

Rows = NDArray[np.int64]
Choice = Callable[[NDArray[np.int64], np.random.Generator], NDArray[np.int64]]
"""(codes of the training rows, generator) -> positions in them, with repetition."""

_EPOCH_DRAW = 0x5EED  # keeps these random numbers apart from the loader's, which also follow from seed and epoch


@dataclass(frozen=True)
class Resampler:
    """A method of balancing classes; what it does not do is None.

    ``once`` chooses rows before training, ``each_epoch`` before every epoch, ``recipe`` invents cells.
    """

    once: Choice | None = None
    each_epoch: Choice | None = None
    recipe: smote.Recipe | None = None


RESAMPLERS: Registry[Resampler] = Registry("resampling method")


def resample_rows(labels_n: NDArray[np.int64], rows: Rows, *, config: ResampleConfig, seed: int) -> Rows:
    """Choose once, before training, which training rows are shown, so that the classes are balanced.

    Methods that draw in every epoch or invent cells leave all rows: ``epoch_rows`` and ``data.synthetic`` do the rest.

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
    rows = np.sort(np.asarray(rows, dtype=np.int64))  # the same cells in another order must give the same choice
    codes = training_codes(labels_n, rows)
    choose = RESAMPLERS.get(config.method).once
    return rows if choose is None else np.sort(rows[choose(codes, np.random.default_rng(seed))])


def epoch_rows(labels_n: NDArray[np.int64], rows: Rows, *, config: ResampleConfig, seed: int, epoch: int) -> Rows:
    """Return the rows that one epoch shows: of ``weighted`` a new draw, of all other methods ``rows`` as they are.

    A head on frozen features has no epochs; there ``weighted`` is one such draw, that of epoch 0.

    Parameters
    ----------
    labels_n
        Shape (n_cells,), the codes of all cells of the study.
    rows
        Shape (n_train,), what ``resample_rows`` chose.
    config
        The method.
    seed, epoch
        Decide the draw.

    Returns
    -------
    Shape (n_train,); a draw is ordered by row, and shuffled by the loader.

    Raises
    ------
    DataError
        If there is no training row, or one has no label.
    """
    draw = RESAMPLERS.get(config.method).each_epoch
    if draw is None:
        return rows
    rows = np.sort(np.asarray(rows, dtype=np.int64))
    codes = training_codes(labels_n, rows)
    return np.sort(rows[draw(codes, np.random.default_rng([seed % 2**64, epoch, _EPOCH_DRAW]))])


def training_codes(labels_n: NDArray[np.int64], rows: Rows) -> NDArray[np.int64]:
    """Return the codes of the training rows; raise ``DataError`` when there are none or one has no label."""
    if len(rows) == 0:
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
    return codes


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


def _draw_classes_alike(codes: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    """Draw as many cells as there are, with replacement; each draw is of every class that occurs alike."""
    _, class_of, counts = np.unique(codes, return_inverse=True, return_counts=True)
    weight = 1.0 / (len(counts) * counts[class_of])
    return rng.choice(len(codes), size=len(codes), replace=True, p=weight)


RESAMPLERS.add("none", Resampler())
RESAMPLERS.add("undersample", Resampler(once=_undersample))
RESAMPLERS.add("oversample", Resampler(once=_oversample))
RESAMPLERS.add("weighted", Resampler(each_epoch=_draw_classes_alike))
RESAMPLERS.add("smote", Resampler(recipe=smote.Recipe(smote.plain)))
RESAMPLERS.add("borderline-smote-1", Resampler(recipe=smote.Recipe(smote.borderline_1)))
RESAMPLERS.add("borderline-smote-2", Resampler(recipe=smote.Recipe(smote.borderline_2)))
RESAMPLERS.add("svm-smote", Resampler(recipe=smote.Recipe(smote.svm)))
RESAMPLERS.add("adasyn", Resampler(recipe=smote.Recipe(smote.adasyn)))
RESAMPLERS.add("smote-tomek", Resampler(recipe=smote.Recipe(smote.plain, smote.tomek)))
RESAMPLERS.add("smote-enn", Resampler(recipe=smote.Recipe(smote.plain, smote.enn)))
