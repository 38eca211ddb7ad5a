"""What a run folder holds for a tracker: settings, curves, numbers, pictures. Nothing here knows any tracker."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

import pandas as pd

from perikarya.config import ExperimentConfig
from perikarya.evaluate.outputs import load_history, load_result
from perikarya.experiment.plan import load_run_config, run_hashes, task_keys
from perikarya.runs import RESULT_FILE, RunFolder, TaskKey, file_sha256, read_json
from perikarya.schema import safe_name

Setting = str | int | float | bool
# of results.json; what else is there goes along as a file
_MEASURES = ("accuracy", "balanced_accuracy", "macro_f1", "macro_auc", "loss", "ece", "qwk")
# of result.json: what tasks are compared by, and what only describes one
_NUMBERS = ("wall_s", "peak_memory_mib")
_DESCRIBED = ("best_epoch", "n_epochs", "n_params", "n_train", "n_train_subjects", "n_stop", "n_test", "n_external")


@dataclass(frozen=True)
class TaskRecord:
    """One finished task.

    Attributes
    ----------
    key
        Which it is.
    digest
        SHA-256 of its ``result.json``: the same in every copy of the run folder, another when it is trained anew.
    settings
        What it was trained with, flat, such as ``train.lr``, and what it then was: ``result.n_train``.
    facts
        Hashes and versions.
    curves
        One row per epoch (or penalty), columns named as trackers allow; NaN where a class had no cells.
    numbers
        Single numbers, such as ``best_stop_loss``; few, for trackers draw each beside the curves.
    started_s, ended_s
        Seconds since 1970.
    """

    key: TaskKey
    digest: str
    settings: dict[str, Setting]
    facts: dict[str, str]
    curves: pd.DataFrame
    numbers: dict[str, float]
    started_s: float
    ended_s: float

    @property
    def name(self) -> str:
        """The task in words, such as ``lite0 seed0 fold3``."""
        return f"{self.key.model} seed{self.key.seed} fold{self.key.fold}"

    def time_of(self, row: int) -> float:
        """Return about when a row of the curves was reached, in seconds since 1970; the same at every call."""
        return self.started_s + (self.ended_s - self.started_s) * (row + 1) / max(1, len(self.curves))


@dataclass(frozen=True)
class RunRecord:
    """What a run is about, and what came out: numbers per model, figures and pages.

    ``digest`` changes when any of ``files`` does; it is empty as long as nothing was evaluated. ``figures`` and
    ``pages`` are the files by kind.
    """

    name: str
    folder: Path
    settings: dict[str, Setting]
    facts: dict[str, str]
    numbers: dict[str, float]
    figures: tuple[Path, ...]
    pages: tuple[Path, ...]
    digest: str


class Tracker(Protocol):
    """Where records go. Opened for one run; what it holds already is found there, not in the run folder."""

    def known(self, digests: Collection[str]) -> set[str]:
        """Return those of the tasks, by digest, that were logged whole before."""

    def log_task(self, task: TaskRecord) -> None:
        """Log one finished task; called again after an interruption, it completes what it began."""

    def log_run(self, run: RunRecord) -> None:
        """Log what came out of the run, unless the same was logged before."""

    def how_to_look(self) -> str:
        """Say what to type to see it."""


def sync(run: RunFolder, tracker: Tracker, *, known: dict[TaskKey, str] | None = None) -> int:
    """Log what a tracker lacks of a run.

    Parameters
    ----------
    run
        The run folder; finished, going on or a copy.
    tracker
        Where it goes.
    known
        Tasks that need not be looked at again, added to here; for callers that come after every task.

    Returns
    -------
    Number of tasks that were logged.

    Raises
    ------
    RunError
        If the folder is not a run, a file of it is damaged, or the tracker refuses.
    """
    config = load_run_config(run)
    known = {} if known is None else known
    fresh = {
        key: file_sha256(run.task(key) / RESULT_FILE)
        for key in task_keys(config)
        if key not in known and run.task_is_done(key)
    }
    there = tracker.known(fresh.values()) if fresh else set()
    n_logged = 0
    for key, digest in fresh.items():
        if digest not in there:
            tracker.log_task(read_task(run, key, config, digest=digest))
            n_logged += 1
        known[key] = digest
    if known:
        tracker.log_run(read_run(run, config))
    return n_logged


def read_task(run: RunFolder, key: TaskKey, config: ExperimentConfig, *, digest: str) -> TaskRecord:
    """Read what there is to log of a finished task."""
    result = load_result(run, key)
    history = load_history(run, key)
    ended_s = _ended_s(run, key, result)
    numbers = {name: result.get(name) for name in _NUMBERS}
    described = {name: result[name] for name in (*_DESCRIBED, "inference_s_per_cell", "weights") if name in result}
    if history is not None:
        best = history[history["epoch"] == result.get("best_epoch")]
        for column in ("stop_loss", "stop_accuracy"):
            if column in best and len(best):
                numbers[f"best_{column}"] = float(best[column].iloc[0])
    return TaskRecord(
        key=key,
        digest=digest,
        settings=task_settings(config, key) | flat({"result": described}),
        facts=_facts(result["config_hash"], result["data_hash"], result.get("versions", {})),
        curves=_with_plain_names(pd.DataFrame({"epoch": []}) if history is None else history),
        numbers=_finite(numbers),
        started_s=ended_s - float(result.get("wall_s", 0.0)),
        ended_s=ended_s,
    )


def _ended_s(run: RunFolder, key: TaskKey, result: Mapping[str, Any]) -> float:
    """Return when a task ended; results of before they said so are dated by their file."""
    if "ended" in result:
        return datetime.fromisoformat(str(result["ended"])).timestamp()
    return (run.task(key) / RESULT_FILE).stat().st_mtime


def task_settings(config: ExperimentConfig, key: TaskKey) -> dict[str, Setting]:
    """Return the settings one task was trained with, flat; overrides of its model have been applied."""
    model = config.model(key.model)
    sections: dict[str, Any] = {
        "seed": key.seed,
        "fold": key.fold,
        "model": model.model_dump(mode="json", exclude={"train", "head", "augment", "resample"}),
        "cv": config.cv.model_dump(mode="json"),
        "resample": config.resample_of(model).model_dump(mode="json"),
    }
    if model.strategy == "head":
        sections["head"] = config.head_of(model).model_dump(mode="json")
    else:
        sections["train"] = config.train_of(model).model_dump(mode="json")
        sections["augment"] = config.augment_of(model).model_dump(mode="json")
    return flat(sections)


def read_run(run: RunFolder, config: ExperimentConfig) -> RunRecord:
    """Read what there is to log of a run as a whole, evaluated or not."""
    results = read_json(run.results, what="the results of a run") if run.results.is_file() else None
    figures = tuple(sorted(run.figures.glob("*.png"))) if results else ()
    pages = tuple(p for p in (run.config, run.results, run.report) if p.is_file()) if results else ()
    shared = config.model_dump(mode="json", include={"cv", "seeds", "evaluate", "quantify"})
    return RunRecord(
        name=config.name,
        folder=run.root,
        settings=flat({**shared, "models": [m.name for m in config.models]}),
        facts=_facts(*run_hashes(run), (results or {}).get("provenance", {}).get("versions", {})),
        numbers=model_numbers(results) if results else {},
        figures=figures,
        pages=pages,
        digest=_digest([*figures, *pages]) if results else "",
    )


def model_numbers(results: Mapping[str, Any]) -> dict[str, float]:
    """Return the numbers of all models, such as ``lite0/external/accuracy``, ``..._low`` and ``..._high``."""
    numbers: dict[str, Any] = {}
    names = plain_names(results["models"])
    for model, entry in results["models"].items():
        for set_name in ("cv", "external"):
            block = entry.get(set_name) or {}
            for measure in _MEASURES:
                numbers |= _with_interval(f"{names[model]}/{set_name}/{measure}", block.get(measure))
            classes = block.get("per_class") or {}
            for label, plain in plain_names(classes).items():
                numbers |= _with_interval(f"{names[model]}/{set_name}/recall_{plain}", classes[label].get("recall"))
    return _finite(numbers)


def _with_interval(name: str, value: Mapping[str, Any] | None) -> dict[str, Any]:
    if not value:
        return {}
    low, high = value.get("ci95") or (None, None)
    return {name: value.get("mean"), f"{name}_low": low, f"{name}_high": high}


def flat(content: Mapping[str, Any], prefix: str = "") -> dict[str, Setting]:
    """Turn nested settings into ``section.name``; lists become JSON and None the word ``none``."""
    out: dict[str, Setting] = {}
    for name, value in content.items():
        if isinstance(value, Mapping):
            out |= flat(value, f"{prefix}{name}.")
        elif isinstance(value, str | int | float):
            out[prefix + name] = value
        else:
            out[prefix + name] = "none" if value is None else json.dumps(value)
    return out


def plain_names(names: Iterable[str]) -> dict[str, str]:
    """Map names to ones every tracker takes: letters, digits, dot, dash, underscore; each stays different."""
    found: dict[str, str] = {}
    for name in names:
        plain = unique = safe_name(name)
        n = 2
        while unique in found.values():
            unique, n = f"{plain}_{n}", n + 1
        found[name] = unique
    return found


def _with_plain_names(history: pd.DataFrame) -> pd.DataFrame:
    return history.rename(columns=plain_names(map(str, history.columns)))


def _finite(numbers: Mapping[str, Any]) -> dict[str, float]:
    return {name: float(x) for name, x in numbers.items() if x is not None and math.isfinite(x)}


def _facts(config_hash: str, data_hash: str, versions: Mapping[str, str]) -> dict[str, str]:
    return {
        "config_hash": config_hash,
        "data_hash": data_hash,
        **{f"version.{package}": version for package, version in versions.items()},
    }


def _digest(paths: Iterable[Path]) -> str:
    parts = [f"{path.name} {file_sha256(path)}" for path in paths]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
