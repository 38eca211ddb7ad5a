"""One number for damage: how far along the ordered classes the cells are, from 0 to 1."""

from __future__ import annotations

import numpy as np

from perikarya.errors import DataError
from perikarya.evaluate.metrics import Floats


def severity_weights(n_classes: int) -> Floats:
    """Return the severity of each class, equally spaced from 0 (the first) to 1 (the last), shape (n_classes,).

    Raises
    ------
    DataError
        If there are fewer than two classes: a single one has no order.
    """
    if n_classes < 2:
        raise DataError(
            f"Severity needs two ordered classes at least; there is {n_classes}.\n"
            "Fix: name the classes in order of severity when the study is imported (--classes)."
        )
    return np.arange(n_classes, dtype=np.float64) / (n_classes - 1)


def severity_of(fraction_k: Floats) -> Floats:
    """Return the mean severity of cells whose classes have these fractions.

    Parameters
    ----------
    fraction_k
        Shape (..., n_classes), the last axis sums to 1.

    Returns
    -------
    Shape (...), 0 where all cells are of the first class, 1 where all are of the last.
    """
    return np.asarray(fraction_k @ severity_weights(fraction_k.shape[-1]))
