"""Windows of a fixed size around cells.

A window has a fixed size in pixels (and, where the scale is known, in micrometres); a cell is never stretched to
fill it. Beyond the border of an image the picture is continued by reflection and the mask by zeros, so that a reflected
neighbour never becomes part of the outlined cell.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from perikarya.data.images import MAX_PIXELS
from perikarya.data.outlines.base import CellMask
from perikarya.data.picture_base import Picture
from perikarya.errors import DataError

CHANNELS = 4  # red, green, blue, mask
SAME_SCALE = 0.01  # scales that differ by less are one scale: calibrations are no better
MAX_SCALE = 64.0  # pixels of the image per pixel of a window, or the other way round
_ROUNDING = 1e-5


def scale_of(image_um_per_px: float | None, target_um_per_px: float | None) -> float:
    """Return how many pixels of an image make one pixel of its windows.

    It is 1 where either scale is unknown, and where they differ by no more than ``SAME_SCALE``, so that windows are
    not resampled for a difference below the accuracy of a calibration.
    """
    if image_um_per_px is None or target_um_per_px is None:
        return 1.0
    scale = target_um_per_px / image_um_per_px
    return 1.0 if abs(scale - 1) <= SAME_SCALE else scale


def cut_window(
    image_hwc: NDArray[np.uint8],
    mask_hw: NDArray[np.uint8],
    *,
    centre_xy: tuple[float, float],
    window_px: int,
    keep_inside: bool,
) -> NDArray[np.uint8]:
    """Cut the square window around a cell out of an image in memory.

    Parameters
    ----------
    image_hwc
        Shape (height, width, 3), uint8, RGB.
    mask_hw
        Shape (height, width); pixels above 0 belong to the cell.
    centre_xy
        Where the window is centred, in pixels, x to the right and y downwards.
    window_px
        Side of the window.
    keep_inside
        Shift the window into the image where it fits (for crops around one cell, which are already centred);
        otherwise the cell stays in the middle (for fields).

    Returns
    -------
    Shape (window_px, window_px, 4), uint8; the fourth channel is 0 or 255.
    """
    height, width = mask_hw.shape
    left = _corner(centre_xy[0], window_px, width, keep_inside=keep_inside)
    top = _corner(centre_xy[1], window_px, height, keep_inside=keep_inside)
    place = _place((left, top), window_px, width, height)
    rows, columns = slice(place.y0, place.y1), slice(place.x0, place.x1)
    crop = np.empty((window_px, window_px, CHANNELS), np.uint8)
    crop[..., :3] = _pad_reflecting(image_hwc[rows, columns], place.pads)
    crop[..., 3] = 0
    inside = crop[place.pads[0] : window_px - place.pads[1], place.pads[2] : window_px - place.pads[3], 3]
    inside[mask_hw[rows, columns] > 0] = 255
    return crop


def cut_from_picture(
    picture: Picture, mask: CellMask, *, window_px: int, scale: float = 1.0, bits: int = 8
) -> NDArray[np.uint8]:
    """Cut the square window around a cell, reading no more of the picture than it shows.

    At scale 1 it is what ``cut_window`` gives around the centre of the mask's bounding box. At others it is read at the
    picture's own scale, continued by reflection, and then shrunk by averaging areas or enlarged linearly; a pixel
    belongs to the cell when at least half of its area does.

    Parameters
    ----------
    mask
        The cell; its bounding box lies in the picture.
    window_px
        Side of the window.
    scale
        Pixels of the picture per pixel of the window, see ``scale_of``.
    bits
        How many bits of a 16-bit picture count, see ``images.to_8bit``.

    Returns
    -------
    Shape (window_px, window_px, 4), uint8; the fourth channel is 0 or 255.

    Raises
    ------
    DataError
        If the window lies outside of the picture, or spans too much of it to be read at once.
    ImageError
        If this part of the picture is damaged.
    """
    side = _side_in_picture(window_px, scale)
    height, width = mask.mask_hw.shape
    centre_xy = (mask.x + width / 2, mask.y + height / 2)
    # the side in whole pixels may be a little more than the window spans; its centre stays that of the cell
    left, top = (round(centre - window_px * scale / 2) for centre in centre_xy)
    place = _place((left, top), side, picture.width, picture.height)
    rgb = picture.read8(place.x0, place.y0, place.x1 - place.x0, place.y1 - place.y0, bits=bits)
    crop = np.empty((side, side, CHANNELS), np.uint8)
    crop[..., :3] = _pad_reflecting(rgb, place.pads)
    crop[..., 3] = _mask_in_window(mask, left, top, side)
    return crop if scale == 1 else _resample(crop, window_px, scale)


def _side_in_picture(window_px: int, scale: float) -> int:
    """Return the side of a window in whole pixels of the picture; raise ``DataError`` where no scale is meant so."""
    side = math.ceil(window_px * scale - _ROUNDING) if 1 / MAX_SCALE <= scale <= MAX_SCALE else 0
    if not 0 < side**2 <= MAX_PIXELS:
        raise DataError(
            f"A window of {window_px} px would span {window_px * scale:g} px of the image (scale {scale:g}).\n"
            "Fix: check the scales in µm per pixel, or choose a smaller window."
        )
    return side


@dataclass(frozen=True)
class _Place:
    """The part of a window that lies inside the image, and what is missing (top, bottom, left, right)."""

    x0: int
    y0: int
    x1: int
    y1: int
    pads: tuple[int, int, int, int]


def _place(corner_xy: tuple[int, int], side: int, width: int, height: int) -> _Place:
    left, top = corner_xy
    x0, x1 = max(left, 0), min(left + side, width)
    y0, y1 = max(top, 0), min(top + side, height)
    if x0 >= x1 or y0 >= y1:
        raise DataError(f"The window around ({left + side / 2:.0f}, {top + side / 2:.0f}) lies outside the image.")
    return _Place(x0, y0, x1, y1, (y0 - top, top + side - y1, x0 - left, left + side - x1))


def _corner(centre: float, side: int, size: int, *, keep_inside: bool) -> int:
    start = round(centre - side / 2)
    if keep_inside:
        # where the image is smaller than the window, the padding is shared between both sides
        start = (size - side) // 2 if size <= side else min(max(start, 0), size - side)
    return start


def _pad_reflecting(patch_hwc: NDArray[np.uint8], pads: tuple[int, int, int, int]) -> NDArray[np.uint8]:
    if not any(pads):
        return patch_hwc
    if min(patch_hwc.shape[:2]) == 1:  # nothing to reflect
        return np.asarray(cv2.copyMakeBorder(patch_hwc, *pads, cv2.BORDER_REPLICATE), np.uint8)
    top, bottom, left, right = pads
    # numpy reflects again and again where the padding is larger than the picture; OpenCV does not promise that
    return np.pad(patch_hwc, ((top, bottom), (left, right), (0, 0)), mode="reflect")


def _mask_in_window(mask: CellMask, left: int, top: int, side: int) -> NDArray[np.uint8]:
    """Draw a cell, 0 or 255, into a window whose upper left corner is given in the image."""
    drawn = np.zeros((side, side), np.uint8)
    height, width = mask.mask_hw.shape
    x0, x1 = max(mask.x, left), min(mask.x + width, left + side)
    y0, y1 = max(mask.y, top), min(mask.y + height, top + side)
    part = mask.mask_hw[y0 - mask.y : y1 - mask.y, x0 - mask.x : x1 - mask.x]
    drawn[y0 - top : y1 - top, x0 - left : x1 - left] = np.where(part > 0, 255, 0)
    return drawn


def _resample(crop: NDArray[np.uint8], window_px: int, scale: float) -> NDArray[np.uint8]:
    """Bring a window of the picture's scale to its own; pixel i spans ``i * scale`` to ``(i + 1) * scale``."""
    how = cv2.INTER_AREA if scale > 1 else cv2.INTER_LINEAR

    def at_scale(pixels: NDArray[Any]) -> NDArray[Any]:
        # factors rather than sizes: the scale is then exact, and what does not fill a last pixel is cut off
        resized = cv2.resize(pixels, None, fx=1 / scale, fy=1 / scale, interpolation=how)
        return np.asarray(resized)[:window_px, :window_px]

    out = np.empty((window_px, window_px, CHANNELS), np.uint8)
    out[..., :3] = at_scale(np.ascontiguousarray(crop[..., :3]))
    share = at_scale((crop[..., 3] > 0).astype(np.float32))
    # a cell of which no pixel is half covered keeps its fullest pixels: an empty mask would be no cell
    least = min(0.5, float(share.max())) - _ROUNDING
    out[..., 3] = np.where((share >= least) & (share > 0), 255, 0)
    return out
