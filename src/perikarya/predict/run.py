"""Many fields, one after another: what is done is kept, what cannot be done is listed, the rest is predicted.

While the cells of a field are predicted, the next picture is opened and the files of the last one are written.
``OUT/done/<image_id>.json`` is written when all files of an image are there, and names everything they follow from; so
a run that was killed goes on where it was, and the same command gives the same files again.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perikarya.errors import DataError, RunError
from perikarya.predict.backends import backend_of
from perikarya.predict.fields import PredictedField, PredictOptions, predict_opened
from perikarya.predict.folder import ModelFolder
from perikarya.predict.inputs import FieldInput
from perikarya.predict.networks import Networks
from perikarya.predict.opening import FieldError, OpenField, open_field
from perikarya.predict.outputs import field_files, write_field
from perikarya.predict.outputs.anndata import features_path
from perikarya.predict.outputs.cells import part_path
from perikarya.runs import file_sha256, lock_run, logging_to, read_json, write_json

if TYPE_CHECKING:
    from perikarya.predict.from_run import RunModel

RunProblem = tuple[str, str, str]  # image, what its file of outlines calls the object or "", reason
Tell = Callable[[FieldInput, float], object]  # called with a field and the further share of it that is done
DEFAULT_FORMATS = ("geojson", "roi", "overlay", "csv")
MARK_VERSION = 1
TABLE_BESIDE = "cells.csv"  # tells the classes of a label map's numbers

log = logging.getLogger(__name__)


@dataclass
class FieldsDone:
    """What a prediction came to.

    Attributes
    ----------
    image_ids
        Images whose files are there, in the order they were asked for.
    problems
        Images and outlines that were not predicted, now or by the earlier call whose files were kept.
    n_cells
        Cells predicted now, and in images that were kept.
    n_kept
        Images that were done already.
    """

    image_ids: list[str] = field(default_factory=list)
    problems: list[RunProblem] = field(default_factory=list)
    n_cells: int = 0
    n_kept: int = 0


def run_predictions(
    items: Sequence[FieldInput],
    model: ModelFolder | RunModel,
    out: Path,
    options: PredictOptions = PredictOptions(),  # noqa: B008
    *,
    formats: Sequence[str] = DEFAULT_FORMATS,
    show: bool = False,
) -> FieldsDone:
    """Predict the cells of fields and write the files of each.

    Parameters
    ----------
    items
        The fields.
    model
        An exported model or one that is still in its run.
    out
        Folder of the results; what an earlier call with the same inputs finished there is kept. The tables over all
        images are made from it by ``outputs.finish``.
    options
        How cells are predicted.
    formats
        Names of ``outputs.FORMATS``.
    show
        Draw a progress bar over the cells on the terminal.

    Raises
    ------
    DataError
        If two fields have one name, or the model cannot be used.
    RunError
        If another process works in that folder, or a file cannot be written.
    """
    check_names(items)
    with lock_run(out), logging_to(out / "predict.log", logger="perikarya"), _progress(len(items), show=show) as tell:
        work = FieldsWork(model, out, options, tuple(formats))
        return predict_fields(items, work, lambda: Networks(model, options), tell)


def predict_fields(
    items: Sequence[FieldInput], work: FieldsWork, open_networks: Callable[[], Networks], tell: Tell
) -> FieldsDone:
    """Predict those of some fields that are not done; no other process may work on the same fields.

    Parameters
    ----------
    items
        The fields.
    work
        What they share.
    open_networks
        Opens the model; called only where something is to be predicted.
    tell
        Told how far each field is; may raise to stop the work, after which what is done is kept.
    """
    done = FieldsDone()
    marks = {item.image_id: mark for item in items if (mark := work.kept(item)) is not None}
    pending = [item for item in items if item.image_id not in marks]
    name = work.model.manifest.name
    log.info("%s: %d image(s) to predict, %d kept; model %s", work.out, len(pending), len(marks), name)
    done.n_kept = len(marks)
    for item in items:
        if item.image_id in marks:
            tell(item, 1.0)
    if pending:
        marks |= _predict_all(pending, work, open_networks(), done, tell)
    for item in items:
        if (mark := marks.get(item.image_id)) is not None:
            done.image_ids.append(item.image_id)
            done.n_cells += mark["n_cells"]
            done.problems += [(str(item.image), key, reason) for key, reason in mark["problems"]]
    return done


def check_names(items: Sequence[FieldInput]) -> None:
    """Refuse two fields whose files would have one name, also on systems that do not tell capitals apart."""
    counts = Counter(item.image_id.casefold() for item in items)
    twice = [item for item in items if counts[item.image_id.casefold()] > 1]
    if twice:
        paths = ", ".join(str(item.image) for item in twice[:4])
        raise DataError(
            f"{len(twice)} images have the name '{twice[0].image_id}' in common with another: {paths}.\n"
            "The results of one would take the place of the other's. Fix: give each its own image_id, or another --out."
        )


@dataclass(frozen=True)
class FieldsWork:
    """What all fields of a prediction share: model, folder, options, and the formats of their own files."""

    model: ModelFolder | RunModel
    out: Path
    options: PredictOptions
    formats: tuple[str, ...]

    def mark_path(self, item: FieldInput) -> Path:
        """Return the mark of a field, which is there when all its files are."""
        return self.out / "done" / f"{item.image_id}.json"

    def kept(self, item: FieldInput) -> dict[str, Any] | None:
        """Return the mark of a field whose files are all there and follow from the same inputs."""
        path = self.mark_path(item)
        if not path.is_file() or not all(file.is_file() for file in self._files(item)):
            return None
        try:
            mark = read_json(path, what="the mark of a finished image")
            same = mark["version"] == MARK_VERSION and mark["from"] == self.inputs_of(item)
        except (RunError, KeyError, TypeError):
            log.warning("%s is damaged; %s is predicted again", path, item.image_id)
            return None
        except OSError:  # the image or its outlines are gone, which whoever predicts it will say
            return None
        return dict(mark) if same else None

    def inputs_of(self, item: FieldInput) -> dict[str, Any]:
        """Return everything the files of a field follow from."""
        beside = item.outlines.with_name(TABLE_BESIDE)
        read = self.options.read
        how = {
            **{key: getattr(self.options, key) for key in ("tta", "ensemble", "calibrated", "threshold", "features")},
            "um_per_px": self.options.um_per_px,
            "class_map": [rule.text for rule in read.class_map.rules],
            "regions": sorted(read.regions),
            "nucleus": read.nucleus,
            "backend": backend_of(self.model, self.options.backend),
            "image": {"words": dict(sorted(item.words.items())), "um_per_px": item.um_per_px},
        }
        return {
            "image": file_sha256(item.image),
            "outlines": file_sha256(item.outlines),
            "table": file_sha256(beside) if beside.is_file() else None,
            "model": self.model.sha256,
            "options": hashlib.sha256(json.dumps(how, sort_keys=True).encode()).hexdigest(),
        }

    def open(self, item: FieldInput) -> tuple[dict[str, Any], OpenField]:
        """Hash the inputs of a field and open it."""
        try:
            inputs = self.inputs_of(item)
        except OSError as error:
            raise FieldError(item, [("", f"{error.filename} cannot be read ({error.strerror})")]) from None
        return inputs, open_field(item, self.model.manifest, self.options)

    def write(self, predicted: PredictedField, inputs: dict[str, Any]) -> dict[str, Any]:
        """Write the files of a field, then its mark, and return that."""
        item = predicted.item
        try:
            self.mark_path(item).unlink(missing_ok=True)
            write_field(self.out, predicted, self.model.manifest, self.formats)
            mark = {
                "version": MARK_VERSION,
                "from": inputs,
                "n_cells": len(predicted.cell_id),
                "problems": [list(problem) for problem in predicted.problems],
            }
            write_json(self.mark_path(item), mark)
        except OSError as error:
            raise RunError(
                f"The results of {item.image_id} cannot be written to {self.out} ({error.strerror}).\n"
                "Fix: make room there or check its rights, then run the same command again: what is done is kept."
            ) from None
        return mark

    def _files(self, item: FieldInput) -> Iterator[Path]:
        yield from field_files(self.out, item.image_id, self.formats).values()
        yield part_path(self.out, item.image_id)
        if self.options.features:
            yield features_path(self.out, item.image_id)


def _predict_all(
    items: Sequence[FieldInput], work: FieldsWork, networks: Networks, done: FieldsDone, tell: Tell
) -> dict[str, dict[str, Any]]:
    """Predict fields, with the next one being opened and the last one being written meanwhile; return their marks."""
    marks: dict[str, dict[str, Any]] = {}
    with (
        ThreadPoolExecutor(1) as opener,
        ThreadPoolExecutor(1) as writer,
        networks.workers() as pool,
        closing(_one_ahead(items, work, opener)) as fields,
    ):
        writing: tuple[FieldInput, Future[dict[str, Any]]] | None = None
        for item, opening in fields:
            try:
                inputs, opened = opening.result()
                with opened.picture:
                    predicted = predict_opened(
                        opened, networks, pool, threshold=work.options.threshold, advance=_share(tell, opened)
                    )
            except FieldError as error:
                _report(done, item, error)
                continue
            for note in predicted.notes:
                log.info("%s: %s", item.image_id, note)
            _settle(writing, marks, done)  # at most one field waits to be written
            writing = item, writer.submit(work.write, predicted, inputs)
        _settle(writing, marks, done)
    return marks


def _one_ahead(
    items: Sequence[FieldInput], work: FieldsWork, opener: Executor
) -> Generator[tuple[FieldInput, Future[tuple[dict[str, Any], OpenField]]], None, None]:
    """Yield fields that are being opened, the following one too."""
    following: Future[tuple[dict[str, Any], OpenField]] | None = opener.submit(work.open, items[0])
    try:
        for i, item in enumerate(items):
            current = following
            following = opener.submit(work.open, items[i + 1]) if i + 1 < len(items) else None
            if current is not None:
                yield item, current
    finally:
        if following is not None and not following.cancel() and following.exception() is None:
            following.result()[1].picture.close()


def _settle(
    writing: tuple[FieldInput, Future[dict[str, Any]]] | None, marks: dict[str, dict[str, Any]], done: FieldsDone
) -> None:
    """Wait until a field is written."""
    if writing is None:
        return
    item, future = writing
    try:
        marks[item.image_id] = mark = future.result()
    except DataError as error:
        _report(done, item, FieldError(item, [("", f"its results cannot be written: {error}")]))
        return
    log.info("%s: %d cells, %d outline(s) left out", item.image_id, mark["n_cells"], len(mark["problems"]))
    for key, reason in mark["problems"]:
        log.info("%s, %s: %s", item.image, key, reason)


def _report(done: FieldsDone, item: FieldInput, error: FieldError) -> None:
    for key, reason in error.problems:
        done.problems.append((str(item.image), key, reason))
        log.info("%s%s: %s", item.image, f", {key}" if key else "", reason)


def _share(tell: Tell, opened: OpenField) -> Callable[[float], object]:
    """Turn cells of a field into a share of it: how many cells later fields have is not known yet."""
    return lambda n: tell(opened.item, n / len(opened.cells))


@contextmanager
def _progress(n_fields: int, *, show: bool) -> Iterator[Tell]:
    """Draw a bar over fields, parts of a field included, on the error stream."""
    if not show:
        yield lambda _item, _share: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = (TextColumn("predicting"), BarColumn(), TaskProgressColumn(), TextColumn("left"), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("", total=n_fields)
        yield lambda _item, share: bar.advance(task, share)
