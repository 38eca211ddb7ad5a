"""UMAP in a process of its own, which can be ended at any moment and gives all its memory back.

Components go in and the map comes out through pipes: no file is involved, so an interrupted one leaves nothing behind.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from importlib import util
from typing import IO

import numpy as np
from numpy.typing import NDArray

from perikarya.errors import ConfigError, DataError, InterruptedWorkError
from perikarya.review.components import Floats32, Progress
from perikarya.review.nearest import nearest_of_all, unit_vectors

LEAST_CELLS = 10
MOST_CELLS = 500_000
_N_NEIGHBOURS = 15
_SEED = 0
_MOST_EXACT = 20_000  # cells whose neighbours are found exactly, in seconds
_LAYOUT_FROM = 0.4  # share of the time that finding neighbours takes
_SHARE = b"share "  # begins the lines that tell how far it is
_ROUND = re.compile(r"(\d+)/(\d+)")


class UmapWork:
    """Lays cells out in the plane so that cells alike lie together.

    After McInnes, Healy & Melville 2018 (arXiv:1802.03426). Cells are near where the angle between their components is
    small; the layout starts from the first two components, which keeps its large shape meaningful (Kobak & Linderman
    2021, doi:10.1038/s41587-020-00809-z); its seed is fixed, so the same cells give the same map.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._worker: subprocess.Popen[bytes] | None = None
        self._cancelled = False

    def cancel(self) -> None:
        """End the work at once, and any that is asked for later."""
        with self._lock:
            self._cancelled = True
            if self._worker is not None:
                self._worker.kill()

    def run(self, components_nk: Floats32, *, progress: Progress) -> Floats32:
        """Return the map, shape (n_cells, 2), float32, of components, shape (n_cells, n_components).

        Parameters
        ----------
        progress
            Called with the share that is done.

        Raises
        ------
        ConfigError
            If umap-learn is not installed.
        DataError
            If there are too few or too many cells, or the work failed.
        InterruptedWorkError
            If it was cancelled.
        """
        n_cells, n_components = components_nk.shape
        if util.find_spec("umap") is None:
            raise ConfigError("A map by UMAP needs umap-learn. Fix: pip install 'perikarya[review]', or use PCA.")
        if not LEAST_CELLS <= n_cells <= MOST_CELLS:
            raise DataError(f"UMAP is for {LEAST_CELLS} to {MOST_CELLS:,} cells, not for {n_cells:,}. Fix: use PCA.")
        with self._started(n_components) as worker:
            said: list[bytes] = []
            listener = threading.Thread(target=_listen, args=(worker.stderr, progress, said), daemon=True)
            listener.start()
            answer = _exchanged(worker, components_nk.astype("<f4").tobytes())
            worker.wait()
            listener.join()
        if self._cancelled:
            raise InterruptedWorkError("The map by UMAP was interrupted; it starts anew when it is asked for.")
        if worker.returncode or len(answer) != n_cells * 2 * 4:
            reason = said[-1].decode(errors="replace").strip() if said else f"it ended with code {worker.returncode}"
            raise DataError(f"UMAP failed: {reason[:300]}\nFix: use PCA; with little memory, end other programs.")
        return np.frombuffer(answer, "<f4").reshape(n_cells, 2).astype(np.float32)

    def _started(self, n_components: int) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "perikarya.review.umap_work", str(n_components)]
        pipe = subprocess.PIPE
        with self._lock:
            if self._cancelled:
                raise InterruptedWorkError("The service is ending; the map by UMAP was not started.")
            self._worker = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe)  # noqa: S603
            return self._worker


def _exchanged(worker: subprocess.Popen[bytes], content: bytes) -> bytes:
    """Hand the components in and wait for the map; what came until then, where the worker dies."""
    components, found = worker.stdin, worker.stdout
    if components is None or found is None:
        raise ValueError("the worker was started without pipes")
    try:
        components.write(content)
        components.close()
    except BrokenPipeError:
        return b""
    return found.read()


def _listen(lines: IO[bytes], progress: Progress, said: list[bytes]) -> None:
    for line in lines:
        if line.startswith(_SHARE):
            progress(float(line.removeprefix(_SHARE)))
        elif line.strip():
            said[:] = [line]  # the last words of a traceback name the error


class _Rounds:
    """Takes the text of a progress bar and tells the share."""

    def write(self, text: str) -> None:
        found = _ROUND.search(text)
        if found:
            _tell(_LAYOUT_FROM + (1 - _LAYOUT_FROM) * int(found[1]) / int(found[2]))

    def flush(self) -> None:
        """Nothing is held back."""


def _tell(share: float) -> None:
    # where the service has died the pipe is closed, and this process ends too
    os.write(sys.stderr.fileno(), _SHARE + f"{share:.4f}\n".encode())


def _layout(components_nk: Floats32) -> Floats32:
    from umap import UMAP

    start_n2 = components_nk[:, :2] - components_nk[:, :2].mean(axis=0)
    start_n2 = 10 * start_n2 / max(float(np.abs(start_n2).max()), 1e-12)
    umap = UMAP(
        n_neighbors=min(_N_NEIGHBOURS, len(components_nk)),
        metric="cosine",
        init=start_n2,
        random_state=_SEED,
        n_jobs=1,
        precomputed_knn=_neighbours(components_nk),
        tqdm_kwds={"file": _Rounds(), "disable": False, "mininterval": 0.2, "ascii": True},
    )
    return np.asarray(umap.fit_transform(components_nk), np.float32)


def _neighbours(components_nk: Floats32) -> tuple[NDArray[np.int64], Floats32] | tuple[None, None]:
    """Return the neighbours of each cell, itself first, as UMAP counts; None where it shall search on its own.

    Its search compiles itself for ten seconds each time, which is worth it only where cells are many.
    """
    n_cells = len(components_nk)
    if n_cells > _MOST_EXACT:
        return None, None
    n = min(_N_NEIGHBOURS, n_cells) - 1
    rows, distances = nearest_of_all(unit_vectors(components_nk), n, progress=lambda share: _tell(_LAYOUT_FROM * share))
    own = np.arange(n_cells)[:, None]
    return np.hstack([own, rows]), np.hstack([np.zeros((n_cells, 1), np.float32), distances])


def main() -> None:
    """Read components from stdin, write the map to stdout."""
    os.nice(5)  # the page is served first
    out = os.dup(sys.stdout.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what packages print is no map
    components_nk = np.frombuffer(sys.stdin.buffer.read(), "<f4").reshape(-1, int(sys.argv[1]))
    _tell(0.01)
    with os.fdopen(out, "wb") as handle:
        handle.write(_layout(components_nk.astype(np.float32)).astype("<f4").tobytes())


if __name__ == "__main__":
    main()
