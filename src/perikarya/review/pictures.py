"""Crops as pictures for the page, with the outline of the cell where it is wanted."""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

_OUTLINED_SIDE_PX = 160  # smaller crops are enlarged before their outline is drawn, or it would hide what it bounds
_HALO_BGR, _LINE_BGR = (0, 0, 0), (66, 228, 240)  # a yellow of the palette on black: seen on any stain
_FAST = (cv2.IMWRITE_PNG_COMPRESSION, 1)  # the way to the browser is short


def crop_png(crop: NDArray[np.uint8], *, outlined: bool) -> bytes:
    """Encode a crop.

    Parameters
    ----------
    crop
        Shape (side, side, 4), uint8: red, green, blue, mask.
    outlined
        Draw the border of the mask; a small crop is enlarged for that by a whole number of times.

    Returns
    -------
    A PNG of at least ``side`` x ``side`` pixels.
    """
    bgr = np.ascontiguousarray(crop[..., 2::-1])
    if outlined:
        bgr = _with_outline(bgr, crop[..., 3])
    return bytes(cv2.imencode(".png", bgr, _FAST)[1])


def _with_outline(bgr: NDArray[np.uint8], mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
    times = math.ceil(_OUTLINED_SIDE_PX / len(mask))
    size = (mask.shape[1] * times, mask.shape[0] * times)
    large = cv2.resize(bgr, size, interpolation=cv2.INTER_NEAREST)
    inside = cv2.resize((mask > 0).astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
    borders, _ = cv2.findContours(inside, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    cv2.drawContours(large, borders, -1, _HALO_BGR, thickness=3)
    cv2.drawContours(large, borders, -1, _LINE_BGR, thickness=1)
    return np.asarray(large, np.uint8)
