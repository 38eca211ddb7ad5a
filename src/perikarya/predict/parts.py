"""The parts of a large prediction: one Parquet file per shard, whole or not there, which together are the table."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from perikarya.predict.manifest import ModelManifest
from perikarya.predict.outputs.cells import LABELS_LEFT_OUT, write_joined
from perikarya.predict.shards import ShardPlan

PARTS = "parts"
MADE_FROM = "made_from"  # the key of the shard
IMAGES, PROBLEMS = "images", "problems"  # what became of each image, as JSON


def shard_part(out: Path, plan: ShardPlan, index: int) -> Path:
    """Where the cells of a shard are."""
    return out / PARTS / f"{plan.name(index)}.parquet"


def part_is_done(out: Path, plan: ShardPlan, index: int) -> bool:
    """Tell whether the part of a shard is there and follows from what the plan says."""
    return metadata_of(shard_part(out, plan, index)).get(MADE_FROM) == plan.key(index)


def metadata_of(path: Path) -> dict[str, str]:
    """Return the metadata of a Parquet file; nothing where it is missing or damaged."""
    try:
        found = pq.read_schema(path).metadata or {}
    except (OSError, pa.ArrowException):
        return {}
    return {key.decode(): value.decode() for key, value in found.items()}


def write_shard_part(
    path: Path,
    pieces: Sequence[Path],
    manifest: ModelManifest,
    *,
    key: str,
    images: Sequence[Mapping[str, Any]] = (),
    problems: Sequence[Sequence[str]] = (),
) -> None:
    """Join what was predicted of a shard to its part.

    Parameters
    ----------
    path
        Of the part.
    pieces
        Parquet files of its cells, in the order of the rows; one is in memory at a time, or a few small ones.
    manifest
        Of the model.
    key
        Of the shard.
    images, problems
        What became of each image; see ``images_of`` and ``problems_of``.
    """
    unknown: Counter[str] = Counter()
    n_own = 0
    for piece in pieces:
        left_out = json.loads(metadata_of(piece).get(LABELS_LEFT_OUT, "{}"))
        unknown.update(left_out.get("unknown", {}))
        n_own += left_out.get("own", 0)
    metadata = {
        MADE_FROM: key,
        LABELS_LEFT_OUT: json.dumps({"unknown": unknown, "own": n_own}),
        IMAGES: json.dumps([dict(image) for image in images], ensure_ascii=False),
        PROBLEMS: json.dumps([list(problem) for problem in problems], ensure_ascii=False),
    }
    write_joined(path, (pq.read_table(piece, partitioning=None) for piece in pieces), manifest, **metadata)


def tables_of(paths: Iterable[Path]) -> Iterator[pa.Table]:
    """Iterate over the cells of parts, one group of rows in memory at a time; the first of each has its metadata."""
    for path in paths:
        with pq.ParquetFile(path) as part:
            schema = part.schema_arrow
            yield schema.empty_table()
            for group in range(part.num_row_groups):
                yield part.read_row_group(group).replace_schema_metadata()


def problems_of(path: Path) -> list[tuple[str, str, str]]:
    """Return (image, object, reason) of what could not be predicted of a shard."""
    return [(image, key, reason) for image, key, reason in json.loads(metadata_of(path).get(PROBLEMS, "[]"))]


def images_of(path: Path) -> list[dict[str, Any]]:
    """Return id, files, number of cells and hashes of the images that were predicted of a shard."""
    return list(json.loads(metadata_of(path).get(IMAGES, "[]")))
