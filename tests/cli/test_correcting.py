"""The commands on what people said in a review, from the terminal."""

from __future__ import annotations

import json
import uuid
from pathlib import Path

import pytest
from tests.outlined import CLASSES, SOURCES
from typer.testing import CliRunner

from perikarya.cli.app import app
from perikarya.cli.correcting import agreement_command
from perikarya.data.corrections import CorrectionLog, NewEntry
from perikarya.data.importers import import_study
from perikarya.data.importers.base import ImportOptions
from perikarya.data.store import OpenStudy, open_study
from perikarya.review.readings import Readings


@pytest.fixture
def opened(tmp_path: Path) -> OpenStudy:
    source = SOURCES["geojson"](tmp_path / "source")
    return import_study(source, tmp_path / "study", options=ImportOptions(classes=CLASSES))


@pytest.fixture(autouse=True)
def _wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")


def correct(opened: OpenStudy, row: int, new: str) -> None:
    cell = opened.cells.iloc[row]
    entry = NewEntry(str(uuid.uuid4()), "label", cell["cell_id"], cell["label"], new)
    CorrectionLog(opened.root).append([entry], by="Ann")


def run(*arguments: str | Path) -> str:
    result = CliRunner().invoke(app, ["study", *map(str, arguments)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_apply_says_what_changed(opened: OpenStudy, tmp_path: Path) -> None:
    correct(opened, 0, "pyknotic")
    correct(opened, 1, "intermediate")
    said = run("apply-corrections", opened.root, "--out", tmp_path / "new")
    assert "2 entries of the log: 1 labels changed, 1 confirmed." in said
    assert "normal -> pyknotic: 1" in said
    assert open_study(tmp_path / "new").cells["label"].iloc[0] == "pyknotic"
    run("apply-corrections", opened.root, "--out", tmp_path / "first", "--until", "1")
    run("apply-corrections", opened.root, "--out", tmp_path / "new", "--overwrite")


def test_export_writes_both_formats_unless_told_otherwise(opened: OpenStudy, tmp_path: Path) -> None:
    correct(opened, 0, "pyknotic")
    assert "6 cells of 2 images" in run("export-corrections", opened.root, "--out", tmp_path / "both")
    assert {path.name for path in (tmp_path / "both" / "fields").iterdir()} == {
        "f0.geojson", "f1.geojson", "f0.rois.zip", "f1.rois.zip", "metadata.csv",
    }  # fmt: skip
    run("export-corrections", opened.root, "--out", tmp_path / "one", "--format", "roi")
    assert not list((tmp_path / "one").rglob("*.geojson"))


def test_agreement_shows_kappas_with_intervals_and_for_programs(opened: OpenStudy) -> None:
    assert "Nobody has read cells blind yet." in run("agreement", opened.root)
    readings = Readings(opened)
    for k, name in enumerate(("Ann", "[b]Bob[/b]", "Cleo")):
        one = readings.start(name, n_cells=6, n_repeats=2, seed=0)
        for place, row in enumerate(one.rows):
            code = int(opened.labels[row]) if place % (k + 2) else 0
            readings.record(one.round, reader=name, place=place, code=code, click=str(uuid.uuid4()))
    said = run("agreement", opened.root)
    for word in ("Two readers", "[b]Bob[/b]", "weighted", "Fleiss' kappa", "The same reader twice", *CLASSES):
        assert word in said
    found = json.loads(run("agreement", opened.root, "--json"))
    assert len(found["pairs"]) == 6
    assert found == readings.agreement()
    table = opened.root / "readings.csv"
    agreement_command(opened.root, as_json=True, table=table)
    assert len(table.read_text().splitlines()) == 1 + 3 * 8
