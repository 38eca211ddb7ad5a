"""COCO: one JSON file for all images of a folder, as labelling tools export it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from perikarya.data.importers.base import Importer, ImportOptions, Problem, Scan
from perikarya.data.importers.field_files import is_picture
from perikarya.data.importers.fields import OutlinedField, metadata_of, read_options, scan_fields, words_of_fields
from perikarya.data.outlines import OutlineError, OutlineFile, ReadOptions
from perikarya.data.outlines.base import MAX_FILE_BYTES
from perikarya.data.outlines.coco import CocoFile, read_coco_file
from perikarya.errors import DataError

# most telling first: by hand and Label Studio, Roboflow, CVAT and COCO itself, any other
_NAMES = ("annotations.json", "result.json", "_annotations.coco.json", "instances_*.json", "*.json")
_FOLDERS = (".", "annotations")  # where CVAT and COCO itself put them
_IMAGES, _ANNOTATIONS = (re.compile(rb'"%s"\s*:\s*\[' % word) for word in (b"images", b"annotations"))
_CHUNK_BYTES = 2**22
_OVERLAP_BYTES = 200  # a key and the space around it, at the seam of two chunks
_HEAD_BYTES = 4096


def scan_coco(source: Path, set_name: str, metadata: Path | None, options: ImportOptions) -> Scan:
    """Read a COCO file and the images it names, and list what cannot become a cell.

    Parameters
    ----------
    source
        A folder with one COCO file (also in ``annotations/``), or that file. The images lie beside it, in ``images/``,
        or in a folder named after the subset (``instances_train.json``: ``train/``, ``images/train/``).
    set_name
        Development or external.
    metadata
        Table with a column ``file`` that tells subject, region or group of an image; None: ``metadata.csv`` in the
        folder, where there is one.
    """
    path = _find_json(source)
    root = path.parent.parent if path.parent.name == _FOLDERS[1] else path.parent
    reading = read_options(options)
    try:
        file = read_coco_file(path, reading)
    except OutlineError as error:
        problems: list[Problem] = [(_inside(root, path), str(error))]
        return scan_fields(root, [], set_name=set_name, options=options, problems=problems)
    return _scan_images(root, path, file, reading, set_name=set_name, metadata=metadata, options=options)


def recognises_coco(source: Path) -> bool:
    """Tell whether a file is a COCO file, or a folder holds one."""
    return is_coco(source) if source.is_file() else any(map(is_coco, _json_files(source, "*.json")))


COCO = Importer(
    expects="COCO: one .json with images, annotations (polygons or masks) and categories, the images beside it or in "
    "images/ (several .json: give the one that is meant)",
    recognises=recognises_coco,
    scan=scan_coco,
)


def is_coco(path: Path) -> bool:
    """Tell whether a file looks like COCO JSON: it has lists of images and of annotations, and is no GeoJSON."""
    if path.suffix.lower() != ".json" or not path.is_file() or path.stat().st_size > MAX_FILE_BYTES:
        return False
    has_images = has_annotations = False
    try:
        with path.open("rb") as handle:
            head = chunk = handle.read(_HEAD_BYTES)
            if not head.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"{") or b'"Feature' in head:
                return False
            while chunk:
                has_images = has_images or _IMAGES.search(chunk) is not None
                has_annotations = has_annotations or _ANNOTATIONS.search(chunk) is not None
                if has_images and has_annotations:
                    return True
                following = handle.read(_CHUNK_BYTES)
                chunk = chunk[-_OVERLAP_BYTES:] + following if following else b""
    except OSError:
        return False
    return False


def _find_json(source: Path) -> Path:
    if source.is_file():
        return source
    for pattern in _NAMES:
        found = [path for path in _json_files(source, pattern) if is_coco(path)]
        if len(found) == 1:
            return found[0]
        if found:
            listed = ", ".join(_inside(source, path) for path in found[:5])
            raise DataError(
                f"{source} holds {len(found)} COCO files ({listed}).\n"
                "Which one is meant is for a person to say. Fix: give the file itself instead of the folder."
            )
    others = ", ".join(_inside(source, path) for path in _json_files(source, "*.json")[:5])
    raise DataError(
        f"{source} holds no COCO file (a .json with lists of images and annotations)"
        f"{f'; what it holds is empty or of another kind ({others})' if others else ''}.\n"
        "Fix: export the annotations as 'COCO' with polygons or masks into this folder."
    )


def _json_files(source: Path, pattern: str) -> list[Path]:
    return [path for folder in _FOLDERS for path in sorted((source / folder).glob(pattern))]


def _scan_images(
    root: Path,
    path: Path,
    file: CocoFile,
    reading: ReadOptions,
    *,
    set_name: str,
    metadata: Path | None,
    options: ImportOptions,
) -> Scan:
    problems: list[Problem] = [(f"{_inside(root, path)}#{where}", reason) for where, reason in file.problems]
    notes: list[str] = []
    images = _locate(root, path, file.images, problems)
    table = metadata_of(root, metadata, notes)
    used = [image for image, said in images.items() if said.outlines or said.problems]
    if len(used) < len(images):
        notes.append(f"{len(images) - len(used)} of {len(images)} images have no annotations.")
    words = words_of_fields([*images], used, table, options.name_pattern, problems)
    fields = [
        OutlinedField(image, lambda said=images[image]: said, (path,), told)  # type: ignore[misc]
        for image, told in words.items()
    ]
    return scan_fields(
        root,
        fields,
        set_name=set_name,
        options=options,
        problems=problems,
        notes=notes,
        reading=reading,
        metadata=table,
    )


def _locate(
    root: Path, path: Path, images: Mapping[str, OutlineFile], problems: list[Problem]
) -> dict[str, OutlineFile]:
    """Return what the file says of each image by where that lies in the folder; the others become problems."""
    subset = path.stem.removeprefix("instances_")
    folders = [path.parent, path.parent / "images", root, root / "images", root / "images" / subset, root / subset]
    found: dict[str, OutlineFile] = {}
    for name, said in images.items():
        place = _place_of(name, folders)
        lost = len(said.outlines) + len(said.problems)
        if place is None:
            problems.append((name, f"there is no such image beside {path.name}; {lost} annotation(s) need it"))
        elif not is_picture(name):
            problems.append((name, f"is not a kind of image that can be read; {lost} annotation(s) need it"))
        elif (image := _inside(root, place)) in found:
            problems.append((name, f"is the same image as another one of {path.name}; {lost} annotation(s) need it"))
        else:
            found[image] = said
    return found


def _place_of(name: str, folders: Sequence[Path]) -> Path | None:
    return next((folder / name for folder in folders if (folder / name).is_file()), None)


def _inside(root: Path, path: Path) -> str:
    return path.relative_to(root).as_posix()
