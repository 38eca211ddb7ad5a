"""Time of the numbers and of the report of a finished run, and the memory a very large study takes.

    python benchmarks/evaluate.py [--quick] [--cells 1000000]

Makes runs of random predictions, without training: 10 models x 5 folds x 6,000 cells of 20 animals, 6 regions and
3 groups, and 926 external cells; times ``evaluate_run`` (2,000 draws of animals) and the report. The peer is a loop
that resamples rows and asks scikit-learn for the same metrics, timed over a few draws of one model's predictions and
multiplied up to all draws, models, sets, regions and groups. Then evaluates one model on a million cells of 20 animals
in a process of its own and reads its peak memory. Prints a table and, as its last line, one JSON object.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from _common import REPOSITORY, parse_arguments, print_json, print_table

sys.path.insert(0, str(REPOSITORY))
from tests.fake_run import FakeRun, make_fake_run

from perikarya.config import EvaluateConfig, ExperimentConfig
from perikarya.data.store import open_study, save_tables
from perikarya.evaluate.collect import evaluate_run, write_results
from perikarya.evaluate.metrics import Floats, Ints
from perikarya.evaluate.outputs import Scored, load_outputs, model_scores
from perikarya.evaluate.quantify.assemble import quantify_run
from perikarya.evaluate.quantify.export import write_damage
from perikarya.evaluate.summary import measure
from perikarya.runs import RunFolder, TaskKey
from perikarya.schema import Predictions, Study, read_yaml

REGIONS = ("CA1", "CA3", "CA4", "DG", "PS1", "PS2")
TARGET_S, LIMIT_GIB = 30.0, 4.0
N_PEER_DRAWS = 5


def make_run(root: Path, *, n_models: int, n_cells: int) -> FakeRun:
    """Return a finished run of six regions whose probabilities, unlike those of the tests, hardly ever tie."""
    fake = make_fake_run(
        root,
        n_cells=n_cells,
        n_external=926 * n_cells // 6000,
        n_subjects=20,
        n_external_subjects=8,
        models=[f"model{i:02d}" for i in range(n_models)],
        window_px=24,
    )
    rng = np.random.default_rng(0)
    for path in (fake.run.root / "tasks").glob("*/seed*/fold*/*.parquet"):
        _untie(path, fake.opened.study.class_names, rng)
    cells = fake.opened.cells.assign(region=np.array(REGIONS)[rng.integers(0, len(REGIONS), len(fake.opened.cells))])
    save_tables(fake.opened.root, fake.opened.study.model_copy(update={"regions": REGIONS}), cells)
    evaluate = EvaluateConfig()
    config = ExperimentConfig.model_validate(fake.config.model_dump() | {"evaluate": evaluate.model_dump()})
    return replace(fake, opened=open_study(fake.opened.root), config=config)


def _untie(path: Path, class_names: tuple[str, ...], rng: np.random.Generator) -> None:
    predictions = Predictions.load(path, class_names)
    logits = np.log(np.maximum(predictions.prob_nk, 1e-3)) + rng.normal(0, 0.05, predictions.prob_nk.shape)
    prob = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    replace(predictions, prob_nk=prob.astype(np.float32)).save(path)


def time_ours(fake: FakeRun) -> tuple[float, float]:
    """Return the seconds of the numbers with the damage, written to files, and of the report with its figures."""
    from perikarya.report import build_report

    start = time.perf_counter()
    evaluation = evaluate_run(fake.run, fake.opened.cells, fake.opened.study, fake.config, tasks=fake.tasks)
    write_results(fake.run, evaluation)
    damage = quantify_run(fake.run, fake.opened.cells, fake.opened.study, fake.config, tasks=fake.tasks)
    write_damage(damage, fake.run.root)
    evaluate_s = time.perf_counter() - start
    start = time.perf_counter()
    build_report(fake.run, fake.opened, fake.config, evaluation.results)
    return evaluate_s, time.perf_counter() - start


def time_of_draws(fake: FakeRun) -> float:
    """Return the seconds that all metrics of all models, sets, regions and groups take, without reading files."""
    cells, names = fake.opened.cells, fake.opened.study.class_names
    arranged = model_scores(load_outputs(fake.run, fake.tasks, cells, names))
    start = time.perf_counter()
    for _, parts in _blocks(fake, arranged):
        measure(parts, [], cells, class_names=names, settings=fake.config.evaluate)
    return time.perf_counter() - start


def _blocks(fake: FakeRun, arranged: list[Any]) -> list[tuple[str, list[Scored]]]:
    cells = fake.opened.cells
    found = []
    for scores in arranged:
        for parts in (scores.pooled, scores.external):
            if not parts:
                continue
            found.append(("overall", parts))
            for column in ("region", "group"):
                for value in sorted(cells[column].unique()):
                    inside = [p.inside((cells[column] == value).to_numpy()) for p in parts]
                    found.append((value, inside))
    return found


def time_peer(fake: FakeRun, *, n_draws: int) -> tuple[float, int]:
    """Return the seconds a loop over scikit-learn would take for all draws, and the draws it was measured on."""
    cells, names = fake.opened.cells, fake.opened.study.class_names
    arranged = model_scores(load_outputs(fake.run, fake.tasks, cells, names))
    blocks = _blocks(fake, arranged)
    of_one = [parts for _, parts in _blocks(fake, arranged[:1])]
    rng = np.random.default_rng(0)
    start = time.perf_counter()
    for parts in of_one:
        for part in parts:
            subject = cells["subject"].to_numpy(dtype=str)[part.row_n]
            rows = {s: np.flatnonzero(subject == s) for s in np.unique(subject)}
            for _ in range(N_PEER_DRAWS):
                taken = np.concatenate([rows[s] for s in rng.choice(list(rows), len(rows))])
                _by_sklearn(part.label_n[taken], part.prob_nk[taken])
    seconds = time.perf_counter() - start
    cells_of = [sum(len(p.row_n) for p in parts) for parts in of_one]
    everything = sum(sum(len(p.row_n) for p in parts) for _, parts in blocks)
    return seconds / N_PEER_DRAWS * n_draws * everything / sum(cells_of), N_PEER_DRAWS


def _by_sklearn(label_n: Ints, prob_nk: Floats) -> None:
    from sklearn import metrics as sk

    k = prob_nk.shape[1]
    prob_nk = prob_nk / prob_nk.sum(axis=1, keepdims=True)  # float32 sums are too far from 1 for it
    predicted = prob_nk.argmax(axis=1)
    sk.precision_recall_fscore_support(label_n, predicted, labels=range(k), zero_division=0)
    sk.confusion_matrix(label_n, predicted, labels=range(k))
    sk.accuracy_score(label_n, predicted)
    sk.cohen_kappa_score(label_n, predicted)
    sk.cohen_kappa_score(label_n, predicted, weights="quadratic")
    sk.log_loss(label_n, prob_nk, labels=range(k))
    for c in range(k):
        if 0 < (label_n == c).sum() < len(label_n):
            sk.roc_auc_score(label_n == c, prob_nk[:, c])
            sk.average_precision_score(label_n == c, prob_nk[:, c])


def make_large_run(root: Path, n_cells: int) -> None:
    """Leave the files of one model's five folds over very many cells below ``root``, without crops."""
    fake = make_fake_run(root, n_cells=300, n_external=30, models=("alpha",))
    rng = np.random.default_rng(0)
    subject, label = rng.integers(0, 20, n_cells), rng.integers(0, 3, n_cells)
    names = np.array([f"s{s:03d}" for s in range(20)])
    cells = pd.DataFrame(
        {
            "cell_id": [f"cell{i:08d}" for i in range(n_cells)],
            "label": np.asarray(fake.opened.study.class_names)[label],
            "subject": names[subject],
            "image_id": np.char.add(names[subject], rng.integers(0, 500, n_cells).astype(str)),
            "region": np.array(REGIONS)[rng.integers(0, len(REGIONS), n_cells)],
            "group": np.array(fake.opened.study.groups)[subject % 3],
            "set": "development",
        }
    )
    cells.to_parquet(root / "large.parquet")
    logits = rng.normal(0, 1, (n_cells, 3)) + 2 * np.eye(3)[label]
    prob = (np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)).astype(np.float32)
    for key in fake.tasks:
        test = subject % 5 == key.fold
        for path in fake.run.task(key).glob("*.parquet"):
            path.unlink()
        Predictions(
            cell_id=cells["cell_id"].to_numpy(dtype=str)[test],
            prob_nk=prob[test],
            label_n=label[test],
            class_names=fake.opened.study.class_names,
            model=key.model,
            fold=key.fold,
            seed=key.seed,
            set="development",
        ).save(fake.run.task(key) / "predictions.parquet")


def evaluate_large_run(root: Path) -> None:
    """Evaluate that run and print wall time and peak memory."""
    config = ExperimentConfig.model_validate(read_yaml(root / "run" / "config.yaml", what="an experiment"))
    config = config.model_copy(update={"evaluate": EvaluateConfig()})
    study = Study.load(root / "study" / "study.yaml")
    start = time.perf_counter()
    cells = pd.read_parquet(root / "large.parquet")
    tasks = [TaskKey("alpha", 0, fold) for fold in range(5)]
    results = evaluate_run(RunFolder(root / "run"), cells, study, config, tasks=tasks).results
    accuracy = results["models"]["alpha"]["cv"]["accuracy"]
    print(json.dumps({"wall_s": time.perf_counter() - start, "peak_gib": _peak_gib(), "accuracy": accuracy}))


def _peak_gib() -> float:
    status = Path("/proc/self/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) / 2**20


def _extend(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--cells", type=int, default=1_000_000, help="cells of the memory measurement")
    parser.add_argument("--large-run", type=Path, help="used by this program for its own child process")


def main() -> None:
    """Measure time, then memory."""
    arguments = parse_arguments(__doc__, extend=_extend)
    n_many = 20_000 if arguments.quick else arguments.cells
    if arguments.large_run:
        evaluate_large_run(arguments.large_run)
        return
    n_models, n_cells = (2, 600) if arguments.quick else (10, 6000)
    with tempfile.TemporaryDirectory() as temporary:
        fake = make_run(Path(temporary), n_models=n_models, n_cells=n_cells)
        draws_s = time_of_draws(fake)
        print(f"draws of all metrics: {draws_s:.1f} s", file=sys.stderr)
        evaluate_s, report_s = time_ours(fake)
        print(f"evaluate {evaluate_s:.1f} s, report {report_s:.1f} s", file=sys.stderr)
        peer_s, n_peer = time_peer(fake, n_draws=fake.config.evaluate.n_bootstrap)
    with tempfile.TemporaryDirectory() as temporary:
        make_large_run(Path(temporary) / "large", n_many)
        command = [sys.executable, __file__, "--large-run", str(Path(temporary) / "large")]
        child = subprocess.run(command, check=True, capture_output=True, text=True)
    memory = json.loads(child.stdout.splitlines()[-1])
    rows = [
        [f"draws: all metrics, classes, regions, groups, {n_models} models", draws_s],
        ["evaluate (files to results.json and tables)", evaluate_s],
        ["report with its figures", report_s],
        [f"scikit-learn in a loop, from {n_peer} draws of one model", peer_s],
        ["  times as long as the draws", peer_s / draws_s],
    ]
    print_table(["what", "seconds"], rows)
    print(f"{n_many:,} cells x 1 model: {memory['wall_s']:.0f} s, peak {memory['peak_gib']:.2f} GiB of {LIMIT_GIB:g}")
    print_json(
        "evaluate",
        models=n_models,
        cells=n_cells,
        draws_s=draws_s,
        evaluate_s=evaluate_s,
        report_s=report_s,
        within_target=evaluate_s + report_s <= TARGET_S,
        peer_s=peer_s,
        peer_draws=n_peer,
        memory={"cells": n_many, **memory, "within_limit": memory["peak_gib"] <= LIMIT_GIB},
    )


if __name__ == "__main__":
    main()
