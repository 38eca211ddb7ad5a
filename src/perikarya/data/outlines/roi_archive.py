"""The selections in an archive of ImageJ's ROI manager, read without unpacking anything to disk."""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from perikarya.data.outlines.base import MAX_FILE_BYTES, MAX_OUTLINES, OutlineError, Problem

MAX_MEMBER_BYTES = 16 * 2**20  # of one ROI; one of 200,000 points takes 2.4 MB
MAX_RATIO = 100  # unpacked to packed, of archives that unpack to more than a member may
SUFFIX = ".roi"
_ZIP_ERRORS = (zipfile.BadZipFile, NotImplementedError, ValueError, OSError, EOFError)
_ENTRY = b"PK\x01\x02"  # begins the entry of a member in the archive's directory


@dataclass
class RoiArchive:
    """An opened archive; ``problems`` and ``skipped`` (names of other files) fill up while ``members`` runs."""

    content: bytes
    problems: list[Problem] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)

    def members(self) -> Iterator[tuple[str, bytes]]:
        """Yield name (without ``.roi``) and bytes of every ROI.

        Raises
        ------
        OutlineError
            If this is no archive, is encrypted, or is larger than the limits.
        """
        if self.content.count(_ENTRY) > MAX_OUTLINES:
            raise OutlineError(f"the archive has more than {MAX_OUTLINES} members")
        try:
            with zipfile.ZipFile(io.BytesIO(self.content)) as archive:
                members = [info for info in archive.infolist() if self._is_roi(info)]
                _check_size(members, packed=len(self.content))
                for info in members:
                    data = self._read(archive, info)
                    if data is not None:
                        yield info.filename[: -len(SUFFIX)], data
        except _ZIP_ERRORS as error:
            raise OutlineError(f"the archive is damaged ({error}); save the ROIs again") from None

    def _is_roi(self, info: zipfile.ZipInfo) -> bool:
        name = info.filename
        path = PurePosixPath(name.replace("\\", "/"))
        if name.endswith("/") or path.parts[:1] == ("__MACOSX",) or path.name.startswith("._"):
            return False  # what the Finder of a Mac adds to archives
        if path.suffix.lower() != SUFFIX or path.stem == "":
            self.skipped.append(name)
            return False
        if path.is_absolute() or ".." in path.parts or ":" in path.parts[0]:
            self.problems.append((name, "its name leads out of the archive; save the ROIs again"))
            return False
        if info.flag_bits & 1:
            raise OutlineError("the archive is encrypted; save it without a password")
        return True

    def _read(self, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes | None:
        if info.file_size > MAX_MEMBER_BYTES:
            self.problems.append((info.filename, f"it is larger than {MAX_MEMBER_BYTES // 2**20} MiB, no outline is"))
            return None
        try:
            return archive.read(info)
        except (
            zipfile.BadZipFile,
            zlib.error,
            EOFError,
            OSError,
            RuntimeError,
            NotImplementedError,
            ValueError,
        ) as error:
            self.problems.append((info.filename, f"it is damaged in the archive ({error}); save the ROIs again"))
            return None


def _check_size(members: list[zipfile.ZipInfo], *, packed: int) -> None:
    unpacked = sum(info.file_size for info in members)
    if unpacked > MAX_FILE_BYTES:
        raise OutlineError(f"the archive unpacks to more than {MAX_FILE_BYTES // 2**20} MiB")
    if unpacked > max(MAX_MEMBER_BYTES, MAX_RATIO * packed):
        raise OutlineError(f"the archive unpacks to {unpacked / packed:.0f} times its size; outlines do not")
