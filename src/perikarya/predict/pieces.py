"""What is predicted of a shard before it is done: pieces in OUT/done, which are joined to its part and then go.

Images are pieces of their own. Of a study a piece is what was predicted in some seconds, so that a worker that is
killed has lost no more, however slow the network, and one that is asked to stop has lost nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from perikarya.data.store import OpenStudy
from perikarya.errors import InterruptedWorkError
from perikarya.predict.outputs.cells import part_path, write_piece
from perikarya.predict.parts import MADE_FROM, metadata_of
from perikarya.predict.shards import ShardPlan
from perikarya.predict.study import Answer, joined

MAX_CELLS = 2048  # of a piece
MAX_S = 30.0  # of work that a piece holds
Table = Callable[[OpenStudy, Answer], pa.Table]


@dataclass(frozen=True)
class RowPieces:
    """The pieces of one shard of a study; each is called after the row of the shard it begins with."""

    out: Path
    plan: ShardPlan
    index: int

    def ready(self) -> list[Path]:
        """List the pieces that are there and follow from what is planned, in order and without gaps."""
        found: list[Path] = []
        key, n_rows = self.plan.key(self.index), 0
        while metadata_of(path := self._path(n_rows)).get(MADE_FROM) == key:
            found.append(path)
            n_rows += n_rows_of(path)
        return found

    def write(self, cells: OpenStudy, answers: Iterable[Answer], table_of: Table, *, begin: int) -> None:
        """Write what is said of some cells, a piece at least every ``MAX_S``.

        Parameters
        ----------
        cells
            Rows of the study.
        answers
            What is said of them, batch by batch, while it comes in; where that raises ``InterruptedWorkError``, what
            came before is written, too.
        table_of
            Makes the table of cells and answers.
        begin
            Row of the shard the cells begin with.
        """
        waiting: list[Answer] = []
        n_written, since = 0, time.monotonic()

        def flush() -> None:
            nonlocal n_written, since
            if waiting:
                answer = joined(waiting)
                table = table_of(_rows(cells, n_written, len(answer[0])), answer)
                write_piece(self._path(begin + n_written), table, {MADE_FROM: self.plan.key(self.index)})
                n_written += len(table)
                waiting.clear()
            since = time.monotonic()

        try:
            for answer in answers:
                waiting.append(answer)
                if time.monotonic() - since > MAX_S:
                    flush()
        except InterruptedWorkError:
            flush()
            raise
        flush()

    def _path(self, n_rows: int) -> Path:
        return part_path(self.out, f"{self.plan.name(self.index)}.{n_rows:09d}")


def told(answers: Iterable[Answer], n_done: int, tell: Callable[[int], object]) -> Iterator[Answer]:
    """Iterate over what is said of batches, and tell after each how many cells that makes."""
    for answer in answers:
        n_done += len(answer[0])
        yield answer
        tell(n_done)


def shard_pieces(out: Path, plan: ShardPlan, index: int) -> list[Path]:
    """List the pieces of a shard that are there."""
    if plan.study is not None:
        return RowPieces(out, plan, index).ready()
    shard = plan.shards[index]
    paths = (part_path(out, image.image_id) for image in plan.images[shard.begin : shard.end])
    return [path for path in paths if path.is_file()]


def n_rows_of(path: Path) -> int:
    """Return how many cells a piece holds; none when it just went into its part."""
    try:
        return int(pq.read_metadata(path).num_rows)
    except (OSError, pa.ArrowException):
        return 0


def _rows(cells: OpenStudy, first: int, n: int) -> OpenStudy:
    frame = cells.cells.iloc[first : first + n].reset_index(drop=True)
    return replace(cells, cells=frame, crops=cells.crops[first : first + n])
