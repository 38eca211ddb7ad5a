"""What augmentation does to colours: light as one matrix, stains as one matrix in optical density, blur, noise, cover.

All functions take crops of red, green, blue and mask, and leave the mask as it is, unless said.
"""

from __future__ import annotations

from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray

from perikarya.data.windows import CHANNELS

MASK = 3  # the channel of the mask
_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, red, green, blue
# How haematoxylin, eosin and diaminobenzidine absorb red, green and blue (Ruifrok & Johnston 2001,
# Anal Quant Cytol Histol 23:291), as in scikit-image's rgb_from_hed; only the directions matter here
_HED = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]])
_NOISE_SD = 32  # of the stored noise, in grey levels: its uint8 range is 4 standard deviations
_NOISE_PX = 1 << 17  # stored pixels of noise; each cell starts elsewhere in them


def light_matrices(gain: NDArray[np.float64], saturation: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return matrices that scale light and contrast by ``gain`` and the distance from grey by ``saturation``.

    Shape (n_cells, 4, 5), for ``cv2.transform``; the offsets are 0.
    """
    to_grey = np.tile(_LUMA, (3, 1))
    return _matrices(gain[:, None, None] * (to_grey + saturation[:, None, None] * (np.eye(3) - to_grey)))


def relight(crop: NDArray[np.uint8], matrix: NDArray[np.float32], *, grey_offset: float) -> NDArray[np.uint8]:
    """Apply one matrix of ``light_matrices`` with an offset that is a share of the crop's mean luma."""
    red, green, blue, _ = cv2.mean(crop)
    matrix[:MASK, CHANNELS] = grey_offset * (red * _LUMA[0] + green * _LUMA[1] + blue * _LUMA[2])
    return np.asarray(cv2.transform(crop, matrix), np.uint8)


def bend_gamma(crop: NDArray[np.uint8], gamma: float) -> NDArray[np.uint8]:
    """Raise the share of full intensity to a power; black and white stay."""
    levels = np.arange(256)
    bent = np.rint(255 * (levels / 255) ** gamma)
    table = np.stack([bent, bent, bent, levels], axis=-1).astype(np.uint8)
    return np.asarray(cv2.LUT(crop, table[None]), np.uint8)


def stain_matrices(gain: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return matrices for ``restain`` that scale haematoxylin, eosin and the rest apart.

    Optical density is a sum of stains (Beer-Lambert), so unmixing, scaling and mixing again are one matrix. In tissue
    without these stains it is a change of colour that leaves white white, like any other dye would.

    Parameters
    ----------
    gain
        Shape (n_cells, 3); 1: as it is.

    Returns
    -------
    Shape (n_cells, 4, 5), float32.
    """
    mixing = _HED.T @ (gain[:, :, None] * np.linalg.inv(_HED.T))
    matrices = _matrices(mixing)
    # ``restain`` works on log(1 + v) = log(256) - density: white, whose density is 0, has to come out as log(256)
    matrices[:, :MASK, CHANNELS] = np.log(256) * (1 - mixing.sum(axis=2))
    return matrices


def restain(crop: NDArray[np.uint8], matrix: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Apply one matrix of ``stain_matrices`` in optical density, -log((v + 1) / 256) of a grey level v."""
    density = cv2.transform(cv2.LUT(crop, _log_table()), matrix)
    levels = cv2.exp(density, dst=density)
    return np.asarray(cv2.subtract(levels, (1.0, 1.0, 1.0, 1.0), dtype=cv2.CV_8U), np.uint8)


@cache
def _log_table() -> NDArray[np.float32]:
    table = np.log(np.arange(1, 257, dtype=np.float64)).astype(np.float32)[None, :]
    table.setflags(write=False)
    return table


def _matrices(colour: NDArray[np.float64]) -> NDArray[np.float32]:
    """Put 3 x 3 matrices of colours into those of four channels with offsets: the mask is kept."""
    matrices = np.zeros((len(colour), CHANNELS, CHANNELS + 1), np.float32)
    matrices[:, :MASK, :MASK] = colour
    matrices[:, MASK, MASK] = 1
    return matrices


def blur(out: NDArray[np.uint8], sigma_px: float) -> None:
    """Blur in place, the mask too: put it back after."""
    if sigma_px > 0.1:  # below, no weight of the kernel but the middle one reaches a grey level
        cv2.GaussianBlur(out, (0, 0), sigma_px, dst=out, borderType=cv2.BORDER_REFLECT)


def add_noise(out: NDArray[np.uint8], sd: float, *, start: float) -> None:
    """Add noise in place, to the mask too: put it back after. ``start`` is a share of the stored noise."""
    n_px = out.shape[0] * out.shape[1]
    first = int(start * _NOISE_PX)
    noise = _stored_noise(n_px)[first : first + n_px].reshape(out.shape)
    gain = sd * 255 / _NOISE_SD
    cv2.addWeighted(out, 1.0, noise, gain, -128 * gain, dst=out)


@cache
def _stored_noise(n_px: int) -> NDArray[np.uint8]:
    """Return normal noise around 128 for pictures of ``n_px`` pixels, always the same, shape (pixels, 4)."""
    rng = np.random.default_rng(20240229)
    noise = rng.normal(128, _NOISE_SD, (_NOISE_PX + n_px, CHANNELS))
    return np.clip(np.rint(noise), 0, 255).astype(np.uint8)


def cover(out: NDArray[np.uint8], box: NDArray[np.float64]) -> None:
    """Grey a rectangle with the mean colour of the crop in place, but for the pixels of the cell.

    Random erasing (DeVries & Taylor 2017; Zhong et al. 2020) that cannot hide what is to be judged.

    Parameters
    ----------
    out
        Shape (S, S, 4), uint8, one pixel after another in memory; the mask is 0 outside the cell.
    box
        Left, top, width and height, share of the window; no width: nothing is covered.
    """
    left, top, width, height = box.tolist()
    if width == 0:
        return
    side = out.shape[0]
    columns = slice(round(left * side), round((left + width) * side))
    rows = slice(round(top * side), round((top + height) * side))
    colour = np.array([*np.rint(cv2.mean(out)[:MASK]), 0]).astype(np.uint8)
    pixels = out.view(np.uint32)[..., 0]  # whole pixels are several times faster to write than channels
    np.copyto(pixels[rows, columns], colour.view(np.uint32)[0], where=out[rows, columns, MASK] == 0)
