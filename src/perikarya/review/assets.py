"""The files of the page, as the front-end's build left them in the package."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from perikarya.errors import RunError

PAGE_FOLDER = Path(__file__).with_name("page")
# not asked of the system, whose table may call a script plain text, which a browser then refuses to run
_MEDIA_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
    ".woff2": "font/woff2",
}


@dataclass(frozen=True)
class Asset:
    """One file: its bytes, what they are, and whether its name changes with them."""

    content: bytes
    media_type: str
    for_ever: bool


def read_page(folder: Path = PAGE_FOLDER) -> Mapping[str, Asset]:
    """Read all files of the page, by their address below "/"; the page itself is "index.html".

    What is asked for is looked up here and never becomes a path, so no address leads out of the folder.

    Raises
    ------
    RunError
        If the page was not built.
    """
    if not (folder / "index.html").is_file():
        raise RunError(
            "The page of 'perikarya review' is not in this installation.\n"
            "It comes with the wheel; a clone has to build it once.\nFix: run 'make page' in the clone."
        )
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.suffix in _MEDIA_TYPES]
    return {path.relative_to(folder).as_posix(): _asset(path, folder) for path in paths}


def _asset(path: Path, folder: Path) -> Asset:
    hashed = path.parent == folder / "assets"  # names there hold a hash of the content
    return Asset(path.read_bytes(), _MEDIA_TYPES[path.suffix], for_ever=hashed)
