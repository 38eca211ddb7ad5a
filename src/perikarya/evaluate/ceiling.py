"""The score that a perfect classifier could reach, given how reliable the labels are that it is scored against."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from perikarya.config import EvaluateConfig
from perikarya.errors import DataError
from perikarya.evaluate.drawing import Drawing
from perikarya.evaluate.label_quality import Joint
from perikarya.evaluate.metrics import Floats, Ints
from perikarya.schema import NO_LABEL, label_codes

READINGS_FILE = "readings.csv"  # in the study folder: columns cell_id, label; one line per further reading
READINGS, CONFIDENT = "repeated readings", "confident learning"


@dataclass(frozen=True)
class Ceiling:
    """What labels allow.

    Attributes
    ----------
    source
        ``READINGS`` or ``CONFIDENT``.
    estimate
        The score of a perfect classifier against the recorded labels.
    ci95
        Its interval, by bootstrap over animals; None where there are too few.
    draws_b
        Its bootstrap draws, which pair with those of scores of the same cells.
    at_least
        From readings alone: the agreement of two readers, which the ceiling cannot be below; else None.
    n_cells
        Cells it rests on.
    """

    source: str
    estimate: float
    ci95: list[float] | None
    draws_b: Floats
    at_least: float | None
    n_cells: int

    def block(self) -> dict[str, Any]:
        """Return what goes into ``results.json``."""
        return {
            "source": self.source,
            "estimate": self.estimate,
            "ci95": self.ci95,
            "at_least": self.at_least,
            "n_cells": self.n_cells,
        }


def read_readings(path: Path, cells: pd.DataFrame, class_names: tuple[str, ...]) -> Ints | None:
    """Read further readings of cells and put them beside the study's own label.

    Parameters
    ----------
    path
        A CSV file with columns cell_id and label, one line per further reading of a cell; it may name a cell often
        and need not name all. A column ``reader`` and others are allowed and not used.

    Returns
    -------
    Shape (n_cells, n_readings), rows as in ``cells``, the study's label first, ``NO_LABEL`` where there is none; None
    where the file does not exist.

    Raises
    ------
    DataError
        If the file is damaged, or names cells or classes that the study does not have.
    """
    if not path.is_file():
        return None
    try:
        table = pd.read_csv(path, dtype="string")
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is not a readable table of readings: {error}.") from None
    missing = [c for c in ("cell_id", "label") if c not in table]
    if missing or table.empty or table[["cell_id", "label"]].isna().any().any():
        what = f"the column(s) {', '.join(missing)}" if missing else "rows, or entries in cell_id and label"
        raise DataError(f"{path} lacks {what}; it must hold one line per further reading of a cell: cell_id, label.")
    row_r = pd.Index(cells["cell_id"].astype("string")).get_indexer(pd.Index(table["cell_id"]))
    if (row_r < 0).any():
        unknown = table.loc[row_r < 0, "cell_id"].iloc[0]
        raise DataError(
            f"{path}: {(row_r < 0).sum()} line(s) name cells that the study does not have, such as {unknown}.\n"
            "Their agreement would be counted for the wrong cells. Fix: take cell_id from the study's cells table."
        )
    order_r = table.groupby("cell_id").cumcount().to_numpy()
    labels_nr = np.full((len(cells), 2 + int(order_r.max())), NO_LABEL, np.int64)
    labels_nr[:, 0] = label_codes(cells["label"], class_names)
    labels_nr[row_r, 1 + order_r] = label_codes(table["label"], class_names)
    return labels_nr


def ceiling_from_readings(
    labels_nr: Ints, cells: pd.DataFrame, n_classes: int, *, balanced: bool, settings: EvaluateConfig
) -> Ceiling | None:
    """Estimate the ceiling from how often two readings of a cell agree.

    Let p be the probabilities with which a reader calls a cell each class. Two readings agree with probability
    A = mean of sum p^2, and the best classifier is right about one of them with the mean of max p. Since sum p^2 <=
    max p, and since sum p^2 is at least what it is when the other classes share the rest evenly, that mean lies
    between A and g(A) = (1 + sqrt((k - 1) (k A - 1))) / k for k classes, whatever the cells are like; g(A) holds where
    all cells are equally doubtful, A where readers toss a coin between few. The estimate is g(A), the highest that
    the readings allow. For balanced accuracy, A is the mean over the classes of how often another reading
    repeats it; there, g is an approximation.

    Parameters
    ----------
    labels_nr
        From ``read_readings``.
    balanced
        The ceiling of balanced accuracy, else of accuracy.

    Returns
    -------
    None where no cell has two readings, or none of some class has.
    """
    pairs_nkk = _pairs(labels_nr, n_classes)
    twice = pairs_nkk.sum(axis=(1, 2)) > 0
    if not twice.any():
        return None
    drawing = Drawing.of(np.flatnonzero(twice).astype(np.int64), cells, settings)
    sums_sq = np.zeros((drawing.clusters.n_clusters, n_classes**2))
    np.add.at(sums_sq, drawing.clusters.code_n, pairs_nkk[twice].reshape(-1, n_classes**2))
    agreement = float(_agreement(sums_sq.sum(axis=0), balanced=balanced))
    if np.isnan(agreement):
        return None
    draws_b = _highest(_agreement(drawing.draw(sums_sq), balanced=balanced), n_classes)
    return Ceiling(
        source=READINGS,
        estimate=float(_highest(np.array(agreement), n_classes)),
        ci95=drawing.interval(draws_b),
        draws_b=draws_b,
        at_least=agreement,
        n_cells=int(twice.sum()),
    )


def ceiling_from_joint(joint: Joint, *, balanced: bool) -> Ceiling:
    """Take the ceiling from the labels that confident learning believes: who knew the likely class would score so."""
    draws_b = _believed(joint.draws_bkk, balanced=balanced)
    return Ceiling(
        source=CONFIDENT,
        estimate=float(_believed(joint.share_kk, balanced=balanced)),
        ci95=joint.drawing.interval(draws_b),
        draws_b=draws_b,
        at_least=None,
        n_cells=len(joint.drawing.row_n),
    )


def _believed(share_kk: Floats, *, balanced: bool) -> Floats:
    if not balanced:
        return np.asarray(np.trace(share_kk, axis1=-2, axis2=-1))
    return _mean_recall(share_kk)


def _mean_recall(table_kk: Floats) -> Floats:
    """Return the mean over rows of the diagonal's share, shape (...); NaN where a row is empty."""
    total = table_kk.sum(-1)
    hits = np.diagonal(table_kk, axis1=-2, axis2=-1)
    return np.asarray(np.where(total > 0, hits / np.where(total > 0, total, 1.0), np.nan).mean(-1))


def _pairs(labels_nr: Ints, n_classes: int) -> Floats:
    """Return the shares of each cell's ordered pairs of readings, shape (n_cells, n_classes, n_classes)."""
    count_nk = np.stack([(labels_nr == k).sum(axis=1) for k in range(n_classes)], axis=1).astype(np.float64)
    pairs = count_nk[:, :, None] * count_nk[:, None, :]
    pairs[:, np.arange(n_classes), np.arange(n_classes)] -= count_nk  # no reading is paired with itself
    n_pairs = pairs.sum(axis=(1, 2), keepdims=True)
    return np.asarray(np.where(n_pairs > 0, pairs / np.where(n_pairs > 0, n_pairs, 1.0), 0.0))


def _agreement(flat: Floats, *, balanced: bool) -> Floats:
    n_classes = int(np.sqrt(flat.shape[-1]))
    table = flat.reshape(*flat.shape[:-1], n_classes, n_classes)
    if balanced:
        return _mean_recall(table)
    return np.asarray(np.trace(table, axis1=-2, axis2=-1) / table.sum((-2, -1)))


def _highest(agreement: Floats, n_classes: int) -> Floats:
    """Return g(A); agreement below chance counts as chance."""
    if n_classes == 1:
        return np.ones_like(agreement)
    inside = np.maximum((n_classes - 1) * (n_classes * agreement - 1), 0.0)
    return np.asarray((1 + np.sqrt(inside)) / n_classes)
