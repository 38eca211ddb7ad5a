"""Slurm's states and reasons in plain words: why a job waits, was stopped, or ended badly."""

from __future__ import annotations

import math
import os
import pwd
import re
import signal
from datetime import datetime, timedelta
from typing import Literal

from perikarya.launch.slurm.client import AccountRow, QueueRow, memory_mib

Cause = Literal["", "time limit", "preemption", "node", "memory", "cancelled", "dependency", "signal", "exit code"]

_SIGNAL_DELAY_S = 60.0  # Slurm may signal so much earlier than asked ('man sbatch', --signal)
_SUGGESTED = 1.5  # times the memory that was too little

_NEVER_FITS = "; Slurm will never start it: {setting}, then cancel it and give the same command again"

# Slurm's reason -> words after "waits"; 'man squeue', JOB REASON CODES
_WAITS = {
    "None": "to be looked at by the scheduler",
    "Resources": "for free CPUs, memory or GPUs",
    "Priority": "behind jobs of higher priority",
    "Dependency": "for other jobs of this folder to end",
    "JobArrayTaskLimit": "its turn: as many as launch.jobs allows are running",
    "BeginTime": "a while, as Slurm holds back what was just requeued, or until its begin time",
    "Cleaning": "for the node to be cleaned up after its last start",
    "ReqNodeNotAvail": "for nodes that are down, reserved or in maintenance",
    "Reservation": "for its reservation",
    "PartitionDown": "for its partition, which is down",
    "PartitionInactive": "for its partition, which takes no jobs now",
    "NodeDown": "for a node that is down",
    "Licenses": "for a licence",
    "JobHeldUser": "held by you: 'scontrol release' lets it go on",
    "JobHeldAdmin": "held by an administrator, whom to ask",
    "JobHoldMaxRequeue": "held, as it was requeued too often: see its log, then 'scontrol release'",
    "PartitionTimeLimit": "for longer than its partition allows"
    + _NEVER_FITS.format(setting="lower launch.slurm.time"),
    "PartitionConfig": "for more than its partition offers"
    + _NEVER_FITS.format(setting="lower launch.slurm.time, cpus, mem or gpus"),
    "PartitionNodeLimit": "for more nodes than its partition offers",
    "BadConstraints": "for what no node has" + _NEVER_FITS.format(setting="lower launch.slurm.cpus, mem or gpus"),
    "DependencyNeverSatisfied": "for a job that has failed" + _NEVER_FITS.format(setting="see that job"),
    "InvalidAccount": "for an account that is none" + _NEVER_FITS.format(setting="change launch.slurm.account"),
    "InvalidQOS": "for a quality of service that is none" + _NEVER_FITS.format(setting="change launch.slurm.qos"),
}


def why_it_waits(reason: str) -> str:
    """Say what a waiting job waits for; Slurm's own word comes along, for who wants to look it up."""
    word = re.split(r"[,(:]", reason)[0].strip("( )") or "None"
    if word.startswith(("QOS", "Assoc")):
        limit = "your account" if word.startswith("Assoc") else "its quality of service"
        return f"waits for others to end: {limit} allows only so many jobs or resources at once ({word})"
    if re.search("launch ?failed", reason, re.IGNORECASE):
        return f"held, as its node could not start it; ask an administrator, then 'scontrol release' ({reason})"
    if word not in _WAITS:
        return f"waits ({reason})"
    words = _WAITS[word]
    return words if words.startswith("held") else f"waits {words}" + ("" if word == "None" else f" ({word})")


def why_it_was_stopped(start: AccountRow, *, signal_s: int) -> tuple[Cause, str]:
    """Say why a start ended that was followed by another; words follow 'it'."""
    state = start.state.split()[0]
    if state == "PREEMPTED":
        return "preemption", f"had to make way for another job on {start.node}"
    if state in ("NODE_FAIL", "BOOT_FAIL"):
        return "node", f"lost its node {start.node}"
    if state == "TIMEOUT" or (state == "REQUEUED" and _was_near_its_limit(start, signal_s=signal_s)):
        return "time limit", "came to its time limit"
    if state == "REQUEUED":
        return "preemption", f"had to make way on {start.node}, or was requeued by hand"
    return "signal", f"was stopped on {start.node} ({state.lower()})"


def why_it_ended(state: str, row: QueueRow | None, last: AccountRow | None) -> tuple[Cause, str]:
    """Say why an element did not end well; ``last`` is its last start, where the accounts know it."""
    code, number = _exit(row, last)
    reason = row.reason if row is not None else last.reason if last is not None else ""
    if state == "OUT_OF_MEMORY" or (number == signal.SIGKILL and last is not None and _is_too_much(last)):
        return "memory", _out_of_memory(last)
    if state == "TIMEOUT":
        return (
            "time limit",
            "stopped at its time limit before its state was saved; raise launch.slurm.signal_s or launch.slurm.time",
        )
    if state in ("NODE_FAIL", "BOOT_FAIL"):
        return "node", f"its node {_node(row, last)} was lost".replace("  ", " ")
    if state == "PREEMPTED":
        return "preemption", "had to make way for another job, and this cluster does not requeue such"
    if state == "CANCELLED":
        if reason == "DependencyNeverSatisfied":
            return "dependency", "not started, for a job it needs has failed"
        return "cancelled", f"cancelled{_by_whom(last)}"
    if state == "DEADLINE":
        return "time limit", "stopped at its deadline"
    if number:
        return "signal", f"killed by {_signal_name(number)}{_hint(number)}"
    if reason == "BadConstraints":
        return "exit code", "never started: no node has what it asks for (launch.slurm.cpus, mem, gpus)"
    return "exit code", f"failed with exit code {code}"


def _exit(row: QueueRow | None, last: AccountRow | None) -> tuple[int, int]:
    """Return exit code and signal, of which one is 0."""
    if row is not None and row.status:
        return row.status >> 8, row.status & 0x7F
    code, _, number = (last.exit_code if last is not None else "0:0").partition(":")
    return int(code or 0), int(number or 0)


def _is_too_much(last: AccountRow) -> bool:
    return 0 < memory_mib(last.asked_mem) <= memory_mib(last.max_rss)


def _out_of_memory(last: AccountRow | None) -> str:
    asked, used = (memory_mib(last.asked_mem), memory_mib(last.max_rss)) if last is not None else (0.0, 0.0)
    if not asked:
        return "out of memory; raise launch.slurm.mem"
    seen = f", was seen to use {_amount(used)}" if used else ""
    better = max(asked, used) * _SUGGESTED
    suggested = f"{math.ceil(better / 100) * 100}M" if better <= 1000 else f"{math.ceil(better / 1024)}G"
    return f"out of memory: asked for {_amount(asked)}{seen}; raise launch.slurm.mem to {suggested}"


def _amount(mib: float) -> str:
    return f"{mib:.0f} MiB" if mib < 1024 else f"{mib / 1024:.1f} GiB"


def _node(row: QueueRow | None, last: AccountRow | None) -> str:
    return (row.node if row is not None else "") or (last.node if last is not None else "")


def _by_whom(last: AccountRow | None) -> str:
    match = re.fullmatch(r"CANCELLED by (\d+)", last.state) if last is not None else None
    if match is None:
        return ""
    uid = int(match[1])
    if uid == os.getuid():
        return " by you"
    try:
        return f" by {pwd.getpwuid(uid).pw_name}"
    except KeyError:
        return f" by user {uid}"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _hint(number: int) -> str:
    return " (often: out of memory)" if number == signal.SIGKILL else ""


def _was_near_its_limit(start: AccountRow, *, signal_s: int) -> bool:
    try:
        begun, ended = datetime.fromisoformat(start.start), datetime.fromisoformat(start.end)
        limit = timedelta(minutes=int(start.limit_min))
    except ValueError:
        return False
    return ended - begun >= limit - timedelta(seconds=signal_s + _SIGNAL_DELAY_S)
