"""The cells of a study folder: its windows are there already, so they only need to be asked about."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from perikarya.data.importers.base import tracked
from perikarya.data.outlines.base import Outline
from perikarya.data.store import OpenStudy, open_study
from perikarya.errors import DataError
from perikarya.predict.fields import PredictedField, PredictOptions
from perikarya.predict.folder import ModelFolder
from perikarya.predict.inputs import FieldInput
from perikarya.predict.networks import Networks
from perikarya.predict.outputs.anndata import write_features
from perikarya.predict.outputs.cells import cells_table, part_path
from perikarya.runs import lock_run, logging_to, replacing
from perikarya.schema import Predictions, label_codes, safe_name

if TYPE_CHECKING:
    from perikarya.predict.from_run import RunModel

PREDICTIONS_FILE = "predictions.parquet"
_UNKNOWN = 0.0  # scale
_WORDS = ("subject", "region", "group", "set")

log = logging.getLogger(__name__)


def is_study(path: Path) -> bool:
    """Tell whether a path is a study folder."""
    return (path / "study.yaml").is_file()


def predict_study(
    root: Path,
    model: ModelFolder | RunModel,
    out: Path,
    options: PredictOptions = PredictOptions(),  # noqa: B008
    *,
    show: bool = False,
) -> list[str]:
    """Predict all cells of a study and write ``predictions.parquet`` and its parts of the tables.

    Returns
    -------
    What ``outputs.finish`` calls the one part of the tables that holds all cells.

    Raises
    ------
    DataError
        If the study cannot be read, or its windows or its scale are not the model's.
    """
    opened = open_study(root)
    um_per_px = opened.study.um_per_px or options.um_per_px
    model.manifest.check_scale(window_px=opened.study.window_px, um_per_px=um_per_px, where=str(root))
    if not len(opened.cells):
        raise DataError(f"{root} holds no cell.\nFix: import it again.")
    with lock_run(out), logging_to(out / "predict.log", logger="perikarya"):
        if opened.data_hash == model.manifest.study.data_hash:
            log.warning(
                "%s was trained on this very study; on its own training cells it is better than on new ones. "
                "What it says of held-out cells is in its run.",
                model.manifest.name,
            )
        networks = Networks(model, options)
        prob_nk, feature_nf = _predicted(opened, networks, show=show)
        _save(opened, model, prob_nk, out / PREDICTIONS_FILE)
        name = _write_part(out, opened, model, options, prob_nk, feature_nf)
        log.info("%s: %d cells", root, len(prob_nk))
    return [name]


def _predicted(
    opened: OpenStudy, networks: Networks, *, show: bool
) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
    n_cells, size = len(opened.cells), networks.batch_size
    batches = [np.arange(start, min(start + size, n_cells)) for start in range(0, n_cells, size)]
    with networks.workers() as pool:
        answers = pool.map(lambda rows: networks.prob(opened.read_crops(rows)), batches)
        found = list(tracked(answers, "predicting", total=len(batches), show=show))
    features = [part for _, part in found if part is not None]
    return np.concatenate([prob for prob, _ in found]), np.concatenate(features) if features else None


def _save(opened: OpenStudy, model: ModelFolder | RunModel, prob_nk: NDArray[np.float32], path: Path) -> None:
    """Write the probabilities in the form a run's own have; labels of other classes than the model's are left out."""
    names = model.manifest.class_names
    label = opened.cells["label"].where(opened.cells["label"].isin(names))
    sets = sorted(opened.cells["set"].unique())
    network = model.manifest.networks[0]
    Predictions(
        cell_id=opened.cells["cell_id"].to_numpy(dtype=str),
        prob_nk=prob_nk,
        label_n=label_codes(label, names),
        class_names=names,
        model=model.manifest.name,
        fold=network.fold,
        seed=network.seed,
        set="+".join(sets),
    ).save(path)


def _write_part(
    out: Path,
    opened: OpenStudy,
    model: ModelFolder | RunModel,
    options: PredictOptions,
    prob_nk: NDArray[np.float32],
    feature_nf: NDArray[np.float32] | None,
) -> str:
    """Write all cells as one part of the tables, images of one scale after another; return the part's name."""
    manifest, name = model.manifest, safe_name(opened.study.name)
    least = manifest.threshold if options.threshold is None else options.threshold
    scale_n = opened.cells["um_per_px"].fillna(opened.study.um_per_px or _UNKNOWN).to_numpy(np.float64)
    row_n = np.argsort(scale_n, kind="stable")
    tables = []
    for rows in np.split(row_n, np.flatnonzero(np.diff(scale_n[row_n])) + 1):
        scale = float(scale_n[rows[0]])
        field = _as_field(opened, rows, prob_nk[rows], None if scale == _UNKNOWN else scale, least, name)
        table = cells_table(field, manifest.class_names)
        image_ids = pa.array(opened.cells["image_id"].iloc[rows], pa.string())
        tables.append(table.set_column(table.column_names.index("image_id"), "image_id", image_ids))
    with replacing(part_path(out, name)) as temporary:
        pq.write_table(pa.concat_tables(tables), temporary, compression="zstd")
    if feature_nf is not None:
        write_features(out, replace(field, feature_nf=feature_nf[row_n]))
    return name


def _as_field(
    opened: OpenStudy,
    rows: NDArray[np.int64],
    prob_nk: NDArray[np.float32],
    um_per_px: float | None,
    least: float,
    name: str,
) -> PredictedField:
    """Put some cells into the form of a predicted field, whose outlines are words only."""
    cells = opened.cells.iloc[rows]
    return PredictedField(
        item=FieldInput(opened.root, opened.root, name),
        height=0,
        width=0,
        um_per_px=um_per_px,
        image_sha256="",
        outlines=_outlines(cells),
        regions=(),
        cell_id=cells["cell_id"].to_numpy(dtype=str),
        prob_nk=prob_nk,
        code_n=prob_nk.argmax(axis=1),
        abstained_n=prob_nk.max(axis=1) < least,
        label_n=_texts(cells["label"]),
        region_n=_texts(cells["region"]),
        x_px=cells["x_px"].to_numpy(np.float64),
        y_px=cells["y_px"].to_numpy(np.float64),
        area_px=cells["area_px"].to_numpy(np.int64),
    )


def _outlines(cells: pd.DataFrame) -> tuple[Outline, ...]:
    columns = [_texts(cells[word]) for word in _WORDS]
    words = [{w: text for w, text in zip(_WORDS, row, strict=True) if text} for row in zip(*columns, strict=True)]
    return tuple(Outline(key=str(key), words=said) for key, said in zip(cells["source"], words, strict=True))


def _texts(column: pd.Series) -> NDArray[np.object_]:
    return column.astype(object).where(column.notna(), None).to_numpy()
