"""A browser page that notes all that a person would not see: complaints of the console, requests, policy violations."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from playwright.sync_api import Browser, ConsoleMessage, Locator, Page, Request, expect

AXE = Path(__file__).resolve().parents[2] / "frontend" / "node_modules" / "axe-core" / "axe.min.js"
# of a service that was stopped, as at the end of every test
_AWAY = re.compile("net::ERR_(CONNECTION_REFUSED|CONNECTION_RESET|EMPTY_RESPONSE|CONTENT_LENGTH_MISMATCH|SOCKET_NOT)")
PATIENCE_MS = 30_000.0


class Watched:
    """A page with its own cookies and storage.

    Attributes
    ----------
    page
        Of Playwright.
    complaints
        What console and scripts complained of; that a service is away is no complaint.
    """

    def __init__(self, browser: Browser, *, width: int = 1280, height: int = 900, scheme: Any = "light") -> None:
        self.context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
        self.context.set_default_timeout(PATIENCE_MS)
        expect.set_options(timeout=PATIENCE_MS)
        self.complaints: list[str] = []
        self._hosts: set[str] = set()
        self._may_be_refused = False
        self.context.on("console", self._hear)
        self.context.on("weberror", lambda error: self.complaints.append(f"uncaught: {error.error}"))
        self.context.on("request", self._note)
        self.page: Page = self.context.new_page()

    def open(self, address: str) -> None:
        """Go to the address that the terminal shows, and wait until cells are there."""
        self.page.goto(address)
        self.tiles.first.wait_for()

    def show(self, view: str) -> None:
        """Go to another view by its tab."""
        self.page.get_by_role("navigation", name="Views").get_by_role("link", name=view).click()

    @property
    def tiles(self) -> Locator:
        """The cells of the gallery that are drawn."""
        return self.page.get_by_role("gridcell")

    @property
    def here(self) -> Locator:
        """The cell that has the keyboard."""
        return self.page.locator('[role="gridcell"][aria-selected="true"]')

    def keys(self, *names: str) -> None:
        """Press keys one after the other."""
        for name in names:
            self.page.keyboard.press(name)

    def counts(self) -> dict[str, int]:
        """Return how many cells of each class the page shows above."""
        items = self.page.get_by_role("list", name="Cells of each class").get_by_role("listitem")
        found = [item.inner_text().split("\n") for item in items.all()]
        return {lines[-2]: int(lines[-1].replace(",", "")) for lines in found}

    def n_reviewed(self) -> int:
        """Return how many cells the page shows as reviewed."""
        words = self.page.locator("#counts-reviewed").inner_text()
        return int(words.split()[0].replace(",", ""))

    def wait_until_saved(self) -> None:
        """Wait until no click is on its way any more."""
        expect(self.page.get_by_text(re.compile("to be saved"))).to_have_count(0)

    def faults(self) -> list[str]:
        """Return serious faults for people who do not see or use no mouse, as axe finds them."""
        # as a file of the page's own, the policy would not let it in; this is not the page's doing
        self.page.evaluate(AXE.read_text(encoding="utf-8"))
        found = self.page.evaluate("axe.run(document, { resultTypes: ['violations'] })")
        assert found["passes"], "axe has looked at nothing"
        return [
            f"{fault['id']}: {fault['help']}: {[node['html'][:150] for node in fault['nodes'][:3]]}"
            for fault in found["violations"]
            if fault["impact"] in ("serious", "critical")
        ]

    def may_be_refused(self) -> None:
        """Allow, from now on, that the service refuses requests: that is what is tried."""
        self._may_be_refused = True

    @contextmanager
    def looking(self) -> Iterator[None]:
        """Leave the page when the block ends, before its service ends."""
        yield
        self.context.close()

    def close(self) -> None:
        """Close the page, and raise when it complained or asked anybody else than its service."""
        self.context.close()
        assert not self.complaints, self.complaints
        assert self._hosts <= {"127.0.0.1"}, self._hosts

    def _hear(self, message: ConsoleMessage) -> None:
        refused = "the server responded with a status" in message.text and self._may_be_refused
        if message.type in ("error", "warning") and not refused and not _AWAY.search(message.text):
            self.complaints.append(f"{message.type}: {message.text} ({message.location['url']})")

    def _note(self, request: Request) -> None:
        parts = urlsplit(request.url)
        if parts.scheme not in ("data", "blob", "file"):
            self._hosts.add(parts.hostname or "")
