"""Random changes of training cells, and resizing for evaluation: one resampling per cell, the mask with its image.

Flip, rotation, scale, shift and the resize to the network's input are one affine map, so a cell is interpolated once.
Colour is one matrix on the three channels, applied where the picture is smaller. The parameters of a cell are a
function of (seed, epoch, row) alone: batching, workers and the point of resuming change nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray

from perikarya.config import AugmentConfig
from perikarya.data.store import CHANNELS

MASK = 3  # the channel of the mask
_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, red, green, blue
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_NOISE_SD = 32  # of the stored noise, in grey levels: its uint8 range is 4 standard deviations
_NOISE_PX = 1 << 17  # stored pixels of noise; each cell starts elsewhere in them
_NO_BLUR = 1.0 + 1e-6


def cell_keys(rows: NDArray[np.int64], *, seed: int, epoch: int) -> NDArray[np.uint64]:
    """Return one key per cell from which all its random numbers follow, shape (n_cells,).

    Keys are SplitMix64 hashes (Steele, Lea & Flood 2014) of seed, epoch, row, and of how often the row came before in
    ``rows``: a cell that is shown twice in an epoch looks different each time.
    """
    rows = np.asarray(rows, dtype=np.int64)
    with np.errstate(over="ignore"):
        state = _mix(np.array([seed % 2**64], dtype=np.uint64) + _GOLDEN)
        state = _mix(state + np.uint64(epoch % 2**64) * _GOLDEN)
        state = _mix(state + rows.astype(np.uint64) * _GOLDEN)
        return _mix(state + _times_before(rows).astype(np.uint64) * _GOLDEN)


def _times_before(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Count for each element how often it occurs earlier in the array."""
    order = np.argsort(rows, kind="stable")
    position = np.arange(len(rows))
    is_first = np.diff(rows[order], prepend=rows[order][:1] - 1) != 0
    times = np.empty(len(rows), dtype=np.int64)
    times[order] = position - np.maximum.accumulate(np.where(is_first, position, 0))
    return times


def _mix(z: NDArray[np.uint64]) -> NDArray[np.uint64]:
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def _uniforms(keys: NDArray[np.uint64], n_draws: int) -> NDArray[np.float64]:
    """Draw from [0, 1), shape (n_draws, n_cells), each number a hash of its key and position."""
    with np.errstate(over="ignore"):
        state = keys[None, :] + np.arange(1, n_draws + 1, dtype=np.uint64)[:, None] * _GOLDEN
        return (_mix(state) >> np.uint64(11)).astype(np.float64) * 2.0**-53


@dataclass(frozen=True)
class _Draws:
    """The parameters of a batch; every array has shape (n_cells, ...)."""

    turn: NDArray[np.float64]  # (n, 2, 2): from the directions of the result to those of the window, without scale
    zoom: NDArray[np.float64]  # above 1: the cell gets larger
    shift: NDArray[np.float64]  # (n, 2): x and y, share of the window
    colour: NDArray[np.float32]  # (n, 4, 5): the matrix of cv2.transform, its offsets still empty
    grey_offset: NDArray[np.float64]  # what contrast adds, as a share of the crop's mean luma
    gamma: NDArray[np.float64]
    blur_sigma_px: NDArray[np.float64]
    noise: NDArray[np.float64]
    noise_start: NDArray[np.int64]


def _draw(config: AugmentConfig, keys: NDArray[np.uint64]) -> _Draws:
    # a new draw goes to the end of this line: the others keep their numbers
    flip_x, flip_y, angle, zoom, dx, dy, light, contrast, saturation, gamma, blur, noise, start = _uniforms(keys, 13)
    sign_x, sign_y = (np.where((u < 0.5) & config.flip, -1.0, 1.0) for u in (flip_x, flip_y))
    radians = np.deg2rad((2 * angle - 1) * config.rotate_deg)
    cos, sin = np.cos(radians), np.sin(radians)
    turn = np.stack([cos * sign_x, -sin * sign_y, sin * sign_x, cos * sign_y], axis=1).reshape(-1, 2, 2)
    brightness = 1 + (2 * light - 1) * config.brightness
    contrast = 1 + (2 * contrast - 1) * config.contrast
    saturation = 1 + (2 * saturation - 1) * config.saturation
    return _Draws(
        turn=turn,
        zoom=(1 + config.scale) ** (2 * zoom - 1),
        shift=np.stack([2 * dx - 1, 2 * dy - 1], axis=1) * config.translate,
        colour=_colour_matrices(brightness * contrast, saturation),
        grey_offset=(1 - contrast) * brightness,
        gamma=(1 + config.gamma) ** (2 * gamma - 1),
        blur_sigma_px=blur * config.blur_sigma_px,
        noise=noise * config.noise,
        noise_start=(start * _NOISE_PX).astype(np.int64),
    )


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
        self._has_colour = max(config.brightness, config.contrast, config.saturation) > 0
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
        draws = _draw(self.config, np.asarray(keys, dtype=np.uint64))
        out = np.empty((len(crops_nhwc), self.out_px, self.out_px, CHANNELS), np.uint8)
        for i, crop in enumerate(crops_nhwc):
            self._one(crop, draws, i, out[i])
        return out

    def _one(self, crop: NDArray[np.uint8], draws: _Draws, i: int, out: NDArray[np.uint8]) -> None:
        """Augment one cell into ``out``: shrink, colour, warp, blur, noise; the mask is put back last."""
        window_px = crop.shape[0]
        small, factor = _shrink(crop, window_px / (self.out_px * float(draws.zoom[i])))
        before = small.shape[0] <= self.out_px  # colour where there are fewer pixels
        if before:
            small = self._colour(small, draws, i)
        extent = window_px / factor
        linear = draws.turn[i] * (extent / (self.out_px * float(draws.zoom[i])))
        _warp(small, linear, draws.shift[i] * extent, out, extent=extent)
        mask = cv2.extractChannel(out, MASK)
        cv2.threshold(mask, 127, 255, cv2.THRESH_BINARY, dst=mask)
        if not before:
            out[...] = self._colour(out, draws, i)
        if self.config.blur_sigma_px > 0:
            _blur(out, float(draws.blur_sigma_px[i]))
        if self.config.noise > 0:
            _add_noise(out, float(draws.noise[i]), int(draws.noise_start[i]))
        cv2.insertChannel(mask, out, MASK)

    def _colour(self, crop: NDArray[np.uint8], draws: _Draws, i: int) -> NDArray[np.uint8]:
        if self._has_colour:
            red, green, blue, _ = cv2.mean(crop)
            mean_luma = red * _LUMA[0] + green * _LUMA[1] + blue * _LUMA[2]
            matrix = draws.colour[i]
            matrix[:MASK, CHANNELS] = draws.grey_offset[i] * mean_luma
            crop = cv2.transform(crop, matrix)
        if self.config.gamma > 0:
            crop = cv2.LUT(crop, _gamma_table(float(draws.gamma[i])))
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
        small, factor = _shrink(crop, crop.shape[0] / out_px)
        extent = crop.shape[0] / factor
        _warp(small, np.eye(2) * (extent / out_px), np.zeros(2), target, extent=extent)
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


def _shrink(crop: NDArray[np.uint8], ratio: float) -> tuple[NDArray[np.uint8], int]:
    """Remove detail that ``ratio`` source pixels per result pixel cannot carry; return the crop and its whole factor.

    The whole part of the ratio is averaged away in blocks (exact, and fast). For the rest r in [1, 2) the 3 x 3
    kernel (a, 1 - 2a, a) precedes the bilinear interpolation, with a = (r - 1)(3 - r) / 4: nothing at r = 1, the
    binomial kernel (which removes the finest pattern altogether) at r = 2. Without it, a pattern finer than the
    result's pixels would come out as a coarse one that is not in the picture.
    """
    factor = max(1, min(int(ratio + 1e-9), crop.shape[0]))
    if factor > 1:
        extra = -crop.shape[0] % factor
        if extra:
            crop = _pad(crop, (0, extra, 0, extra))
        side = crop.shape[0] // factor
        crop = cv2.resize(crop, (side, side), interpolation=cv2.INTER_AREA)
    rest = ratio / factor
    if rest > _NO_BLUR:
        weight = (min(rest, 2.0) - 1) * (3 - min(rest, 2.0)) / 4
        sigma = math.sqrt(-0.5 / math.log(weight / (1 - 2 * weight))) if weight < 0.25 else 0.8493  # 1 / sqrt(2 ln 2)
        crop = cv2.GaussianBlur(crop, (3, 3), sigma, borderType=cv2.BORDER_REFLECT)
    return crop, factor


def _warp(
    small: NDArray[np.uint8],
    linear: NDArray[np.float64],
    shift_px: NDArray[np.float64],
    out: NDArray[np.uint8],
    *,
    extent: float,
) -> None:
    """Resample ``small`` into ``out``; ``linear`` maps steps in the result to steps in ``small``.

    ``extent`` is the side of the window in pixels of ``small``, which may hold a part of a pixel more. The picture is
    continued by reflection and the mask by zeros: padding first and warping all channels at once is three times
    faster than warping picture and mask each with its own border.
    """
    (a, b), (c, d) = linear.tolist()
    dx, dy = shift_px.tolist()
    side, out_px = small.shape[0], out.shape[0]
    if b == c == dx == dy == 0 and a == d and extent == side and abs(a * out_px - side) < 1e-9:
        _resize(small, out)
        return
    half = (out_px - 1) / 2
    centre_x, centre_y = (extent - 1) / 2 - dx, (extent - 1) / 2 - dy
    reach_x, reach_y = (abs(a) + abs(b)) * half, (abs(c) + abs(d)) * half
    beyond = max(
        reach_x - centre_x, reach_x + centre_x - (side - 1), reach_y - centre_y, reach_y + centre_y - (side - 1)
    )
    pad = max(0, math.ceil(beyond)) + 1
    matrix = np.array(
        [
            [a, b, centre_x + pad - (a + b) * half],
            [c, d, centre_y + pad - (c + d) * half],
        ]
    )
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    cv2.warpAffine(_pad(small, (pad, pad, pad, pad)), matrix, (out_px, out_px), dst=out, flags=flags)


def _resize(small: NDArray[np.uint8], out: NDArray[np.uint8]) -> None:
    if small.shape == out.shape:
        out[...] = small
    else:
        cv2.resize(small, (out.shape[1], out.shape[0]), dst=out, interpolation=cv2.INTER_LINEAR)


def _pad(crop: NDArray[np.uint8], widths: tuple[int, int, int, int]) -> NDArray[np.uint8]:
    """Continue the picture by reflection and the mask by zeros: top, bottom, left, right."""
    padded = cv2.copyMakeBorder(crop, *widths, cv2.BORDER_REFLECT)
    top, _, left, _ = widths
    height, width = crop.shape[:2]
    padded[:top, :, MASK] = 0
    padded[top + height :, :, MASK] = 0
    padded[top : top + height, :left, MASK] = 0
    padded[top : top + height, left + width :, MASK] = 0
    return np.asarray(padded, np.uint8)


def _colour_matrices(gain: NDArray[np.float64], saturation: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return matrices that scale light and contrast by ``gain`` and the distance from grey by ``saturation``."""
    matrices = np.zeros((len(gain), CHANNELS, CHANNELS + 1), np.float32)
    to_grey = np.tile(_LUMA, (3, 1))
    matrices[:, :MASK, :MASK] = gain[:, None, None] * (to_grey + saturation[:, None, None] * (np.eye(3) - to_grey))
    matrices[:, MASK, MASK] = 1
    return matrices


def _gamma_table(gamma: float) -> NDArray[np.uint8]:
    table = np.repeat(np.arange(256, dtype=np.float64)[None, :, None], CHANNELS, axis=2)
    table[..., :3] = 255 * (table[..., :3] / 255) ** gamma
    return np.rint(table).astype(np.uint8)


def _blur(out: NDArray[np.uint8], sigma_px: float) -> None:
    if sigma_px > 0.1:  # below, no weight of the kernel but the middle one reaches a grey level
        cv2.GaussianBlur(out, (0, 0), sigma_px, dst=out, borderType=cv2.BORDER_REFLECT)


def _add_noise(out: NDArray[np.uint8], sd: float, start: int) -> None:
    n_px = out.shape[0] * out.shape[1]
    noise = _stored_noise(n_px)[start : start + n_px].reshape(out.shape)
    gain = sd * 255 / _NOISE_SD
    cv2.addWeighted(out, 1.0, noise, gain, -128 * gain, dst=out)


@cache
def _stored_noise(n_px: int) -> NDArray[np.uint8]:
    """Return normal noise around 128 for pictures of ``n_px`` pixels, always the same, shape (pixels, 4)."""
    rng = np.random.default_rng(20240229)
    noise = rng.normal(128, _NOISE_SD, (_NOISE_PX + n_px, CHANNELS))
    return np.clip(np.rint(noise), 0, 255).astype(np.uint8)
