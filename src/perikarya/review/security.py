"""Who may ask the service, how, and how much: everything is checked here before a line of the service runs.

The page shows unpublished data and writes into a study, on a machine that others may be logged in to, beside web
pages of strangers in the same browser. So a request must come with the token that only the terminal has shown; be
meant for this host and port by name, which a foreign name that resolves to 127.0.0.1 (DNS rebinding) is not; and, where
a browser tells what made it ask, come from the page itself. A cookie is sent to every port of a host: whoever makes a
person open a page of another program on 127.0.0.1 is kept out by ``SameSite`` only where that is another site; the
checks of ``Origin`` and ``Sec-Fetch-Site``, which know ports, keep out its pages.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

MAX_BODY_BYTES = 8 * 2**20  # the rows of a selection of a million cells are 7 MiB of JSON
BODY_PATIENCE_S = 20.0
_TOKEN_BYTES = 32
_HIDDEN_KEY = "token"

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_NOT_KEPT = "no-store"
_LET_IN = (
    '<!doctype html><html lang="en"><meta charset="utf-8"><link rel="icon" href="/favicon.svg" type="image/svg+xml">'
    "<title>Perikarya</title><p>Opening the page.</p></html>"
)
_LOCKED = (
    "<!doctype html><html lang=en><meta charset=utf-8><title>Perikarya</title><h1>This page is locked</h1>"
    "<p>Open the address that 'perikarya review' has written in the terminal: its token opens the page. "
    "Each start makes a new one.</p></html>"
)


class Refusal(Exception):  # noqa: N818 - what the service says, not a fault of it
    """A request that is not answered, with the status and the sentence it gets instead."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


@dataclass(frozen=True)
class Lock:
    """What opens the service: a secret, and the port it listens at."""

    token: str = field(repr=False)
    port: int

    @classmethod
    def new(cls, port: int) -> Lock:
        """Make a lock with a token of 256 random bits."""
        return cls(token=secrets.token_urlsafe(_TOKEN_BYTES), port=port)

    @property
    def address(self) -> str:
        """What a person opens in a browser."""
        return f"http://127.0.0.1:{self.port}/?{_HIDDEN_KEY}={self.token}"

    @property
    def cookie(self) -> str:
        """Name of the cookie that holds the token: two services of one machine do not overwrite each other's."""
        return f"perikarya_{self.port}"

    @property
    def hosts(self) -> tuple[str, ...]:
        """What the header ``Host`` of a request may say."""
        return f"127.0.0.1:{self.port}", f"localhost:{self.port}"

    def fits(self, token: str) -> bool:
        """Tell whether a token is the right one, in a time that does not tell how much of it is."""
        return secrets.compare_digest(token.encode(), self.token.encode())


class Gate:
    """Lets requests through to the service, or refuses them; every answer leaves with the headers of ``HEADERS``.

    Parameters
    ----------
    app
        The service, as an ASGI application.
    lock
        The token and the port.
    body_patience_s
        How long a body may take to come, in seconds.
    """

    def __init__(self, app: App, lock: Lock, *, body_patience_s: float = BODY_PATIENCE_S) -> None:
        self._app, self._lock, self._body_patience_s = app, lock, body_patience_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request as an ASGI application."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await self._http(scope, receive, _with_headers(send))

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = _Headers(scope)
        try:
            _check_method(scope["method"])
            self._check_origin(scope, headers)
            if self._is_first(scope):
                await self._let_in(scope, send)
                return
            self._check_cookie(headers)
            if scope["method"] == "POST":
                receive = await self._with_body(headers, receive)
        except Refusal as refusal:
            await _refuse(send, refusal, as_page=scope["path"] == "/")
            return
        await self._app(scope, receive, send)

    def _check_origin(self, scope: Scope, headers: _Headers) -> None:
        host = headers.only("host")
        if host not in self._lock.hosts:
            raise Refusal(403, "This service answers at 127.0.0.1 and localhost only, with its port.")
        origin, site = headers.only("origin"), headers.only("sec-fetch-site")
        # "/" is the same for everybody and shows nothing; people come to it from terminals, notebooks and mails
        strange = site not in (None, "same-origin", "none") and scope["path"] != "/"
        unsaid = scope["method"] == "POST" and origin is None
        if strange or unsaid or origin not in (None, f"http://{host}"):
            raise Refusal(403, "The request does not come from the service's own page.")

    @staticmethod
    def _is_first(scope: Scope) -> bool:
        return bool(scope["method"] == "GET" and scope["path"] == "/" and scope["query_string"])

    async def _let_in(self, scope: Scope, send: Send) -> None:
        given = parse_qs(scope["query_string"].decode("latin-1")).get(_HIDDEN_KEY, [])
        if len(given) != 1 or not self._lock.fits(given[0]):
            raise Refusal(401, "The token is not that of this service.")
        # not a redirect: after one a browser still counts the request as the foreign page's, and keeps the cookie back
        cookie = f"{self._lock.cookie}={self._lock.token}; Path=/; HttpOnly; SameSite=Strict"
        extra = {"Refresh": "0; url=/", "Set-Cookie": cookie}
        await _answer(send, 200, _LET_IN.encode(), "text/html; charset=utf-8", extra)

    def _check_cookie(self, headers: _Headers) -> None:
        # parsed by hand: the standard library stops at the first cookie of another program that it finds malformed
        pairs = [pair.strip().partition("=") for pair in (headers.only("cookie") or "").split(";")]
        if not any(name == self._lock.cookie and self._lock.fits(value) for name, _, value in pairs):
            raise Refusal(
                401, "Open the address that 'perikarya review' has written in the terminal: it has the token."
            )

    async def _with_body(self, headers: _Headers, receive: Receive) -> Receive:
        """Read the whole body, so that nothing behind the gate waits for one or holds more than it may."""
        if (headers.only("content-type") or "").partition(";")[0].strip().lower() != "application/json":
            raise Refusal(415, "The service takes application/json only.")
        if int(headers.only("content-length") or 0) > MAX_BODY_BYTES:  # the server has checked that it is a number
            raise _too_large()
        try:
            async with asyncio.timeout(self._body_patience_s):
                body = await _read(receive)
        except TimeoutError:
            raise Refusal(408, f"The request was not whole after {self._body_patience_s:g} seconds.") from None
        waiting: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def replay() -> Message:
            return waiting.pop() if waiting else await receive()

        return replay


class _Headers:
    """The headers of a request; one that must not come twice is asked for by ``only``."""

    def __init__(self, scope: Scope) -> None:
        self._pairs = [(name.lower(), value) for name, value in scope["headers"]]

    def only(self, name: str) -> str | None:
        found = [value for key, value in self._pairs if key == name.encode()]
        if len(found) > 1:
            raise Refusal(400, f"The header '{name}' comes {len(found)} times.")
        return found[0].decode("latin-1") if found else None


def _check_method(method: str) -> None:
    if method not in ("GET", "POST"):
        raise Refusal(405, f"The service knows GET and POST, not {method[:20]}.")


async def _read(receive: Receive) -> bytes:
    parts, size, more = [], 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Refusal(400, "The request broke off.")
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        more = message.get("more_body", False)
        if size > MAX_BODY_BYTES:
            raise _too_large()
    return b"".join(parts)


def _too_large() -> Refusal:
    return Refusal(413, f"The request is larger than {MAX_BODY_BYTES // 2**20} MiB.")


def _with_headers(send: Send) -> Send:
    fixed = [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            given = list(message.get("headers", []))
            if not any(name == b"cache-control" for name, _ in given):
                given.append((b"cache-control", _NOT_KEPT.encode()))
            message = {**message, "headers": [*given, *fixed]}
        await send(message)

    return sending


async def _refuse(send: Send, refusal: Refusal, *, as_page: bool) -> None:
    extra = {"Connection": "close"}  # what is left of a body is not read
    if refusal.status == 405:
        extra["Allow"] = "GET, POST"
    if as_page and refusal.status == 401:
        await _answer(send, 401, _LOCKED.encode(), "text/html; charset=utf-8", extra)
    else:
        body = json.dumps({"error": str(refusal)}).encode()
        await _answer(send, refusal.status, body, "application/json", extra)


async def _answer(send: Send, status: int, body: bytes, media_type: str, extra: dict[str, str]) -> None:
    headers = {"Content-Type": media_type, "Content-Length": str(len(body)), **extra}
    pairs = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": pairs})
    await send({"type": "http.response.body", "body": body})
