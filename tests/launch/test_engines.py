"""What there is for the work: cores and GPUs of this machine shared out, or what a task asks of a cluster."""

from __future__ import annotations

from typing import Any

import pytest

from perikarya.config import LaunchConfig
from perikarya.errors import ConfigError
from perikarya.launch import engines
from perikarya.launch.engines import Share, share_out


@pytest.fixture(autouse=True)
def _a_machine_of_eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "n_cores", lambda: 8)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


def share(gpus: tuple[str, ...] = (), **launch: Any) -> Share:
    return share_out(LaunchConfig.model_validate(launch), gpus)


@pytest.mark.parametrize(
    ("gpus", "launch", "expected"),
    [
        ((), {}, Share(1, 8)),
        ((), {"jobs": 3}, Share(3, 2)),
        ((), {"jobs": 16}, Share(16, 1)),
        ((), {"jobs": 2, "threads": 5}, Share(2, 5)),
        ((), {"processes_per_task": 2}, Share(1, 4)),
        (("0", "1"), {}, Share(2, 4, ("0", "1"))),
        (("0", "1"), {"jobs": 4}, Share(4, 2, ("0", "1"))),
        (("0", "1", "5"), {"processes_per_task": 2}, Share(1, 4, ("0,1",))),
        (("0", "1", "2", "3"), {"processes_per_task": 2}, Share(2, 2, ("0,1", "2,3"))),
        ((), {"engine": "ray", "jobs": 2}, Share(2, 4)),
        ((), {"engine": "ray", "jobs": 2, "ray": {"address": "auto"}}, Share(2, 4)),
        ((), {"engine": "ray", "ray": {"address": "auto"}}, Share(1, 4)),
        ((), {"engine": "slurm", "slurm": {"cpus": 6}}, Share(1, 6)),
        ((), {"engine": "slurm", "slurm": {"cpus": 6, "gpus": 2}, "processes_per_task": 2}, Share(1, 3)),
        (("0",), {"engine": "slurm", "slurm": {"cpus": 2}, "processes_per_task": 2}, Share(1, 1)),
    ],
)
def test_cores_and_gpus_are_shared_out(gpus: tuple[str, ...], launch: dict[str, Any], expected: Share) -> None:
    assert share(gpus, **launch) == expected


def test_the_cluster_of_the_environment_counts_like_one_that_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert share(engine="ray") == Share(1, 8)
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    assert share(engine="ray") == Share(1, 4)


def test_more_processes_than_gpus_are_refused_where_they_are_looked_for() -> None:
    with pytest.raises(ConfigError, match=r"processes_per_task is 3, but this machine has 2 GPU"):
        share(("0", "1"), processes_per_task=3)
    with pytest.raises(ConfigError, match=r"launch\.slurm\.gpus has 1 GPU"):
        share(engine="slurm", slurm={"gpus": 1}, processes_per_task=2)
