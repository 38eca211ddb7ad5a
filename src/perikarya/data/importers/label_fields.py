"""Label maps without a table of cells, as Cellpose leaves them: every number is a cell whose class is unknown."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from glob import escape
from pathlib import Path

from perikarya.data.images import IMAGE_SUFFIXES
from perikarya.data.importers.base import ImportOptions, Problem, Scan
from perikarya.data.importers.beside import scan_beside
from perikarya.data.importers.field_files import is_picture
from perikarya.data.importers.folder_files import walk_files
from perikarya.data.outlines.find import is_label_image
from perikarya.data.outlines.labels import ARCHIVE_REASON, CELLPOSE_ARCHIVE, CELLS_NAME, image_stem, read_labels
from perikarya.errors import DataError


def scan_without_table(source: Path, set_name: str, metadata: Path | None, options: ImportOptions) -> Scan:
    """Take every number of every label map as a cell without a class."""
    if not options.classes:
        raise DataError(
            f"{source} holds no {CELLS_NAME}, which says which outline is which cell.\n"
            "Fix: write one line per cell with the columns image, label_id, x_px, y_px, class; or name --classes to "
            "import all numbers as cells without a class."
        )
    note = f"There is no {CELLS_NAME}; every number in the label maps is a cell without a label."
    return scan_beside(
        "labels", read_labels, source, set_name, metadata, options, notes=[note], problems=_strays(source)
    )


def _strays(source: Path) -> Iterator[Problem]:
    """Yield label maps that belong to no image, and archives of Cellpose whose masks were not saved as an image."""
    by_image: dict[Path, list[Path]] = defaultdict(list)
    for path in label_files(source):
        by_image[path.with_name(image_stem(path))].append(path)
    for image, paths in sorted(by_image.items()):
        maps = [path for path in paths if not path.name.endswith(CELLPOSE_ARCHIVE)]
        if not maps:
            yield paths[0].relative_to(source).as_posix(), ARCHIVE_REASON
        elif not any(is_picture(path.name) for path in image.parent.glob(f"{escape(image.name)}.*")):
            yield maps[0].relative_to(source).as_posix(), "is a label map with no image beside it"


def label_files(source: Path) -> Iterator[Path]:
    """Yield label maps and archives of Cellpose, also in folders inside the source."""
    for path in walk_files(source, []) if source.is_dir() else ():
        is_map = path.suffix.lower() in IMAGE_SUFFIXES and is_label_image(Path(path))
        if is_map or path.name.endswith(CELLPOSE_ARCHIVE):
            yield source / path
