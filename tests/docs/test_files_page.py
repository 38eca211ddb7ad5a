"""The page of files names the files and columns that the code writes."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from perikarya.data.corrections import LOG_PATH, Entry
from perikarya.data.relabel import TABLE_PATH
from perikarya.evaluate.ceiling import READINGS_FILE
from perikarya.evaluate.label_quality import LABEL_ISSUES
from perikarya.evaluate.outputs import HISTORY_FILE
from perikarya.runs import RESULT_FILE, TASK_TEMPORARIES, RunFolder
from perikarya.schema import CELL_COLUMNS, Study

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "files.md"


def section(title: str) -> str:
    """The words of the page under a heading, up to the next one of any level."""
    _, found, rest = PAGE.read_text(encoding="utf-8").partition(f"# {title}\n")
    assert found, title
    return rest.partition("\n#")[0]


def test_every_column_of_the_table_of_cells_is_told() -> None:
    assert [c for c in CELL_COLUMNS if f"`{c}`" not in section("cells.parquet")] == []


def test_every_key_of_a_study_is_told() -> None:
    assert [key for key in Study.model_fields if f"`{key}`" not in section("A study") and key != "schema_version"] == []


@pytest.mark.parametrize("name", ["config", "folds", "check", "results", "report", "figures", "log"])
def test_every_place_in_a_run_folder_is_told(name: str) -> None:
    place: Path = getattr(RunFolder(Path("RUN")), name)
    assert f"`{place.name}`" in section("A run") or f"`{place.name}/`" in section("A run")


def test_every_file_of_a_task_is_told() -> None:
    text = section("A task: tasks/&lt;model&gt;/seed&lt;s&gt;/fold&lt;k&gt;")
    assert [name for name in (RESULT_FILE, HISTORY_FILE, *TASK_TEMPORARIES) if f"`{name}`" not in text] == []
    assert f"`{LABEL_ISSUES}`" in section("A run")


def test_every_key_of_a_correction_is_told() -> None:
    text = section("Corrections and readings")
    assert [field.name for field in fields(Entry) if f"`{field.name}`" not in text] == []
    assert [
        place for place in (LOG_PATH.as_posix(), TABLE_PATH.as_posix(), READINGS_FILE) if f"`{place}`" not in text
    ] == []
