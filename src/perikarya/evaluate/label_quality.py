"""Labels that disagree with what networks say of cells they were not trained on: confident learning.

Northcutt, Jiang & Chuang 2021 (J. Artif. Intell. Res. 70:1373, arXiv:1911.00068), written anew. A class counts as
confidently seen in a cell when its probability reaches the mean probability that cells *recorded* as this class get.
Cells confidently seen as another class than the recorded one are flagged, and their share, scaled to the number of
labels, estimates how many labels are wrong. The method cannot tell a slip of the grader from a cell that truly looks
like another class; docs/label_quality.md measures both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from perikarya.config import EvaluateConfig
from perikarya.errors import DataError
from perikarya.evaluate.drawing import Drawing
from perikarya.evaluate.metrics import Floats, Ints, check_scores
from perikarya.evaluate.outputs import ModelScores, Scored
from perikarya.runs import write_text

LABEL_ISSUES = "label_issues.csv"
N_TOP = 24  # cells in results.json and in the gallery
UNSURE = -1  # no class reaches its threshold
_ABOUT = ("subject", "region", "group", "image_id", "set")


@dataclass(frozen=True)
class Joint:
    """How many cells are recorded as one class and probably are of another.

    Attributes
    ----------
    share_kk
        Shape (n_classes, n_classes), sums to 1: rows are recorded classes, columns the likely ones.
    draws_bkk
        The same of every bootstrap draw; no draws where there are fewer than three animals.
    drawing
        What was drawn, and how.
    """

    share_kk: Floats
    draws_bkk: Floats
    drawing: Drawing

    @property
    def noise_rate(self) -> float:
        """Share of all labels that are probably wrong."""
        return float(1.0 - np.trace(self.share_kk))

    @property
    def likely_given_recorded_kk(self) -> Floats:
        """Shares of the likely classes among the cells recorded as each; rows sum to 1, NaN without cells."""
        return _rows_to_one(self.share_kk)

    @property
    def recorded_given_likely_kk(self) -> Floats:
        """The noise matrix: how cells that are likely of each class were recorded; rows sum to 1."""
        return _rows_to_one(self.share_kk.T)


@dataclass(frozen=True)
class LabelQuality:
    """What the networks of a run say of the recorded labels.

    ``table`` has one row per cell whose label is not the most likely class or that is flagged, the most suspicious
    first; ``block`` is ready for ``results.json``.
    """

    table: pd.DataFrame
    joint: Joint
    block: dict[str, Any]


def out_of_sample(scores: Sequence[ModelScores], *, leave_out: Sequence[str] = ()) -> dict[str, list[Scored]]:
    """Collect the predictions each model made of cells it was not trained on, with all its views where it has them.

    Out-of-fold predictions of the development set; the external set's where no model was cross-validated.
    ``leave_out`` names models not worth asking, such as points of a learning curve.
    """
    networks = {s.base: s for s in scores if s.kind == "network" and s.base not in leave_out}  # views come last
    pooled = {name: s.pooled for name, s in networks.items() if s.pooled}
    return pooled or {name: s.external for name, s in networks.items() if s.external}


def label_issues(
    by_model: Mapping[str, Sequence[Scored]],
    cells: pd.DataFrame,
    class_names: tuple[str, ...],
    *,
    settings: EvaluateConfig,
) -> LabelQuality:
    """Find labels that are probably wrong.

    Parameters
    ----------
    by_model
        Out-of-sample predictions of each model (``out_of_sample``), one entry per seed. They are averaged over seeds,
        then over models; a cell that some did not see is judged by the others.
    cells
        The cells table of the study, to which the rows of the predictions refer.
    settings
        Bootstrap draws, confidence and seed.

    Returns
    -------
    Table, joint distribution of recorded and likely classes, and the block of ``results.json``.

    Raises
    ------
    DataError
        If there are no predictions.
    """
    if not any(by_model.values()):
        raise DataError(
            "No out-of-sample predictions of labelled cells: a network's opinion of its own training cells says "
            "nothing of their labels.\nFix: train with cross-validation (cv.scheme: kfold)."
        )
    opinions = {name: _mean(parts) for name, parts in by_model.items() if parts}
    mean = _mean(list(opinions.values()))
    threshold_k = class_thresholds(mean.label_n, mean.prob_nk)
    confident_n = confident_classes(mean.prob_nk, threshold_k)
    covered = cells.iloc[mean.row_n]
    drawing = Drawing.of(mean.row_n, cells, settings)
    joint = estimate_joint(mean.label_n, confident_n, len(class_names), drawing=drawing)
    table = _table(mean, confident_n, covered, class_names, _votes(mean, opinions))
    block = _block(table, joint, covered, class_names, threshold_k)
    return LabelQuality(table, joint, {"models": list(opinions), **block})


def _mean(parts: Sequence[Scored]) -> Scored:
    """Average over the predictions each cell has."""
    row_n, at = np.unique(np.concatenate([p.row_n for p in parts]), return_inverse=True)
    total = np.zeros((len(row_n), parts[0].prob_nk.shape[1]))
    np.add.at(total, at, np.concatenate([p.prob_nk for p in parts]))
    label_n = np.empty(len(row_n), np.int64)
    label_n[at] = np.concatenate([p.label_n for p in parts])
    return Scored(row_n, label_n, total / np.bincount(at)[:, None])


def class_thresholds(label_n: Ints, prob_nk: Floats) -> Floats:
    """Return the mean probability of each class over the cells recorded as it, shape (n_classes,).

    Infinite for a class without cells: nothing is confidently of a class nobody has recorded.
    """
    check_scores(label_n, prob_nk)
    n_classes = prob_nk.shape[1]
    n_k = np.bincount(label_n, minlength=n_classes)
    own = np.bincount(label_n, prob_nk[np.arange(len(label_n)), label_n], n_classes)
    return np.where(n_k > 0, own / np.maximum(n_k, 1), np.inf)


def confident_classes(prob_nk: Floats, threshold_k: Floats) -> Ints:
    """Return the most probable of the classes that reach their threshold, shape (n_cells,); ``UNSURE`` where none."""
    reached = np.where(prob_nk >= threshold_k, prob_nk, -1.0)
    return np.where(reached.max(axis=1) >= 0, reached.argmax(axis=1), UNSURE).astype(np.int64)


def estimate_joint(label_n: Ints, confident_n: Ints, n_classes: int, *, drawing: Drawing) -> Joint:
    """Estimate the joint distribution of recorded and likely classes, with bootstrap draws over animals.

    The draws keep the thresholds of the sample: means over a whole class move little, and the counts they lead to
    carry the uncertainty (docs/label_quality.md compares the two).
    """
    kind_n = label_n * (n_classes + 1) + np.where(confident_n == UNSURE, n_classes, confident_n)
    total, drawn = drawing.kinds(drawing.row_n, kind_n, n_classes * (n_classes + 1), paired=False)
    return Joint(_calibrated(total, n_classes), _calibrated(drawn, n_classes), drawing)


def _calibrated(count: Floats, n_classes: int) -> Floats:
    """Scale confident counts, shape (..., n_classes * (n_classes + 1)), to all labels of each recorded class.

    A recorded class in which no cell is confidently anything is taken to be right.
    """
    table = count.reshape(*count.shape[:-1], n_classes, n_classes + 1)
    n_label = table.sum(-1, keepdims=True)
    sure = table[..., :n_classes]
    n_sure = sure.sum(-1, keepdims=True)
    share = np.where(n_sure > 0, sure / np.where(n_sure > 0, n_sure, 1.0), np.eye(n_classes))
    return np.asarray(share * n_label / n_label.sum(-2, keepdims=True))


def _rows_to_one(share_kk: Floats) -> Floats:
    total = share_kk.sum(-1, keepdims=True)
    return np.where(total > 0, share_kk / np.where(total > 0, total, 1.0), np.nan)


def label_scores(label_n: Ints, prob_nk: Floats) -> tuple[Floats, Floats]:
    """Return two scores of each label, shape (n_cells,) each; the lower, the more suspicious.

    Self-confidence: the probability of the recorded class. Normalised margin: (1 + that - the largest of the others)
    / 2 (both in Northcutt et al.).
    """
    n, n_classes = prob_nk.shape
    own = prob_nk[np.arange(n), label_n]
    others = prob_nk.copy()
    others[np.arange(n), label_n] = -np.inf
    rest = others.max(axis=1) if n_classes > 1 else np.zeros(n)
    return own, (1.0 + own - rest) / 2.0


def _votes(mean: Scored, opinions: Mapping[str, Scored]) -> tuple[Ints, Ints]:
    """Return how many models judged each cell and how many of them saw another class than the recorded one."""
    n_asked, n_against = np.zeros(len(mean.row_n), np.int64), np.zeros(len(mean.row_n), np.int64)
    for opinion in opinions.values():
        at = np.searchsorted(mean.row_n, opinion.row_n)
        n_asked[at] += 1
        n_against[at] += opinion.prob_nk.argmax(axis=1) != opinion.label_n
    return n_asked, n_against


def _table(
    mean: Scored,
    confident_n: Ints,
    covered: pd.DataFrame,
    class_names: tuple[str, ...],
    votes: tuple[Ints, Ints],
) -> pd.DataFrame:
    """Rank the doubtful cells: flagged ones first, then by self-confidence, the better of the two scores (docs)."""
    likely_n = mean.prob_nk.argmax(axis=1)
    flagged_n = (confident_n != UNSURE) & (confident_n != mean.label_n)
    suggested_n = np.where(flagged_n, confident_n, likely_n)
    own, margin = label_scores(mean.label_n, mean.prob_nk)
    doubtful = np.flatnonzero(suggested_n != mean.label_n)
    order = doubtful[np.lexsort((own[doubtful], ~flagged_n[doubtful]))]
    names = np.asarray(class_names, dtype=object)
    columns: dict[str, Any] = {
        "rank": np.arange(1, len(order) + 1),
        "cell_id": covered["cell_id"].to_numpy(dtype=str)[order],
        "flagged": np.where(flagged_n[order], "yes", "no"),
        "label": names[mean.label_n[order]],
        "suggested": names[suggested_n[order]],
        "classes_apart": np.abs(suggested_n - mean.label_n)[order],
        "self_confidence": own[order],
        "margin": margin[order],
        "n_models": votes[0][order],
        "n_models_disagree": votes[1][order],
    }
    columns |= {f"prob_{name}": mean.prob_nk[order, k] for k, name in enumerate(class_names)}
    columns |= {name: covered[name].to_numpy(dtype=object)[order] for name in _ABOUT}
    columns["row"] = mean.row_n[order]
    return pd.DataFrame(columns)


def write_label_table(path: Path, table: pd.DataFrame) -> None:
    """Write the ranked table as CSV, probabilities and scores to four places."""
    write_text(path, table.drop(columns="row").to_csv(index=False, float_format="%.4f", lineterminator="\n"))


def read_label_table(path: Path) -> pd.DataFrame:
    """Read what ``write_label_table`` wrote, names as text whatever they look like; the column ``row`` is not there."""
    names = ("cell_id", "flagged", "label", "suggested", *_ABOUT)
    return pd.read_csv(path, dtype=dict.fromkeys(names, "string"), keep_default_na=False, na_values=[""])


def _block(
    table: pd.DataFrame,
    joint: Joint,
    covered: pd.DataFrame,
    class_names: tuple[str, ...],
    threshold_k: Floats,
) -> dict[str, Any]:
    flagged = table[table["flagged"] == "yes"]
    noise_b = 1.0 - np.trace(joint.draws_bkk, axis1=-2, axis2=-1)
    n_label, n_flagged = covered["label"].value_counts(), flagged["label"].value_counts()
    wrong_k, wrong_bk = _wrong_share(joint.share_kk), _wrong_share(joint.draws_bkk)
    return {
        "n_cells": len(covered),
        "unit": joint.drawing.clusters.unit,
        "n_flagged": len(flagged),
        "noise_rate": {
            "estimate": joint.noise_rate,
            "ci95": joint.drawing.interval(noise_b),
        },
        "likely_given_recorded": _listed(joint.likely_given_recorded_kk),
        "recorded_given_likely": _listed(joint.recorded_given_likely_kk),
        "per_class": {
            name: {
                "n": int(n_label.get(name, 0)),
                "n_flagged": int(n_flagged.get(name, 0)),
                "threshold": float(threshold_k[k]) if np.isfinite(threshold_k[k]) else None,
                "wrong": {
                    "estimate": None if np.isnan(wrong_k[k]) else float(wrong_k[k]),
                    "ci95": joint.drawing.interval(wrong_bk[:, k]),
                },
            }
            for k, name in enumerate(class_names)
        },
        "top": [_shown(row) for row in flagged.head(N_TOP).to_dict("records")],
    }


def _wrong_share(share_kk: Floats) -> Floats:
    """Return the share of wrong labels among those of each recorded class, shape (..., n_classes)."""
    return np.asarray(1.0 - np.diagonal(_rows_to_one(share_kk), axis1=-2, axis2=-1))


def _listed(matrix: NDArray[np.float64]) -> list[list[float | None]]:
    return [[None if np.isnan(x) else float(x) for x in row] for row in matrix]


def _shown(row: dict[Any, Any]) -> dict[str, Any]:
    """Make a row of the table ready for JSON, its probabilities by class."""
    kept = {k: None if pd.isna(v) else v for k, v in row.items() if not k.startswith("prob_")}
    kept["prob"] = {k.removeprefix("prob_"): round(float(v), 4) for k, v in row.items() if k.startswith("prob_")}
    return kept
