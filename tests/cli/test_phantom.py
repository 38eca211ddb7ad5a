from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from perikarya.cli.app import app
from perikarya.data.store import open_study
from perikarya.errors import ConfigError


def paint(out: Path, *words: str) -> str:
    asked = ["study", "phantom", "--out", str(out), "--cells", "60", *words]
    return CliRunner().invoke(app, asked, catch_exceptions=False).output


def test_a_phantom_is_painted_as_qupath_leaves_it_and_the_next_command_is_told(tmp_path: Path) -> None:
    said = paint(tmp_path / "slides", "--as", "qupath", "--external", "3")
    n_fields = {folder: len(list((tmp_path / "slides" / folder).glob("*.png"))) for folder in ("graded", "new")}
    assert min(n_fields.values()) > 0
    for folder, n in n_fields.items():
        assert f"{folder}: {n} images, each with its .geojson, and metadata.csv" in said.replace("\n", "")
    assert "study import" in said
    assert "--um-per-px 0.5" in said
    assert not (tmp_path / "slides" / "study.yaml").exists()


def test_a_phantom_study_has_as_many_external_animals_as_asked_for(tmp_path: Path) -> None:
    paint(tmp_path / "study", "--external", "2")
    cells = open_study(tmp_path / "study").cells
    assert cells.loc[cells["set"] == "external", "subject"].nunique() == 2


def test_a_phantom_is_painted_as_nothing_else(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--as study or --as qupath, not 'imagej'"):
        paint(tmp_path / "x", "--as", "imagej")
    assert not (tmp_path / "x").exists()
