"""The ``damage`` block: per animal and region, per group, effects and power, with what all of it rests on."""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import pandas as pd

from perikarya.config import ExperimentConfig
from perikarya.errors import UnknownNameError
from perikarya.evaluate.quantify.cells import (
    ALL_REGIONS,
    SEVERITY,
    AnimalDamage,
    fraction_measure,
)
from perikarya.evaluate.quantify.correction import SOFT, UNCORRECTED, check_condition, make_correction
from perikarya.evaluate.quantify.effects import treatment_effects
from perikarya.evaluate.quantify.fractions import (
    GroupMean,
    counted_shares,
    ends,
    group_means,
    labelled_shares,
    measure_animals,
    row_intervals,
)
from perikarya.evaluate.quantify.gather import Gathered, choose_model, gather_run
from perikarya.evaluate.quantify.power import power_block
from perikarya.evaluate.quantify.reference import ReferenceSums
from perikarya.evaluate.quantify.severity import severity_weights
from perikarya.evaluate.quantify.tables import PredictionTable, TableInMemory, gather_tables
from perikarya.evaluate.quantify.tally import Tally, rows_of
from perikarya.evaluate.quantify.transfer import compare_errors
from perikarya.evaluate.quantify.words import assumptions, findings
from perikarya.evaluate.stats import MIN_CLUSTERS
from perikarya.runs import RunFolder, TaskKey, provenance
from perikarya.schema import Study
from perikarya.settings import QuantifyConfig

log = logging.getLogger(__name__)

SCHEMA_VERSION = 1
CONTROL_NAME = re.compile(r"\b(sham|control|untreated|naive|healthy)", re.IGNORECASE)


def quantify_run(
    run: RunFolder,
    cells: pd.DataFrame,
    study: Study,
    config: ExperimentConfig,
    *,
    tasks: Sequence[TaskKey],
    model: str | None = None,
) -> dict[str, Any]:
    """Estimate the damage of every animal of a run's study, by labels nobody needs to have given.

    Parameters
    ----------
    run
        The run folder.
    cells
        The cells table of its study; unlabelled cells count as well.
    study
        Its description.
    config
        The experiment; its section ``quantify`` says how.
    tasks
        All tasks the experiment consists of.
    model
        An entry of the ranking; None: the leading one.

    Returns
    -------
    Ready for JSON; see docs/damage.md.

    Raises
    ------
    RunError
        If there is nothing to count.
    DataError
        If the predictions do not fit the study, animals are unknown, or classes cannot be told apart.
    UnknownNameError
        If the model or the control group does not exist.
    """
    curve = {m.name for m in config.models if m.train_subjects is not None}
    asked = choose_model(run, tasks, model, alone=curve)
    gathered = gather_run(run, cells, study, tasks=tasks, asked=asked)
    return quantify(gathered, config.quantify, groups=study.groups, regions=study.regions)


def quantify_predictions(
    table: PredictionTable | pd.DataFrame,
    class_names: tuple[str, ...] | None = None,
    *,
    settings: QuantifyConfig,
    reference: PredictionTable | pd.DataFrame | ReferenceSums | None = None,
    groups: Sequence[str] = (),
    regions: Sequence[str] = (),
) -> dict[str, Any]:
    """Estimate the damage from a table of predictions.

    Parameters
    ----------
    table
        One row per cell: subject, region, group, ``prob_<class>``; image_id, label and cell_id where known. In memory,
        or files that are read piece by piece (``tables.open_predictions``).
    class_names
        In order of severity; None: the order of the columns.
    settings
        How.
    reference
        Labelled predictions by networks that were not trained on these cells, as a table or from a run
        (``gather.reference_of_run``); None: the labelled rows of ``table``.
    groups, regions
        Their order; names not listed follow in the order of the table.

    Returns
    -------
    As ``quantify_run``.
    """
    counted = TableInMemory(table) if isinstance(table, pd.DataFrame) else table
    known = TableInMemory(reference, "The reference table") if isinstance(reference, pd.DataFrame) else reference
    gathered = gather_tables(counted, class_names, known, keep_cells=settings.correction == "em")
    return quantify(gathered, settings, groups=groups, regions=regions)


def quantify(
    gathered: Gathered, settings: QuantifyConfig, *, groups: Sequence[str], regions: Sequence[str]
) -> dict[str, Any]:
    """Compute the block from gathered cells; see ``quantify_run``."""
    cells, survey = gathered.cells, gathered.survey
    severity_weights(len(cells.class_names))  # a single class is refused before any work
    survey.check()
    groups, regions = _in_order(survey.groups, groups), _in_order(survey.regions, regions)
    groups = _control_first(groups, settings.control)
    chosen = settings.model_copy(update={"control": groups[0]}) if groups else settings
    correction = make_correction(
        settings.correction, gathered.reference, n_draws=settings.n_bootstrap, seed=settings.seed
    )
    log.info("summing up %d cells", survey.n_cells)
    rows = rows_of(cells, groups=groups, regions=regions, seed=settings.seed, survey=survey)
    tally = Tally(rows, cells.class_names)
    log.info("correcting %d animals and regions", len(rows))
    measured = measure_animals(cells, rows, correction, n_draws=settings.n_bootstrap, seed=settings.seed, survey=survey)
    means = group_means(measured.free, cells.class_names, groups=groups, regions=regions, seed=settings.seed)
    corrected = _correction_block(gathered, settings)
    n_reference = None if corrected["reference"] is None else corrected["reference"]["n_animals"]
    animals = _animal_entries(measured.bounded, tally, gathered, settings, n_reference)
    return {
        "schema_version": SCHEMA_VERSION,
        "class_names": list(cells.class_names),
        "regions": regions,
        "groups": groups,
        "control": groups[0] if groups else None,
        "source": gathered.source,
        "settings": settings.model_dump(mode="json"),
        "severity_weights": severity_weights(len(cells.class_names)).tolist(),
        "assumptions": assumptions(settings, corrected, gathered, groups),
        "notes": [*gathered.notes, *findings(corrected, animals)],
        "correction": corrected,
        "agreement": _agreement(animals),
        "animals": animals,
        "group_means": [_group_entry(m, cells.class_names, settings.confidence) for m in means],
        "effects": treatment_effects(measured.free, tally, chosen, group_names=groups),
        "power": power_block(measured.free, chosen, group_names=groups),
        "provenance": provenance(),
    }


def _in_order(found: Collection[str], names: Sequence[str]) -> list[str]:
    """Return the names that occur, in the given order; others follow in order of appearance."""
    return [n for n in names if n in found] + [f for f in found if f not in names]


def _control_first(groups: list[str], control: str | None) -> list[str]:
    """Put the control first: the one named, else the only group that is called so, else the first."""
    if control is None:
        called_so = [g for g in groups if CONTROL_NAME.search(g)]
        control = called_so[0] if len(called_so) == 1 else None
    if control is None:
        return groups
    if control not in groups:
        raise UnknownNameError("group of animals (the control)", control, groups)
    return [control, *(g for g in groups if g != control)]


def _correction_block(gathered: Gathered, settings: QuantifyConfig) -> dict[str, Any]:
    """Describe how the network errs on the reference and whether it does so on labelled target animals."""
    reference, method = gathered.reference, settings.correction
    block: dict[str, Any] = {"method": method, "reference": None, "matrix": None, "condition": None, "check": None}
    if reference is None or method in UNCORRECTED:
        return block
    n_k = reference.n_sk.sum(axis=0)
    matrix = reference.outputs(soft=method in SOFT).sum_skk.sum(axis=0) / n_k[:, None]
    block["matrix"] = matrix.tolist()
    block["condition"] = check_condition(matrix, reference.class_names)
    block["reference"] = {
        "n_cells": reference.n_cells,
        "n_animals": len(reference.names),
        "n_per_class": dict(zip(reference.class_names, n_k.astype(int).tolist(), strict=True)),
        "n_animals_per_class": dict(zip(reference.class_names, (reference.n_sk > 0).sum(axis=0).tolist(), strict=True)),
    }
    target = _labelled_targets(gathered, reference)
    if target is not None:
        block["check"] = compare_errors(
            reference,
            target,
            soft=method in SOFT,
            n_draws=settings.n_bootstrap,
            confidence=settings.confidence,
            seed=settings.seed,
        )
    return block


def _labelled_targets(gathered: Gathered, reference: ReferenceSums) -> ReferenceSums | None:
    """Return the labelled cells of animals that are not in the reference; None for fewer than three such animals."""
    target = gathered.others.without(reference.names) if gathered.others is not None else None
    return target if target is not None and len(target.names) >= MIN_CLUSTERS else None


def _animal_entries(
    damage: AnimalDamage, tally: Tally, gathered: Gathered, settings: QuantifyConfig, n_reference: int | None
) -> list[dict[str, Any]]:
    rows, names = tally.rows, tally.class_names
    intervals = row_intervals(damage, rows, confidence=settings.confidence, n_reference=n_reference)
    counted, labelled = counted_shares(tally), labelled_shares(tally)
    entries = []
    for i, row in enumerate(rows):
        own = {m: {"estimate": float(damage.table[m].iloc[i]), "ci95": intervals[m][i]} for m in damage.draws}
        n_labelled = int(labelled["n_labelled"].iloc[i])
        entries.append(
            {
                "subject": row.subject,
                "group": row.group,
                "region": row.region,
                "set": gathered.set_of.get(row.subject),
                "n_cells": row.n_cells,
                "resampled": row.unit,
                "n_resampled": row.n_parts,
                **_split(own, names),
                "counted": _split(_plain(counted, i), names),
                "labelled": {"n_cells": n_labelled, **_split(_plain(labelled, i), names)} if n_labelled else None,
            }
        )
    return entries


def _agreement(entries: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """Compare the severity of animals labelled throughout with that by their labels; None where there are none."""
    known = [
        e for e in entries if e["region"] == ALL_REGIONS and e["labelled"] and e["labelled"]["n_cells"] == e["n_cells"]
    ]
    if not known:
        return None
    by_label = np.array([e["labelled"][SEVERITY] for e in known])
    ways = {
        "corrected": np.array([e[SEVERITY]["estimate"] for e in known]) - by_label,
        "counted": np.array([e["counted"][SEVERITY] for e in known]) - by_label,
    }
    errors = {
        way: {"mean_error": float(error.mean()), "mean_absolute_error": float(np.abs(error).mean())}
        for way, error in ways.items()
    }
    return {"n_animals": len(known), **errors}


def _plain(table: pd.DataFrame, i: int) -> dict[str, float]:
    return {str(name): float(value) for name, value in table.iloc[i].items()}


def _split(values: dict[str, Any], class_names: Sequence[str]) -> dict[str, Any]:
    """Arrange values by measure as ``fractions`` per class and ``severity``."""
    return {"fractions": {n: values[fraction_measure(n)] for n in class_names}, SEVERITY: values[SEVERITY]}


def _group_entry(mean: GroupMean, class_names: Sequence[str], confidence: float) -> dict[str, Any]:
    """Return a group's mean; fewer than three animals have no interval, for two give a range and no more."""
    n = mean.n_animals if mean.n_animals >= MIN_CLUSTERS else 1
    values = {
        measure: {"estimate": mean.estimate[measure], "ci95": ends(draws_b, confidence=confidence, n_clusters=n)}
        for measure, draws_b in mean.draws.items()
    }
    size = {"n_animals": mean.n_animals, "n_cells": mean.n_cells}
    return {"group": mean.group, "region": mean.region, **size, **_split(values, class_names)}
