"""What people said of the cells of a study: an append-only, attributed log, and the labels that follow from it.

The table of cells is never changed; ``present_labels`` and ``data.relabel`` put the log on top of it.
"""

from __future__ import annotations

import threading
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter, ValidationError

from perikarya.data.journal import Journal, sentence_of
from perikarya.errors import DataError
from perikarya.runs import now
from perikarya.schema import SCHEMA_VERSION

LOG_PATH = Path("corrections", "log.jsonl")  # inside a study
MAX_READER = 100  # characters of a person's name
_MAX_NAME = 500  # characters of a class or a cell_id
_MAX_CLASSES = 1000

Kind = Literal["label", "undo", "skip"]


def without_controls(text: str) -> str:
    """Return a text as it is; raise ``ValueError`` when it holds control characters."""
    if not text.isprintable() and any(unicodedata.category(c) == "Cc" for c in text):
        raise ValueError("holds control characters")
    return text


def _printable(text: str) -> str:
    if not text.isprintable() or text != text.strip():
        raise ValueError("must be printable, without spaces at its ends")
    return text


Name = Annotated[str, Field(min_length=1, max_length=_MAX_NAME), AfterValidator(without_controls)]
Reader = Annotated[str, Field(min_length=1, max_length=MAX_READER), AfterValidator(_printable)]
ClickId = Annotated[str, Field(pattern=r"^[0-9a-f-]{36}$")]
Time = Annotated[str, Field(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(\+00:00|Z)$")]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
STRICT = ConfigDict(extra="forbid", strict=True, revalidate_instances="always")


@dataclass(frozen=True, slots=True)
class Seen:
    """What a person saw a model say: ``prob`` in the order of the study's classes."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    model: Name
    prob: Annotated[tuple[Share, ...], Field(max_length=_MAX_CLASSES, strict=False)]


@dataclass(frozen=True, slots=True)
class NewEntry:
    """A click to be written.

    Attributes
    ----------
    id
        A UUID made by the page, so that a click that is sent twice is written once.
    kind
        ``label`` gives the cell the class ``new`` (also the one it had: the person confirms it; also none: the cell is
        of no class); ``skip`` says that the person looked and did not decide; ``undo`` takes back the entry ``undoes``
        of the same cell.
    cell_id
        The cell.
    old
        What the page showed as its class; None: no class.
    new
        The class; None: no class, or a skip. That of an undo follows from the log.
    seen
        What the person saw a model say; None where nothing was shown.
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    id: ClickId
    kind: Kind
    cell_id: Name
    old: Name | None = None
    new: Name | None = None
    seen: Seen | None = None
    undoes: ClickId | None = None


@dataclass(frozen=True, slots=True)
class Entry:
    """A line of the log: a click with its place in the log, its time (ISO 8601, UTC) and the person's name.

    ``new`` of an undo is the class the cell goes back to.
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    seq: int
    id: ClickId
    at: Time
    by: Reader
    kind: Kind
    cell_id: Name
    old: Name | None
    new: Name | None
    seen: Seen | None
    undoes: ClickId | None

    def as_dict(self) -> dict[str, Any]:
        """Return the entry as the service sends it, without the row."""
        said = {field.name: getattr(self, field.name) for field in fields(self)}
        said["seen"] = None if self.seen is None else {"model": self.seen.model, "prob": list(self.seen.prob)}
        return {"schema_version": SCHEMA_VERSION, **said}


_ENTRY: TypeAdapter[Entry] = TypeAdapter(Entry)
_NEW_ENTRY: TypeAdapter[NewEntry] = TypeAdapter(NewEntry)
_READER: TypeAdapter[str] = TypeAdapter(Reader)


def check_reader(name: str) -> str:
    """Return a person's name without spaces around it; raise ``DataError`` when it cannot stand in a log."""
    try:
        return _READER.validate_python(name.strip())
    except ValidationError:
        raise DataError(
            f"The name of a reader must have 1 to {MAX_READER} characters, all printable.\n"
            "Every label is kept with the person who gave it. Fix: name yourself with --reader NAME."
        ) from None


class Standing:
    """Which labels stand after some entries: later ones count, those that were undone do not.

    Undoing takes back one entry, whoever wrote it: where a later label of the cell stands, that stays, else the one
    before it is back, and without any the cell has again what was shown when it was labelled first. An undo is final;
    who regrets it labels the cell again.
    """

    def __init__(self) -> None:
        self._labels: dict[str, list[Entry]] = {}  # cell_id -> label entries that stand
        self._first: dict[str, str | None] = {}  # cell_id -> class before its first label entry
        self._kinds: dict[str, tuple[Kind, str]] = {}  # id of an entry -> its kind and cell

    def take_in(self, entry: Entry) -> None:
        """Add the next entry of the log."""
        self._kinds[entry.id] = (entry.kind, entry.cell_id)
        if entry.kind == "label":
            self._first.setdefault(entry.cell_id, entry.old)
            self._labels.setdefault(entry.cell_id, []).append(entry)
        elif entry.kind == "undo":
            standing = self._labels.get(entry.cell_id, [])
            standing[:] = [e for e in standing if e.id != entry.undoes]

    def check_undo(self, cell_id: str, undoes: str | None) -> None:
        """Raise ``DataError`` when there is no entry of that cell that could be taken back."""
        kind, of_cell = self._kinds.get(undoes or "", (None, None))
        if kind is None or of_cell != cell_id:
            raise DataError(f"There is no entry {undoes} of cell {cell_id} that could be taken back.")
        if kind == "undo":
            raise DataError(f"Entry {undoes} is an undo, and that is final.\nFix: give the cell its label again.")

    def after_undo(self, cell_id: str, undoes: str | None, *, shown: str | None) -> str | None:
        """Return the class a cell has once an entry is taken back; ``shown`` where nobody ever labelled it."""
        standing = [e for e in self._labels.get(cell_id, []) if e.id != undoes]
        return standing[-1].new if standing else self._first.get(cell_id, shown)

    def labels(self) -> dict[str, str | None]:
        """Return the class of every cell that was ever labelled."""
        return {cell: (stand[-1].new if stand else self._first[cell]) for cell, stand in self._labels.items()}

    def last_of(self, cell_id: str) -> Entry | None:
        """Return the label entry that holds for a cell: somebody gave it that class, and nobody undid it."""
        standing = self._labels.get(cell_id)
        return standing[-1] if standing else None


class CorrectionLog:
    """``corrections/log.jsonl`` of a study. Several processes, and threads of this one, may write at once.

    Parameters
    ----------
    root
        The study's folder.
    """

    def __init__(self, root: Path) -> None:
        self.path = root / LOG_PATH
        self._journal = Journal(self.path, root=root, what="the log of corrections", adapter=_ENTRY)
        self._mutex = threading.Lock()
        self._forget()

    def append(self, items: Sequence[NewEntry], *, by: str) -> list[Entry]:
        """Write clicks and wait until they are on the disk.

        Parameters
        ----------
        items
            In their order. Clicks whose id is in the log already are not written again.
        by
            Who made them.

        Returns
        -------
        The entry of each item, of those written before too.

        Raises
        ------
        DataError
            If an item does not fit (none is written then), or the log is damaged or cannot be written to.
        """
        reader = check_reader(by)
        checked = [_checked(item) for item in items]
        with self._mutex:
            try:
                self._journal.append(lambda entries: self._records(checked, reader, entries))
            except BaseException:
                self._forget()  # what was not written must not be remembered
                raise
            return [self._by_id[item.id] for item in checked]

    def read(self, since: int = 0) -> list[Entry]:
        """Return the entries behind the first ``since``, also those that other processes wrote meanwhile."""
        return self._journal.read(since)

    def verify(self) -> str:
        """Read the whole log again, check that its past is unchanged, and return its SHA-256 (64 hex digits)."""
        return self._journal.verify()

    def lines(self, n: int) -> bytes:
        """Return the first ``n`` entries as they are in the file."""
        return self._journal.lines(n)

    def _forget(self) -> None:
        self._by_id: dict[str, Entry] = {}
        self._standing = Standing()
        self._n_known = 0

    def _records(self, items: Sequence[NewEntry], by: str, entries: Sequence[Entry]) -> list[dict[str, Any]]:
        """Return what is to be written of some clicks, given all entries there are."""
        for entry in entries[self._n_known :]:
            self._remember(entry)
        self._n_known = len(entries)
        records = []
        for item in items:
            if item.id in self._by_id:
                _check_same(item, self._by_id[item.id])
                continue
            self._n_known += 1
            entry = Entry(self._n_known, at=now(), by=by, **self._completed(item))
            self._remember(entry)
            records.append(entry.as_dict())
        return records

    def _completed(self, item: NewEntry) -> dict[str, Any]:
        """Return the fields of a click, with the class that an undo brings back."""
        values = {field.name: getattr(item, field.name) for field in fields(item)}
        if item.kind == "undo":
            self._standing.check_undo(item.cell_id, item.undoes)
            values["new"] = self._standing.after_undo(item.cell_id, item.undoes, shown=item.old)
        return values

    def _remember(self, entry: Entry) -> None:
        self._by_id[entry.id] = entry
        self._standing.take_in(entry)


def present_labels(cells: pd.DataFrame, entries: Iterable[Entry]) -> tuple[pd.Series, NDArray[np.bool_]]:
    """Return the labels of a table of cells with a log on top of them.

    Parameters
    ----------
    cells
        The table of a study; only ``cell_id`` and ``label`` are looked at.
    entries
        Of its log, in their order.

    Returns
    -------
    labels
        Shape (n_cells,), text, null where a cell has no class; the index of ``cells``.
    reviewed
        Shape (n_cells,): whether a person confirmed or changed the label and nobody undid it. A skip does not count.

    Raises
    ------
    DataError
        If an entry is of a cell that the table does not have.
    """
    standing = Standing()
    for entry in entries:
        standing.take_in(entry)
    given = standing.labels()
    ids = pd.Index(list(given), dtype="string")
    rows = pd.Index(cells["cell_id"]).get_indexer(ids)
    if (rows < 0).any():
        raise DataError(
            f"The log speaks of cell {ids[rows < 0][0]!r}, which this study does not have; it is of another study.\n"
            "Fix: keep a log in the folder of the study it was written in."
        )
    labels = cells["label"].astype("string").copy()
    labels.iloc[rows] = pd.Index(list(given.values()), dtype="string")
    reviewed = np.zeros(len(cells), bool)
    reviewed[rows] = [standing.last_of(cell_id) is not None for cell_id in given]
    return labels, reviewed


def _checked(item: NewEntry) -> NewEntry:
    try:
        checked = _NEW_ENTRY.validate_python(item)
    except ValidationError as error:
        raise DataError(f"A correction does not fit: {sentence_of(error)}.") from None
    if checked.kind == "skip" and checked.new is not None:
        raise DataError("A correction of kind 'skip' has no class: the person did not decide.")
    if (checked.kind == "undo") != (checked.undoes is not None):
        raise DataError("A correction names the entry it takes back if it is an undo, and only then.")
    return checked


def _check_same(item: NewEntry, entry: Entry) -> None:
    """Raise ``DataError`` when two different clicks have one id."""
    same = (item.kind, item.cell_id, item.undoes) == (entry.kind, entry.cell_id, entry.undoes)
    if not same or (item.kind == "label" and item.new != entry.new):
        raise DataError(f"The id {item.id} belongs to entry {entry.seq}, which says something else.")
