"""One finished run for all tests of the report, and a page of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from tests.fake_run import FakeRun, make_fake_run

from perikarya.evaluate.collect import evaluate_run, write_results
from perikarya.figures import book
from perikarya.figures.plates import Press
from perikarya.report import build_report
from perikarya.runs import TaskKey

VOID = {"meta", "img", "br", "link", "hr", "input"}
SVG_VOID = {"line", "image"}


@dataclass
class Page(HTMLParser):
    """What a browser would see; unbalanced tags raise."""

    open_tags: list[str] = field(default_factory=list)
    tags: list[tuple[str, dict[str, str | None]]] = field(default_factory=list)
    words: list[str] = field(default_factory=list)
    scripts: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open_tags.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open_tags.pop() == tag, f"</{tag}> closes something else, line {self.getpos()}"

    def handle_data(self, data: str) -> None:
        if self.open_tags and self.open_tags[-1] == "script":
            self.scripts.append(data)
        elif self.open_tags and self.open_tags[-1] != "style":
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.tags if name == tag]


def parse(path: Path) -> Page:
    page = Page()
    page.feed(path.read_text(encoding="utf-8"))
    assert page.open_tags == []
    return page


def evaluated(fake: FakeRun) -> dict[str, Any]:
    found = evaluate_run(fake.run, fake.opened.cells, fake.opened.study, fake.config, tasks=fake.tasks)
    write_results(fake.run, found)
    return found.results


def report_of(fake: FakeRun, check: dict[str, Any] | None = None) -> tuple[Path, dict[str, Any]]:
    results = evaluated(fake)
    return build_report(fake.run, fake.opened, fake.config, results, check), results


@contextmanager
def coarse_figures() -> Iterator[None]:
    """Draw at a third of the resolution: the page is the same and is made in two thirds of the time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(book, "Press", partial(Press, dpi=100))
        patch.setattr(book, "OTHERS_DPI", 100)
        yield


@pytest.fixture(autouse=True)
def _coarse() -> Iterator[None]:
    with coarse_figures():
        yield


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[FakeRun, Path, dict[str, Any]]:
    """A report of two models, one training of which has not finished; its parts must not be changed."""
    root = tmp_path_factory.mktemp("report")
    fake = make_fake_run(root, skip=[TaskKey("beta", 0, 2)], n_folds=3, models=("alpha", "beta"))
    finding = {"severity": "error", "sentence": "Cell 7 is in both sets."}
    with coarse_figures():
        path, results = report_of(fake, {"ok": False, "findings": [finding]})
    return fake, path, results
