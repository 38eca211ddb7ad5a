"""Every parser of other people's files as a function of bytes, and small good files to begin with.

Hypothesis runs them in ``tests/data/outlines/test_fuzz.py``, libFuzzer in ``tools/fuzz.py``.
"""

from __future__ import annotations

import atexit
import io
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import tifffile
from tests.outlined import SOURCES
from tests.sources import picture

from perikarya.data.images import read_mask, read_rgb
from perikarya.data.metadata import METADATA_COLUMNS, read_csv
from perikarya.data.outlines import ClassMap, OutlineFile, ReadOptions
from perikarya.data.outlines.coco import read_coco
from perikarya.data.outlines.geojson import read_geojson
from perikarya.data.outlines.labels import CELLS_COLUMNS, read_labels
from perikarya.data.outlines.raster import area_of, contains, mask_of
from perikarya.data.outlines.roi import read_rois
from perikarya.data.outlines.trace import trace
from perikarya.data.pictures import open_picture
from perikarya.errors import ConfigError, DataError, PerikaryaError

SIDE = 64  # of the image that outlines are laid on, in pixels
_IN_MEMORY = Path("/dev/shm")
OPTIONS = ReadOptions(ClassMap.parse("a=b,name:^x=c,group:2=d,colour:#ff0000=e"), frozenset({"region"}))


@cache
def _folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="perikarya-fuzz-", dir=_IN_MEMORY if _IN_MEMORY.is_dir() else None))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _file(data: bytes, name: str) -> Path:
    path = _folder() / name
    path.write_bytes(data)
    return path


def _use(file: OutlineFile) -> None:
    """Do with outlines what an import does."""
    for outline in file.outlines:
        with suppress(PerikaryaError):
            trace(mask_of(outline, height=SIDE, width=SIDE))
        with suppress(PerikaryaError):
            area_of(outline)
            contains(outline, np.array([[5.5, 5.5], [1e6, -3.0]]))


def fuzz_geojson(data: bytes) -> None:
    """Objects of QuPath."""
    _use(read_geojson(_file(data, "x.geojson"), OPTIONS))


def fuzz_roi(data: bytes) -> None:
    """One ROI of ImageJ."""
    _use(read_rois(_file(data, "x.roi"), OPTIONS))


def fuzz_roi_zip(data: bytes) -> None:
    """An archive of ImageJ's ROI manager."""
    _use(read_rois(_file(data, "x.zip"), OPTIONS))


def fuzz_coco(data: bytes) -> None:
    """COCO JSON."""
    for file in read_coco(_file(data, "x.json"), OPTIONS).values():
        _use(file)


def fuzz_labels(data: bytes) -> None:
    """A label map."""
    _use(read_labels(_file(data, "x_labels.tif"), OPTIONS))


def fuzz_csv(data: bytes) -> None:
    """A table of metadata, of cells, of classes."""
    path = _file(data, "x.csv")
    for columns, required in ((METADATA_COLUMNS, "file"), (CELLS_COLUMNS, "label_id")):
        with suppress(DataError):
            read_csv(path, columns=columns, required=[required])
    with suppress(PerikaryaError):
        ClassMap.parse(str(path))


def fuzz_class_map(data: bytes) -> None:
    """The text of ``--class-map``."""
    classes = ClassMap.parse(data.decode("utf-8", "replace"))
    classes.label("normal", name="PN 3", group=2, colour="#FF0000")
    classes.unused()


def fuzz_image(data: bytes) -> None:
    """An image, a mask, a picture that is read by window."""
    path = _file(data, "x.tif")
    for read in (read_rgb, read_mask):
        with suppress(PerikaryaError):
            read(path)
    with open_picture(path, cache_bytes=2**20) as picture:
        width, height = min(picture.width, SIDE), min(picture.height, SIDE)
        picture.read8(picture.width - width, picture.height - height, width, height)


PARSERS: dict[str, Callable[[bytes], None]] = {
    "geojson": fuzz_geojson,
    "roi": fuzz_roi,
    "roi_zip": fuzz_roi_zip,
    "coco": fuzz_coco,
    "labels": fuzz_labels,
    "csv": fuzz_csv,
    "class_map": fuzz_class_map,
    "image": fuzz_image,
}


@cache
def seeds_of(parser: str) -> tuple[bytes, ...]:
    """Return small good files of a parser."""
    folder = _folder() / "good"
    if not folder.is_dir():
        for layout, make in SOURCES.items():
            make(folder / layout)
    return tuple(_SEEDS[parser](folder))


def _rois(folder: Path) -> list[bytes]:
    with zipfile.ZipFile(folder / "imagej" / "f0.zip") as archive:
        ours = [archive.read(info) for info in archive.infolist()]
    return [*ours, (_EXAMPLES / "imagej_oval.roi").read_bytes()]


def _images(folder: Path) -> list[bytes]:
    pixels = picture(1, (24, 20))
    encoded = [cv2.imencode(suffix, pixels)[1].tobytes() for suffix in (".png", ".jpg", ".bmp")]
    tiled = io.BytesIO()
    tifffile.imwrite(tiled, pixels, tile=(16, 16), compression="zlib", metadata={"axes": "YXS"}, ome=True)
    encoded.append(cv2.imencode(".png", pixels.astype(np.uint16) * 250)[1].tobytes())
    return [*encoded, tiled.getvalue(), (folder / "labels" / "f0_labels.tif").read_bytes()]


_EXAMPLES = Path(__file__).parent / "data" / "outlines"
_SEEDS: dict[str, Callable[[Path], Iterable[bytes]]] = {
    "geojson": lambda folder: [
        (folder / "geojson" / "f0.geojson").read_bytes(), *(p.read_bytes() for p in _EXAMPLES.glob("qupath*json")),
    ],
    "roi": _rois,
    "roi_zip": lambda folder: [
        (folder / "imagej" / "f0.zip").read_bytes(), (_EXAMPLES / "imagej_selections.zip").read_bytes(),
    ],
    "coco": lambda folder: [(folder / "coco" / "annotations.json").read_bytes()],
    "labels": lambda folder: [
        (folder / "labels" / "f0_labels.tif").read_bytes(),
        cv2.imencode(".png", np.kron(np.eye(3, dtype=np.uint16), np.ones((4, 4), np.uint16)))[1].tobytes(),
    ],
    "csv": lambda folder: [
        (folder / "labels" / "cells.csv").read_bytes(), b"file;subject\n\"a.png\";S1\n", b"from,to\nname:^P,pyknotic\n",
    ],
    "class_map": lambda _: [
        b"old=new,group:2=pyknotic,colour:#ff0000=pyknotic,name:^PN.*=pyknotic",
        ",".join(f"class {i}=pyknotic" for i in range(100)).encode(),
    ],
    "image": _images,
}  # fmt: skip


def survives(parser: str, data: bytes) -> None:
    """Parse; swallow a sentence for a person, let all other exceptions through."""
    try:
        PARSERS[parser](data)
    except (DataError, ConfigError) as error:
        if not str(error).strip():
            raise AssertionError("an error without a word") from error
