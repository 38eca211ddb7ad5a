"""What works on the shards of a prediction: ``python -m perikarya.predict.worker OUT --threads N ...``."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perikarya.errors import PerikaryaError, RunError
from perikarya.launch.jobs import Crew, Job
from perikarya.launch.logs import log_start
from perikarya.launch.worker import main
from perikarya.predict.fields import PredictOptions
from perikarya.predict.inputs import FieldInput
from perikarya.predict.networks import Networks
from perikarya.predict.outputs.cells import part_path
from perikarya.predict.parts import part_is_done, shard_part, write_shard_part
from perikarya.predict.pieces import MAX_CELLS, RowPieces, n_rows_of, told
from perikarya.predict.run import FieldsWork, predict_fields
from perikarya.predict.shards import PlannedStudy, ShardPlan, read_plan
from perikarya.predict.source import open_source
from perikarya.predict.study import Answer, predicted_batches, study_table
from perikarya.predict.study_rows import open_rows
from perikarya.runs import read_json

if TYPE_CHECKING:
    import pyarrow as pa

    from perikarya.data.store import OpenStudy
    from perikarya.predict.source import Model

Progress = Callable[[int, int], None]

log = logging.getLogger(__name__)


def shard_crew(out: Path, *, threads: int) -> Crew:
    """Say how workers for the shards of a prediction are started."""
    return Crew("perikarya.predict.worker", (str(out.resolve()), "--threads", str(threads)))


def shard_job(plan: ShardPlan, index: int) -> Job:
    """Return the job of one shard; it is called as its part is."""
    return Job(plan.name(index), {"kind": "shard", "index": index})


def shard_log(out: Path, plan: ShardPlan, index: int) -> Path:
    """Where the log of a shard is kept while it goes on, and after it failed."""
    return out / "done" / f"{plan.name(index)}.log"


class ShardWorker:
    """Predicts shards; plan and model are opened with the first one and kept.

    Parameters
    ----------
    out
        The folder of the prediction.
    threads
        CPU threads of this process.
    """

    def __init__(self, out: Path, *, threads: int) -> None:
        self.out, self.threads = out, threads

    def do(self, job: dict[str, Any], progress: Progress) -> None:
        """Predict one shard and write its part; pieces that an earlier attempt finished are kept."""
        log_start()
        if not self.is_done(job):
            try:
                self._predict(int(job["index"]), progress)
            except (OSError, PerikaryaError):
                if not self.is_done(job):
                    raise
                log.warning("another process was faster; its part is the same")  # and its pieces are gone
        self.log_of(job).unlink(missing_ok=True)

    def is_done(self, job: dict[str, Any]) -> bool:
        """Tell whether the part of a shard is there and follows from what is planned."""
        return part_is_done(self.out, self._plan, int(job["index"]))

    def log_of(self, job: dict[str, Any]) -> Path:
        """Name the log of a shard; it is there while the shard is worked on, and after it failed."""
        return shard_log(self.out, self._plan, int(job["index"]))

    @cached_property
    def _plan(self) -> ShardPlan:
        return read_plan(self.out)

    @cached_property
    def _options(self) -> PredictOptions:
        return self._plan.options.as_options(threads=self.threads)

    @cached_property
    def _model(self) -> Model:
        planned = self._plan.model
        model = open_source(Path(planned.path), planned.name)
        if model.sha256 != planned.sha256:
            raise RunError(
                f"{planned.path} is not the model that {self.out} was planned with: it has changed since.\n"
                "Parts by two models would be counted together. Fix: bring the model back, or choose another --out."
            )
        return model

    @cached_property
    def _networks(self) -> Networks:
        return Networks(self._model, self._options)

    def _predict(self, index: int, progress: Progress) -> None:
        log.info("%s: %d cells", self._plan.name(index), self._plan.shards[index].n_cells)
        if self._plan.study is None:
            self._predict_images(index, progress)
        else:
            self._predict_rows(index, self._plan.study, progress)

    def _predict_images(self, index: int, progress: Progress) -> None:
        plan, shard = self._plan, self._plan.shards[index]
        planned = plan.images[shard.begin : shard.end]
        n_outlines = {image.image_id: image.n_outlines for image in planned}
        n_done = 0.0

        def tell(item: FieldInput, share: float) -> None:
            nonlocal n_done
            n_done += share * n_outlines[item.image_id]
            progress(min(round(n_done), shard.n_cells), shard.n_cells)

        formats = tuple(name for name in plan.formats if name != "csv")
        work = FieldsWork(self._model, self.out, self._options, formats)
        done = predict_fields([image.as_field() for image in planned], work, lambda: self._networks, tell)
        kept = set(done.image_ids)
        fields = [image.as_field() for image in planned if image.image_id in kept]
        write_shard_part(
            shard_part(self.out, plan, index),
            [part_path(self.out, item.image_id) for item in fields],
            self._model.manifest,
            key=plan.key(index),
            images=[_record(work, item) for item in fields],
            problems=done.problems,
        )
        for item in fields:
            part_path(self.out, item.image_id).unlink(missing_ok=True)
            work.mark_path(item).unlink(missing_ok=True)
        progress(shard.n_cells, shard.n_cells)

    def _predict_rows(self, index: int, study: PlannedStudy, progress: Progress) -> None:
        plan, shard = self._plan, self._plan.shards[index]
        pieces = RowPieces(self.out, plan, index)
        begin = sum(map(n_rows_of, pieces.ready()))
        if begin < shard.n_cells:
            self._predict_missing(pieces, Path(study.root), begin, progress)
        found = pieces.ready()
        write_shard_part(shard_part(self.out, plan, index), found, self._model.manifest, key=plan.key(index))
        for piece in found:
            piece.unlink(missing_ok=True)

    def _predict_missing(self, pieces: RowPieces, study: Path, begin: int, progress: Progress) -> None:
        """Predict the cells of a study's shard from one on, and write piece after piece."""
        shard, size = self._plan.shards[pieces.index], self._plan.options.batch_size
        rows = open_rows(study).between(shard.begin + begin, shard.end, at_once=max(1, MAX_CELLS // size) * size)

        def table_of(cells: OpenStudy, answer: Answer) -> pa.Table:
            return study_table(cells, self._model, self._options, answer[0])

        with self._networks.workers() as pool, closing(rows):
            for cells in rows:
                answers = predicted_batches(cells, self._networks, pool)
                tell = told(answers, begin, lambda n_done: progress(n_done, shard.n_cells))
                pieces.write(cells, tell, table_of, begin=begin)
                begin += len(cells.cells)


def _record(work: FieldsWork, item: FieldInput) -> dict[str, Any]:
    """Return id, files, number of cells and hashes of an image that is done."""
    mark = read_json(work.mark_path(item), what="the mark of a finished image")
    files = {"image_id": item.image_id, "image": str(item.image), "outlines": str(item.outlines)}
    return files | {"n_cells": mark["n_cells"], "sha256": mark["from"]}


def open_worker(arguments: Sequence[str]) -> ShardWorker:
    """Make the worker that ``shard_crew`` describes."""
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("--threads", type=int, required=True)
    found = parser.parse_args(arguments)
    return ShardWorker(found.out, threads=found.threads)


if __name__ == "__main__":
    main(open_worker)
