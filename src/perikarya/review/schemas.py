"""What the service takes and says, as ``frontend/src/api/types.ts`` has it: names and meanings are the same there."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

MAX_ROWS_ASKED = 2_000  # cells described in one answer
MAX_CORRECTIONS = 5_000  # of one request


class _Words(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class CategoryFilter(_Words):
    """Cells whose value of a category is one of some; "" stands for none."""

    column: str
    values: list[str]


class NumberFilter(_Words):
    """Cells whose number lies between two, both included; None: no bound."""

    column: str
    min: float | None
    max: float | None


class Sort(_Words):
    """By which column rows are ordered."""

    column: str
    descending: bool = False


class Query(_Words):
    """Which cells are wanted, in which order."""

    filters: list[CategoryFilter | NumberFilter] = []
    sort: list[Sort] = []
    text: Annotated[str, Field(max_length=200)] = ""
    within: list[int] | None = None


class Seen(_Words):
    """What a person saw a model say of a cell."""

    model: Annotated[str, Field(max_length=200)]
    prob: Annotated[list[float], Field(max_length=1000)]


class Correction(_Words):
    """One click of a person, with an id made by the page, so that sent twice it counts once."""

    id: Annotated[str, Field(pattern=r"^[0-9a-f-]{36}$")]
    row: Annotated[int, Field(ge=0)]
    kind: Literal["label", "undo", "skip"]
    old: str | None
    new: str | None
    seen: Seen | None = None
    undoes: str | None = None


class Corrections(_Words):
    """Clicks in their order."""

    items: Annotated[list[Correction], Field(min_length=1, max_length=MAX_CORRECTIONS)]


class Rows(_Words):
    """Cells to be described."""

    rows: Annotated[list[int], Field(max_length=MAX_ROWS_ASKED)]


class Explain(_Words):
    """Where a model looked in a cell, for one class by its code."""

    model: Annotated[str, Field(max_length=200)]
    about: Annotated[int, Field(ge=0)]


class MapWish(_Words):
    """Which map of all cells is to be made."""

    method: Annotated[str, Field(max_length=20)]


class ReaderName(_Words):
    """Who sits before the page."""

    reader: Annotated[str, Field(max_length=400)]


class RoundWish(_Words):
    """A blind round to begin: how many cells, how many of them twice, drawn with which seed."""

    n_cells: Annotated[int, Field(ge=1, le=100_000)]
    n_repeats: Annotated[int, Field(ge=0, le=100_000)]
    seed: Annotated[int, Field(ge=0, lt=2**32)]


class Reading(_Words):
    """What a person read at one place of a round; -1: skipped."""

    id: Annotated[str, Field(pattern=r"^[0-9a-f-]{36}$")]
    place: Annotated[int, Field(ge=0)]
    code: Annotated[int, Field(ge=-1)]
