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
from typing import Protocol

import numpy as np

from perikarya.errors import DataError, UnknownNameError
from perikarya.evaluate.metrics import Floats, Ints
from perikarya.evaluate.quantify.reference import Reference, ReferenceSums
from perikarya.evaluate.quantify.simplex import sources

METHODS = ("none", "mean", "adjusted", "probabilistic", "em")
UNCORRECTED = ("none", "mean")
SOFT = ("mean", "probabilistic", "em")
CONDITION_LIMIT = 30.0  # above, one percent too many in a count can move a corrected fraction by 30


@dataclass(frozen=True)
class Sample:
    """The cells of one animal and region, summed up over the parts that are resampled together.

    Attributes
    ----------
    n_u, prob_uk, vote_uk
        Shape (n_parts,) and (n_parts, n_classes): cells, sums of probabilities and of votes.
    counts_bu
        Shape (n_draws, n_parts): how often each draw takes each part.
    seed
        Of what else is drawn for this sample alone.
    prob_nk, part_n
        Shape (n_cells, n_classes) and (n_cells,): the cells themselves with the codes of their parts, for corrections
        that need them (``Correction.needs_cells``).
    """

    n_u: Floats
    prob_uk: Floats
    vote_uk: Floats
    counts_bu: Floats
    seed: int = 0
    prob_nk: Floats | None = None
    part_n: Ints | None = None

    @classmethod
    def of_cells(cls, prob_nk: Floats, vote_nk: Floats, part_n: Ints, counts_bu: Floats, seed: int = 0) -> Sample:
        """Sum up cells, and keep them."""
        n_parts = counts_bu.shape[1]
        n_u = np.bincount(part_n, minlength=n_parts).astype(np.float64)
        sums = [_sum_by_part(value_nk, part_n, n_parts) for value_nk in (prob_nk, vote_nk)]
        return cls(n_u, sums[0], sums[1], counts_bu, seed, prob_nk, part_n)

    def outputs(self, *, soft: bool) -> Floats:
        """Return the sums of probabilities or of votes, shape (n_parts, n_classes)."""
        return self.prob_uk if soft else self.vote_uk

    def mean(self, sum_uk: Floats) -> Floats:
        """Return the mean over all cells of a value with these sums, shape (n_classes,)."""
        return np.asarray(sum_uk.sum(axis=0) / self.n_u.sum())

    def mean_draws(self, sum_uk: Floats) -> Floats:
        """Return its mean over the cells of each draw, shape (n_draws, n_classes)."""
        return np.asarray((self.counts_bu @ sum_uk) / (self.counts_bu @ self.n_u)[:, None])

    def cells(self) -> tuple[Floats, Ints]:
        """Return the cells themselves and their parts."""
        if self.prob_nk is None or self.part_n is None:
            raise ValueError("this sample was summed up without keeping its cells")
        return self.prob_nk, self.part_n

    def sum_by_part(self, value_nk: Floats) -> Floats:
        """Sum a value of the cells over each part, shape (n_parts, n_classes)."""
        return _sum_by_part(value_nk, self.cells()[1], len(self.n_u))


def _sum_by_part(value_nk: Floats, part_n: Ints, n_parts: int) -> Floats:
    return np.stack([np.bincount(part_n, column, minlength=n_parts) for column in value_nk.T], axis=1)


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
    def needs_cells(self) -> bool:
        """Whether sums over parts are not enough, so that a sample must keep its cells."""
        ...

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
    needs_cells: bool = False

    def without(self, subject: str | None) -> Counting:  # noqa: ARG002
        """Return itself: counting is the same for every animal."""
        return self

    def correct(self, sample: Sample) -> Corrected:
        """Count."""
        sum_uk = sample.outputs(soft=self.soft)
        point = sample.mean(sum_uk)
        draws = sample.mean_draws(sum_uk)
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
        sum_uk = sample.outputs(soft=self.soft)
        observed = sample.mean(sum_uk)
        points = sources(self.matrix_kk[None], observed[None])
        shared = sources(self.matrix_bkk, np.broadcast_to(observed, (len(self.matrix_bkk), len(observed))))
        draws = sources(self.matrix_bkk, sample.mean_draws(sum_uk) + self._deviations(sample.seed))
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

    reference: ReferenceSums
    soft: bool
    n_draws: int
    seed: int
    needs_cells: bool = False

    @property
    def animals(self) -> frozenset[str]:
        """The reference animals."""
        return frozenset(self.reference.names)

    def without(self, subject: str | None) -> MatrixFitted:
        """Measure the matrix on all animals but one.

        A draw holds one cell's weight of the whole reference's row, so that a class it happens to miss stays defined.
        """
        kept_s, counts_bs = self.reference.weights(n_draws=self.n_draws, seed=self.seed, without=subject)
        sum_skk, n_sk = self.reference.outputs(soft=self.soft).sum_skk, self.reference.n_sk
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


def make_correction(method: str, reference: Reference | ReferenceSums | None, *, n_draws: int, seed: int) -> Correction:
    """Return the correction called ``method``; ``em`` needs a reference that kept its cells.

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
    sums = reference.sums() if isinstance(reference, Reference) else reference
    if sums is None:
        raise DataError(
            "There are no labelled cells to measure the network's errors on, so its counts cannot be corrected.\n"
            "Fix: name a table of labelled, held-out predictions (--reference TABLE), or count without correction "
            "(--correction none) and say so."
        )
    if method == "em":
        from perikarya.evaluate.quantify.prior_shift import PriorShift

        return PriorShift(sums, n_draws=n_draws, seed=seed)
    return MatrixCorrection(sums, method in SOFT, n_draws=n_draws, seed=seed)
