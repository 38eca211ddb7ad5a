"""What damage is computed from and what it comes to: predicted cells in, one row per animal and region out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from perikarya.evaluate.metrics import Floats, Ints

ALL_REGIONS = "all"  # the row of an animal's cells of every region together
SEVERITY = "severity"
PROB = "prob_"  # begins the names of columns with probabilities
PLACES = ("subject", "region", "group", "image_id", "label")  # columns that tell of a cell what is known before
Texts = NDArray[np.object_]


def fraction_measure(class_name: str) -> str:
    """Name the column and the draws of one class's fraction, such as ``fraction_pyknotic``."""
    return f"fraction_{class_name}"


def one_hot(code_n: Ints, n_classes: int) -> Floats:
    """Return rows with a single 1, shape (n_cells, n_classes)."""
    return np.asarray(np.eye(n_classes)[code_n])


def texts_of(column: pd.Series) -> Texts:
    """Return the words of a column, shape (n_cells,), None where there is none; what is not text becomes text."""
    if isinstance(column.dtype, pd.CategoricalDtype):
        words = np.array([*map(str, column.cat.categories), None], dtype=object)
        return words[column.cat.codes.to_numpy(np.int64)]  # code -1, of what is missing, is the last word
    text = column.astype("string").astype(object)
    return np.asarray(text.where(column.notna(), None).to_numpy(dtype=object))


class Cells(Protocol):
    """The cells whose damage is asked for: in memory, or read piece by piece as often as they are asked for."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """In order of severity."""
        ...

    def chunks(self) -> Iterator[PredictedCells]:
        """Iterate over all cells, always in the same order."""
        ...


@dataclass(frozen=True)
class PredictedCells:
    """Cells in memory, labelled or not: all there are, or some of many.

    Attributes
    ----------
    prob_nk
        Shape (n_cells, n_classes), float64, rows sum to 1; the mean over networks where there are several.
    label_n
        Shape (n_cells,), int64, codes of the true classes, ``schema.NO_LABEL`` where unknown.
    subject_n
        Shape (n_cells,), the animals; the unit of every interval and test.
    region_n, group_n
        Shape (n_cells,), text, None for a cell whose region or group is unknown; None as a whole where all are.
    image_n
        Shape (n_cells,), the images the cells were outlined in; None for a cell whose image is unknown, which counts
        as an image of its own.
    class_names
        In order of severity.
    vote_nk
        Shape (n_cells, n_classes): the share of networks that rank each class first; None: the first by ``prob_nk``.
    """

    prob_nk: Floats
    label_n: Ints
    subject_n: Texts
    region_n: Texts | None
    group_n: Texts | None
    image_n: Texts
    class_names: tuple[str, ...]
    vote_nk: Floats | None = None

    def chunks(self) -> Iterator[PredictedCells]:
        """Yield the cells in one piece."""
        yield self

    def votes(self) -> Floats:
        """Return the share of networks that rank each class first, shape (n_cells, n_classes)."""
        if self.vote_nk is not None:
            return self.vote_nk
        return one_hot(self.prob_nk.argmax(axis=1), self.prob_nk.shape[1])


@dataclass(frozen=True)
class AnimalDamage:
    """Damage per animal and region, with its measurement error.

    Attributes
    ----------
    table
        One row per animal and region, ``ALL_REGIONS`` among them (all cells of the animal pooled). Columns: subject,
        group (None where unknown), region, n_cells, ``fraction_<class>`` per class (corrected), severity (0-1).
    draws
        Measure (the names of those columns) to shape (n_draws, n_rows): bootstrap draws of the whole measurement
        error: that of the correction (one draw of the reference animals is common to all rows of a draw), that of
        counting a sample of each animal's cells, and how the network may err otherwise on one animal. For statements
        about these very animals.
    shared
        The same with the correction's error alone. For statements about groups: resample animals and take the
        values of draw b from here, because the spread between animals already holds the rest.
    """

    table: pd.DataFrame
    draws: dict[str, Floats]
    shared: dict[str, Floats]
