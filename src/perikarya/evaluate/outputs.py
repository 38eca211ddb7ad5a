"""What finished tasks left behind: results and predictions, checked against the study they belong to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from perikarya.errors import DataError, RunError
from perikarya.evaluate.metrics import Floats, Ints
from perikarya.runs import RunFolder, TaskKey, read_json
from perikarya.schema import NO_LABEL, Predictions, check_version, label_codes

RESULT_FILE = "result.json"
_FILES = {"test": "predictions.parquet", "external": "external.parquet"}
_NEEDED = ("config_hash", "data_hash", "n_train", "n_stop")


@dataclass(frozen=True)
class Scored:
    """Probabilities for labelled cells of a study.

    ``row_n`` has shape (n_cells,) and holds rows of the cells table, ``label_n`` the codes of the true classes,
    ``prob_nk`` shape (n_cells, n_classes).
    """

    row_n: Ints
    label_n: Ints
    prob_nk: Floats

    def inside(self, mask_n: NDArray[np.bool_]) -> Scored:
        """Keep the cells for which ``mask_n``, shape (rows of the cells table,), is true."""
        kept = mask_n[self.row_n]
        return Scored(self.row_n[kept], self.label_n[kept], self.prob_nk[kept])


@dataclass(frozen=True)
class TaskOutput:
    """One finished task; ``test`` is absent for scheme 'single', ``external`` where the study has no external set."""

    key: TaskKey
    result: dict[str, Any]
    test: Scored | None
    external: Scored | None


def load_predictions(
    run: RunFolder, tasks: Sequence[TaskKey], class_names: tuple[str, ...], *, which: Literal["test", "external"]
) -> dict[TaskKey, Predictions]:
    """Read the predictions of all finished tasks that have any.

    Raises
    ------
    DataError
        If a table is damaged or does not fit the classes.
    RunError
        If a table belongs to another task.
    """
    found = {}
    for key in tasks:
        path = run.task(key) / _FILES[which]
        if not run.task_is_done(key) or not path.is_file():
            continue
        predictions = Predictions.load(path, class_names)
        if (predictions.model, predictions.seed, predictions.fold) != (key.model, key.seed, key.fold):
            raise RunError(
                f"{path} holds predictions of {predictions.model}/seed{predictions.seed}/fold{predictions.fold}.\n"
                "Scores of a mixed-up task would be wrong. Fix: delete the task's folder and train it again."
            )
        found[key] = predictions
    return found


def load_result(run: RunFolder, key: TaskKey) -> dict[str, Any]:
    """Read the ``result.json`` of a finished task; raise ``RunError`` or ``DataError`` when it is damaged."""
    path = run.task(key) / RESULT_FILE
    result = read_json(path, what="the result of a task")
    missing = [k for k in _NEEDED if k not in result] if isinstance(result, dict) else list(_NEEDED)
    if missing:
        raise RunError(
            f"{path} lacks {', '.join(missing)}; it is not the result of a task.\n"
            "Fix: delete the task's folder and run the same command again; only that task is trained anew."
        )
    check_version(result.get("schema_version"), path)
    return dict(result)


def load_history(run: RunFolder, key: TaskKey) -> pd.DataFrame | None:
    """Read the curves of a task, one row per epoch (per penalty for the head strategy); None where there are none."""
    path = run.task(key) / "history.csv"
    if not path.is_file():
        return None
    try:
        history = pd.read_csv(path)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise RunError(
            f"{path} is not a readable table of curves ({error}).\nFix: delete the task's folder and train again."
        ) from None
    return None if history.empty or "epoch" not in history else history


def load_outputs(
    run: RunFolder, tasks: Sequence[TaskKey], cells: pd.DataFrame, class_names: tuple[str, ...]
) -> list[TaskOutput]:
    """Read all finished tasks, in the order of ``tasks``; cells without a label are left out.

    Raises
    ------
    RunError
        If no task has finished, or a file is damaged.
    DataError
        If predictions name cells that the study lacks, or disagree with its labels.
    """
    done = [key for key in tasks if run.task_is_done(key)]
    if not done:
        raise RunError(
            f"No task of {run.root} has finished; there is nothing to evaluate.\n"
            "Fix: run 'perikarya train CONFIG --out RUN' first; 'perikarya status RUN' shows how far it is."
        )
    rows = pd.Index(cells["cell_id"].to_numpy(dtype=str))
    labels = label_codes(cells["label"], class_names)
    test = load_predictions(run, done, class_names, which="test")
    external = load_predictions(run, done, class_names, which="external")

    def scored(key: TaskKey, tables: dict[TaskKey, Predictions]) -> Scored | None:
        return _match(tables[key], rows, labels) if key in tables else None

    return [TaskOutput(key, load_result(run, key), scored(key, test), scored(key, external)) for key in done]


def _match(predictions: Predictions, rows: pd.Index, labels: Ints) -> Scored | None:
    row_n = rows.get_indexer(pd.Index(predictions.cell_id))
    where = f"Predictions of {predictions.model}, seed {predictions.seed}, fold {predictions.fold}"
    if (row_n < 0).any():
        raise DataError(
            f"{where}: {(row_n < 0).sum()} cell(s) are not in the study, such as {predictions.cell_id[row_n < 0][0]}.\n"
            "The run was trained on another version of the study. Fix: point the run at the study it was trained on."
        )
    label_n = labels[row_n]
    if (label_n != predictions.label_n).any():
        changed = predictions.cell_id[label_n != predictions.label_n]
        raise DataError(
            f"{where}: {len(changed)} cell(s) have another label than the study says now, such as {changed[0]}.\n"
            "The labels changed after training. Fix: train again, or evaluate with the study as it was."
        )
    known = label_n != NO_LABEL
    if not known.any():
        return None
    return Scored(row_n[known].astype(np.int64), label_n[known], predictions.prob_nk[known].astype(np.float64))


def pool(parts: Sequence[Scored]) -> Scored:
    """Join predictions of different cells, such as the test folds of one seed."""
    row_n = np.concatenate([p.row_n for p in parts])
    if len(np.unique(row_n)) != len(row_n):
        raise DataError(
            "A cell was tested in two folds of one seed; its errors would count twice.\n"
            "Fix: the run folder mixes two fold plans; train into a new one."
        )
    return Scored(row_n, np.concatenate([p.label_n for p in parts]), np.concatenate([p.prob_nk for p in parts]))


def average(parts: Sequence[Scored]) -> Scored:
    """Average the probabilities of several networks for the same cells, the ensemble of equals."""
    rows = np.sort(parts[0].row_n)
    total = np.zeros_like(parts[0].prob_nk)
    for part in parts:
        order = np.argsort(part.row_n)
        if not np.array_equal(part.row_n[order], rows):
            raise DataError("The networks of one model predicted different external cells; train them on one study.")
        total += part.prob_nk[order]
    first = np.argsort(parts[0].row_n)
    return Scored(rows, parts[0].label_n[first], total / len(parts))


@dataclass(frozen=True)
class ModelScores:
    """Everything one line of the comparison rests on.

    Attributes
    ----------
    name
        The model's, or ``"<name> (ensemble)"``.
    kind
        ``network`` or ``ensemble``.
    outputs
        The finished tasks behind it.
    pooled
        Cross-validation: one entry per seed, its test folds joined.
    tests
        Cross-validation: one entry per network, its test fold.
    external
        One entry per network, or the one of the ensemble.
    external_folds
        One entry per network; none for the ensemble, which has no spread over networks.
    """

    name: str
    kind: Literal["network", "ensemble"]
    outputs: list[TaskOutput]
    pooled: list[Scored]
    tests: list[Scored]
    external: list[Scored]
    external_folds: list[Scored]


def model_scores(outputs: Sequence[TaskOutput]) -> list[ModelScores]:
    """Arrange finished tasks by model; a model with several networks is followed by their ensemble."""
    arranged = []
    for name in dict.fromkeys(o.key.model for o in outputs):
        own = [o for o in outputs if o.key.model == name]
        tested = [(o.key.seed, o.test) for o in own if o.test is not None]
        pooled = [pool([t for s, t in tested if s == seed]) for seed in dict.fromkeys(s for s, _ in tested)]
        external = [o.external for o in own if o.external is not None]
        arranged.append(ModelScores(name, "network", own, pooled, [t for _, t in tested], external, external))
        if len(external) > 1:
            asked = [o for o in own if o.external is not None]
            ensemble = average(external)
            arranged.append(ModelScores(f"{name} (ensemble)", "ensemble", asked, [], [], [ensemble], []))
    return arranged
