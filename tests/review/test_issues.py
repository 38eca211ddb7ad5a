from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tests.fake_run import CLASSES, make_fake_run

from perikarya.errors import RunError
from perikarya.evaluate.collect import evaluate_run, write_results
from perikarya.review.cells import open_review
from perikarya.review.columns import CategoryColumn, NumberColumn
from perikarya.review.issues import issue_columns
from perikarya.runs import RunFolder, write_text

IDS = pd.Index(["a", "b", "c", "d"], dtype=object)
LABELS = np.array([0, 1, 2, -1], np.int32)
HEADER = "rank,cell_id,flagged,label,suggested,self_confidence\n"


def columns(run: RunFolder) -> tuple[list[float | None], list[str]]:
    doubt, flagged = issue_columns(run, IDS, LABELS, CLASSES)
    assert isinstance(doubt, NumberColumn)
    assert isinstance(flagged, CategoryColumn)
    return [None if np.isnan(x) else round(float(x), 4) for x in doubt.numbers], [
        flagged.values[code] for code in flagged.codes
    ]


def test_doubts_are_one_minus_the_self_confidence_of_labels_that_are_still_the_same(tmp_path: Path) -> None:
    rows = ["1,b,yes,intermediate,normal,0.05", "2,a,no,normal,pyknotic,0.4", "3,c,yes,normal,pyknotic,0.1", "4,x,,,,0"]
    write_text(tmp_path / "label_issues.csv", HEADER + "\n".join(rows))
    assert columns(RunFolder(tmp_path)) == ([0.6, 0.95, None, None], ["no", "yes", "no", "no"])


def test_a_run_whose_labels_were_not_judged_has_no_such_columns(tmp_path: Path) -> None:
    assert issue_columns(RunFolder(tmp_path), IDS, LABELS, CLASSES) == []


@pytest.mark.parametrize("content", ["", "rank,cell_id\n1,a\n", "a\nb,c,d\n"])
def test_a_damaged_table_is_named(tmp_path: Path, content: str) -> None:
    write_text(tmp_path / "label_issues.csv", content)
    with pytest.raises(RunError, match="evaluate"):
        issue_columns(RunFolder(tmp_path), IDS, LABELS, CLASSES)


def test_an_evaluated_run_brings_its_doubts(tmp_path: Path) -> None:
    made = make_fake_run(tmp_path, n_cells=90, n_external=0, n_folds=3)
    opened = made.opened
    write_results(made.run, evaluate_run(made.run, opened.cells, opened.study, made.config, tasks=made.tasks))
    table = open_review(made.run.root, reader="ann")
    listed = pd.read_csv(made.run.root / "label_issues.csv")
    doubt = {c["key"]: c for c in table.info()["columns"]}["label_doubt"]
    assert doubt["range"][1] == pytest.approx(1 - listed["self_confidence"].min(), abs=1e-4)
