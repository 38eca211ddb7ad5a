"""What the network said of the cells of one epoch while it trained on them, of which the training figures are made."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from perikarya.train.distributed import Team


class EpochRecord:
    """Logits and labels of an epoch, in the order of its cells; each process of a team fills in its own share.

    Parameters
    ----------
    n_cells
        How many cells the epoch shows.
    n_classes
        Logits per cell.
    device
        Where logits are kept: with the network, so that no step waits for their copying.
    """

    def __init__(self, n_cells: int, n_classes: int, *, device: torch.device) -> None:
        self._logit_nk = torch.zeros(n_cells, n_classes, device=device)
        self._label_n = torch.zeros(n_cells, dtype=torch.int64, device=device)

    def note(self, cells: slice, logit_nk: Tensor, label_n: NDArray[np.int64]) -> None:
        """Keep logits, (n, n_classes), and labels, (n,), of some cells of the epoch."""
        self._logit_nk[cells] = logit_nk
        self._label_n[cells] = torch.from_numpy(label_n)

    def joined(self, team: Team) -> tuple[Tensor, Tensor]:
        """Return logits, (n_cells, n_classes), and labels, (n_cells,), of all processes; cells to come are zero."""
        # whose share a cell is not holds zeros for it, so that sums are exact
        return team.sum(self._logit_nk.clone()), team.sum(self._label_n.clone())

    def state(self, team: Team) -> dict[str, Any]:
        """Return what ``restore`` takes; all processes must call it."""
        logit_nk, label_n = self.joined(team)
        return {"logit_nk": logit_nk.cpu(), "label_n": label_n.cpu()}

    def restore(self, saved: dict[str, Any], team: Team) -> None:
        """Go on from a state, in a team of any size."""
        if team.is_first:  # one process holds the past of all
            self._logit_nk.copy_(saved["logit_nk"])
            self._label_n.copy_(saved["label_n"])
