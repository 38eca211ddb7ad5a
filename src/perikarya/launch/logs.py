"""The log of a job: kept while it goes on, read by whoever asks what became of it."""

from __future__ import annotations

import logging
import os
import re
import socket
from pathlib import Path

from perikarya.launch.jobs import Event, Listener

log = logging.getLogger(__name__)

_STARTED = "started on"  # begins the line in which a worker takes a job up
_TAIL_BYTES = 16_384
_RECORD = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} ([A-Z]+) (.*)")


def log_start() -> None:
    """Note in the log of a job that this process takes it up; errors noted before are those of earlier attempts."""
    log.info("%s %s by process %d", _STARTED, socket.gethostname(), os.getpid())


def logged(listener: Listener) -> Listener:
    """Keep in the log what a listener is told, progress apart."""

    def tell(event: Event) -> None:
        if event.kind != "progress":
            log.info("%s %s%s", event.job_id, event.kind, f": {event.message}" if event.message else "")
        listener(event)

    return tell


def error_in_log(path: Path) -> str:
    """Return the error with which the last attempt ended that a log tells of; empty where it tells of none.

    Of a traceback that is its last line, else the first line of the message.
    """
    level, message = "", [""]
    for line in _last_lines(path):
        record = _RECORD.match(line)
        if record is None:
            message.append(line)
        elif record[1] == "ERROR" or record[2].startswith(_STARTED):
            level, message = record[1], [record[2]]
        elif level != "ERROR":
            message = [""]
    if level != "ERROR":
        return ""
    return message[-1] if message[0].startswith("Traceback") else message[0]


def _last_lines(path: Path) -> list[str]:
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL_BYTES))
            text = file.read().decode("utf-8", errors="replace")
    except OSError:
        return []
    return [line for line in text.splitlines() if line.strip()]
