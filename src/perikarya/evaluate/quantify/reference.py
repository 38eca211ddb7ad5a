"""Labelled cells that show how the network errs, and the sums over animals that corrections need of them."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from perikarya.errors import DataError
from perikarya.evaluate.metrics import Floats, Ints
from perikarya.evaluate.quantify.cells import Cells, PredictedCells, Texts
from perikarya.evaluate.stats import draw_counts
from perikarya.schema import NO_LABEL


@dataclass(frozen=True)
class Reference:
    """Labelled cells that no network predicting them was trained on: they show how the network errs.

    ``unit_n`` names what is resampled: the animal, or the image where the animal is unknown.
    """

    label_n: Ints
    prob_nk: Floats
    vote_nk: Floats
    unit_n: Texts
    class_names: tuple[str, ...]

    @cached_property
    def units(self) -> tuple[list[str], Ints]:
        """The units' names, sorted, and the code of each cell."""
        code_n, names = pd.factorize(self.unit_n.astype(str), sort=True)
        return [str(name) for name in names], code_n.astype(np.int64)

    def sums(self) -> ReferenceSums | None:
        """Sum the cells up, and keep them; None where there are none."""
        pile = Pile(self.class_names, keep_cells=True)
        pile.add(self)
        return pile.sums()


@dataclass(frozen=True)
class Outputs:
    """Sums of what the network says, probabilities or votes, by unit and true class.

    ``sum_skk`` has shape (n_units, n_classes, n_classes); ``product_skij`` holds the sums of each output times each
    other, shape (n_units, n_classes, n_classes, n_classes).
    """

    sum_skk: Floats
    product_skij: Floats


@dataclass(frozen=True)
class ReferenceSums:
    """A reference summed up by unit.

    Attributes
    ----------
    names
        Of the units, sorted.
    n_sk
        Shape (n_units, n_classes): labelled cells.
    soft, hard
        Of probabilities; of votes.
    class_names
        In order of severity.
    cells
        The cells themselves where they were asked for.
    """

    names: list[str]
    n_sk: Floats
    soft: Outputs
    hard: Outputs
    class_names: tuple[str, ...]
    cells: Reference | None = None

    @property
    def n_cells(self) -> int:
        """Labelled cells."""
        return int(self.n_sk.sum())

    def outputs(self, *, soft: bool) -> Outputs:
        """Return the sums of probabilities or of votes."""
        return self.soft if soft else self.hard

    def without(self, units: Collection[str]) -> ReferenceSums:
        """Leave units out; the cells are not kept."""
        kept = np.array([name not in units for name in self.names], bool)
        soft, hard = (Outputs(o.sum_skk[kept], o.product_skij[kept]) for o in (self.soft, self.hard))
        names = [name for name, keep in zip(self.names, kept, strict=True) if keep]
        return replace(self, names=names, n_sk=self.n_sk[kept], soft=soft, hard=hard, cells=None)

    def own_deviation(self, matrix_kk: Floats, kept_s: Floats, *, soft: bool) -> Floats:
        """Estimate how much animals differ in how the network errs on them.

        Stain, focus and grader differ from animal to animal, so that an animal's mean output is not just what its mix
        of classes and the common matrix make expect. The variance of this deviation over animals, less what sampling
        cells explains, by the method of moments.

        Returns
        -------
        Covariance of an animal's deviation, shape (n_classes, n_classes), positive semidefinite; its rows sum to 0.
        """
        outputs = self.outputs(soft=soft)
        n_sk = self.n_sk * kept_s[:, None]
        n_s = np.maximum(n_sk.sum(axis=1), 1.0)
        deviation_sk = kept_s[:, None] * (outputs.sum_skk.sum(axis=1) - n_sk @ matrix_kk) / n_s[:, None]
        # within a class, around its row of the matrix: sum (o - m)(o - m)' = sum oo' - m sum o' - sum o m' + n mm'
        sum_kk, n_k = np.einsum("s,ski->ki", kept_s, outputs.sum_skk), n_sk.sum(axis=0)
        cross_kij = matrix_kk[:, :, None] * sum_kk[:, None, :]
        square_kij = n_k[:, None, None] * matrix_kk[:, :, None] * matrix_kk[:, None, :]
        product_kij = np.einsum("s,skij->kij", kept_s, outputs.product_skij)
        within_kij = product_kij - cross_kij - cross_kij.transpose(0, 2, 1) + square_kij
        within_kij /= np.maximum(n_k, 1.0)[:, None, None]
        sampling_ij = np.tensordot((n_sk / n_s[:, None] ** 2).sum(axis=0), within_kij, axes=1)
        excess_ij = (deviation_sk.T @ deviation_sk - sampling_ij) / max(1.0, kept_s.sum() - 1)
        value_k, vector_kk = np.linalg.eigh(excess_ij)
        return np.asarray((vector_kk * np.maximum(value_k, 0.0)) @ vector_kk.T)

    def weights(self, *, n_draws: int, seed: int, without: str | None) -> tuple[Floats, Floats]:
        """Return the weight of each unit, shape (n_units,), and in each draw, shape (n_draws, n_units).

        The animal called ``without`` weighs nothing: what corrects an animal must not have been measured on it.
        """
        kept_s = np.array([name != without for name in self.names], dtype=np.float64)
        if not kept_s.any():
            raise DataError(
                f"Only animal {without} has labelled reference cells, and an animal cannot correct itself.\n"
                "Fix: label cells of more animals, or count without correction (--correction none)."
            )
        return kept_s, draw_counts(len(self.names), n_draws=n_draws, seed=seed) * kept_s


def reference_of(cells: Cells, *, keep_cells: bool = False) -> ReferenceSums | None:
    """Take all labelled cells as reference; None where there are none."""
    pile = Pile(cells.class_names, keep_cells=keep_cells)
    for chunk in cells.chunks():
        pile.add_labelled(chunk, np.ones(len(chunk.label_n), bool))
    return pile.sums()


class Pile:
    """Labelled cells while they are summed up by unit, one after another: it does not matter in which pieces they come.

    Memory grows with units, and with cells where they are kept.
    """

    def __init__(self, class_names: tuple[str, ...], *, keep_cells: bool) -> None:
        self._class_names, self._keep_cells = class_names, keep_cells
        self._number: dict[str, int] = {}
        k = len(class_names)
        self._sums = np.zeros((1 + 2 * (k + k * k), 0, k))  # cells; probabilities, their products; votes, theirs
        self._kept: list[Reference] = []
        self._n_seen = 0

    def add_labelled(self, cells: PredictedCells, chosen_n: NDArray[np.bool_]) -> None:
        """Add the labelled cells among those ``chosen_n``, shape (n_cells,)."""
        row_n = np.flatnonzero((cells.label_n != NO_LABEL) & chosen_n)
        if len(row_n):
            unit_n = cells.subject_n[row_n].copy()
            for i in np.flatnonzero(pd.isna(unit_n)):
                image = cells.image_n[row_n[i]]
                unit_n[i] = f"cell {self._n_seen + row_n[i]}" if image is None else f"image {image}"
            votes = cells.votes()[row_n]
            self.add(Reference(cells.label_n[row_n], cells.prob_nk[row_n], votes, unit_n, self._class_names))
        self._n_seen += len(cells.label_n)

    def add(self, piece: Reference) -> None:
        """Add labelled cells."""
        names, code_n = piece.units
        unit_n = np.array([self._number.setdefault(name, len(self._number)) for name in names])[code_n]
        n_new = len(self._number) - self._sums.shape[1]
        self._sums = np.pad(self._sums, ((0, 0), (0, n_new), (0, 0)))
        for total_sk, value_n in zip(self._sums, _columns(piece), strict=True):
            np.add.at(total_sk, (unit_n, piece.label_n), value_n)
        if self._keep_cells:
            self._kept.append(piece)

    def sums(self) -> ReferenceSums | None:
        """Return the sums over what was added; None where there was nothing."""
        if not self._number:
            return None
        names = sorted(self._number)
        sums = self._sums[:, [self._number[name] for name in names]]
        soft, hard = (_outputs(part, len(self._class_names)) for part in np.split(sums[1:], 2))
        return ReferenceSums(names, sums[0], soft, hard, self._class_names, _joined(self._kept) if self._kept else None)


def _columns(piece: Reference) -> Iterable[Floats]:
    yield np.ones(len(piece.label_n))
    for output_nk in (piece.prob_nk, piece.vote_nk):
        yield from output_nk.T
        yield from (one * other for one in output_nk.T for other in output_nk.T)


def _outputs(columns: Floats, k: int) -> Outputs:
    sum_skk = np.moveaxis(columns[:k], 0, 2)
    product = columns[k:].reshape(k, k, *columns.shape[1:])
    return Outputs(np.ascontiguousarray(sum_skk), np.ascontiguousarray(np.moveaxis(product, (0, 1), (2, 3))))


def _joined(pieces: list[Reference]) -> Reference:
    fields = ("label_n", "prob_nk", "vote_nk", "unit_n")
    joined = {name: np.concatenate([getattr(piece, name) for piece in pieces]) for name in fields}
    return Reference(**joined, class_names=pieces[0].class_names)
