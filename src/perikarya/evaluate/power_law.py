"""How the error falls with the number of animals: err(n) = a + b n^-c, the usual shape of learning curves.

Cortes et al. 1994 (NeurIPS 6:327); Viering & Loog 2022 (doi:10.1109/TPAMI.2022.3220744) review where it holds.
``a`` is what stays however many animals there are, ``c`` how fast the rest goes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from perikarya.errors import DataError
from perikarya.evaluate.metrics import Floats

MIN_POINTS = 3
POINTS_FOR_C = 4  # three parameters through three points would fit anything
FIXED_C = 0.5  # the error of an estimate falls with the square root of the sample
_C_RANGE = (0.25, 1.0)  # where c is not estimated, each draw takes its own from here, evenly in its logarithm
_C_GRID = np.linspace(0.05, 2.0, 118)


@dataclass(frozen=True)
class PowerLaw:
    """Parameters of one or many curves, shape (n_curves,) each; ``a`` >= 0, ``b`` >= 0, 0 < ``c`` <= 2."""

    a: Floats
    b: Floats
    c: Floats

    def error_at(self, n_m: Floats) -> Floats:
        """Return the error with so many animals, shape (n_curves, n_numbers)."""
        return self.a[:, None] + self.b[:, None] * n_m ** -self.c[:, None]


def fit_power_law(n_m: Floats, error_bm: Floats, weight_m: Floats, *, c_b: Floats | None = None) -> PowerLaw:
    """Fit curves by weighted least squares.

    Parameters
    ----------
    n_m
        Shape (n_points,), numbers of animals, all different.
    error_bm
        Shape (n_curves, n_points), one curve per row.
    weight_m
        Shape (n_points,), one over the variance of each point.
    c_b
        Shape (n_curves,): exponents that are given; None fits them over a grid from 0.05 to 2.

    Raises
    ------
    DataError
        If there are too few points for the number of parameters.
    """
    needed = POINTS_FOR_C if c_b is None else MIN_POINTS
    if len(np.unique(n_m)) < needed:
        raise DataError(
            f"A learning curve of {len(np.unique(n_m))} points fits any power law; {needed} are the least.\n"
            "Fix: give more numbers of animals in learning_curve."
        )
    if c_b is not None:
        return _fit_given_c(n_m, error_bm, weight_m, c_b)[0]
    law, cost_b = _fit_given_c(n_m, error_bm, weight_m, np.full(len(error_bm), _C_GRID[0]))
    a, b, c = law.a.copy(), law.b.copy(), law.c.copy()
    for value in _C_GRID[1:]:
        other, other_cost_b = _fit_given_c(n_m, error_bm, weight_m, np.full(len(error_bm), value))
        better = other_cost_b < cost_b
        a, b, c = (np.where(better, new, old) for new, old in ((other.a, a), (other.b, b), (other.c, c)))
        cost_b = np.where(better, other_cost_b, cost_b)
    return PowerLaw(a, b, c)


def _fit_given_c(n_m: Floats, error_bm: Floats, weight_m: Floats, c_b: Floats) -> tuple[PowerLaw, Floats]:
    """Solve for a and b, neither below 0; return them with the weighted sum of squares of each curve."""
    x_bm = (n_m / n_m.max()) ** -c_b[:, None]
    w_m = weight_m / weight_m.sum()
    x_b, y_b = x_bm @ w_m, error_bm @ w_m
    xx_b, xy_b = (x_bm**2) @ w_m, (x_bm * error_bm) @ w_m
    slope = (xy_b - x_b * y_b) / (xx_b - x_b**2)
    candidates = [
        (np.maximum(y_b - slope * x_b, 0.0), np.maximum(slope, 0.0)),  # the free solution where it is allowed
        (np.zeros_like(y_b), np.maximum(xy_b / xx_b, 0.0)),  # no floor
        (np.maximum(y_b, 0.0), np.zeros_like(y_b)),  # no slope
    ]
    cost_xb = np.stack([((a[:, None] + b[:, None] * x_bm - error_bm) ** 2) @ w_m for a, b in candidates])
    chosen, at = cost_xb.argmin(axis=0), np.arange(len(y_b))
    a, b = (np.stack([pair[i] for pair in candidates])[chosen, at] for i in (0, 1))
    return PowerLaw(a, b * n_m.max() ** c_b, c_b), cost_xb[chosen, at]


def draw_exponents(n: int, *, seed: int) -> Floats:
    """Return exponents for curves too short to tell theirs, shape (n,), from 1/4 to 1 with median 1/2."""
    low, high = np.log(_C_RANGE)
    return np.asarray(np.exp(np.random.default_rng([seed, n]).uniform(low, high, n)))
