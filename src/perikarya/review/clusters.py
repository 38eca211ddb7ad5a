"""Clusters of near-duplicates: rows that show one cell, found by the study's check or by looking through all crops.

Looking takes minutes for 100,000 cells, so it is done once, in a process of its own that can be ended at any moment and
gives its memory back, and kept in the study's cache.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from perikarya.data.store import OpenStudy, open_study
from perikarya.review.components import Progress
from perikarya.review.worker import Words, Worker, answer_questions
from perikarya.runs import RunFolder, read_json, replacing

log = logging.getLogger(__name__)

Numbers = NDArray[np.int32]
ALONE = 0  # the number of a cell without near-duplicates
_CACHE_VERSION = 1  # raise when near-duplicates are found in another way
# what the check of a study calls two rows that show one picture
_TWINS = ("duplicate", "duplicate-subjects", "duplicate-images", "leak-sets", "leak-folds", "two-labels")


def cluster_numbers(pairs: Iterable[tuple[int, int]], n_cells: int) -> Numbers:
    """Number the clusters that pairs of rows connect, shape (n_cells,), from 1 in the order of their first rows."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    ends = np.array([*pairs], np.int64).reshape(-1, 2)
    graph = coo_array((np.ones(len(ends), np.int8), (ends[:, 0], ends[:, 1])), shape=(n_cells, n_cells))
    _, found_n = connected_components(graph, directed=False)
    _, first_of, part_n, size = np.unique(found_n, return_index=True, return_inverse=True, return_counts=True)
    several = np.flatnonzero(size > 1)
    number = np.full(len(size), ALONE, np.int32)
    number[several[np.argsort(first_of[several])]] = np.arange(1, len(several) + 1, dtype=np.int32)
    return np.asarray(number[part_n])


def clusters_of_run(run: RunFolder, cell_ids: pd.Index) -> Numbers:
    """Return what the check found when a run was planned, shape (n_cells,); raise ``RunError`` where it is damaged."""
    findings = read_json(run.check, what="what the study check found")
    named = [f["cells"][:2] for f in findings if f["code"] in _TWINS and len(f["cells"]) == 2]
    rows = cell_ids.get_indexer(pd.Index([name for pair in named for name in pair])).reshape(-1, 2)
    return cluster_numbers(map(tuple, rows[(rows >= 0).all(axis=1)].tolist()), len(cell_ids))


def clusters_of_study(opened: OpenStudy) -> Numbers:
    """Look through all crops of a study, shape (n_cells,); takes minutes for 100,000 cells."""
    from perikarya.data.twins import find_twins, read_facts

    twins = find_twins(opened, read_facts(opened))
    return cluster_numbers(((t.row_a, t.row_b) for t in twins if t.one_cell), len(opened.cells))


class ClusterWork:
    """Finds the clusters of a study in another process, unless its cache has them."""

    def __init__(self, opened: OpenStudy) -> None:
        self._root, self._n_cells = opened.root, len(opened.cells)
        self._path = opened.root / "cache" / f"review-clusters{_CACHE_VERSION}-{opened.data_hash}.npy"
        self._worker = Worker(
            "perikarya.review.clusters",
            doing="The search for near-duplicates",
            fix="open the page again; with little memory, end other programs.",
        )

    def cached(self) -> Numbers | None:
        """Return what was found before, shape (n_cells,); None where nothing was."""
        try:
            numbers = np.load(self._path, allow_pickle=False)
        except FileNotFoundError:
            return None
        except (ValueError, OSError, EOFError) as error:
            log.warning("%s is damaged (%s); near-duplicates are looked for anew", self._path, error)
            return None
        fits = numbers.shape == (self._n_cells,) and numbers.dtype == np.int32
        return numbers if fits else None

    def cancel(self) -> None:
        """End the work at once, and any that is asked for later."""
        self._worker.close()

    def run(self) -> Numbers:
        """Look for near-duplicates and keep them, shape (n_cells,).

        Raises
        ------
        PerikaryaError
            If the study cannot be read any more.
        WorkerError
            If the process died.
        InterruptedWorkError
            If it was cancelled.
        """
        try:
            _, answer = self._worker.ask({"study": str(self._root.resolve())})
        finally:
            self._worker.end()
        numbers = np.frombuffer(answer, "<i4").astype(np.int32)
        self._keep(numbers)
        return numbers

    def _keep(self, numbers: Numbers) -> None:
        try:
            with replacing(self._path) as temporary, temporary.open("wb") as handle:
                np.save(handle, numbers)
        except OSError as error:
            log.warning(
                "near-duplicates cannot be kept in %s (%s); the next session looks for them again", self._path, error
            )


def _give_pages_back(opened: OpenStudy) -> None:
    """Let go of what was read of the crops every second; else all of them end up counting as memory in use."""
    while True:
        time.sleep(1.0)
        opened.give_pages_back()


def _answer(words: Words, _: bytes, __: Progress) -> tuple[Words, bytes]:
    opened = open_study(Path(words["study"]))
    threading.Thread(target=_give_pages_back, args=(opened,), daemon=True).start()
    return {}, clusters_of_study(opened).astype("<i4").tobytes()


if __name__ == "__main__":
    answer_questions(_answer)
