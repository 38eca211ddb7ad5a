"""Shards worked on by processes: whichever of them dies, the same command ends with the same bytes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest
from tests import tiny
from tests.predict.shard_makers import do_all, parts_of, planned_images, planned_study, wish_for
from tests.predict.tiny_models import make_field, tiny_model

from perikarya.config import LaunchConfig
from perikarya.errors import RunError
from perikarya.launch.jobs import Event
from perikarya.launch.slurm import states
from perikarya.predict.folder import ModelFolder
from perikarya.predict.planning import plan_study
from perikarya.predict.sharded import ShardListener, missing_shards, prediction_status, run_shards, submit_shards
from perikarya.predict.shards import ShardPlan, has_plan
from perikarya.predict.worker import shard_log
from perikarya.runs import write_text

N_SHARDS = 6


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ModelFolder:
    return tiny_model(tmp_path_factory.mktemp("model"), window_px=tiny.WINDOW_PX)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.make_study(tmp_path_factory.mktemp("tiny") / "study").root


class Heard(ShardListener):
    def __init__(self) -> None:
        self.events: list[Event] = []
        self.waiting: list[int] = []

    def planned(self, plan: ShardPlan, waiting: Sequence[int]) -> None:
        self.waiting = list(waiting)

    def event(self, event: Event) -> None:
        self.events.append(event)

    def kinds(self, name: str) -> list[str]:
        return [e.kind for e in self.events if e.job_id == name and e.kind != "progress"]


def run(
    study: Path, model: ModelFolder, out: Path, listener: ShardListener, **launch: Any
) -> tuple[Any, dict[str, str]]:
    plan = plan_study(study, wish_for(model, n_shards=N_SHARDS, batch_size=4))
    return run_shards(plan, out, LaunchConfig(**launch), gpus=(), listener=listener)


def contents(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in [*(out / "parts").iterdir(), out / "summary.csv"]}


def test_two_workers_make_the_bytes_of_one(study: Path, model: ModelFolder, tmp_path: Path) -> None:
    heard = Heard()
    done, failed = run(study, model, tmp_path / "two", heard, jobs=2)
    assert (failed, done.missing, len(done.plan.shards)) == ({}, (), N_SHARDS)
    assert heard.waiting == list(range(N_SHARDS))
    assert all(heard.kinds(done.plan.name(i)) == ["started", "done"] for i in range(N_SHARDS))
    last = {e.job_id: (e.done, e.total) for e in heard.events if e.kind == "progress"}
    assert last == {done.plan.name(i): (24, 24) for i in range(N_SHARDS)}
    alone = planned_study(study, model, tmp_path / "one", n_shards=N_SHARDS, batch_size=4)
    do_all(alone, tmp_path / "one")
    for ours, theirs in zip(parts_of(alone, tmp_path / "one"), parts_of(done.plan, tmp_path / "two"), strict=True):
        assert ours.read_bytes() == theirs.read_bytes()
    assert not (tmp_path / "two" / "done").exists()


def test_only_missing_shards_are_done_again(study: Path, model: ModelFolder, tmp_path: Path) -> None:
    plan = planned_study(study, model, tmp_path, n_shards=N_SHARDS, batch_size=4)
    do_all(plan, tmp_path)
    before = [path.stat().st_mtime_ns for path in parts_of(plan, tmp_path)]
    parts_of(plan, tmp_path)[1].unlink()
    parts_of(plan, tmp_path)[4].write_bytes(parts_of(plan, tmp_path)[3].read_bytes())
    assert missing_shards(plan, tmp_path) == [1, 4]
    heard = Heard()
    run(study, model, tmp_path, heard)
    assert heard.waiting == [1, 4]
    after = [path.stat().st_mtime_ns for path in parts_of(plan, tmp_path)]
    assert [i for i in range(N_SHARDS) if before[i] != after[i]] == [1, 4]


def test_a_shard_that_fails_is_named_and_the_others_are_done(study: Path, model: ModelFolder, tmp_path: Path) -> None:
    class Breaking(Heard):
        def planned(self, plan: ShardPlan, waiting: Sequence[int]) -> None:
            (out / "parts" / f"{plan.name(2)}.parquet").mkdir(parents=True)

    out, heard = tmp_path / "out", Breaking()
    done, failed = run(study, model, out, heard, jobs=2)
    name = done.plan.name(2)
    assert list(failed) == [name]
    assert "Is a directory" in failed[name]
    assert done.missing == (2,)
    status = {shard.name: shard for shard in prediction_status(out)}
    assert {shard.state for shard in status.values()} == {"done", "failed"}
    assert (status[name].n_done, status[name].n_cells) == (24, 24)
    assert "Is a directory" in status[name].note
    (out / "parts" / f"{name}.parquet").rmdir()
    _, failed = run(study, model, out, Heard())
    assert failed == {}
    assert {shard.state for shard in prediction_status(out)} == {"done"}


_SLOW = """
import time
from perikarya.predict.outputs import cells
once = cells.write_piece
def slowly(*args):
    once(*args)
    time.sleep(0.4)
cells.write_piece = slowly
"""


@pytest.fixture
def command(study: Path, model: ModelFolder, tmp_path: Path) -> list[str]:
    """The command line, with workers that take their time between the pieces and the part of a shard."""
    write_text(tmp_path / "slow" / "sitecustomize.py", _SLOW)
    out = str(tmp_path / "out")
    options = ["--shards", str(N_SHARDS), "--batch-size", "4", "--jobs", "2", "--format", "geojson"]
    return [sys.executable, "-m", "perikarya", "predict", str(model.root), str(study), "--out", out, *options]


def start(command: list[str], tmp_path: Path) -> subprocess.Popen[bytes]:
    env = os.environ | {"PYTHONPATH": str(tmp_path / "slow"), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL)


def wait_for(pattern: str, out: Path, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while not list(out.glob(pattern)):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.slow
def test_killing_a_worker_then_the_supervisor_costs_nothing_but_time(
    command: list[str], study: Path, model: ModelFolder, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    process = start(command, tmp_path)
    wait_for("done/*.00000.parquet", out, process)
    workers = [p for p in psutil.Process(process.pid).children() if "perikarya.predict.worker" in p.cmdline()]
    workers[0].send_signal(signal.SIGKILL)
    wait_for("parts/*.parquet", out, process)
    process.kill()
    process.wait()
    assert "was killed by SIGKILL" in (out / "predict.log").read_text()
    assert missing_shards(planned_study(study, model, out, n_shards=N_SHARDS, batch_size=4), out)
    again = start(command, tmp_path)
    assert again.wait(timeout=120) == 0
    run(study, model, tmp_path / "untouched", Heard())
    assert contents(out) == contents(tmp_path / "untouched")


def test_states_of_shards_are_read_from_their_files(study: Path, model: ModelFolder, tmp_path: Path) -> None:
    plan = planned_study(study, model, tmp_path, n_shards=N_SHARDS, batch_size=4)
    do_all(plan, tmp_path, [0])
    log = shard_log(tmp_path, plan, 1)
    told = "2026-01-01 00:00:00,000 {} {}\n"
    write_text(log, told.format("INFO", "part: 24 cells"))
    sentence = told.format("ERROR", "The disk is full.") + "Fix: make room.\n"
    write_text(shard_log(tmp_path, plan, 2), told.format("INFO", "part") + sentence)
    write_text(
        shard_log(tmp_path, plan, 3),
        told.format("ERROR", "Traceback (most recent call last):") + "  x\nValueError: no\n",
    )
    write_text(shard_log(tmp_path, plan, 4), sentence + told.format("INFO", "started on cn1 by process 7"))
    found = prediction_status(tmp_path)
    assert [shard.state for shard in found] == ["done", "started", "failed", "failed", "started", "waiting"]
    assert [shard.note for shard in found][2:4] == ["The disk is full.", "ValueError: no"]
    assert [shard.n_done for shard in found] == [24, 0, 0, 0, 0, 0]


def test_images_that_are_done_count_before_their_shard_is(tmp_path: Path) -> None:
    model = tiny_model(tmp_path / "model")
    items = [make_field(tmp_path / "fields", f"f{i}", n=6 + i, seed=i) for i in range(3)]
    plan = planned_images(items, model, tmp_path / "out", n_shards=1)
    do_all(plan, tmp_path / "out")
    (tmp_path / "out" / "done" / "f1.parquet").write_bytes(parts_of(plan, tmp_path / "out")[0].read_bytes())
    parts_of(plan, tmp_path / "out")[0].unlink()
    (tmp_path / "out" / "done" / "f2.parquet").touch()  # went into its part just now
    assert [(s.state, s.n_done, s.n_cells) for s in prediction_status(tmp_path / "out")] == [("waiting", 21, 21)]


def test_a_folder_a_cluster_works_on_is_left_alone(
    study: Path, model: ModelFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(states, "read_submissions", lambda _: ["one"])
    monkeypatch.setattr(states.shutil, "which", lambda _: "/bin/squeue")
    monkeypatch.setattr(states, "live_jobs", lambda _: ["17_0", "18"])
    with pytest.raises(RunError, match=r"2 job\(s\) of .* in the queue of Slurm: 17_0 18\n(.*\n)*.*scancel 17 18"):
        run(study, model, tmp_path, Heard())
    assert not has_plan(tmp_path)


def test_what_is_missing_is_submitted_with_a_last_job_that_sums_up(
    study: Path, model: ModelFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[dict[str, Any]] = []
    monkeypatch.setattr(
        "perikarya.launch.slurm.submit.submit_jobs", lambda folder, **more: asked.append(more) or "submitted"
    )
    plan = plan_study(study, wish_for(model, n_shards=N_SHARDS, batch_size=4))
    launch = LaunchConfig.model_validate({"engine": "slurm", "slurm": {"cpus": 3}})
    out = tmp_path / "out"
    assert submit_shards(plan, out, launch, dry_run=True) == "submitted"
    assert not out.exists()
    do_all(planned_study(study, model, out, n_shards=N_SHARDS, batch_size=4), out, [1])
    submit_shards(plan, out, launch, dry_run=False)
    assert [len(call["jobs"]) for call in asked] == [6, 5]
    assert [call["dry_run"] for call in asked] == [True, False]
    job = asked[1]["jobs"][1]
    assert (job.id, job.payload, job.needs) == ("part-00002-of-00006", {"kind": "shard", "index": 2}, frozenset())
    assert asked[1]["crew"].arguments == (str(out.resolve()), "--threads", "3")
    assert asked[1]["finale"] == ("-m", "perikarya.predict.finishing", str(out.resolve()))
    do_all(plan, out)
    assert submit_shards(plan, out, launch, dry_run=False) is None
