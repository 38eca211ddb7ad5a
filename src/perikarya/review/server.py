"""The service on a port of this machine: where it listens, how a browser is opened on it, how it ends."""

from __future__ import annotations

import hashlib
import html
import os
import shutil
import socket
import sys
import tempfile
import threading
import webbrowser
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from perikarya.errors import RunError
from perikarya.review.security import App, Lock

HOST = "127.0.0.1"
_USUAL_PORTS = range(20_000, 30_000)  # below those that systems lend to outgoing connections
_KEPT_OPEN_S = 75  # longer than a page waits between two questions
_LAST_ANSWERS_S = 1
_OPENING = '<!doctype html><meta charset="utf-8"><meta http-equiv="refresh" content="0; url={address}">'


def usual_port(study: Path) -> int:
    """Return the port a study is reviewed at where it is free.

    A browser keeps clicks that were not confirmed by address and port; at the same port they are sent after a restart.
    """
    digest = hashlib.sha256(str(study.resolve()).encode()).digest()
    return _USUAL_PORTS[int.from_bytes(digest[:4], "big") % len(_USUAL_PORTS)]


def listen(port: int, *, usual: int = 0) -> socket.socket:
    """Listen on this machine only.

    Parameters
    ----------
    port
        The port; 0: the usual one, or any where that is taken.
    usual
        See ``usual_port``.

    Raises
    ------
    RunError
        If another program has the port that was asked for.
    """
    for wanted in (port,) if port else (usual, 0):
        # with its protocol named, or asyncio leaves Nagle's algorithm on and every answer is 40 ms late
        listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a killed service leaves its port at once
        try:
            listening.bind((HOST, wanted))
            listening.listen()
        except OSError as error:
            listening.close()
            reason = error.strerror
        else:
            return listening
    raise RunError(
        f"Port {port} of this machine cannot be used: {reason}.\n"
        "Fix: leave out --port, which finds a free one, or choose another above 1023."
    )


def serve(make_app: Callable[[Lock], App], listening: socket.socket, *, announce: Callable[[Lock], None]) -> None:
    """Serve until a signal asks this process to end; open questions get a second to be answered.

    Parameters
    ----------
    make_app
        Builds the service for a lock with a new token.
    listening
        See ``listen``; closed at the end.
    announce
        Called once requests are taken.
    """
    import uvicorn

    lock = Lock.new(listening.getsockname()[1])
    config = uvicorn.Config(
        make_app(lock),
        log_config=None,
        access_log=False,  # the address holds the token
        lifespan="off",
        ws="none",
        server_header=False,
        timeout_keep_alive=_KEPT_OPEN_S,
        timeout_graceful_shutdown=_LAST_ANSWERS_S,
    )
    with listening:
        announce(lock)
        uvicorn.Server(config).run(sockets=[listening])


@contextmanager
def opened_in_browser(lock: Lock) -> Iterator[bool]:
    """Open the page in the person's browser where there is a screen; yield whether that was tried.

    The browser is given a file that only this user can read and that leads on: other users see the arguments of all
    programs, and the address holds the token.
    """
    if not _has_screen():
        yield False
        return
    scratch = Path(tempfile.mkdtemp(prefix="perikarya-review-"))
    try:
        door = scratch / "open.html"
        door.write_text(_OPENING.format(address=html.escape(lock.address)), encoding="utf-8")
        threading.Thread(target=webbrowser.open, args=(door.as_uri(),), daemon=True).start()
        yield True
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _has_screen() -> bool:
    """Tell whether there is a screen: browsers for terminals would take the one the address is printed in."""
    if os.environ.get("SSH_CONNECTION") and not os.environ.get("DISPLAY"):
        return False
    return sys.platform == "darwin" or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
