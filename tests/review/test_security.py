"""Attacks on the door of the service: each is refused before anything behind it runs."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="the service needs the packages of perikarya[review]")
from starlette.testclient import TestClient

from perikarya.review.security import HEADERS, MAX_BODY_BYTES, Gate, Lock, Message, Receive, Scope, Send

PORT = 8765
LOCK = Lock.new(PORT)
OWN = {"Origin": f"http://127.0.0.1:{PORT}", "Sec-Fetch-Site": "same-origin"}
COOKIE = {"Cookie": f"{LOCK.cookie}={LOCK.token}"}


class Behind:
    """Stands for the service: notes what comes through, and answers with how long the body was."""

    def __init__(self) -> None:
        self.came: list[str] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.came.append(scope["path"])
        size, more = 0, scope["method"] == "POST"
        while more:
            message = await receive()
            size, more = size + len(message["body"]), message["more_body"]
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
        await send({"type": "http.response.body", "body": json.dumps({"size": size}).encode()})


@pytest.fixture
def behind() -> Behind:
    return Behind()


@pytest.fixture
def client(behind: Behind) -> TestClient:
    return TestClient(Gate(behind, LOCK), base_url=f"http://127.0.0.1:{PORT}", follow_redirects=False)


def _post(client: TestClient, headers: dict[str, str], **more: Any) -> Any:
    return client.post("/api/query", **({"json": {}} | more), headers=headers)


def test_the_page_itself_is_let_in(client: TestClient, behind: Behind) -> None:
    assert client.get("/api/study", headers=COOKIE).status_code == 200
    assert client.get("/api/study", headers={**COOKIE, "Sec-Fetch-Site": "none"}).status_code == 200
    assert client.get("/", headers={**COOKIE, "Host": f"localhost:{PORT}"}).status_code == 200
    answer = _post(client, {**COOKIE, **OWN}, json={"text": "x" * 1000})
    assert answer.json() == {"size": 1011}
    assert len(behind.came) == 4


def test_the_address_of_the_terminal_sets_a_cookie_that_scripts_and_other_sites_do_not_get(client: TestClient) -> None:
    # a link from another site, such as a notebook or a file, must lead in as well
    answer = client.get(LOCK.address.removeprefix(f"http://127.0.0.1:{PORT}"), headers={"Sec-Fetch-Site": "cross-site"})
    assert answer.status_code == 200
    assert answer.headers["refresh"] == "0; url=/"
    kept = answer.headers["set-cookie"]
    assert kept == f"{LOCK.cookie}={LOCK.token}; Path=/; HttpOnly; SameSite=Strict"
    assert LOCK.token not in answer.text
    assert client.get("/").status_code == 200  # the client has kept the cookie
    assert client.get("/api/study").status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Cookie": f"{LOCK.cookie}=wrong"},
        {"Cookie": f"{LOCK.cookie}="},
        {"Cookie": f"{LOCK.cookie}={LOCK.token[:-1]}"},
        {"Cookie": f"{LOCK.cookie}={LOCK.token}x"},
        {"Cookie": f"perikarya_{PORT + 1}={LOCK.token}"},
        {"Cookie": f"token={LOCK.token}"},
        {"Cookie": LOCK.token},
        {"Authorization": f"Bearer {LOCK.token}"},
        {"Cookie": f"{LOCK.cookie}=\u00e9\u00ff".encode("latin-1").decode("latin-1")},
    ],
)
@pytest.mark.parametrize("path", ["/", "/api/study", "/assets/index.js", "/crops/0/0.png", "/nowhere"])
def test_without_the_token_in_its_cookie_nothing_is_told(
    client: TestClient, behind: Behind, path: str, headers: dict[str, str]
) -> None:
    encoded = {name: value.encode("latin-1") for name, value in headers.items()}
    answer = client.get(path, headers=encoded)
    assert answer.status_code == 401
    assert not behind.came
    assert LOCK.token not in answer.text
    assert "set-cookie" not in answer.headers


@pytest.mark.parametrize(
    "query",
    ["token=", "token=wrong", "other=1", pytest.param(f"token={LOCK.token[:-1]}", id="nearly"), "token=%ff%00"],
)
def test_a_wrong_token_in_the_address_opens_nothing(client: TestClient, behind: Behind, query: str) -> None:
    answer = client.get(f"/?{query}", headers=COOKIE)
    assert answer.status_code == 401
    assert "set-cookie" not in answer.headers
    assert answer.headers["content-type"].startswith("text/html")
    assert not behind.came


def test_the_token_counts_at_the_front_door_only_and_once(client: TestClient, behind: Behind) -> None:
    assert client.get(f"/api/study?token={LOCK.token}").status_code == 401
    assert client.get(f"/?token={LOCK.token}&token={LOCK.token}").status_code == 401
    assert client.post(f"/?token={LOCK.token}", headers=OWN).status_code == 401
    assert not behind.came


def test_a_cookie_of_another_program_does_not_lock_the_person_out(client: TestClient) -> None:
    messy = f'a={{"b": [1, 2]}}; {LOCK.cookie}=stale; "; ;;=; {LOCK.cookie}={LOCK.token}; c'
    assert client.get("/api/study", headers={"Cookie": messy}).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        f"evil.example:{PORT}",
        f"127.0.0.1.evil.example:{PORT}",
        f"evil.example#127.0.0.1:{PORT}",
        "127.0.0.1",
        f"127.0.0.1:{PORT + 1}",
        f"0.0.0.0:{PORT}",
        f"[::1]:{PORT}",
        f"localhost.:{PORT}",
        f"user@127.0.0.1:{PORT}",
        "",
    ],
)
def test_a_name_that_only_resolves_to_this_machine_is_refused(client: TestClient, behind: Behind, host: str) -> None:
    for path in ("/", f"/?token={LOCK.token}", "/api/study"):
        answer = client.get(path, headers={**COOKIE, "Host": host})
        assert answer.status_code == 403
        assert "set-cookie" not in answer.headers
    assert not behind.came


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": f"http://127.0.0.1:{PORT + 1}"},
        {"Origin": f"https://127.0.0.1:{PORT}"},
        {"Origin": f"http://localhost:{PORT}"},  # the page of the other name has another cookie
        {"Origin": f"http://127.0.0.1:{PORT}.evil.example"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {**OWN, "Sec-Fetch-Site": "cross-site"},
        {},  # a browser always says where a POST comes from
    ],
)
def test_pages_of_others_cannot_write_even_where_the_browser_sends_the_cookie(
    client: TestClient, behind: Behind, headers: dict[str, str]
) -> None:
    assert _post(client, {**COOKIE, **headers}).status_code == 403
    assert not behind.came


@pytest.mark.parametrize("site", ["cross-site", "same-site", "nonsense"])
def test_pages_of_others_cannot_read_pictures_or_tables(client: TestClient, behind: Behind, site: str) -> None:
    for path in ("/crops/0/0.png", "/api/study", "/assets/index.js"):
        assert client.get(path, headers={**COOKIE, "Sec-Fetch-Site": site}).status_code == 403
    assert not behind.came


@pytest.mark.parametrize(
    "kind",
    ["application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "text/plain", "", "application/jsonp"],
)
def test_a_form_is_no_way_in(client: TestClient, behind: Behind, kind: str) -> None:
    answer = _post(client, {**COOKIE, **OWN, "Content-Type": kind}, json=None, content=b'{"items": []}')
    assert answer.status_code == 415
    assert not behind.came


@pytest.mark.parametrize("method", ["HEAD", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "QUERY"])
def test_other_methods_are_refused_and_no_other_site_is_told_that_it_may(
    client: TestClient, behind: Behind, method: str
) -> None:
    asked = {"Origin": "http://evil.example", "Access-Control-Request-Method": "POST"}
    for headers in (COOKIE, {**COOKIE, **asked}):
        answer = client.request(method, "/api/corrections", headers=headers)
        assert answer.status_code == 405
        assert answer.headers["allow"] == "GET, POST"
        assert not any(name.startswith("access-control") for name in answer.headers)
    assert not behind.came


def test_a_body_that_says_it_is_too_large_is_not_read(client: TestClient, behind: Behind) -> None:
    def never_read() -> Iterator[bytes]:
        yield b"{"
        raise AssertionError("the body was read")

    headers = {**COOKIE, **OWN, "Content-Type": "application/json", "Content-Length": str(MAX_BODY_BYTES + 1)}
    answer = _drive(headers, never_read())
    assert answer[0]["status"] == 413
    assert (b"connection", b"close") in answer[0]["headers"]
    assert not behind.came


def test_a_body_without_end_is_cut_off_at_the_limit() -> None:
    n_read = 0

    def endless() -> Iterator[bytes]:
        nonlocal n_read
        while True:
            n_read += 2**16
            yield b" " * 2**16

    answer = _drive({**COOKIE, **OWN, "Content-Type": "application/json"}, endless())
    assert answer[0]["status"] == 413
    assert n_read <= MAX_BODY_BYTES + 2 * 2**16


def test_a_body_that_does_not_come_is_not_waited_for() -> None:
    answer = _drive({**COOKIE, **OWN, "Content-Type": "application/json"}, iter([b"{"]), patience_s=0.05)
    assert answer[0]["status"] == 408


def test_the_largest_body_gets_through_whole(client: TestClient) -> None:
    headers = {**COOKIE, **OWN, "Content-Type": "application/json; charset=utf-8"}
    assert _post(client, headers, json=None, content=b" " * MAX_BODY_BYTES).json() == {"size": MAX_BODY_BYTES}
    assert _post(client, headers, json=None, content=b" " * (MAX_BODY_BYTES + 1)).status_code == 413


def test_a_stranger_cannot_make_the_service_read_a_body() -> None:
    def never_read() -> Iterator[bytes]:
        raise AssertionError("the body was read")
        yield b""

    for headers in (OWN, {**COOKIE, "Origin": "http://evil.example"}):
        assert _drive({**headers, "Content-Type": "application/json"}, never_read())[0]["status"] in (401, 403)


def test_a_header_that_comes_twice_is_refused_rather_than_chosen_from(client: TestClient, behind: Behind) -> None:
    for name, value in (("Origin", OWN["Origin"]), ("Cookie", COOKIE["Cookie"]), ("Sec-Fetch-Site", "none")):
        pairs = [*COOKIE.items(), *OWN.items(), (name, value)]
        assert _drive_pairs([*pairs, ("Content-Type", "application/json")], iter([]))[0]["status"] == 400
    host = ("Host", f"127.0.0.1:{PORT}")
    assert _drive_pairs([*COOKIE.items(), host], iter([]), method="GET")[0]["status"] == 400
    assert not behind.came


def test_every_answer_has_the_headers_that_keep_scripts_and_frames_of_others_out(client: TestClient) -> None:
    answers = [
        client.get("/api/study", headers=COOKIE),
        client.get("/"),
        client.get("/?token=wrong"),
        client.get(f"/?token={LOCK.token}"),
        client.get("/", headers={"Host": "evil.example"}),
        client.put("/"),
    ]
    for answer in answers:
        for name, value in HEADERS.items():
            assert answer.headers[name] == value
        assert answer.headers["cache-control"] == "no-store"
    policy = HEADERS["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy
    assert "http" not in policy


def test_a_web_socket_is_not_answered(behind: Behind) -> None:
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        return {"type": "websocket.connect"}

    asyncio.run(Gate(behind, LOCK)({"type": "websocket", "path": "/", "headers": []}, receive, send))
    assert not sent
    assert not behind.came


def test_every_start_has_another_token_and_no_print_of_the_lock_shows_it() -> None:
    tokens = {Lock.new(PORT).token for _ in range(50)}
    assert len(tokens) == 50
    assert min(len(t) for t in tokens) >= 43  # 256 bits
    assert LOCK.token not in repr(LOCK)


def _drive(headers: dict[str, str], body: Iterator[bytes], *, patience_s: float = 5.0) -> list[Message]:
    return _drive_pairs([*headers.items()], body, patience_s=patience_s)


def _drive_pairs(
    headers: list[tuple[str, str]], body: Iterator[bytes], *, patience_s: float = 5.0, method: str = "POST"
) -> list[Message]:
    """Send a request as a server hands it over, its body part by part; after the last part nothing comes."""
    sent: list[Message] = []

    async def receive() -> Message:
        part = next(body, None)
        if part is None:
            await asyncio.sleep(3600)
        return {"type": "http.request", "body": part, "more_body": True}

    async def send(message: Message) -> None:
        sent.append(message)

    pairs = [(b"host", f"127.0.0.1:{PORT}".encode())]
    pairs += [(name.lower().encode(), value.encode()) for name, value in headers]
    scope = {"type": "http", "method": method, "path": "/api/query", "query_string": b"", "headers": pairs}
    asyncio.run(Gate(Behind(), LOCK, body_patience_s=patience_s)(scope, receive, send))
    return sent
