"""What is alike about cells, in 32 numbers each: the first principal components of features or of small pictures.

Features stay on disk: they are read in blocks, so memory does not grow with the number of cells.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable
from typing import Any, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from perikarya.data.store import OpenStudy

N_COMPONENTS = 32
SMALL_PX = 16  # side of the pictures that stand in for features
_MAX_FITTED = 20_000  # cells that decide the directions; more would change them little and cost minutes
_BLOCK = 4_096  # rows; of 2,560 features 42 MB as float32
_SPARE = 16  # further directions carried along, which makes the last of the 32 converge
_ROUNDS = 8
_SEED = 0

Floats32: TypeAlias = NDArray[np.float32]
Progress: TypeAlias = Callable[[float], None]  # share done, 0..1; may raise to stop the work


def principal_components(features_nd: NDArray[Any], *, progress: Progress) -> Floats32:
    """Project cells onto the directions in which they differ most.

    Directions come from subspace iteration on the covariance (Halko, Martinsson & Tropp 2011,
    doi:10.1137/090771806, section 4.5), which never forms it, over at most 20,000 cells drawn with a fixed seed; then
    all cells are projected. The same features give the same components.

    Parameters
    ----------
    features_nd
        Shape (n_cells, n_features), any number type; may be mapped from disk.
    progress
        Called with the share that is done.

    Returns
    -------
    Shape (n_cells, 32), float32, of falling variance; columns beyond the rank are 0. The sign of each is chosen so
    that its largest weight is positive.
    """
    n_cells, n_features = features_nd.shape
    rng = np.random.default_rng(_SEED)
    rows = np.arange(n_cells)
    if n_cells > _MAX_FITTED:
        rows = np.sort(rng.choice(n_cells, _MAX_FITTED, replace=False))
    steps = _Steps(progress, n_rows=len(rows) * (_ROUNDS + 1) + n_cells)
    mean_d = _mean(features_nd, rows, steps)
    width = min(N_COMPONENTS + _SPARE, n_features)
    directions_dk = np.linalg.qr(rng.standard_normal((n_features, width)))[0].astype(np.float32)
    for i in range(_ROUNDS):
        product_dk = _covariance_times(features_nd, rows, mean_d, directions_dk, steps)
        if i < _ROUNDS - 1:
            directions_dk = np.linalg.qr(product_dk)[0].astype(np.float32)
    directions_dk = _rotated(directions_dk, product_dk)[:, :N_COMPONENTS]
    found_nk = np.zeros((n_cells, N_COMPONENTS), np.float32)
    for start in range(0, n_cells, _BLOCK):
        part = slice(start, start + _BLOCK)
        found_nk[part, : directions_dk.shape[1]] = (_block(features_nd, part) - mean_d) @ directions_dk
        steps.did(len(found_nk[part]))
    return found_nk


def small_pictures(opened: OpenStudy, *, progress: Progress) -> NDArray[np.uint8]:
    """Shrink every cell to a grey picture and its mask, shape (n_cells, 2 * 16 * 16), uint8."""
    n_cells = len(opened.cells)
    small = np.empty((n_cells, 2, SMALL_PX, SMALL_PX), np.uint8)
    for start in range(0, n_cells, 512):
        rows = np.arange(start, min(start + 512, n_cells))
        for row, crop in zip(rows, opened.read_crops(rows), strict=True):
            grey_hw = cv2.cvtColor(np.ascontiguousarray(crop[..., :3]), cv2.COLOR_RGB2GRAY)
            for channel, pixels_hw in enumerate((grey_hw, np.ascontiguousarray(crop[..., 3]))):
                small[row, channel] = cv2.resize(pixels_hw, (SMALL_PX, SMALL_PX), interpolation=cv2.INTER_AREA)
        progress(float(rows[-1] + 1) / n_cells)
    return small.reshape(n_cells, -1)


class _Steps:
    """Turns rows that were read into a share."""

    def __init__(self, progress: Progress, *, n_rows: int) -> None:
        self._progress, self._n_rows, self._done = progress, n_rows, 0

    def did(self, n_rows: int) -> None:
        self._done += n_rows
        self._progress(self._done / self._n_rows)


def _block(features_nd: NDArray[Any], rows: NDArray[np.int64] | slice) -> Floats32:
    """Read some rows and give the pages of the map back, else a pass over it counts as this process's memory."""
    block_nd = np.array(features_nd[rows], np.float32)
    mapped = getattr(features_nd, "_mmap", None)
    if mapped is not None:
        mapped.madvise(mmap.MADV_DONTNEED)
    return block_nd


def _mean(features_nd: NDArray[Any], rows: NDArray[np.int64], steps: _Steps) -> Floats32:
    total_d = np.zeros(features_nd.shape[1])
    for start in range(0, len(rows), _BLOCK):
        part = rows[start : start + _BLOCK]
        total_d += _block(features_nd, part).sum(axis=0, dtype=np.float64)
        steps.did(len(part))
    return (total_d / max(len(rows), 1)).astype(np.float32)


def _covariance_times(
    features_nd: NDArray[Any], rows: NDArray[np.int64], mean_d: Floats32, directions_dk: Floats32, steps: _Steps
) -> NDArray[np.float64]:
    product_dk = np.zeros(directions_dk.shape)
    for start in range(0, len(rows), _BLOCK):
        part = rows[start : start + _BLOCK]
        centred_nd = _block(features_nd, part) - mean_d
        product_dk += centred_nd.T @ (centred_nd @ directions_dk)
        steps.did(len(part))
    return product_dk / max(len(rows) - 1, 1)


def _rotated(directions_dk: Floats32, product_dk: NDArray[np.float64]) -> Floats32:
    """Turn directions within their subspace to the principal ones, of falling variance."""
    small_kk = directions_dk.T @ product_dk
    _, turn_kk = np.linalg.eigh((small_kk + small_kk.T) / 2)
    turned_dk = directions_dk @ turn_kk[:, ::-1]
    largest = np.abs(turned_dk).argmax(axis=0)
    sign_k = np.where(turned_dk[largest, np.arange(turned_dk.shape[1])] < 0, -1, 1)
    return np.asarray(turned_dk * sign_k, np.float32)
