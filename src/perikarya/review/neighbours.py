"""Cells that look like one cell: its neighbours by the angle between their components."""

from __future__ import annotations

import numpy as np

from perikarya.review.components import Floats32
from perikarya.review.embedding import Maps
from perikarya.review.nearest import nearest_to, unit_vectors


class Neighbours:
    """Finds the cells nearest to one, exactly: 100,000 cells are compared in a few milliseconds.

    Parameters
    ----------
    maps
        Gives the components, once they are there. Where they come from pixels instead of features, no cell has
        neighbours: pixels tell how cells lie, not what they are.
    """

    def __init__(self, maps: Maps) -> None:
        self._maps = maps
        self._unit_nk: Floats32 | None = None

    def of(self, row: int, n: int = 12) -> list[tuple[int, float]]:
        """Return the nearest other cells as (row, distance), nearest first; empty while components are not there.

        The distance is 1 - cosine similarity, 0 to 2.
        """
        unit_nk = self._units()
        if unit_nk is None:
            return []
        rows, distances = nearest_to(unit_nk, np.array([row]), min(n, len(unit_nk) - 1))
        return list(zip(rows[0].tolist(), distances[0].tolist(), strict=True))

    def note(self) -> str:
        """Say why cells have no neighbours yet, or never will have; "" once they have."""
        if not self._maps.has_features:
            return "There are no features of these cells to find any by. A run with strategy 'head' leaves some."
        state = self._maps.state("pca")
        match state["status"]:
            case "ready":
                return ""
            case "working":
                return f"They are being prepared: {state['progress']:.0%}."
            case "failed":
                return f"They could not be prepared. {state['message']}"
            case _:
                return "Open the map once: it computes the features that they are found by."

    def _units(self) -> Floats32 | None:
        if self._unit_nk is None and self._maps.has_features:
            components_nk = self._maps.components()
            self._unit_nk = None if components_nk is None else unit_vectors(components_nk)
        return self._unit_nk
