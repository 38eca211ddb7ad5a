"""The plan of a large prediction: which cells are in which shard, and everything their predictions follow from.

``OUT/shards.json`` is written once, whole, before any work; whoever works on a shard, wherever, reads it. A shard is
done when its part is there (``parts``), and names the shard's key: a hash of model, options and cells.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationError

from perikarya.data.outlines import ClassMap, ReadOptions
from perikarya.errors import RunError
from perikarya.predict.fields import PredictOptions
from perikarya.predict.inputs import FieldInput
from perikarya.runs import read_json, write_json
from perikarya.settings import Settings

PLAN_FILE = "shards.json"
PLAN_VERSION = 1
_AGAIN = "\nFix: choose another --out; or, if what is there is not needed, delete that folder."

Count = Annotated[int, Field(ge=0)]


class PlannedImage(Settings):
    """One image of a plan; ``stamp`` changes when the image, its outlines or a table beside them are written again."""

    image: str
    outlines: str
    image_id: str
    words: dict[str, str | None]
    um_per_px: float | None
    n_outlines: Annotated[int, Field(ge=1)]
    stamp: str

    def as_field(self) -> FieldInput:
        """Return it as what is predicted."""
        return FieldInput(Path(self.image), Path(self.outlines), self.image_id, self.words, self.um_per_px)


class PlannedStudy(Settings):
    """The study of a plan; ``sha256`` is of its description and its table of cells."""

    root: str
    n_cells: Count
    sha256: str


class PlannedModel(Settings):
    """The model of a plan: where it lies, its name where that is a run, and the hash of its description."""

    path: str
    name: str | None
    sha256: str


class PredictionSettings(Settings):
    """How cells are predicted, as it took effect; see ``PredictOptions``."""

    tta: bool
    ensemble: bool
    calibrated: bool
    threshold: float
    batch_size: Annotated[int, Field(ge=1)]
    backend: str
    um_per_px: float | None
    class_map: tuple[tuple[str, str], ...]
    regions: tuple[str, ...]
    nucleus: bool

    def as_options(self, *, threads: int) -> PredictOptions:
        """Return them as the options of a worker with so many threads."""
        read = ReadOptions(
            class_map=ClassMap.from_pairs(self.class_map), regions=frozenset(self.regions), nucleus=self.nucleus
        )
        taken = {key: getattr(self, key) for key in ("tta", "ensemble", "calibrated", "threshold", "batch_size")}
        return PredictOptions(**taken, backend=self.backend, um_per_px=self.um_per_px, threads=threads, read=read)


class Shard(Settings):
    """Cells that are predicted together: rows of the study's table, or images, from ``begin`` to before ``end``.

    ``n_cells`` is the number of rows, or of outlines as far as they could be counted.
    """

    begin: Count
    end: Count
    n_cells: Count


class ShardPlan(Settings):
    """A large prediction.

    Attributes
    ----------
    n_asked
        Shards that were asked for; there are fewer where there are not as many images, or batches of cells.
    formats
        Of the files each image gets of its own, and ``csv`` where one table over all is wanted beside the parts.
    study, images
        What is predicted: one of the two.
    problems
        (where, "", reason) of what was named but cannot be predicted.
    """

    schema_version: Literal[1] = 1
    model: PlannedModel
    options: PredictionSettings
    formats: tuple[str, ...]
    n_asked: Annotated[int, Field(ge=1)]
    shards: Annotated[tuple[Shard, ...], Field(min_length=1)]
    study: PlannedStudy | None = None
    images: tuple[PlannedImage, ...] = ()
    problems: tuple[tuple[str, str, str], ...] = ()

    @property
    def n_cells(self) -> int:
        """Cells of all shards, as far as they could be counted."""
        return sum(shard.n_cells for shard in self.shards)

    def name(self, index: int) -> str:
        """Return what a shard is called, which begins the names of its files."""
        return f"part-{index:05d}-of-{len(self.shards):05d}"

    def key(self, index: int) -> str:
        """Return the hash of all that the part of a shard follows from."""
        shard = self.shards[index]
        cells: Any = (
            {"study": self.study.sha256, "rows": [shard.begin, shard.end]}
            if self.study is not None
            else [image.model_dump(exclude={"n_outlines"}) for image in self.images[shard.begin : shard.end]]
        )
        how = {
            "version": PLAN_VERSION,
            "model": self.model.sha256,
            "options": self.options.model_dump(mode="json"),
            "cells": cells,
        }
        return hashlib.sha256(json.dumps(how, sort_keys=True).encode()).hexdigest()


def borders_of_rows(n_rows: int, n_shards: int, *, batch_size: int) -> list[int]:
    """Divide rows into shards of whole batches: a cell is then in the same batch however many shards there are.

    Returns
    -------
    Borders from 0 to ``n_rows``; fewer than asked where there are fewer batches.
    """
    n_batches = -(-n_rows // batch_size)
    found = np.linspace(0, n_batches, min(n_shards, n_batches) + 1).round().astype(np.int64) * batch_size
    return [*found[:-1].tolist(), n_rows]


def borders_of_images(n_outlines: Sequence[int], n_shards: int) -> list[int]:
    """Divide images, in their order, into shards with much the same number of outlines; no image is cut in two.

    Returns
    -------
    Borders from 0 to the number of images; fewer than asked where an image alone is more than a shard should be.
    """
    count_n: NDArray[np.int64] = np.asarray(n_outlines, np.int64)
    middle_n = np.cumsum(count_n) - count_n / 2
    shard_n = (middle_n * n_shards / count_n.sum()).astype(np.int64)
    return [0, *(np.flatnonzero(np.diff(shard_n)) + 1).tolist(), len(count_n)]


def write_plan(out: Path, plan: ShardPlan) -> None:
    """Write the plan whole."""
    write_json(out / PLAN_FILE, plan.model_dump(mode="json"))


def has_plan(out: Path) -> bool:
    """Tell whether a folder is that of a prediction in shards."""
    return (out / PLAN_FILE).is_file()


def read_plan(out: Path) -> ShardPlan:
    """Read the plan of a prediction; raise ``RunError`` when it is missing, damaged or of another version."""
    path = out / PLAN_FILE
    content = read_json(path, what="the plan of a prediction in shards")
    found = content.get("schema_version") if isinstance(content, dict) else None
    if found != PLAN_VERSION:
        raise RunError(
            f"{path} has schema version {found!r}; this Perikarya reads plans of version {PLAN_VERSION}.\n"
            "Fix: update Perikarya on all machines alike, or predict into another --out."
        )
    try:
        return ShardPlan.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        raise RunError(
            f"{path} is no plan of a prediction ({'.'.join(map(str, first['loc']))}: {first['msg']}).{_AGAIN}"
        ) from None


def settle_plan(plan: ShardPlan, out: Path) -> ShardPlan:
    """Write a plan, as it goes on from the one that is there; see ``continued``."""
    plan = continued(plan, out)
    if not has_plan(out) or read_plan(out) != plan:
        write_plan(out, plan)
    return plan


def continued(plan: ShardPlan, out: Path) -> ShardPlan:
    """Return a plan as it goes on from the one that is there, if there is one.

    Shards keep the borders they have. Images whose content changed since have another stamp, hence their shards
    another key, and those are predicted again.

    Raises
    ------
    RunError
        If the folder holds a prediction of other cells, with another model or other options, or one without shards.
    """
    if not has_plan(out):
        if (out / "predict.json").is_file() or (out / "cells.parquet").is_file():
            raise RunError(
                f"{out} holds a prediction that was not made in shards; the two would be taken for one.{_AGAIN}"
            )
        return plan
    old = read_plan(out)
    differ = _differences(old, plan)
    if differ:
        raise RunError(
            f"{out} holds a prediction with other settings than now: {'; '.join(differ)}.\n"
            f"Parts of both would be counted together.{_AGAIN}"
        )
    if not plan.images:
        return plan
    n_outlines = [image.n_outlines for image in plan.images]
    shards = (Shard(begin=o.begin, end=o.end, n_cells=sum(n_outlines[o.begin : o.end])) for o in old.shards)
    return plan.model_copy(update={"shards": tuple(shards)})


def _differences(old: ShardPlan, new: ShardPlan) -> list[str]:
    """Say what of two plans must be the same for one to go on from the other, and is not."""
    words = []
    if old.model.sha256 != new.model.sha256:
        words.append(f"the model was {old.model.path} ({old.model.sha256[:8]}) and is now {new.model.sha256[:8]}")
    before, now = old.options.model_dump(mode="json"), new.options.model_dump(mode="json")
    changed = [key for key in before if before[key] != now[key]]
    words += [f"{key} was {json.dumps(before[key])} and is now {json.dumps(now[key])}" for key in changed]
    own = [tuple(name for name in plan.formats if name != "csv") for plan in (old, new)]
    if set(own[0]) != set(own[1]):
        words.append(f"--format was {','.join(own[0]) or 'none'} and is now {','.join(own[1]) or 'none'}")
    if old.n_asked != new.n_asked:
        words.append(f"--shards was {old.n_asked} and is now {new.n_asked}")
    if old.study != new.study:
        words.append("the study is another one, or has changed")
    changes = {"n_outlines", "stamp"}
    if [i.model_dump(exclude=changes) for i in old.images] != [i.model_dump(exclude=changes) for i in new.images]:
        words.append(f"there were {len(old.images)} images, now there are {len(new.images)}, not the same ones")
    return words
