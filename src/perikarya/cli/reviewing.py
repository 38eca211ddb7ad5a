"""``perikarya review``: the page on a study or a run."""

from __future__ import annotations

import getpass
import os
import threading
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from perikarya.cli.console import console
from perikarya.errors import RunError
from perikarya.launch.stopping import Stopped

if TYPE_CHECKING:
    from perikarya.review.desk import Desk
    from perikarya.review.security import Lock

_PACKAGES = ("fastapi", "uvicorn")
_LAST_MOMENT_S = 0.2


def review_command(
    path: Path, *, study: Path | None, port: int, reader: str | None, blind: bool, open_page: bool
) -> None:
    """Serve the page until Ctrl-C."""
    _check_packages()
    from perikarya.review.assets import read_page
    from perikarya.review.desk import open_desk
    from perikarya.review.server import listen, opened_in_browser, serve, usual_port
    from perikarya.review.service import make_service

    page = read_page()
    with console.status(f"Reading {path}"):
        desk = open_desk(path, study=study, reader=reader or _login(), blind=blind)

    with ExitStack() as while_open:

        def announce(lock: Lock) -> None:
            opened = open_page and while_open.enter_context(opened_in_browser(lock))
            _say(desk, lock, opened=opened)
            desk.warm_up()

        try:
            listening = listen(port, usual=usual_port(desk.table.opened.root))
            serve(lambda lock: make_service(desk, page, lock), listening, announce=announce)
        except Stopped as stopped:
            desk.close()
            _end_now(stopped, while_open)
            raise
        finally:
            desk.close()


def _check_packages() -> None:
    missing = [name for name in _PACKAGES if find_spec(name) is None]
    if missing:
        raise RunError(
            f"The page needs {' and '.join(missing)}, which this installation lacks.\n"
            "Fix: pip install 'perikarya[review]'."
        )


def _login() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # no name for this user, as in a container
        return "reader"


def _say(desk: Desk, lock: Lock, *, opened: bool) -> None:
    info = desk.table.info()
    console.print(f"{info['n_cells']:,} cells of {info['source']}, reviewed by {desk.reader}.", markup=False)
    console.print(f"{'Opening' if opened else 'Open'} in a browser: {lock.address}", markup=False)
    if os.environ.get("SSH_CONNECTION"):
        console.print(f"From another computer: ssh -L {lock.port}:127.0.0.1:{lock.port} HOST, then that address there.")
    console.print("Corrections are written as they are made. Ctrl-C ends the service.")


def _end_now(stopped: Stopped, while_open: ExitStack) -> None:
    """End at once where a thread is still at a long piece of work, which nobody waits for any more."""
    others = [t for t in threading.enumerate() if t is not threading.current_thread() and not t.daemon]
    for thread in others:
        thread.join(_LAST_MOMENT_S)
    if any(thread.is_alive() for thread in others):
        while_open.close()
        os._exit(stopped.exit_code)
