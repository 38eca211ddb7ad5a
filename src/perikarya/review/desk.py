"""One open review: the table, the log, the maps and the pictures, put together into the answers the page gets.

All methods may be called by several threads; none knows of HTTP.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from perikarya.data.corrections import CorrectionLog, Entry, NewEntry, Seen, check_reader
from perikarya.errors import ConfigError, DataError, UnknownNameError
from perikarya.review.cells import ReviewTable, open_review
from perikarya.review.embedding import Maps
from perikarya.review.fields import Fields
from perikarya.review.heat import heat_png
from perikarya.review.neighbours import Neighbours
from perikarya.review.network_work import ExplainWork
from perikarya.review.pictures import crop_png
from perikarya.review.readings import Readings
from perikarya.review.schemas import Correction, Query, Reading, RoundWish
from perikarya.review.writing_back import Format, export_corrections
from perikarya.runs import write_text
from perikarya.schema import safe_name

_HEAT_SIDE_PX = 256  # the page enlarges it smoothly


class Desk:
    """What one ``perikarya review`` works on.

    Parameters
    ----------
    table
        The cells.
    reader
        Who sits before the page, unless the page says another name.
    """

    def __init__(self, table: ReviewTable, *, reader: str) -> None:
        self.table, self.reader = table, check_reader(reader)
        self._log = CorrectionLog(table.opened.root)
        self._maps = Maps(table.opened, table.features(), table.features_name)
        self._neighbours = Neighbours(self._maps)
        self._explainer = None if table.run is None else ExplainWork(table.run, table.opened)
        self._readings = Readings(table.opened)
        self._mutex = threading.Lock()  # entries reach the table in the order of the log
        self._n_taken_in = 0
        self._catch_up()

    @cached_property
    def fields(self) -> Fields:
        """The images the cells come from."""
        return Fields(self.table.opened)

    def warm_up(self) -> None:
        """Begin with what takes longer than a person waits for; it goes on in the background."""
        self.table.warm_up()
        self._maps.warm_up()

    def close(self) -> None:
        """End all work; nothing that a person did waits to be written."""
        self.table.close()
        self._maps.close()
        if self._explainer is not None:
            self._explainer.close()
        self.fields.close()

    def info(self, reader: str) -> dict[str, Any]:
        """Return ``StudyInfo``."""
        self._catch_up()
        return self.table.info() | {
            "reader": reader,
            "has_features": self._maps.has_features,
            "has_fields": self.fields.count > 0,
        }

    def query(self, query: Query) -> dict[str, Any]:
        """Return ``QueryAnswer``."""
        self._catch_up()
        return self.table.query(query)

    def cells(self, rows: Sequence[int]) -> dict[str, Any]:
        """Return the ``Cell`` of each row."""
        self._catch_up()
        return {"cells": self.table.cells(rows)}

    def detail(self, row: int) -> dict[str, Any]:
        """Return ``CellDetail``."""
        self._check_row(row)
        self._catch_up()
        near = self._neighbours.of(row)
        cells = self.table.cells([other for other, _ in near])
        neighbours = [{"cell": cell, "distance": distance} for cell, (_, distance) in zip(cells, near, strict=True)]
        return self.table.detail(row) | {
            "neighbours": neighbours,
            "neighbours_note": self._neighbours.note(),
            "field": self.fields.index_of(row),
        }

    def column(self, key: str) -> dict[str, Any]:
        """Return ``ColumnValues``."""
        self._catch_up()
        return self.table.column(key)

    def crop(self, data_hash: str, row: int, *, outlined: bool) -> bytes:
        """Return a crop as PNG; ``data_hash`` must be the study's, for the picture is kept by it."""
        self._check_row(row)
        if data_hash != self.table.opened.data_hash:
            raise UnknownNameError("version of the study", data_hash[:100], [self.table.opened.data_hash])
        return crop_png(self.table.opened.read_crops(np.array([row]))[0], outlined=outlined)

    def explain(self, row: int, *, model: str, about: int) -> bytes:
        """Return where a model looked in a cell, as PNG; one at a time, for it takes all cores."""
        self._check_row(row)
        if self._explainer is None:
            raise DataError("There is no run here, so no model can be explained.\nFix: start 'perikarya review RUN'.")
        return heat_png(self._explainer.explain(model, row, about), side_px=_HEAT_SIDE_PX)

    def field(self, index: int) -> dict[str, Any]:
        """Return ``Field``."""
        self._catch_up()
        return self.fields.describe(index, self.table.codes)

    def tile(self, index: int, level: int, x: int, y: int) -> bytes:
        """Return a tile of a field as JPEG."""
        return self.fields.tile(index, level, x, y)

    def map(self, method: str) -> dict[str, Any]:
        """Return ``MapState``."""
        return self._maps.state(method)

    def start_map(self, method: str) -> dict[str, Any]:
        """Begin to make a map in the background and return its ``MapState``."""
        return self._maps.start(method)

    def correct(self, items: Sequence[Correction], *, by: str) -> dict[str, Any]:
        """Write clicks to the log, wait until they are on the disk, and return ``CorrectionsAnswer``."""
        self._catch_up()
        entries = [self._entry_of(item) for item in items]
        self._check_undone(entries)
        written = self._log.append(entries, by=by)
        self._catch_up()
        said = zip(items, written, strict=True)
        conflicts = {item.id: other for item, entry in said if (other := self._unseen(item, entry)) is not None}
        return {
            "entries": self._as_dicts(written),
            "conflicts": {key: entry for key, other in conflicts.items() for entry in self._as_dicts([other])},
            **self.table.progress(),
        }

    def changes(self, since: int) -> dict[str, Any]:
        """Return ``Changes``: what came into the log behind the first ``since`` entries."""
        self._catch_up()
        return {"entries": self._as_dicts(self._log.read(since)), **self.table.progress()}

    def rounds(self, reader: str) -> dict[str, Any]:
        """Return the blind rounds of a reader; those of others stay unseen."""
        return {"rounds": [found.as_dict() for found in self._readings.rounds(reader)]}

    def start_round(self, wish: RoundWish, *, reader: str) -> dict[str, Any]:
        """Draw the cells of a new ``Round``."""
        started = self._readings.start(reader, n_cells=wish.n_cells, n_repeats=wish.n_repeats, seed=wish.seed)
        return started.as_dict()

    def read(self, name: str, reading: Reading, *, reader: str) -> dict[str, Any]:
        """Write down what was read at one place of a round, and return the ``Round``."""
        said = self._readings.record(name, reader=reader, place=reading.place, code=reading.code, click=reading.id)
        return said.as_dict()

    def agreement(self) -> dict[str, Any]:
        """Return ``Agreement``."""
        return self._readings.agreement()

    def export(self, out: Path, format_: Format) -> str:
        """Write the outlines with their present classes into a new folder, and return what to call it."""
        done = export_corrections(self.table.opened, self._log.read(), out, formats=(format_,))
        if done.notes:
            write_text(out / "notes.txt", "\n".join(done.notes) + "\n")
        return f"{safe_name(self.table.opened.study.name)}-{format_}"

    def _entry_of(self, item: Correction) -> NewEntry:
        self._check_row(item.row)
        (cell,) = self.table.cells([item.row])
        return NewEntry(
            id=item.id,
            kind=item.kind,
            cell_id=cell["cell_id"],
            old=item.old,
            new=self._class_of(item) if item.kind == "label" else None,
            seen=None if item.seen is None else Seen(item.seen.model, _shares(item.seen.prob)),
            undoes=item.undoes,
        )

    def _class_of(self, item: Correction) -> str | None:
        if item.new is not None and item.new not in self.table.label_names:
            raise UnknownNameError("class", item.new[:100], self.table.label_names)
        return item.new

    def _check_undone(self, entries: Sequence[NewEntry]) -> None:
        """Raise ``ConfigError`` for an undo of what is not there, which sending it again would not mend."""
        sent: set[str] = set()
        for entry in entries:
            sent |= {entry.id} if entry.kind != "undo" else set()
            said = {e.id for e in self.table.history(entry.cell_id) if e.kind != "undo"} | sent
            if entry.kind == "undo" and entry.undoes not in said:
                raise ConfigError(
                    "What is to be taken back is not in the log, or is an undo.\nFix: give the cell its label again."
                )

    def _unseen(self, item: Correction, entry: Entry) -> Entry | None:
        """Return what gave the cell another label than the page showed when the key was pressed, if anything did."""
        history = self.table.history(entry.cell_id)
        earlier = [e for e in history if e.seq < entry.seq and e.kind != "skip"]
        return earlier[-1] if earlier and earlier[-1].new != item.old else None

    def _as_dicts(self, entries: Iterable[Entry]) -> list[dict[str, Any]]:
        return [entry.as_dict() | {"row": self.table.row_of(entry.cell_id)} for entry in entries]

    def _catch_up(self) -> None:
        """Let the table know what came into the log meanwhile, from this process or another."""
        with self._mutex:
            entries = self._log.read(self._n_taken_in)
            self.table.take_in(entries)
            self._n_taken_in += len(entries)

    def _check_row(self, row: int) -> None:
        if not 0 <= row < self.table.n_cells:
            raise UnknownNameError("row", str(row)[:30], [f"0 to {self.table.n_cells - 1}"])


def _shares(prob: Sequence[float]) -> tuple[float, ...]:
    """Return probabilities within 0 and 1, which sums of 32-bit numbers may miss by their last digit."""
    within = np.clip(prob, 0, 1)
    if not np.allclose(within, prob, atol=1e-5):
        raise ConfigError("What was seen of a model are no probabilities: they must lie between 0 and 1.")
    return tuple(within.tolist())


def open_desk(path: Path, *, study: Path | None, reader: str, blind: bool) -> Desk:
    """Open a study or a run for review.

    Parameters
    ----------
    path, study
        See ``open_review``.
    reader
        Who looks.
    blind
        Leave out everything a model says.
    """
    reader = check_reader(reader)
    return Desk(open_review(path, study=study, reader=reader, blind=blind), reader=reader)
