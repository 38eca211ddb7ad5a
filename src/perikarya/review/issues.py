"""What the evaluation of a run says of the labels, as columns: the table of labels that are probably wrong."""

from __future__ import annotations

import logging

import numpy as np
import pandas as pd

from perikarya.errors import RunError
from perikarya.review.columns import Codes, Column, NumberColumn, no_yes
from perikarya.runs import RunFolder

log = logging.getLogger(__name__)

_NEEDED = ("cell_id", "flagged", "label", "self_confidence")


def issue_columns(run: RunFolder, cell_ids: pd.Index, label_n: Codes, class_names: tuple[str, ...]) -> list[Column]:
    """Return the columns ``label_doubt`` and ``flagged`` of a run whose labels were judged, else none.

    A doubt is one minus the self-confidence of ``evaluate.label_quality``. Only labels that are still the same count;
    the table names doubtful cells alone, so all others have no doubt, and are not flagged.

    Parameters
    ----------
    cell_ids, label_n
        Identity and code of the label of each cell of the study.

    Raises
    ------
    RunError
        If the table is damaged.
    """
    from perikarya.evaluate.label_quality import LABEL_ISSUES, read_label_table  # loads scipy.stats

    path = run.root / LABEL_ISSUES
    if not path.is_file():
        return []
    try:
        table = read_label_table(path)
    except (ValueError, OSError) as error:
        raise RunError(
            f"{path} cannot be read ({str(error).splitlines()[0]}).\nFix: make it again with 'perikarya evaluate'."
        ) from None
    missing = [name for name in _NEEDED if name not in table]
    if missing:
        raise RunError(f"{path} lacks {', '.join(missing)}.\nFix: make it again with 'perikarya evaluate'.")
    rows = cell_ids.get_indexer(pd.Index(table["cell_id"].astype(object)))
    codes = pd.Index(class_names).get_indexer(pd.Index(table["label"].astype(object)))
    same = (rows >= 0) & (codes == label_n[rows])
    doubt = np.full(len(cell_ids), np.nan, np.float32)
    doubt[rows[same]] = 1.0 - table["self_confidence"].to_numpy(np.float32)[same]
    flagged = np.zeros(len(cell_ids), np.bool_)
    flagged[rows[same]] = (table["flagged"] == "yes").fillna(False).to_numpy(bool)[same]
    return [
        NumberColumn("label_doubt", "doubt of the label (1: surely wrong)", doubt),
        no_yes("flagged", "flagged as probably mislabelled", flagged),
    ]
