"""From the files of a run to ``results.json``: all models, sets, regions and groups, with their uncertainty.

Cross-validation: the test folds of one seed are pooled, scored, and averaged over seeds. External set: every trained
network is scored alone and the scores are averaged, for that is what one training can be expected to give; what all
networks say together is a model of its own, ``"<name> (ensemble)"``.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from perikarya.config import EvaluateConfig, ExperimentConfig
from perikarya.errors import RunError
from perikarya.evaluate.outputs import ModelScores, Scored, TaskOutput, load_outputs, model_scores
from perikarya.evaluate.protocol import describe_protocol, describe_study
from perikarya.evaluate.stats import percentile_interval
from perikarya.evaluate.summary import RANKED, Measured, measure
from perikarya.evaluate.tables import tidy_metrics
from perikarya.runs import RunFolder, TaskKey, provenance, write_json, write_text
from perikarya.schema import Study

log = logging.getLogger(__name__)

SCHEMA_VERSION = 1
_SCOPES = (("region", "regions"), ("group", "groups"))


@dataclass(frozen=True)
class _Scorer:
    """What every score needs beside the predictions."""

    cells: pd.DataFrame
    class_names: tuple[str, ...]
    settings: EvaluateConfig

    def overall(self, parts: Sequence[Scored], folds: Sequence[Scored]) -> Measured:
        return measure(parts, folds, self.cells, class_names=self.class_names, settings=self.settings)

    def by_scope(self, parts: Sequence[Scored], folds: Sequence[Scored], column: str) -> dict[str, Any]:
        """Score the cells of each region or group alone; those without any cell are left out."""
        blocks = {}
        values = self.cells[column]
        for value in sorted(values.dropna().unique()):
            mask = (values == value).fillna(False).to_numpy(dtype=bool)
            inside = [p.inside(mask) for p in parts]
            if not all(len(p.row_n) for p in inside):
                continue
            kept = [f for f in (f.inside(mask) for f in folds) if len(f.row_n)]
            blocks[str(value)] = self.overall(inside, kept).block
        return blocks


def evaluate_run(
    run: RunFolder,
    cells: pd.DataFrame,
    study: Study,
    config: ExperimentConfig,
    *,
    tasks: Sequence[TaskKey],
) -> dict[str, Any]:
    """Score every finished task of a run.

    Parameters
    ----------
    run
        The run folder.
    cells
        The cells table of the study the run was trained on.
    study
        Its description.
    config
        The experiment's configuration.
    tasks
        All tasks the experiment consists of; those that have not finished are listed under ``protocol.incomplete``.

    Returns
    -------
    The content of ``results.json``; what is undefined is None.

    Raises
    ------
    RunError
        If no task has finished or a file is damaged.
    DataError
        If predictions do not fit the study.
    """
    outputs = load_outputs(run, tasks, cells, study.class_names)
    scorer = _Scorer(cells, study.class_names, config.evaluate)
    models: dict[str, Any] = {}
    measured: dict[str, dict[str, Measured]] = {"external": {}, "cv": {}}
    for scores in model_scores(outputs):
        log.info("evaluating %s", scores.name)
        models[scores.name], blocks = _entry(scores, scorer)
        for set_name, block in blocks.items():
            measured[set_name][scores.name] = block
    missing = [key for key in tasks if key not in {o.key for o in outputs}]
    return {
        "schema_version": SCHEMA_VERSION,
        "study": describe_study(study, cells),
        "protocol": describe_protocol(run, config, outputs, cells, missing=missing, models=models),
        "models": models,
        "ranking": _ranking(measured, config.evaluate),
        "provenance": provenance() | {"config_hash": config.content_hash(), "data_hash": _shared(outputs, "data_hash")},
    }


def write_results(run: RunFolder, results: dict[str, Any]) -> None:
    """Write ``results.json`` and, beside it, ``metrics.csv`` with the same numbers as a tidy table."""
    write_text(run.root / "metrics.csv", tidy_metrics(results).to_csv(index=False))
    write_json(run.results, results)


def _entry(scores: ModelScores, scorer: _Scorer) -> tuple[dict[str, Any], dict[str, Measured]]:
    sets = {
        name: (parts, folds)
        for name, parts, folds in (
            ("cv", scores.pooled, scores.tests),
            ("external", scores.external, scores.external_folds),
        )
        if parts
    }
    blocks = {name: scorer.overall(parts, folds) for name, (parts, folds) in sets.items()}
    entry: dict[str, Any] = {"kind": scores.kind, **_training(scores), "cv": None, "external": None}
    entry |= {name: measured.block for name, measured in blocks.items()}
    entry["scopes_of"] = next(iter(sets), None)
    for column, plural in _SCOPES:
        for i, (parts, folds) in enumerate(sets.values()):
            entry[f"external_{plural}" if i else plural] = scorer.by_scope(parts, folds, column)
        entry.setdefault(plural, {})
    return entry, blocks


def _training(scores: ModelScores) -> dict[str, Any]:
    results = [o.result for o in scores.outputs]
    first = results[0]
    n_asked = len(results) if scores.kind == "ensemble" else 1  # networks that one prediction asks
    n_params = first.get("n_params")
    speeds = [r.get("inference_s_per_cell") or {} for r in results]
    return {
        "arch": first.get("arch"),
        "strategy": first.get("strategy"),
        "input_px": first.get("input_px"),
        "channels": first.get("channels"),
        "weights": first.get("weights"),
        "n_networks": len(results),
        "n_params": None if n_params is None else n_params * n_asked,
        "inference_s_per_cell": {k: _mean([s.get(k) for s in speeds], n_asked) for k in ("batch1", "batched")},
        "training": {
            "wall_s": sum(float(r.get("wall_s") or 0.0) for r in results),
            "peak_memory_mib": max((float(r.get("peak_memory_mib") or 0.0) for r in results), default=0.0),
            "threads": first.get("threads"),
            "tasks": [
                {"seed": o.key.seed, "fold": o.key.fold}
                | {k: o.result.get(k) for k in ("best_epoch", "n_train", "n_stop", "n_test", "n_external", "wall_s")}
                for o in scores.outputs
            ],
            "versions": first.get("versions"),
        },
    }


def _mean(values: Sequence[float | None], times: int) -> float | None:
    known = [v for v in values if v is not None]
    return float(np.mean(known)) * times if known else None


def _shared(outputs: list[TaskOutput], field: str) -> str | None:
    values = {str(o.result[field]) for o in outputs}
    if len(values) > 1:
        raise RunError(
            f"The finished tasks have {len(values)} different {field}s ({', '.join(sorted(values))}).\n"
            "Models trained on different data or settings must not be compared in one table.\n"
            "Fix: delete the older tasks and train them again, or use one run folder per version."
        )
    return values.pop()


def _ranking(measured: dict[str, dict[str, Measured]], settings: EvaluateConfig) -> list[dict[str, Any]]:
    """Sort the models by the external score where there is one, with the paired distance of each to the first."""
    set_name = "external" if measured["external"] else "cv"
    scored = {n: m for n, m in measured[set_name].items() if m.block[RANKED]["mean"] is not None}
    order = sorted(scored, key=lambda name: -scored[name].block[RANKED]["mean"])
    return [
        {
            "model": name,
            "metric": f"{set_name} {RANKED}",
            "mean": scored[name].block[RANKED]["mean"],
            "ci95": scored[name].block[RANKED]["ci95"],
            "behind_first": _distance(scored[order[0]], scored[name], settings),
        }
        for name in order
    ]


def _distance(first: Measured, other: Measured, settings: EvaluateConfig) -> dict[str, Any] | None:
    """Return how far a model lies behind the first; the interval comes from the same draws for both."""
    if other is first:
        return None
    interval = None
    if first.covered == other.covered and len(first.draws_b):
        interval = percentile_interval(
            first.draws_b - other.draws_b, confidence=settings.confidence, n_clusters=len(first.covered[1])
        )
    gap = first.block[RANKED]["mean"] - other.block[RANKED]["mean"]
    return {"mean": gap, "ci95": None if interval is None else list(interval)}
