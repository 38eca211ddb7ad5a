"""From a run to the cells to count, and to the reference that tells how the network errs."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from perikarya.errors import DataError, RunError, UnknownNameError
from perikarya.evaluate.metrics import Floats, Ints
from perikarya.evaluate.outputs import ALL_MODELS, PredictionSet, entry_name, has_views, load_predictions
from perikarya.evaluate.quantify.cells import Cells, PredictedCells, one_hot, texts_of
from perikarya.evaluate.quantify.reference import Pile, ReferenceSums, reference_of
from perikarya.evaluate.quantify.survey import Survey
from perikarya.runs import RunFolder, TaskKey, read_json
from perikarya.schema import DEVELOPMENT, Predictions, Study, label_codes


@dataclass(frozen=True)
class Gathered:
    """What damage is computed from.

    ``survey`` tells where the cells lie; ``others`` sums up labelled cells that are not in the reference. ``set_of``
    maps an animal to the set it belongs to (None in a table); ``source`` says where the predictions come from, ready
    for JSON; ``notes`` holds whole sentences a reader must know.
    """

    cells: Cells
    survey: Survey
    reference: ReferenceSums | None
    others: ReferenceSums | None = None
    set_of: dict[str, str] = field(default_factory=dict)
    source: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class AskedModel:
    """Which networks are asked: those of ``bases``, with test-time augmentation where ``tta`` says so."""

    name: str
    bases: tuple[str, ...]
    tta: tuple[bool, ...]


def choose_model(
    run: RunFolder, tasks: Sequence[TaskKey], model: str | None, *, alone: Collection[str] = ()
) -> AskedModel:
    """Find the networks behind an entry of the tables; by default the one that leads the ranking.

    An entry and its ensemble are the same here: each external cell is predicted by all networks, each development cell
    by those that did not train on it. ``alone`` names models that stay out of the ensemble of all models.

    Raises
    ------
    UnknownNameError
        If the run has no such entry.
    RunError
        If no name was given and the run has not been evaluated.
    """
    names = list(dict.fromkeys(key.model for key in tasks))
    seen_views = {n: any(has_views(run, key) for key in tasks if key.model == n) for n in names}
    entries: dict[str, AskedModel] = {}
    for name in names:
        for tta in (False, True)[: 1 + seen_views[name]]:
            plain = entry_name(name, tta=tta, ensemble=False)
            for entry in (plain, entry_name(name, tta=tta, ensemble=True)):
                entries[entry] = AskedModel(plain, (name,), (tta,))
    joined = tuple(n for n in names if n not in alone)
    if len(joined) > 1:
        everything = entry_name(ALL_MODELS, tta=False, ensemble=True)
        entries[everything] = AskedModel(everything, joined, tuple(seen_views[n] for n in joined))
    wanted = model or (names[0] if len(names) == 1 else _leader(run))
    if wanted not in entries:
        raise UnknownNameError("model of this run", wanted, entries)
    return entries[wanted]


def _leader(run: RunFolder) -> str:
    if not run.results.is_file():
        raise RunError(
            f"{run.root} has several models and no results.json that ranks them.\n"
            f"Fix: run 'perikarya evaluate {run.root}' first, or name one with --model."
        )
    ranking = read_json(run.results, what="the results of a run").get("ranking") or []
    if not ranking:
        raise RunError(f"{run.results} ranks no model. Fix: name one with --model.")
    return str(ranking[0]["model"])


def gather_run(
    run: RunFolder, cells: pd.DataFrame, study: Study, *, tasks: Sequence[TaskKey], asked: AskedModel
) -> Gathered:
    """Collect the predictions of every cell of the study, labelled or not, averaged over the networks asked.

    Raises
    ------
    RunError
        If no task of the model has finished.
    DataError
        If predictions do not fit the study.
    """
    pile = _Averages(cells, study.class_names)
    own = [key for key in tasks if key.model in asked.bases]
    for base, tta in zip(asked.bases, asked.tta, strict=True):
        keys = [key for key in own if key.model == base]
        kinds: tuple[PredictionSet, ...] = ("test", "external")
        for which in kinds:
            for predictions in load_predictions(run, keys, study.class_names, which=which).values():
                asked_for = predictions.over_views() if tta else predictions
                if asked_for is not None:
                    pile.add(asked_for)
    n_done = sum(run.task_is_done(key) for key in own)
    if not pile.n_networks.any():
        raise RunError(
            f"No finished task of {asked.name} in {run.root} left predictions; there is nothing to count.\n"
            "Fix: run 'perikarya train CONFIG --out RUN' first; 'perikarya status RUN' shows how far it is."
        )
    found = pile.predicted()
    table = cells.loc[pile.n_networks > 0]
    notes = []
    if n_done < len(own):
        notes.append(f"{len(own) - n_done} of {len(own)} trainings of {asked.name} have not finished.")
    if (n_missing := len(cells) - len(table)) > 0:
        notes.append(f"{n_missing} cell(s) of the study have no prediction and are not counted.")
    is_development = (table["set"] == DEVELOPMENT).to_numpy(bool)
    survey, reference, others = look_over(found, lambda _: is_development, keep_cells=True)
    return Gathered(
        cells=found,
        survey=survey,
        reference=reference,
        others=others,
        set_of=dict(zip(table["subject"].astype(str), table["set"].astype(str), strict=True)),
        source={"model": asked.name, "n_networks": n_done, "study": study.name},
        notes=tuple(notes),
    )


def reference_of_run(
    run: RunFolder, cells: pd.DataFrame, study: Study, *, tasks: Sequence[TaskKey], asked: AskedModel
) -> ReferenceSums:
    """Take a run's labelled development cells, each predicted by networks that never saw it, as reference.

    Where the run tests none of them (``cv.scheme: single``), its labelled external cells take their place.

    Raises
    ------
    RunError
        If no finished task left predictions of labelled cells.
    """
    gathered = gather_run(run, cells, study, tasks=tasks, asked=asked)
    known = gathered.reference or reference_of(gathered.cells, keep_cells=True)
    if known is None:
        raise RunError(
            f"No finished task of {asked.name} in {run.root} predicted labelled cells it was not trained on.\n"
            "Without them nobody knows how the network errs. Fix: name a run with tested folds or an external set."
        )
    return known


Chooser = Callable[[PredictedCells], NDArray[np.bool_]]  # of some cells, shape (n_cells,), those of the reference


def look_over(
    cells: Cells, chosen: Chooser, *, keep_cells: bool
) -> tuple[Survey, ReferenceSums | None, ReferenceSums | None]:
    """Find in one pass where cells lie, and sum up the labelled ones: those that are the reference, and the others.

    ``keep_cells`` keeps those of the reference, which ``em`` needs.
    """
    survey = Survey()
    reference, others = (Pile(cells.class_names, keep_cells=keep) for keep in (keep_cells, False))
    for chunk in cells.chunks():
        survey.add(chunk)
        chosen_n = chosen(chunk)
        reference.add_labelled(chunk, chosen_n)
        others.add_labelled(chunk, ~chosen_n)
    return survey, reference.sums(), others.sums()


class _Averages:
    """Sums of probabilities and votes per row of the cells table."""

    def __init__(self, cells: pd.DataFrame, class_names: tuple[str, ...]) -> None:
        self._cells, self._class_names = cells, class_names
        self._rows = pd.Index(cells["cell_id"].to_numpy(dtype=str))
        self._labels = label_codes(cells["label"], class_names)
        self._prob_nk, self._vote_nk = (np.zeros((len(cells), len(class_names))) for _ in range(2))
        self.n_networks = np.zeros(len(cells), np.int64)

    def add(self, predictions: Predictions) -> None:
        """Add what one network says."""
        row_n = self._rows.get_indexer(pd.Index(predictions.cell_id))
        where = f"Predictions of {predictions.model}, seed {predictions.seed}, fold {predictions.fold}"
        if (row_n < 0).any():
            raise DataError(
                f"{where}: {(row_n < 0).sum()} cell(s) are not in the study, such as "
                f"{predictions.cell_id[row_n < 0][0]}.\n"
                "The run was trained on another version of the study. Fix: name the study it was trained on (--study)."
            )
        prob_nk = predictions.prob_nk.astype(np.float64)
        self._prob_nk[row_n] += prob_nk / prob_nk.sum(axis=1, keepdims=True)
        self._vote_nk[row_n] += one_hot(prob_nk.argmax(axis=1), prob_nk.shape[1])
        self.n_networks[row_n] += 1

    def predicted(self) -> PredictedCells:
        """Average over networks; cells without any prediction are left out."""
        kept = self.n_networks > 0
        n = self.n_networks[kept, None]
        return predicted_cells(
            self._cells.loc[kept],
            self._class_names,
            prob_nk=self._prob_nk[kept] / n,
            vote_nk=self._vote_nk[kept] / n,
            label_n=self._labels[kept],
        )


def predicted_cells(
    table: pd.DataFrame | Mapping[str, pd.Series],
    class_names: tuple[str, ...],
    *,
    prob_nk: Floats,
    vote_nk: Floats | None,
    label_n: Ints,
) -> PredictedCells:
    """Join probabilities with subject, region, group and image_id of the same cells."""
    return PredictedCells(
        prob_nk=prob_nk,
        label_n=label_n,
        subject_n=texts_of(table["subject"]),
        region_n=texts_of(table["region"]) if table["region"].notna().any() else None,
        group_n=texts_of(table["group"]) if table["group"].notna().any() else None,
        image_n=texts_of(table["image_id"]),
        class_names=class_names,
        vote_nk=vote_nk,
    )
