"""Columns that take longer than opening a page may: the order of review and the clusters of near-duplicates.

Both are offered at once, as far as they are known, and mended in the background.
"""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from perikarya.data.phash import parse_phashes
from perikarya.errors import DataError, InterruptedWorkError, PerikaryaError
from perikarya.review.clusters import ALONE, ClusterWork, clusters_of_run
from perikarya.review.columns import Column, NumberColumn
from perikarya.review.components import principal_components
from perikarya.review.features import CachedFeatures
from perikarya.review.sources import Source
from perikarya.review.worth import N_SPREAD, by_worth, queue_order, worth_by_chance, worth_of

if TYPE_CHECKING:
    from perikarya.review.opinions import Opinion

log = logging.getLogger(__name__)

Floats32 = NDArray[np.float32]


class LaterColumns:
    """The columns ``queue`` and ``cluster``; ``start`` begins what takes longer.

    Parameters
    ----------
    source
        The study, and the run whose check of it has found near-duplicates already; without one they are looked for.
    opinion
        What the order of review goes by; None: without a model.
    features
        What tells how alike cells are; None: the descriptors of their pictures.
    cell_ids
        Identities of the cells.
    """

    def __init__(
        self,
        source: Source,
        opinion: Opinion | None,
        features: CachedFeatures | None,
        cell_ids: pd.Index,
    ) -> None:
        self._opened, self._features = source.opened, features
        labels = source.opened.labels
        self._worth = worth_by_chance(labels) if opinion is None else worth_of(opinion.prob_nk, labels)
        self._by = "chance" if opinion is None else "disagreement and doubt"
        self._work = ClusterWork(source.opened)
        run = source.checked
        self.cluster = clusters_of_run(run, cell_ids) if run and run.check.is_file() else self._work.cached()
        self._queue = self._ranked(by_worth(self._worth), f"review queue (by {self._by})")
        self._started, self._search = False, "not looked for"

    def columns(self) -> list[Column]:
        """Return the columns as far as they are known."""
        found = self.cluster
        numbers = np.full(len(self._worth), np.nan) if found is None else np.where(found == ALONE, np.nan, found)
        mark = f" ({self._search})" if found is None else ""
        return [self._queue, NumberColumn("cluster", f"near-duplicates{mark}", numbers.astype(np.float32))]

    def start(self) -> None:
        """Begin in the background with what is not there yet."""
        if not self._started:
            self._started, self._search = True, "being looked for"
            threading.Thread(target=self._do, name="review-columns", daemon=True).start()

    def close(self) -> None:
        """End the work; what is not finished is not kept."""
        self._work.cancel()

    def _do(self) -> None:
        try:
            self.spread_queue()
            if self.cluster is None:
                self.cluster = self._work.run()
        except InterruptedWorkError as error:
            log.info("%s", error)
        except Exception as error:  # a thread has nobody above it
            self._search = "the search failed"
            log.warning("%s", error, exc_info=not isinstance(error, PerikaryaError))

    def spread_queue(self) -> None:
        """Put unlike cells at the head of the queue; takes seconds."""
        try:
            points, words = self._points(by_worth(self._worth)[:N_SPREAD])
        except DataError as error:
            log.warning("The review queue is not spread over unlike cells: %s", error)
            return
        order = queue_order(self._worth, points)
        self._queue = self._ranked(order, f"review queue (by {self._by}, unlike {words} first)")

    def _points(self, rows: NDArray[np.int64]) -> tuple[Floats32, str]:
        """Return what likeness is measured in, shape (len(rows), n_dimensions), and what has to be unlike."""
        if self._features is None:
            return parse_phashes(self._opened.cells["crop_phash"].iloc[rows].tolist()).astype(np.float32), "pictures"
        in_order = np.sort(rows)  # the map from disk is read once through
        found = principal_components(self._features.values[in_order], progress=lambda _share: None)
        found /= np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-12)
        return found[np.searchsorted(in_order, rows)], "cells"

    def _ranked(self, order: NDArray[np.int64], title: str) -> NumberColumn:
        rank = np.empty(len(order), np.float32)
        rank[order] = np.arange(1, len(order) + 1)
        return NumberColumn("queue", title, np.where(np.isnan(self._worth), np.nan, rank).astype(np.float32))
