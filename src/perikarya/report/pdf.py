"""The report as PDF, printed by a browser that is already on the machine."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from perikarya.errors import RunError
from perikarya.runs import replacing

BROWSER_VARIABLE = "PERIKARYA_BROWSER"
TIMEOUT_S = 180.0
_NAMES = (
    "chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "microsoft-edge",
    "microsoft-edge-stable", "msedge",
)  # fmt: skip
_PLACES = (
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
    "/Applications/Microsoft Edge.app/Contents/MacOS/Microsoft Edge",
    "/snap/bin/chromium",
    "/opt/google/chrome/chrome",
    "C:/Program Files/Google/Chrome/Application/chrome.exe",
    "C:/Program Files (x86)/Microsoft/Edge/Application/msedge.exe",
    "C:/Program Files/Microsoft/Edge/Application/msedge.exe",
)


def find_browser() -> Path:
    """Return a browser of the Chromium family: the one ``PERIKARYA_BROWSER`` names, else one of the usual places.

    Raises
    ------
    RunError
        If there is none, or the variable names no program.
    """
    chosen = os.environ.get(BROWSER_VARIABLE)
    if chosen:
        found = shutil.which(chosen)
        if found is None:
            raise RunError(
                f"{BROWSER_VARIABLE} is '{chosen}', which is no program on this machine.\n"
                "The report is printed by a browser. Fix: name Chromium, Chrome or Edge by its path, or unset it."
            )
        return Path(found)
    for name in (*_NAMES, *_PLACES):
        found = shutil.which(name)
        if found is not None:
            return Path(found)
    raise RunError(
        "No browser was found that could print the report: neither Chromium nor Chrome nor Edge.\n"
        f"Fix: install one, or set {BROWSER_VARIABLE} to its path; or open report.html and print it to PDF yourself."
    )


def browser_command(browser: Path, profile: Path) -> list[str]:
    """Return how to start a browser without a window, with a private profile, that asks nothing of the network."""
    command = [
        str(browser), "--headless", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
        "--disable-background-networking", "--disable-component-update", "--disable-extensions",
        "--disable-dev-shm-usage", f"--user-data-dir={profile}",
    ]  # fmt: skip
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        command.append("--no-sandbox")  # as root, as in a container, Chromium refuses to start with it
    return command


def write_pdf(html: Path, pdf: Path, *, timeout_s: float = TIMEOUT_S) -> Path:
    """Print a page to PDF on A4, with everything that is folded opened.

    Parameters
    ----------
    html
        The page, such as ``RUN/report.html``.
    pdf
        Where the PDF goes; written whole or not at all.
    timeout_s
        How long the browser may take, in seconds.

    Raises
    ------
    RunError
        If the page is missing, or there is no browser, or it fails or takes too long.
    """
    if not html.is_file():
        raise RunError(f"{html} is missing; there is nothing to print. Fix: run 'perikarya report RUN' first.")
    browser = find_browser()
    with tempfile.TemporaryDirectory(prefix="perikarya-print-", ignore_cleanup_errors=True) as scratch:
        opened, printed = Path(scratch) / "page.html", Path(scratch) / "page.pdf"
        # the page opens what is folded by a script; a browser without scripts would print closed lids
        opened.write_text(html.read_text(encoding="utf-8").replace("<details", "<details open"), encoding="utf-8")
        command = browser_command(browser, Path(scratch) / "profile")
        command += ["--no-pdf-header-footer", f"--print-to-pdf={printed}", opened.as_uri()]
        _run(command, browser, timeout_s)
        if not printed.is_file() or printed.stat().st_size == 0:
            raise RunError(
                f"{browser.name} ended without printing {html.name}.\n"
                f"Fix: update it, name another browser in {BROWSER_VARIABLE}, or print the page yourself."
            )
        with replacing(pdf) as temporary:
            shutil.copyfile(printed, temporary)
    return pdf


def _run(command: list[str], browser: Path, timeout_s: float) -> None:
    try:
        done = subprocess.run(command, capture_output=True, timeout=timeout_s, check=False, text=True, errors="replace")  # noqa: S603
    except subprocess.TimeoutExpired:
        raise RunError(
            f"{browser.name} did not print the report within {timeout_s:g} seconds and was stopped.\n"
            "Fix: try again on a machine with less to do, or open report.html and print it yourself."
        ) from None
    except OSError as error:
        raise RunError(
            f"{browser} cannot be started ({error}). Fix: set {BROWSER_VARIABLE} to another browser."
        ) from None
    if done.returncode != 0:
        last = next((line for line in reversed(done.stderr.splitlines()) if line.strip()), "no message")
        raise RunError(
            f"{browser.name} failed to print the report (exit code {done.returncode}): {last[:300]}\n"
            f"Fix: name another browser in {BROWSER_VARIABLE}, or open report.html and print it yourself."
        )
