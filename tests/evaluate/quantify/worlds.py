"""Small worlds for the tests of damage: animals, cells and a classifier whose errors are known."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from perikarya.evaluate.quantify.cells import PredictedCells, one_hot
from perikarya.evaluate.quantify.reference import Reference, ReferenceSums
from perikarya.schema import NO_LABEL

CLASS_NAMES = ("normal", "intermediate", "pyknotic")
ERRORS = np.array([[0.9, 0.1, 0.0], [0.2, 0.7, 0.1], [0.05, 0.25, 0.7]])  # [true, predicted]


def make_cells(
    prob_nk: NDArray[np.float64],
    subject_n: Sequence[str],
    *,
    label_n: NDArray[np.int64] | None = None,
    region_n: Sequence[str | None] | None = None,
    group_n: Sequence[str | None] | None = None,
    image_n: Sequence[str] | None = None,
    vote_nk: NDArray[np.float64] | None = None,
) -> PredictedCells:
    """Bring lists to ``PredictedCells``; each cell has an image of its own unless told."""

    def texts(values: Sequence[str | None]) -> NDArray[np.object_]:
        return np.array(list(values), dtype=object)

    n = len(prob_nk)
    return PredictedCells(
        prob_nk=np.asarray(prob_nk, np.float64),
        label_n=np.full(n, NO_LABEL) if label_n is None else label_n,
        subject_n=texts(subject_n),
        region_n=None if region_n is None else texts(region_n),
        group_n=None if group_n is None else texts(group_n),
        image_n=texts(image_n if image_n is not None else [f"image{i}" for i in range(n)]),
        class_names=CLASS_NAMES[: prob_nk.shape[1]],
        vote_nk=vote_nk,
    )


def exact_outputs(label_n: NDArray[np.int64], errors: NDArray[np.float64] = ERRORS) -> NDArray[np.float64]:
    """Return outputs that are, cell by cell, the row of the errors of its class: no sampling error at all."""
    return errors[label_n]


def make_reference(
    label_n: NDArray[np.int64], unit_n: Sequence[str], prob_nk: NDArray[np.float64] | None = None
) -> Reference:
    """Return a reference whose probabilities, and votes, are exact rows of ``ERRORS`` unless given."""
    outputs = exact_outputs(label_n) if prob_nk is None else prob_nk
    votes = outputs if prob_nk is None else one_hot(prob_nk.argmax(axis=1), prob_nk.shape[1])
    names = CLASS_NAMES[: outputs.shape[1]]
    return Reference(label_n, outputs, votes, np.array(list(unit_n), dtype=object), names)


def sums_of(reference: Reference) -> ReferenceSums:
    """Sum up a reference that has cells."""
    sums = reference.sums()
    assert sums is not None
    return sums


def bayes(
    label_n: NDArray[np.int64],
    rng: np.random.Generator,
    *,
    prior: Sequence[float],
    overlap: float = 0.6,
    boldness: float = 1.0,
) -> NDArray[np.float64]:
    """Return the posterior of a classifier that learnt ``prior``; above 1, ``boldness`` makes it overconfident."""
    seen_n = label_n + overlap * rng.standard_normal(len(label_n))
    logit_nk = boldness * (-0.5 * ((seen_n[:, None] - np.arange(3)) / overlap) ** 2 + np.log(prior))
    prob_nk = np.exp(logit_nk - logit_nk.max(axis=1, keepdims=True))
    return np.asarray(prob_nk / prob_nk.sum(axis=1, keepdims=True))
