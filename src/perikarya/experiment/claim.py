"""Who works on a task: the newest worker does, and an older one that still lives stops before it writes.

A cluster restarts the jobs of a machine it no longer hears from, whose processes may go on. Locks do not help there:
not every shared file system has them, and the older worker would hold one. So the newer one takes the claim, and the
older one looks for its own name before it writes anything that counts.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from uuid import uuid4

from perikarya.errors import InterruptedWorkError, RunError
from perikarya.runs import now, read_json, write_json

CLAIM_FILE = "claim.json"


@dataclass(frozen=True)
class Owner:
    """A worker, as its claim names it: ``token`` is its own, ``job`` the cluster's name of its job or empty."""

    token: str
    host: str
    pid: int
    job: str
    since: str

    @classmethod
    def of_this_process(cls, environment: Mapping[str, str] = os.environ) -> Owner:
        """Describe this process under a new token."""
        return cls(uuid4().hex, socket.gethostname(), os.getpid(), environment.get("SLURM_JOB_ID", ""), now())


class Claim:
    """The right of one worker to write the files of one piece of work, until somebody newer takes it."""

    def __init__(self, path: Path, owner: Owner, *, is_done: Callable[[], bool]) -> None:
        self._path, self._owner, self._is_done = path, owner, is_done
        self._looked = time.monotonic()

    @classmethod
    def take(cls, folder: Path, *, is_done: Callable[[], bool], name: str = CLAIM_FILE) -> Claim:
        """Take the work whose files are in a folder, from whoever had it.

        Parameters
        ----------
        folder
            Where the claim is laid down.
        is_done
            Tells whether somebody has ended the work.
        name
            Of the claim, where a folder holds several pieces of work.
        """
        claim = cls(folder / name, Owner.of_this_process(), is_done=is_done)
        claim._write()
        return claim

    def check(self, *, at_most_every_s: float = 0) -> None:
        """Look whether the work is still this worker's.

        A claim that is gone, for a newer worker had it and stopped since, is taken again while there is work left.

        Parameters
        ----------
        at_most_every_s
            Nothing is read when the last look is more recent.

        Raises
        ------
        InterruptedWorkError
            If a newer worker has taken it, or ended it.
        """
        if at_most_every_s and time.monotonic() - self._looked < at_most_every_s:
            return
        self._looked = time.monotonic()
        owner = read_owner(self._path)
        if owner is None:
            if self._is_done():
                raise InterruptedWorkError("a newer worker has ended this work meanwhile, so this one stops")
            self._write()
        elif owner.token != self._owner.token:
            raise InterruptedWorkError(
                f"a newer worker (process {owner.pid} on {owner.host}, since {owner.since}) has taken over this work, "
                "so this one stops; two writers would mix their files"
            )

    def release(self) -> None:
        """Remove the claim unless it is somebody else's by now."""
        owner = read_owner(self._path)
        if owner is not None and owner.token == self._owner.token:
            self._path.unlink(missing_ok=True)

    def _write(self) -> None:
        write_json(self._path, asdict(self._owner))


def read_owner(path: Path) -> Owner | None:
    """Read who has a claim; None where nobody has, or where its file is damaged and so nobody's."""
    try:
        os.listdir(path.parent)  # noqa: PTH208 - an NFS client looks anew at a folder that is opened, not at a file
        return Owner(**read_json(path, what="who works on a task"))
    except (OSError, RunError, TypeError):
        return None
