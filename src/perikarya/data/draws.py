"""The random numbers of augmentation: each a hash of (seed, epoch, row) and its place in the line of a cell's numbers.

Batching, workers, threads and the point of resuming change nothing, and neither does a setting: every kind of change
has its own places in the line, whether the others are asked for or not.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from perikarya.data.colour import light_matrices, stain_matrices
from perikarya.data.warp import N_CONTROL
from perikarya.settings import AugmentConfig

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_COVER_SIDE = (0.15, 0.5)  # shortest and longest side of a covering rectangle, share of the window
# places in the line of a cell's numbers; a new kind goes to the end, so that the others keep their numbers
_N_BASE = 13
_SHEAR_AT, _STAIN_AT, _COVER_AT, _BEND_AT = 13, 14, 17, 22
N_PLACES = _BEND_AT + 2 * N_CONTROL**2


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


def uniforms(keys: NDArray[np.uint64], n_draws: int, *, first: int = 0) -> NDArray[np.float64]:
    """Draw from [0, 1), shape (n_draws, n_cells): the numbers at the places ``first`` and following in each line."""
    with np.errstate(over="ignore"):
        place = np.arange(first + 1, first + n_draws + 1, dtype=np.uint64)
        return (_mix(keys[None, :] + place[:, None] * _GOLDEN) >> np.uint64(11)).astype(np.float64) * 2.0**-53


@dataclass(frozen=True)
class Draws:
    """The parameters of a batch; every array has shape (n_cells, ...), and None means never."""

    turn: NDArray[np.float64]  # (n, 2, 2): from the directions of the result to those of the window, without scale
    zoom: NDArray[np.float64]  # above 1: the cell gets larger
    shift: NDArray[np.float64]  # (n, 2): x and y, share of the window
    bend: NDArray[np.float64] | None  # (n, 2, controls, controls): x and y of ``warp.Bend``
    stain: NDArray[np.float32] | None  # (n, 4, 5): of ``colour.restain``
    light: NDArray[np.float32]  # (n, 4, 5): the matrix of cv2.transform, its offsets still empty
    grey_offset: NDArray[np.float64]  # what contrast adds, as a share of the crop's mean luma
    gamma: NDArray[np.float64]
    blur_sigma_px: NDArray[np.float64]
    noise: NDArray[np.float64]  # standard deviation, share of full intensity
    noise_start: NDArray[np.float64]  # share of the stored noise
    cover: NDArray[np.float64] | None  # (n, 4): left, top, width, height, share of the window; no width: none


def draw(config: AugmentConfig, keys: NDArray[np.uint64]) -> Draws:
    """Draw the parameters of some cells; what ``config`` leaves at zero is not drawn, but for the first thirteen."""
    flip_x, flip_y, angle, zoom, dx, dy, light, contrast, saturation, gamma, blur, noise, start = uniforms(
        keys, _N_BASE
    )
    sign_x, sign_y = (np.where((u < 0.5) & config.flip, -1.0, 1.0) for u in (flip_x, flip_y))
    radians = np.deg2rad((2 * angle - 1) * config.rotate_deg)
    cos, sin = np.cos(radians), np.sin(radians)
    turn = np.stack([cos * sign_x, -sin * sign_y, sin * sign_x, cos * sign_y], axis=1).reshape(-1, 2, 2)
    brightness = 1 + (2 * light - 1) * config.brightness
    contrast = 1 + (2 * contrast - 1) * config.contrast
    saturation = 1 + (2 * saturation - 1) * config.saturation
    return Draws(
        turn=turn @ _shears(config, keys) if config.shear_deg > 0 else turn,
        zoom=(1 + config.scale) ** (2 * zoom - 1),
        shift=np.stack([2 * dx - 1, 2 * dy - 1], axis=1) * config.translate,
        bend=_bends(config, keys) if config.elastic > 0 else None,
        stain=_stains(config, keys) if config.stain > 0 else None,
        light=light_matrices(brightness * contrast, saturation),
        grey_offset=(1 - contrast) * brightness,
        gamma=(1 + config.gamma) ** (2 * gamma - 1),
        blur_sigma_px=blur * config.blur_sigma_px,
        noise=noise * config.noise,
        noise_start=start,
        cover=_covers(config, keys) if config.cutout > 0 else None,
    )


def _shears(config: AugmentConfig, keys: NDArray[np.uint64]) -> NDArray[np.float64]:
    """Return matrices that slant the upright, shape (n, 2, 2); after a turn, that is any direction of the cell."""
    matrices = np.tile(np.eye(2), (len(keys), 1, 1))
    matrices[:, 0, 1] = np.tan(np.deg2rad((2 * uniforms(keys, 1, first=_SHEAR_AT)[0] - 1) * config.shear_deg))
    return matrices


def _stains(config: AugmentConfig, keys: NDArray[np.uint64]) -> NDArray[np.float32]:
    return stain_matrices(1 + (2 * uniforms(keys, 3, first=_STAIN_AT).T - 1) * config.stain)


def _bends(config: AugmentConfig, keys: NDArray[np.uint64]) -> NDArray[np.float64]:
    numbers = uniforms(keys, 2 * N_CONTROL**2, first=_BEND_AT).T
    return (2 * numbers.reshape(-1, 2, N_CONTROL, N_CONTROL) - 1) * config.elastic


def _covers(config: AugmentConfig, keys: NDArray[np.uint64]) -> NDArray[np.float64]:
    chance, *place, width, height = uniforms(keys, 5, first=_COVER_AT)
    least, most = _COVER_SIDE
    size = least + (most - least) * np.stack([width, height], axis=1)
    box = np.concatenate([np.stack(place, axis=1) * (1 - size), size], axis=1)
    return np.asarray(np.where(chance[:, None] < config.cutout, box, 0.0))
