"""Conformal prediction sets: for each cell the classes that cannot be ruled out, with a promised coverage per class.

Split conformal sets, class by class (Vovk 2012, arXiv:1209.2673), with the score 1 - p(class) (Sadinle, Lei & Wasserman
2019, arXiv:1609.00451): a set holds every class whose probability is not unusually low for cells of that class.

The promise: of new cells of each class, on average at least the nominal share has the true class in its set, *if they
are exchangeable with the cells of that class the sets were fitted to*. Cells of other animals are not: cells share an
animal, a stain and a grader. With cells of one animal the promise holds for further cells of that animal only.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perikarya.errors import DataError
from perikarya.evaluate.metrics import Floats, Ints, check_scores


@dataclass(frozen=True)
class ConformalSets:
    """Class-conditional conformal sets of one network.

    Attributes
    ----------
    coverage
        The nominal share of each class's cells whose set holds the true class.
    floor
        Per class, the lowest probability with which it is in the set; 0 where too few cells were there to fit it, so
        that the class is in every set and its coverage is kept.
    n_cells
        Per class, the cells it was fitted to.
    """

    coverage: float
    floor: tuple[float, ...]
    n_cells: tuple[int, ...]

    def apply(self, prob_nk: Floats) -> NDArray[np.bool_]:
        """Return which classes are in the set of each cell, shape (n_cells, n_classes)."""
        if prob_nk.ndim != 2 or prob_nk.shape[1] != len(self.floor):
            raise DataError(
                f"Probabilities of shape {prob_nk.shape} cannot have conformal sets of {len(self.floor)} classes.\n"
                "Fix: use the sets of the model that made them."
            )
        return np.asarray(prob_nk >= np.asarray(self.floor))

    def to_dict(self) -> dict[str, Any]:
        """Return the fields, ready for JSON; ``ConformalSets.from_dict`` reads them."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> ConformalSets:
        """Read what ``to_dict`` returned; raise ``DataError`` when it is not that."""
        try:
            return cls(
                coverage=float(content["coverage"]),
                floor=tuple(float(x) for x in content["floor"]),
                n_cells=tuple(int(n) for n in content["n_cells"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"Stored conformal sets are damaged ({error!r}).\nFix: export the model again.") from None


def fit_conformal(prob_nk: Floats, label_n: Ints, *, coverage: float) -> ConformalSets:
    """Fit class-conditional conformal sets to labelled cells the network was not trained on.

    The floor of a class with n cells is the ceil((n + 1) coverage)-th largest probability its cells have for it; where
    that is more than n, no floor keeps the promise but 0.

    Parameters
    ----------
    prob_nk
        Shape (n_cells, n_classes).
    label_n
        Shape (n_cells,), codes of the true classes.
    coverage
        The nominal share, between 0 and 1.
    """
    check_scores(label_n, prob_nk)
    floors, counts = [], []
    for k in range(prob_nk.shape[1]):
        falling = np.sort(prob_nk[label_n == k, k])[::-1]
        rank = int(np.ceil((len(falling) + 1) * coverage - 1e-9))  # 0.9 * 10 is 9, whatever its last binary digit
        floors.append(float(falling[rank - 1]) if rank <= len(falling) else 0.0)
        counts.append(len(falling))
    return ConformalSets(coverage, tuple(floors), tuple(counts))
