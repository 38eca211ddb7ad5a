"""Wait for work in the background."""

from __future__ import annotations

import time
from typing import Any

from perikarya.review.embedding import Maps


def made(maps: Maps, method: str, *, patience_s: float = 120) -> dict[str, Any]:
    """Start a map and return its state when the work has ended, well or not."""
    deadline = time.monotonic() + patience_s
    state = maps.start(method)
    while state["status"] == "working":
        assert time.monotonic() < deadline, state
        time.sleep(0.01)
        state = maps.state(method)
    return state
