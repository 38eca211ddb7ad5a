"""From predicted to true class fractions: undo what the network's errors do to counts.

Counting predicted labels is biased as soon as recall differs between classes: the commoner error wins. If a network
errs on the target animals as it does on reference animals with labels, that is if P(predicted | true) is the same and
only the mix of classes differs (label shift), the bias can be undone. All corrections here rest on that assumption
(Forman 2008, doi:10.1007/s10618-008-0097-y; Gonzalez et al. 2017, doi:10.1145/3117807).

==============  ======================================================================================================
none            classify and count: the share of cells the network gives each class
mean            mean probability of each class, uncorrected (probabilistic classify and count)
adjusted        solve ``C'p = counted shares``, C from labelled reference cells: [true, predicted] (adjusted count)
probabilistic   the same with mean probabilities instead of counts (Bella et al. 2010, doi:10.1109/ICDM.2010.75)
em              prior shift by maximum likelihood (Saerens et al. 2002), see ``prior_shift``
==============  ======================================================================================================
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np

from perikarya.errors import DataError, UnknownNameError
from perikarya.evaluate.metrics import Floats, Ints
from perikarya.evaluate.quantify.cells import Texts
from perikarya.evaluate.quantify.simplex import sources
from perikarya.evaluate.stats import draw_counts

METHODS = ("none", "mean", "adjusted", "probabilistic", "em")
UNCORRECTED = ("none", "mean")
SOFT = ("mean", "probabilistic", "em")
CONDITION_LIMIT = 30.0  # above, one percent too many in a count can move a corrected fraction by 30


@dataclass(frozen=True)
class Sample:
    """The cells of one animal and region, in the parts that are resampled together.

    ``prob_nk`` and ``vote_nk`` have shape (n_cells, n_classes), ``part_n`` shape (n_cells,), codes below
    ``counts_bu.shape[1]``; ``counts_bu`` has shape (n_draws, n_parts): how often each draw takes each part. ``seed`` is
    that of what else is drawn for this sample alone.
    """

    prob_nk: Floats
    vote_nk: Floats
    part_n: Ints
    counts_bu: Floats
    seed: int = 0

    def mean_draws(self, value_nk: Floats) -> Floats:
        """Return the mean of a value over the cells of each draw, shape (n_draws, n_classes)."""
        n_parts = self.counts_bu.shape[1]
        sum_uk = np.stack([np.bincount(self.part_n, column, minlength=n_parts) for column in value_nk.T], axis=1)
        n_u = np.bincount(self.part_n, minlength=n_parts)
        return np.asarray((self.counts_bu @ sum_uk) / (self.counts_bu @ n_u)[:, None])


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
        names, code_n = np.unique(self.unit_n.astype(str), return_inverse=True)
        return names.tolist(), code_n.astype(np.int64)

    @cached_property
    def n_per_unit(self) -> Floats:
        """Shape (n_units, n_classes): labelled cells."""
        names, code_n = self.units
        k = len(self.class_names)
        n_sk = np.bincount(code_n * k + self.label_n, minlength=len(names) * k)
        return n_sk.reshape(len(names), k).astype(np.float64)

    def output_sums(self, *, soft: bool) -> Floats:
        """Sum the outputs, probabilities or votes, by unit and true class: shape (n_units, n_classes, n_classes)."""
        names, code_n = self.units
        k = len(self.class_names)
        cell_n = code_n * k + self.label_n
        columns = (self.prob_nk if soft else self.vote_nk).T
        sums = [np.bincount(cell_n, column, minlength=len(names) * k) for column in columns]
        return np.stack(sums, axis=1).reshape(len(names), k, k).astype(np.float64)

    def own_deviation(self, matrix_kk: Floats, kept_s: Floats, *, soft: bool) -> Floats:
        """Estimate how much animals differ in how the network errs on them.

        Stain, focus and grader differ from animal to animal, so that an animal's mean output is not just what its mix
        of classes and the common matrix make expect. The variance of this deviation over animals, less what sampling
        cells explains, by the method of moments.

        Returns
        -------
        Covariance of an animal's deviation, shape (n_classes, n_classes), positive semidefinite; its rows sum to 0.
        """
        output_nk = self.prob_nk if soft else self.vote_nk
        n_sk = self.n_per_unit * kept_s[:, None]
        n_s = np.maximum(n_sk.sum(axis=1), 1.0)
        deviation_sk = kept_s[:, None] * (self.output_sums(soft=soft).sum(axis=1) - n_sk @ matrix_kk) / n_s[:, None]
        excess_nk = output_nk - matrix_kk[self.label_n]
        kept_n = kept_s[self.units[1]] > 0
        members = [kept_n & (self.label_n == k) for k in range(len(matrix_kk))]
        within_kij = np.stack([excess_nk[m].T @ excess_nk[m] / max(1, m.sum()) for m in members])
        sampling_ij = np.tensordot((n_sk / n_s[:, None] ** 2).sum(axis=0), within_kij, axes=1)
        excess_ij = (deviation_sk.T @ deviation_sk - sampling_ij) / max(1.0, kept_s.sum() - 1)
        value_k, vector_kk = np.linalg.eigh(excess_ij)
        return np.asarray((vector_kk * np.maximum(value_k, 0.0)) @ vector_kk.T)

    def weights(self, *, n_draws: int, seed: int, without: str | None) -> tuple[Floats, Floats]:
        """Return the weight of each unit, shape (n_units,), and in each draw, shape (n_draws, n_units).

        The animal called ``without`` weighs nothing: what corrects an animal must not have been measured on it.
        """
        names, _ = self.units
        kept_s = np.array([name != without for name in names], dtype=np.float64)
        if not kept_s.any():
            raise DataError(
                f"Only animal {without} has labelled reference cells, and an animal cannot correct itself.\n"
                "Fix: label cells of more animals, or count without correction (--correction none)."
            )
        return kept_s, draw_counts(len(names), n_draws=n_draws, seed=seed) * kept_s


def misclassification(sums_kk: Floats, n_k: Floats, class_names: tuple[str, ...]) -> Floats:
    """Return how true classes are predicted, shape (n_classes, n_classes): [true, predicted], rows sum to 1.

    Raises
    ------
    DataError
        If a class has no labelled reference cell.
    """
    if (n_k <= 0).any():
        name = class_names[int(np.argmin(n_k))]
        raise DataError(
            f"Class '{name}' has no labelled reference cell outside the animal to correct.\n"
            "How the network errs on that class is unknown, so no count can be corrected for it.\n"
            "Fix: label such cells in two reference animals at least, or use --correction none."
        )
    return np.asarray(sums_kk / n_k[:, None])


def check_condition(matrix_kk: Floats, class_names: tuple[str, ...]) -> float:
    """Return the condition number of a misclassification matrix; refuse one that cannot be undone.

    Raises
    ------
    DataError
        If it is above ``CONDITION_LIMIT``: two classes are predicted nearly alike.
    """
    condition = float(np.linalg.cond(matrix_kk))
    if condition <= CONDITION_LIMIT:
        return condition
    gap_kk = np.abs(matrix_kk[:, None, :] - matrix_kk[None, :, :]).sum(axis=2) + 9.0 * np.eye(len(matrix_kk))
    one, other = np.unravel_index(int(gap_kk.argmin()), gap_kk.shape)
    raise DataError(
        f"The network cannot tell the classes apart well enough to correct its counts: '{class_names[one]}' and "
        f"'{class_names[other]}' are predicted nearly alike (condition number {condition:.3g}, limit "
        f"{CONDITION_LIMIT:g}).\nCorrected fractions would be noise. "
        "Fix: use a better model (--model), merge the classes, or count without correction (--correction none)."
    )


@dataclass(frozen=True)
class Fractions:
    """Class fractions of one sample: ``point_k``; draws with the whole error; draws with the correction's alone."""

    point_k: Floats
    draws_bk: Floats
    shared_bk: Floats


@dataclass(frozen=True)
class Corrected:
    """Fractions on the simplex, and free of that bound for means over animals (see ``simplex.sources``)."""

    bounded: Fractions
    free: Fractions


class Fitted(Protocol):
    """A correction that is ready for the cells of one animal."""

    def correct(self, sample: Sample) -> Corrected:
        """Return the fractions of one sample with their draws."""
        ...


class Correction(Protocol):
    """A way from predictions to fractions."""

    @property
    def animals(self) -> frozenset[str]:
        """The reference animals: each is to be left out when it is corrected itself."""
        ...

    def without(self, subject: str | None) -> Fitted:
        """Fit to the reference cells of all animals but one, or of all."""
        ...


@dataclass(frozen=True)
class Counting:
    """No correction: shares of votes or mean probabilities; the reference plays no part."""

    soft: bool

    animals: frozenset[str] = frozenset()

    def without(self, subject: str | None) -> Counting:  # noqa: ARG002
        """Return itself: counting is the same for every animal."""
        return self

    def correct(self, sample: Sample) -> Corrected:
        """Count."""
        value_nk = sample.prob_nk if self.soft else sample.vote_nk
        point = value_nk.mean(axis=0)
        draws = sample.mean_draws(value_nk)
        counted = Fractions(point, draws, np.broadcast_to(point, draws.shape))
        return Corrected(counted, counted)


@dataclass(frozen=True)
class MatrixFitted:
    """One misclassification matrix, one for every draw of reference animals, and how far single animals deviate."""

    soft: bool
    matrix_kk: Floats
    matrix_bkk: Floats
    deviation_kk: Floats

    def correct(self, sample: Sample) -> Corrected:
        """Solve for the fractions behind the counts, with the counts and the matrix of each draw."""
        value_nk = sample.prob_nk if self.soft else sample.vote_nk
        observed = value_nk.mean(axis=0)
        points = sources(self.matrix_kk[None], observed[None])
        shared = sources(self.matrix_bkk, np.broadcast_to(observed, (len(self.matrix_bkk), len(observed))))
        draws = sources(self.matrix_bkk, sample.mean_draws(value_nk) + self._deviations(sample.seed))
        bounded, free = (Fractions(p[0], d, s) for p, d, s in zip(points, draws, shared, strict=True))
        return Corrected(bounded, free)

    def _deviations(self, seed: int) -> Floats:
        """Draw what sets an animal apart, shape (n_draws, n_classes)."""
        value_k, vector_kk = np.linalg.eigh(self.deviation_kk)
        normal_bk = np.random.default_rng([seed, 1]).standard_normal(self.matrix_bkk.shape[:2])
        return np.asarray((normal_bk * np.sqrt(np.maximum(value_k, 0.0))) @ vector_kk.T)


@dataclass(frozen=True)
class MatrixCorrection:
    """Adjusted count: by counts (``soft`` false) or by mean probabilities."""

    reference: Reference
    soft: bool
    n_draws: int
    seed: int

    @property
    def animals(self) -> frozenset[str]:
        """The reference animals."""
        return frozenset(self.reference.units[0])

    def without(self, subject: str | None) -> MatrixFitted:
        """Measure the matrix on all animals but one.

        A draw holds one cell's weight of the whole reference's row, so that a class it happens to miss stays defined.
        """
        kept_s, counts_bs = self.reference.weights(n_draws=self.n_draws, seed=self.seed, without=subject)
        sum_skk, n_sk = self.reference.output_sums(soft=self.soft), self.reference.n_per_unit
        names = self.reference.class_names
        matrix = misclassification(np.einsum("s,sij->ij", kept_s, sum_skk), kept_s @ n_sk, names)
        check_condition(matrix, names)
        drawn_bkk = np.tensordot(counts_bs, sum_skk, axes=1) + matrix
        return MatrixFitted(
            soft=self.soft,
            matrix_kk=matrix,
            matrix_bkk=drawn_bkk / (counts_bs @ n_sk + 1.0)[:, :, None],
            deviation_kk=self.reference.own_deviation(matrix, kept_s, soft=self.soft),
        )


def make_correction(method: str, reference: Reference | None, *, n_draws: int, seed: int) -> Correction:
    """Return the correction called ``method``.

    Raises
    ------
    UnknownNameError
        If there is none of that name.
    DataError
        If it needs labelled reference cells and there are none, or they cannot tell the classes apart.
    """
    if method not in METHODS:
        raise UnknownNameError("correction", method, METHODS)
    if method in UNCORRECTED:
        return Counting(soft=method in SOFT)
    if reference is None or not len(reference.label_n):
        raise DataError(
            "There are no labelled cells to measure the network's errors on, so its counts cannot be corrected.\n"
            "Fix: name a table of labelled, held-out predictions (--reference TABLE), or count without correction "
            "(--correction none) and say so."
        )
    if method == "em":
        from perikarya.evaluate.quantify.prior_shift import PriorShift

        return PriorShift(reference, n_draws=n_draws, seed=seed)
    return MatrixCorrection(reference, method in SOFT, n_draws=n_draws, seed=seed)
