from __future__ import annotations

import pytest

from perikarya.data import picture_tiff, pictures


@pytest.fixture
def by_window(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read tiled pictures of any size by window."""
    monkeypatch.setattr(pictures, "SMALL_PIXELS", 0)


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take every picture for a large one."""
    monkeypatch.setattr(pictures, "MAX_PIXELS", 1000)
    monkeypatch.setattr(picture_tiff, "MAX_PIXELS", 1000)
