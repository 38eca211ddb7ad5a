"""Make the plan of a large prediction: what there is, what it follows from, and how it is divided."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from perikarya.data.importers.base import tracked
from perikarya.errors import DataError
from perikarya.predict.backends import backend_of
from perikarya.predict.counting import count_outlines
from perikarya.predict.fields import PredictOptions
from perikarya.predict.folder import ModelFolder
from perikarya.predict.inputs import FieldInput, FoundFields
from perikarya.predict.networks import batch_size_of
from perikarya.predict.run import TABLE_BESIDE, check_names
from perikarya.predict.shards import (
    PlannedImage,
    PlannedModel,
    PlannedStudy,
    PredictionSettings,
    Shard,
    ShardPlan,
    borders_of_images,
    borders_of_rows,
    has_plan,
    read_plan,
)
from perikarya.predict.study import check_study
from perikarya.predict.study_rows import open_rows

if TYPE_CHECKING:
    from perikarya.predict.source import Model

CELLS_PER_SHARD = 100_000  # where nobody says how many shards there should be
_AT_ONCE = 8  # files that are counted
_MAX_LISTED = 10  # images that cannot be predicted


@dataclass(frozen=True)
class Wish:
    """What is to be predicted how.

    Attributes
    ----------
    model, path, name
        The model, where it lies, and its name where that is a run and a name was given.
    options
        How cells are predicted.
    formats
        Of the files each image gets of its own; ``csv``: one table over all beside the parts.
    n_shards
        None: one per ``CELLS_PER_SHARD`` cells, and no fewer than ``at_once``.
    at_once
        How many shards can be worked on at once.
    """

    model: Model
    path: Path
    name: str | None
    options: PredictOptions
    formats: tuple[str, ...]
    n_shards: int | None
    at_once: int

    def shards_for(self, n_cells: int) -> int:
        """Return into how many shards so many cells are to be divided."""
        return self.n_shards or max(self.at_once, -(-n_cells // CELLS_PER_SHARD))

    def planned_model(self) -> PlannedModel:
        """Return the model in the words of a plan."""
        root = self.model.root if isinstance(self.model, ModelFolder) else self.path
        return PlannedModel(path=str(root.resolve()), name=self.name, sha256=self.model.sha256)


def plan_study(root: Path, wish: Wish) -> ShardPlan:
    """Plan the prediction of a study; it has no images that could get files of their own.

    Raises
    ------
    DataError
        If the study cannot be read, or does not fit the model.
    """
    rows = open_rows(root)
    check_study(rows.study, wish.model, wish.options, n_cells=rows.n_cells, root=root)
    settings = settings_of(wish.options, wish.model)
    n_asked = wish.shards_for(rows.n_cells)
    borders = borders_of_rows(rows.n_cells, n_asked, batch_size=settings.batch_size)
    return ShardPlan(
        model=wish.planned_model(),
        options=settings,
        formats=tuple(name for name in wish.formats if name == "csv"),
        n_asked=n_asked,
        shards=tuple(Shard(begin=a, end=b, n_cells=b - a) for a, b in pairwise(borders)),
        study=PlannedStudy(root=str(root.resolve()), n_cells=rows.n_cells, sha256=rows.sha256()),
    )


def plan_images(found: FoundFields, wish: Wish, *, known: Mapping[str, int], show: bool) -> ShardPlan:
    """Plan the prediction of images.

    Parameters
    ----------
    found
        The images.
    known
        Stamp -> number of outlines, as far as counted before (``counted_before``).
    show
        Draw a bar on the terminal while outlines are counted.

    Raises
    ------
    DataError
        If there is no image that can be predicted, or two have one name.
    """
    if not found.fields:
        reasons = "\n".join(f"  {where}: {reason}" for where, reason in found.problems[:_MAX_LISTED])
        raise DataError(f"No image can be predicted:\n{reasons}\nFix: correct the paths, or name the --outlines.")
    check_names(found.fields)
    images = _images(found.fields, known, show=show)
    n_outlines = [image.n_outlines for image in images]
    n_asked = wish.shards_for(sum(n_outlines))
    borders = borders_of_images(n_outlines, n_asked)
    return ShardPlan(
        model=wish.planned_model(),
        options=settings_of(wish.options, wish.model),
        formats=wish.formats,
        n_asked=n_asked,
        shards=tuple(Shard(begin=a, end=b, n_cells=sum(n_outlines[a:b])) for a, b in pairwise(borders)),
        images=images,
        problems=tuple((where, "", reason) for where, reason in found.problems),
    )


def counted_before(out: Path) -> dict[str, int]:
    """Return the numbers of outlines in the plan that is there, by the stamps of their images."""
    return {image.stamp: image.n_outlines for image in read_plan(out).images} if has_plan(out) else {}


def settings_of(options: PredictOptions, model: Model) -> PredictionSettings:
    """Return the options as they take effect with a model, the same on every machine."""
    manifest = model.manifest
    rules = (
        (rule.text.removesuffix(f"={rule.label or ''}"), rule.label or "") for rule in options.read.class_map.rules
    )
    return PredictionSettings(
        tta=options.tta,
        ensemble=options.ensemble,
        calibrated=options.calibrated,
        threshold=manifest.threshold if options.threshold is None else options.threshold,
        batch_size=options.batch_size or batch_size_of(manifest.input_px),
        backend=backend_of(model, options.backend),
        um_per_px=options.um_per_px,
        class_map=tuple(rules),
        regions=tuple(sorted(options.read.regions)),
        nucleus=options.read.nucleus,
    )


def _images(fields: Sequence[FieldInput], known: Mapping[str, int], *, show: bool) -> tuple[PlannedImage, ...]:
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        planned = pool.map(lambda item: _image(item, known), fields)
        return tuple(tracked(planned, "counting outlines", total=len(fields), show=show))


def _image(item: FieldInput, known: Mapping[str, int]) -> PlannedImage:
    stamp = _stamp(item)
    return PlannedImage(
        image=str(item.image.absolute()),
        outlines=str(item.outlines.absolute()),
        image_id=item.image_id,
        words=dict(sorted(item.words.items())),
        um_per_px=item.um_per_px,
        n_outlines=known.get(stamp) or count_outlines(item.outlines, item.image),
        stamp=stamp,
    )


def _stamp(item: FieldInput) -> str:
    """Return a hash of where and how large the files of an image are and when they were written.

    Reading thousands of images before the first is predicted could take hours; their content is hashed by who reads it.
    """
    words = [item.image_id]
    for path in (item.image, item.outlines, item.outlines.with_name(TABLE_BESIDE)):
        try:
            status = path.stat()
        except OSError:  # whoever predicts the image says what is wrong
            words.append(f"{path.absolute()}: missing")
        else:
            words.append(f"{path.absolute()}: {status.st_size} {status.st_mtime_ns}")
    return hashlib.sha256("\n".join(words).encode()).hexdigest()[:32]
