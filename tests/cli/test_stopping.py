"""Ctrl-C and SIGTERM end a command with a sentence and the exit code a shell expects."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable

import pytest

COMMAND = """
import os, time
import perikarya.cli.app
from perikarya import cli

def command():
    try:
        {work}
    finally:
        print("tidying up", flush=True)
        {after}

perikarya.cli.app.app = command
cli.main()
"""
LONG = "os.write(1, b'on\\n'); time.sleep(60)"


class Command:
    """A command in a process group of its own, to be sent signals."""

    def __init__(self, work: str = LONG, *, after: str = "pass", before: Callable[[], object] | None = None) -> None:
        code = COMMAND.format(work=work, after=after)
        self.process = subprocess.Popen(
            [sys.executable, "-c", code, "train", "my config.yaml", "--out", "run"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=before,
            start_new_session=True,
        )

    def wait_for(self, line: str) -> None:
        assert self.process.stdout is not None
        assert self.process.stdout.readline().strip() == line

    def end(self) -> tuple[int, str]:
        try:
            _, err = self.process.communicate(timeout=60)
        finally:
            self.process.kill()
        return self.process.returncode, err


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_command_that_is_stopped_tidies_up_and_says_which_command_goes_on(signum: signal.Signals, code: int) -> None:
    command = Command()
    command.wait_for("on")
    command.process.send_signal(signum)
    command.wait_for("tidying up")
    returned, err = command.end()
    assert returned == code
    assert "Stopped. What was finished is kept" in err
    assert "  perikarya train 'my config.yaml' --out run\n" in err
    assert "Traceback" not in err


def test_a_second_ctrl_c_ends_what_takes_long_to_tidy_up() -> None:
    command = Command(after="time.sleep(60)")
    command.wait_for("on")
    command.process.send_signal(signal.SIGINT)
    command.wait_for("tidying up")
    command.process.send_signal(signal.SIGINT)
    assert command.end() == (-signal.SIGINT, "")


def test_a_signal_the_command_was_started_to_ignore_is_ignored() -> None:
    def as_nohup_does() -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    command = Command("os.write(1, b'on\\n'); time.sleep(1)", before=as_nohup_does)
    command.wait_for("on")
    command.process.send_signal(signal.SIGINT)
    assert command.end() == (0, "")


def test_forked_copies_that_hear_ctrl_c_too_say_nothing() -> None:
    command = Command(f"os.fork(); {LONG}")
    command.wait_for("on")
    command.wait_for("on")
    os.killpg(command.process.pid, signal.SIGINT)
    returned, err = command.end()
    assert returned == 130
    assert err.count("Stopped") == 1
    assert "Traceback" not in err
