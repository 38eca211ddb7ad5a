"""Experiments on a real Slurm that kills, loses, preempts and stops jobs end with the numbers of this machine."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.slurm.scenario import AFTER_A_MINUTE_S, LARGE, SMALL, account, compare, perikarya
from tests.tiny import make_study

from perikarya.experiment.status import run_status
from perikarya.launch.slurm.record import read_submissions
from perikarya.runs import RunFolder

pytestmark = [pytest.mark.slurm, pytest.mark.usefixtures("slurm")]


def check_traces(folder: Path) -> None:
    """See in the accounts that all of it happened, and in the folder that nothing of it is left."""
    local, cluster = RunFolder(folder / "local"), RunFolder(folder / "cluster")
    told = account(cluster)
    assert "NODE_FAIL" in told
    assert "REQUEUED" in told or "PREEMPTED" in told
    assert "0:9" in told  # killed
    assert len(read_submissions(cluster.root)) == 2
    assert {task.state for task in run_status(cluster)} == {"done"}
    files = [{path.relative_to(run.root) for path in run.root.glob("tasks/**/*")} for run in (local, cluster)]
    assert files[0] == files[1]


@pytest.mark.timeout(1500)
def test_a_small_grid_survives_everything_at_once(tmp_path: Path) -> None:
    study = make_study(tmp_path / "study").root
    mischief = compare(study, tmp_path, SMALL, signal_s=30, timeout_s=1200)
    assert len(mischief.done) == 4
    check_traces(tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(4 * 3600)
def test_three_models_five_folds_and_two_seeds_of_real_cells_survive_it_too(rbc: Path, tmp_path: Path) -> None:
    perikarya("study", "import", rbc / "cells" / "development", "--out", tmp_path / "study")
    compare(tmp_path / "study", tmp_path, LARGE, signal_s=AFTER_A_MINUTE_S, timeout_s=3 * 3600)
    check_traces(tmp_path)
