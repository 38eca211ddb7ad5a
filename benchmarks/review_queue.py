"""How many wrong labels a person finds in the first places of the review queue, by worth alone and spread.

    python benchmarks/review_queue.py RUN [--changed 125] [--copied 20] [--copies 10]

A run of frozen heads gives held-out probabilities and features. Labels of some cells are changed by chance: these are
to be found. Then near-copies of some of the most suspicious ones are added (same probabilities, features moved by 2 %
of their length), as overlapping images bring them, and cells count once. Prints a table over three seeds and, as its
last line, a JSON object.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from _common import parse_arguments, print_json, print_table

PLACES = (50, 100, 200)
SEEDS = (1, 2, 3)
NOISE = 0.02


def unit_rows(points_nd: NDArray[Any]) -> NDArray[np.float32]:
    return np.asarray(points_nd / np.linalg.norm(points_nd, axis=1, keepdims=True), np.float32)


def queues(worth_n: NDArray[Any], points_nd: NDArray[np.float32]) -> dict[str, NDArray[np.int64]]:
    from perikarya.review.worth import N_SPREAD, by_worth, queue_order

    by = by_worth(worth_n)
    return {"worth alone": by, "spread": queue_order(worth_n, points_nd[by[:N_SPREAD]])}


def found(order: NDArray[np.int64], cell_n: NDArray[np.int64], is_wrong: NDArray[np.bool_]) -> list[int]:
    """Count the different wrong cells in the first places."""
    return [len({int(c) for c in cell_n[order[:n]] if is_wrong[c]}) for n in PLACES]


def one_seed(seed: int, opinion: Any, label_n: Any, points_nd: Any, arguments: argparse.Namespace) -> dict[str, Any]:
    from perikarya.review.worth import by_worth, worth_of

    rng = np.random.default_rng(seed)
    n, k = opinion.prob_nk.shape
    changed = rng.choice(np.flatnonzero(opinion.known & (label_n >= 0)), arguments.changed, replace=False)
    noisy_n, is_wrong = label_n.copy(), np.zeros(n, np.bool_)
    noisy_n[changed] = (label_n[changed] + rng.integers(1, k, len(changed))) % k
    is_wrong[changed] = True
    worth_n = worth_of(opinion.prob_nk, noisy_n)
    suspicious = [row for row in by_worth(worth_n) if is_wrong[row]][: arguments.copied]
    copied = np.repeat(suspicious, arguments.copies)
    cell_m = np.concatenate([np.arange(n), copied])
    moved = points_nd[copied] + rng.normal(0, NOISE, (len(copied), points_nd.shape[1])) / np.sqrt(points_nd.shape[1])
    crowded = np.concatenate([points_nd, unit_rows(moved)])
    scenes = {"as it is": (np.arange(n), points_nd), "with near-copies": (cell_m, crowded)}
    return {
        scene: {name: found(order, cells, is_wrong) for name, order in queues(worth_n[cells], points).items()}
        for scene, (cells, points) in scenes.items()
    }


def main() -> None:
    def extend(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("run", type=Path, metavar="RUN")
        parser.add_argument("--changed", type=int, default=125, help="labels that are changed")
        parser.add_argument("--copied", type=int, default=20, help="wrong cells that get near-copies")
        parser.add_argument("--copies", type=int, default=10, help="near-copies of each")

    arguments = parse_arguments(__doc__, extend=extend)
    from perikarya.review.cells import open_review
    from perikarya.review.components import principal_components
    from perikarya.review.sources import open_source

    table = open_review(arguments.run, reader="nobody")
    features = table.features()
    if features is None:
        raise SystemExit(f"{arguments.run} has no cached features.")
    opinion = open_source(arguments.run, study=None, blind=False).opinions[0]
    points_nd = unit_rows(principal_components(features, progress=lambda _share: None))
    seeds = {seed: one_seed(seed, opinion, table.codes, points_nd, arguments) for seed in SEEDS}
    print_table(
        ["scene, queue, seed", *(f"first {n}" for n in PLACES)],
        [
            (f"{scene}, {name}, {seed}", *counts)
            for seed, scenes in seeds.items()
            for scene, by in scenes.items()
            for name, counts in by.items()
        ],
    )
    print_json("review_queue", changed=arguments.changed, places=PLACES, found=seeds)


if __name__ == "__main__":
    main()
