"""Does an exported network answer as the one that was trained? Asked on cells of the run, before it is kept."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from perikarya.data.augment import resize_batch
from perikarya.data.splits import FoldPlan, Roles, rows_of
from perikarya.data.store import OpenStudy, open_study
from perikarya.errors import RunError
from perikarya.evaluate.calibration_map import softmax
from perikarya.experiment.plan import check_data_unchanged, load_run_config
from perikarya.predict.backends import Backend
from perikarya.predict.manifest import Agreement
from perikarya.runs import RunFolder, TaskKey
from perikarya.schema import EXTERNAL

log = logging.getLogger(__name__)

MAX_DIFFERENCE = 1e-4  # of a probability
N_CELLS = 256  # held-out cells of each network
_N_RANDOM = 64
_BATCH = 32

Crops = NDArray[np.uint8]


@dataclass(frozen=True)
class Compared:
    """How one network answers beside another: the largest difference of a probability, the share of same classes."""

    cells: int
    max_abs_diff: float
    same_class: float


def compare(one: Backend, other: Backend, crops_nhwc: Crops) -> Compared:
    """Ask two networks about the same cells.

    Parameters
    ----------
    one, other
        Open networks.
    crops_nhwc
        Shape (n, input_px, input_px, 4), n at least 1. The batches are of different sizes, for a graph must take any.
    """
    prob, prob_other = (_probabilities(network, crops_nhwc) for network in (one, other))
    difference = np.abs(prob - prob_other).max()
    same = (prob.argmax(axis=1) == prob_other.argmax(axis=1)).mean()
    # what is not a number agrees with nothing
    return Compared(len(crops_nhwc), float(np.nan_to_num(difference, nan=np.inf)), float(same))


def refuse_difference(found: Compared, *, network: str, kind: str) -> None:
    """Raise ``RunError`` where an exported network gives other probabilities than the one that was trained."""
    if found.max_abs_diff > MAX_DIFFERENCE:
        raise RunError(
            f"As {kind}, {network} gives other probabilities than in torch, by up to {found.max_abs_diff:.2g} on "
            f"{found.cells} cells; more than {MAX_DIFFERENCE:g} is refused, and nothing was written.\n"
            "Its scores would not hold. Fix: another --format, or report this with the versions of 'pip list'."
        )


def summarise(found: Sequence[Compared], *, of: str) -> Agreement:
    """Put the networks of a model together, each by its worst."""
    return Agreement(
        cells=sum(one.cells for one in found),
        max_abs_diff=max(one.max_abs_diff for one in found),
        same_class=min(one.same_class for one in found),
        of=of,
    )


@dataclass(frozen=True)
class RunCells:
    """The cells of a run's study, by what they were to each of its networks."""

    opened: OpenStudy
    folds: FoldPlan
    single: bool

    def held_out(self, key: TaskKey, *, input_px: int, n: int = N_CELLS) -> Crops:
        """Return up to ``n`` cells a network was neither trained nor stopped on, else cells that stopped it."""
        roles = self._roles(key)
        external = self.opened.cells.loc[self.opened.cells["set"] == EXTERNAL, "cell_id"].to_numpy(dtype=str)
        wanted = next(ids for ids in (roles.test, external, roles.stop) if len(ids))
        return self._some(wanted, input_px=input_px, n=n)

    def training(self, key: TaskKey, *, input_px: int, n: int) -> Crops:
        """Return up to ``n`` cells of the folds a network was trained on."""
        return self._some(self._roles(key).train, input_px=input_px, n=n)

    def _roles(self, key: TaskKey) -> Roles:
        return self.folds.roles_single() if self.single else self.folds.roles(key.fold)

    def _some(self, cell_ids: NDArray[np.str_], *, input_px: int, n: int) -> Crops:
        rows = np.sort(rows_of(self.opened.cells["cell_id"], cell_ids))
        chosen = np.sort(np.random.default_rng(0).permutation(rows)[:n])
        return resize_batch(self.opened.read_crops(chosen), input_px)


def cells_of_run(run: RunFolder, study: Path | None) -> RunCells | None:
    """Open the study of a run; None where it is not here and was not named.

    Raises
    ------
    DataError
        If the study is damaged, or ``study`` is none.
    RunError
        If it has changed since the run was started.
    """
    config = load_run_config(run)
    root = study or Path(config.study)
    if study is None and not root.exists():
        log.warning("%s is not here; the exported networks are compared on random cells. Name it with --study.", root)
        return None
    opened = open_study(root)
    check_data_unchanged(run, opened)
    return RunCells(opened, FoldPlan.load(run.folds), single=config.cv.scheme == "single")


def random_cells(*, input_px: int) -> Crops:
    """Return cells of random colour and light with a disc for an outline, which look like nothing in particular."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:input_px, :input_px] / input_px - 0.5
    disc_n = x**2 + y**2 < rng.uniform(0.02, 0.2, (_N_RANDOM, 1, 1))
    colour = rng.uniform(30, 230, (2, _N_RANDOM, 1, 1, 3))
    noise = rng.normal(0, 25, (_N_RANDOM, input_px, input_px, 3))
    rgb = np.where(disc_n[..., None], colour[0], colour[1]) + noise
    return np.concatenate([np.clip(rgb, 0, 255), 255 * disc_n[..., None]], axis=-1).astype(np.uint8)


def _probabilities(network: Backend, crops_nhwc: Crops) -> NDArray[np.float64]:
    cuts = [1, *range(1 + _BATCH, len(crops_nhwc), _BATCH)]
    parts = [part for part in np.split(crops_nhwc, cuts) if len(part)]
    return np.concatenate([softmax(network.run(part)[0].astype(np.float64)) for part in parts])
