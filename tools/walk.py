"""Walk a page of the docs as a newcomer would: type its commands in a clean folder, in order, and make its pictures.

python tools/walk.py docs/tutorial.md [--folder DIR] [--wheel dist/perikarya-*.whl] [--no-pictures] [--from LINE]

Every fenced ``bash`` block is typed into bash exactly as it stands on the page; the first that fails ends the walk.
What a page cannot say in the block itself it says in an HTML comment, which readers do not see:

- ``<!-- walk: install -->`` before a block: typed only with ``--wheel``, with the wheel's path in place of the
  package's name. Without, the commands of this Python's environment are taken, and the walk says so.
- ``<!-- walk: serve NAME.png; click WORDS; keys A B ... -->`` before a block: it is started, its page is opened in
  Chromium, what bears these words is clicked on, the keys are pressed one after another, the page is photographed, and
  the command ended with Ctrl-C. ``click`` and ``keys`` may be left out.
- ``<!-- walk: picture NAME.png of PATH -->`` anywhere: a picture, or ``PATH.html`` or ``PATH.html#id`` photographed in
  Chromium, is kept, small, in ``pictures/`` beside the page.

Exit code: 0 when every block ran and every picture was made.
"""

from __future__ import annotations

import argparse
import io
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from queue import Empty, Queue
from typing import TYPE_CHECKING, TypeAlias

from PIL import Image

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

MAX_PICTURE_BYTES = 150_000
WIDTH_PX, HEIGHT_PX = 1200, 800  # of the browser's window
_ADDRESS = re.compile(r"http://127\.0\.0\.1:\d+/\S*")
_FENCE = re.compile(r"^(`{3,}|~{3,})\s*(\S*)")
_COMMENT = re.compile(r"^<!--\s*walk:\s*(.*?)\s*-->$")
_SERVE = re.compile(r"^serve (?P<name>[\w-]+\.png)(?:; click (?P<click>[^;]+))?(?:; keys (?P<keys>[^;]+))?$")
_PICTURE = re.compile(r"^picture (?P<name>[\w-]+\.png) of (?P<source>\S+)$")
_PACKAGE = re.compile(r"\bperikarya(?=\[|\s|\"|'|$)")
_START_S, _END_S, _SETTLE_MS, _KEY_MS = 180.0, 30.0, 3000.0, 400.0


class WalkError(Exception):
    """The page cannot be walked; the message says where and why."""


@dataclass(frozen=True)
class Block:
    """A fenced block to type, and how: ``run``, ``install`` or ``serve``."""

    line: int
    text: str
    how: str = "run"
    picture: str | None = None
    click: str | None = None
    keys: tuple[str, ...] = ()


@dataclass(frozen=True)
class Picture:
    """A picture to make from a file that the commands left behind."""

    line: int
    name: str
    source: str


Step: TypeAlias = Block | Picture


def read_steps(text: str) -> list[Step]:
    """Return what there is to do on a page, in its order.

    Raises
    ------
    WalkError
        If a comment to the walk is not understood, or stands before nothing it could be for.
    """
    steps: list[Step] = []
    lines = text.splitlines()
    waiting: Block | None = None  # a comment that is for the next block
    at = 0
    while at < len(lines):
        comment, fence = _COMMENT.match(lines[at].strip()), _FENCE.match(lines[at].lstrip())
        if comment:
            if waiting is not None:
                raise WalkError(f"line {waiting.line}: no bash block follows this comment")
            step = _read_comment(comment[1], at + 1)
            waiting = step if isinstance(step, Block) else None
            steps += [step] if isinstance(step, Picture) else []
        elif fence:
            end = _end_of_fence(lines, at, fence[1])
            if fence[2] == "bash":
                if waiting and waiting.how == "serve" and end - at != 2:
                    raise WalkError(f"line {at + 1}: a block that is served holds one command in one line")
                body = "\n".join(lines[at + 1 : end]) + "\n"
                steps.append(replace(waiting or Block(0, ""), line=at + 1, text=body))
                waiting = None
            at = end
        at += 1
    if waiting is not None:
        raise WalkError(f"line {waiting.line}: no bash block follows this comment")
    return steps


def _end_of_fence(lines: list[str], start: int, fence: str) -> int:
    for at in range(start + 1, len(lines)):
        if lines[at].strip().startswith(fence) and not lines[at].strip(" `~"):
            return at
    raise WalkError(f"line {start + 1}: this block has no end")


def _read_comment(words: str, line: int) -> Step:
    if words == "install":
        return Block(line, "", "install")
    if served := _SERVE.match(words):
        return Block(line, "", "serve", served["name"], served["click"], tuple((served["keys"] or "").split()))
    if pictured := _PICTURE.match(words):
        return Picture(line, pictured["name"], pictured["source"])
    raise WalkError(f"line {line}: the walk does not understand '{words}'")


class Walk:
    """One walk through one page.

    Parameters
    ----------
    folder
        Where the commands are typed.
    pictures
        Where pictures are kept; None: none are made.
    wheel
        What the page's ``install`` block installs; None: nothing is installed.
    say
        Told what goes on.
    """

    def __init__(
        self, folder: Path, *, pictures: Path | None, wheel: Path | None, say: Callable[[str], object]
    ) -> None:
        self.folder = folder
        self.pictures = pictures
        self.wheel = wheel
        self.say = say
        places = [str(folder / ".venv" / "bin"), str(Path(sys.executable).parent), os.environ["PATH"]]
        quiet = {"COLUMNS": "110", "PYTHONUNBUFFERED": "1", "BROWSER": "true"}  # pages are opened by the walk
        self.environment = os.environ | quiet | {"PATH": os.pathsep.join(places)}

    def go(self, steps: list[Step]) -> None:
        """Do all steps; raise ``WalkError`` at the first that fails."""
        for step in steps:
            started = time.monotonic()
            if isinstance(step, Picture):
                self._picture(step)
            else:
                self.say(f"line {step.line}:\n{_indented(step.text)}")
                {"run": self._run, "install": self._install, "serve": self._serve}[step.how](step)
            self.say(f"  {time.monotonic() - started:.0f} s")

    def _run(self, block: Block) -> None:
        command = ["bash", "-euo", "pipefail", "-c", block.text]
        done = subprocess.run(  # noqa: S603 - what stands on the page is what is to be run
            command, cwd=self.folder, env=self.environment, stdin=subprocess.DEVNULL, check=False
        )
        if done.returncode:
            raise WalkError(f"line {block.line}: the block ended with exit code {done.returncode}")

    def _install(self, block: Block) -> None:
        if self.wheel is None:
            self.say(f"  not typed: no --wheel was given; perikarya is {shutil.which('perikarya', path=self._path)}")
            return
        self._run(Block(block.line, _PACKAGE.sub(str(self.wheel.resolve()), block.text)))

    @property
    def _path(self) -> str:
        return self.environment["PATH"]

    def _serve(self, block: Block) -> None:
        with _started(block, self.folder, self.environment) as address:
            if self.pictures is not None:
                with _chromium() as browser:
                    page = _open(browser, address)
                    if block.click is not None:
                        page.get_by_text(block.click, exact=True).first.click()
                        page.wait_for_timeout(_SETTLE_MS)
                    for key in block.keys:
                        page.keyboard.press(key)
                        page.wait_for_timeout(_KEY_MS)
                    self._keep(self.pictures, str(block.picture), page.screenshot())

    def _picture(self, picture: Picture) -> None:
        if self.pictures is None:
            return
        path, _, mark = picture.source.partition("#")
        source = self.folder / path
        if not source.is_file():
            raise WalkError(f"line {picture.line}: there is no {path} to make a picture of")
        if source.suffix != ".html":
            self._keep(self.pictures, picture.name, source.read_bytes())
            return
        with _chromium() as browser:
            page = _open(browser, source.resolve().as_uri())
            if mark and not page.locator(f"#{mark}").count():
                raise WalkError(f"line {picture.line}: {path} has no part '{mark}'")
            if mark:
                page.evaluate("mark => document.getElementById(mark).scrollIntoView({behavior: 'instant'})", mark)
            self._keep(self.pictures, picture.name, page.screenshot())

    def _keep(self, pictures: Path, name: str, content: bytes) -> None:
        pictures.mkdir(exist_ok=True)
        kept = shrunk(content)
        (pictures / name).write_bytes(kept)
        self.say(f"  {name}: {len(kept) / 1000:.0f} kB")


def shrunk(content: bytes, *, limit: int = MAX_PICTURE_BYTES, width_px: int = WIDTH_PX) -> bytes:
    """Return a picture as PNG below a size: no wider than the browser, in few colours, narrower where need be."""
    picture = Image.open(io.BytesIO(content)).convert("RGB")
    while True:
        if picture.width > width_px:
            size = (width_px, round(picture.height * width_px / picture.width))
            picture = picture.resize(size, Image.Resampling.LANCZOS)
        out = io.BytesIO()
        picture.quantize(128, dither=Image.Dither.NONE).save(out, "png", optimize=True)
        if out.tell() <= limit or picture.width < 100:
            return out.getvalue()
        width_px = int(picture.width * min(0.9, (limit / out.tell()) ** 0.5))


@contextmanager
def _chromium() -> Iterator[Browser]:
    """Yield the system's Chromium; raise ``WalkError`` where there is none."""
    from playwright.sync_api import sync_playwright

    from perikarya.errors import RunError
    from perikarya.report.pdf import find_browser

    try:
        path = find_browser()
    except RunError as error:
        raise WalkError(f"{error}\nOr walk with --no-pictures.") from None
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(path), args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


def _open(browser: Browser, address: str) -> Page:
    page = browser.new_page(viewport={"width": WIDTH_PX, "height": HEIGHT_PX}, color_scheme="light")
    page.goto(address, wait_until="load")
    page.wait_for_timeout(_SETTLE_MS)
    return page


@contextmanager
def _started(block: Block, folder: Path, environment: dict[str, str]) -> Iterator[str]:
    """Start a command that serves a page, yield its address, and end it with Ctrl-C."""
    with subprocess.Popen(  # noqa: S603 - as above
        ["bash", "-euo", "pipefail", "-c", f"exec {block.text}"],  # noqa: S607
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        addresses: Queue[str | None] = Queue()
        listener = threading.Thread(target=_listen, args=(process, addresses))
        listener.start()
        try:
            yield _first(addresses, block)
            process.send_signal(signal.SIGINT)
            code = process.wait(_END_S)
        except subprocess.TimeoutExpired:
            raise WalkError(f"line {block.line}: the command did not end within {_END_S:.0f} s of Ctrl-C") from None
        finally:
            process.kill()
            listener.join()
    if code not in (0, 128 + signal.SIGINT, -signal.SIGINT):
        raise WalkError(f"line {block.line}: the command ended with exit code {code} after Ctrl-C")


def _listen(process: subprocess.Popen[str], addresses: Queue[str | None]) -> None:
    """Show what a process says, without the secret in its address, and pass on the addresses; None is the end."""
    for line in process.stdout or ():
        sys.stdout.write(_ADDRESS.sub("(its address)", line))
        for address in _ADDRESS.findall(line):
            addresses.put(address)
    addresses.put(None)


def _first(addresses: Queue[str | None], block: Block) -> str:
    try:
        address = addresses.get(timeout=_START_S)
    except Empty:
        raise WalkError(f"line {block.line}: no address came within {_START_S:.0f} s") from None
    if address is None:
        raise WalkError(f"line {block.line}: the command ended without telling an address")
    return address


def _indented(text: str) -> str:
    return "\n".join(f"  $ {line}" for line in text.rstrip("\n").split("\n"))


def say(words: str) -> None:
    """Tell at once, so that it stands before what the next command says."""
    sys.stdout.write(f"{words}\n")
    sys.stdout.flush()


def main() -> int:
    """Walk the page that the command line names."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("page", type=Path)
    parser.add_argument("--folder", type=Path, help="an empty folder to work in; default: a temporary one, removed")
    parser.add_argument("--wheel", type=Path, help="what the page's install block installs")
    parser.add_argument("--no-pictures", action="store_true", help="where there is no browser")
    parser.add_argument(
        "--from", type=int, default=0, dest="line", help="go on at this line, in the --folder of before"
    )
    asked = parser.parse_args()
    if not asked.line and asked.folder and asked.folder.exists() and any(asked.folder.iterdir()):
        parser.error(f"{asked.folder} is not empty; a newcomer's is")
    folder = asked.folder or Path(tempfile.mkdtemp(prefix="walk-"))
    folder.mkdir(parents=True, exist_ok=True)
    pictures = None if asked.no_pictures else asked.page.parent / "pictures"
    started = time.monotonic()
    try:
        steps = [s for s in read_steps(asked.page.read_text(encoding="utf-8")) if s.line >= asked.line]
        Walk(folder.resolve(), pictures=pictures, wheel=asked.wheel, say=say).go(steps)
    except WalkError as error:
        sys.stderr.write(f"{asked.page}, {error}\n")
        return 1
    finally:
        if asked.folder is None:
            shutil.rmtree(folder, ignore_errors=True)
    say(f"{asked.page}: {len(steps)} steps in {(time.monotonic() - started) / 60:.1f} minutes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
