"""A trained model as an object: cells in, a table of classes and probabilities out; nothing is written."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from perikarya.data.store import OpenStudy, open_study
from perikarya.errors import ConfigError, DataError
from perikarya.library import AnyPath, Run
from perikarya.predict.fields import PredictOptions, predict_field
from perikarya.predict.inputs import FieldInput, FoundFields, find_fields
from perikarya.predict.networks import Networks
from perikarya.predict.outputs.cells import cells_table
from perikarya.predict.source import open_source
from perikarya.predict.study import TRAINED_ON_IT, check_study, is_study, joined, predicted_batches, study_table

if TYPE_CHECKING:
    import pyarrow as pa

    from perikarya.predict.source import Model

log = logging.getLogger(__name__)


class Predictor:
    """A trained model that classifies cells, from a run or from a folder that ``perikarya export`` made.

    Parameters
    ----------
    source
        A run, or the path of a run folder or of an exported model.
    model
        A model of the run; None: the leading one.
    tta
        Average over flips and quarter turns of each cell.
    ensemble
        Average over the networks of all folds; else the first one answers.
    threshold
        Below this probability a cell is unsure; None: the model's own threshold.
    um_per_px
        Scale of images that do not tell theirs.
    backend
        ``auto``, ``onnxruntime``, ``openvino`` or ``torch``.
    threads
        CPU threads; None: all cores.

    Raises
    ------
    PerikaryaError
        If there is no such model, or it cannot be used.
    """

    def __init__(
        self,
        source: Run | AnyPath,
        model: str | None = None,
        *,
        tta: bool = False,
        ensemble: bool = False,
        threshold: float | None = None,
        um_per_px: float | None = None,
        backend: str = "auto",
        threads: int | None = None,
    ) -> None:
        self._model: Model = open_source(source.root if isinstance(source, Run) else Path(source), model)
        self._options = PredictOptions(
            tta=tta, ensemble=ensemble, threshold=threshold, um_per_px=um_per_px, backend=backend, threads=threads
        )

    @property
    def name(self) -> str:
        """What the model is called in its run."""
        return self._model.manifest.name

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes the model tells apart."""
        return self._model.manifest.class_names

    def __repr__(self) -> str:
        manifest = self._model.manifest
        n = len(manifest.networks) if self._options.ensemble else 1
        scale = "" if manifest.um_per_px is None else f" of {manifest.um_per_px:g} um"
        return (
            f"Predictor '{self.name}': {n} network(s), classes {', '.join(self.class_names)}; "
            f"windows of {manifest.window_px} px{scale}"
        )

    def predict(
        self,
        cells: OpenStudy | NDArray[np.uint8] | AnyPath | Sequence[AnyPath],
        *,
        outlines: str | None = None,
        table: AnyPath | None = None,
    ) -> pd.DataFrame:
        """Classify cells; nothing is written.

        Parameters
        ----------
        cells
            A study or its path; or images with outlines beside them (files, folders, patterns such as
            ``"fields/*.tif"``); or windows of the model's size and scale, shape (n, window_px, window_px, 4), uint8,
            the fourth channel the mask, 0 or 255.
        outlines
            Of images: where their outlines are, if not beside them: a file, a folder or a pattern with ``{stem}``.
        table
            Of images: a CSV that tells the subject, region and group of each; see ``perikarya predict --table``.

        Returns
        -------
        One row per cell, in order: class (the most probable one), prob_<class> for each class (rows sum to 1),
        confidence (the largest), abstained (whether that is below the threshold); before and after them, where cells
        are more than windows, the other columns of the table that ``perikarya predict`` writes.

        Raises
        ------
        ConfigError
            If ``outlines`` or ``table`` is given for what holds no images.
        DataError
            If cells, images or outlines cannot be used. Outlines that cannot while others of their image can are
            left out; they are told in the log and listed in ``frame.attrs["problems"]``.
        """
        if isinstance(cells, str | Path) and is_study(Path(cells)):
            cells = open_study(Path(cells))
        if isinstance(cells, np.ndarray | OpenStudy):
            if outlines is not None or table is not None:
                raise ConfigError("Windows and studies bring all they have; outlines and table go with images only.")
            return self._predict_crops(cells) if isinstance(cells, np.ndarray) else self._predict_study(cells)
        paths = [cells] if isinstance(cells, str | Path) else cells
        return self._predict_fields(find_fields(list(map(str, paths)), outlines=outlines, table=_path(table)))

    @cached_property
    def _networks(self) -> Networks:
        return Networks(self._model, self._options)

    def _predict_crops(self, crops_nhwc: NDArray[np.uint8]) -> pd.DataFrame:
        manifest = self._model.manifest
        side = manifest.window_px
        if crops_nhwc.dtype != np.uint8 or crops_nhwc.shape[1:] != (side, side, 4):
            raise DataError(
                f"Windows are {crops_nhwc.dtype} {crops_nhwc.shape}; {self.name} takes uint8 (n, {side}, {side}, 4).\n"
                "Windows of another size would show cells at another scale.\n"
                "Fix: predict the study or the images, from which windows are cut as the model needs them."
            )
        size = self._networks.batch_size
        batches = [crops_nhwc[start : start + size] for start in range(0, len(crops_nhwc), size)]
        with self._networks.workers() as pool:
            found = [prob for prob, _ in pool.map(self._networks.prob, batches)]
        prob_nk = np.concatenate([np.empty((0, manifest.n_classes), np.float32), *found])
        confidence_n = prob_nk.max(axis=1, initial=0.0)
        least = manifest.threshold if self._options.threshold is None else self._options.threshold
        columns = {"class": np.asarray(self.class_names, object)[prob_nk.argmax(axis=1)]}
        columns |= {f"prob_{name}": prob_nk[:, k] for k, name in enumerate(self.class_names)}
        return pd.DataFrame(columns | {"confidence": confidence_n, "abstained": confidence_n < least})

    def _predict_study(self, opened: OpenStudy) -> pd.DataFrame:
        check_study(opened.study, self._model, self._options, n_cells=len(opened.cells), root=opened.root)
        if opened.data_hash == self._model.manifest.study.data_hash:
            log.warning(TRAINED_ON_IT, self.name)
        with self._networks.workers() as pool:
            prob_nk, _ = joined(predicted_batches(opened, self._networks, pool))
        return _frame(study_table(opened, self._model, self._options, prob_nk))

    def _predict_fields(self, found: FoundFields) -> pd.DataFrame:
        if found.problems:
            lines = "\n".join(f"  {where}: {reason}" for where, reason in found.problems)
            raise DataError(f"{len(found.problems)} image(s) cannot be predicted:\n{lines}")
        problems: list[tuple[str, str, str]] = []
        tables = list(self._tables(found.fields, problems))
        frame = pd.concat([_frame(table) for table in tables], ignore_index=True)
        frame.attrs["problems"] = problems
        return frame

    def _tables(self, items: Sequence[FieldInput], problems: list[tuple[str, str, str]]) -> Iterator[pa.Table]:
        for item in items:
            field = predict_field(item, self._networks, self._options)
            for key, reason in field.problems:
                log.warning("%s, %s: %s", item.image, key, reason)
                problems.append((str(item.image), key, reason))
            yield cells_table(field, self.class_names)


def _path(path: AnyPath | None) -> Path | None:
    return None if path is None else Path(path)


def _frame(table: pa.Table) -> pd.DataFrame:
    frame: pd.DataFrame = table.to_pandas()
    return frame
