"""The site: built without a warning, read from a disk without a network."""

from __future__ import annotations

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


class _Loaded(HTMLParser):
    """Collects what a page loads by itself: scripts, styles, pictures, frames; links of people are no matter."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        words = dict(attrs)
        source = words.get("src") or (words.get("href") if tag == "link" else None)
        self.found += [source] if source else []


def loaded(html: str) -> list[str]:
    parser = _Loaded()
    parser.feed(html)
    return parser.found


def test_the_reader_of_pages_tells_what_they_load_from_what_they_link_to() -> None:
    page = (
        '<link rel="stylesheet" href="//cdn.example/a.css"><a href="https://example.org">x</a>'
        '<script src="_static/a.js"></script><img src="https://example.org/a.png"/>'
    )
    assert loaded(page) == ["//cdn.example/a.css", "_static/a.js", "https://example.org/a.png"]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, its notebooks without outputs: these are run in tests of their own."""
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", "-d", str(out / "trees")]
    command += ["-D", "nb_execution_mode=off", str(ROOT / "docs"), str(out / "html")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return out / "html"


@pytest.mark.slow
def test_the_site_loads_nothing_from_the_network(site: Path) -> None:
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 25
    for path in pages:
        foreign = [s for s in loaded(path.read_text(encoding="utf-8")) if re.match(r"(?:[a-z]+:)?//", s)]
        assert foreign == [], path.name
    for path in site.rglob("*.css"):
        assert not re.search(r"(?:url\(|@import)\s*['\"]?(?:https?:)?//", path.read_text(encoding="utf-8")), path.name


@pytest.mark.slow
def test_everything_a_page_loads_is_there(site: Path) -> None:
    for path in site.rglob("*.html"):
        files = [path.parent / s.partition("#")[0].partition("?")[0] for s in loaded(path.read_text()) if ":" not in s]
        assert [str(file) for file in files if not file.exists()] == [], path.name


@pytest.mark.slow
def test_what_a_comment_tells_the_walk_is_not_shown(site: Path) -> None:
    text = re.sub(r"<!--.*?-->", "", (site / "tutorial.html").read_text(encoding="utf-8"), flags=re.DOTALL)
    assert "perikarya review runs/first" in text
    assert "walk: serve" not in text
