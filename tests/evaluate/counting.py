"""Scores by counting, for loops over many samples."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def area(positive_n: NDArray[np.bool_], score_n: NDArray[np.float64]) -> float:
    """Count the pairs that are in the right order, ties half: quicker than scikit-learn for few cells."""
    above = score_n[positive_n][:, None] - score_n[~positive_n]
    return float((above > 0).mean() + 0.5 * (above == 0).mean())
