"""The command line. Exit codes: 0 done; 1 the data or the run has a problem that the message names; 2 wrong usage."""

from __future__ import annotations

import logging
import os
import sys

from perikarya.errors import PerikaryaError


def main() -> None:
    """Run the command line and turn errors a person can mend into a sentence and exit code 1."""
    from perikarya.cli.app import app

    on_screen = logging.StreamHandler(sys.stderr)  # a run lowers the level of its logger, for its log file only
    on_screen.setLevel(logging.WARNING)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s", handlers=[on_screen])
    logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # what it says of damaged files, our errors say in full
    try:
        app()
    except PerikaryaError as error:
        _fail(str(error))
    except KeyboardInterrupt:
        _fail("Stopped. What was finished is kept; the same command goes on from there.")
    except BrokenPipeError:  # the reader of our output has gone, as with '| head'
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        if error.filename is None and error.errno is None:
            raise
        _fail(f"{error.filename or 'A file'}: {error.strerror}.\nFix: check the path, the rights and the free space.")


def _fail(message: str) -> None:
    from rich.console import Console
    from rich.markup import escape

    headline, _, rest = message.partition("\n")
    console = Console(stderr=True, soft_wrap=True, highlight=False)
    console.print(f"[bold red]Error:[/] {escape(headline)}")
    if rest:
        console.print(escape(rest))
    sys.exit(1)
