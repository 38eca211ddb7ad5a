"""A service to put questions to, without a port: what a browser with the token would send."""

from __future__ import annotations

import base64
import uuid
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from starlette.testclient import TestClient

from perikarya.review.assets import Asset
from perikarya.review.desk import Desk, open_desk
from perikarya.review.security import Lock
from perikarya.review.service import make_service

PORT = 8765
ORIGIN = f"http://127.0.0.1:{PORT}"
PAGE = {
    "index.html": Asset(b"<!doctype html><title>page</title>", "text/html; charset=utf-8", for_ever=False),
    "assets/index-abc.js": Asset(b"export {};", "text/javascript; charset=utf-8", for_ever=True),
}


class Service:
    """One open review and a browser that has its cookie."""

    def __init__(self, path: Path, *, reader: str = "Ada", blind: bool = False, study: Path | None = None) -> None:
        self.desk: Desk = open_desk(path, study=study, reader=reader, blind=blind)
        self._lock = Lock.new(PORT)
        self._app = make_service(self.desk, PAGE, self._lock)
        self.browser = self.another_browser()

    def another_browser(self) -> TestClient:
        cookies = {self._lock.cookie: self._lock.token}
        headers = {"Sec-Fetch-Site": "same-origin"}
        return TestClient(self._app, base_url=ORIGIN, cookies=cookies, headers=headers, raise_server_exceptions=False)

    def get(self, address: str, **more: Any) -> Any:
        return self.browser.get(address, **more)

    def post(self, address: str, content: Any = None, *, browser: TestClient | None = None, **more: Any) -> Any:
        given = {"json": content} | more
        headers = {"Origin": ORIGIN, "Content-Type": "application/json"}
        return (browser or self.browser).post(address, headers=headers, **given)

    def ask(self, **query: Any) -> dict[str, Any]:
        """Put a question to the table; ``rows`` of the answer are decoded."""
        answer = self.post("/api/query", query)
        assert answer.status_code == 200, answer.text
        found = dict(answer.json())
        return found | {"rows": rows_of(found["rows_b64"]).tolist()}

    def correct(self, *items: dict[str, Any], browser: TestClient | None = None) -> dict[str, Any]:
        answer = self.post("/api/corrections", {"items": list(items)}, browser=browser)
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    def close(self) -> None:
        self.desk.close()


def rows_of(text: str) -> NDArray[np.uint32]:
    return np.frombuffer(base64.b64decode(text), "<u4")


def click(row: int, old: str | None, new: str | None, **more: Any) -> dict[str, Any]:
    return {"id": str(uuid.uuid4()), "row": row, "kind": "label", "old": old, "new": new} | more
