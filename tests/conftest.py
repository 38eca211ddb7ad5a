"""Fixtures that all tests share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def rbc() -> Path:
    """Real annotated cells (Chula-RBC-12), which the product does not need and the repository does not hold."""
    beside = Path(__file__).resolve().parents[1].parent / "shared" / "data" / "rbc"
    root = Path(os.environ.get("PERIKARYA_RBC", beside))
    if not (root / "cells" / "development" / "metadata.csv").is_file():
        pytest.skip(f"no real cells at {root}; set PERIKARYA_RBC to the folder that holds cells/ and fields/")
    return root
