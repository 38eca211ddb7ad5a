"""Knowing when not to decide: conformal sets, thresholds and risk-coverage curves of a run's models.

What is fitted (conformal sets, and thresholds that aim at an error) is fitted to the validation fold of each network
and applied to its test fold and to the external cells. A cell with one class in its conformal set is decided; with
several, or none, the model abstains. Coverage is promised for exchangeable cells only (see ``conformal``), which cells
of other animals are not; so it is measured, with intervals over animals and animal by animal, beside the nominal one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from perikarya.config import EvaluateConfig
from perikarya.evaluate.calibration import check_unseen
from perikarya.evaluate.cluster_sums import ClusterDraws, Formulas, shares, sum_columns
from perikarya.evaluate.conformal import fit_conformal
from perikarya.evaluate.metrics import Floats, Ints
from perikarya.evaluate.outputs import ModelScores, Scored, TaskOutput
from perikarya.evaluate.risk_coverage import aurc, aurc_of_sums, curve_of, risk_at, risk_sums, threshold_for
from perikarya.evaluate.stats import SUBJECT

TARGET_ERRORS = (0.05, 0.10)  # of the cells a model decides
SHARES = np.arange(1, 101) / 100  # of the cells that are kept, where risk-coverage curves are given
MIN_OF_ANIMAL = 5  # cells; below, the coverage of an animal is mostly chance


@dataclass(frozen=True)
class _Decided:
    """What one network did with some cells: ``value_nc`` has one column per thing that is summed."""

    row_n: Ints
    value_nc: Floats


def abstention_block(
    scores: ModelScores, cells: pd.DataFrame, class_names: tuple[str, ...], settings: EvaluateConfig
) -> dict[str, Any]:
    """Say what a model can decide and how often it is right when it does.

    Parameters
    ----------
    scores
        One model (or ensemble, for which only the curves exist: no fold is unseen by all its networks).
    cells
        The cells table of the study.
    class_names
        Classes in their order.
    settings
        ``conformal`` (nominal coverage), ``threshold``, and how intervals are made.

    Returns
    -------
    Ready for JSON, with V = ``{"mean", "sd_folds", "ci95"}`` and sets ``cv`` and ``external`` where they exist:

    ``"risk_coverage": {set: {"aurc": V, "share_kept": [..], "error": [..]}}``;
    ``"threshold": {"at", "sets": {set: K}} | None``, K = ``{"kept": V, "error": V}``;
    ``"targets": [{"error", "thresholds": [one per network, None: none keeps it], "sets": {set: K}}]``;
    ``"conformal": {"nominal", "fits": {task: ConformalSets}, "sets": {set: C}}``, C = ``{"per_class": {class: V},
    "coverage": V, "set_size": V, "decided": V, "empty": V, "several": V, "accuracy_decided": V, "by_subject"}``;
    Shares count the decisions of all networks alike, so a network that decides nothing adds nothing to an error.
    ``"reason"``: why there are no targets and no conformal sets, or None. ``by_subject`` is ``{"n", "n_below",
    "quartiles", "points": [[n_cells, coverage], ..]}`` over the animals with five cells or more, or None.

    Raises
    ------
    DataError
        If a validation cell is also tested.
    """
    draws = {
        name: ClusterDraws.over(parts, cells, settings)
        for name, parts in (("cv", scores.pooled), ("external", scores.external))
        if parts
    }
    reason = _why_not(scores)
    return {
        "risk_coverage": {name: _risk_block(scores, name, d) for name, d in draws.items()},
        "threshold": _threshold_block(scores, draws, settings.threshold) if settings.threshold > 0 else None,
        "targets": [] if reason else [_target_block(scores, draws, error) for error in TARGET_ERRORS],
        "conformal": None if reason else _conformal_block(scores, draws, cells, class_names, settings),
        "reason": reason,
    }


def _parts(scores: ModelScores, set_name: str) -> tuple[list[Scored], list[Scored]]:
    """Return what is averaged and the single networks."""
    return (scores.pooled, scores.tests) if set_name == "cv" else (scores.external, scores.external_folds)


def _why_not(scores: ModelScores) -> str | None:
    """Return why nothing can be fitted on validation folds, or None when it can."""
    if scores.kind == "ensemble":
        return "An ensemble has no cells that none of its networks was trained on, so nothing can be fitted for it."
    if scores.tta:
        return "Validation cells were seen in one view, these in several; fit on the entry without augmentation."
    if any(o.validation is None for o in scores.outputs):
        return "The run kept no predictions of validation folds; train it again."
    for output in scores.outputs:
        check_unseen(output)
    return None


def _decide(scores: ModelScores, set_name: str, decide: Callable[[TaskOutput, Scored], Floats]) -> list[_Decided]:
    """Let every network decide about its own cells of a set."""
    scored = [(o, o.test if set_name == "cv" else o.external) for o in scores.outputs]
    return [_Decided(part.row_n, decide(output, part)) for output, part in scored if part is not None]


def _joined(parts: Sequence[_Decided]) -> _Decided:
    return _Decided(np.concatenate([p.row_n for p in parts]), np.concatenate([p.value_nc for p in parts]))


def _sum_decided(part: _Decided, cluster_n: Ints, n_clusters: int) -> Floats:
    return sum_columns(part.value_nc, cluster_n, n_clusters)


def _confidence_and_error(scored: Scored) -> tuple[Floats, Floats]:
    wrong = scored.prob_nk.argmax(axis=1) != scored.label_n
    return scored.prob_nk.max(axis=1), wrong.astype(np.float64)


def _kept_block(draws: ClusterDraws, parts: list[_Decided], networks: list[_Decided]) -> dict[str, Any]:
    """Return the share of cells that are kept and the error among them; columns are cells, kept, kept and wrong."""
    scored = draws.score([_joined(parts)], networks, _sum_decided, shares((1, 0), (2, 1)))
    return dict(zip(("kept", "error"), scored.values(), strict=True))


def _kept_columns(scored: Scored, threshold: float) -> Floats:
    confidence, wrong = _confidence_and_error(scored)
    kept = confidence >= threshold
    return np.stack([np.ones(len(wrong)), kept, kept * wrong], axis=1)


def _threshold_block(scores: ModelScores, draws: dict[str, ClusterDraws], threshold: float) -> dict[str, Any]:
    sets = {}
    for name, d in draws.items():
        parts, folds = _parts(scores, name)
        averaged, alone = (
            [_Decided(p.row_n, _kept_columns(p, threshold)) for p in scored] for scored in (parts, folds)
        )
        sets[name] = _kept_block(d, averaged, alone)
    return {"at": threshold, "sets": sets}


def _target_block(scores: ModelScores, draws: dict[str, ClusterDraws], error: float) -> dict[str, Any]:
    """Choose each network's threshold on its validation cells and see what it does to cells it never saw."""
    found = {
        o.key: threshold_for(*_confidence_and_error(o.validation), error=error)
        for o in scores.outputs
        if o.validation is not None
    }

    def decide(output: TaskOutput, scored: Scored) -> Floats:
        threshold = found[output.key]
        return _kept_columns(scored, np.inf if threshold is None else threshold)

    return {
        "error": error,
        "thresholds": list(found.values()),
        "sets": {name: _kept_block(d, *[_decide(scores, name, decide)] * 2) for name, d in draws.items()},
    }


def _risk_block(scores: ModelScores, set_name: str, draws: ClusterDraws) -> dict[str, Any]:
    parts, folds = _parts(scores, set_name)
    curves = [curve_of(*_confidence_and_error(p)) for p in parts]
    spread = [aurc(curve_of(*_confidence_and_error(f))) for f in folds]
    grouped = draws.score(parts, [], risk_sums, Formulas(aurc_of_sums, ((0.0, 1.0),), (-1,))).values()[0]
    return {
        "aurc": {
            "mean": float(np.mean([aurc(c) for c in curves])),
            "sd_folds": float(np.std(spread, ddof=1)) if len(spread) > 1 else None,
            "ci95": grouped["ci95"],
        },
        "share_kept": SHARES.tolist(),
        "error": np.mean([risk_at(c, SHARES) for c in curves], axis=0).tolist(),
    }


# columns of the sums of conformal sets; then, per class, its cells and the covered ones
_N, _COVERED, _SIZE, _DECIDED, _EMPTY, _SEVERAL, _RIGHT, _CLASSES = range(8)


def _conformal_block(
    scores: ModelScores,
    draws: dict[str, ClusterDraws],
    cells: pd.DataFrame,
    class_names: tuple[str, ...],
    settings: EvaluateConfig,
) -> dict[str, Any]:
    fits = {
        o.key: fit_conformal(o.validation.prob_nk, o.validation.label_n, coverage=settings.conformal)
        for o in scores.outputs
        if o.validation is not None
    }

    def decide(output: TaskOutput, scored: Scored) -> Floats:
        return _conformal_columns(fits[output.key].apply(scored.prob_nk), scored.label_n)

    sets = {}
    for name, d in draws.items():
        networks = _decide(scores, name, decide)
        sets[name] = _conformal_values(d, networks, class_names)
        sets[name]["by_subject"] = _by_subject(networks, cells, settings.conformal)
    return {"nominal": settings.conformal, "fits": {str(k): f.to_dict() for k, f in fits.items()}, "sets": sets}


def _conformal_columns(in_set_nk: NDArray[np.bool_], label_n: Ints) -> Floats:
    n_classes = in_set_nk.shape[1]
    size = in_set_nk.sum(axis=1)
    covered = in_set_nk[np.arange(len(label_n)), label_n].astype(np.float64)
    truth_nk = np.eye(n_classes)[label_n]
    columns = [np.ones(len(label_n)), covered, size, size == 1, size == 0, size > 1, (size == 1) * covered]
    return np.hstack([np.stack(columns, axis=1), truth_nk, truth_nk * covered[:, None]]).astype(np.float64)


def _conformal_values(draws: ClusterDraws, networks: list[_Decided], class_names: tuple[str, ...]) -> dict[str, Any]:
    n_classes = len(class_names)
    overall = {
        "coverage": (_COVERED, _N),
        "set_size": (_SIZE, _N),
        "decided": (_DECIDED, _N),
        "empty": (_EMPTY, _N),
        "several": (_SEVERAL, _N),
        "accuracy_decided": (_RIGHT, _DECIDED),
    }
    by_class = {name: (_CLASSES + n_classes + k, _CLASSES + k) for k, name in enumerate(class_names)}
    bounds = [(0.0, float(n_classes) if name == "set_size" else 1.0) for name in [*overall, *by_class]]
    formulas = replace(shares(*overall.values(), *by_class.values()), bounds=tuple(bounds))
    values = draws.score([_joined(networks)], networks, _sum_decided, formulas).values()
    per_class = dict(zip(by_class, values[len(overall) :], strict=True))
    return dict(zip(overall, values, strict=False)) | {"per_class": per_class}


def _by_subject(networks: Sequence[_Decided], cells: pd.DataFrame, nominal: float) -> dict[str, Any] | None:
    """Return how coverage differs between animals; None where they are not known or all have few cells."""
    decisions = _joined(networks)
    subjects = cells[SUBJECT].iloc[decisions.row_n]
    if subjects.isna().any():
        return None
    columns = {
        "subject": subjects.to_numpy(dtype=str),
        "row": decisions.row_n,
        "covered": decisions.value_nc[:, _COVERED],
    }
    table = pd.DataFrame(columns).groupby("subject").agg(n=("row", "nunique"), coverage=("covered", "mean"))
    table = table[table["n"] >= MIN_OF_ANIMAL].sort_values("coverage")
    if table.empty:
        return None
    return {
        "n": len(table),
        "n_below": int((table["coverage"] < nominal).sum()),
        "quartiles": np.quantile(table["coverage"], [0.25, 0.5, 0.75]).tolist(),
        "points": [[int(n), float(coverage)] for n, coverage in table.itertuples(index=False)],
    }
