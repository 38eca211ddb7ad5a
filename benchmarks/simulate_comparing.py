"""How often equal models are told apart, and how often the best one is missing from the set that is named.

    python benchmarks/simulate_comparing.py [--quick] [--studies 1000]

Draws studies in which cells of one animal are alike: each animal looks more or less damaged than it is, partly to all
models and partly to each model in its own way, as after training on different animals. Equal models should be told
apart in 5 % of the studies, and the best model should be in the set in at least 95 %. Prints tables and, as its last
line, one JSON object.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import pandas as pd

from perikarya.config import EvaluateConfig
from perikarya.evaluate.compare import compare_models
from perikarya.evaluate.outputs import Scored

CLASSES = ("normal", "intermediate", "pyknotic")
SETTINGS = EvaluateConfig(n_bootstrap=1000, n_permutations=1000)
LEVEL = 0.05
SKILLS = {"8 equal": [1.0] * 8, "2 best, 6 worse": [1.3] * 2 + [0.8] * 6}


def make_models(
    rng: np.random.Generator,
    *,
    skills: Sequence[float],
    n_cells: int = 300,
    n_animals: int = 8,
    n_parts: int = 1,
    shared: float = 0.6,
    own: float = 0.0,
    unit: str = "subject",
) -> tuple[dict[str, list[Scored]], pd.DataFrame]:
    """Return models "m0", "m1" ... on the same cells of three classes, and the cells.

    Parameters
    ----------
    rng
        Source of all chance.
    skills
        One per model; the error of its severity has a standard deviation of 0.9 / skill classes.
    n_cells, n_animals, n_parts
        How many; every animal has a cell, and each part is a network of its own.
    shared, own
        Standard deviation over animals of the error that all models share, and of that which each model has alone.
    unit
        ``subject``: animals are known; ``image``: images only, one per animal; ``cell``: one image per cell.
    """
    animal_n = np.sort(rng.integers(0, n_animals, n_cells))
    animal_n[:n_animals] = np.arange(n_animals)
    label_n = rng.choice(3, n_cells, p=[0.45, 0.35, 0.2]).astype(np.int64)
    names = np.array([f"sheep{a:04d}" for a in animal_n])
    cells = pd.DataFrame(
        {
            "cell_id": [f"cell{i:05d}" for i in range(n_cells)],
            "subject": names if unit == "subject" else None,
            "image_id": names if unit != "cell" else [f"image{i}" for i in range(n_cells)],
            "group": np.array(["sham", "ischemia"])[animal_n % 2],
            "label": np.array(CLASSES)[label_n],
        }
    )
    shift_s = rng.normal(0, shared, n_animals)
    models = {}
    for m, skill in enumerate(skills):
        parts = []
        own_s = rng.normal(0, own, n_animals)
        for _ in range(n_parts):
            severity_n = label_n + (shift_s + own_s)[animal_n] + rng.normal(0, 0.9 / skill, n_cells)
            prob_nk = np.exp(-2 * np.abs(severity_n[:, None] - np.arange(3)))
            order = rng.permutation(n_cells)
            prob_nk = np.round(prob_nk / prob_nk.sum(axis=1, keepdims=True), 3)
            parts.append(Scored(order, label_n[order], prob_nk[order]))
        models[f"m{m}"] = parts
    return models, cells


def told_apart(n_animals: int, *, n_studies: int, n_cells_each: int = 60, own: float = 0.5) -> dict[str, float]:
    """Return the share of studies in which two equal models differ at 5 %, by test."""
    rng = np.random.default_rng([n_animals, 1])
    found: dict[str, list[bool]] = defaultdict(list)
    for _ in range(n_studies):
        models, cells = make_models(
            rng, skills=[1.0, 1.0], n_animals=n_animals, n_cells=n_cells_each * n_animals, own=own
        )
        result = compare_models(models, cells, class_names=CLASSES, settings=SETTINGS)
        pair = {name: block["pairs"][0] for name, block in result["metrics"].items()}
        of_class = result["auc"]["normal"]["pairs"][0]
        low, high = pair["balanced_accuracy"]["ci95"]
        found["permutation, balanced accuracy"].append(pair["balanced_accuracy"]["p"] <= LEVEL)
        found["permutation, macro F1"].append(pair["macro_f1"]["p"] <= LEVEL)
        found["bootstrap interval without 0, balanced accuracy"].append(low > 0 or high < 0)
        found["DeLong over animals, macro AUC"].append(pair["macro_auc"]["p"] <= LEVEL)
        found["DeLong over animals, AUC of a class"].append(of_class["p"] <= LEVEL)
        found["DeLong over cells, AUC of a class"].append(of_class["p_cells"] <= LEVEL)
    return {name: float(np.mean(values)) for name, values in found.items()}


def best_missing(n_animals: int, skills: Sequence[float], *, n_studies: int) -> dict[str, float]:
    """Return how often the first model, one of the best, is missing from either set, and the sets' mean sizes."""
    rng = np.random.default_rng([n_animals, 2])
    missing: dict[str, list[bool]] = defaultdict(list)
    size: dict[str, list[int]] = defaultdict(list)
    for _ in range(n_studies):
        models, cells = make_models(rng, skills=skills, n_animals=n_animals, n_cells=40 * n_animals, own=0.3)
        block = compare_models(models, cells, class_names=CLASSES, settings=SETTINGS)["metrics"]["balanced_accuracy"]
        sets = {"indistinguishable": block["indistinguishable"]["set"], "confidence set": block["confidence_set"]}
        for name, members in sets.items():
            missing[name].append("m0" not in members)
            size[name].append(len(members))
    return {f"{name}, missing": float(np.mean(v)) for name, v in missing.items()} | {
        f"{name}, models": float(np.mean(v)) for name, v in size.items()
    }


def main() -> None:
    """Simulate both and print them."""
    from _common import parse_arguments, print_json, print_table

    def extend(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--studies", type=int, default=1000, help="simulated studies per line")

    arguments = parse_arguments(__doc__, extend=extend)
    n_studies = 50 if arguments.quick else arguments.studies
    apart = {n: told_apart(n, n_studies=n_studies) for n in (6, 8, 12, 20)}
    print_table(["animals", *apart[6]], [[n, *rates.values()] for n, rates in apart.items()])
    missing = {name: best_missing(12, skills, n_studies=n_studies // 2) for name, skills in SKILLS.items()}
    print_table(["models", *missing["8 equal"]], [[name, *found.values()] for name, found in missing.items()])
    print_json(
        "simulate_comparing",
        n_studies=n_studies,
        told_apart=apart,
        best_missing=missing,
    )


if __name__ == "__main__":
    main()
