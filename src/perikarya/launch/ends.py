"""How a process of this machine ended, in plain words; for lack of memory told apart from somebody's ``kill -9``."""

from __future__ import annotations

import re
import signal
from pathlib import Path


class MemoryWatch:
    """Counts the processes that the system has ended for lack of memory, since it was last asked.

    Parameters
    ----------
    proc, cgroups
        Where the kernel shows its counters. Those of the control group of this process are read (version 2:
        ``memory.events``; version 1: ``memory.oom_control``); where it has none, those of the whole machine
        (``vmstat``), in which other people's processes count too.
    """

    def __init__(self, proc: Path = Path("/proc"), cgroups: Path = Path("/sys/fs/cgroup")) -> None:
        group = _own_groups(proc / "self" / "cgroup")
        self._files = [
            cgroups / group.get("", "").lstrip("/") / "memory.events",
            cgroups / "memory" / group.get("memory", "").lstrip("/") / "memory.oom_control",
            proc / "vmstat",
        ]
        self._known = self._count()

    def ended_one(self) -> bool | None:
        """Tell whether the system has ended a process since it was last told; None where that cannot be known."""
        count = self._count()
        if count is None or self._known is None:
            return None
        told = count > self._known
        self._known += told
        return told

    def _count(self) -> int | None:
        for path in self._files:
            try:
                found = re.search(r"^oom_kill (\d+)$", path.read_text(encoding="ascii"), re.MULTILINE)
            except OSError:
                continue
            if found:
                return int(found[1])
        return None


def _own_groups(path: Path) -> dict[str, str]:
    """Read controller -> folder of the control groups of this process; version 2 has the controller ''."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError:
        return {}
    fields = [line.split(":", 2) for line in lines]
    return {name: folder for _, names, folder in fields for name in names.split(",")}


def describe_end(code: int, *, for_memory: bool | None) -> str:
    """Say how a process ended, to follow "its worker".

    Parameters
    ----------
    code
        As ``subprocess`` has it: negative for a signal.
    for_memory
        Whether the system has just ended a process for lack of memory; None where that is not known.
    """
    if code == -signal.SIGKILL:
        if for_memory:
            return "was ended by the system because the memory of this machine ran out"
        hint = "often: memory ran out" if for_memory is None else "from outside; memory had not run out"
        return f"was killed by SIGKILL ({hint})"
    if code < 0:
        return f"was killed by {_signal_name(-code)}"
    return f"ended with exit code {code}"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal
        return f"signal {number}"
