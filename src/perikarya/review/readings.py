"""Blind readings: people read cells again without a label or a model in sight, and how far they agree.

The experts' own agreement is the ceiling of every model. A round is a file with its cells in the order they are read
and a file that only grows with what was read: ``readings/<round>.json`` and ``readings/<round>.jsonl`` of the study.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from perikarya.data.corrections import STRICT, ClickId, Name, Reader, Time, check_reader
from perikarya.data.journal import Journal, sentence_of
from perikarya.data.store import OpenStudy
from perikarya.errors import ConfigError, DataError
from perikarya.review.agreement import agreement_of
from perikarya.review.rounds import SKIPPED, Round
from perikarya.runs import now, write_json
from perikarya.schema import safe_name

READINGS_FOLDER = "readings"  # inside a study
MAX_ROUND_BYTES = 64 * 2**20
_MAX_CELLS = 200_000  # of a round


@dataclass(frozen=True, slots=True)
class Plan:
    """What is read in a round: cells by their ids, in order; some come twice."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    schema_version: Literal[1]
    round: Annotated[str, Field(pattern=r"^[\w.-]{1,160}$")]
    reader: Reader
    started: Time
    seed: int
    cells: Annotated[tuple[Name, ...], Field(min_length=1, max_length=_MAX_CELLS, strict=False)]


@dataclass(frozen=True, slots=True)
class Read:
    """What was read at one place of a round; no label: the person did not decide. A place may be read again."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    seq: int
    id: ClickId
    at: Time
    place: Annotated[int, Field(ge=0)]
    label: Name | None


_PLAN: TypeAdapter[Plan] = TypeAdapter(Plan)
_READ: TypeAdapter[Read] = TypeAdapter(Read)


def start_round(opened: OpenStudy, reader: str, *, n_cells: int, n_repeats: int, seed: int) -> Round:
    """Draw the cells of a round and write them down.

    As many cells of each class as there are, evenly, for a rare class read twice tells nothing; cells without a label
    count as a class. Equal seeds draw the same cells of a study, whoever reads, so that readers can be compared; the
    order is different for everyone, and a cell that comes twice does so half the round later at least.

    Parameters
    ----------
    opened
        The study.
    reader
        Who reads.
    n_cells
        How many different cells; fewer where the study has fewer.
    n_repeats
        How many of them come twice, at most half.
    seed
        Of the draw.

    Raises
    ------
    ConfigError
        If the numbers do not fit.
    DataError
        If the folder cannot be written to.
    """
    name = check_reader(reader)
    n_cells = min(n_cells, len(opened.cells), _MAX_CELLS // 2)
    if n_cells < 1 or not 0 <= n_repeats <= n_cells // 2:
        raise ConfigError(
            f"A round of {n_cells} cells cannot repeat {n_repeats} of them; 0 to {max(n_cells, 0) // 2} can be, so "
            "that enough others lie between.\nFix: ask for more cells or fewer repeats."
        )
    rows = _drawn_evenly(opened.labels, n_cells, np.random.default_rng([seed, len(opened.cells)]))
    order = _in_order(rows, n_repeats, np.random.default_rng(secrets.randbits(64)))
    at = now()
    plan = Plan(
        schema_version=1,
        round=f"{at[:10]}-{safe_name(name)[:100]}-{secrets.token_hex(4)}",
        reader=name,
        started=at,
        seed=seed,
        cells=tuple(opened.cells["cell_id"].iloc[order].tolist()),
    )
    path = _folder(opened) / f"{plan.round}.json"
    try:
        write_json(path, _PLAN.dump_python(plan, mode="json"))
    except OSError as error:
        raise DataError(
            f"{path} cannot be written: {error.strerror}.\nA reading has to be kept. "
            "Fix: get the right to write into the study's folder, or copy it to where you may write."
        ) from None
    return _as_round(opened, plan, [])


class Readings:
    """The blind rounds of a study. Several threads and processes may use them at once."""

    def __init__(self, opened: OpenStudy) -> None:
        self._opened = opened
        self._journals: dict[str, Journal[Read]] = {}

    def start(self, reader: str, *, n_cells: int, n_repeats: int, seed: int) -> Round:
        """Begin a round; see ``start_round``."""
        return start_round(self._opened, reader, n_cells=n_cells, n_repeats=n_repeats, seed=seed)

    def rounds(self, reader: str | None = None) -> list[Round]:
        """Return the rounds of a reader, or of all, first begun first; raise ``DataError`` when one is damaged."""
        plans = [plan for plan in self._plans() if reader is None or plan.reader == check_reader(reader)]
        return [_as_round(self._opened, plan, self._journal(plan).read()) for plan in plans]

    def record(self, round_name: str, *, reader: str, place: int, code: int, click: str) -> Round:
        """Write what was read at one place, and return the round once it is on the disk.

        Parameters
        ----------
        round_name
            Of a round of this reader.
        place
            Which of its cells; a place that was read before is read anew, and the later reading holds.
        code
            Of the class, or ``SKIPPED``.
        click
            A UUID; a click that is sent twice is written once.

        Raises
        ------
        DataError
            If there is no such round, it is another reader's, or it cannot be written to.
        ConfigError
            If it has no such place, or the study no such class.
        """
        plan = next((plan for plan in self._plans() if plan.round == round_name), None)
        if plan is None or plan.reader != check_reader(reader):
            raise DataError("There is no such round of this reader.")
        names = self._opened.study.class_names
        if not 0 <= place < len(plan.cells) or not SKIPPED <= code < len(names):
            raise ConfigError(
                f"Round {round_name} has places 0 to {len(plan.cells) - 1} and classes 0 to {len(names) - 1} "
                f"(-1: not decided); {place} and {code} do not fit."
            )
        label = None if code == SKIPPED else names[code]
        said = Read(seq=1, id=click, at=now(), place=place, label=label)
        try:
            _READ.validate_python(said)
        except ValidationError as error:
            raise DataError(f"A reading does not fit: {sentence_of(error)}.") from None
        journal = self._journal(plan)
        journal.append(lambda known: [] if any(r.id == click for r in known) else [_record(said)])
        return _as_round(self._opened, plan, journal.read())

    def agreement(self) -> dict[str, Any]:
        """Compare all readings with each other and with the study's labels; see ``agreement_of``."""
        return agreement_of(self._opened, self.rounds())

    def table(self) -> pd.DataFrame:
        """Return all decided readings, one per row: cell_id, label, reader, round.

        Saved as ``readings.csv`` in the study, it tells ``perikarya evaluate`` what the labels allow.
        """
        names, cell_ids = self._opened.study.class_names, self._opened.cells["cell_id"].to_numpy(dtype=str)
        rows = [
            (cell_ids[row], names[code], one.reader, one.round)
            for one in self.rounds()
            for row, code in zip(one.rows, one.read, strict=True)
            if code is not None and code != SKIPPED
        ]
        return pd.DataFrame(rows, columns=["cell_id", "label", "reader", "round"], dtype="string")

    def _plans(self) -> list[Plan]:
        paths = sorted(_folder(self._opened).glob("*.json"))
        return sorted((_load(path) for path in paths), key=lambda plan: (plan.started, plan.round))

    def _journal(self, plan: Plan) -> Journal[Read]:
        path = _folder(self._opened) / f"{plan.round}.jsonl"
        root = self._opened.root
        return self._journals.setdefault(
            plan.round, Journal(path, root=root, what="the record of a blind round", adapter=_READ)
        )


def _folder(opened: OpenStudy) -> Path:
    return opened.root / READINGS_FOLDER


def _load(path: Path) -> Plan:
    try:
        if path.stat().st_size > MAX_ROUND_BYTES:
            raise DataError(f"{path} is larger than {MAX_ROUND_BYTES // 2**20} MiB; a blind round is a small file.")
        plan = _PLAN.validate_json(path.read_bytes())
    except OSError as error:
        raise DataError(f"{path} cannot be read as a blind round: {error.strerror}.") from None
    except ValidationError as error:
        raise _damaged(path, sentence_of(error)) from None
    if f"{plan.round}.json" != path.name:
        raise _damaged(path, f"it is called {path.name} but is round {plan.round}")
    return plan


def _damaged(path: Path, reason: str) -> DataError:
    return DataError(
        f"{path} does not hold a blind round: {reason}.\nFix: restore it from a copy, or move it and its .jsonl away."
    )


def _as_round(opened: OpenStudy, plan: Plan, readings: Sequence[Read]) -> Round:
    rows = pd.Index(opened.cells["cell_id"]).get_indexer(pd.Index(plan.cells, dtype="string"))
    if (rows < 0).any():
        raise DataError(
            f"Round {plan.round} has {(rows < 0).sum()} cells that this study does not have; it is of another study.\n"
            f"Fix: move {plan.round}.json and .jsonl out of the folder {READINGS_FOLDER}."
        )
    codes = {name: code for code, name in enumerate(opened.study.class_names)} | {None: SKIPPED}
    read: list[int | None] = [None] * len(plan.cells)
    for one in readings:
        if one.place >= len(plan.cells) or one.label not in codes:
            raise DataError(f"Line {one.seq} of round {plan.round} is of a place or a class that there is not.")
        read[one.place] = codes[one.label]
    return Round(plan.round, plan.reader, plan.started, tuple(rows.tolist()), tuple(read))


def _record(said: Read) -> dict[str, Any]:
    return {"id": said.id, "at": said.at, "place": said.place, "label": said.label}


def _drawn_evenly(label_n: NDArray[np.int64], n_cells: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Draw rows, as many of each class as there are, until classes run out; sorted."""
    queues = [rng.permutation(np.flatnonzero(label_n == code)) for code in np.unique(label_n)]
    turn = np.concatenate([np.arange(len(queue)) for queue in queues])  # who comes in which turn of all classes
    within = np.concatenate([np.full(len(queue), rng.random()) for queue in queues])
    chosen = np.lexsort((within, turn))[:n_cells]
    return np.sort(np.concatenate(queues)[chosen]).astype(np.int64)


def _in_order(rows: NDArray[np.int64], n_repeats: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Shuffle rows; put copies of some from the first half at least half the round later."""
    order = rng.permutation(rows).tolist()
    half = len(order) // 2
    for place in rng.choice(half, n_repeats, replace=False).tolist() if n_repeats else ():
        order.insert(int(rng.integers(place + half + 1, len(order) + 1)), order[place])
    return np.array(order, np.int64)
