"""UMAP in a process of its own, which can be ended at any moment and gives all its memory back.

Components go in and the map comes out through pipes: no file is involved, so an interrupted one leaves nothing behind.
"""

from __future__ import annotations

import re
from importlib import util

import numpy as np
from numpy.typing import NDArray

from perikarya.errors import ConfigError, DataError
from perikarya.review.components import Floats32, Progress
from perikarya.review.nearest import nearest_of_all, unit_vectors
from perikarya.review.worker import Words, Worker, answer_questions

LEAST_CELLS = 10
MOST_CELLS = 500_000
_N_NEIGHBOURS = 15
_SEED = 0
_MOST_EXACT = 20_000  # cells whose neighbours are found exactly, in seconds
_LAYOUT_FROM = 0.4  # share of the time that finding neighbours takes
_ROUND = re.compile(r"(\d+)/(\d+)")


class UmapWork:
    """Lays cells out in the plane so that cells alike lie together.

    After McInnes, Healy & Melville 2018 (arXiv:1802.03426). Cells are near where the angle between their components is
    small; the layout starts from the first two components, which keeps its large shape meaningful (Kobak & Linderman
    2021, doi:10.1038/s41587-020-00809-z). Its seed is fixed and it runs in one thread, so the same cells give the same
    map, to the last bit, on one machine with the same packages; others may round otherwise.
    """

    def __init__(self) -> None:
        self._worker = Worker(
            "perikarya.review.umap_work",
            doing="The map by UMAP",
            fix="use PCA; with little memory, end other programs.",
        )

    def cancel(self) -> None:
        """End the work at once, and any that is asked for later."""
        self._worker.close()

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
            If there are too few or too many cells.
        WorkerError
            If the work failed.
        InterruptedWorkError
            If it was cancelled.
        """
        n_cells, n_components = components_nk.shape
        if util.find_spec("umap") is None:
            raise ConfigError("A map by UMAP needs umap-learn. Fix: pip install 'perikarya[review]', or use PCA.")
        if not LEAST_CELLS <= n_cells <= MOST_CELLS:
            raise DataError(f"UMAP is for {LEAST_CELLS} to {MOST_CELLS:,} cells, not for {n_cells:,}. Fix: use PCA.")
        try:
            _, answer = self._worker.ask(
                {"n_components": n_components}, components_nk.astype("<f4").tobytes(), progress=progress
            )
        finally:
            self._worker.end()
        return np.frombuffer(answer, "<f4").reshape(n_cells, 2).astype(np.float32)


class _Rounds:
    """Takes the text of a progress bar and tells the share."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    def write(self, text: str) -> None:
        found = _ROUND.search(text)
        if found:
            self._progress(_LAYOUT_FROM + (1 - _LAYOUT_FROM) * int(found[1]) / int(found[2]))

    def flush(self) -> None:
        """Nothing is held back."""


def _layout(components_nk: Floats32, progress: Progress) -> Floats32:
    from umap import UMAP

    start_n2 = components_nk[:, :2] - components_nk[:, :2].mean(axis=0)
    start_n2 = 10 * start_n2 / max(float(np.abs(start_n2).max()), 1e-12)
    umap = UMAP(
        n_neighbors=min(_N_NEIGHBOURS, len(components_nk)),
        metric="cosine",
        init=start_n2,
        random_state=_SEED,
        n_jobs=1,
        precomputed_knn=_neighbours(components_nk, lambda share: progress(_LAYOUT_FROM * share)),
        tqdm_kwds={"file": _Rounds(progress), "disable": False, "mininterval": 0.2, "ascii": True},
    )
    return np.asarray(umap.fit_transform(components_nk), np.float32)


def _neighbours(components_nk: Floats32, progress: Progress) -> tuple[NDArray[np.int64], Floats32] | tuple[None, None]:
    """Return the neighbours of each cell, itself first, as UMAP counts; None where it shall search on its own.

    Its search compiles itself for ten seconds each time, which is worth it only where cells are many.
    """
    n_cells = len(components_nk)
    if n_cells > _MOST_EXACT:
        return None, None
    n = min(_N_NEIGHBOURS, n_cells) - 1
    rows, distances = nearest_of_all(unit_vectors(components_nk), n, progress=progress)
    own = np.arange(n_cells)[:, None]
    return np.hstack([own, rows]), np.hstack([np.zeros((n_cells, 1), np.float32), distances])


def _answer(words: Words, content: bytes, progress: Progress) -> tuple[Words, bytes]:
    components_nk = np.frombuffer(content, "<f4").reshape(-1, words["n_components"])
    progress(0.01)
    return {}, _layout(components_nk.astype(np.float32), progress).astype("<f4").tobytes()


def main() -> None:
    """Lay cells out as ``UmapWork`` asks."""
    answer_questions(_answer)


if __name__ == "__main__":
    main()
