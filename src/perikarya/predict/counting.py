"""How many outlines a file holds, counted without decoding a picture or building an outline."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from perikarya.data.images import ImageError
from perikarya.data.outlines import read_outlines
from perikarya.data.outlines.base import MAX_FILE_BYTES, OutlineError, read_limited
from perikarya.data.outlines.find import Format, format_of
from perikarya.data.outlines.labels import read_label_map

_FEATURE = b'"Feature"'  # the type of each object of a GeoJSON file, children included
_GZIP = b"\x1f\x8b"


def count_outlines(outlines: Path, image: Path) -> int:
    """Count the outlines of one image, at least 1: what cannot be read costs somebody a look at it, too.

    The number serves to share work out fairly. It takes in regions and outlines that cannot be predicted.

    Parameters
    ----------
    outlines
        File of outlines in any format that ``predict`` reads.
    image
        The image, which a COCO file knows by its name.
    """
    counters: dict[Format, Callable[[], int]] = {
        "geojson": partial(_features, outlines),
        "imagej": partial(_rois, outlines),
        "labels": partial(_numbers, outlines),
        "coco": lambda: len(read_outlines(outlines, image=image).outlines),
    }
    try:
        return max(1, counters[format_of(outlines)]())
    except (OutlineError, ImageError, OSError, zlib.error, zipfile.BadZipFile):
        return 1  # whoever predicts the image says what is wrong


def _features(path: Path) -> int:
    content = read_limited(path)
    if content.startswith(_GZIP):
        content = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16).decompress(content, MAX_FILE_BYTES)
    return content.count(_FEATURE)


def _rois(path: Path) -> int:
    if not zipfile.is_zipfile(path):
        return 1
    with zipfile.ZipFile(path) as archive:
        return sum(name.lower().endswith(".roi") for name in archive.namelist())


def _numbers(path: Path) -> int:
    labels_hw = read_label_map(path)
    return int(np.count_nonzero(np.unique(labels_hw)))
