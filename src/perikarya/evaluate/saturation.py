"""What limits the score: too few animals, the labels, or the choice of network? One verdict by a written rule.

A plateau over networks does not tell these apart. Three measurements do, as far as anything does: the learning curve
over growing numbers of animals (``power_law``), the ceiling that the labels set (``ceiling``), and the spread between
networks beyond chance. docs/saturation.md holds the rule and what it says of phantoms whose truth is known.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any, Literal

import numpy as np
import pandas as pd

from perikarya.config import EvaluateConfig
from perikarya.errors import DataError
from perikarya.evaluate.ceiling import Ceiling, ceiling_from_joint, ceiling_from_readings
from perikarya.evaluate.drawing import Drawing
from perikarya.evaluate.label_quality import LabelQuality
from perikarya.evaluate.metrics import Floats, Ints
from perikarya.evaluate.outputs import ModelScores, Scored
from perikarya.evaluate.power_law import (
    FIXED_C,
    MIN_POINTS,
    POINTS_FOR_C,
    PowerLaw,
    draw_exponents,
    fit_power_law,
)
from perikarya.evaluate.stats import CELL, IMAGE, MIN_CLUSTERS, SUBJECT
from perikarya.evaluate.verdict import Evidence, decide

Metric = Literal["balanced_accuracy", "accuracy"]
_POINT = re.compile(r"(?P<model>.+)@\d+")  # how the points of a learning curve are called
_WORDS = {SUBJECT: "animals", IMAGE: "images", CELL: "cells"}
_N_BAND = 25  # places at which the fitted curve is given


@dataclass(frozen=True)
class _Score:
    """Score of one model (or of one point of its curve): mean over repeats, and its draws."""

    n_subjects: float | None
    n_repeats: int
    mean: float
    draws_b: Floats


def saturation_block(
    scores: Sequence[ModelScores],
    cells: pd.DataFrame,
    class_names: tuple[str, ...],
    *,
    settings: EvaluateConfig,
    labels: LabelQuality | None = None,
    readings_nr: Ints | None = None,
    metric: Metric = "balanced_accuracy",
) -> dict[str, Any] | None:
    """Say what limits the score of a run's best network.

    Parameters
    ----------
    scores
        From ``model_scores``: models trained on all animals, and points of learning curves, called '<name>@<n>'.
    cells
        The cells table of the study.
    labels
        From ``label_issues``: sets the ceiling where there are no repeated readings.
    readings_nr
        From ``ceiling.read_readings``.

    Returns
    -------
    The block ``saturation`` of ``results.json``: ``verdict`` (data, labels, networks or undecided), ``sentence``,
    ``answers`` to the three questions, ``missing``, ``curves``, ``ceiling``, ``headroom``, ``networks``. None where
    the networks share no cells.
    """
    networks = {s.base: s for s in scores if s.kind == "network" and not s.tta and (s.pooled or s.external)}
    set_name = "cv" if any(s.pooled for s in networks.values()) else "external"
    parts = {name: s.pooled if set_name == "cv" else s.external for name, s in networks.items()}
    parts = _on_common_cells({name: p for name, p in parts.items() if p}, len(cells))
    if not parts:
        return None
    some = next(iter(parts.values()))[0]
    draws = Drawing.of(np.sort(some.row_n), cells, settings)
    balanced = metric == "balanced_accuracy"
    table = {name: _score(p, networks[name], draws, balanced=balanced) for name, p in parts.items()}
    points = {name: m["model"] for name in table if (m := _POINT.fullmatch(name)) and m["model"] in table}
    full = {name: s for name, s in table.items() if name not in points and not np.isnan(s.mean)}
    if not full:
        return None
    best = max(full, key=lambda name: full[name].mean)
    curves = {
        name: _curve([table[p] for p in points if points[p] == name] + [score], draws)
        for name, score in full.items()
        if name in points.values()
    }
    ceiling = _ceiling(readings_nr, labels, cells, class_names, balanced=balanced, settings=settings)
    evidence = Evidence(
        metric=metric.replace("_", " "),
        animals=_WORDS[draws.clusters.unit],
        best=best,
        score=full[best].mean,
        curve=_curve_to_judge(curves, full),
        ceiling=ceiling.block() if ceiling else None,
        headroom=_headroom(ceiling, full[best], draws) if ceiling else None,
        networks=_networks(full, best, draws),
    )
    return {
        "metric": metric,
        "set": set_name,
        "unit": draws.clusters.unit,
        **decide(evidence),
        "curves": curves,
        "ceiling": evidence.ceiling,
        "headroom": evidence.headroom,
        "networks": evidence.networks,
    }


def _on_common_cells(parts: Mapping[str, Sequence[Scored]], n_rows: int) -> dict[str, list[Scored]]:
    """Keep the cells that every repeat of every model has predicted, so that all scores are paired."""
    rows = [p.row_n for each in parts.values() for p in each]
    common = np.zeros(n_rows, bool)
    if rows:
        common[reduce(np.intersect1d, rows)] = True
    return {name: [p.inside(common) for p in each] for name, each in parts.items()} if common.any() else {}


def _score(parts: Sequence[Scored], model: ModelScores, draws: Drawing, *, balanced: bool) -> _Score:
    """Score the parts; draws take animals, and repeats of the training, anew.

    Drawing m repeats with replacement varies too little by (m - 1) / m, which is put right. Seeds weigh alike in all
    models, as in a point of a learning curve a seed decides which animals are trained on.
    """
    k, m = parts[0].prob_nk.shape[1], len(parts)
    counted = [draws.kinds(p.row_n, p.label_n * k + p.prob_nk.argmax(axis=1), k * k) for p in parts]
    mean = float(np.mean([_of_confusion(total, balanced=balanced) for total, _ in counted]))
    drawn_bm = np.stack([_of_confusion(drawn, balanced=balanced) for _, drawn in counted], axis=1)
    draws_b = drawn_bm.mean(axis=1)
    if m > 1:
        rng = np.random.default_rng([draws.settings.seed, m])
        weight_bm = rng.multinomial(m, np.full(m, 1 / m), len(drawn_bm)) / m
        luck_b = ((drawn_bm - draws_b[:, None]) * weight_bm).sum(axis=1)
        draws_b = draws_b + luck_b * np.sqrt(m / (m - 1))
    n = [o.result.get("n_train_subjects") for o in model.outputs]
    known = [float(x) for x in n if x is not None]
    return _Score(float(np.mean(known)) if known else None, m, mean, draws_b)


def _of_confusion(flat: Floats, *, balanced: bool) -> Floats:
    """Return accuracy or balanced accuracy of confusion matrices, shape (..., n_classes ** 2), rows the truth."""
    k = round(np.sqrt(flat.shape[-1]))
    table = flat.reshape(*flat.shape[:-1], k, k)
    hits, total = np.diagonal(table, axis1=-2, axis2=-1), table.sum(-1)
    if not balanced:
        return np.asarray(hits.sum(-1) / total.sum(-1))
    return np.asarray(np.where(total > 0, hits / np.where(total > 0, total, 1.0), np.nan).mean(-1))


def _ceiling(
    readings_nr: Ints | None,
    labels: LabelQuality | None,
    cells: pd.DataFrame,
    class_names: tuple[str, ...],
    *,
    balanced: bool,
    settings: EvaluateConfig,
) -> Ceiling | None:
    if readings_nr is not None:
        if len(readings_nr) != len(cells):
            raise DataError(f"{len(readings_nr)} rows of readings and {len(cells)} cells do not belong together.")
        found = ceiling_from_readings(readings_nr, cells, len(class_names), balanced=balanced, settings=settings)
        if found is not None:
            return found
    if labels is None:
        return None
    return ceiling_from_joint(labels.joint, balanced=balanced)


def _headroom(ceiling: Ceiling, best: _Score, draws: Drawing) -> dict[str, Any]:
    """Return ceiling minus score; draw by draw, paired where both rest on the same cells."""
    paired = len(ceiling.draws_b) == len(best.draws_b) > 0
    return {
        "estimate": ceiling.estimate - best.mean,
        "ci95": draws.interval(ceiling.draws_b - best.draws_b) if paired else None,
    }


def _curve(points: list[_Score], draws: Drawing) -> dict[str, Any]:
    """Fit the learning curve of one model and read off what twice the animals would bring."""
    known = sorted((p for p in points if p.n_subjects is not None and not np.isnan(p.mean)), key=lambda p: _n(p))
    block: dict[str, Any] = {
        "points": [
            {"n_subjects": p.n_subjects, "error": 1 - p.mean, "ci95": draws.interval(1 - p.draws_b)} for p in known
        ],
        "n_repeats": min((p.n_repeats for p in known), default=0),
        "n_parameters": None,
    }
    n_m = np.array([_n(p) for p in known])
    if len(np.unique(n_m)) < MIN_POINTS or draws.clusters.n_clusters < MIN_CLUSTERS:
        return block
    error_bm = 1 - np.stack([p.draws_b for p in known], axis=1)
    error_bm = error_bm[~np.isnan(error_bm).any(axis=1)]
    weight_m = 1 / np.maximum(error_bm.var(axis=0), 1e-8)
    law = _fit(n_m, np.array([[1 - p.mean for p in known]]), weight_m, None)
    drawn = _fit(n_m, error_bm, weight_m, draws.settings.seed)
    return block | _read_off(law, drawn, n_m, draws)


def _fit(n_m: Floats, error_bm: Floats, weight_m: Floats, seed: int | None) -> PowerLaw:
    """Fit with c where there are points enough; else with c = 1/2, or in draws (``seed`` given) with a random c."""
    if len(np.unique(n_m)) >= POINTS_FOR_C:
        return fit_power_law(n_m, error_bm, weight_m)
    fixed = np.full(len(error_bm), FIXED_C)
    return fit_power_law(
        n_m, error_bm, weight_m, c_b=fixed if seed is None else draw_exponents(len(error_bm), seed=seed)
    )


def _read_off(law: PowerLaw, drawn: PowerLaw, n_m: Floats, draws: Drawing) -> dict[str, Any]:
    now = float(n_m.max())
    n_band = np.geomspace(n_m.min(), 2 * now, _N_BAND)
    ends, drawn_ends = law.error_at(np.array([now, 2 * now]))[0], drawn.error_at(np.array([now, 2 * now]))
    band = [draws.interval(column) for column in drawn.error_at(n_band).T]

    def number(estimate: float, draws_b: Floats) -> dict[str, Any]:
        return {"estimate": float(estimate), "ci95": draws.interval(draws_b)}

    return {
        "n_parameters": 3 if len(np.unique(n_m)) >= POINTS_FOR_C else 2,
        "a": number(law.a[0], drawn.a),
        "b": number(law.b[0], drawn.b),
        "c": number(law.c[0], drawn.c),
        "now": {"n_subjects": now, "error": float(ends[0])},
        "doubled": {"n_subjects": 2 * now, "error": number(ends[1], drawn_ends[:, 1])},
        "gain": number(ends[0] - ends[1], drawn_ends[:, 0] - drawn_ends[:, 1]),
        "band": [
            {"n_subjects": float(n), "error": float(e), "ci95": interval}
            for n, e, interval in zip(n_band, law.error_at(n_band)[0], band, strict=True)
        ],
    }


def _n(score: _Score) -> float:
    return score.n_subjects or 0.0


def _curve_to_judge(
    curves: Mapping[str, dict[str, Any]], full: Mapping[str, _Score]
) -> tuple[str, dict[str, Any]] | None:
    """Choose the curve of the best model among those with a fitted one."""
    fitted = [name for name, curve in curves.items() if curve["n_parameters"] is not None]
    best = max(fitted, key=lambda name: full[name].mean, default=None)
    return None if best is None else (best, curves[best])


def _networks(full: Mapping[str, _Score], best: str, draws: Drawing) -> dict[str, Any] | None:
    """Return the spread between networks: how much is beyond chance, and by how much the best leads.

    ``tau``: standard deviation of the true scores, by the method of moments: the variance of the observed scores less
    what the paired draws say of differences between networks (DerSimonian & Laird 1986 with correlated errors). ``p``:
    how often draws centred on equal scores vary as much. ``lead``: over the runner-up; ``beats_all`` where the
    interval of the lead over every other network excludes 0.
    """
    if len(full) < 2:
        return None
    mean_m = np.array([s.mean for s in full.values()])
    block: dict[str, Any] = {
        "scores": {n: {"mean": s.mean, "ci95": draws.interval(s.draws_b)} for n, s in full.items()},
        "range": float(np.ptp(mean_m)),
        "sd": float(mean_m.std(ddof=1)),
        "tau": None,
        "p": None,
        "best": best,
        "runner_up": (second := max((n for n in full if n != best), key=lambda n: full[n].mean)),
        "lead": {"estimate": full[best].mean - full[second].mean, "ci95": None},
        "beats_all": False,
    }
    if not all(len(s.draws_b) for s in full.values()):
        return block
    drawn_bm = np.stack([s.draws_b for s in full.values()], axis=1)
    drawn_bm = drawn_bm[~np.isnan(drawn_bm).any(axis=1)]
    chance_b = (drawn_bm - drawn_bm.mean(axis=0)).var(axis=1, ddof=1)
    observed = float(mean_m.var(ddof=1))
    leads = {n: draws.interval(full[best].draws_b - s.draws_b) for n, s in full.items() if n != best}
    return block | {
        "tau": float(np.sqrt(max(0.0, observed - chance_b.mean()))),
        "p": float((1 + (chance_b >= observed).sum()) / (1 + len(chance_b))),
        "lead": block["lead"] | {"ci95": leads[second]},
        "beats_all": all(ci is not None and ci[0] > 0 for ci in leads.values()),
    }
