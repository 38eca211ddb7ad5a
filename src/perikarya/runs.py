"""Run folders: whole-file writes, locks and provenance.

A file is either absent or complete: everything is written beside its place and moved there by one rename.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import platform
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from perikarya.errors import DataError, RunError

log = logging.getLogger(__name__)

RESULT_FILE = "result.json"  # of a task, written last: where it is, the task is done
# beside it while the task goes on: training state, how far it is, who works on it, what was said
TASK_TEMPORARIES = ("state.pt", "progress.json", "claim.json", "task.log")

_LOCK_PATIENCE_S = 3.0  # workers of a killed process need a moment to notice and to let go of its lock

_TRACKED_PACKAGES = ("perikarya", "numpy", "scipy", "pandas", "pyarrow", "opencv-python-headless", "torch", "timm")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the folder of ``path``; move it into place when the block ends well.

    The folder is made when absent. When the block raises, nothing is left behind.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    fd, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    os.close(fd)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o644)
        with temporary.open("rb") as handle:
            os.fsync(handle.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def remove_parts(folder: Path) -> None:
    """Remove the temporary files of writers that were killed in ``replacing`` a file of this folder."""
    for part in folder.glob(".*.part"):
        if part.is_file():
            part.unlink(missing_ok=True)


@contextmanager
def new_folder(out: Path, *, is_ours: Callable[[Path], bool], what: str, why: str, overwrite: bool) -> Iterator[Path]:
    """Yield an empty folder beside ``out`` that takes its place when the block ends well, else vanishes.

    Parameters
    ----------
    out
        The folder to be made.
    is_ours
        Tells whether a folder that is there may be replaced where ``overwrite`` says so.
    what, why
        What it is, such as "a study", and why it is never changed in place, for the messages.

    Raises
    ------
    DataError
        If ``out`` exists and is not to be overwritten, or is something else.
    """
    if out.exists() or out.is_symlink():
        if not overwrite:
            raise DataError(
                f"{out} exists already.\n{what[0].upper()}{what[1:]} is never changed in place, for {why}.\n"
                "Fix: choose another --out, or replace it with --overwrite."
            )
        if out.is_symlink() or not is_ours(out):
            raise DataError(
                f"{out} is not the folder of {what}; --overwrite replaces only such.\nFix: choose another --out."
            )
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{out.name}.", suffix=".part", dir=out.parent))
    try:
        yield temporary
        temporary.chmod(0o755)
        if out.exists():
            old = Path(tempfile.mkdtemp(prefix=f".{out.name}.", suffix=".old", dir=out.parent))
            out.replace(old / "old")
            temporary.replace(out)
            shutil.rmtree(old)
        else:
            temporary.replace(out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, as 64 hex digits."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def write_bytes(path: Path, content: bytes) -> None:
    """Write a whole file or nothing."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path, text: str) -> None:
    """Write a whole UTF-8 text file or nothing."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path, content: Any) -> None:
    """Write JSON with stable key order; NaN is refused, since other programs cannot read it."""
    write_text(path, json.dumps(content, indent=1, sort_keys=False, allow_nan=False, ensure_ascii=False) + "\n")


def read_json(path: Path, *, what: str) -> Any:
    """Read a JSON file; raise ``RunError`` with a sentence when it is missing or damaged.

    Parameters
    ----------
    path
        The file.
    what
        What the file is, for the message, e.g. ``"the result of a task"``.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RunError(f"{path} is missing; it should hold {what}.") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise RunError(
            f"{path} should hold {what} but is not readable JSON ({error}).\n"
            "Fix: delete the file and run the same command again; only that part is computed anew."
        ) from None


@dataclass(frozen=True)
class TaskKey:
    """One training: a model, a seed and the fold that tests it."""

    model: str
    seed: int
    fold: int

    def __str__(self) -> str:
        return f"{self.model}/seed{self.seed}/fold{self.fold}"


@dataclass(frozen=True)
class RunFolder:
    """Where the files of one run lie; see ARCHITECTURE for the layout."""

    root: Path

    @property
    def config(self) -> Path:
        """The resolved configuration the run was started with."""
        return self.root / "config.yaml"

    @property
    def folds(self) -> Path:
        """The fold plan."""
        return self.root / "folds.parquet"

    @property
    def check(self) -> Path:
        """What the check of the study found when the run was planned."""
        return self.root / "check.json"

    @property
    def results(self) -> Path:
        """The numbers other programs read."""
        return self.root / "results.json"

    @property
    def report(self) -> Path:
        """The page for people."""
        return self.root / "report.html"

    @property
    def figures(self) -> Path:
        """Figures, one file each."""
        return self.root / "figures"

    @property
    def log(self) -> Path:
        """The log of the supervising process."""
        return self.root / "run.log"

    def task(self, key: TaskKey) -> Path:
        """Return the folder of one task."""
        return self.root / "tasks" / key.model / f"seed{key.seed}" / f"fold{key.fold}"

    def task_log(self, key: TaskKey) -> Path:
        """Return where the log of a task is kept while it goes on, and after it failed."""
        return self.task(key) / "task.log"

    def features_log(self, model: str) -> Path:
        """Return where the log of a model's features is kept while they are computed, and after that failed."""
        return self.root / f"embed-{model}.log"

    def task_is_done(self, key: TaskKey) -> bool:
        """Tell whether a task has ended well: its result is written last and whole."""
        return (self.task(key) / RESULT_FILE).is_file()

    def clear_task(self, key: TaskKey) -> None:
        """Remove what only serves an unfinished task: state, log, progress, claim, half-written files."""
        for name in TASK_TEMPORARIES:
            (self.task(key) / name).unlink(missing_ok=True)
        remove_parts(self.task(key))

    def clear_finished(self, keys: Iterable[TaskKey]) -> None:
        """Remove what processes that were killed just after their last file left of tasks and features.

        Call it where no worker is on these tasks. A log of features goes where all tasks of its model are done.
        """
        all_done: dict[str, bool] = {}
        for key in keys:
            done = self.task_is_done(key)
            all_done[key.model] = done and all_done.get(key.model, True)
            if done:
                self.clear_task(key)
        for model in (name for name, done in all_done.items() if done):
            self.features_log(model).unlink(missing_ok=True)


@contextmanager
def lock_run(root: Path) -> Iterator[IO[str]]:
    """Hold a run folder for this process and the workers that inherit the lock's file.

    The kernel frees the lock when the last holder dies, however it dies, so a lock is never left behind.

    Raises
    ------
    RunError
        If another living process holds the folder.
    """
    root.mkdir(parents=True, exist_ok=True)
    with (root / ".lock").open("a+", encoding="utf-8") as handle:
        if not _try_lock(handle, patience_s=_LOCK_PATIENCE_S):
            handle.seek(0)
            owner = handle.read().strip() or "unknown"
            raise RunError(
                f"Another process is working on {root} (started by {owner}).\n"
                "Two writers in one run folder would mix their results; so this one stops.\n"
                "Fix: wait for it (perikarya status shows its progress), stop it, or choose another --out."
            )
        handle.truncate(0)
        handle.write(f"process {os.getpid()} on {socket.gethostname()} at {now()}\n")
        handle.flush()
        yield handle


@contextmanager
def logging_to(path: Path, *, logger: str = "") -> Iterator[None]:
    """Append what is logged meanwhile, from INFO up, to a file; ``logger`` names whose words, by default everyone's."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    try:
        with heard_by(handler, logger=logger):
            yield
    finally:
        handler.close()


@contextmanager
def heard_by(handler: logging.Handler, *, logger: str) -> Iterator[None]:
    """Let a handler have what is logged meanwhile, from INFO up."""
    source = logging.getLogger(logger)
    level = source.level
    source.addHandler(handler)
    source.setLevel(logging.INFO)
    try:
        yield
    finally:
        source.removeHandler(handler)
        source.setLevel(level)


def _try_lock(handle: IO[str], *, patience_s: float) -> bool:
    deadline = time.monotonic() + patience_s
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.1)
        else:
            return True


def now() -> str:
    """Return the time in UTC as ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that decide the numbers."""
    from importlib import metadata  # 20 ms, in every process of an array

    found = {"python": platform.python_version()}
    for name in _TRACKED_PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def provenance() -> dict[str, Any]:
    """Return who computed this, when, where and with which software."""
    return {
        "created": now(),
        "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "platform": platform.platform(),
        "cpu_count": os.cpu_count(),
        "versions": versions(),
    }
