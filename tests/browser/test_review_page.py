"""What a person does at the page of ``perikarya review``, in a real browser, with keyboard and mouse."""

from __future__ import annotations

import json
import re
import shutil
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, expect
from tests.browser.conftest import SCRIPTS, Lab
from tests.browser.watched import AXE, Watched
from tests.review.running import Running, running

from perikarya.data.store import open_study

pytestmark = pytest.mark.browser
NORMAL, PYKNOTIC = "normal", "pyknotic"


def _log(study: Path) -> list[dict[str, Any]]:
    path = study / "corrections" / "log.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    return [record for record in map(json.loads, lines) if "kind" in record]


def test_a_person_filters_relabels_twenty_cells_by_keyboard_undoes_one_and_finds_all_of_it_again(
    page: Watched, lab: Lab
) -> None:
    with running(lab.run, "--study", lab.study, "--reader", "Ada") as service, page.looking():
        page.open(service.address)
        assert "token" not in page.page.url
        before = page.counts()
        assert sum(before.values()) == 240
        filters = page.page.get_by_role("complementary", name="Filters")
        filters.locator("summary", has_text=re.compile("^label$", re.IGNORECASE)).click()
        filters.get_by_role("group", name="label", exact=True).get_by_label(NORMAL).click()
        expect(page.page.locator(".toolbar-n")).to_have_text(f"{before[NORMAL]} cells")
        page.tiles.first.click()
        for _ in range(20):
            page.keys("3")
        page.wait_until_saved()
        assert page.n_reviewed() == 20
        assert page.counts()[PYKNOTIC] == before[PYKNOTIC] + 20
        page.keys("u")
        page.wait_until_saved()
        assert page.counts() == before | {NORMAL: before[NORMAL] - 19, PYKNOTIC: before[PYKNOTIC] + 19}

        page.page.reload()
        page.tiles.first.wait_for()
        assert page.n_reviewed() == 19
        assert page.counts()[PYKNOTIC] == before[PYKNOTIC] + 19
        entries = _log(lab.study)
        assert [e["kind"] for e in entries] == ["label"] * 20 + ["undo"]
        assert {(e["by"], e["old"], e["new"]) for e in entries[:20]} == {("Ada", NORMAL, PYKNOTIC)}
        assert len({e["cell_id"] for e in entries[:20]}) == 20, "each key steps on to the next cell"
        assert entries[20]["undoes"] == entries[19]["id"]
        seen = [e["seen"] for e in entries[:20]]
        assert all(len(s["prob"]) == 3 and abs(sum(s["prob"]) - 1) < 1e-4 for s in seen), (
            "what was on the screen is kept"
        )
        table = open_study(lab.study).cells
        assert (table["label"] == NORMAL).sum() == before[NORMAL], "the study itself is never changed"


def test_the_map_is_brushed_and_the_selection_shown_in_the_gallery(page: Watched, lab: Lab) -> None:
    with running(lab.run, "--study", lab.study) as service, page.looking():
        page.open(service.address)
        page.show("Map")
        plot = page.page.get_by_role("img", name=re.compile("Map of 240 cells"))
        plot.wait_for()
        box = plot.bounding_box()
        assert box is not None
        mouse = page.page.mouse
        mouse.move(box["x"] + 10, box["y"] + 10)
        mouse.down()
        mouse.move(box["x"] + box["width"] * 0.5, box["y"] + box["height"] * 0.5, steps=5)
        mouse.move(box["x"] + box["width"] - 10, box["y"] + box["height"] - 10, steps=5)
        mouse.up()
        panel = page.page.get_by_role("region", name="Selected cells")
        expect(panel).to_contain_text("240 cells selected")
        # the same without a mouse: a group of the table
        page.page.get_by_role("row", name=re.compile(PYKNOTIC)).get_by_role("button").press("Enter")
        n = page.counts()[PYKNOTIC]
        expect(panel).to_contain_text(f"{n} cells selected")
        panel.get_by_role("button", name="Show in the gallery").click()
        expect(page.page.locator(".toolbar-n")).to_have_text(f"{n} cells")
        page.keys("ArrowRight", "1")
        page.wait_until_saved()
        assert [(e["old"], e["new"]) for e in _log(lab.study)] == [(PYKNOTIC, NORMAL)]


def test_a_cell_is_opened_with_its_heat_map_its_neighbours_and_its_place(page: Watched, lab: Lab) -> None:
    with running(lab.run, "--study", lab.study) as service, page.looking():
        page.open(service.address)
        page.tiles.nth(3).click()
        page.keys("Enter")
        page.page.get_by_role("heading", name="Place in the image").wait_for()
        heat = page.page.get_by_role("group", name="Where a model looks")
        for model in ("cnn", "head"):
            heat.get_by_label("Model").select_option(model)
            if model == "cnn":
                heat.get_by_role("button").first.click()
            picture = page.page.locator('img[src^="blob:"]')
            picture.wait_for()
            assert picture.evaluate("e => e.decode().then(() => e.naturalWidth)") == 256
        bars = page.page.locator(".part-says")
        for name in ("cnn", "head", NORMAL, PYKNOTIC):
            expect(bars.get_by_text(name, exact=False).first).to_be_visible()
        # its place: the outline of this cell and of others of the field; a click opens another one
        field = page.page.locator(".part-place")
        outlines = field.locator("svg path")
        outlines.first.wait_for(state="attached")
        n = open_study(lab.study).cells["source"].str.rpartition("#")[0].value_counts()
        assert outlines.count() >= n.min()
        expect(page.page.locator(".part-neighbours img").first).to_be_visible()
        address = page.page.url
        page.page.locator(".part-neighbours").get_by_role("button").first.click()
        expect(page.page).not_to_have_url(address)
        page.keys("2")
        page.wait_until_saved()
        assert len(_log(lab.study)) == 1


def test_two_people_on_two_pages_lose_nothing_and_hear_of_each_other(
    page: Watched, other_page: Watched, lab: Lab
) -> None:
    with running(lab.run, "--study", lab.study, "--reader", "Ada") as service, page.looking(), other_page.looking():
        page.open(service.address)
        other_page.open(service.address)
        other_page.page.get_by_role("button", name="More").click()
        name = other_page.page.get_by_label("Your name in the log")
        name.fill("Grace")
        name.press("Enter")
        expect(other_page.page.get_by_role("button", name="Save")).to_be_disabled()
        other_page.keys("Escape")
        for watched in (page, other_page):
            watched.tiles.first.click()
        for i in range(10):
            page.keys("1")
            other_page.keys("3" if i < 5 else "2")
        for watched in (page, other_page):
            watched.wait_until_saved()
        entries = _log(lab.study)
        assert Counter(e["by"] for e in entries) == {"Ada": 10, "Grace": 10}
        last = {e["cell_id"]: e["new"] for e in entries}
        assert len(last) == 10
        expect(page.page.locator("#counts-reviewed")).to_contain_text("10 of")
        notes = [w.page.get_by_role("region", name=re.compile("somebody else")).count() for w in (page, other_page)]
        assert any(notes), "who changed a label that another had just changed is told"
        for watched in (page, other_page):
            watched.page.reload()
            watched.tiles.first.wait_for()
            assert watched.n_reviewed() == 10
        assert page.counts() == other_page.counts()


def test_a_service_that_is_killed_and_started_again_loses_no_click(page: Watched, lab: Lab) -> None:
    with running(lab.run, "--study", lab.study, "--reader", "Ada") as service:
        page.open(service.address)
        page.tiles.first.click()
        page.keys("3", "3", "3")
        page.wait_until_saved()
        service.process.send_signal(signal.SIGKILL)
        service.process.wait()
        page.keys("3", "3")
        expect(page.page.get_by_role("alert")).to_contain_text("2 of your clicks are kept here")
    assert len(_log(lab.study)) == 3
    with running(lab.run, "--study", lab.study, "--reader", "Ada") as again, page.looking():
        assert again.port == service.port
        page.page.goto(again.address)
        page.tiles.first.wait_for()
        page.wait_until_saved()
        assert page.n_reviewed() == 5
        entries = _log(lab.study)
        assert len(entries) == len({e["id"] for e in entries}) == 5
        assert len({e["cell_id"] for e in entries}) == 5


def test_names_that_are_scripts_are_shown_as_text_in_every_view(page: Watched, hostile: Path) -> None:
    with running(hostile, "--reader", SCRIPTS[0]) as service, page.looking():
        page.open(service.address)
        expect(page.page.get_by_role("heading", name=SCRIPTS[1])).to_be_visible()
        assert set(page.counts()) == set(SCRIPTS)
        page.tiles.first.click()
        page.keys("1", "2", "Enter")
        page.page.get_by_text(SCRIPTS[2]).first.wait_for()
        page.show("Map")
        page.page.get_by_role("img", name=re.compile("Map of 90 cells")).wait_for()
        page.page.get_by_role("row").nth(1).get_by_role("button").click()
        page.show("Second reading")
        page.page.get_by_role("button", name="Start reading").click()
        page.page.get_by_role("group", name="Your answer").get_by_role("button").first.click()
        assert page.page.evaluate("window.hacked") is None
        assert page.page.locator("img[src=x], svg[onload]").count() == 0
        # through the log and back
        page.page.reload()
        assert page.page.evaluate("window.hacked") is None
        page.wait_until_saved()
        assert len(_log(hostile.parent / "study")) == 2


def test_a_stranger_gets_a_page_that_says_how_to_come_in(page: Watched, lab: Lab) -> None:
    page.may_be_refused()
    with running(lab.study) as service, page.looking():
        answer = page.page.goto(f"http://127.0.0.1:{service.port}/")
        assert answer is not None
        assert answer.status == 401
        expect(page.page.get_by_role("heading")).to_have_text("This page is locked")
        page.page.goto(f"http://127.0.0.1:{service.port}/?token=wrong")
        expect(page.page.get_by_role("heading")).to_have_text("This page is locked")


def test_a_page_of_a_stranger_cannot_read_write_or_frame_the_service(page: Watched, lab: Lab, tmp_path: Path) -> None:
    """The browser has the cookie; the pages of another program and of a file try to use it."""
    with running(lab.study) as service, page.looking():
        page.open(service.address)
        page.may_be_refused()
        evil = page.context.new_page()
        own = f"http://127.0.0.1:{service.port}"
        (tmp_path / "evil.html").write_text("<title>evil</title>")
        evil.goto((tmp_path / "evil.html").as_uri())
        tried = evil.evaluate(
            """async own => {
              const click = { items: [{ id: crypto.randomUUID?.() ?? "0".repeat(36), row: 0, kind: "label",
                old: null, new: "normal", seen: null, undoes: null }] };
              const ask = (path, how) => fetch(own + path, { credentials: "include", ...how })
                .then(a => a.type === "opaque" ? "opaque" : a.text(), () => "refused");
              const picture = new Promise(done => { const i = new Image(); i.onload = () => done("shown");
                i.onerror = () => done("refused"); i.src = own + "/favicon.svg"; });
              return [await ask("/api/study"), await ask("/api/corrections", { method: "POST", body:
                JSON.stringify(click), headers: { "Content-Type": "application/json" } }),
                await ask("/api/corrections", { method: "POST", mode: "no-cors", body: JSON.stringify(click) }),
                await picture];
            }""",
            own,
        )
        assert set(tried) <= {"refused", "opaque"}
        evil.set_content(f'<form method="post" action="{own}/api/corrections"><button>go</button></form>')
        evil.get_by_role("button").click()
        evil.wait_for_load_state()
        evil.goto((tmp_path / "evil.html").as_uri())
        evil.set_content(f'<iframe src="{own}/"></iframe>')
        time.sleep(0.5)
        assert all(not frame.locator("#root > *").count() for frame in evil.frames[1:])
        assert _log(lab.study) == []
        page.complaints.clear()  # of the other page, which was refused


def test_a_link_from_another_program_leads_in(page: Watched, lab: Lab, tmp_path: Path) -> None:
    with running(lab.study) as service, page.looking():
        (tmp_path / "notebook.html").write_text(f'<a href="{service.address}">review</a>')
        page.page.goto((tmp_path / "notebook.html").as_uri())
        page.page.get_by_role("link").click()
        page.tiles.first.wait_for()
        assert "token" not in page.page.url


def test_all_of_it_works_with_the_keyboard_alone(page: Watched, lab: Lab) -> None:
    with running(lab.run, "--study", lab.study) as service, page.looking():
        page.open(service.address)
        reached = _walk(page)
        for name in ("Gallery", "Map", "Second reading", "More", "Review queue"):
            assert any(name in text for text in reached), (name, reached)
        assert any("cell " in text or NORMAL in text for text in reached)
        page.page.get_by_role("link", name="Map").focus()
        page.keys("Enter")
        page.page.get_by_role("img", name=re.compile("Map of")).wait_for()
        assert any("Select" in text for text in _walk(page))
        page.page.get_by_role("link", name="Gallery").focus()
        page.keys("Enter")
        page.tiles.first.wait_for()
        page.here.focus()
        page.keys("ArrowRight", "Enter")
        page.page.get_by_role("heading", name="Place in the image").wait_for()
        reached = _walk(page)
        for name in ("Outline", "Heat map", "Skip"):
            assert any(name in text for text in reached), (name, reached)


def _walk(page: Watched) -> list[str]:
    """Press Tab until the focus has gone once around; each stop must be visible and marked."""
    names: list[str] = []
    page.page.evaluate("document.body.tabIndex = -1; document.body.focus(); document.body.removeAttribute('tabindex')")
    for _ in range(200):
        page.keys("Tab")
        stop = page.page.evaluate(
            """() => { const e = document.activeElement; if (!e || e === document.body) return null;
              const box = e.getBoundingClientRect(), style = getComputedStyle(e);
              return { name: (e.getAttribute("aria-label") ?? e.innerText ?? "").trim() || e.outerHTML.slice(0, 80),
                seen: e.checkVisibility() && box.width > 0,
                marked: style.outlineStyle !== "none" || style.boxShadow !== "none" }; }"""
        )
        if stop is None:
            break
        assert stop["seen"], stop
        assert stop["marked"], stop
        names.append(stop["name"])
    return names


VIEWS = ("gallery", "cell/3", "map", "reading", "round", "help", "more")


def _go(page: Watched, service: Running, view: str) -> None:
    if page.page.get_by_role("dialog").count():
        page.keys("Escape")
    if view == "round":
        page.page.goto(f"http://127.0.0.1:{service.port}/#/reading")
        page.page.get_by_role("button", name="Start reading").click()
        page.page.get_by_role("group", name="Your answer").wait_for()
    elif view in ("help", "more"):
        page.page.goto(f"http://127.0.0.1:{service.port}/#/gallery")
        page.tiles.first.wait_for()
        page.page.get_by_role("button", name="More").click()
        if view == "help":
            page.page.get_by_role("dialog").get_by_role("button", name="Keys").click()
        page.page.get_by_role("dialog").first.wait_for()
    else:
        page.page.goto(f"http://127.0.0.1:{service.port}/#/{view}")
        ready = {
            "gallery": page.tiles.first,
            "cell/3": page.page.locator(".part-neighbours img").first,
            "map": page.page.get_by_role("img", name=re.compile("Map of")),
            "reading": page.page.get_by_role("button", name="Start reading"),
        }
        ready[view].wait_for()
    page.page.wait_for_timeout(500)  # for pictures and letters to be there; nothing is asserted of the time


OVERFLOW = """() => { const wide = document.documentElement.clientWidth;
  const out = [...document.querySelectorAll("body *")].filter(e => e.checkVisibility() && !e.closest("svg, canvas")
    && e.getBoundingClientRect().right > wide + 1 && !e.closest(".visually-hidden")
    && ![...(function*() { for (let p = e.parentElement; p; p = p.parentElement) yield p; })()]
      .some(p => ["auto", "scroll", "hidden"].includes(getComputedStyle(p).overflowX)));
  const over = Math.max(0, document.documentElement.scrollWidth - wide);
  return [over, out.slice(0, 5).map(e => e.outerHTML.slice(0, 120))]; }"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1280, 2560])
def test_every_view_fits_the_screen_and_has_no_fault_for_people_who_do_not_see_it(
    chromium: Browser, trained: Lab, width: int, scheme: str, shots: Path | None, tmp_path: Path
) -> None:
    page = Watched(chromium, width=width, height=1440 if width == 2560 else 900, scheme=scheme)
    faults: dict[str, list[str]] = {}
    with running(trained.run, "--study", shutil.copytree(trained.study, tmp_path / "study")) as service, page.looking():
        page.open(service.address)
        for view in VIEWS:
            _go(page, service, view)
            if shots is not None:
                name = view.partition("/")[0]
                page.page.screenshot(path=shots / f"{name}-{width}-{scheme}.png")
            over, out = page.page.evaluate(OVERFLOW)
            if over or out:
                faults.setdefault(view, []).append(f"sticks out by {over} px: {out}")
            if AXE.is_file() and width != 2560:
                faults.setdefault(view, []).extend(page.faults())
    page.close()
    assert not any(faults.values()), json.dumps({k: v for k, v in faults.items() if v}, indent=1)
