"""Prior shift: the class fractions under which a network's probabilities are most likely.

Saerens, Latinne & Decaestecker 2002 (doi:10.1162/089976602753284446): if only the mix of classes differs between
reference and target, ``p(k | x)`` of the target is ``p(k | x) q_k / pi_k`` up to a constant, ``pi`` being the mix of
the reference, and EM finds the mix ``q``. That takes probabilities at their word, so they are calibrated on the
reference cells first, by one temperature and a bias per class (Alexandari, Kundaje & Shrikumar 2020, Proc. ICML
119:222); the biases also undo what resampling or class weights in training did to them.

The error is carried through by one Newton step from the estimate for every draw, of the calibration as of the mix
(Andrews 2002, doi:10.1111/1468-0262.00271): the draws need sums over animals and images, not the cells again.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from perikarya.evaluate.metrics import Floats
from perikarya.evaluate.quantify.correction import (
    Corrected,
    Fractions,
    Sample,
    check_condition,
    misclassification,
)
from perikarya.evaluate.quantify.reference import Reference, ReferenceSums
from perikarya.evaluate.quantify.simplex import minimise_on_simplex

_SMALLEST = 1e-6  # probabilities below are as good as none, and single precision knows no better
_EM_STEPS, _EM_TOLERANCE = 1000, 1e-9
_NEWTON_STEPS = 50
_PRIOR_WEIGHT = 1.0  # of "calibrated already", in cells; keeps separable classes from running away
_STEP = 1e-4


def saerens(odds_nk: Floats) -> Floats:
    """Find the mix of classes by EM.

    Parameters
    ----------
    odds_nk
        Shape (n_cells, n_classes): p(class | cell) divided by the reference's share of the class, or any multiple of
        a row, as the likelihoods p(cell | class).

    Returns
    -------
    Shape (n_classes,), sums to 1.
    """
    share_k = np.full(odds_nk.shape[1], 1.0 / odds_nk.shape[1])
    for _ in range(_EM_STEPS):
        joint_nk = odds_nk * share_k
        new_k = (joint_nk / joint_nk.sum(axis=1, keepdims=True)).mean(axis=0)
        moved = np.abs(new_k - share_k).max()
        share_k = new_k
        if moved < _EM_TOLERANCE:
            break
    return share_k


def odds(log_prob_nk: Floats, scale_p: Floats) -> Floats:
    """Return likelihoods up to a constant per cell; ``scale_p`` holds the slope, then an offset per class."""
    logit_nk = scale_p[0] * log_prob_nk + scale_p[1:]
    return np.asarray(np.exp(logit_nk - logit_nk.max(axis=1, keepdims=True)))


@dataclass(frozen=True)
class PriorShiftFitted:
    """Slope and offsets of the log probabilities: the estimate, shape (1 + k,), and draws, shape (n_draws, 1 + k)."""

    scale_p: Floats
    scale_bp: Floats

    def correct(self, sample: Sample) -> Corrected:
        """Find the mix by EM, and that of every draw by one Newton step on the simplex."""
        log_nk = np.log(np.maximum(sample.cells()[0], _SMALLEST))
        odds_nk = odds(log_nk, self.scale_p)
        share_k = saerens(odds_nk)
        score_nk = _scores(odds_nk, share_k)
        curvature_kk = score_nk.T @ score_nk / len(score_nk)
        tilt_bk = (self.scale_bp - self.scale_p) @ self._slopes(log_nk, share_k)
        mean_k = score_nk.mean(axis=0)

        def moved(score_bk: Floats) -> Floats:
            quadratic = np.broadcast_to(curvature_kk, (len(score_bk), *curvature_kk.shape))
            return minimise_on_simplex(quadratic, score_bk + tilt_bk + curvature_kk @ share_k)

        shared = moved(np.broadcast_to(mean_k, tilt_bk.shape))
        likely = Fractions(share_k, moved(sample.mean_draws(sample.sum_by_part(score_nk))), shared)
        return Corrected(likely, likely)  # likelihood knows no shares outside the simplex

    def _slopes(self, log_nk: Floats, share_k: Floats) -> Floats:
        """Return how the mean score moves with each scale, shape (1 + k, k), by central differences."""
        rows = []
        for i in range(len(self.scale_p)):
            step = np.zeros_like(self.scale_p)
            step[i] = _STEP
            up, down = (_scores(odds(log_nk, self.scale_p + s * step), share_k).mean(axis=0) for s in (1, -1))
            rows.append((up - down) / (2 * _STEP))
        return np.stack(rows)


def _scores(odds_nk: Floats, share_k: Floats) -> Floats:
    """Return each cell's slope of the log likelihood in the shares, shape (n_cells, n_classes)."""
    return np.asarray(odds_nk / np.maximum(odds_nk @ share_k, np.finfo(float).tiny)[:, None])


@dataclass(frozen=True)
class PriorShift:
    """EM on calibrated probabilities."""

    reference: ReferenceSums
    n_draws: int
    seed: int
    needs_cells: bool = True

    @property
    def animals(self) -> frozenset[str]:
        """The reference animals."""
        return frozenset(self.reference.names)

    def without(self, subject: str | None) -> PriorShiftFitted:
        """Calibrate on all animals but one; the mix they were calibrated to is divided out."""
        ref = self.reference
        kept_s, counts_bs = ref.weights(n_draws=self.n_draws, seed=self.seed, without=subject)
        n_k = kept_s @ ref.n_sk
        matrix = misclassification(np.einsum("s,sij->ij", kept_s, ref.soft.sum_skk), n_k, ref.class_names)
        check_condition(matrix, ref.class_names)
        point = self._fit(kept_s, self._everyone)
        slope_sp, curve_spp = self._likelihood(point)
        all_bs = np.concatenate([kept_s[None], counts_bs])
        pull = _PRIOR_WEIGHT * (point - _identity(len(ref.class_names)))
        curve_bpp = np.tensordot(all_bs, curve_spp, axes=1) + _PRIOR_WEIGHT * np.eye(len(point))
        scale_bp = point - np.linalg.solve(curve_bpp, (all_bs @ slope_sp + pull)[:, :, None])[:, :, 0]
        share_bk = (all_bs @ ref.n_sk) + n_k / n_k.sum()  # one cell's weight, as a draw may miss a class
        scale_bp[:, 1:] -= np.log(share_bk / share_bk.sum(axis=1, keepdims=True))
        return PriorShiftFitted(scale_bp[0], scale_bp[1:])

    @cached_property
    def _cells(self) -> Reference:
        if self.reference.cells is None:
            raise ValueError("this reference was summed up without keeping its cells")
        return self.reference.cells

    @cached_property
    def _log_nk(self) -> Floats:
        return np.asarray(np.log(np.maximum(self._cells.prob_nk, _SMALLEST)))

    @cached_property
    def _everyone(self) -> Floats:
        """The fit to all reference animals, where the fits without one of them start."""
        return self._fit(np.ones(len(self.reference.names)), _identity(len(self.reference.class_names)))

    def _fit(self, weight_s: Floats, start_p: Floats) -> Floats:
        """Fit slope and offsets to weighted units by Newton's method, shape (1 + k,)."""
        identity_p = _identity(len(self.reference.class_names))
        scale_p = start_p
        for _ in range(_NEWTON_STEPS):
            slope_sp, curve_spp = self._likelihood(scale_p)
            slope_p = weight_s @ slope_sp + _PRIOR_WEIGHT * (scale_p - identity_p)
            curve_pp = np.tensordot(weight_s, curve_spp, axes=1) + _PRIOR_WEIGHT * np.eye(len(scale_p))
            step_p = np.linalg.solve(curve_pp, slope_p)
            longest = float(np.abs(step_p).max())
            scale_p = scale_p - step_p / max(1.0, longest)
            if longest < _EM_TOLERANCE:
                break
        return scale_p

    def _likelihood(self, scale_p: Floats) -> tuple[Floats, Floats]:
        """Return slopes, (n_units, 1 + k), and curvatures, (n_units, 1 + k, 1 + k), of the negative log likelihood."""
        names, unit_n = self._cells.units
        log_nk = self._log_nk
        n, k = log_nk.shape
        prob_nk = odds(log_nk, scale_p)
        prob_nk /= prob_nk.sum(axis=1, keepdims=True)
        excess_nk = prob_nk - np.eye(k)[self._cells.label_n]
        # the logits' derivative: by the slope it is log p, by each offset the class itself
        design_nkp = np.concatenate([log_nk[:, :, None], np.broadcast_to(np.eye(k), (n, k, k))], axis=2)
        mean_np = np.einsum("nk,nkp->np", prob_nk, design_nkp)
        curve_npp = np.einsum("nkp,nkq->npq", design_nkp * prob_nk[:, :, None], design_nkp)
        curve_npp -= mean_np[:, :, None] * mean_np[:, None, :]
        slope_sp, curve_spp = np.zeros((len(names), 1 + k)), np.zeros((len(names), 1 + k, 1 + k))
        np.add.at(slope_sp, unit_n, np.einsum("nk,nkp->np", excess_nk, design_nkp))
        np.add.at(curve_spp, unit_n, curve_npp)
        return slope_sp, curve_spp


def _identity(n_classes: int) -> Floats:
    """Slope 1, no offsets: the probabilities as they are."""
    return np.array([1.0] + [0.0] * n_classes)
