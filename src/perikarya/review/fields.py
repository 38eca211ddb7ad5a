"""Whole images for the page: tiles at every scale, and the outlines of the cells in them.

Only images that lie inside the study folder are served, wherever a table or a link points.
"""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from perikarya.data.images import ImageError, bits_needed
from perikarya.data.pictures import DecodedPicture, Picture, open_picture
from perikarya.data.store import OpenStudy
from perikarya.data.windows import scale_of
from perikarya.errors import DataError
from perikarya.review.field_outlines import outline_path
from perikarya.schema import EXTERNAL

TILE_PX = 256
JPEG_QUALITY = 90
_MOST_READ_PX = 4_096  # side of the part of a large image that is read for one tile
_BAND_PX = 4_000_000  # of an image, shrunk at once
_MOST_OPEN = 4  # pictures
_MOST_OPEN_BYTES = 256 * 2**20  # of decoded pictures that stay open, together; one may be larger
_TILE_CACHE_BYTES = 32 * 2**20  # of each large picture
_MOST_TILES = 1_000  # about 20 MB
_MOST_OUTLINED = 8  # fields whose outlines are kept
_CELLS_AT_ONCE = 512
_MOST_EXACT = 3_000  # cells of a field above which outlines are drawn with fewer points


class NoSuchTileError(DataError):
    """There is no such field, level or tile."""


@dataclass(frozen=True)
class _Field:
    """One image of the study, and the rows of its cells."""

    path: Path
    name: str
    rows: NDArray[np.int64]


@dataclass(frozen=True)
class _Open:
    picture: Picture
    bits: int

    @cached_property
    def n_bytes(self) -> int:
        """Size of the pixels, where all of them are in memory."""
        if not isinstance(self.picture, DecodedPicture):
            return 0
        return self.picture.width * self.picture.height * self.picture.read(0, 0, 1, 1).nbytes

    @property
    def n_levels(self) -> int:
        longest = max(self.picture.width, self.picture.height)
        return 1 + max(0, math.ceil(math.log2(longest / TILE_PX)))

    @property
    def min_level(self) -> int:
        if isinstance(self.picture, DecodedPicture):
            return 0
        return max(0, self.n_levels - 1 - int(math.log2(_MOST_READ_PX / TILE_PX)))


class Fields:
    """The images that a study keeps and that hold outlined cells.

    Parameters
    ----------
    opened
        The study.
    """

    def __init__(self, opened: OpenStudy) -> None:
        self._opened = opened
        self._fields = _fields_of(opened)
        self._field_of_row = np.full(len(opened.cells), -1)
        for i, field in enumerate(self._fields):
            self._field_of_row[field.rows] = i
        self._lock = threading.Lock()  # pictures are opened, read and closed by one thread at a time
        self._open: OrderedDict[int, _Open] = OrderedDict()
        self._tiles: OrderedDict[tuple[int, int, int, int], bytes] = OrderedDict()
        self._tracing = threading.Lock()
        self._paths: OrderedDict[int, list[str]] = OrderedDict()

    @property
    def count(self) -> int:
        """Number of fields."""
        return len(self._fields)

    def index_of(self, row: int) -> int | None:
        """Return the number of the field a cell lies in; None where the study does not keep its image."""
        index = int(self._field_of_row[row])
        return None if index < 0 else index

    def describe(self, i: int, labels: Sequence[int] | NDArray[np.integer[Any]]) -> dict[str, Any]:
        """Return what the page knows of a field and the outlines in it: its ``Field``.

        Parameters
        ----------
        i
            Number of the field.
        labels
            Codes of the present labels of all cells of the study, shape (n_cells,).

        Raises
        ------
        NoSuchTileError
            If there is no such field.
        DataError
            If its image cannot be read.
        """
        field = self._field(i)
        with self._lock:
            image = self._opened_image(i)
        with self._tracing:
            paths = self._outlines(i)
        cells = self._opened.cells.iloc[field.rows]
        um_per_px = cells["um_per_px"].iloc[0]
        return {
            "field": i,
            "image_id": str(cells["image_id"].iloc[0]),
            "width": image.picture.width,
            "height": image.picture.height,
            "tile_px": TILE_PX,
            "n_levels": image.n_levels,
            "min_level": image.min_level,
            "um_per_px": image.picture.um_per_px if pd.isna(um_per_px) else float(um_per_px),
            "cells": [
                {"row": int(row), "label": int(labels[row]), "path": path}
                for row, path in zip(field.rows, paths, strict=True)
            ],
        }

    def tile(self, i: int, level: int, x: int, y: int) -> bytes:
        """Return one tile as JPEG: column ``x`` and row ``y`` of a level, 256 px wide or less at the right and below.

        Raises
        ------
        NoSuchTileError
            If there is no such field, level or tile.
        DataError
            If the image cannot be read.
        """
        self._field(i)
        key = (i, level, x, y)
        with self._lock:
            if key not in self._tiles:
                self._tiles[key] = self._drawn(*key)
            self._tiles.move_to_end(key)
            if len(self._tiles) > _MOST_TILES:
                self._tiles.popitem(last=False)
            return self._tiles[key]

    def close(self) -> None:
        """Let go of all pictures."""
        with self._lock:
            while self._open:
                self._open.popitem()[1].picture.close()

    def _field(self, i: int) -> _Field:
        if not 0 <= i < len(self._fields):
            raise NoSuchTileError(f"There is no field {i}; the study keeps {len(self._fields)}.")
        return self._fields[i]

    def _drawn(self, i: int, level: int, x: int, y: int) -> bytes:
        image = self._opened_image(i)
        picture = image.picture
        shrink = 2 ** (image.n_levels - 1 - level) if image.min_level <= level < image.n_levels else 0
        side = TILE_PX * shrink
        if not shrink or not (0 <= x * side < picture.width and 0 <= y * side < picture.height):
            raise NoSuchTileError(f"Field {i} has no tile {x}, {y} at level {level}.")
        width, height = min(side, picture.width - x * side), min(side, picture.height - y * side)
        try:
            rgb_hwc = _shrunk(image, (x * side, y * side), (width, height), shrink)
        except ImageError as error:
            raise self._unreadable(i, error) from None
        bgr_hwc = np.ascontiguousarray(rgb_hwc[..., ::-1])
        return bytes(cv2.imencode(".jpg", bgr_hwc, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1])

    def _opened_image(self, i: int) -> _Open:
        if i not in self._open:
            path = self._fields[i].path
            try:
                if path.resolve() != path:
                    raise ImageError("a link has taken its place")
                picture = open_picture(path, cache_bytes=_TILE_CACHE_BYTES)
                self._open[i] = _Open(picture, self._bits(picture))
            except ImageError as error:
                raise self._unreadable(i, error) from None
        self._open.move_to_end(i)
        while len(self._open) > 1 and (len(self._open) > _MOST_OPEN or self._n_bytes() > _MOST_OPEN_BYTES):
            self._open.popitem(last=False)[1].picture.close()
        return self._open[i]

    def _bits(self, picture: Picture) -> int:
        """Return how many bits count, as when the study was made: an image and its crops look the same."""
        said = self._opened.study.provenance.get("bits_of_16bit_images")
        return said if isinstance(said, int) else bits_needed(picture.max_16bit)

    def _n_bytes(self) -> int:
        return sum(image.n_bytes for image in self._open.values())

    def _unreadable(self, i: int, error: ImageError) -> DataError:
        return DataError(
            f"The image {self._fields[i].name} of the study cannot be shown: {error}.\n"
            "Its cells can be seen in the gallery. Fix: import the study again."
        )

    def _outlines(self, i: int) -> list[str]:
        if i not in self._paths:
            rows = self._fields[i].rows
            fine = len(rows) <= _MOST_EXACT
            parts = [rows[start : start + _CELLS_AT_ONCE] for start in range(0, len(rows), _CELLS_AT_ONCE)]
            self._paths[i] = [path for part in parts for path in self._traced(part, fine=fine)]
        self._paths.move_to_end(i)
        if len(self._paths) > _MOST_OUTLINED:
            self._paths.popitem(last=False)
        return self._paths[i]

    def _traced(self, rows: NDArray[np.int64], *, fine: bool) -> list[str]:
        cells = self._opened.cells.iloc[rows]
        masks_nhw = self._opened.read_crops(rows)[..., 3]
        places = zip(masks_nhw, cells["x_px"], cells["y_px"], self._scales(rows), strict=True)
        return [outline_path(mask_hw, x_px=x, y_px=y, scale=scale, fine=fine) for mask_hw, x, y, scale in places]

    def _scales(self, rows: NDArray[np.int64]) -> list[float]:
        known = self._opened.cells["um_per_px"].iloc[rows]
        return [scale_of(None if pd.isna(own) else own, self._opened.study.um_per_px) for own in known]


def _shrunk(image: _Open, corner: tuple[int, int], size: tuple[int, int], shrink: int) -> NDArray[np.uint8]:
    """Read a part of an image and shrink it by averaging areas, band by band: a copy of a large one would be larger."""
    (x, y), (width, height) = corner, size
    step = max(1, _BAND_PX // (width * shrink)) * shrink
    bands = []
    for top in range(0, height, step):
        n_rows = min(step, height - top)
        band_hwc = image.picture.read8(x, y + top, width, n_rows, bits=image.bits)
        if shrink > 1:
            smaller = (-(-width // shrink), -(-n_rows // shrink))
            band_hwc = np.asarray(cv2.resize(band_hwc, smaller, interpolation=cv2.INTER_AREA), np.uint8)
        bands.append(band_hwc)
    return np.concatenate(bands)


def _fields_of(opened: OpenStudy) -> list[_Field]:
    """List the images that are there, in the order of their first cells; single pictures of cells have no field."""
    source = opened.cells["source"].astype("string")
    has_key = source.str.contains("#", regex=False).to_numpy(bool)
    rows = np.flatnonzero(has_key)
    if not len(rows):
        return []
    frame = pd.DataFrame(
        {
            "image": source.iloc[rows].str.rpartition("#")[0].to_numpy(dtype=str),
            "external": (opened.cells["set"].iloc[rows] == EXTERNAL).to_numpy(bool),
            "sha256": opened.cells["image_sha256"].iloc[rows].to_numpy(dtype=str),
        }
    )
    fields = []
    # the same name may stand for two images, one in each set; their pixels tell them apart
    for (image, _sha256), group in frame.groupby(["image", "sha256"], sort=False):
        path = _kept_image(opened.root, str(image), external=bool(group["external"].iloc[0]))
        if path is not None:
            fields.append(_Field(path, str(image), rows[group.index.to_numpy()]))
    return fields


def _kept_image(root: Path, image: str, *, external: bool) -> Path | None:
    """Return where the study keeps an image; None where it does not, or the path leaves the study."""
    folders = ("fields-external", "fields") if external else ("fields", "fields-external")
    inside = root.resolve()
    for folder in folders:
        try:
            path = (inside / folder / image).resolve(strict=True)
        except (OSError, ValueError, RuntimeError):  # absent; a name no file can have; a link to itself
            continue
        if path.is_relative_to(inside / folder) and path.is_file():
            return path
    return None
