"""The whole zoo, small."""

from __future__ import annotations

import pytest
import torch
from tests.models.reduced import reduced

from perikarya.models.zoo import NETWORKS


@pytest.fixture
def small_zoo(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace every network by a small relative of the same kind."""
    torch.set_num_threads(1)
    for name, spec in NETWORKS.items():
        monkeypatch.setitem(NETWORKS._entries, name, reduced(spec))
