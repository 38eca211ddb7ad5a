"""Work in a process of its own: answered in turn, ended at once, with words when it dies."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.review.waiting import until

from perikarya.errors import ConfigError, DataError, InterruptedWorkError, UnknownNameError
from perikarya.review.worker import Worker, WorkerError

# what stands for a module of the package, in a file of its own name
CODE = """
import os, subprocess, sys, time
from perikarya.errors import DataError, UnknownNameError
from perikarya.review.worker import answer_questions

print("packages print when they are imported")
asked = 0

class OwnError(DataError):
    pass

def answer(words, content, progress):
    global asked
    asked += 1
    print("and later")
    os.write(1, b"even without a line end")
    match words["do"]:
        case "echo":
            return {"asked": asked, "pid": os.getpid(), "nice": os.nice(0)}, content[::-1]
        case "steps":
            for i in range(5):
                progress(i / 4)
        case "wait":
            progress(0.5)
            time.sleep(600)
        case "input":
            return {"read": sys.stdin.read()}, b""
        case "refuse":
            raise OwnError("Row 7 is no cell.\\nFix: ask for another.")
        case "unknown":
            raise UnknownNameError("model", "x", ["a"])
        case "fail":
            raise MemoryError("out of it")
        case "exit":
            os._exit(3)
        case "half":
            os.write(int(sys.argv[2]), b'{"n_bytes": 10}\\nshort')
            os._exit(0)
        case "child":
            child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], close_fds=False)
            if words["dies"]:
                os._exit(4)
            return {"child": child.pid}, b""
    return {}, b""

answer_questions(answer)
"""


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Worker]]:
    """Make workers that run ``CODE``."""
    (tmp_path / "strange_work.py").write_text(CODE)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    made: list[Worker] = []

    def make(module: str = "strange_work", *, idle_s: float = 300) -> Worker:
        made.append(Worker(module, doing="The work", fix="ask again.", idle_s=idle_s))
        return made[-1]

    yield make
    for worker in made:
        worker.close()


@pytest.fixture
def worker(make: Callable[..., Worker]) -> Worker:
    return make()


def lives(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def n_open() -> int:
    """How many files and pipes this process has open."""
    return len(list(Path("/proc/self/fd").iterdir()))


def test_bytes_go_there_and_back_whatever_packages_print(worker: Worker) -> None:
    content = bytes(range(256)) * 40_000
    said, found = worker.ask({"do": "echo"}, content)
    assert found == content[::-1]
    assert said["nice"] > os.nice(0)
    assert worker.ask({"do": "input"}) == ({"read": ""}, b"")


def test_one_process_answers_all_questions(worker: Worker) -> None:
    assert worker.pid is None
    said = [worker.ask({"do": "echo"})[0] for _ in range(3)]
    assert [s["asked"] for s in said] == [1, 2, 3]
    assert {s["pid"] for s in said} == {worker.pid}


def test_questions_of_several_threads_are_answered_one_after_another(worker: Worker) -> None:
    found: dict[int, bytes] = {}

    def ask(i: int) -> None:
        for _ in range(20):
            found[i] = worker.ask({"do": "echo"}, str(i).encode() * 1000)[1]

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {i: str(i).encode() * 1000 for i in range(4)}
    assert worker.ask({"do": "echo"})[0]["asked"] == 81


def test_it_tells_how_far_it_is(worker: Worker) -> None:
    shares: list[float] = []
    worker.ask({"do": "steps"}, progress=shares.append)
    assert shares == [0, 0.25, 0.5, 0.75, 1]


def test_a_refusal_stays_what_it_was_and_the_process_goes_on(worker: Worker) -> None:
    with pytest.raises(DataError) as refused:
        worker.ask({"do": "refuse"})
    assert type(refused.value) is DataError
    assert str(refused.value) == "Row 7 is no cell.\nFix: ask for another."
    with pytest.raises(UnknownNameError) as unknown:
        worker.ask({"do": "unknown"})
    assert str(unknown.value) == str(UnknownNameError("model", "x", ["a"]))
    assert isinstance(unknown.value, ConfigError)
    assert worker.ask({"do": "echo"})[0]["asked"] == 3


@pytest.mark.parametrize(
    ("do", "words"),
    [
        ("fail", r"^The work failed: MemoryError: out of it\nFix: ask again\.$"),
        ("exit", r"^The work failed: its process ended with code 3\.\nFix"),
        ("half", r"^The work failed: its process ended with code 0\.\nFix"),
    ],
)
def test_a_process_that_dies_gives_a_sentence_and_the_next_question_another(
    worker: Worker, do: str, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(WorkerError, match=words):
        worker.ask({"do": do})
    assert ("Traceback" in caplog.text) == (do == "fail")
    assert worker.pid is None
    assert worker.ask({"do": "echo"})[0]["asked"] == 1


def test_one_that_was_killed_at_work_says_so(worker: Worker) -> None:
    with pytest.raises(WorkerError, match=r"ended by signal 9, .* memory runs out\.\nFix: ask again\."):
        worker.ask({"do": "wait"}, progress=lambda _share: os.kill(worker.pid or 0, signal.SIGKILL))
    assert worker.ask({"do": "echo"})[0]["asked"] == 1


def test_one_that_was_killed_between_two_questions_is_replaced(worker: Worker) -> None:
    (said, _) = worker.ask({"do": "echo"})
    os.kill(said["pid"], signal.SIGKILL)
    until(lambda: worker.pid is None)
    assert worker.ask({"do": "echo"})[0]["asked"] == 1


def test_one_that_cannot_run_says_so_even_to_a_long_question(make: Callable[..., Worker]) -> None:
    with pytest.raises(WorkerError, match=r"The work failed: .*No module named nothing_like_it"):
        make("nothing_like_it").ask({}, bytes(1_000_000))


def test_one_that_cannot_be_started_says_so(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("perikarya.review.worker.sys.executable", "/no/such/python")
    before = n_open()
    with pytest.raises(WorkerError, match="The work cannot be started: No such file"):
        worker.ask({})
    assert n_open() == before


def test_an_idle_process_is_ended_and_the_next_question_starts_another(make: Callable[..., Worker]) -> None:
    worker = make(idle_s=0.2)
    pid = worker.ask({"do": "echo"})[0]["pid"]
    until(lambda: worker.pid is None and not lives(pid))
    assert worker.ask({"do": "echo"})[0]["asked"] == 1


def test_a_busy_process_is_not_taken_for_an_idle_one(make: Callable[..., Worker]) -> None:
    worker = make(idle_s=0.05)
    worker.ask({"do": "echo"})
    worker.ask({"do": "steps"}, progress=lambda _share: time.sleep(0.1))


def test_ending_it_leaves_nothing_open(worker: Worker) -> None:
    before = n_open()
    pid = worker.ask({"do": "echo"})[0]["pid"]
    worker.end()
    assert not lives(pid)
    assert n_open() == before
    assert worker.ask({"do": "echo"})[0]["asked"] == 1


def test_progress_that_raises_ends_the_process(worker: Worker) -> None:
    pids: list[int] = []

    def stop(_share: float) -> None:
        pids.append(worker.pid or 0)
        raise InterruptedWorkError("enough")

    with pytest.raises(InterruptedWorkError, match="enough"):
        worker.ask({"do": "wait"}, progress=stop)
    assert not lives(pids[0])


def test_closing_ends_work_at_once_and_for_good(worker: Worker) -> None:
    begun = threading.Event()
    ended: list[str] = []

    def ask() -> None:
        with pytest.raises(InterruptedWorkError) as stopped:
            worker.ask({"do": "wait"}, progress=lambda _share: begun.set())
        ended.append(str(stopped.value))

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    assert begun.wait(60)
    pid = worker.pid or 0
    worker.close()
    for thread in threads:
        thread.join(60)
    assert not lives(pid)
    assert sorted(words.split()[2:4] for words in ended) == [["was", "interrupted;"], ["was", "not"]]
    with pytest.raises(InterruptedWorkError, match="not started"):
        worker.ask({"do": "echo"})


def test_a_process_that_was_started_by_it_ends_with_it(worker: Worker) -> None:
    child = worker.ask({"do": "child", "dies": False})[0]["child"]
    assert lives(child)
    worker.end()
    until(lambda: not lives(child))
    with pytest.raises(WorkerError):  # and keeps nobody waiting
        worker.ask({"do": "child", "dies": True})


def test_it_ends_with_the_service_even_where_that_was_killed(worker: Worker, tmp_path: Path) -> None:
    code = (
        "from perikarya.review.worker import Worker; "
        "w = Worker('strange_work', doing='', fix=''); "
        "w.ask({'do': 'wait'}, progress=lambda s: print(w.pid, flush=True))"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as service:
        assert service.stdout is not None
        pid = int(service.stdout.readline())
        assert lives(pid)
        service.kill()
    until(lambda: not lives(pid))
