"""Build the source distribution and the wheel, and try the wheel as a stranger would.

    python tools/check_release.py [--dist DIST] [--extras train,weights,review] [--work FOLDER] [--tag v1.2.3]

Builds both into DIST, the wheel from the source distribution, unless they are there; installs the wheel in a new
environment in an empty folder; runs `perikarya demo` there, opens the page of `perikarya review` on the demo's run, and
ends the server with Ctrl-C. Needs `build`, and a network or a package index for what the wheel depends on.
"""

from __future__ import annotations

import argparse
import http.cookiejar
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
import venv
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
ADDRESS = re.compile(r"http://127\.0\.0\.1:\d+/\?token=[\w-]+")
PAGE_S = 120  # the server opens the run before it prints its address
END_S = 15
STOPPED = 128 + signal.SIGINT  # what every command of ours ends with on Ctrl-C


def main() -> None:
    """Read the command line and do everything once; the first step that fails ends it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dist", type=Path, default=PROJECT / "dist")
    parser.add_argument("--extras", default="train,weights,review")
    parser.add_argument("--work", type=Path, help="an empty folder; default: one that is removed afterwards")
    parser.add_argument("--tag", default="", help="what is to be published: v and the version of the wheel")
    given = parser.parse_args()
    wheel = wheel_in(given.dist.resolve(), tag=given.tag)
    with tempfile.TemporaryDirectory() as name:
        work = (given.work or Path(name)).resolve()
        program = install(wheel, work / "environment", extras=given.extras)
        elsewhere = work / "empty"
        elsewhere.mkdir()
        run([program, "demo", "--out", "demo"], cwd=elsewhere)
        open_page([program, "review", "demo/run", "--no-open"], cwd=elsewhere)
    print(f"{wheel.name}: the demo ran and its page opened.")  # noqa: T201


def wheel_in(dist: Path, *, tag: str = "") -> Path:
    """Return the wheel in a folder that holds one and its source distribution; build both where it holds neither."""
    if not list(dist.glob("*")):
        run([sys.executable, "-m", "build", "--outdir", str(dist), str(PROJECT)], cwd=PROJECT)
    wheels, sources = sorted(dist.glob("*.whl")), sorted(dist.glob("*.tar.gz"))
    if len(wheels) != 1 or len(sources) != 1:
        raise SystemExit(
            f"{dist} holds {len(wheels)} wheels and {len(sources)} source distributions, so it is not clear what would "
            f"be released.\nFix: empty it (make clean), or name another folder with --dist."
        )
    version = wheels[0].name.split("-")[1]
    if tag and tag != f"v{version}":
        raise SystemExit(
            f"The tag is {tag} but the wheel is of version {version}.\nFix: set it in pyproject.toml, tag again."
        )
    return wheels[0]


def install(wheel: Path, environment: Path, *, extras: str) -> str:
    """Install the wheel in a new environment; return the path of its `perikarya`."""
    venv.create(environment, with_pip=True)
    scripts = environment / ("Scripts" if os.name == "nt" else "bin")
    run([str(scripts / "python"), "-m", "pip", "install", "--quiet", f"{wheel}[{extras}]"], cwd=environment)
    return str(scripts / "perikarya")


def run(command: list[str], *, cwd: Path) -> None:
    """Run a command as in a new terminal, and end when it fails."""
    print(f"$ {' '.join(command)}", flush=True)  # noqa: T201
    ended = subprocess.run(command, cwd=cwd, env=clean_environment(), check=False)  # noqa: S603
    if ended.returncode != 0:
        raise SystemExit(f"`{' '.join(command)}` failed with exit code {ended.returncode}.")


def clean_environment() -> dict[str, str]:
    """Return the environment without what would let the work tree or another environment in."""
    return {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "VIRTUAL_ENV"))}


def open_page(command: list[str], *, cwd: Path) -> None:
    """Start the server, load the page and each file it names, and stop the server by Ctrl-C."""
    print(f"$ {' '.join(command)}", flush=True)  # noqa: T201
    log = cwd / "review.log"
    with log.open("w", encoding="utf-8") as out:
        server = subprocess.Popen(command, cwd=cwd, env=clean_environment(), stdout=out, stderr=out)  # noqa: S603
    try:
        load(address_in(log, server))
        server.send_signal(signal.SIGINT)
        if (code := server.wait(timeout=END_S)) not in (0, STOPPED):
            raise SystemExit(f"The server ended with exit code {code} on Ctrl-C:\n{log.read_text(encoding='utf-8')}")
    finally:
        server.kill()


def address_in(log: Path, server: subprocess.Popen[bytes]) -> str:
    """Wait until the server has said where its page is."""
    end = time.monotonic() + PAGE_S
    while time.monotonic() < end and server.poll() is None:
        if found := ADDRESS.search(log.read_text(encoding="utf-8")):
            return found[0]
        time.sleep(0.2)
    raise SystemExit(f"`perikarya review` printed no address:\n{log.read_text(encoding='utf-8')}")


def load(address: str) -> None:
    """Open the page with its token as a browser does: index, cookie, and the files that the index names."""
    browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar()))
    root = address.partition("?")[0]
    fetch(browser, address)  # answers with the cookie that opens the rest
    index = fetch(browser, root)
    files = re.findall(r'(?:src|href)="/([^"]+)"', index)
    if 'id="root"' not in index or not any(name.endswith(".js") for name in files):
        raise SystemExit(f"{root} is not the page:\n{index}")
    for name in [*files, "api/study"]:
        fetch(browser, root + name)


def fetch(browser: urllib.request.OpenerDirector, address: str) -> str:
    """Return what an address answers; anything but 200 is an error."""
    with browser.open(address, timeout=60) as answer:
        return str(answer.read().decode("utf-8"))


if __name__ == "__main__":
    main()
