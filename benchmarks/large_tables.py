"""Predictions of millions of cells: written in parts, summed up, quantified; time, peak memory and bytes of each step.

    python benchmarks/large_tables.py [--rows 20000000] [--parts 40] [--in-memory 2000000] [--out FOLDER] [--keep]

The cells are made up (60 animals in 3 groups, 4 regions, 300 cells an image, 3 classes, one cell in 200 labelled), the
files are not: they are written by what ``perikarya predict --shards`` writes its parts with. Every step is a process of
its own, whose peak memory the kernel tells. Named peer: pandas, which reads the columns it needs whole and takes the
mean of each animal and region, without checks, correction or intervals. ``--in-memory`` quantifies fewer rows, once
from a table that was loaded whole, once from parts, for the ratio. Prints tables and, as its last line, a JSON object.
"""

from __future__ import annotations

import argparse
import importlib
import json
import shutil
import tempfile
from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

from _common import measured_step, parse_arguments, print_json, print_table

CLASS_NAMES = ("normal", "intermediate", "pyknotic")
REGIONS = ("CA1", "CA3", "DG", "cortex")
GROUPS = ("sham", "ischemia", "ischemia+hypothermia")
N_ANIMALS, CELLS_PER_IMAGE, ONE_IN_LABELLED = 60, 300, 200
ROWS_AT_ONCE = 100_000
COUNTED = ["subject", "region", *(f"prob_{name}" for name in CLASS_NAMES)]


def some_cells(first: int, n: int, *, n_rows: int) -> Any:
    """Make up rows ``first`` to ``first + n`` of ``n_rows``, image after image, as a table of ``cells_schema``."""
    import numpy as np
    import pyarrow as pa

    from perikarya.predict.outputs.cells import cells_schema

    rng = np.random.default_rng([7, first])
    row_n = np.arange(first, first + n)
    image_n = row_n // CELLS_PER_IMAGE
    animal_n = row_n * N_ANIMALS // n_rows
    group_n = animal_n % len(GROUPS)
    label_n = (rng.random(n) * 3 + 0.4 * np.array([0, 2, 1])[group_n]).astype(int).clip(0, 2)
    logit_nk = -0.5 * ((label_n + 0.6 * rng.standard_normal(n))[:, None] - np.arange(3)) ** 2 / 0.36
    prob_nk = np.exp(logit_nk - logit_nk.max(axis=1, keepdims=True))
    prob_nk = (prob_nk / prob_nk.sum(axis=1, keepdims=True)).astype(np.float32)
    hexadecimal = np.frombuffer(rng.bytes(8 * n).hex().encode(), "S16").astype(str)
    x_px, y_px = rng.uniform(0, 4000, (2, n)).round(2)
    area_px = rng.integers(200, 900, n)
    columns = {
        "cell_id": hexadecimal,
        "key": (row_n % CELLS_PER_IMAGE).astype(str),
        "image_id": np.char.add("slide", (image_n).astype(str)),
        "subject": np.char.add("animal", animal_n.astype(str)),
        "region": np.array(REGIONS)[image_n % len(REGIONS)],
        "group": np.array(GROUPS)[group_n],
        "set": pa.nulls(n, pa.string()),
        "class": np.array(CLASS_NAMES)[prob_nk.argmax(axis=1)],
        **{f"prob_{name}": prob_nk[:, k] for k, name in enumerate(CLASS_NAMES)},
        "confidence": prob_nk.max(axis=1),
        "abstained": prob_nk.max(axis=1) < 0.5,
        "label": pa.array(np.array(CLASS_NAMES)[label_n], mask=row_n % ONE_IN_LABELLED > 0),
        "area_px": area_px,
        "x_px": x_px,
        "y_px": y_px,
        "area_um2": area_px * 0.25,
        "x_um": x_px * 0.5,
        "y_um": y_px * 0.5,
    }
    return pa.table(columns, schema=cells_schema(CLASS_NAMES))


def write(out: Path, n_rows: int, n_parts: int) -> None:
    """Write the parts, and the plan they are checked against."""
    from perikarya.predict.manifest import ModelManifest
    from perikarya.predict.outputs.cells import write_joined

    manifest = ModelManifest.model_construct(name="made up", class_names=CLASS_NAMES)
    (out / "parts").mkdir(parents=True)
    borders = [n_rows * i // n_parts for i in range(n_parts + 1)]
    for i, (start, end) in enumerate(pairwise(borders)):
        steps = range(start, end, ROWS_AT_ONCE)
        tables = (some_cells(s, min(ROWS_AT_ONCE, end - s), n_rows=n_rows) for s in steps)
        write_joined(out / "parts" / f"part-{i:05d}-of-{n_parts:05d}.parquet", tables, manifest)
    (out / "shards.json").write_text(json.dumps({"shards": [{}] * n_parts}))


def summarise(out: Path) -> None:
    """Write ``summary.csv``, as the end of a prediction in shards does."""
    from perikarya.predict.outputs.summary import Summary, write_summary
    from perikarya.predict.parts import tables_of

    summary = Summary(CLASS_NAMES)
    for table in tables_of(sorted((out / "parts").glob("*.parquet"))):
        summary.add(table)
    write_summary(out / "summary.csv", summary)


def quantify(out: Path) -> None:
    """Do what ``perikarya quantify OUT`` does."""
    from perikarya.cli.quantifying import quantify_command

    quantify_command(out)


def quantify_loaded(out: Path) -> None:
    """Quantify a table that pandas has read whole; no figures are drawn."""
    import pandas as pd

    from perikarya.evaluate.quantify.assemble import quantify_predictions
    from perikarya.evaluate.quantify.export import write_damage
    from perikarya.settings import QuantifyConfig

    block = quantify_predictions(pd.read_parquet(out / "parts"), settings=QuantifyConfig())
    write_damage(block, out / "loaded_damage")


def peer(out: Path) -> None:
    """Take the means of animals and regions with pandas alone."""
    import pandas as pd

    frame = pd.read_parquet(out / "parts", columns=COUNTED)
    frame.groupby(["subject", "region"], dropna=False)[COUNTED[2:]].mean().to_csv(out / "pandas.csv")


def nothing(_: Path) -> None:
    """Import what quantifying needs, and end."""
    importlib.import_module("perikarya.cli.quantifying")


STEPS = {f.__name__: f for f in (summarise, quantify, quantify_loaded, peer, nothing)}


def bytes_per_row(out: Path, n_rows: int) -> dict[str, float]:
    """Return how many bytes each column takes per row in the first part, compressed."""
    import pyarrow.parquet as pq

    file = pq.ParquetFile(min((out / "parts").glob("*.parquet"))).metadata
    total: dict[str, float] = {}
    for group in range(file.num_row_groups):
        for i in range(file.num_columns):
            column = file.row_group(group).column(i)
            total[column.path_in_schema] = total.get(column.path_in_schema, 0.0) + column.total_compressed_size
    on_disk = sum(path.stat().st_size for path in (out / "parts").glob("*.parquet"))
    return {"all": on_disk / n_rows} | {name: size / file.num_rows for name, size in total.items()}


def study(out: Path, n_rows: int, n_parts: int, steps: Sequence[str]) -> dict[str, Any]:
    """Write so many rows and measure every step on them."""
    found: dict[str, Any] = {"write": measured("write", out, rows=n_rows, parts=n_parts)}
    found |= {step: measured(step, out) for step in steps}
    found["bytes_per_row"] = bytes_per_row(out, n_rows)
    return found


measured = partial(measured_step, __file__)


def arguments_of() -> argparse.Namespace:
    """Read the command line."""

    def extend(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--rows", type=int, default=20_000_000)
        parser.add_argument("--parts", type=int, default=40)
        parser.add_argument("--in-memory", type=int, default=2_000_000, help="rows that are also loaded whole")
        parser.add_argument("--out", type=Path, help="a folder that does not exist yet; default: a temporary one")
        parser.add_argument("--keep", action="store_true", help="do not remove the parts")
        parser.add_argument("--step", choices=["write", *STEPS], help=argparse.SUPPRESS)

    return parse_arguments(__doc__, extend=extend)


def main() -> None:
    """Do one step, or measure all."""
    arguments = arguments_of()
    if arguments.step == "write":
        write(arguments.out, arguments.rows, arguments.parts)
    elif arguments.step:
        STEPS[arguments.step](arguments.out)
    else:
        measure(arguments)


def measure(arguments: argparse.Namespace) -> None:
    """Run every step, for many cells and for few, and print what it took."""
    n_rows, n_small = (300_000, 100_000) if arguments.quick else (arguments.rows, arguments.in_memory)
    folder = arguments.out or Path(tempfile.mkdtemp(prefix="large_tables_"))
    sizes = {"large": n_rows} | ({"small": n_small} if n_small else {})
    found = {}
    for name, n in sizes.items():
        steps = [*STEPS] if name == "small" else [s for s in STEPS if s != "quantify_loaded"]
        found[name] = study(folder / name, n, arguments.parts, steps)
        if not arguments.keep:
            shutil.rmtree(folder / name / "parts")
        rows = [
            (step, *(found[name][step][key] for key in ("wall_s", "cpu_s", "peak_mib"))) for step in ("write", *steps)
        ]
        print(f"\n{n:,} cells in {arguments.parts} parts")
        print_table(["step", "wall s", "CPU s", "peak MiB"], rows)
        print_table(["column", "bytes per cell"], list(found[name]["bytes_per_row"].items()))
    if not arguments.keep and arguments.out is None:
        shutil.rmtree(folder)
    print_json("large_tables", rows=sizes, parts=arguments.parts, **found)


if __name__ == "__main__":
    main()
