"""Wait for work in the background."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from perikarya.review.embedding import Maps


def until(true: Callable[[], bool], *, patience_s: float = 60) -> None:
    """Return when something has become true."""
    deadline = time.monotonic() + patience_s
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def made(maps: Maps, method: str, *, patience_s: float = 120) -> dict[str, Any]:
    """Start a map and return its state when the work has ended, well or not."""
    maps.start(method)
    until(lambda: maps.state(method)["status"] != "working", patience_s=patience_s)
    return maps.state(method)
