"""Predictions in shards that take no time: plans of tiny fields or a tiny study, and workers that do them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from perikarya.predict.fields import PredictOptions
from perikarya.predict.folder import ModelFolder
from perikarya.predict.inputs import FieldInput, FoundFields
from perikarya.predict.parts import shard_part
from perikarya.predict.planning import Wish, plan_images, plan_study
from perikarya.predict.shards import ShardPlan, settle_plan
from perikarya.predict.worker import ShardWorker, shard_job


def wish_for(model: ModelFolder, *, n_shards: int | None = 2, formats: Sequence[str] = (), **options: Any) -> Wish:
    return Wish(model, model.root, None, PredictOptions(**options), tuple(formats), n_shards, at_once=1)


def planned_study(root: Path, model: ModelFolder, out: Path, **wish: Any) -> ShardPlan:
    return settle_plan(plan_study(root, wish_for(model, **wish)), out)


def planned_images(
    items: Sequence[FieldInput], model: ModelFolder, out: Path, *, problems: Sequence[tuple[str, str]] = (), **wish: Any
) -> ShardPlan:
    found = FoundFields(tuple(items), tuple(problems))
    return settle_plan(plan_images(found, wish_for(model, **wish), known={}, show=False), out)


def do_all(plan: ShardPlan, out: Path, indices: Sequence[int] | None = None) -> ShardWorker:
    """Do shards in this process, one worker for all."""
    worker = ShardWorker(out, threads=1)
    for index in range(len(plan.shards)) if indices is None else indices:
        worker.do(payload(plan, index), lambda _done, _total: None)
    return worker


def payload(plan: ShardPlan, index: int) -> dict[str, Any]:
    """What a worker gets of a shard, after it went through JSON."""
    job = shard_job(plan, index)
    return dict(json.loads(json.dumps({"id": job.id, **job.payload})))


def parts_of(plan: ShardPlan, out: Path) -> list[Path]:
    return [shard_part(out, plan, i) for i in range(len(plan.shards))]


def joined_parts(plan: ShardPlan, out: Path) -> pa.Table:
    """All cells, in the order of the parts."""
    tables = [pq.read_table(path).replace_schema_metadata() for path in parts_of(plan, out)]
    return pa.concat_tables(tables).combine_chunks()
