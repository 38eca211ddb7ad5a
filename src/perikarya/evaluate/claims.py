"""What follows from the scores of a run: which models differ, how far to trust them and the labels, what limits."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import Any

import pandas as pd

from perikarya.config import EvaluateConfig
from perikarya.evaluate.abstention import abstention_block
from perikarya.evaluate.calibration import calibrate_model, try_methods
from perikarya.evaluate.compare import compare_run
from perikarya.evaluate.label_quality import LabelQuality, label_issues, out_of_sample
from perikarya.evaluate.metrics import Ints
from perikarya.evaluate.outputs import ModelScores
from perikarya.evaluate.saturation import saturation_block
from perikarya.parallel import map_forked

log = logging.getLogger(__name__)


def add_claims(
    results: dict[str, Any],
    scores: Sequence[ModelScores],
    cells: pd.DataFrame,
    class_names: tuple[str, ...],
    *,
    settings: EvaluateConfig,
    alone: Collection[str] = (),
    readings_nr: Ints | None = None,
) -> LabelQuality | None:
    """Add ``comparisons``, ``label_quality`` and ``saturation``, and to each model ``calibration`` and ``abstention``.

    Parameters
    ----------
    results
        The content of ``results.json`` so far; changed in place.
    scores
        From ``outputs.model_scores``.
    cells
        The cells table of the study.
    alone
        Models that are points of a learning curve: they do not compete.
    readings_nr
        Repeated readings of the labels (``ceiling.read_readings``).

    Returns
    -------
    The suspicious labels, whose table goes into a file of its own; None where no cell was predicted out of sample.
    """
    candidates = [s for s in scores if s.base not in alone]
    opinions = out_of_sample(scores, leave_out=tuple(alone))

    def look_for_labels() -> LabelQuality | None:
        return label_issues(opinions, cells, class_names, settings=settings) if opinions else None

    def compare() -> dict[str, Any]:
        return compare_run(candidates, cells, class_names=class_names, settings=settings)

    def trust(model: ModelScores) -> dict[str, Any]:
        return {model.name: {"abstention": abstention_block(model, cells, class_names, settings)}}

    def calibrate(model: ModelScores) -> dict[str, Any]:
        return _calibration(model, cells, class_names, settings)

    log.info("comparing %d models", len(candidates))
    networks = [m for m in candidates if m.kind == "network" and not m.tta]
    tasks: list[Callable[[], Any]] = [compare, look_for_labels]
    tasks += [partial(calibrate, m) for m in networks] + [partial(trust, m) for m in candidates]
    labels: LabelQuality | None
    results["comparisons"], labels, *of_models = map_forked(lambda task: task(), tasks)
    for found in of_models:
        for name, blocks in found.items():
            results["models"][name] |= blocks
    results["label_quality"] = None if labels is None else labels.block
    results["saturation"] = saturation_block(
        scores, cells, class_names, settings=settings, labels=labels, readings_nr=readings_nr
    )
    return labels


def _calibration(
    model: ModelScores, cells: pd.DataFrame, class_names: tuple[str, ...], settings: EvaluateConfig
) -> dict[str, Any]:
    """Return what calibration brings to a model and to the ensemble of its networks, by the name of the entry."""
    found = calibrate_model(try_methods(model.outputs), cells, class_names, settings)
    fits = {"fits": found["fits"], "refused": found["refused"]}
    return {
        name: {"calibration": block | (fits if name == model.name else {})} for name, block in found["entries"].items()
    }
