"""What squeue and sacct say becomes one sentence per job; the texts were recorded on Slurm 22.05 with accounting."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from perikarya.launch.jobs import Job
from perikarya.launch.slurm import JobState, client, job_states, live_jobs
from perikarya.launch.slurm.record import (
    SubmissionRecord,
    SubmittedScript,
    submission_folder,
    write_jobs,
    write_submissions,
)

# array, element, state, restarts, status of wait, node, start, reason (names are added)
QUEUE = """
25|0|FAILED|0|9|cn3|2026-11-23T09:15:39|JobLaunchFailure
25|1|TIMEOUT|0|15|cn3|2026-11-23T09:15:39|TimeLimit
25|2|FAILED|0|9|cn3|2026-11-23T09:15:39|JobLaunchFailure
25|3|FAILED|0|768|cn3|2026-11-23T09:15:39|NonZeroExitCode
25|4|CANCELLED|0|15|cn3|2026-11-23T09:15:40|None
25|5|PENDING|1|0||2026-11-23T09:15:51|BeginTime
25|6|FAILED|0|11|cn3|2026-11-23T09:15:40|JobLaunchFailure
25|7|COMPLETED|0|0|cn3|2026-11-23T09:15:40|None
25|8|RUNNING|0|0|cn1|2026-11-23T09:15:40|None
25|9|PENDING|0|0||N/A|Resources
25|10|RUNNING|1|0|cn2|2026-11-23T09:16:59|None
25|11|CANCELLED|0|0||N/A|DependencyNeverSatisfied
"""
ACCOUNTS = """
25_0|FAILED|0:9|cn3|2026-11-23T09:15:39|2026-11-23T09:15:44||100M|1|None
25_0.batch|CANCELLED by 0|0:9|cn3|2026-11-23T09:15:39|2026-11-23T09:15:44|320608K|||
25_1|TIMEOUT|0:0|cn3|2026-11-23T09:15:39|2026-11-23T09:16:49||100M|1|None
25_1.batch|CANCELLED|0:15|cn3|2026-11-23T09:15:39|2026-11-23T09:16:49|1580K|||
25_2|FAILED|0:9|cn3|2026-11-23T09:15:39|2026-11-23T09:15:39||100M|1|None
25_2.batch|CANCELLED|0:9|cn3|2026-11-23T09:15:39|2026-11-23T09:15:39||||
25_3|FAILED|3:0|cn3|2026-11-23T09:15:39|2026-11-23T09:15:39||100M|1|None
25_3.batch|FAILED|3:0|cn3|2026-11-23T09:15:39|2026-11-23T09:15:39||||
25_4|CANCELLED by 0|0:0|cn3|2026-11-23T09:15:40|2026-11-23T09:15:42||100M|1|None
25_4.batch|CANCELLED|0:15|cn3|2026-11-23T09:15:40|2026-11-23T09:15:42||||
25_5|REQUEUED|0:0|cn3|2026-11-23T09:15:40|2026-11-23T09:15:40||100M|60|None
25_5.batch|CANCELLED|0:15|cn3|2026-11-23T09:15:40|2026-11-23T09:15:40||||
25_6|FAILED|0:11|cn3|2026-11-23T09:15:40|2026-11-23T09:15:40||100M|1|None
25_7|COMPLETED|0:0|cn3|2026-11-23T09:15:40|2026-11-23T09:15:40||100M|1|None
25_8|RUNNING|0:0|cn1|2026-11-23T09:15:40|Unknown||100M|1|None
25_10|PREEMPTED|0:0|cn2|2026-11-23T09:16:21|2026-11-23T09:16:40||2500M|2|None
25_10.batch|CANCELLED|0:15|cn2|2026-11-23T09:16:21|2026-11-23T09:16:40|1624K|||
25_[11]|CANCELLED by 0|0:0|None assigned|None|2026-11-23T09:16:03||50M|Partition_Limit|DependencyNeverSatisfied
25_5|PENDING|0:0|None assigned|Unknown|Unknown||100M|60|BeginTime
25_10|RUNNING|0:0|cn2|2026-11-23T09:16:59|Unknown||2500M|2|BeginTime
25_10.batch|RUNNING|0:0|cn2|2026-11-23T09:16:59|Unknown||||
"""
N_JOBS = 12


def as_squeue(text: str, name: str) -> str:
    """Write rows in the columns of fixed width that squeue is asked for."""
    widths = client.QUEUE_COLUMNS.values()
    rows = [[*line.split("|"), name] for line in text.split("\n") if line]
    return "".join("".join(f"{c:<{w}}" for c, w in zip(row, widths, strict=True)) + "\n" for row in rows)


class Cluster:
    """Answers for Slurm's programs, and remembers what it was asked."""

    def __init__(self, queue: str = "", accounts: str = "", name: str = "grid-stage1-ab") -> None:
        self.answers = {"squeue": as_squeue(queue, name), "sacct": accounts.strip()}
        self.asked: list[list[str]] = []

    def call(self, words: Sequence[str], *, keep_fds: Sequence[int] = ()) -> str:
        self.asked.append(list(words))
        return self.answers[words[0]]


def ask(
    folder: Path, monkeypatch: pytest.MonkeyPatch, cluster: Cluster, *, n_jobs: int = N_JOBS, per_element: int = 1
) -> dict[str, JobState]:
    jobs = [Job(str(i), {}) for i in range(n_jobs)]
    write_jobs(submission_folder(folder, 1) / "stage1.jobs.jsonl", jobs)
    script = SubmittedScript("stage1", "grid-stage1-ab", n_jobs, per_element, "25")
    write_submissions(folder, [SubmissionRecord(1, "2026-11-23T09:00:00+00:00", 60, (script,))])
    monkeypatch.setattr(client, "call", cluster.call)
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr("os.getuid", lambda: 0)
    return job_states(folder)


@pytest.mark.parametrize(
    ("job", "kind", "cause", "n_starts", "words"),
    [
        ("0", "failed", "memory", 1, "asked for 100 MiB, was seen to use 313 MiB; raise launch.slurm.mem to 500M"),
        ("1", "failed", "time limit", 1, "stopped at its time limit"),
        ("2", "failed", "signal", 1, "killed by SIGKILL (often: out of memory); see"),
        ("3", "failed", "exit code", 1, "failed with exit code 3; see"),
        ("4", "failed", "cancelled", 1, "cancelled by you"),
        ("5", "requeued", "preemption", 1, "requeued once, last as it had to make way on cn3"),
        ("6", "failed", "signal", 1, "killed by SIGSEGV; see"),
        ("7", "ended", "", 1, "ended on cn3"),
        ("8", "running", "", 1, "running on cn1 since 2026-11-23 09:15:40"),
        ("9", "queued", "", 0, "waits for free CPUs, memory or GPUs (Resources)"),
        ("10", "running", "preemption", 2, "(start 2: before, it had to make way for another job on cn2)"),
        ("11", "failed", "dependency", 0, "not started, for a job it needs has failed"),
    ],
)
def test_each_fate_has_its_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, job: str, kind: str, cause: str, n_starts: int, words: str
) -> None:
    state = ask(tmp_path, monkeypatch, Cluster(QUEUE, ACCOUNTS))[job]
    assert (state.kind, state.cause, state.n_starts) == (kind, cause, n_starts)
    assert words in state.sentence
    assert state.cluster_id == f"25_{job}"


def test_the_accounts_alone_say_the_same_when_the_queue_has_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = ask(tmp_path, monkeypatch, Cluster(QUEUE, ACCOUNTS))
    alone = ask(tmp_path, monkeypatch, Cluster("", ACCOUNTS))
    for job in ("0", "1", "2", "3", "4", "6", "7", "11"):
        assert alone[job] == both[job]


def test_the_queue_alone_says_much_where_no_accounts_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    states = ask(tmp_path, monkeypatch, Cluster(QUEUE, ""))
    assert "exit code 3" in states["3"].sentence
    assert "SIGSEGV" in states["6"].sentence
    assert states["4"].sentence == "cancelled"
    assert states["5"].sentence.startswith("requeued once; waits a while")
    assert states["11"].cause == "dependency"


def test_what_neither_knows_is_not_guessed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = ask(tmp_path, monkeypatch, Cluster())["3"]
    assert state.kind == "unknown"
    assert "stage1-3.log" in state.sentence
    lagging = ask(tmp_path, monkeypatch, Cluster("", ACCOUNTS))["8"]
    assert (lagging.kind, "do not know its end" in lagging.sentence) == ("unknown", True)


@pytest.mark.parametrize(
    ("state", "cause", "words"),
    [
        ("OUT_OF_MEMORY", "memory", "asked for 2.0 GiB, was seen to use 1.9 GiB; raise launch.slurm.mem to 3G"),
        ("NODE_FAIL", "node", "its node cn3 was lost"),
        ("PREEMPTED", "preemption", "does not requeue"),
        ("CANCELLED by 99999", "cancelled", "cancelled by user 99999"),
        ("DEADLINE", "time limit", "deadline"),
    ],
)
def test_rarer_ends_have_their_sentence_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: str, cause: str, words: str
) -> None:
    text = (
        f"25_0|{state}|0:0|cn3|2026-11-23T09:15:39|2026-11-23T09:15:44||2G|60|None\n"
        f"25_0.batch|{state}|0:125|cn3|2026-11-23T09:15:39|2026-11-23T09:15:44|1945M|||\n"
    )
    found = ask(tmp_path, monkeypatch, Cluster("", text), n_jobs=1)["0"]
    assert (found.kind, found.cause, found.node) == ("failed", cause, "cn3")
    assert words in found.sentence


@pytest.mark.parametrize(
    ("state", "end", "cause", "words"),
    [
        ("REQUEUED", "10:13:30", "time limit", "last as it came to its time limit"),
        ("REQUEUED", "09:20:00", "preemption", "had to make way on cn3, or was requeued by hand"),
        ("NODE_FAIL", "09:20:00", "node", "last as it lost its node cn3"),
        ("TIMEOUT", "10:15:00", "time limit", "last as it came to its time limit"),
    ],
)
def test_why_a_job_is_in_the_queue_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: str, end: str, cause: str, words: str
) -> None:
    queue = "25|0|PENDING|3|0||N/A|Priority"
    accounts = f"25_0|{state}|0:0|cn3|2026-11-23T09:15:00|2026-11-23T{end}||2G|60|None"
    found = ask(tmp_path, monkeypatch, Cluster(queue, accounts), n_jobs=1)["0"]
    assert (found.kind, found.cause, found.n_starts) == ("requeued", cause, 3)
    assert found.sentence.startswith("requeued 3 times, ")
    assert words in found.sentence


def test_jobs_of_one_element_share_its_fate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    states = ask(tmp_path, monkeypatch, Cluster(QUEUE, ACCOUNTS), n_jobs=9, per_element=4)
    assert [states[str(i)].cluster_id for i in range(9)] == ["25_0"] * 4 + ["25_1"] * 4 + ["25_2"]


def test_ten_thousand_jobs_need_two_calls_and_none_when_nothing_was_submitted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = "\n".join(f"25|{i}|FAILED|0|256|cn3|2026-11-23T09:15:39|NonZeroExitCode" for i in range(10_000))
    cluster = Cluster(rows, "")
    assert len(ask(tmp_path / "a", monkeypatch, cluster, n_jobs=10_000)) == 10_000
    assert [words[0] for words in cluster.asked] == ["squeue", "sacct"]
    cluster.asked.clear()
    assert job_states(tmp_path / "b") == {}
    assert cluster.asked == []


def test_the_accounts_are_spared_while_all_goes_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = Cluster("25|0|RUNNING|0|0|cn1|2026-11-23T09:15:40|None\n25|1|COMPLETED|0|0|cn1|2026-11-23T09:15:40|None")
    ask(tmp_path, monkeypatch, cluster, n_jobs=2)
    assert [words[0] for words in cluster.asked] == ["squeue"]


def test_only_what_may_still_run_is_live(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ask(tmp_path, monkeypatch, Cluster(QUEUE, ""))
    assert live_jobs(tmp_path) == ["25_5", "25_8", "25_9", "25_10"]


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("Priority", "waits behind jobs of higher priority (Priority)"),
        ("JobArrayTaskLimit", "waits its turn: as many as launch.jobs allows are running (JobArrayTaskLimit)"),
        ("QOSMaxJobsPerUserLimit", "its quality of service allows only so many"),
        ("AssocGrpGRES", "your account allows only so many"),
        ("ReqNodeNotAvail, UnavailableNodes:cn[1-2]", "waits for nodes that are down"),
        ("PartitionTimeLimit", "never start it: lower launch.slurm.time"),
        ("launch failed requeued held", "held, as its node could not start it"),
        ("JobHeldAdmin", "held by an administrator"),
        ("SomethingNew", "waits (SomethingNew)"),
    ],
)
def test_why_a_job_waits_is_said_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reason: str, words: str
) -> None:
    state = ask(tmp_path, monkeypatch, Cluster(f"25|0|PENDING|0|0||N/A|{reason}"), n_jobs=1)["0"]
    assert state.kind == "queued"
    assert words in state.sentence
