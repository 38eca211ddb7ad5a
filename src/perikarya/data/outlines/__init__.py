"""Outlines of cells in the formats people draw them in: read, rasterised by one rule, traced and written back."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path, PurePosixPath

from perikarya.data.outlines.base import OutlineError as OutlineError
from perikarya.data.outlines.base import OutlineFile as OutlineFile
from perikarya.data.outlines.classes import ClassMap as ClassMap
from perikarya.data.outlines.find import find_outlines as find_outlines
from perikarya.data.outlines.find import format_of


@dataclass(frozen=True)
class ReadOptions:
    """How a file of outlines is understood.

    Attributes
    ----------
    class_map
        What classes, names, groups and colours of the file mean.
    regions
        Classes (after ``class_map``) whose outlines are regions that hold cells, not cells.
    nucleus
        Take the outline of the nucleus where an object has both.
    """

    class_map: ClassMap = field(default_factory=ClassMap)
    regions: frozenset[str] = frozenset()
    nucleus: bool = False


def read_outlines(path: Path, *, options: ReadOptions = ReadOptions(), image: Path | None = None) -> OutlineFile:
    """Read the outlines of one image from a file of any known format.

    Parameters
    ----------
    path
        QuPath GeoJSON, an ImageJ ROI or zip of ROIs, a TIFF or PNG of numbered cells, or COCO JSON.
    image
        The image, which a COCO file knows by its name; not needed where the file speaks of one image.

    Raises
    ------
    OutlineError
        If the file as a whole is of no use; the message is the bare reason. Single outlines that cannot be used are
        ``problems`` of the result.
    """
    kind = format_of(path)
    if kind == "geojson":
        from perikarya.data.outlines.geojson import read_geojson

        return read_geojson(path, options)
    if kind == "imagej":
        from perikarya.data.outlines.roi import read_rois

        return read_rois(path, options)
    if kind == "labels":
        from perikarya.data.outlines.labels import read_labels

        return read_labels(path, options)
    status = path.stat()
    return _of_image(_read_coco(path, options, status.st_mtime_ns, status.st_size), image)


@lru_cache(maxsize=1)
def _read_coco(path: Path, options: ReadOptions, _mtime_ns: int, _size: int) -> dict[str, OutlineFile]:
    """Read a COCO file once for all its images, as long as it does not change."""
    from perikarya.data.outlines.coco import read_coco

    return read_coco(path, options)


def _of_image(files: dict[str, OutlineFile], image: Path | None) -> OutlineFile:
    """Return what a file of many images says of one: the entry whose path ends most like that of the image."""
    if image is None:
        if len(files) != 1:
            raise OutlineError(f"the file speaks of {len(files)} images; it is unclear which one is meant")
        return next(iter(files.values()))
    named = [name for name in files if PurePosixPath(name.replace("\\", "/")).name == image.name]
    exact = [name for name in named if image.as_posix().endswith(f"/{name}")]
    longest = sorted(exact, key=len)[-1:] or named
    if not longest:
        raise OutlineError(f"the file does not speak of {image.name}")
    if len(longest) > 1:
        raise OutlineError(f"the file speaks of several images called {image.name} ({', '.join(sorted(named)[:3])})")
    return files[longest[0]]
