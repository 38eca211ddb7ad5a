"""The service on a real port, in a process of its own: started, asked, attacked below HTTP, stopped, killed."""

from __future__ import annotations

import signal
import socket
import stat
import sys
import time
import urllib.parse
import webbrowser
from pathlib import Path

import pytest

pytest.importorskip("uvicorn", reason="the service needs the packages of perikarya[review]")
from tests.review.client import click
from tests.review.running import PATIENCE_S, Running, running
from tests.tiny import CLASS_NAMES, make_study

from perikarya.errors import RunError
from perikarya.review.assets import read_page
from perikarya.review.security import Lock
from perikarya.review.server import listen, opened_in_browser, usual_port

LARGE, MEDIUM, SMALL = CLASS_NAMES


@pytest.fixture
def study(tmp_path: Path) -> Path:
    return make_study(tmp_path / "study", cells_per_subject=3).root


def test_a_person_starts_corrects_is_cut_off_and_goes_on(study: Path) -> None:
    with running(study, "--reader", "Ada", with_page=False) as first:
        assert first.ask("GET", "/api/study")[1]["reader"] == "Ada"
        status, answer = first.ask("POST", "/api/corrections", {"items": [click(0, LARGE, SMALL)]})
        assert (status, answer["revision"]) == (200, 1)
        # listens on this machine only
        assert first.process.poll() is None
        addresses = (
            {line.split()[1] for line in Path("/proc/net/tcp").read_text().splitlines()[1:]} if _is_linux() else set()
        )
        own = [a for a in addresses if a.endswith(f":{first.port:04X}") and a.startswith("00000000")]
        assert not own
        first.process.send_signal(signal.SIGKILL)
        first.process.wait(PATIENCE_S)
    with running(study, "--reader", "Ada", with_page=False) as second:
        assert second.port == first.port, "clicks that a browser keeps by port would be lost"
        assert second.token != first.token
        assert second.ask("GET", "/api/changes?since=0")[1]["counts"] == [11, 12, 13, 0]
        _is_cut_off_when_slow(second)
        second.process.send_signal(signal.SIGINT)
        said, _ = second.process.communicate(timeout=PATIENCE_S)
        assert second.process.returncode == 130
        assert b"Traceback" not in said
        assert second.token.encode() not in said, "requests are not logged with their token"


def _is_linux() -> bool:
    return sys.platform == "linux"


def _is_cut_off_when_slow(service: Running) -> None:
    """Check that what is no HTTP, or says it is larger than it may be, is answered and closed at once."""
    host = f"Host: 127.0.0.1:{service.port}\r\n"
    headers = host + "".join(f"{name}: {value}\r\n" for name, value in service.headers.items())
    for request, status in (
        (f"POST /api/query HTTP/1.1\r\n{headers}Content-Length: 99999999999\r\n\r\n", b"413"),
        (f"POST /api/query HTTP/1.1\r\n{headers}Content-Length: -1\r\n\r\n", b"400"),
        (f"POST /api/query HTTP/1.1\r\n{headers}Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", b"400"),
        (f"GET /../../etc/passwd HTTP/1.1\r\n{headers}\r\n", b"404"),
        (f"GET /%2e%2e/%2e%2e/etc/passwd HTTP/1.1\r\n{headers}\r\n", b"404"),
        (f"GET http://evil.example/api/study HTTP/1.1\r\n{host}\r\n", b"4"),
        (f"GET /api/study HTTP/1.1\r\nHost: evil.example:{service.port}\r\n\r\n", b"403"),
        (f"GET /api/study HTTP/1.1\r\n{host}\r\n", b"401"),
        ("GET /api/study HTTP/1.0\r\n\r\n", b"403"),
        (f"GET /{'a' * 200_000} HTTP/1.1\r\n{headers}\r\n", b"400"),
        ("\x16\x03\x01\x02\x00", b"400"),
    ):
        with socket.create_connection(("127.0.0.1", service.port), timeout=PATIENCE_S) as connection:
            connection.sendall(request.encode("latin-1"))
            assert connection.recv(4096).split(b" ")[1].startswith(status), request[:80]
    assert service.ask("GET", "/api/study")[0] == 200


def test_a_study_keeps_its_port_and_another_is_taken_where_that_is_busy(tmp_path: Path) -> None:
    usual = usual_port(tmp_path / "one")
    assert usual == usual_port(tmp_path / "two" / ".." / "one")
    assert usual != usual_port(tmp_path / "two")
    with listen(0, usual=usual) as first, listen(0, usual=usual) as second:
        assert first.getsockname() == ("127.0.0.1", usual)
        assert first.proto == socket.IPPROTO_TCP, "asyncio sends small answers at once on such sockets only"
        assert second.getsockname()[1] not in (0, usual)
        with pytest.raises(RunError, match=f"Port {usual} of this machine cannot be used"):
            listen(usual)


def test_a_browser_gets_the_token_in_a_file_that_others_cannot_read(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr(webbrowser, "open", opened.append)
    monkeypatch.setenv("DISPLAY", ":0")
    lock = Lock.new(8765)
    with opened_in_browser(lock) as tried:
        assert tried
        deadline = time.monotonic() + PATIENCE_S
        while not opened and time.monotonic() < deadline:
            time.sleep(0.01)
        (address,) = opened
        assert address.startswith("file://")
        assert lock.token not in address
        door = Path(urllib.parse.unquote(urllib.parse.urlsplit(address).path))
        assert stat.S_IMODE(door.parent.stat().st_mode) == 0o700
        assert f"url={lock.address}" in door.read_text()
    assert not door.exists()


def test_without_a_screen_no_browser_takes_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(webbrowser, "open", lambda address: pytest.fail("a browser was opened"))
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    with opened_in_browser(Lock.new(8765)) as tried:
        assert not tried


def test_a_page_that_was_not_built_is_told_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="make page"):
        read_page(tmp_path)


def test_only_files_of_the_page_are_served_and_scripts_are_scripts(tmp_path: Path) -> None:
    (tmp_path / "assets").mkdir()
    for name in ("index.html", "favicon.svg", "assets/index-1.js", "assets/index-1.css", ".env", "notes.py"):
        (tmp_path / name).write_text(name)
    page = read_page(tmp_path)
    assert set(page) == {"index.html", "favicon.svg", "assets/index-1.js", "assets/index-1.css"}
    assert page["assets/index-1.js"].media_type.startswith("text/javascript")
    assert [name for name, asset in page.items() if asset.for_ever] == ["assets/index-1.css", "assets/index-1.js"]
