"""What makes a cell the same cell: the pixels of its image and its outline."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray


def cell_digest(image_sha256: str, mask_hw: NDArray[np.uint8], *, offset_xy: tuple[int, int] = (0, 0)) -> str:
    """Return the identity of a cell, 16 hex digits: its image's pixels and its outline.

    Parameters
    ----------
    image_sha256
        What ``pixel_sha256`` says of the image.
    mask_hw
        Shape (height, width); pixels above 0 belong to the cell. May be the bounding box only.
    offset_xy
        Where the mask's first pixel lies in the image.
    """
    digest = hashlib.sha256(f"{image_sha256}|{mask_hw.shape}|{offset_xy}".encode())
    digest.update(np.packbits(mask_hw > 0).tobytes())
    return digest.hexdigest()[:16]
