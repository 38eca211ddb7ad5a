"""Fixtures for what is submitted to Slurm."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.launch.slurm.fake_cluster import FakeCluster, make_fake_cluster


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeCluster:
    """A cluster whose jobs wait forever, and which refuses and dies on demand."""
    return make_fake_cluster(tmp_path / "cluster", monkeypatch)
