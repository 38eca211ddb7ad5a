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
from perikarya.evaluate.claims import add_claims
from perikarya.evaluate.exports import write_exports
from perikarya.evaluate.label_quality import LABEL_ISSUES, LabelQuality, write_label_table
from perikarya.evaluate.metrics import Ints
from perikarya.evaluate.outputs import ModelScores, Scored, TaskOutput, load_outputs, model_scores
from perikarya.evaluate.protocol import describe_protocol, describe_study
from perikarya.evaluate.stats import percentile_interval
from perikarya.evaluate.summary import RANKED, Measured, measure, spread_over
from perikarya.parallel import map_forked
from perikarya.runs import RunFolder, TaskKey, provenance, write_json
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


@dataclass(frozen=True)
class Evaluation:
    """The content of ``results.json`` (what is undefined is None) and the table of suspicious labels, if any."""

    results: dict[str, Any]
    labels: LabelQuality | None


def evaluate_run(
    run: RunFolder,
    cells: pd.DataFrame,
    study: Study,
    config: ExperimentConfig,
    *,
    tasks: Sequence[TaskKey],
    readings_nr: Ints | None = None,
) -> Evaluation:
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
    readings_nr
        Repeated readings of the labels, from ``ceiling.read_readings``.

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
    curve = {m.name: m.train_subjects for m in config.models if m.train_subjects is not None}
    arranged = model_scores(outputs, alone=curve)
    log.info("evaluating %s", ", ".join(s.name for s in arranged))
    # a point of a learning curve is no candidate, and regions and groups are not asked of it
    entries = map_forked(lambda scores: _entry(scores, scorer, by_scope=scores.base not in curve), arranged)
    for scores, (entry, blocks) in zip(arranged, entries, strict=True):
        models[scores.name] = entry | {"train_subjects": curve.get(scores.base)}
        for set_name, block in ({} if scores.base in curve else blocks).items():
            measured[set_name][scores.name] = block
    finished = {o.key for o in outputs}
    missing = [key for key in tasks if key not in finished]
    results = {
        "schema_version": SCHEMA_VERSION,
        "study": describe_study(study, cells),
        "protocol": describe_protocol(run, config, outputs, cells, missing=missing, models=models),
        "models": models,
        "ranking": _ranking(measured, config.evaluate),
        "provenance": provenance() | {"config_hash": config.content_hash(), "data_hash": _shared(outputs, "data_hash")},
    }
    labels = add_claims(
        results,
        arranged,
        cells,
        study.class_names,
        settings=config.evaluate,
        alone=curve,
        readings_nr=readings_nr,
    )
    return Evaluation(results, labels)


def write_results(run: RunFolder, evaluation: Evaluation) -> None:
    """Write tables, one JSON per model and the suspicious labels, and last ``results.json``, each file whole."""
    write_exports(run, evaluation.results)
    if evaluation.labels is not None:
        write_label_table(run.root / LABEL_ISSUES, evaluation.labels.table)
    write_json(run.results, evaluation.results)


def _entry(scores: ModelScores, scorer: _Scorer, *, by_scope: bool) -> tuple[dict[str, Any], dict[str, Measured]]:
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
        for i, (parts, folds) in enumerate(sets.values() if by_scope else ()):
            key = f"external_{plural}" if i else plural
            entry[key] = scorer.by_scope(parts, folds, column)
            entry[f"{key}_sd"] = spread_over(entry[key])
        entry.setdefault(plural, {})
    return entry, blocks


def _training(scores: ModelScores) -> dict[str, Any]:
    results = [o.result for o in scores.outputs]
    first = results[0]
    is_ensemble = scores.kind == "ensemble"
    about = {k: _common([r.get(k) for r in results]) for k in ("arch", "strategy", "input_px", "channels", "weights")}
    return {
        "base": scores.base,
        "tta": scores.tta,
        **about,
        "n_networks": len(results),
        "n_views": first.get("n_views", 1) if scores.tta else 1,
        "n_params": _per_prediction([r.get("n_params") for r in results], is_ensemble),
        "inference_s_per_cell": {
            k: _per_prediction([_seconds(r, k, tta=scores.tta) for r in results], is_ensemble)
            for k in ("batch1", "batched")
        },
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


def _common(values: Sequence[Any]) -> Any:
    """Return what all networks share; None where they differ, as in an ensemble of several models."""
    return values[0] if all(v == values[0] for v in values) else None


def _seconds(result: dict[str, Any], kind: str, *, tta: bool) -> float | None:
    """Return the time per cell of one network, for all views it is asked for."""
    seconds = (result.get("inference_s_per_cell") or {}).get(kind)
    return None if seconds is None else float(seconds) * (result.get("n_views", 1) if tta else 1)


def _per_prediction(values: Sequence[float | None], is_ensemble: bool) -> float | None:
    """Return what one prediction takes: an ensemble asks all networks, otherwise one of them is asked."""
    known = [v for v in values if v is not None]
    if not known:
        return None
    return float(np.sum(known)) if is_ensemble else float(np.mean(known))


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
            first.draws_b - other.draws_b,
            confidence=settings.confidence,
            n_clusters=len(first.covered[1]),
            n_strata=first.n_strata,
        )
    gap = first.block[RANKED]["mean"] - other.block[RANKED]["mean"]
    return {"mean": gap, "ci95": None if interval is None else list(interval)}
