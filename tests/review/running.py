"""``perikarya review`` in a process of its own, as a person starts it."""

from __future__ import annotations

import http.client
import json
import os
import re
import select
import subprocess
import sys
import time
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PATIENCE_S = 60.0
# the command as a person gives it, with a page of one line, for the front-end may not be built here
WITHOUT_PAGE = """
import sys
import perikarya.review.assets as assets
page = {"index.html": assets.Asset(b"<title>page</title>", "text/html", for_ever=False)}
assets.read_page = lambda: page
from perikarya.cli import main
sys.argv = ["perikarya", "review", *sys.argv[1:]]
main()
"""


class Running:
    """A running ``perikarya review`` and its address."""

    def __init__(self, process: subprocess.Popen[bytes], address: str) -> None:
        self.process, self.address = process, address
        parts = urllib.parse.urlsplit(address)
        self.port = int(parts.port or 0)
        self.token = urllib.parse.parse_qs(parts.query)["token"][0]

    @property
    def headers(self) -> dict[str, str]:
        return {
            "Cookie": f"perikarya_{self.port}={self.token}",
            "Origin": f"http://127.0.0.1:{self.port}",
            "Content-Type": "application/json",
        }

    def ask(self, method: str, address: str, content: Any = None) -> tuple[int, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_S)
        try:
            connection.request(method, address, None if content is None else json.dumps(content), self.headers)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
        finally:
            connection.close()


@contextmanager
def running(*arguments: str | Path, with_page: bool = True) -> Iterator[Running]:
    """Start the command and wait until it prints its address; without a page, one of a line stands for it."""
    start = ["-m", "perikarya", "review"] if with_page else ["-c", WITHOUT_PAGE]
    command = [sys.executable, *start, *map(str, arguments), "--no-open"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(
        command, bufsize=0, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment, start_new_session=True
    )
    try:
        yield Running(process, _address(process))
    finally:
        process.kill()
        process.communicate()


def _address(process: subprocess.Popen[bytes]) -> str:
    assert process.stdout is not None
    said = ""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline and select.select([process.stdout], [], [], PATIENCE_S)[0]:
        line = process.stdout.readline().decode()
        said += line
        found = re.search(r"http://127\.0\.0\.1:\d+/\?token=\S+", line)
        if found:
            return found[0]
        if not line:
            break
    raise AssertionError(f"no address was printed: {said}")
