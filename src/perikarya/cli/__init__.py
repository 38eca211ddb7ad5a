"""The command line.

Exit codes: 0 done; 1 the data or the run has a problem that the message names; 2 wrong usage; 130 and 143 stopped by
Ctrl-C and SIGTERM.
"""

from __future__ import annotations

import logging
import os
import shlex
import sys
from typing import TextIO

from perikarya.errors import PerikaryaError


class _OnScreen(logging.StreamHandler[TextIO]):
    """Writes warnings to what standard error is at that moment, for a live table moves out of the way of it."""

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stderr
        super().emit(record)


def main() -> None:
    """Run the command line and turn errors a person can mend into a sentence and exit code 1."""
    from perikarya.cli.app import app
    from perikarya.launch.stopping import Stopped, stop_by_signals

    on_screen = _OnScreen()  # a run lowers the level of its logger, for its log file only
    on_screen.setLevel(logging.WARNING)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s", handlers=[on_screen])
    logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # what it says of damaged files, our errors say in full
    stop_by_signals()
    try:
        app()
    except PerikaryaError as error:
        _fail(str(error))
    except Stopped as stopped:
        _say_stopped()
        sys.exit(stopped.exit_code)
    except BrokenPipeError:  # the reader of our output has gone, as with '| head'
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        if error.filename is None and error.errno is None:
            raise
        _fail(f"{error.filename or 'A file'}: {error.strerror}.\nFix: check the path, the rights and the free space.")


def _say_stopped() -> None:
    command = shlex.join(["perikarya", *sys.argv[1:]])
    sys.stderr.write(f"Stopped. What was finished is kept; the same command goes on from there:\n  {command}\n")


def _fail(message: str) -> None:
    from rich.console import Console
    from rich.markup import escape

    headline, _, rest = message.partition("\n")
    console = Console(stderr=True, soft_wrap=True, highlight=False)
    console.print(f"[bold red]Error:[/] {escape(headline)}")
    if rest:
        console.print(escape(rest))
    sys.exit(1)
