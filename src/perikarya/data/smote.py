"""Invent cells of rare classes between real ones: the SMOTE family of imbalanced-learn, on rows of numbers.

Each class is filled up to the commonest on its own, in the order of the codes and from one stream of random numbers.
That equals one call of imbalanced-learn for all classes with a ``RandomState``, but lets a class with few cells have
fewer neighbours and names the class for which a method finds nothing to do.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perikarya.errors import DataError

log = logging.getLogger(__name__)

_DANGER_NEIGHBOURS = 10  # who lives around a cell, of Borderline- and SVM-SMOTE; imbalanced-learn's default
_ENN_NEIGHBOURS = 3  # Wilson (1972); imbalanced-learn's default
# What imbalanced-learn raises when a method, by its own rule, has no cell to start from.
_NOTHING_TO_START_FROM = {
    "belong to the majority class": "no cell of it has a neighbour of another class",  # ADASYN
    "No samples will be generated": "its cells on the border call for less than one new cell each",  # ADASYN
    "All support vectors are considered as noise": "all its support vectors lie among cells of other classes",  # SVM
}


@dataclass(frozen=True)
class Order:
    """What a sampler of imbalanced-learn is asked for.

    ``strategy`` maps the class to its wanted number of cells, ``neighbours`` fit its real ones, ``n_cells`` counts the
    training cells of all classes.
    """

    strategy: dict[int, int]
    neighbours: int
    n_cells: int
    random: np.random.RandomState


@dataclass(frozen=True)
class Recipe:
    """A method: ``sampler`` invents the cells of one class, ``cleaner`` then takes away cells among foreign ones."""

    sampler: Callable[[Order], Any]
    cleaner: Callable[[int], Any] | None = None


@dataclass(frozen=True)
class Synthetic:
    """What a recipe makes of the training cells.

    ``kept`` has shape (n_kept,) and holds positions in the input; ``x_new`` (n_new, n_values), float32; ``y_new``
    (n_new,), codes. Synthetic cells have no identity: they are trained on and nothing else.
    """

    kept: NDArray[np.int64]
    x_new: NDArray[np.float32]
    y_new: NDArray[np.int64]


def plain(order: Order) -> Any:
    """SMOTE: anywhere between a cell and one of its nearest of the same class (Chawla et al. 2002)."""
    from imblearn.over_sampling import SMOTE  # type: ignore[import-untyped,unused-ignore]

    return SMOTE(sampling_strategy=order.strategy, k_neighbors=order.neighbours, random_state=order.random)


def borderline_1(order: Order) -> Any:
    """SMOTE from cells at least half of whose neighbours are of other classes (Han, Wang & Mao 2005)."""
    return _borderline(order, "borderline-1")


def borderline_2(order: Order) -> Any:
    """As ``borderline_1``, also towards cells of other classes, at most half way (Han, Wang & Mao 2005)."""
    return _borderline(order, "borderline-2")


def svm(order: Order) -> Any:
    """SMOTE from the support vectors of an RBF machine, outwards where it is safe (Nguyen, Cooper & Kamei 2009).

    Where all support vectors are safe, or none is, imbalanced-learn makes only a part of the cells asked for.
    """
    from imblearn.over_sampling import SVMSMOTE

    return SVMSMOTE(
        sampling_strategy=order.strategy,
        k_neighbors=order.neighbours,
        m_neighbors=min(_DANGER_NEIGHBOURS, order.n_cells - 1),
        random_state=order.random,
    )


def adasyn(order: Order) -> Any:
    """More new cells where more neighbours are of other classes (He et al. 2008); their number is approximate."""
    from imblearn.over_sampling import ADASYN

    return ADASYN(sampling_strategy=order.strategy, n_neighbors=order.neighbours, random_state=order.random)


def tomek(_n_cells: int) -> Any:
    """Take away both cells of two classes that are each other's nearest (Batista, Bazzan & Monard 2003)."""
    from imblearn.under_sampling import TomekLinks  # type: ignore[import-untyped,unused-ignore]

    return TomekLinks(sampling_strategy="all")


def enn(n_cells: int) -> Any:
    """Take away cells that have a cell of another class among their nearest three (Batista et al. 2004)."""
    from imblearn.under_sampling import EditedNearestNeighbours

    return EditedNearestNeighbours(sampling_strategy="all", n_neighbors=min(_ENN_NEIGHBOURS, n_cells - 1))


def _borderline(order: Order, kind: str) -> Any:
    from imblearn.over_sampling import BorderlineSMOTE

    return BorderlineSMOTE(
        sampling_strategy=order.strategy,
        k_neighbors=order.neighbours,
        m_neighbors=min(_DANGER_NEIGHBOURS, order.n_cells - 1),
        random_state=order.random,
        kind=kind,
    )


def apply_recipe(
    recipe: Recipe,
    x_nd: NDArray[np.float32],
    y_n: NDArray[np.int64],
    *,
    neighbours: int,
    seed: int,
    class_names: Sequence[str],
) -> Synthetic:
    """Fill every class that occurs up to the commonest, then clean if the recipe says so.

    The result depends on the order of the cells: nearest neighbours are drawn by their place in it.

    Parameters
    ----------
    recipe
        Entry of ``RESAMPLERS``.
    x_nd
        Shape (n, n_values), finite.
    y_n
        Shape (n,), codes.
    neighbours
        How many nearest cells of its class a cell may be blended with; fewer where the class has fewer others.
    seed
        Decides the cells.
    class_names
        For messages.

    Raises
    ------
    DataError
        If a rare class has a single cell, or the cleaning leaves no cell of a class.
    """
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped,unused-ignore]

    # the number of threads decides which of several equally near cells comes first, as where a picture is there twice
    with threadpool_limits(1):
        x_new, y_new = _fill_up(recipe, x_nd, y_n, neighbours=neighbours, seed=seed, class_names=class_names)
        if recipe.cleaner is None or len(np.unique(y_n)) < 2:
            return Synthetic(np.arange(len(y_n), dtype=np.int64), x_new, y_new)
        return _clean(recipe.cleaner, x_nd, y_n, x_new, y_new, class_names=class_names)


def _clean(
    make_cleaner: Callable[[int], Any],
    x_nd: NDArray[np.float32],
    y_n: NDArray[np.int64],
    x_new: NDArray[np.float32],
    y_new: NDArray[np.int64],
    *,
    class_names: Sequence[str],
) -> Synthetic:
    x_all, y_all = np.concatenate([x_nd, x_new]), np.concatenate([y_n, y_new])
    cleaner = make_cleaner(len(y_all))
    cleaner.fit_resample(x_all, y_all)
    stays = np.sort(cleaner.sample_indices_)
    kept, kept_new = stays[stays < len(y_n)], stays[stays >= len(y_n)] - len(y_n)
    _refuse_lost_class(y_n, y_n[kept], class_names)
    return Synthetic(kept.astype(np.int64), x_new[kept_new], y_new[kept_new])


def _fill_up(
    recipe: Recipe,
    x_nd: NDArray[np.float32],
    y_n: NDArray[np.int64],
    *,
    neighbours: int,
    seed: int,
    class_names: Sequence[str],
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    random = np.random.RandomState(seed % 2**32)
    classes, counts = np.unique(y_n, return_counts=True)
    x_parts, y_parts = [np.empty((0, x_nd.shape[1]), np.float32)], [np.empty(0, np.int64)]
    for code, count in zip(classes.tolist(), counts.tolist(), strict=True):
        if count == counts.max():
            continue
        name = class_names[code]
        fitting = _fitting_neighbours(neighbours, count, name)
        order = Order({code: int(counts.max())}, fitting, n_cells=len(y_n), random=random)
        x_class = _new_cells(recipe.sampler(order), x_nd, y_n, name)
        x_parts.append(x_class)
        y_parts.append(np.full(len(x_class), code, np.int64))
    return np.concatenate(x_parts), np.concatenate(y_parts)


def _fitting_neighbours(neighbours: int, n_cells: int, class_name: str) -> int:
    if n_cells < 2:
        raise DataError(
            f"Class '{class_name}' has a single training cell; there is no second one to blend it with.\n"
            "Left as it is, the class would stay as rare as SMOTE was asked to prevent.\n"
            "Fix: set resample.method to oversample or weighted, use fewer folds, or collect more cells of that class."
        )
    if n_cells <= neighbours:
        log.warning(
            "class '%s' has %d training cells: %d neighbour(s) instead of %d",
            class_name, n_cells, n_cells - 1, neighbours,
        )  # fmt: skip
    return min(neighbours, n_cells - 1)


def _new_cells(sampler: Any, x_nd: NDArray[np.float32], y_n: NDArray[np.int64], class_name: str) -> NDArray[np.float32]:
    """Return what the sampler adds; nothing, with a warning, where its own rule finds no cell to start from."""
    try:
        x_all, _ = sampler.fit_resample(x_nd, y_n)
    except (ValueError, RuntimeError) as error:
        reasons = [why for words, why in _NOTHING_TO_START_FROM.items() if words in str(error)]
        if not reasons:
            raise
        _warn_nothing_added(sampler, class_name, reasons[0])
        return np.empty((0, x_nd.shape[1]), np.float32)
    if len(x_all) == len(x_nd):
        _warn_nothing_added(sampler, class_name, "no cell of it lies on the border to other classes")
    return np.array(x_all[len(x_nd) :], np.float32)  # a copy, so that the real cells before it can be freed


def _warn_nothing_added(sampler: Any, class_name: str, why: str) -> None:
    log.warning("%s adds no cell to class '%s', which stays rare: %s", type(sampler).__name__, class_name, why)


def _refuse_lost_class(before: NDArray[np.int64], after: NDArray[np.int64], class_names: Sequence[str]) -> None:
    lost = np.setdiff1d(before, after)
    if len(lost):
        raise DataError(
            f"Cleaning after SMOTE leaves no real training cell of class '{class_names[lost[0]]}': all of them lie "
            "among cells of other classes.\nTrained on synthetic cells alone, that class would mean nothing.\n"
            "Fix: set resample.method to smote or smote-tomek, or resample in the other space."
        )
