"""What a cluster would take and never start is refused beforehand."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.launch.slurm.fake_cluster import FakeCluster

from perikarya.errors import RunError
from perikarya.launch.slurm import client
from perikarya.launch.slurm.limits import Limits, ask_limits, check_time, seconds
from perikarya.settings import SlurmConfig


@pytest.mark.parametrize(
    ("text", "expected"),
    [("90", 5400), ("90:30", 5430), ("4:00:00", 14400), ("2-12", 216000), ("2-12:30", 217800), ("1-00:00:01", 86401)],
)
def test_times_are_read_as_slurm_reads_them(text: str, expected: int) -> None:
    assert seconds(text) == expected


def test_the_smaller_of_two_limits_on_arrays_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    text = (
        "MaxArraySize            = 1001\nMaxJobCount             = 500\nSchedulerParameters     = a,max_array_tasks=64"
    )
    monkeypatch.setattr(client, "call", lambda words: text)
    monkeypatch.setattr("shutil.which", lambda name: name)
    assert ask_limits() == Limits(array_elements=64, jobs=500)


def test_slurms_defaults_hold_where_nobody_can_be_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert ask_limits() == Limits(1001, 10_000)


@pytest.mark.parametrize("partition", [None, "main", "short,main", "endless", "unheard-of"])
def test_a_time_that_some_partition_allows_passes(cluster: FakeCluster, partition: str | None) -> None:
    check_time(SlurmConfig(partition=partition, time="6-00:00:00"))


def test_the_default_partition_is_looked_at_where_none_is_named(cluster: FakeCluster) -> None:
    with pytest.raises(RunError, match="partition main lets a job last 7-00:00:00 at most"):
        check_time(SlurmConfig(time="7-00:00:01"))


def test_a_quality_of_service_may_allow_more(cluster: FakeCluster) -> None:
    check_time(SlurmConfig(time="30-00", qos="endless"))
