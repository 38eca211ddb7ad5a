"""A study read row by row is the study."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from tests import tiny

from perikarya.data.store import OpenStudy
from perikarya.errors import DataError
from perikarya.predict import study_rows
from perikarya.predict.study_rows import open_rows


@pytest.fixture
def opened(tmp_path: Path) -> OpenStudy:
    """A study of 144 cells whose table has groups of 50 rows."""
    found = tiny.make_study(tmp_path / "study")
    table = pq.read_table(found.root / "cells.parquet")
    pq.write_table(table, found.root / "cells.parquet", row_group_size=50)
    return found


@pytest.mark.parametrize(
    ("begin", "end", "at_once"), [(0, 144, 144), (0, 144, 7), (49, 101, 20), (60, 61, 5), (9, 9, 5)]
)
def test_every_row_comes_once_with_its_own_crop(
    opened: OpenStudy, monkeypatch: pytest.MonkeyPatch, begin: int, end: int, at_once: int
) -> None:
    monkeypatch.setattr(study_rows, "_ROWS_AT_ONCE", 16)
    parts = list(open_rows(opened.root).between(begin, end, at_once=at_once))
    assert [len(part.cells) for part in parts[:-1]] == [at_once] * (len(parts) - 1)
    if begin == end:
        assert parts == []
        return
    pd.testing.assert_frame_equal(
        pd.concat([part.cells for part in parts], ignore_index=True),
        opened.cells.iloc[begin:end].reset_index(drop=True),
    )
    np.testing.assert_array_equal(np.concatenate([part.crops for part in parts]), opened.crops[begin:end])
    rows = np.arange(len(parts[-1].cells))
    np.testing.assert_array_equal(parts[-1].read_crops(rows), parts[-1].crops)


def test_what_is_no_study_is_said(opened: OpenStudy) -> None:
    root = opened.root
    table = pq.read_table(root / "cells.parquet")
    pq.write_table(table.slice(0, 100), root / "cells.parquet")
    with pytest.raises(DataError, match=r"the table and study\.yaml call for uint8 \(100, 32, 32, 4\)"):
        open_rows(root)
    pq.write_table(table.replace_schema_metadata({"perikarya_schema": "9"}), root / "cells.parquet")
    with pytest.raises(DataError, match="schema version 9"):
        open_rows(root)
    (root / "cells.parquet").write_bytes(b"nonsense")
    with pytest.raises(DataError, match="is damaged"):
        open_rows(root)
    (root / "cells.parquet").unlink()
    with pytest.raises(DataError, match=r"cells\.parquet does not exist"):
        open_rows(root)


def test_a_change_of_the_table_or_the_description_changes_the_hash(opened: OpenStudy) -> None:
    before = open_rows(opened.root).sha256()
    text = (opened.root / "study.yaml").read_text()
    (opened.root / "study.yaml").write_text(text.replace("tiny", "other"))
    changed = open_rows(opened.root).sha256()
    assert before != changed
    (opened.root / "study.yaml").write_text(text)
    assert open_rows(opened.root).sha256() == before
