"""Fixtures that all tests share."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

# Shells start background jobs deaf to Ctrl-C, and whatever those start stays deaf; tests send it to what they start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def rbc() -> Path:
    """Real annotated cells (Chula-RBC-12), which the product does not need and the repository does not hold."""
    beside = Path(__file__).resolve().parents[1].parent / "shared" / "data" / "rbc"
    root = Path(os.environ.get("PERIKARYA_RBC", beside))
    if not (root / "cells" / "development" / "metadata.csv").is_file():
        pytest.skip(f"no real cells at {root}; set PERIKARYA_RBC to the folder that holds cells/ and fields/")
    return root
