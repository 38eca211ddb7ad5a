"""Tables of predictions made elsewhere or by ``perikarya predict``: what they must hold, read and checked."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from perikarya.errors import DataError
from perikarya.evaluate.quantify.cells import PredictedCells
from perikarya.evaluate.quantify.correction import Reference
from perikarya.evaluate.quantify.gather import Gathered, predicted_cells, reference_of
from perikarya.schema import label_codes

PROB = "prob_"
PLACES = ("subject", "region", "group", "image_id", "label")
_SUM_TOLERANCE = 1e-3


def read_predictions(path: Path) -> pd.DataFrame:
    """Read a Parquet or CSV table; raise ``DataError`` when it is missing or damaged."""
    if path.suffix.lower() not in (".parquet", ".csv"):
        raise DataError(f"{path} is neither .parquet nor .csv; predictions are read from those, or from a run folder.")
    try:
        if path.suffix.lower() == ".parquet":
            return pd.read_parquet(path)
        return pd.read_csv(path, dtype=dict.fromkeys((*PLACES, "cell_id"), "string"))
    except FileNotFoundError:
        raise DataError(f"{path} does not exist; it should hold predictions of cells.") from None
    except (ValueError, OSError) as error:  # pandas' and pyarrow's own errors are ValueErrors
        reason = str(error).strip().splitlines()
        raise DataError(f"{path} should hold predictions but cannot be read: {(reason or ['empty'])[0]}") from None


def class_names_of(frame: pd.DataFrame, *, where: str) -> tuple[str, ...]:
    """Return the classes of a table, in the order of its ``prob_<class>`` columns."""
    names = tuple(str(c)[len(PROB) :] for c in frame.columns if str(c).startswith(PROB))
    if len(names) < 2:
        raise DataError(
            f"{where} has {len(names)} column(s) called 'prob_<class>'; two classes are needed at least, in order of "
            "severity.\nFix: write one column of probabilities per class."
        )
    return names


def add_places(frame: pd.DataFrame, cells: pd.DataFrame, *, where: str) -> pd.DataFrame:
    """Look up subject, region, group, image and label of every cell in the cells table of a study, by ``cell_id``."""
    if "cell_id" not in frame:
        raise DataError(f"{where} has no column 'cell_id', so its cells cannot be found in the study.")
    row_n = pd.Index(cells["cell_id"].to_numpy(dtype=str)).get_indexer(pd.Index(frame["cell_id"].to_numpy(dtype=str)))
    if (row_n < 0).any():
        unknown = frame["cell_id"].iloc[int(row_n.argmin())]
        raise DataError(
            f"{where}: {(row_n < 0).sum()} cell(s) are not in the study, such as {unknown}.\n"
            "Fix: name the study these predictions were made for (--study)."
        )
    found = cells.iloc[row_n].reset_index(drop=True)
    return frame.reset_index(drop=True).assign(**{c: found[c] for c in PLACES})


def cells_of_table(frame: pd.DataFrame, class_names: tuple[str, ...], *, where: str) -> PredictedCells:
    """Check a table of predictions and bring it to cells; an unknown image counts as one of its own.

    Raises
    ------
    DataError
        If a column is missing, a cell stands twice, or probabilities are none.
    """
    columns = [f"{PROB}{name}" for name in class_names]
    missing = [c for c in ("subject", *columns) if c not in frame]
    if missing or frame.empty:
        raise DataError(
            f"{where} lacks {', '.join(missing) or 'rows'}.\nA table of predictions has columns subject, region, group "
            "and prob_<class> per class; or cell_id, with --study to look the rest up."
        )
    if "cell_id" in frame and frame["cell_id"].duplicated().any():
        twice = frame.loc[frame["cell_id"].duplicated(), "cell_id"].iloc[0]
        raise DataError(
            f"{where} holds cell {twice} twice; it would be counted twice.\n"
            "Fix: keep one row per cell, the mean over networks where there are several."
        )
    prob = frame[columns].apply(pd.to_numeric, errors="coerce").to_numpy(np.float64)
    wrong = ~(np.abs(prob.sum(axis=1) - 1.0) <= _SUM_TOLERANCE) | ~(prob >= 0).all(axis=1)
    if wrong.any():
        raise DataError(
            f"{where}, row {int(wrong.argmax()) + 1}: {', '.join(columns)} are not probabilities that sum to 1 "
            f"({int(wrong.sum())} such row(s)).\nFix: write one probability per class, or 1 and 0 for bare decisions."
        )
    table = frame.reset_index(drop=True).copy()
    for column in PLACES:
        table[column] = table[column].astype("string") if column in table else pd.Series(pd.NA, table.index, "string")
    alone = pd.Series([f"cell {i}" for i in range(len(table))], dtype="string")
    table["image_id"] = table["image_id"].fillna(alone)
    return predicted_cells(
        table,
        class_names,
        prob_nk=prob / prob.sum(axis=1, keepdims=True),
        vote_nk=None,
        label_n=label_codes(table["label"], class_names),
    )


def gather_tables(
    frame: pd.DataFrame, class_names: tuple[str, ...], reference: pd.DataFrame | Reference | None = None
) -> Gathered:
    """Make cells of a table; its own labelled cells are the reference unless another one is given."""
    cells = cells_of_table(frame, class_names, where="The table of predictions")
    known: Reference | None
    if isinstance(reference, Reference):
        known = reference
    elif reference is None:
        known = reference_of(cells, np.ones(len(cells.label_n), bool))
    else:
        other = cells_of_table(reference, class_names, where="The reference table")
        known = reference_of(other, np.ones(len(other.label_n), bool))
    return Gathered(cells, known)
