"""Of two workers on one task the newer one goes on, the older one stops before it writes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from perikarya.errors import InterruptedWorkError
from perikarya.experiment import claim as claim_module
from perikarya.experiment.claim import CLAIM_FILE, Claim, read_owner


def take(folder: Path, *, done: bool = False) -> Claim:
    return Claim.take(folder, is_done=lambda: done)


def test_a_claim_says_who_works_and_since_when(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    take(tmp_path / "task").check()
    owner = read_owner(tmp_path / "task" / CLAIM_FILE)
    assert owner is not None
    assert (owner.pid, owner.job) == (os.getpid(), "17")


def test_the_older_of_two_workers_stops_and_the_newer_goes_on(tmp_path: Path) -> None:
    older = take(tmp_path)
    older.check()
    newer = take(tmp_path)
    with pytest.raises(InterruptedWorkError, match="a newer worker"):
        older.check()
    newer.check()


def test_the_older_worker_does_not_remove_the_claim_of_the_newer(tmp_path: Path) -> None:
    older, newer = take(tmp_path), take(tmp_path)
    older.release()
    with pytest.raises(InterruptedWorkError):
        older.check()
    newer.release()
    assert not (tmp_path / CLAIM_FILE).exists()


def test_a_claim_that_is_gone_is_taken_again_while_there_is_work(tmp_path: Path) -> None:
    claim = take(tmp_path)
    (tmp_path / CLAIM_FILE).unlink()
    claim.check()
    assert (tmp_path / CLAIM_FILE).exists()


def test_a_worker_whose_work_another_has_ended_stops(tmp_path: Path) -> None:
    claim = take(tmp_path, done=True)
    (tmp_path / CLAIM_FILE).unlink()
    with pytest.raises(InterruptedWorkError, match="ended this work meanwhile"):
        claim.check()
    assert not (tmp_path / CLAIM_FILE).exists()


def test_a_look_now_and_then_is_enough_between_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = 100.0
    monkeypatch.setattr(claim_module.time, "monotonic", lambda: clock)
    older = take(tmp_path)
    take(tmp_path)
    clock = 100.9
    older.check(at_most_every_s=1)
    clock = 101.1
    with pytest.raises(InterruptedWorkError):
        older.check(at_most_every_s=1)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"token": "x"}'])
def test_a_damaged_claim_is_nobodys(tmp_path: Path, content: str) -> None:
    claim = take(tmp_path)
    (tmp_path / CLAIM_FILE).write_text(content)
    claim.check()
    owner = read_owner(tmp_path / CLAIM_FILE)
    assert owner is not None
    assert owner.pid == os.getpid()


def test_several_pieces_of_work_in_one_folder_have_a_claim_each(tmp_path: Path) -> None:
    one = Claim.take(tmp_path, is_done=lambda: False, name="one.json")
    Claim.take(tmp_path, is_done=lambda: False, name="two.json")
    one.check()
