"""The assumption behind every correction, put to the test where labels allow: the network errs there as here."""

from __future__ import annotations

from typing import Any

import numpy as np

from perikarya.evaluate.metrics import Floats
from perikarya.evaluate.quantify.fractions import ends
from perikarya.evaluate.quantify.reference import ReferenceSums
from perikarya.evaluate.stats import MIN_CLUSTERS, draw_counts


def compare_errors(
    reference: ReferenceSums, target: ReferenceSums, *, soft: bool, n_draws: int, confidence: float, seed: int
) -> dict[str, Any]:
    """Compare per class what labelled target animals and the reference give the true class.

    Parameters
    ----------
    reference, target
        Labelled cells of different animals.
    soft
        Compare mean probabilities of the true class; otherwise recall.
    n_draws, confidence, seed
        Of the bootstrap over animals; the confidence is shared out over the classes (Bonferroni), so that one sound
        check in twenty, not one class in twenty, raises an alarm.

    Returns
    -------
    Ready for JSON: per class ``reference``, ``target``, ``difference`` (target minus reference) and its ``ci95``, None
    for fewer than three animals with the class on either side. ``differs`` names the classes whose interval excludes 0.
    """
    here, here_bk = _diagonal(reference, soft=soft, n_draws=n_draws, seed=seed)
    there, there_bk = _diagonal(target, soft=soft, n_draws=n_draws, seed=seed + 1)
    n_units = np.minimum((reference.n_sk > 0).sum(axis=0), (target.n_sk > 0).sum(axis=0))
    shared_out = 1 - (1 - confidence) / len(here)
    classes, differs = [], []
    for k, name in enumerate(reference.class_names):
        n = int(n_units[k]) if n_units[k] >= MIN_CLUSTERS else 1
        found = ends((there_bk - here_bk)[:, k], confidence=shared_out, n_clusters=n)
        if found is not None and not found[0] <= 0 <= found[1]:
            differs.append(name)
        difference = None if np.isnan(there[k] - here[k]) else float(there[k] - here[k])
        shares = {"reference": _number(here[k]), "target": _number(there[k])}
        classes.append({"class": name, **shares, "difference": difference, "ci95": found})
    return {
        "measure": "mean probability of the true class" if soft else "recall",
        "n_animals": len(target.names),
        "n_cells": target.n_cells,
        "classes": classes,
        "differs": differs,
    }


def _diagonal(reference: ReferenceSums, *, soft: bool, n_draws: int, seed: int) -> tuple[Floats, Floats]:
    """Return what each true class is given, shape (k,), and in draws of animals, shape (n_draws, k); NaN without."""
    right_sk = np.diagonal(reference.outputs(soft=soft).sum_skk, axis1=1, axis2=2)
    n_sk = reference.n_sk
    counts_bs = draw_counts(len(n_sk), n_draws=n_draws, seed=seed)
    with np.errstate(invalid="ignore"):
        return right_sk.sum(axis=0) / n_sk.sum(axis=0), (counts_bs @ right_sk) / (counts_bs @ n_sk)


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
