"""Printing: which browser, and what is said when it does not work. The browser here is a script of ours."""

from __future__ import annotations

from pathlib import Path

import pytest

from perikarya.errors import RunError
from perikarya.report import pdf
from perikarya.report.pdf import browser_command, find_browser, write_pdf

PRINTS = """#!/bin/sh
for word in "$@"; do
  case "$word" in
    --print-to-pdf=*) out="${word#--print-to-pdf=}" ;;
    --user-data-dir=*) profile="${word#--user-data-dir=}" ;;
    file://*) page="${word#file://}" ;;
  esac
done
test -n "$profile" || exit 9
cp "$page" "$out"
"""


def fake_browser(folder: Path, script: str) -> Path:
    path = folder / "browser"
    path.write_text(script)
    path.chmod(0o755)
    return path


@pytest.fixture
def page(tmp_path: Path) -> Path:
    path = tmp_path / "report.html"
    path.write_text("<details><summary>ä</summary></details><details class='x'></details>")
    return path


def test_what_is_folded_is_printed_open(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(pdf.BROWSER_VARIABLE, str(fake_browser(page.parent, PRINTS)))
    out = write_pdf(page, page.parent / "out" / "report.pdf")
    assert out.read_text() == "<details open><summary>ä</summary></details><details open class='x'></details>"
    assert "open" not in page.read_text()


def test_the_variable_names_the_browser(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    browser = fake_browser(tmp_path, PRINTS)
    monkeypatch.setenv(pdf.BROWSER_VARIABLE, str(browser))
    assert find_browser() == browser
    monkeypatch.setenv(pdf.BROWSER_VARIABLE, str(tmp_path / "missing"))
    with pytest.raises(RunError, match=r"(?s)PERIKARYA_BROWSER is '.*missing', which is no program.*Fix:"):
        find_browser()


def test_a_browser_on_the_path_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(pdf.BROWSER_VARIABLE, raising=False)
    fake_browser(tmp_path, PRINTS).rename(tmp_path / "google-chrome")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_browser() == tmp_path / "google-chrome"


def test_without_any_browser_the_error_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(pdf.BROWSER_VARIABLE, raising=False)
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(pdf, "_PLACES", ())
    with pytest.raises(RunError, match=r"(?s)No browser was found.*Fix: install one, or set PERIKARYA_BROWSER"):
        find_browser()


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("#!/bin/sh\necho 'no display' >&2\nexit 3\n", r"failed to print the report \(exit code 3\): no display"),
        ("#!/bin/sh\nexit 0\n", "ended without printing report.html"),
        ("#!/bin/sh\nexec sleep 30\n", "did not print the report within 0.3 seconds"),
        ("not a program", "cannot be started"),
    ],
)
def test_a_browser_that_fails_is_told_in_a_sentence_and_leaves_nothing(
    page: Path, monkeypatch: pytest.MonkeyPatch, script: str, said: str
) -> None:
    monkeypatch.setenv(pdf.BROWSER_VARIABLE, str(fake_browser(page.parent, script)))
    out = page.parent / "report.pdf"
    with pytest.raises(RunError, match=said):
        write_pdf(page, out, timeout_s=0.3 if "sleep" in script else 20)
    assert not out.exists()


def test_a_missing_page_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="nothing to print"):
        write_pdf(tmp_path / "report.html", tmp_path / "x.pdf")


@pytest.mark.parametrize(("uid", "expected"), [(0, True), (1000, False)])
def test_the_sandbox_is_left_off_for_root_only(monkeypatch: pytest.MonkeyPatch, uid: int, expected: bool) -> None:
    monkeypatch.setattr(pdf.os, "geteuid", lambda: uid)
    assert ("--no-sandbox" in browser_command(Path("b"), Path("p"))) is expected
