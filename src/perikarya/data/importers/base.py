"""What every importer speaks: cells found in a source, what was wrong, and how to cut their windows later.

An importer reads a source twice. ``scan`` decodes and validates every file and keeps a few numbers and words per
cell; ``Scan.cut`` decodes again and yields the windows, once their size is known. So memory stays flat.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from perikarya.data.identity import cell_digest as cell_digest  # importers find all they need here
from perikarya.data.images import pixel_sha256 as pixel_sha256
from perikarya.data.threads import map_threaded as map_threaded

T = TypeVar("T")

Problem: TypeAlias = tuple[str, str]  # (path relative to the source, reason as a sentence)


@dataclass(frozen=True)
class ImportOptions:
    """What a person may say about an import; the defaults are right for most sources.

    ``window`` is a side in pixels (``80``, ``"80"``, ``"80px"``) or in micrometres (``"40um"``, needs the
    scale of the images); ``classes`` fixes their order; ``external`` is a second source, of the external set;
    ``name_pattern`` is a regular expression with groups named subject, image_id, region or group.
    ``um_per_px`` is the scale of images that do not tell theirs. ``class_map`` says which class names, groups, colours
    or names of the source mean which class, ``regions`` which classes of its annotations are regions that hold cells,
    ``nucleus`` takes the outline of the nucleus where a cell has both (see ``data.outlines``).
    """

    layout: str = "auto"
    metadata: Path | None = None
    external: Path | None = None
    external_metadata: Path | None = None
    name_pattern: str | None = None
    classes: tuple[str, ...] | None = None
    um_per_px: float | None = None
    class_map: str | None = None
    regions: tuple[str, ...] = ()
    nucleus: bool = False
    window: int | str | None = None
    skip_bad: bool = False
    overwrite: bool = False
    name: str | None = None
    progress: bool = False


@dataclass(frozen=True, slots=True)
class SourceCell:
    """One outlined cell of a source: words and numbers only, no pixels.

    ``source`` is the image's path relative to the source root (for fields with ``#<number of the cell>`` behind it)
    and unique within a scan. ``x_px``, ``y_px`` is the centroid of the outline in its image, ``bbox_xywh`` the
    outline's bounding box, ``image_hw`` the image's height and width. ``image_sha256`` is the hash of the decoded
    pixels (``pixel_sha256``), ``digest`` that of the pixels and this outline (``cell_digest``). ``um_per_px`` is the
    scale of the image where it tells it; ``cut`` is given cells that have that of ``--um-per-px`` where it does not.
    """

    source: str
    set: str
    label: str | None
    subject: str | None
    image_id: str
    region: str | None
    group: str | None
    x_px: float
    y_px: float
    area_px: int
    bbox_xywh: tuple[int, int, int, int]
    image_hw: tuple[int, int]
    image_sha256: str
    digest: str
    um_per_px: float | None = None


@dataclass(frozen=True)
class CutSettings:
    """What all windows of an import share: side, scale, and how many bits of 16-bit images become 8.

    Where ``um_per_px`` is given, a window spans ``window_px * um_per_px`` micrometres of every image whose scale is
    known, whatever that scale is.
    """

    window_px: int
    bits: int = 8  # 16-bit values are shifted right by bits - 8
    um_per_px: float | None = None


Cutter: TypeAlias = Callable[[Sequence[SourceCell], CutSettings], Iterator[NDArray[np.uint8]]]
FilesOf: TypeAlias = Callable[[SourceCell, str], Iterable[tuple[Path, str]]]


@dataclass(frozen=True)
class Scan:
    """What an importer found in one source.

    ``cut(cells, settings)`` yields the window of each of the given cells in their order, shape
    (window_px, window_px, 4), uint8 (``cells`` is a subsequence of this scan's cells, in the same order).
    ``files_of(cell, cell_id)`` names the files to keep for a cell: pairs of (path of the file, path inside the study
    such as ``files/development/normal/<cell_id>.png``); a path inside the study that was copied once is not copied
    again. ``max_16bit`` is the largest value over all 16-bit images (0: there are none). ``notes`` are sentences for
    the log and the provenance. ``one_cell_per_image`` lets the window default to the images' own size.
    """

    root: Path
    cells: tuple[SourceCell, ...]
    problems: tuple[Problem, ...]
    cut: Cutter
    files_of: FilesOf
    notes: tuple[str, ...] = ()
    max_16bit: int = 0
    one_cell_per_image: bool = False


@dataclass(frozen=True)
class Importer:
    """One kind of source: how to recognise it, what it looks like in words, and how to read it.

    ``scan(source, set_name, metadata, options)``: ``set_name`` is development or external, ``metadata`` the CSV
    that belongs to this source (or None).
    """

    expects: str  # one line: what a folder of this kind looks like
    recognises: Callable[[Path], bool]
    scan: Callable[[Path, str, Path | None, ImportOptions], Scan]


def tracked(items: Iterable[T], what: str, *, total: int, show: bool) -> Iterator[T]:
    """Iterate with a progress bar on the terminal (stderr) when ``show``."""
    yield from track(items, description=what, total=total, disable=not show, console=Console(stderr=True))
