"""The cells of a study folder: its windows are there already, so they only need to be asked about."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from concurrent.futures import Executor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pyarrow as pa
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
from perikarya.predict.outputs.cells import cells_table, part_path, write_piece
from perikarya.runs import lock_run, logging_to
from perikarya.schema import Predictions, Study, label_codes, safe_name

if TYPE_CHECKING:
    from perikarya.predict.from_run import RunModel

PREDICTIONS_FILE = "predictions.parquet"
TRAINED_ON_IT = (
    "%s was trained on this very study; on its own training cells it is better than on new ones. "
    "What it says of held-out cells is in its run."
)
Answer = tuple[NDArray[np.float32], NDArray[np.float32] | None]  # probabilities and, where asked for, features
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
    check_study(opened.study, model, options, n_cells=len(opened.cells), root=root)
    with lock_run(out), logging_to(out / "predict.log", logger="perikarya"):
        if opened.data_hash == model.manifest.study.data_hash:
            log.warning(TRAINED_ON_IT, model.manifest.name)
        networks = Networks(model, options)
        with networks.workers() as pool:
            batches = predicted_batches(opened, networks, pool)
            n_batches = -(-len(opened.cells) // networks.batch_size)
            prob_nk, feature_nf = joined(tracked(batches, "predicting", total=n_batches, show=show))
        _save(opened, model, prob_nk, out / PREDICTIONS_FILE)
        name = _write_part(out, opened, model, options, prob_nk, feature_nf)
        log.info("%s: %d cells", root, len(prob_nk))
    return [name]


def check_study(
    study: Study, model: ModelFolder | RunModel, options: PredictOptions, *, n_cells: int, root: Path
) -> None:
    """Raise ``DataError`` where a study holds no cell, or its windows or its scale are not the model's."""
    um_per_px = study.um_per_px or options.um_per_px
    model.manifest.check_scale(window_px=study.window_px, um_per_px=um_per_px, where=str(root))
    if not n_cells:
        raise DataError(f"{root} holds no cell.\nFix: import it again.")


def predicted_batches(opened: OpenStudy, networks: Networks, pool: Executor) -> Iterator[Answer]:
    """Iterate over what the networks say of the cells, a batch of ``networks.batch_size`` after the other."""
    n_cells, size = len(opened.cells), networks.batch_size
    batches = [np.arange(start, min(start + size, n_cells)) for start in range(0, n_cells, size)]
    return pool.map(lambda rows: networks.prob(opened.read_crops(rows)), batches)


def joined(answers: Iterable[Answer]) -> Answer:
    """Join what was said of batches: probabilities (n, n_classes), and features where there are any."""
    found = list(answers)
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
    """Write all cells as one part of the tables; return its name."""
    name = safe_name(opened.study.name)
    write_piece(part_path(out, name), study_table(opened, model, options, prob_nk), {})
    if feature_nf is not None:
        write_features(out, name, feature_nf)
    return name


def study_table(
    opened: OpenStudy, model: ModelFolder | RunModel, options: PredictOptions, prob_nk: NDArray[np.float32]
) -> pa.Table:
    """Return the table of the cells of a study, in their order; see ``outputs.cells.cells_table``."""
    manifest = model.manifest
    field = _as_field(opened, prob_nk, manifest.threshold if options.threshold is None else options.threshold)
    table = cells_table(field, manifest.class_names)
    scale_n = opened.cells["um_per_px"].fillna(opened.study.um_per_px or np.nan).to_numpy(np.float64)
    columns = {  # of the image each cell is from
        "image_id": pa.array(opened.cells["image_id"], pa.string()),
        "area_um2": _known(field.area_px * scale_n**2),
        "x_um": _known(field.x_px * scale_n),
        "y_um": _known(field.y_px * scale_n),
    }
    for name, column in columns.items():
        table = table.set_column(table.column_names.index(name), name, column)
    return table


def _known(value_n: NDArray[np.float64]) -> pa.Array:
    return pa.array(value_n, pa.float64(), mask=np.isnan(value_n))


def _as_field(opened: OpenStudy, prob_nk: NDArray[np.float32], least: float) -> PredictedField:
    """Put cells into the form of a predicted field, whose outlines are words only."""
    cells = opened.cells
    return PredictedField(
        item=FieldInput(opened.root, opened.root, opened.study.name),
        height=0,
        width=0,
        um_per_px=None,
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
