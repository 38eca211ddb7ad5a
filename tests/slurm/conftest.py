"""A real Slurm for the tests marked so; see ``cluster.bring_up`` for where it comes from."""

from __future__ import annotations

import pytest
from tests.slurm.cluster import bring_up


@pytest.fixture(scope="session")
def slurm() -> None:
    """Have a controller that answers, or skip with the reason."""
    why_not = bring_up()
    if why_not:
        pytest.skip(why_not)
