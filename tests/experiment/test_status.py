"""How far a run is, from its folder and what the cluster says, without reading a result."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import pytest

from perikarya.cli import following
from perikarya.cli.following import spoken, status_command, trouble
from perikarya.config import ExperimentConfig
from perikarya.errors import RunError
from perikarya.experiment.claim import CLAIM_FILE, Owner
from perikarya.experiment.progress import PROGRESS_FILE, TaskProgress
from perikarya.experiment.status import TaskStatus, run_status, seconds_left
from perikarya.launch.logs import error_in_log
from perikarya.launch.slurm import Cluster, JobState
from perikarya.launch.slurm import states as slurm_states
from perikarya.runs import RunFolder, TaskKey, write_json, write_text

STAMP = "2026-01-02 03:04:05,678"


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    content = {"name": "r", "study": "s", "cv": {"n_folds": 5}, "models": ["custom_cnn"]}
    folder = RunFolder(tmp_path / "run")
    write_text(folder.config, "# configuration a, data b; made\n" + ExperimentConfig.model_validate(content).dump())
    return folder


def key(fold: int) -> TaskKey:
    return TaskKey("custom_cnn", 0, fold)


def lay(run: RunFolder, fold: int, name: str, content: object = "") -> None:
    path = run.task(key(fold)) / name
    if isinstance(content, str):
        write_text(path, content)
    else:
        write_json(path, content)


def claim(run: RunFolder, fold: int, *, host: str = socket.gethostname(), pid: int = os.getpid()) -> None:
    lay(run, fold, CLAIM_FILE, asdict(Owner("t", host, pid, "", "2026-01-01T00:00:00+00:00")))


def states(run: RunFolder, cluster: dict[str, JobState] | None = None) -> list[str]:
    return [task.state for task in run_status(run, cluster=cluster)]


def job(kind: str, sentence: str = "", *, cause: str = "", place: str = "7_0") -> JobState:
    return JobState(kind, sentence, None, 1, place, cause)  # type: ignore[arg-type]


def test_files_tell_what_is_done_running_interrupted_failed_and_waiting(run: RunFolder) -> None:
    lay(run, 0, "result.json", "not even read")
    claim(run, 1)
    lay(run, 2, "state.pt")
    lay(run, 3, "task.log", f"{STAMP} INFO started on a by process 1\n{STAMP} ERROR It is broken.\nFix: mend it.\n")
    assert states(run) == ["done", "running", "interrupted", "failed", "waiting"]
    assert run_status(run)[3].note == "It is broken."


def test_a_task_whose_worker_was_killed_here_is_interrupted_at_once(run: RunFolder) -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    claim(run, 0, pid=child.pid)
    assert states(run)[0] == "interrupted"


def test_a_worker_elsewhere_is_taken_to_be_gone_after_minutes_of_silence(run: RunFolder) -> None:
    claim(run, 0, host="node-far-away")
    assert states(run)[0] == "running"
    os.utime(run.task(key(0)) / CLAIM_FILE, (time.time() - 600, time.time() - 600))
    assert states(run)[0] == "interrupted"
    lay(run, 0, PROGRESS_FILE, "{}")
    assert states(run)[0] == "running"


def test_the_cluster_knows_better_than_files(run: RunFolder) -> None:
    claim(run, 0, host="node-far-away")
    claim(run, 1, host="node-far-away")
    cluster = {
        str(key(0)): job("failed", "its memory ran out", cause="memory"),
        str(key(1)): job("failed", "node cn3 was lost", cause="node", place="7_1"),
        str(key(2)): job("requeued", "put back in the queue", place="7_2"),
        str(key(3)): job("running", "running on cn1", place="7_3"),
        str(key(4)): job("queued", "waits for its turn", place="7_4"),
    }
    assert states(run, cluster) == ["failed", "interrupted", "waiting", "running", "waiting"]
    lay(run, 0, "result.json")
    assert states(run, cluster)[0] == "done"


def test_of_the_tasks_of_one_element_one_runs_at_a_time(run: RunFolder) -> None:
    cluster = {str(key(fold)): job("running", "running on cn1") for fold in range(5)}
    lay(run, 0, "result.json")
    lay(run, 1, "task.log", f"{STAMP} ERROR It is broken.\n")
    assert states(run, cluster) == ["done", "failed", "running", "waiting", "waiting"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"{STAMP} ERROR One.\nFix: two.\n", "One."),
        (f"{STAMP} ERROR Traceback (most recent call last):\n  File x\nValueError: no good\n", "ValueError: no good"),
        (f"{STAMP} ERROR One.\n{STAMP} INFO started on cn1 by process 2\n{STAMP} INFO epoch 1\n", ""),
        (f"{STAMP} INFO started on cn1 by process 2\n{STAMP} ERROR Two.\n{STAMP} WARNING after\n", "Two."),
        (f"{STAMP} INFO started on cn1 by process 2\n{STAMP} INFO epoch 1\nERROR in a message\n", ""),
        ("x" * 100_000 + f"\n{STAMP} ERROR Last.\n", "Last."),
        ("", ""),
    ],
)
def test_an_error_counts_when_it_is_of_the_last_attempt(tmp_path: Path, text: str, expected: str) -> None:
    (tmp_path / "task.log").write_text(text)
    assert error_in_log(tmp_path / "task.log") == expected


def moving(done: int, *, s_per_step: float = 1.0, first: int = 0) -> TaskProgress:
    return TaskProgress(done, 100, first=first, since=0.0, time=(done - first) * s_per_step)


def test_the_time_left_follows_from_the_speed_of_what_runs() -> None:
    running = TaskStatus(key(0), "running", progress=moving(50))
    assert seconds_left([running]) == pytest.approx(50)
    waiting = [TaskStatus(key(i), "waiting") for i in range(1, 5)]
    assert seconds_left([running, *waiting]) == pytest.approx(450)
    other = TaskStatus(TaskKey("slow", 0, 0), "running", progress=moving(50, s_per_step=3))
    assert seconds_left([running, other, *waiting]) == pytest.approx((50 + 150 + 400) / 2)
    assert seconds_left([TaskStatus(key(0), "done"), *waiting]) is None
    resumed = TaskStatus(key(0), "running", progress=moving(60, first=50))
    assert seconds_left([resumed]) == pytest.approx(40)


def test_equal_sentences_are_printed_once_with_their_number(run: RunFolder) -> None:
    tasks = [TaskStatus(key(i), "failed", f"exit code 1 on cn{i}; see /x/{i}.log") for i in range(5)]
    tasks += [TaskStatus(key(9), "interrupted", "cancelled")]
    assert trouble(tasks) == [
        "5 tasks, such as custom_cnn/seed0/fold0: failed; exit code 1 on cn0; see /x/0.log",
        "custom_cnn/seed0/fold9: interrupted; cancelled",
    ]
    many = [TaskStatus(key(i), "failed", f"{'x' * i} went wrong") for i in range(40)]
    assert len(trouble(many)) == 13
    assert "28 more" in trouble(many)[-1]


def test_ten_thousand_tasks_are_told_in_a_few_lines(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "console", following.console.__class__(width=160))
    content = {"name": "r", "study": "s", "seeds": list(range(2000)), "cv": {"n_folds": 5}, "models": ["custom_cnn"]}
    run = RunFolder(tmp_path)
    write_text(run.config, ExperimentConfig.model_validate(content).dump())
    for seed in range(200):
        write_text(run.task(TaskKey("custom_cnn", seed, 0)) / "task.log", f"{STAMP} ERROR Seed {seed} is bad.\n")
    status_command(tmp_path)
    out = capsys.readouterr().out
    assert len(out.splitlines()) < 8
    assert "200 tasks, such as custom_cnn/seed0/fold0: failed; Seed 0 is bad." in out
    assert "0 of 10000 tasks are done." in out


def test_status_is_read_from_files_where_slurm_cannot_be_asked(
    run: RunFolder, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent(_: Path) -> dict[str, JobState]:
        raise RunError("There is no 'squeue' on this machine.")

    monkeypatch.setattr(slurm_states, "job_states", absent)
    lay(run, 0, "result.json")
    status_command(run.root)
    out = capsys.readouterr().out
    assert "read from files alone" in out
    assert "1 of 5 tasks are done" in out


@pytest.mark.parametrize(
    ("kinds", "is_busy", "told"),
    [
        ("dd", True, "The report is being written."),
        ("dd", False, "For the report: perikarya report"),
        ("di", True, "submitted again when all have ended"),
        ("di", False, "The same 'perikarya train' command goes on"),
        ("df", False, "The same 'perikarya train' command goes on"),
    ],
)
def test_the_end_says_what_happens_next_or_has_to_be_typed(
    run: RunFolder,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    kinds: str,
    is_busy: bool,
    told: str,
) -> None:
    content = {"name": "r", "study": "s", "cv": {"n_folds": 5, "folds": [0, 1]}, "models": ["custom_cnn"]}
    write_text(run.config, ExperimentConfig.model_validate(content).dump())
    files = {"d": ("result.json", ""), "i": ("state.pt", ""), "f": ("task.log", f"{STAMP} ERROR No.\n")}
    for fold, kind in enumerate(kinds):
        lay(run, fold, *files[kind])
    monkeypatch.setattr(following, "ask_cluster", lambda _: Cluster({}, is_busy=is_busy))
    status_command(run.root)
    assert told in capsys.readouterr().out


def test_other_programs_get_json(run: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    lay(run, 0, "result.json")
    claim(run, 1)
    lay(run, 1, PROGRESS_FILE, asdict(moving(50)))
    status_command(run.root, as_json=True)
    found = json.loads(capsys.readouterr().out)
    assert found["counts"] == {"done": 1, "running": 1, "waiting": 3, "interrupted": 0, "failed": 0}
    assert found["share_done"] == pytest.approx(0.3)
    assert found["seconds_left"] == pytest.approx(350)
    assert [task["fold"] for task in found["tasks"]] == [1, 2, 3, 4]


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="not a run folder"):
        status_command(tmp_path)


@pytest.mark.parametrize(("s", "words"), [(5, "5 s"), (100, "2 min"), (7200, "2.0 h"), (200_000, "2.3 days")])
def test_durations_are_written_as_people_say_them(s: float, words: str) -> None:
    assert spoken(s) == words
