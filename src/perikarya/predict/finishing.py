"""Sum up a prediction in shards: ``python -m perikarya.predict.finishing OUT``, as the last job of a cluster does.

The parts are the table of cells and stay as they are; what is written beside them is small. One group of rows is in
memory at a time, however many cells there are.
"""

from __future__ import annotations

import logging
import shutil
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from perikarya.data.store import open_study
from perikarya.errors import PerikaryaError
from perikarya.predict.manifest import ModelManifest
from perikarya.predict.outputs import Finished
from perikarya.predict.outputs.cells import csv_writer
from perikarya.predict.outputs.record import write_record
from perikarya.predict.outputs.summary import Summary, write_confusion, write_problems, write_summary
from perikarya.predict.parts import PARTS, images_of, part_is_done, problems_of, shard_part, tables_of
from perikarya.predict.shards import ShardPlan, read_plan
from perikarya.predict.source import open_source
from perikarya.predict.study import TRAINED_ON_IT
from perikarya.runs import logging_to, remove_parts

log = logging.getLogger(__name__)

PREDICT_LOG = "predict.log"
NOT_DONE = "this shard was not predicted; the same command goes on with it"


@dataclass(frozen=True)
class ShardsDone:
    """What a prediction in shards came to.

    Attributes
    ----------
    finished
        The tables beside the parts, and the counts.
    missing
        Shards that are not done.
    n_images
        Images that were predicted; 0 of a study.
    problems
        Images and outlines that were not predicted.
    """

    plan: ShardPlan
    finished: Finished
    missing: tuple[int, ...]
    n_images: int
    problems: tuple[tuple[str, str, str], ...]


def finish_shards(out: Path) -> ShardsDone:
    """Write ``summary.csv``, ``problems.csv``, ``predict.json``, ``confusion.csv`` and, where asked, ``cells.csv``.

    Raises
    ------
    PerikaryaError
        If the plan or the model cannot be read.
    """
    plan = read_plan(out)
    manifest = open_source(Path(plan.model.path), plan.model.name).manifest
    done = [i for i in range(len(plan.shards)) if part_is_done(out, plan, i)]
    missing = tuple(sorted(set(range(len(plan.shards))).difference(done)))
    parts = [shard_part(out, plan, i) for i in done]
    _warn_of_own_study(plan, manifest)
    finished = _write_tables(out, parts, manifest, as_csv="csv" in plan.formats)
    problems = [*plan.problems, *((f"{PARTS}/{plan.name(i)}", "", NOT_DONE) for i in missing)]
    problems += [problem for path in parts for problem in problems_of(path)]
    write_problems(out / "problems.csv", problems)
    records = [_record(path) for path in parts]
    n_images = sum(record["n_images"] for record in records)
    write_record(
        out / "predict.json",
        manifest=manifest,
        model_sha256=plan.model.sha256,
        options=_described(plan, manifest),
        images=[] if plan.study is None else [{"study": plan.study.root}],
        summary=finished.summary,
        n_problems=len(problems),
        shards={"n_shards": len(plan.shards), "n_missing": len(missing), "n_images": n_images, "parts": records},
    )
    if not missing:
        shutil.rmtree(out / "done", ignore_errors=True)  # of workers that died between a part and its pieces
        for folder in (out, out / PARTS):
            remove_parts(folder)
    return ShardsDone(plan, finished, missing, n_images, tuple(problems))


def _write_tables(out: Path, parts: Sequence[Path], manifest: ModelManifest, *, as_csv: bool) -> Finished:
    """Read all cells once, and write what is told of them together."""
    summary, paths = Summary(manifest.class_names), [out / "summary.csv"]
    with ExitStack() as stack:
        write_csv = None
        if as_csv:
            paths.append(out / "cells.csv")
            write_csv = stack.enter_context(csv_writer(paths[-1], manifest))
        for table in tables_of(parts):
            summary.add(table)
            if write_csv is not None:
                write_csv(table)
    write_summary(out / "summary.csv", summary)
    if summary.n_labelled:
        paths.append(out / "confusion.csv")
        write_confusion(paths[-1], summary)
    else:
        (out / "confusion.csv").unlink(missing_ok=True)  # of an earlier call with other files
    return Finished(tuple(paths), summary)


def _warn_of_own_study(plan: ShardPlan, manifest: ModelManifest) -> None:
    """Say so in the log where a model was trained on the very study it predicts."""
    if plan.study is None or plan.study.n_cells != manifest.study.n_cells:
        return
    if open_study(Path(plan.study.root)).data_hash == manifest.study.data_hash:
        log.warning(TRAINED_ON_IT, manifest.name)


def _record(path: Path) -> dict[str, Any]:
    return {
        "part": f"{PARTS}/{path.name}",
        "n_cells": pq.read_metadata(path).num_rows,
        "n_images": len(images_of(path)),
    }


def _described(plan: ShardPlan, manifest: ModelManifest) -> dict[str, Any]:
    """Return the options in the words ``predict.json`` has for them."""
    options = plan.options.model_dump(mode="json")
    options["class_map"] = [f"{left}={right}" for left, right in plan.options.class_map]
    options["n_networks"] = len(manifest.networks) if plan.options.ensemble else 1
    return options | {"formats": list(plan.formats)}


def main(arguments: Sequence[str]) -> int:
    """Sum up the prediction in a folder; the exit code is 1 where a shard is missing."""
    out = Path(arguments[0])
    try:
        with logging_to(out / PREDICT_LOG, logger="perikarya"):
            done = finish_shards(out)
            n_cells = sum(counts.n_k.sum() for counts in done.finished.summary.of("all").values())
            log.info("%d cells; %d of %d shards are missing", n_cells, len(done.missing), len(done.plan.shards))
    except PerikaryaError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return int(bool(done.missing))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
