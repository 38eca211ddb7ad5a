"""Crops for the tests of augmentation: smooth colours with round masks, and pictures that are their own masks."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from perikarya.config import AugmentConfig
from perikarya.data.augment import cell_keys


def only(**settings: Any) -> AugmentConfig:
    """Nothing is changed but what is named."""
    return AugmentConfig.model_validate({"preset": "none", **settings})


def keys(n: int, *, seed: int = 0, epoch: int = 0) -> NDArray[np.uint64]:
    return cell_keys(np.arange(n), seed=seed, epoch=epoch)


def random_crops(n: int, px: int, *, seed: int = 0) -> NDArray[np.uint8]:
    """Smooth coloured noise with a round mask."""
    rng = np.random.default_rng(seed)
    crops = np.empty((n, px, px, 4), np.uint8)
    for crop in crops:
        noise = cv2.GaussianBlur(rng.normal(0, 1, (px, px, 3)), (0, 0), 3)
        crop[..., :3] = np.clip(128 + 300 * noise, 0, 255)
        crop[..., 3] = blob(px, offset=rng.uniform(-0.1, 0.1, 2) * px)
    return crops


def blob(px: int, *, offset: NDArray[np.float64] | None = None, radii: tuple[float, float] = (0.3, 0.15)) -> Any:
    """An ellipse that stays inside a window however it is turned, as a mask of 0 and 255."""
    y, x = np.mgrid[:px, :px] - (px - 1) / 2
    dx, dy = offset if offset is not None else (0.0, 0.0)
    return ((((x - dx) / radii[0]) ** 2 + ((y - dy) / radii[1]) ** 2) < px**2).astype(np.uint8) * 255


def encode_mask(mask: NDArray[np.uint8], *, dark: int = 0, bright: int = 255) -> NDArray[np.uint8]:
    """A crop whose picture is its mask."""
    picture = np.where(mask > 0, bright, dark).astype(np.uint8)
    return np.stack([picture, picture, picture, mask], axis=-1)


def ramps(px: int) -> NDArray[np.uint8]:
    """A crop whose red is the column and whose green is the row of each pixel, under a full mask; at most 256 px."""
    rows, columns = np.indices((px, px))
    return np.stack([columns, rows, np.zeros((px, px), int), np.full((px, px), 255)], axis=-1).astype(np.uint8)
