"""A cluster to be unkind to: the pretend nodes of one machine, whose daemons can be stopped."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[2]


def run(*words: str, timeout_s: float = 60) -> str:
    """Run one of Slurm's programs and return what it prints."""
    done = subprocess.run(words, capture_output=True, text=True, timeout=timeout_s, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(words)}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout.strip()


def answers() -> bool:
    """Tell whether a controller answers on this machine."""
    try:
        return "is UP" in run("scontrol", "ping", timeout_s=20)
    except (FileNotFoundError, RuntimeError, subprocess.TimeoutExpired):
        return False


def bring_up() -> str:
    """Start or find a cluster and point this process at it; return why there is none, or nothing.

    ``PERIKARYA_SLURM_UP`` names a script that brings one up when it is called with ``up`` and prints
    ``export SLURM_CONF=...``; it may install what it needs.
    """
    beside = ROOT.parent / "shared" / "tools" / "slurm_up.sh"
    script = Path(os.environ.get("PERIKARYA_SLURM_UP", beside))
    if not script.is_file():
        return "" if answers() else f"no Slurm answers, and there is no {script} to start one (PERIKARYA_SLURM_UP)"
    if os.geteuid() != 0:
        return "" if answers() else "no Slurm answers, and only root can start one"
    done = subprocess.run(["bash", str(script), "up"], capture_output=True, text=True, timeout=900, check=False)
    if done.returncode:
        return f"{script} up failed: {done.stderr.strip()[-500:]}"
    settings = [line for line in done.stdout.splitlines() if line.startswith("export SLURM_CONF=")]
    os.environ["SLURM_CONF"] = settings[-1].partition("=")[2].strip()
    os.environ["PATH"] += os.pathsep + "/usr/sbin"
    return "" if answers() else "the cluster was started but does not answer"


def wait_until(what: str, is_so: Callable[[], bool], *, timeout_s: float) -> None:
    """Wait for something; raise ``TimeoutError`` when it does not come."""
    end = time.monotonic() + timeout_s
    while not is_so():
        if time.monotonic() > end:
            raise TimeoutError(f"gave up waiting until {what}")
        time.sleep(0.5)


def state_of(node: str) -> str:
    """Return what Slurm says of a node, such as ``idle`` or ``down*``."""
    return run("sinfo", "--noheader", f"--nodes={node}", "--format=%T", "--partition=main")


def stop_node(node: str) -> None:
    """Stop the daemon of a node, as when its network is gone: what runs there goes on unseen."""
    pid = _pid(node)
    if pid is None:
        raise RuntimeError(f"{node} has no daemon to stop")
    os.kill(pid, signal.SIGTERM)
    wait_until(f"the daemon of {node} has ended", lambda: _pid(node) is None, timeout_s=30)


def start_node(node: str) -> None:
    """Start the daemon of a node, unless it runs."""
    if _pid(node) is None:
        run("slurmd", "-N", node)
    wait_until(f"{node} is back", lambda: state_of(node) in ("idle", "mixed", "allocated"), timeout_s=90)


def _pid(node: str) -> int | None:
    lines = run("scontrol", "show", "config").splitlines()
    pattern = next(line.partition("=")[2].strip() for line in lines if line.startswith("SlurmdPidFile"))
    try:
        pid = int(Path(pattern.replace("%n", node)).read_text(encoding="ascii"))
        os.kill(pid, 0)
    except (OSError, ValueError):
        return None
    return pid
