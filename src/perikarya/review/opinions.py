"""What the networks of a run say of cells they were not trained on, model by model and all models together."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from perikarya.config import ExperimentConfig
from perikarya.data.store import OpenStudy
from perikarya.errors import DataError, RunError
from perikarya.evaluate.outputs import ALL_MODELS, PredictionSet, entry_name, load_predictions
from perikarya.experiment.plan import task_keys
from perikarya.runs import RunFolder, TaskKey, read_json
from perikarya.schema import NO_LABEL, Predictions

log = logging.getLogger(__name__)

HELD_OUT: tuple[PredictionSet, ...] = ("test", "external")  # validation cells decided when their network stopped


@dataclass(frozen=True)
class Opinion:
    """The mean over the networks of a model (or of all models) that did not train on a cell.

    ``prob_nk`` has shape (n_cells, n_classes), float32, NaN for cells none of them was asked about; ``n_networks``,
    shape (n_cells,), counts those that were. ``held_out`` is False where the model was trained on the study, so that
    what it says is too good.
    """

    name: str
    kind: Literal["network", "ensemble", "prediction"]
    can_explain: bool
    prob_nk: NDArray[np.float32]
    n_networks: NDArray[np.int32]
    held_out: bool = True

    @cached_property
    def known(self) -> NDArray[np.bool_]:
        """Whether there is an opinion of a cell, shape (n_cells,)."""
        return self.n_networks > 0

    @cached_property
    def predicted(self) -> NDArray[np.int32]:
        """Codes of the most probable classes, shape (n_cells,); ``NO_LABEL`` where there is no opinion."""
        filled = np.nan_to_num(self.prob_nk, nan=-1.0)
        return np.where(self.known, filled.argmax(axis=1), NO_LABEL).astype(np.int32)

    @cached_property
    def confidence(self) -> NDArray[np.float32]:
        """Largest probability of each cell, shape (n_cells,); NaN where there is no opinion."""
        return np.asarray(self.prob_nk.max(axis=1), np.float32)

    @property
    def entropy(self) -> NDArray[np.float32]:
        """Entropy of the probabilities as a share of the largest there can be, shape (n_cells,)."""
        n_classes = self.prob_nk.shape[1]
        logs = np.log(np.where(self.prob_nk > 0, self.prob_nk, 1.0))
        return np.asarray(-(self.prob_nk * logs).sum(axis=1) / np.log(max(n_classes, 2)), np.float32)

    def describe(self) -> dict[str, Any]:
        """Return the ``ModelInfo`` of the service."""
        return {"name": self.name, "kind": self.kind, "can_explain": self.can_explain}


def read_opinions(
    run: RunFolder, config: ExperimentConfig, cell_ids: pd.Index, class_names: tuple[str, ...]
) -> list[Opinion]:
    """Read the held-out predictions of a run: of all models together first (where there are several), then of each.

    Points of a learning curve are left out. Where a run used test-time augmentation, the means over views count.
    Cells are matched by their identity, so a study whose labels were corrected since fits as well.

    Parameters
    ----------
    cell_ids
        Identities of the cells of the study, in the order of its table.

    Raises
    ------
    RunError
        If no task has finished.
    DataError
        If a table is damaged, or none of its cells is in the study.
    """
    names = [model.name for model in config.models if model.train_subjects is None]
    keys = [key for key in task_keys(config) if key.model in names and run.task_is_done(key)]
    if not keys:
        raise RunError(
            f"No task of {run.root} has finished; there is no model to look at.\n"
            f"Fix: wait for it ('perikarya status {run.root}'), or review its study ({config.study}) without models."
        )
    found = []
    for name in names:
        own = [key for key in keys if key.model == name]
        opinion = _of_model(run, own, cell_ids, class_names)
        if opinion is None:
            log.warning("%s: no network of %s has predicted a cell it was not trained on", run.root, name)
        else:
            found.append(opinion)
    return [_together(found), *found] if len(found) > 1 else found


def read_prediction(record: Path, table: Path, opened: OpenStudy, cell_ids: pd.Index) -> tuple[Opinion, float]:
    """Read what ``perikarya predict`` said of a study, and the confidence below which the model abstains.

    Parameters
    ----------
    record, table
        ``predict.json`` and ``predictions.parquet``.

    Raises
    ------
    DataError
        If the table is damaged, of other classes, or none of its cells is in the study.
    RunError
        If the record is damaged.
    """
    said = read_json(record, what="what a prediction was made from")
    class_names = opened.study.class_names
    try:
        threshold, trained_on = float(said["options"]["threshold"]), said["model"]["study"]["data_hash"]
    except (KeyError, TypeError, ValueError):
        raise RunError(f"{record} does not say which model predicted, or how.\nFix: predict again.") from None
    found = Predictions.load(table, class_names)
    prob_nk, n_networks = _gathered([found], cell_ids, what=str(table))
    held_out = trained_on != opened.data_hash
    return Opinion(found.model, "prediction", False, prob_nk, n_networks, held_out), threshold


def _of_model(
    run: RunFolder, keys: Sequence[TaskKey], cell_ids: pd.Index, class_names: tuple[str, ...]
) -> Opinion | None:
    tables = [t for which in HELD_OUT for t in load_predictions(run, keys, class_names, which=which).values()]
    if not tables:
        return None
    if all(t.tta_nk is not None for t in tables):
        tables = [t.over_views() or t for t in tables]
    name = keys[0].model
    prob_nk, n_networks = _gathered(tables, cell_ids, what=f"{name} of {run.root}")
    return Opinion(name, "network", _explainable(run, keys), prob_nk, n_networks)


def _gathered(
    tables: Sequence[Predictions], cell_ids: pd.Index, *, what: str
) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Return the mean over the tables that name a cell, shape (n_cells, n_classes), and their number, (n_cells,)."""
    total = np.zeros((len(cell_ids), tables[0].prob_nk.shape[1]), np.float32)
    n_networks = np.zeros(len(cell_ids), np.int32)
    n_elsewhere = 0
    for table in tables:
        rows = cell_ids.get_indexer(pd.Index(table.cell_id.astype(object)))
        there = rows >= 0
        total[rows[there]] += table.prob_nk[there]
        n_networks[rows[there]] += 1
        n_elsewhere += int(np.count_nonzero(~there))
    if not n_networks.any():
        raise DataError(
            f"None of the cells that {what} speaks of is in the study, such as {tables[0].cell_id[0]}.\n"
            "Its opinions are of other cells. Fix: give the study they are of with --study."
        )
    if n_elsewhere:
        log.warning("%d predictions of %s are of cells that are not in the study", n_elsewhere, what)
    return _divided(total, n_networks), n_networks


def _together(opinions: Sequence[Opinion]) -> Opinion:
    """Average over the models that have an opinion of a cell, each counting alike."""
    total, n_models = np.zeros_like(opinions[0].prob_nk), np.zeros(len(opinions[0].prob_nk), np.int32)
    for opinion in opinions:
        n_models += opinion.known
        total += np.where(opinion.known[:, None], opinion.prob_nk, 0.0)
    return Opinion(
        name=entry_name(ALL_MODELS, tta=False, ensemble=True),
        kind="ensemble",
        can_explain=False,
        prob_nk=_divided(total, n_models),
        n_networks=np.sum([o.n_networks for o in opinions], axis=0, dtype=np.int32),
    )


def _divided(total_nk: NDArray[np.float32], n: NDArray[np.int32]) -> NDArray[np.float32]:
    known = (n > 0)[:, None]
    return np.divide(total_nk, n[:, None], out=np.full_like(total_nk, np.nan), where=known, casting="same_kind")


def _explainable(run: RunFolder, keys: Sequence[TaskKey]) -> bool:
    """Tell whether trained weights were kept and what explains them is installed; imports nothing."""
    has_weights = any((run.task(key) / "model.safetensors").is_file() for key in keys)
    return has_weights and all(find_spec(name) is not None for name in ("torch", "timm", "pytorch_grad_cam"))
