"""What finished tasks left behind: results and predictions, checked against the study they belong to."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from perikarya.errors import DataError, RunError
from perikarya.evaluate.metrics import Floats, Ints
from perikarya.runs import RESULT_FILE, RunFolder, TaskKey, read_json
from perikarya.schema import NO_LABEL, VIEW_PREFIX, Predictions, check_version, label_codes, table_columns

HISTORY_FILE = "history.csv"
PredictionSet = Literal["test", "external", "validation"]
PREDICTION_FILES: dict[PredictionSet, str] = {
    "test": "predictions.parquet",
    "external": "external.parquet",
    "validation": "validation.parquet",
}
# runs of before the columns tta_<class> kept means over views in files of their own
_VIEW_FILES: dict[PredictionSet, str] = {"test": "predictions_tta.parquet", "external": "external_tta.parquet"}
TTA, ENSEMBLE, ALL_MODELS = "TTA", "ensemble", "all models"
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
    """One finished task.

    ``test`` is absent for scheme 'single', ``external`` where the study has no external set. ``validation`` holds the
    cells that decided when to stop, for calibration; older runs did not keep them. ``test_tta`` and ``external_tta``
    are means over several views of each cell, where the run asked for them.
    """

    key: TaskKey
    result: dict[str, Any]
    test: Scored | None
    external: Scored | None
    validation: Scored | None = None
    test_tta: Scored | None = None
    external_tta: Scored | None = None

    def over_views(self) -> TaskOutput | None:
        """Return the same task as seen by test-time augmentation; None where it was not used."""
        if self.test_tta is None and self.external_tta is None:
            return None
        return replace(self, test=self.test_tta, external=self.external_tta)


def load_predictions(
    run: RunFolder, tasks: Sequence[TaskKey], class_names: tuple[str, ...], *, which: PredictionSet
) -> dict[TaskKey, Predictions]:
    """Read the predictions of all finished tasks that have any, with their means over views where there are such.

    Raises
    ------
    DataError
        If a table is damaged or does not fit the classes.
    RunError
        If a table belongs to another task.
    """
    found = {}
    for key in tasks:
        folder = run.task(key)
        path = folder / PREDICTION_FILES[which]
        if not run.task_is_done(key) or not path.is_file():
            continue
        found[key] = _read_table_of(key, path, class_names)
        views = folder / _VIEW_FILES.get(which, "")
        if found[key].tta_nk is None and views.is_file():
            found[key] = _with_views(found[key], _read_table_of(key, views, class_names), views)
    return found


def has_views(run: RunFolder, key: TaskKey) -> bool:
    """Tell whether a finished task also predicted by test-time augmentation; reads no probabilities."""
    if not run.task_is_done(key):
        return False
    folder = run.task(key)
    return any((folder / _VIEW_FILES[which]).is_file() or _has_view_columns(folder, which) for which in _VIEW_FILES)


def _has_view_columns(folder: Path, which: PredictionSet) -> bool:
    path = folder / PREDICTION_FILES[which]
    return path.is_file() and any(name.startswith(VIEW_PREFIX) for name in table_columns(path, what="predictions"))


def _read_table_of(key: TaskKey, path: Path, class_names: tuple[str, ...]) -> Predictions:
    predictions = Predictions.load(path, class_names)
    if (predictions.model, predictions.seed, predictions.fold) != (key.model, key.seed, key.fold):
        raise RunError(
            f"{path} holds predictions of {predictions.model}/seed{predictions.seed}/fold{predictions.fold}.\n"
            "Scores of a mixed-up task would be wrong. Fix: delete the task's folder and train it again."
        )
    return predictions


def _with_views(one: Predictions, several: Predictions, path: Path) -> Predictions:
    row_n = pd.Index(several.cell_id).get_indexer(pd.Index(one.cell_id))
    if len(several.cell_id) != len(one.cell_id) or (row_n < 0).any():
        raise DataError(
            f"{path} names other cells than {path.name.replace('_tta', '')} beside it.\n"
            "Both were predicted by one training. Fix: delete the task's folder and train it again."
        )
    return replace(one, tta_nk=several.prob_nk[row_n])


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
    path = run.task(key) / HISTORY_FILE
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
    tables = {which: load_predictions(run, done, class_names, which=which) for which in PREDICTION_FILES}

    def scored(which: PredictionSet, key: TaskKey, *, views: bool = False) -> Scored | None:
        table = tables[which].get(key)
        if table is not None and views:
            table = table.over_views()
        return None if table is None else _match(table, rows, labels)

    return [
        TaskOutput(
            key,
            load_result(run, key),
            test=scored("test", key),
            external=scored("external", key),
            validation=scored("validation", key),
            test_tta=scored("test", key, views=True),
            external_tta=scored("external", key, views=True),
        )
        for key in done
    ]


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
        As tables show it: ``entry_name`` of ``base`` and what sets this entry apart.
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
    base
        The model of the configuration, or ``"all models"``.
    tta
        The probabilities are means over views of test-time augmentation.
    """

    name: str
    kind: Literal["network", "ensemble"]
    outputs: list[TaskOutput]
    pooled: list[Scored]
    tests: list[Scored]
    external: list[Scored]
    external_folds: list[Scored]
    base: str
    tta: bool = False


def entry_name(base: str, *, tta: bool, ensemble: bool) -> str:
    """Return the name of an entry: ``lite0``, ``lite0 (TTA)``, ``lite0 (ensemble)``, ``lite0 (TTA, ensemble)``."""
    marks = [TTA] * tta + [ENSEMBLE] * ensemble
    return f"{base} ({', '.join(marks)})" if marks else base


def model_scores(outputs: Sequence[TaskOutput], *, alone: Collection[str] = ()) -> list[ModelScores]:
    """Arrange finished tasks by model.

    Each model is followed by its entry with test-time augmentation, where the run has one; either by the ensemble of
    its networks, where it has several; the last entry asks all models together, each with all its views.

    ``alone`` names models that have one entry only and no part in the ensemble of all: points of a learning curve.
    """
    arranged: list[ModelScores] = []
    best_views: list[ModelScores] = []
    for name in dict.fromkeys(o.key.model for o in outputs):
        own = [o for o in outputs if o.key.model == name]
        plain = _as_network(name, own, tta=False)
        if name in alone:
            arranged.append(plain)
            continue
        arranged += [plain, *_ensemble(plain)]
        seen = [v for o in own if (v := o.over_views()) is not None]
        with_views = _as_network(name, seen, tta=True) if len(seen) == len(own) else None
        if with_views is not None:
            arranged += [with_views, *_ensemble(with_views)]
        best_views.append(with_views or plain)
    return arranged + (_all_models(best_views) if len(best_views) > 1 else [])


def _as_network(name: str, own: list[TaskOutput], *, tta: bool) -> ModelScores:
    tested = [(o.key.seed, o.test) for o in own if o.test is not None]
    external = [o.external for o in own if o.external is not None]
    return ModelScores(
        name=entry_name(name, tta=tta, ensemble=False),
        kind="network",
        outputs=own,
        pooled=[pool([t for s, t in tested if s == seed]) for seed in dict.fromkeys(s for s, _ in tested)],
        tests=[t for _, t in tested],
        external=external,
        external_folds=external,
        base=name,
        tta=tta,
    )


def _ensemble(model: ModelScores) -> list[ModelScores]:
    """Return the ensemble of a model's networks; they share no test fold, so it exists for the external set alone."""
    asked = [o for o in model.outputs if o.external is not None]
    if len(asked) < 2:
        return []
    mean = average(model.external)
    name = entry_name(model.base, tta=model.tta, ensemble=True)
    return [ModelScores(name, "ensemble", asked, [], [], [mean], [], base=model.base, tta=model.tta)]


def _all_models(models: list[ModelScores]) -> list[ModelScores]:
    """Average over all models: per cell and seed, the networks that did not train on the cell."""
    same_seeds = len({tuple(dict.fromkeys(o.key.seed for o in m.outputs)) for m in models}) == 1
    pooled = []
    if same_seeds and all(m.pooled for m in models):
        parts = list(zip(*(m.pooled for m in models), strict=True))
        if all(len({frozenset(p.row_n.tolist()) for p in part}) == 1 for part in parts):
            pooled = [average(part) for part in parts]
    external = [average([n for m in models for n in m.external])] if all(m.external for m in models) else []
    if not pooled and not external:
        return []
    return [
        ModelScores(
            name=entry_name(ALL_MODELS, tta=False, ensemble=True),
            kind="ensemble",
            outputs=[o for m in models for o in m.outputs],
            pooled=pooled,
            tests=[],
            external=external,
            external_folds=[],
            base=ALL_MODELS,
            tta=any(m.tta for m in models),
        )
    ]
