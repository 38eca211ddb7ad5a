"""A study, and a run on it that a test may change; each module trains its own as the fixture ``trained_run``."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from tests.tiny import make_study

from perikarya.data.store import OpenStudy
from perikarya.runs import RunFolder


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> OpenStudy:
    torch.set_num_threads(1)
    return make_study(tmp_path_factory.mktemp("study") / "tiny")


@pytest.fixture
def run(trained_run: Path, tmp_path: Path) -> RunFolder:
    return RunFolder(Path(shutil.copytree(trained_run, tmp_path / "run")))
