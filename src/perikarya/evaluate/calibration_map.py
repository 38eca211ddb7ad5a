"""A fitted calibration and how it is applied; fitting one is in ``calibrators``.

Prediction with an exported model needs this much of calibration, and scipy, which fitting takes, starts slowly.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perikarya.errors import DataError, UnknownNameError

METHOD_NAMES = ("temperature", "vector", "isotonic")
SMALLEST_PROB = 1e-7  # float32 softmax: a probability of 0 means "below this", and log 0 would spoil every mean

Floats = NDArray[np.float64]
Curve = tuple[tuple[float, ...], tuple[float, ...]]  # probability before, rising; probability after


@dataclass(frozen=True)
class Calibration:
    """A fitted map from probabilities to probabilities, the same for every cell.

    Attributes
    ----------
    method
        ``temperature``, ``vector`` or ``isotonic``.
    n_cells
        Cells it was fitted to.
    scale
        One factor per class for log p; all 1 / temperature for temperature scaling. Empty for isotonic scaling.
    offset
        One number per class, added after scaling; zeros for temperature scaling. Empty for isotonic scaling.
    curves
        Per class, the corners of its curve, straight in between and level outside. Isotonic scaling only.
    unfitted
        Positions of classes with too few cells: vector scaling gives them the mean log scale of the others and no
        offset, isotonic scaling leaves them as they are before rows are made to sum to 1.
    """

    method: str
    n_cells: int
    scale: tuple[float, ...] = ()
    offset: tuple[float, ...] = ()
    curves: tuple[Curve, ...] = ()
    unfitted: tuple[int, ...] = ()

    @property
    def n_classes(self) -> int:
        """Number of classes."""
        return len(self.scale) or len(self.curves)

    def apply(self, prob_nk: Floats) -> Floats:
        """Return calibrated probabilities, shape (n_cells, n_classes), rows sum to 1.

        Raises
        ------
        DataError
            If the probabilities are of another number of classes.
        """
        if prob_nk.ndim != 2 or prob_nk.shape[1] != self.n_classes:
            raise DataError(
                f"Probabilities of shape {prob_nk.shape} cannot be calibrated for {self.n_classes} classes.\n"
                "Fix: use the calibration of the model that made them."
            )
        if self.curves:
            columns = [np.interp(prob_nk[:, k], *curve) for k, curve in enumerate(self.curves)]
            raised = np.stack(columns, axis=1)
            return np.asarray(raised / raised.sum(axis=1, keepdims=True))
        return softmax(np.asarray(self.scale) * log_of(prob_nk) + np.asarray(self.offset))

    def to_dict(self) -> dict[str, Any]:
        """Return what ``from_dict`` reads, ready for JSON."""
        return dict(json.loads(json.dumps(asdict(self))))  # tuples, however deep, become lists

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> Calibration:
        """Read what ``to_dict`` returned, also after a round trip through JSON; raise ``DataError`` when it is not."""
        try:
            read = cls(
                method=str(content["method"]),
                n_cells=int(content["n_cells"]),
                scale=tuple(float(x) for x in content["scale"]),
                offset=tuple(float(x) for x in content["offset"]),
                curves=tuple((tuple(map(float, x)), tuple(map(float, y))) for x, y in content["curves"]),
                unfitted=tuple(int(k) for k in content["unfitted"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(
                f"A stored calibration is damaged ({error!r}).\n"
                "Without it, probabilities would be other than the model's report says. Fix: export the model again."
            ) from None
        read._check()
        return read

    def _check(self) -> None:
        """Raise ``DataError`` unless there is one scale and offset, or one curve, for each class."""
        if self.method not in METHOD_NAMES:
            raise UnknownNameError("method of calibration", self.method, METHOD_NAMES)
        numbers = np.array([*self.scale, *self.offset, *(v for curve in self.curves for side in curve for v in side)])
        shaped = len(self.scale) == len(self.offset) and bool(self.scale) != bool(self.curves)
        rising = all(len(x) == len(y) > 0 and (np.diff(x) > 0).all() for x, y in self.curves)
        if not (shaped and rising and np.isfinite(numbers).all()):
            raise DataError(
                f"A stored calibration by '{self.method}' does not hold one finite scale and offset, or one curve, "
                "for each class.\nFix: export the model again."
            )


def log_of(prob_nk: Floats) -> Floats:
    """Return the logarithm of probabilities, none of which is taken as 0."""
    return np.log(np.maximum(prob_nk, SMALLEST_PROB))


def softmax(logit_nk: Floats) -> Floats:
    """Return probabilities of logits: each row sums to 1."""
    raised = np.exp(logit_nk - logit_nk.max(axis=1, keepdims=True))
    return np.asarray(raised / raised.sum(axis=1, keepdims=True))
