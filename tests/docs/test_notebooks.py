"""Notebooks are kept without outputs and run from top to bottom."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

NOTEBOOKS = sorted((Path(__file__).parents[2] / "docs" / "notebooks").glob("*.ipynb"))
FAST = "look_at_a_study"


def source(cell: dict[str, Any]) -> str:
    return "".join(cell["source"])


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_a_notebook_is_kept_without_outputs_and_begins_with_what_it_is_for(path: Path) -> None:
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)
    assert source(cells[0]).startswith("# ")
    assert len(code) <= 12
    assert any("perikarya.load_study(" in source(cell) for cell in code)


def execute(path: Path, folder: Path) -> list[dict[str, Any]]:
    """Run a notebook in an empty folder; return its code cells with what came out."""
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    notebook = nbformat.read(path, as_version=4)
    nbclient.NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(folder)}}).execute()
    return [cell for cell in notebook.cells if cell["cell_type"] == "code"]


def shown(cells: list[dict[str, Any]]) -> str:
    """What the cells show as text."""
    outputs = [output for cell in cells for output in cell["outputs"]]
    return "\n".join(str(output.get("data", {}).get("text/plain", "")) for output in outputs)


def n_pictures(cells: list[dict[str, Any]]) -> int:
    return sum("image/png" in output.get("data", {}) for cell in cells for output in cell["outputs"])


def path_of(name: str) -> Path:
    return next(path for path in NOTEBOOKS if path.stem == name)


def test_the_look_at_a_study_runs_and_shows_cells(tmp_path: Path) -> None:
    cells = execute(path_of(FAST), tmp_path)
    assert n_pictures(cells) == 4
    assert "Study 'phantom': 420 cells (" in shown(cells)
    assert "(True, [])" in shown(cells)


@pytest.mark.slow
def test_two_models_are_trained_and_compared(tmp_path: Path) -> None:
    cells = execute(path_of("train_and_compare"), tmp_path)
    assert n_pictures(cells) == 1
    assert "outline (ensemble)" in shown(cells)


@pytest.mark.slow
def test_new_cells_are_predicted_and_quantified(tmp_path: Path) -> None:
    text = shown(execute(path_of("predict_and_quantify"), tmp_path))
    assert "ischemia+hypothermia" in text
    assert "Predictor 'pretrained': 3 network(s)" in text
