"""Random changes of training cells, and resizing for evaluation: one resampling per cell, the mask with its image.

Flip, rotation, shear, scale, shift, elastic bending and the resize to the network's input are one map, so a cell is
interpolated once. Stains and light are one matrix each, applied where the picture is smaller. The parameters of a cell
are a function of (seed, epoch, row) alone (``draws``). A setting at zero costs nothing.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from perikarya.data.colour import MASK, add_noise, bend_gamma, blur, cover, relight, restain
from perikarya.data.draws import Draws, draw
from perikarya.data.draws import cell_keys as cell_keys  # who augments finds all it needs here
from perikarya.data.warp import shrink, warp
from perikarya.data.windows import CHANNELS
from perikarya.settings import AugmentConfig


class Augmenter:
    """Change training cells at random and bring them to the input size of a network.

    Making one limits OpenCV to one thread in this process: cells are small, and loaders work on many at once.

    Parameters
    ----------
    config
        The ranges.
    out_px
        Side of the result.
    """

    def __init__(self, config: AugmentConfig, *, out_px: int) -> None:
        if out_px < 1:
            raise ValueError(f"out_px must be at least 1, got {out_px}")
        self.config = config
        self.out_px = out_px
        self._has_light = max(config.brightness, config.contrast, config.saturation) > 0
        cv2.setNumThreads(1)

    def batch(self, crops_nhwc: NDArray[np.uint8], keys: NDArray[np.uint64]) -> NDArray[np.uint8]:
        """Augment some cells; safe to call from several threads.

        Parameters
        ----------
        crops_nhwc
            Shape (n_cells, S, S, 4), uint8: red, green, blue, mask.
        keys
            Shape (n_cells,), from ``cell_keys``.

        Returns
        -------
        Shape (n_cells, out_px, out_px, 4), uint8; the mask is 0 or 255.
        """
        _check_crops(crops_nhwc)
        if len(keys) != len(crops_nhwc):
            raise ValueError(f"{len(crops_nhwc)} crops need as many keys, got {len(keys)}")
        draws = draw(self.config, np.asarray(keys, dtype=np.uint64))
        out = np.empty((len(crops_nhwc), self.out_px, self.out_px, CHANNELS), np.uint8)
        for i, crop in enumerate(crops_nhwc):
            self._one(crop, draws, i, out[i])
        return out

    def _one(self, crop: NDArray[np.uint8], draws: Draws, i: int, out: NDArray[np.uint8]) -> None:
        """Augment one cell into ``out``: shrink, colour, warp, blur, noise; put the mask back and cover around it."""
        window_px = crop.shape[0]
        small, factor = shrink(crop, window_px / (self.out_px * float(draws.zoom[i])))
        before = small.shape[0] <= self.out_px  # colour where there are fewer pixels
        if before:
            small = self._colour(small, draws, i)
        extent = window_px / factor
        linear = draws.turn[i] * (extent / (self.out_px * float(draws.zoom[i])))
        bend = None if draws.bend is None else draws.bend[i]
        warp(small, linear, draws.shift[i] * extent, out, extent=extent, bend=bend)
        mask = cv2.extractChannel(out, MASK)
        cv2.threshold(mask, 127, 255, cv2.THRESH_BINARY, dst=mask)
        if not before:
            out[...] = self._colour(out, draws, i)
        if self.config.blur_sigma_px > 0:
            blur(out, float(draws.blur_sigma_px[i]))
        if self.config.noise > 0:
            add_noise(out, float(draws.noise[i]), start=float(draws.noise_start[i]))
        cv2.insertChannel(mask, out, MASK)
        if draws.cover is not None:
            cover(out, draws.cover[i])

    def _colour(self, crop: NDArray[np.uint8], draws: Draws, i: int) -> NDArray[np.uint8]:
        """Change the tissue's stain first, then what a camera does."""
        if draws.stain is not None:
            crop = restain(crop, draws.stain[i])
        if self._has_light:
            crop = relight(crop, draws.light[i], grey_offset=float(draws.grey_offset[i]))
        if self.config.gamma > 0:
            crop = bend_gamma(crop, float(draws.gamma[i]))
        return crop


def resize_batch(crops_nhwc: NDArray[np.uint8], out_px: int) -> NDArray[np.uint8]:
    """Bring cells to the input size of a network, as an ``Augmenter`` that changes nothing does, pixel for pixel.

    Parameters
    ----------
    crops_nhwc
        Shape (n_cells, S, S, 4), uint8: red, green, blue, mask.
    out_px
        Side of the result.

    Returns
    -------
    Shape (n_cells, out_px, out_px, 4), uint8; antialiased where cells get smaller, the mask is 0 or 255.
    """
    _check_crops(crops_nhwc)
    out = np.empty((len(crops_nhwc), out_px, out_px, CHANNELS), np.uint8)
    for crop, target in zip(crops_nhwc, out, strict=True):
        small, factor = shrink(crop, crop.shape[0] / out_px)
        extent = crop.shape[0] / factor
        warp(small, np.eye(2) * (extent / out_px), np.zeros(2), target, extent=extent)
        mask = cv2.extractChannel(target, MASK)
        cv2.insertChannel(cv2.threshold(mask, 127, 255, cv2.THRESH_BINARY)[1], target, MASK)
    return out


def tta_views(x_nhwc: NDArray[np.uint8], n: int) -> tuple[NDArray[np.uint8], ...]:
    """Return the first ``n`` of the eight flips and quarter turns of square cells, as views without a copy.

    The order is: as is, mirrored left-right, mirrored top-bottom, half a turn, then the same four transposed (which
    are the quarter turns and the two diagonal mirrorings).

    Raises
    ------
    ValueError
        If ``n`` is not between 1 and 8.
    """
    if not 1 <= n <= 8:
        raise ValueError(f"there are 8 flips and quarter turns of a square; n must be 1 to 8, got {n}")
    transposed = x_nhwc.transpose(0, 2, 1, 3)
    flips = [(slice(None), slice(None, None, sy), slice(None, None, sx)) for sy in (1, -1) for sx in (1, -1)]
    return tuple(base[where] for base in (x_nhwc, transposed) for where in flips)[:n]


def _check_crops(crops_nhwc: NDArray[np.uint8]) -> None:
    shape = crops_nhwc.shape
    if crops_nhwc.dtype != np.uint8 or len(shape) != 4 or shape[1] != shape[2] or shape[3] != CHANNELS:
        raise ValueError(f"expected uint8 crops of shape (n, S, S, {CHANNELS}), got {crops_nhwc.dtype} {shape}")
