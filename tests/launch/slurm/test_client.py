"""Slurm's programs are asked without a shell, again when the controller is silent, and believed only so far."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.launch.slurm.fake_cluster import FakeCluster, make_fake_cluster

from perikarya.errors import RunError
from perikarya.launch.slurm import client
from perikarya.launch.slurm.refusals import explain


def program(cluster: FakeCluster, name: str, body: str) -> None:
    (cluster.programs / name).write_text(f"#!/bin/sh\n{body}\n")


def test_elements_that_wait_together_are_spelled_out() -> None:
    text = "7_[0-2,5%1]|PENDING|0:0|None assigned|Unknown|Unknown||1G|60|Priority\n"
    assert list(client.parse_accounts(text)) == ["7_0", "7_1", "7_2", "7_5"]


def test_the_memory_of_a_start_is_that_of_its_largest_step_and_starts_are_kept_apart() -> None:
    start = "|RUNNING|0:0|cn1|2026-11-23T09:15:39|Unknown|{}|1G|60|None\n"
    text = "".join(
        job + start.format(memory)
        for job, memory in [
            ("7_0", ""), ("7_0.batch", "100K"), ("7_0.extern", "1M"), ("7_0.0", "900K"), ("7_1", ""), ("7_0", ""),
            ("7_0.batch", "2M"),
        ]
    )  # fmt: skip
    starts = client.parse_accounts(text)
    assert [start.max_rss for start in starts["7_0"]] == ["1M", "2M"]
    assert [start.max_rss for start in starts["7_1"]] == [""]


@pytest.mark.parametrize(
    ("text", "mib"), [("320608K", 313.09375), ("1.50G", 1536), ("500Mn", 500), ("2T", 2097152), ("", 0), ("16?", 16)]
)
def test_memory_is_read_as_slurm_writes_it(text: str, mib: float) -> None:
    assert client.memory_mib(text) == mib


def test_a_controller_that_stays_silent_is_a_sentence(
    cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(client, "_PAUSES_S", (0.0, 0.0))
    said = "slurm_load_jobs error: Unable to contact slurm controller (connect failure)"
    program(cluster, "squeue", f'echo x >> "$FAKE_SLURM/asked"; echo "{said}" >&2; exit 1')
    with pytest.raises(RunError, match=r"controller does not answer\.\nFix: give the same command again later"):
        client.queue(["a"])
    assert (cluster.state / "asked").read_text().split() == ["x"] * 3
    assert caplog.text.count("trying again") == 2


def test_a_program_that_hangs_is_given_up(cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "_TIMEOUT_S", 0.2)
    program(cluster, "squeue", "exec sleep 30")
    with pytest.raises(RunError, match="'squeue' did not answer within 0 s"):
        client.queue(["a"])


@pytest.mark.parametrize(("said", "warnings"), [("Slurm accounting storage is disabled", 0), ("slurmdbd is ill", 1)])
def test_without_accounts_one_goes_on_and_says_so_unless_none_are_kept(
    cluster: FakeCluster, caplog: pytest.LogCaptureFixture, said: str, warnings: int
) -> None:
    program(cluster, "sacct", f'echo "{said}" >&2; exit 1')
    assert client.accounts(["7"], since="2026-11-22") == {}
    assert caplog.text.count(said) == warnings


def test_where_there_is_no_sacct_nothing_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = make_fake_cluster(tmp_path / "c", monkeypatch, without=("sacct",))
    monkeypatch.setenv("PATH", str(fake.programs))
    assert client.accounts(["7"], since="2026-11-22") == {}


def test_a_program_that_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RunError, match="no 'squeue' on this machine"):
        client.queue(["a"])


@pytest.mark.parametrize(
    ("said", "setting"),
    [  # recorded on Slurm 22.05, but for the two about limits of accounts
        ("sbatch: error: invalid partition specified: nosuch\nsbatch: error: Batch job ...", "slurm.partition"),
        ("sbatch: error: Batch job submission failed: Requested node configuration is not available", "slurm.cpus"),
        ("sbatch: error: Memory specification can not be satisfied\nsbatch: error: Batch job ...", "slurm.mem"),
        ("sbatch: error: Invalid generic resource (gres) specification", "slurm.gpus"),
        ("sbatch: unrecognized option '--foo'\nTry \"sbatch --help\" for more information", "slurm.options"),
        ("sbatch: error: Slurm temporarily unable to accept job, sleeping and retrying\nsbatch: error: Batch job "
         "submission failed: Resource temporarily unavailable", "slurm.tasks_per_job"),
        ("sbatch: error: Batch job submission failed: Invalid account or account/partition combination specified",
         "slurm.account"),
        ("sbatch: error: Batch job submission failed: Invalid qos specification", "slurm.qos"),
        ("sbatch: error: Batch job submission failed: Requested time limit is invalid (missing or exceeds some limit)",
         "slurm.time"),
        ("sbatch: error: QOSMaxSubmitJobPerUserLimit\nsbatch: error: Batch job submission failed: Job violates "
         "accounting/QOS policy (job submit limit, user's size and/or time limits)", "slurm.tasks_per_job"),
        ("sbatch: error: AssocMaxSubmitJobLimit", "slurm.tasks_per_job"),
    ],
)  # fmt: skip
def test_a_refusal_names_the_setting_and_keeps_slurms_words(said: str, setting: str) -> None:
    sentence = explain("sbatch", said)
    assert setting in sentence
    assert "Fix: " in sentence
    assert said.splitlines()[0] in sentence


def test_an_unknown_refusal_is_passed_on_as_it_is() -> None:
    assert explain("sbatch", "sbatch: error: No more magnetic tape\n") == (
        "'sbatch' refused: sbatch: error: No more magnetic tape."
    )
