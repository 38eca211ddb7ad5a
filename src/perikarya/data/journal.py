"""Files that only grow: one JSON object per line, each with the hash of the line before.

Several processes may append to one file at once, on this machine or wherever ``flock`` reaches. What was said to be
written is on the disk; a process that is killed while it writes leaves a torn line, which stays where it is and is
named by the line after it, so that no byte of the past is ever removed.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import logging
import os
import stat
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Generic, TypeVar

from pydantic import TypeAdapter, ValidationError

from perikarya.errors import DataError
from perikarya.schema import SCHEMA_VERSION

log = logging.getLogger(__name__)

MAX_LINE_BYTES = 2**16
NO_LINE_BEFORE = "0" * 16  # ``previous`` of the first line
_PATIENCE_S = 15.0  # an append takes milliseconds, on a slow network share perhaps a second
_CHAIN_KEYS = ("schema_version", "seq", "previous", "after_torn_bytes")
_CANNOT_LOCK = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)

T = TypeVar("T")


@dataclass(frozen=True)
class _Place:
    """How far a file has been read: bytes, lines, and the last line that counts, with its line break."""

    offset: int = 0
    n_lines: int = 0
    last: bytes = b""


class Journal(Generic[T]):
    """The entries of one such file, read once and kept.

    Every line has ``schema_version``, ``seq`` (counted from 1), the entry's own keys, ``previous`` (the first 16 hex
    digits of the SHA-256 of the line before, without its line break) and, where a torn line lies before it,
    ``after_torn_bytes``, the length of that, which the hash then includes. A line that was changed does not fit to the
    one after it; whoever writes the whole chain anew is not found out by the file alone.

    Parameters
    ----------
    path
        The file; it is made when something is appended first.
    root
        The folder it must lie in, links followed.
    what
        What it is, for messages, such as "the log of corrections".
    adapter
        What an entry is: a frozen dataclass with the keys ``seq`` and those of its own.
    """

    def __init__(self, path: Path, *, root: Path, what: str, adapter: TypeAdapter[T]) -> None:
        self.path = path
        self._root = root
        self._what = what
        self._adapter = adapter
        self._entries: list[T] = []
        self._ends: list[int] = []  # of the entries' lines, in bytes
        self._place = _Place()
        self._mutex = threading.RLock()

    def read(self, since: int = 0) -> list[T]:
        """Return the entries with a ``seq`` above ``since``; costs one look at the file's size where none is new.

        Raises
        ------
        DataError
            If a line is not what was written, or the file has become shorter.
        """
        with self._mutex:
            if self._size() != self._place.offset:
                with self._opened(os.O_RDONLY) as handle, self._locked(handle, fcntl.LOCK_SH):
                    self._read_on(handle)
            return self._entries[since:]

    def append(self, make: Callable[[Sequence[T]], Sequence[Mapping[str, Any]]]) -> list[T]:
        """Write entries and return them once they are on the disk.

        Parameters
        ----------
        make
            Is given all entries there are, while nobody else can write, and returns the keys and values of the new
            ones. What it raises leaves the file as it was.

        Raises
        ------
        DataError
            If the folder cannot be written to or locked, or the file is damaged.
        """
        with self._mutex:
            with self._opened(os.O_RDWR | os.O_CREAT | os.O_APPEND) as handle, self._locked(handle, fcntl.LOCK_EX):
                torn = self._read_on(handle)
                if _object(torn.rpartition(b"\n")[2]) is not None:  # only its line break is missing
                    self._write(handle, b"\n")
                    torn = self._read_on(handle)
                n_before = len(self._entries)
                if records := make(self._entries):
                    self._write(handle, self._lines_of(records, torn))
                    self._read_on(handle)
            return self._entries[n_before:]

    def verify(self) -> str:
        """Read the file from its beginning, compare it with what was read before, and return its SHA-256 (64 digits).

        The hash is of all that counts: a torn line at the end does not.

        Raises
        ------
        DataError
            If a line was changed, removed or put in between.
        """
        with self._mutex:
            fresh: Journal[T] = Journal(self.path, root=self._root, what=self._what, adapter=self._adapter)
            entries = fresh.read()
            if entries[: len(self._entries)] != self._entries:
                raise DataError(
                    f"{self.path} is not the file it was when it was opened: lines read before have changed.\n"
                    f"{self._only_grows} Fix: restore it from a copy."
                )
            return hashlib.sha256(fresh.lines(len(entries))).hexdigest()

    def lines(self, n: int) -> bytes:
        """Return the bytes of the file up to the end of its ``n``-th entry, of those that were read."""
        with self._mutex:
            if n == 0:
                return b""
            with self._opened(os.O_RDONLY) as handle:
                return handle.read(self._ends[n - 1])

    @property
    def _only_grows(self) -> str:
        return f"{self._what[0].upper()}{self._what[1:]} only grows."

    def _size(self) -> int:
        try:
            return self.path.stat().st_size
        except FileNotFoundError:
            return 0
        except OSError as error:
            raise self._unusable(error) from None

    @contextmanager
    def _opened(self, flags: int) -> Iterator[BinaryIO]:
        """Open the file if it is a regular one inside the root; other errors become sentences."""
        try:
            if flags & os.O_CREAT:
                self.path.parent.mkdir(parents=True, exist_ok=True)
            if not self.path.parent.resolve().is_relative_to(self._root.resolve()):
                raise DataError(f"{self.path} leads out of {self._root}.\nFix: put the folder itself in its place.")
            is_new = bool(flags & os.O_CREAT) and not self.path.exists()
            fd = os.open(self.path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise self._unusable(error) from None
        with os.fdopen(fd, "rb") as handle:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise DataError(f"{self.path} is not a regular file; it should be {self._what}.\nFix: move it away.")
            if is_new:
                _sync_folder(self.path.parent)
            yield handle

    def _unusable(self, error: OSError) -> DataError:
        return DataError(
            f"{self.path} cannot be used as {self._what}: {error.strerror}.\n"
            "What a person says of a cell has to be kept before the next one is shown. Fix: give this account the "
            f"right to write into {self.path.parent}, make room on the disk, or copy the study to where you may write."
        )

    @contextmanager
    def _locked(self, handle: BinaryIO, kind: int) -> Iterator[None]:
        """Hold the file against writers (shared) or everyone (exclusive); the kernel frees it when a holder dies."""
        deadline = time.monotonic() + _PATIENCE_S
        while True:
            try:
                fcntl.flock(handle, kind | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise DataError(
                        f"Another process has held {self.path} for {_PATIENCE_S:.0f} s.\nFix: see which one (fuser)."
                    ) from None
                time.sleep(0.005)
            except OSError as error:
                if error.errno not in _CANNOT_LOCK:
                    raise
                raise DataError(
                    f"The file system of {self.path} cannot lock files ({error.strerror}); two people who write at "
                    "once would overwrite each other.\nFix: copy the study to a disk of this machine."
                ) from None
            else:
                break
        yield  # closing the file lets go of the lock

    def _read_on(self, handle: BinaryIO) -> bytes:
        """Take in the lines that are new; return what is behind the last of them, torn when a process was killed."""
        size = os.fstat(handle.fileno()).st_size
        if size < self._place.offset:
            raise DataError(
                f"{self.path} has become shorter, from {self._place.offset} to {size} bytes, while it was in use.\n"
                f"{self._only_grows} Fix: restore it from a copy."
            )
        handle.seek(self._place.offset)
        number, torn = self._place.n_lines, b""
        while line := handle.readline(MAX_LINE_BYTES + 1):
            number += 1
            record = _object(line) if line.endswith(b"\n") else None
            if len(line) > MAX_LINE_BYTES:
                raise self._damaged(number, f"is longer than {MAX_LINE_BYTES // 1024} KiB")
            if record is None:
                torn += line
                if len(torn) > MAX_LINE_BYTES:
                    raise self._damaged(number, "is not JSON, nor are those before it")
                continue
            self._take_in(record, number, torn)
            end = self._place.offset + len(torn) + len(line)
            self._place, torn = _Place(end, number, line), b""
            self._ends.append(end)
        return torn

    def _take_in(self, record: dict[str, Any], number: int, torn: bytes) -> None:
        """Add the entry of a line that fits into the chain."""
        if record.get("schema_version") != SCHEMA_VERSION:
            raise self._damaged(number, f"does not have schema version {SCHEMA_VERSION}")
        if record.get("after_torn_bytes", 0) != len(torn):
            raise self._damaged(number, "does not say how many bytes that are not JSON lie before it")
        if record.get("seq") != len(self._entries) + 1:
            raise self._damaged(number, f"is not entry {len(self._entries) + 1}; lines were removed or put in between")
        if record.get("previous") != _digest(self._place.last + torn):
            raise self._damaged(number, "does not fit to the line before it, which was changed since")
        own = {key: value for key, value in record.items() if key not in _CHAIN_KEYS}
        try:  # as JSON, where arrays are read as tuples though types are strict
            self._entries.append(self._adapter.validate_json(json.dumps({"seq": record["seq"], **own})))
        except ValidationError as error:
            raise self._damaged(number, f"does not fit: {sentence_of(error)}") from None

    def _damaged(self, number: int, reason: str) -> DataError:
        return DataError(
            f"{self.path}: line {number} {reason}.\n"
            f"{self._what[0].upper()}{self._what[1:]} tells who said what and when; with a changed past it tells "
            "nothing. Fix: restore the file from a copy, or move it away to begin a new one."
        )

    def _lines_of(self, records: Sequence[Mapping[str, Any]], torn: bytes) -> bytes:
        """Return the lines of new entries, behind the line break of a torn one."""
        if torn and not torn.endswith(b"\n"):
            content, torn = [b"\n"], torn + b"\n"
        else:
            content = []
        if torn:
            log.warning("%s: %d bytes of a write that was cut off are left aside.", self.path, len(torn))
        before = self._place.last + torn
        for seq, record in enumerate(records, start=len(self._entries) + 1):
            chained = {"schema_version": SCHEMA_VERSION, "seq": seq, **record, "previous": _digest(before)}
            if torn and seq == len(self._entries) + 1:
                chained["after_torn_bytes"] = len(torn)
            before = json.dumps(chained, allow_nan=False, separators=(",", ":")).encode("ascii") + b"\n"
            content.append(before)
        return b"".join(content)

    def _write(self, handle: BinaryIO, content: bytes) -> None:
        """Append bytes, by one call where the disk has room, and wait until they are on it."""
        rest = memoryview(content)
        try:
            while rest:
                rest = rest[os.write(handle.fileno(), rest) :]
            os.fsync(handle.fileno())
        except OSError as error:
            raise self._unusable(error) from None


def sentence_of(error: ValidationError) -> str:
    """Say in a few words what does not fit, without repeating what somebody else wrote."""
    first = error.errors(include_input=False, include_url=False)[0]
    return f"{'.'.join(str(part) for part in first['loc'] if part != 'seq') or 'it'}: {first['msg']}"


def _object(line: bytes) -> dict[str, Any] | None:
    """Return the JSON object of a line, or None where it is none."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


def _digest(before: bytes) -> str:
    """Return what a line says of all bytes since the beginning of the one before it."""
    return hashlib.sha256(before[:-1]).hexdigest()[:16] if before else NO_LINE_BEFORE


def _sync_folder(folder: Path) -> None:
    """Wait until the names in a folder are on the disk."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
