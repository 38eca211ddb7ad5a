"""A small finished run, with results and figures, in a folder of its own."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from tests.fake_run import FakeRun, make_fake_run

from perikarya.runs import write_json, write_text

RESULTS = {
    "models": {"beta (ensemble)": {"external": {"accuracy": {"mean": 0.8, "sd_folds": None, "ci95": [0.7, 0.9]}}}},
    "provenance": {"versions": {"scipy": "1.0"}},
}


@pytest.fixture
def done(tmp_path: Path) -> FakeRun:
    """Two models in three folds, evaluated; in one task a class had no cells."""
    names = {"class_names": ("normal", "dark, red"), "models": ("alpha_head", "beta")}
    made = make_fake_run(tmp_path / "of it", n_cells=60, n_external=20, n_folds=3, **names)
    write_json(made.run.results, RESULTS)
    write_text(made.run.report, "<p>a page</p>")
    made.run.figures.mkdir()
    cv2.imwrite(str(made.run.figures / "comparison.png"), np.full((20, 30, 3), 200, np.uint8))
    path = made.run.task(made.tasks[-1]) / "history.csv"
    history = pd.read_csv(path)
    history["train_loss_normal"] = np.nan
    write_text(path, history.to_csv(index=False))
    return made
