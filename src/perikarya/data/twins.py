"""Read every crop of a study once: copies of one picture, and what the masks look like."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from perikarya.data.phash import near_pairs
from perikarya.data.store import OpenStudy

_ROWS = 256  # crops in memory at once
_SAME_OUTLINE = 0.3  # overlap (intersection over union) from which two outlines in one picture mean one cell


@dataclass(frozen=True)
class CropFacts:
    """What the pixels of all crops say; arrays of shape (n_cells,).

    ``pixels`` are hashes of RGB; ``area_px`` counts the mask inside the window, ``n_parts`` its connected parts,
    ``at_border`` tells whether it touches the window's edge.
    """

    pixels: tuple[bytes, ...]
    area_px: NDArray[np.int64]
    n_parts: NDArray[np.int64]
    at_border: NDArray[np.bool_]


@dataclass(frozen=True)
class Twin:
    """Two rows that show the same picture: ``similarity`` 1 and ``exact`` when all pixels are equal.

    ``one_cell`` is False where two outlines in the same picture hardly overlap: two cells, one picture.
    """

    row_a: int
    row_b: int
    similarity: float
    exact: bool
    one_cell: bool = True


def read_facts(opened: OpenStudy) -> CropFacts:
    """Read all crops once, in blocks."""
    n = len(opened.cells)
    pixels: list[bytes] = []
    area, parts = np.zeros(n, np.int64), np.zeros(n, np.int64)
    border = np.zeros(n, np.bool_)
    for start in range(0, n, _ROWS):
        rows = np.arange(start, min(start + _ROWS, n))
        for row, crop in zip(rows.tolist(), opened.read_crops(rows), strict=True):
            mask = np.ascontiguousarray(crop[..., 3] > 0).view(np.uint8)
            pixels.append(hashlib.sha256(np.ascontiguousarray(crop[..., :3]).data).digest())
            area[row] = int(mask.sum())
            parts[row] = cv2.connectedComponents(mask, connectivity=8)[0] - 1
            border[row] = bool(mask[0].any() or mask[-1].any() or mask[:, 0].any() or mask[:, -1].any())
    return CropFacts(tuple(pixels), area, parts, border)


def find_twins(opened: OpenStudy, facts: CropFacts) -> list[Twin]:
    """Find all rows that show the same picture, exactly or nearly.

    Of many exact copies each is paired with the first, so that a thousand copies give a thousand pairs, not half a
    million.
    """
    rows_of: dict[bytes, list[int]] = defaultdict(list)
    for row, pixels in enumerate(facts.pixels):
        rows_of[pixels].append(row)
    firsts = np.array([rows[0] for rows in rows_of.values()], np.int64)
    near = near_pairs(opened.crops, opened.cells["crop_phash"].tolist(), rows=firsts)
    twins = [Twin(pair.row_a, pair.row_b, pair.similarity, exact=False) for pair in near]
    for first, *others in rows_of.values():
        twins += [Twin(first, row, 1.0, exact=True, one_cell=_same_outline(opened, first, row)) for row in others]
    return sorted(twins, key=lambda twin: (twin.row_a, twin.row_b))


def _same_outline(opened: OpenStudy, row_a: int, row_b: int) -> bool:
    mask_a, mask_b = opened.crops[row_a, ..., 3] > 0, opened.crops[row_b, ..., 3] > 0
    union, shared = np.count_nonzero(mask_a | mask_b), np.count_nonzero(mask_a & mask_b)
    return bool(shared >= _SAME_OUTLINE * union)
