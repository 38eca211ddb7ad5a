"""The cells of a review page: opening, filters, sorting, text, a correction, the order of review; time and memory.

    python benchmarks/review_table.py [--cells 100000] [--clusters] [--out FOLDER]

A made-up study and a made-up run of three models, five folds and two seeds, as the tests make them, with windows of
8 px: nothing but the search for near-duplicates (``--clusters``, minutes) looks at them. Every question is asked 20
times; the median and the longest are shown. Each of the two (study alone, run) is a process of its own, whose peak
memory the kernel tells; that of importing alone stands beside it. Prints a table and, as its last line, a JSON object.
"""

from __future__ import annotations

import argparse
import importlib
import json
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from _common import REPOSITORY, measured_step, parse_arguments, print_json, print_table

sys.path.append(str(REPOSITORY))  # for the made-up run of the tests

MODELS, SEEDS, N_FOLDS = ("alpha", "beta", "gamma"), (0, 1), 5
TIMES = 20

QUERIES: dict[str, dict[str, Any]] = {
    "all cells": {},
    "one class": {"filters": [{"column": "label", "values": ["pyknotic"]}]},
    "disagreement, by confidence": {
        "filters": [{"column": "disagrees", "values": ["yes"]}],
        "sort": [{"column": "confidence", "descending": True}],
    },
    "all, by subject and area": {"sort": [{"column": "subject"}, {"column": "area_px", "descending": True}]},
    "review queue": {"filters": [{"column": "reviewed", "values": ["no"]}], "sort": [{"column": "queue"}]},
    "text": {"text": "sheep01"},
    "four filters": {
        "filters": [
            {"column": "region", "values": ["CA1", "CA3"]},
            {"column": "group", "values": ["sham"]},
            {"column": "set", "values": ["development"]},
            {"column": "area_px", "min": 50, "max": 500},
        ]
    },
}
OF_MODELS = {"disagrees", "confidence"}


def write(out: Path, n_cells: int) -> None:
    """Make the study and the run, with descriptors of pictures that differ."""
    import numpy as np
    from tests.fake_run import make_fake_run

    from perikarya.data.phash import N_BYTES
    from perikarya.data.store import open_study, save_tables

    n_external = n_cells // 5
    fake = make_fake_run(
        out,
        n_cells=n_cells - n_external,
        n_external=n_external,
        models=MODELS,
        seeds=SEEDS,
        n_folds=N_FOLDS,
        window_px=8,
    )
    rng = np.random.default_rng(0)
    cells = fake.opened.cells.assign(crop_phash=[rng.bytes(N_BYTES).hex() for _ in range(n_cells)])
    cells["area_px"] = rng.integers(40, 900, n_cells)
    save_tables(out / "study", fake.opened.study, cells)
    open_study(out / "study")


def nothing(_: Path) -> None:
    """Import what the page needs, and end."""
    importlib.import_module("perikarya.review.cells")
    importlib.import_module("perikarya.review.opinions")


def run(out: Path) -> None:
    """Ask a run."""
    ask(out / "run", out / "asked-run.json")


def study(out: Path) -> None:
    """Ask a study alone."""
    ask(out / "study", out / "asked-study.json")


def clusters(out: Path) -> None:
    """Look for near-duplicates."""
    from perikarya.data.store import open_study
    from perikarya.review.clusters import clusters_of_study

    clusters_of_study(open_study(out / "study"))


def ask(path: Path, result: Path) -> None:
    """Open a study or a run, ask it everything, and write how long it took, in seconds."""
    start = time.perf_counter()
    from perikarya.review.cells import open_review
    from perikarya.review.schemas import Query

    found = {"import": [time.perf_counter() - start]}
    start = time.perf_counter()
    table = open_review(path, reader="nobody")
    found["open"] = [time.perf_counter() - start]
    found["info"] = timed(table.info)
    for name, question in QUERIES.items():
        if table.run is None and OF_MODELS & set(json.dumps(question).replace('"', " ").split()):
            continue
        query = Query.model_validate(question)
        found[f"query: {name}"] = timed(partial(table.query, query))
    found["describe 200 cells"] = timed(partial(table.cells, range(1000, 1200)))
    found["column of values"] = timed(partial(table.column, "label"))
    found["one correction"] = corrections(table)
    found["spread the review queue"] = timed(table._later.spread_queue, times=1)
    result.write_text(json.dumps(found))


def corrections(table: Any) -> list[float]:
    """Let one correction after another count; return seconds."""
    from perikarya.data.corrections import Entry

    def entry(seq: int) -> Entry:
        cell = table.opened.cells.iloc[seq]
        new = table.label_names[seq % len(table.label_names)]
        return Entry(
            seq, f"{seq:036d}", "2026-11-23T13:00:00Z", "x", "label", cell["cell_id"], cell["label"], new, None, None
        )

    entries = iter([entry(seq) for seq in range(1, TIMES + 2)])
    return timed(lambda: table.take_in([next(entries)]))


def timed(question: Callable[[], object], *, times: int = TIMES) -> list[float]:
    """Return how long each of some calls took, in seconds, after one that is not counted where there are several."""
    if times > 1:
        question()
    wall_s = []
    for _ in range(times):
        start = time.perf_counter()
        question()
        wall_s.append(time.perf_counter() - start)
    return wall_s


STEPS = {f.__name__: f for f in (nothing, study, run, clusters)}
measured = partial(measured_step, __file__)


def arguments_of() -> argparse.Namespace:
    """Read the command line."""

    def extend(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--cells", type=int, default=100_000)
        parser.add_argument("--clusters", action="store_true", help="also look for near-duplicates: minutes")
        parser.add_argument("--out", type=Path, help="a folder that does not exist yet; default: a temporary one")
        parser.add_argument("--step", choices=["write", *STEPS], help=argparse.SUPPRESS)

    return parse_arguments(__doc__, extend=extend)


def main() -> None:
    """Do one step, or measure all."""
    arguments = arguments_of()
    if arguments.step == "write":
        write(arguments.out, arguments.cells)
    elif arguments.step:
        STEPS[arguments.step](arguments.out)
    else:
        measure(arguments)


def measure(arguments: argparse.Namespace) -> None:
    """Run every step and print what it took."""
    n_cells = 10_000 if arguments.quick else arguments.cells
    out = arguments.out or Path(tempfile.mkdtemp(prefix="review_table_"))
    measured("write", out, cells=n_cells)
    steps = {name: measured(name, out) for name in STEPS if name != "clusters" or arguments.clusters}
    asked = {name: json.loads((out / f"asked-{name}.json").read_text()) for name in ("study", "run")}
    if arguments.out is None:
        shutil.rmtree(out)
    print(f"{n_cells} cells, {len(MODELS)} models x {N_FOLDS} folds x {len(SEEDS)} seeds\n")
    print_table(
        ["process", "wall (s)", "CPU (s)", "peak memory (MiB)"],
        [(name, *(step[key] for key in ("wall_s", "cpu_s", "peak_mib"))) for name, step in steps.items()],
    )
    print()
    in_ms = {name: {q: (1e3 * statistics.median(s), 1e3 * max(s)) for q, s in of.items()} for name, of in asked.items()}
    print_table(
        ["question", "study: median (ms)", "longest", "run: median (ms)", "longest"],
        [(q, *in_ms["study"].get(q, (None, None)), *in_ms["run"][q]) for q in in_ms["run"]],
    )
    print_json("review_table", n_cells=n_cells, processes=steps, ms=in_ms)


if __name__ == "__main__":
    main()
