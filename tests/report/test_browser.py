"""The page in a real browser: on a wide and a narrow screen, in print, with and without scripts."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from tests.report.browser import Tab, browser
from tests.report.conftest import parse

from perikarya.errors import PerikaryaError
from perikarya.report.pdf import find_browser, write_pdf

pytestmark = pytest.mark.browser
SCREENS = ((1280, "screen"), (400, "screen"), (680, "print"))  # A4 less its margins is 680 CSS pixels wide

# everything that sticks out at the right, but for what scrolls by itself
OVERFLOW = """(() => {
  const wide = document.documentElement.clientWidth;
  const out = [...document.querySelectorAll("body *")].filter(e =>
    e.getBoundingClientRect().right > wide + 1 && !e.closest("svg") && !e.closest(SCROLLS));
  return [document.documentElement.scrollWidth - wide, out.slice(0, 5).map(e => e.tagName + " " + e.className)];
})()"""

# WCAG contrast of every piece of text against the nearest background that is not transparent
CONTRAST = """(() => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgb = colour => { canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data]; };
  const light = c => c.slice(0, 3).map(v => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = e => { for (; e; e = e.parentElement) { const c = rgb(getComputedStyle(e).backgroundColor);
    if (c[3] > 250) return c; } return [255, 255, 255, 255]; };
  const poor = [];
  for (const e of document.querySelectorAll("body :not(script):not(svg):not(svg *)")) {
    if (![...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim()) || !e.checkVisibility()) continue;
    const style = getComputedStyle(e), a = light(rgb(style.color)), b = light(behind(e));
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    const large = parseFloat(style.fontSize) >= 24 || (parseFloat(style.fontSize) >= 18.66 && style.fontWeight >= 700);
    if (ratio < (large ? 3 : 4.5)) poor.push([e.tagName, e.textContent.slice(0, 30), ratio]);
  }
  return poor;
})()"""


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    try:
        find_browser()
    except PerikaryaError as missing:
        pytest.skip(f"no browser of the Chromium family here: {missing}")
    with browser(tmp_path_factory.mktemp("profile")) as found:
        yield found


@pytest.fixture(scope="module")
def pages(built: Any) -> list[Path]:
    return [built[1], built[1].parent / "report" / "region_CA1.html"]


@pytest.mark.parametrize(("width", "media"), SCREENS)
@pytest.mark.parametrize("which", [0, 1])
def test_nothing_sticks_out_and_nothing_is_complained_about(
    tab: Tab, pages: list[Path], which: int, width: int, media: str
) -> None:
    tab.open(pages[which], width=width, media=media)
    scrolls = "'.none'" if media == "print" else "'.scroll, pre'"
    assert tab.evaluate(OVERFLOW.replace("SCROLLS", scrolls)) == [0, []]
    assert tab.complaints() == []
    assert tab.requests() == [pages[which].resolve().as_uri()]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("which", [0, 1])
def test_text_stands_out_from_its_background(tab: Tab, pages: list[Path], which: int, scheme: str) -> None:
    tab.open(pages[which], width=1280)
    tab.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
    tab.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    poor = tab.evaluate(CONTRAST)
    tab.call("Emulation.setEmulatedMedia", features=[])
    assert poor == []


@pytest.mark.parametrize("which", [0, 1])
def test_headings_are_in_order_and_pictures_have_words(tab: Tab, pages: list[Path], which: int) -> None:
    tab.open(pages[which], width=1280)
    levels = tab.evaluate("[...document.querySelectorAll('h1, h2, h3, h4')].map(h => +h.tagName[1])")
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    assert tab.evaluate("[...document.images].filter(i => !i.alt || !i.complete || !i.naturalWidth).length") == 0
    tables = tab.evaluate("[...document.querySelectorAll('table')].filter(t => !t.caption || !t.tHead).length")
    assert tables == 0


def test_pointing_at_a_cell_shows_it(tab: Tab, pages: list[Path]) -> None:
    words = [t.split("</title>")[0] for t in pages[0].read_text().split("<title>")[2:]]
    tab.open(pages[0], width=1280)
    tab.evaluate("document.documentElement.style.scrollBehavior = 'auto'")
    tab.evaluate("document.getElementById('explore').scrollIntoView()")
    assert tab.evaluate("getComputedStyle(document.getElementById('explore-thumb')).visibility") == "hidden"
    for index in (0, 7, 31):
        place = (
            f"(() => {{ const c = document.querySelectorAll('circle.cell')[{index}].getBoundingClientRect();"
            "return [c.x + c.width / 2, c.y + c.height / 2]; })()"
        )
        tab.point_at(*tab.evaluate(place))
        shown = tab.evaluate(
            "[...document.getElementById('explore-lines').children].map(d => d.textContent).join('\\n')"
        )
        box = [int(v) for v in tab.evaluate("document.getElementById('explore-thumb').getAttribute('viewBox')").split()]
        at = box[1] // box[3] * 50 + box[0] // box[2]
        assert words[at] == shown, "picture and words are of different cells"
        same_place = tab.evaluate(
            f"(() => {{ const all = document.querySelectorAll('circle.cell'), [a, b] = [all[{index}], all[{at}]];"
            "return Math.hypot(...['cx', 'cy'].map(k => a.getAttribute(k) - b.getAttribute(k))); })()"
        )
        assert same_place < 1
    assert tab.evaluate("getComputedStyle(document.getElementById('explore-thumb')).visibility") == "visible"


def test_the_keyboard_walks_from_cell_to_cell(tab: Tab, pages: list[Path]) -> None:
    tab.open(pages[0], width=1280)
    tab.evaluate("document.getElementById('explore-plot').focus()")
    mark = "['cx', 'cy'].map(a => +document.getElementById('explore-mark').getAttribute(a))"
    tab.press("ArrowRight")
    start = tab.evaluate(mark)
    for key, axis, sign in (("ArrowRight", 0, 1), ("ArrowUp", 1, -1), ("ArrowLeft", 0, -1), ("ArrowDown", 1, 1)):
        before = tab.evaluate(mark)
        tab.press(key)
        after = tab.evaluate(mark)
        assert after == before or sign * (after[axis] - before[axis]) > 0
    assert tab.evaluate(mark) != start or start
    assert tab.evaluate("document.getElementById('explore-lines').getAttribute('aria-live')") == "polite"
    assert tab.evaluate("document.getElementById('explore-lines').textContent").startswith("labelled ")


def test_switches_hide_classes_and_right_cells_without_any_script(tab: Tab, pages: list[Path]) -> None:
    visible = "[...document.querySelectorAll('circle.cell')].filter(c => c.checkVisibility()).length"
    page = parse(pages[0])
    cells = [a["class"] or "" for a in page.all("circle") if "cell" in (a.get("class") or "")]
    for switch, left in (
        ("show-right", [c for c in cells if "wrong" in c]),
        ("show-1", [c for c in cells if "c1" not in c.split()]),
    ):
        tab.open(pages[0], width=1280)
        assert tab.evaluate(visible) == len(cells)
        tab.evaluate(f"document.getElementById('{switch}').click()")
        assert tab.evaluate(visible) == len(left)


def test_with_scripts_off_all_is_there(tab: Tab, pages: list[Path]) -> None:
    tab.open(pages[0], width=1280)
    with_scripts = tab.evaluate("document.querySelectorAll('section').length")
    tab.open(pages[0], width=1280, scripts=False)
    document = tab.call("DOM.getDocument", depth=-1)["root"]["nodeId"]

    def found(selector: str) -> list[int]:
        return list(tab.call("DOM.querySelectorAll", nodeId=document, selector=selector)["nodeIds"])

    assert len(found("section")) == with_scripts
    assert len(found("circle.cell title")) == len(found("circle.cell")) > 100
    assert found("#explore-panel[hidden]")
    assert found("button[hidden]")
    tab.call("Emulation.setScriptExecutionDisabled", value=False)


def test_the_copy_button_copies_or_selects_the_methods(tab: Tab, pages: list[Path]) -> None:
    tab.open(pages[0], width=1280)
    button = "document.querySelector('button[data-copy]')"
    assert tab.evaluate(f"{button}.hidden") is False
    said = tab.evaluate(f"new Promise(r => {{ {button}.click(); setTimeout(() => r({button}.textContent), 500); }})")
    assert said in ("Copied", "Selected: copy it with Ctrl+C")


def test_the_pdf_holds_all_pages_and_all_text(built: Any, tab: Tab, tmp_path: Path) -> None:
    out = write_pdf(built[1], tmp_path / "report.pdf")
    assert out.read_bytes().startswith(b"%PDF")
    if shutil.which("pdftotext") is None:
        pytest.skip("pdftotext (poppler) is not here; the PDF was written but not read")
    text = subprocess.run(["pdftotext", "-layout", str(out), "-"], capture_output=True, text=True, check=True).stdout
    plain = re.sub(r"\s+", " ", text)
    for words in (
        "Models compared",
        "Methods, ready to paste",
        "Model card",
        "TRIPOD+AI",
        "All settings",
        "n_bootstrap",
    ):
        assert words in plain
    assert built[2]["ranking"][0]["model"] in plain
    info = subprocess.run(["pdfinfo", str(out)], capture_output=True, text=True, check=True).stdout
    assert int(re.search(r"Pages:\s+(\d+)", info)[1]) >= 8  # type: ignore[index]
    assert "A4" in info
