"""What every picture can do: say its size, scale and identity, and give back windows of its pixels."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from perikarya.data.images import Pixels, accessing, to_8bit

MAX_WINDOWED_PIXELS = 10**11  # of pictures that are never decoded whole; the largest slides have 2 * 10^10


class Picture(ABC):
    """An image that is read window by window; use it as a context manager.

    Windows may be read from several threads at once and in any order.

    Attributes
    ----------
    height, width
        Size in pixels.
    um_per_px
        Side of one pixel in micrometres; None where the file does not say it in a way that can be trusted.
    """

    def __init__(self, *, height: int, width: int, um_per_px: float | None) -> None:
        self.height = height
        self.width = width
        self.um_per_px = um_per_px

    @property
    @abstractmethod
    def sha256(self) -> str:
        """Identity, 64 hex digits.

        ``images.pixel_sha256`` of all pixels for pictures of up to ``images.MAX_PIXELS`` pixels, whatever their format;
        for larger ones the SHA-256 of the file. Computed when first asked for.
        """

    @property
    @abstractmethod
    def max_16bit(self) -> int:
        """Largest value of a 16-bit picture, 0 for 8 bits.

        For pictures above ``images.MAX_PIXELS`` pixels it is the largest value the file says it can hold.
        """

    def read(self, x: int, y: int, width: int, height: int) -> Pixels:
        """Read a window that lies inside the picture.

        Returns
        -------
        Shape (height, width, 3), RGB, uint8, or uint16 with the values as stored. It is the caller's to change.

        Raises
        ------
        ImageError
            If this part of the file is damaged.
        ValueError
            If the window is empty or reaches beyond the picture.
        """
        if not (width > 0 <= x <= self.width - width and height > 0 <= y <= self.height - height):
            raise ValueError(f"window {width} x {height} at ({x}, {y}) in a picture of {self.width} x {self.height} px")
        return self._read(x, y, width, height)

    def read8(self, x: int, y: int, width: int, height: int, *, bits: int = 8) -> NDArray[np.uint8]:
        """Read a window as ``read`` does, 16-bit values shifted right by ``bits - 8`` (see ``images.to_8bit``)."""
        return to_8bit(self.read(x, y, width, height), bits=bits)

    @abstractmethod
    def _read(self, x: int, y: int, width: int, height: int) -> Pixels:
        """Read a window that was checked to lie inside."""

    def close(self) -> None:  # noqa: B027  (pictures in memory hold no file open)
        """Let go of files and decoded parts."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def hash_by_bands(picture: Picture, *, n_rows: int) -> tuple[str, int]:
    """Return what ``images.pixel_sha256`` says of all pixels, and the largest value, reading some rows at a time."""
    digest, largest = None, 0
    for y in range(0, picture.height, n_rows):
        band = picture.read(0, y, picture.width, min(n_rows, picture.height - y))
        if digest is None:
            digest = hashlib.sha256(f"{band.dtype.str}|{(picture.height, picture.width, 3)}".encode())
        digest.update(np.ascontiguousarray(band).data)
        largest = max(largest, int(band.max()))
    return digest.hexdigest() if digest else "", largest


def file_sha256(path: Path, *further: str) -> str:
    """Return the SHA-256 (hex) of a file's bytes and of further words; see ``runs.file_sha256``."""
    with accessing(), path.open("rb") as handle:
        digest = hashlib.file_digest(handle, "sha256")
    for word in further:
        digest.update(word.encode())
    return digest.hexdigest()
