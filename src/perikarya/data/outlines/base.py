"""What every format of outlines speaks: one outlined object, the content of one file, and limits on both.

Coordinates are pixels of the image, x to the right and y downwards; (0, 0) is the upper left corner of the first
pixel, so its centre is (0.5, 0.5). QuPath, ImageJ and COCO count so too.
"""

from __future__ import annotations

import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from perikarya.errors import DataError

Problem: TypeAlias = tuple[str, str]  # (where, reason as a sentence)
Ring: TypeAlias = NDArray[np.float64]  # (n_points, 2): x, y; closed without repeating the first point

MAX_FILE_BYTES = 512 * 2**20  # of a file of outlines, also unpacked
MAX_OUTLINES = 1_000_000  # in a file
MAX_POINTS = 200_000  # of an outline, all its rings together
MAX_COORDINATE = 10_000_000.0  # px; the largest scanners make 400,000
DECIMALS = 2  # coordinates are rounded so before rasterising: what formats keep of them then makes no difference


class OutlineError(DataError):
    """A file or an object in it cannot be used as outlines; the message is the bare reason, without the path."""


@dataclass(frozen=True, slots=True)
class CellMask:
    """The pixels of a cell: ``mask_hw`` is its bounding box, uint8, 0 or 1; ``x``, ``y`` its place in the image."""

    mask_hw: NDArray[np.uint8]
    x: int
    y: int


@dataclass(frozen=True, slots=True)
class Outline:
    """One outlined object of a file, as its format gives it.

    Attributes
    ----------
    key
        What the file calls it, unique in it: a UUID, the name of an ROI, a number.
    rings
        Boundaries; a pixel belongs to the object when its centre lies inside an odd number of them, so holes and
        separate parts need no further word. Empty where ``mask`` is given.
    mask
        The pixels themselves, for formats that hold pixels.
    label
        Class, or name of the region; None where the file does not say.
    kind
        Whether it is a cell or a region that holds cells.
    name
        What a person called it, where the format has names beside keys.
    words
        Subject, image_id, region, group, set, where the file tells them of this object.
    predicted
        Whether the class was written by ``predict`` and not changed by a person since.
    source
        What a writer of the same format needs to give the object back as it was; never relied on elsewhere.
    """

    key: str
    rings: tuple[Ring, ...] = ()
    mask: CellMask | None = None
    label: str | None = None
    kind: Literal["cell", "region"] = "cell"
    name: str | None = None
    words: Mapping[str, str] = field(default_factory=dict)
    predicted: bool = False
    source: Any = None


@dataclass(frozen=True)
class OutlineFile:
    """The objects of one file (of one image in it, where it speaks of many), and those that cannot be used.

    ``problems`` are (what the file calls the object, reason); ``notes`` are sentences for the log and the provenance.
    ``image_hw`` is the height and width of the image where the file says them.
    """

    outlines: tuple[Outline, ...]
    problems: tuple[Problem, ...] = ()
    notes: tuple[str, ...] = ()
    image_hw: tuple[int, int] | None = None

    def check_size(self, *, height: int, width: int) -> None:
        """Raise ``OutlineError`` (bare reason) when the image has another size than the file says."""
        if self.image_hw is not None and self.image_hw != (height, width):
            raise OutlineError(
                f"its outlines are for an image of {self.image_hw[1]} x {self.image_hw[0]} px but the image is "
                f"{width} x {height} px; outlines of another image would cut out the wrong pixels"
            )


def read_limited(path: Path, *, limit: int = MAX_FILE_BYTES) -> bytes:
    """Read a whole file of outlines.

    Raises
    ------
    OutlineError
        If it is missing, no regular file (a folder, a pipe), empty or larger than ``limit`` bytes.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise OutlineError("this is not a regular file")
        if status.st_size == 0:
            raise OutlineError("the file is empty (0 bytes)")
        if status.st_size > limit:
            raise OutlineError(f"the file is larger than {limit / 2**20:g} MiB")
        return path.read_bytes()
    except FileNotFoundError:
        raise OutlineError("the file does not exist") from None
    except OSError as error:
        raise OutlineError(f"the file cannot be read ({error.strerror})") from None
