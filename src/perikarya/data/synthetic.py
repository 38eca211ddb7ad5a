"""Synthetic training cells: made of training rows only, as features or as crops, never with an identity.

They have no ``cell_id`` and no row in the cells table, so nothing can predict, score or export them.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import psutil
from numpy.typing import NDArray

from perikarya.data.augment import resize_batch
from perikarya.data.colour import MASK
from perikarya.data.resampling import RESAMPLERS, Rows, training_codes
from perikarya.data.smote import Recipe, Synthetic, apply_recipe
from perikarya.data.store import OpenStudy
from perikarya.data.windows import CHANNELS
from perikarya.errors import ConfigError, DataError
from perikarya.schema import label_codes
from perikarya.settings import ResampleConfig

log = logging.getLogger(__name__)

_BLOCK = 1024  # crops read and shrunk at once
_SMALLEST_PX = 16  # that resample.px may be
_CONSTANT = 1e-6  # a standard deviation below it is rounding
_MEMORY_SHARE = 0.5  # of what is available
# Bytes at the peak for each number of a real and of a synthetic cell. imbalanced-learn copies and stacks the float32
# cells, the support vector machine wants float64; measured for all methods: 12 to 25 and 2 to 12.
_BYTES_REAL, _BYTES_NEW = 26, 12


@dataclass(frozen=True)
class SyntheticFeatures:
    """Training cells after resampling among features.

    ``kept`` has shape (n_kept,) and holds rows of the study, in order; ``features_new`` (n_new, n_features), float32,
    in the units of the real ones; ``labels_new`` (n_new,), codes.
    """

    kept: Rows
    features_new: NDArray[np.float32]
    labels_new: NDArray[np.int64]


def synthesise_features(
    features: NDArray[np.float16],
    labels_n: NDArray[np.int64],
    rows: Rows,
    *,
    class_names: Sequence[str],
    config: ResampleConfig,
    seed: int,
) -> SyntheticFeatures:
    """Invent training cells among the frozen features of the real ones.

    Features are standardised by the training cells while distances are measured, for some spread a thousand times
    wider than others.

    Parameters
    ----------
    features
        Shape (n_cells, n_features), float16, of all cells of the study; only ``rows`` are read.
    labels_n
        Shape (n_cells,), the codes of all cells of the study.
    rows
        Shape (n_train,), the training rows, each once, in any order.
    class_names
        For messages.
    config
        A method that invents nothing gives back all rows and no cell.
    seed
        Decides the cells.

    Raises
    ------
    DataError
        If there is no row, one has no label, a rare class has a single cell, or cleaning leaves a class without any.
    """
    rows = np.sort(np.asarray(rows, dtype=np.int64))
    codes = training_codes(labels_n, rows)
    recipe = RESAMPLERS.get(config.method).recipe
    if recipe is None:
        return SyntheticFeatures(rows, np.empty((0, features.shape[1]), np.float32), np.empty(0, np.int64))
    x_nd = np.asarray(features[rows], np.float32)
    mean = x_nd.mean(axis=0, dtype=np.float64).astype(np.float32)
    x_nd -= mean
    scale = np.sqrt(np.einsum("nd,nd->d", x_nd, x_nd) / len(x_nd))
    scale[scale < _CONSTANT] = 1.0
    x_nd /= scale
    made = _synthesise(recipe, x_nd, codes, class_names=class_names, config=config, seed=seed)
    return SyntheticFeatures(rows[made.kept], made.x_new * scale + mean, made.y_new)


@dataclass(frozen=True)
class SyntheticCrops:
    """Training cells after resampling in pixels.

    ``kept`` has shape (n_kept,) and holds rows of the study, in order; ``crops_new`` (n_new, window_px, window_px, 4),
    uint8, the mask 0 or 255; ``labels_new`` (n_new,), codes.
    """

    kept: Rows
    crops_new: NDArray[np.uint8]
    labels_new: NDArray[np.int64]


def synthesise_crops(opened: OpenStudy, rows: Rows, *, config: ResampleConfig, seed: int) -> SyntheticCrops:
    """Invent crops of training cells, pixel by pixel, as the published study did.

    A crop is a row of numbers, shrunk to ``config.px`` where that is given. Colours of two cells are blended and
    rounded. The mask is blended too and cut at half: where two cells are blended it is therefore the outline of the
    nearer one, never something in between. A smaller ``config.px`` leaves synthetic cells softer than the real ones
    beside them, which a network can learn instead of the class: use it only where memory asks for it.

    Parameters
    ----------
    opened
        The study.
    rows
        Shape (n_train,), the training rows, each once, in any order.
    config
        A method that invents nothing gives back all rows and no cell.
    seed
        Decides the cells.

    Raises
    ------
    ConfigError
        If ``resample.px`` is larger than the window.
    DataError
        As ``synthesise_features``, or if the cells do not fit into half of the available memory.
    """
    window_px = opened.study.window_px
    rows = np.sort(np.asarray(rows, dtype=np.int64))
    codes = training_codes(opened.labels, rows)
    recipe = RESAMPLERS.get(config.method).recipe
    if recipe is None:
        return SyntheticCrops(rows, np.empty((0, window_px, window_px, CHANNELS), np.uint8), np.empty(0, np.int64))
    side = _blended_px(config, window_px)
    _refuse_too_large(codes, side=side, window_px=window_px)
    x_nd = _flat_crops(opened, rows, side)
    made = _synthesise(recipe, x_nd, codes, class_names=opened.study.class_names, config=config, seed=seed)
    return SyntheticCrops(rows[made.kept], _as_crops(made.x_new, side, window_px), made.y_new)


def _blended_px(config: ResampleConfig, window_px: int) -> int:
    if config.px is not None and config.px > window_px:
        raise ConfigError(
            f"resample.px is {config.px} but the study's windows have {window_px} px.\n"
            "Enlarged crops cost memory and hold nothing more. Fix: leave resample.px out, or choose a smaller one."
        )
    return config.px or window_px


def _refuse_too_large(codes: NDArray[np.int64], *, side: int, window_px: int) -> None:
    counts = np.unique(codes, return_counts=True)[1]
    n_real, n_new = len(codes), int((counts.max() - counts).sum())
    for_blending = CHANNELS * (_BYTES_REAL * n_real + _BYTES_NEW * n_new)  # per pixel
    for_crops = CHANNELS * n_new * window_px**2
    needed = for_blending * side**2 + for_crops
    usable = int(_MEMORY_SHARE * psutil.virtual_memory().available)
    if needed <= usable:
        return
    fitting_px = math.isqrt(max(0, usable - for_crops) // for_blending)
    smaller = f"set resample.px to {fitting_px} or less, or " if fitting_px >= _SMALLEST_PX else ""
    raise DataError(
        f"SMOTE in the pixels of {n_real} training cells, with {n_new} synthetic ones at {side} x {side} px, needs "
        f"about {needed / 2**30:.2g} GiB; half of the available memory is {usable / 2**30:.2g} GiB.\n"
        "Beyond that, training would be slowed by swapping, or killed.\n"
        f"Fix: {smaller}use resample.space features with strategy head, or resample.method weighted."
    )


def _flat_crops(opened: OpenStudy, rows: Rows, side: int) -> NDArray[np.float32]:
    x_nd = np.empty((len(rows), side * side * CHANNELS), np.float32)
    for start in range(0, len(rows), _BLOCK):
        crops = resize_batch(opened.read_crops(rows[start : start + _BLOCK]), side)
        x_nd[start : start + len(crops)] = crops.reshape(len(crops), -1)
    return x_nd


def _as_crops(x_nd: NDArray[np.float32], side: int, window_px: int) -> NDArray[np.uint8]:
    """Round to grey levels, cut the mask at half and go back to the window's size; consumes ``x_nd``."""
    np.clip(np.rint(x_nd, out=x_nd), 0, 255, out=x_nd)  # SVM-SMOTE also goes beyond the real cells
    crops = x_nd.astype(np.uint8).reshape(-1, side, side, CHANNELS)
    crops[..., MASK] = np.where(crops[..., MASK] > 127, 255, 0)
    return crops if side == window_px else resize_batch(crops, window_px)


@dataclass(frozen=True)
class WithSynthetic(OpenStudy):
    """A study and synthetic training cells after its last row, for all that reads crops and labels by row.

    Rows ``len(cells)``, ``len(cells) + 1``, … are the synthetic cells, in ``labels`` and for ``read_crops``. The table
    ``cells`` does not know them: asking it for the identity of a synthetic cell is an error.
    """

    crops_new: NDArray[np.uint8]
    labels_new: NDArray[np.int64]

    @cached_property
    def labels(self) -> NDArray[np.int64]:
        """Codes of the labels of real, then of synthetic cells, shape (n_cells + n_new,)."""
        return np.concatenate([label_codes(self.cells["label"], self.study.class_names), self.labels_new])

    def read_crops(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Copy some crops, real or synthetic, shape (len(rows), window_px, window_px, 4)."""
        is_new = rows >= len(self.cells)
        out = np.empty((len(rows), *self.crops.shape[1:]), np.uint8)
        out[~is_new] = super().read_crops(rows[~is_new])
        out[is_new] = self.crops_new[rows[is_new] - len(self.cells)]
        return out


def with_synthetic(opened: OpenStudy, rows: Rows, *, config: ResampleConfig, seed: int) -> tuple[OpenStudy, Rows]:
    """Return what a network is trained on: the study with synthetic crops after its rows, and the rows to train on.

    A method that invents nothing gives back the study and the rows as they are. Parameters and errors are those of
    ``synthesise_crops``.
    """
    if RESAMPLERS.get(config.method).recipe is None:
        return opened, rows
    made = synthesise_crops(opened, rows, config=config, seed=seed)
    extended = WithSynthetic(
        opened.root, opened.study, opened.cells, opened.crops, crops_new=made.crops_new, labels_new=made.labels_new
    )
    n_cells = len(opened.cells)
    new_rows = np.arange(n_cells, n_cells + len(made.labels_new), dtype=np.int64)
    return extended, np.concatenate([made.kept, new_rows])


def _synthesise(
    recipe: Recipe,
    x_nd: NDArray[np.float32],
    y_n: NDArray[np.int64],
    *,
    class_names: Sequence[str],
    config: ResampleConfig,
    seed: int,
) -> Synthetic:
    """Apply a recipe to training cells in the order of their rows, and log what came of it."""
    made = apply_recipe(recipe, x_nd, y_n, neighbours=config.neighbours, seed=seed, class_names=class_names)
    codes, counts = np.unique(made.y_new, return_counts=True)
    new = [f"{n} of {class_names[code]}" for code, n in zip(codes.tolist(), counts.tolist(), strict=True)]
    n_left_out = len(y_n) - len(made.kept)
    log.info("%s: new cells: %s; %d real cells left out", config.method, ", ".join(new) or "none", n_left_out)
    return made
