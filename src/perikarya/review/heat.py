"""A map of where a network looked, as a picture to lay over the cell."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from perikarya.errors import DataError

COLOURS = "viridis"  # as the figures: even steps look even, in every kind of colour vision


def heat_png(map_hw: NDArray[np.floating], *, side_px: int) -> bytes:
    """Draw a map in colours, opaque; the page lays it over the crop and chooses how much shines through.

    Parameters
    ----------
    map_hw
        Shape (height, width), 0 to 1.
    side_px
        Side of the picture.

    Returns
    -------
    A PNG of ``side_px`` x ``side_px`` pixels.

    Raises
    ------
    DataError
        If the map is empty or holds values that are not finite.
    """
    import matplotlib as mpl

    if map_hw.ndim != 2 or not map_hw.size or not np.isfinite(map_hw).all():
        raise DataError(f"A map of shape {map_hw.shape} that is empty or not finite cannot be drawn.")
    smooth_hw = cv2.resize(np.asarray(map_hw, np.float32), (side_px, side_px), interpolation=cv2.INTER_LINEAR)
    rgb_hwc = mpl.colormaps[COLOURS](np.clip(smooth_hw, 0, 1), bytes=True)[..., :3]
    return bytes(cv2.imencode(".png", np.ascontiguousarray(rgb_hwc[..., ::-1]))[1])
