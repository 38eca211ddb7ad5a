"""How a process ended is said in plain words, and lack of memory is told from somebody's kill -9."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from perikarya.launch.ends import MemoryWatch, describe_end


class Kernel:
    """A pretended /proc and /sys/fs/cgroup."""

    def __init__(self, folder: Path, groups: str = "0::/slice\n") -> None:
        self.proc, self.cgroups = folder / "proc", folder / "cgroup"
        self.write("proc/self/cgroup", groups)

    def write(self, path: str, text: str) -> None:
        whole = self.proc.parent / path
        whole.parent.mkdir(parents=True, exist_ok=True)
        whole.write_text(text)

    def watch(self) -> MemoryWatch:
        return MemoryWatch(self.proc, self.cgroups)


PLACES = {
    "version 2": ("0::/slice\n", "cgroup/slice/memory.events", "low 0\noom 9\noom_kill {}\noom_group_kill 0\n"),
    "container": ("0::/\n", "cgroup/memory.events", "oom_kill {}\n"),
    "version 1": ("4:cpu,memory:/a/b\n0::/\n", "cgroup/memory/a/b/memory.oom_control", "under_oom 0\noom_kill {}\n"),
    "whole machine": ("", "proc/vmstat", "nr_free_pages 5\noom_kill {}\n"),
}


@pytest.mark.parametrize("place", PLACES)
def test_each_process_ended_for_memory_is_told_once(tmp_path: Path, place: str) -> None:
    groups, path, text = PLACES[place]
    kernel = Kernel(tmp_path, groups)
    kernel.write(path, text.format(3))
    watch = kernel.watch()
    assert watch.ended_one() is False
    kernel.write(path, text.format(5))
    assert [watch.ended_one() for _ in range(3)] == [True, True, False]


def test_the_own_group_is_asked_before_the_whole_machine(tmp_path: Path) -> None:
    kernel = Kernel(tmp_path)
    kernel.write("cgroup/slice/memory.events", "oom_kill 0\n")
    kernel.write("proc/vmstat", "oom_kill 0\n")
    watch = kernel.watch()
    kernel.write("proc/vmstat", "oom_kill 1\n")
    assert watch.ended_one() is False


def test_without_counters_nothing_is_claimed(tmp_path: Path) -> None:
    watch = MemoryWatch(tmp_path / "none", tmp_path / "none")
    assert watch.ended_one() is None


@pytest.mark.parametrize(
    ("code", "for_memory", "words"),
    [
        (-signal.SIGKILL, True, "memory of this machine ran out"),
        (-signal.SIGKILL, False, "memory had not run out"),
        (-signal.SIGKILL, None, "often: memory ran out"),
        (-signal.SIGSEGV, True, "was killed by SIGSEGV"),
        (-40, None, "was killed by signal 40"),
        (7, None, "ended with exit code 7"),
    ],
)
def test_an_end_is_said_in_plain_words(code: int, for_memory: bool | None, words: str) -> None:
    assert words in describe_end(code, for_memory=for_memory)
