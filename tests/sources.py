"""Small sources of cells on disk, good ones; tests then break them."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

CLASSES = ("normal", "pyknotic")


def picture(seed: int, hw: tuple[int, int] = (40, 40)) -> NDArray[np.uint8]:
    """A picture with structure at all scales, different for every seed; shape (height, width, 3)."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(size=(*hw, 3)).astype(np.float32)
    levels = [cv2.GaussianBlur(noise, (0, 0), sigma) * sigma for sigma in (1, 3, 8)]
    return np.clip(128 + 40 * sum(levels), 0, 255).astype(np.uint8)


def disc(hw: tuple[int, int] = (40, 40), *, radius: float = 9, centre_xy: tuple[float, float] | None = None):
    """A round mask, 0 or 255, shape (height, width)."""
    x0, y0 = centre_xy or (hw[1] / 2, hw[0] / 2)
    yy, xx = np.mgrid[: hw[0], : hw[1]]
    return (((xx - x0) ** 2 + (yy - y0) ** 2 <= radius**2) * 255).astype(np.uint8)


def write(path: Path, pixels: NDArray) -> Path:
    """Write grey or RGB pixels in the format of the name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    ordered = pixels[..., ::-1] if pixels.ndim == 3 else pixels
    assert cv2.imwrite(str(path), ordered)
    return path


def class_folders(root: Path, *, classes: tuple[str, ...] = CLASSES, n: int = 2, seed: int = 0) -> Path:
    """``images/<class>/c<i>.png`` and ``masks/<class>/c<i>.png``, ``n`` cells per class."""
    for k, label in enumerate(classes):
        for i in range(n):
            name = f"{label}/c{k * n + i}.png"
            write(root / "images" / name, picture(1000 * seed + k * n + i))
            write(root / "masks" / name, disc(radius=8 + k))
    return root
