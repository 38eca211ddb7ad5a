"""Which files of a class-folder source are images, which are their masks, and which are neither. Nothing is opened."""

from __future__ import annotations

import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Literal

from perikarya.data.images import IMAGE_SUFFIXES
from perikarya.data.importers.base import Problem
from perikarya.errors import DataError

MAX_FILES = 2_000_000
METADATA_NAME = "metadata.csv"  # found by itself where it lies in the source
_IMAGE_DIRS = frozenset({"images", "image"})
_MASK_DIRS = frozenset({"masks", "mask"})
_SYSTEM_NAMES = frozenset({"thumbs.db", "desktop.ini", "__macosx", "ehthumbs.db"})
_SIDECARS = frozenset({".csv", ".txt", ".md", ".json", ".xml", ".yaml", ".yml", ".ini", ".log"})
_MASK_NAME = re.compile(r"(?P<stem>.+)[ ._-](mask|seg)", re.IGNORECASE)  # x_mask.png, x-mask.tif, x_seg.png

Kind = Literal["image", "mask", "either"]


@dataclass(frozen=True, slots=True)
class Pair:
    """An image and its mask: paths inside the source with forward slashes; ``name`` is class/…/file as in a table."""

    label: str
    name: str
    image: str
    mask: str


@dataclass
class FoundFiles:
    """All pairs of a source in order of their paths, files that cannot be used with the reason, and remarks."""

    pairs: list[Pair] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    names: dict[str, str] = field(default_factory=dict)  # every image, paired or not: path -> class/…/file


@dataclass(frozen=True, slots=True)
class _File:
    path: str
    label: str
    inner: PurePosixPath  # below the class folder

    @property
    def key(self) -> str:
        return unicodedata.normalize("NFC", str(self.inner.with_suffix("")))

    @property
    def key_without_mark(self) -> str | None:
        match = _MASK_NAME.fullmatch(self.inner.stem)
        return unicodedata.normalize("NFC", str(self.inner.with_name(match["stem"]))) if match else None


def recognises_class_folders(source: Path) -> bool:
    """Tell whether a folder looks like class folders of images and masks (two levels are looked at)."""
    if not source.is_dir():
        return False
    folders = [entry for entry in source.iterdir() if entry.is_dir() and not _is_system(entry.name)]
    if _holds_both(folder.name for folder in folders):
        return True
    for folder in folders:
        entries = [entry for entry in folder.iterdir() if not _is_system(entry.name)]
        if _holds_both(entry.name for entry in entries if entry.is_dir()):
            return True
        stems = {entry.stem for entry in entries if entry.suffix.lower() in IMAGE_SUFFIXES}
        if any((match := _MASK_NAME.fullmatch(stem)) and match["stem"] in stems for stem in stems):
            return True
    return False


def find_files(source: Path) -> FoundFiles:
    """Pair the images of a source with their masks.

    Raises
    ------
    DataError
        If the folder holds more than ``MAX_FILES`` files.
    """
    found = FoundFiles()
    paths = list(walk_files(source, found.problems))
    kind_first = _holds_both(path.parts[0] for path in paths if len(path.parts) > 1)
    with_folders = {path.parts[0] for path in paths if len(path.parts) > 2 and _dir_kind(path.parts[1]) != "either"}
    files: dict[Kind, list[_File]] = {"image": [], "mask": [], "either": []}
    n_sidecars = n_stray = 0
    for path in paths:
        if path.suffix.lower() in _SIDECARS:
            n_sidecars += str(path) != METADATA_NAME
            continue
        placed = _place_kind_first(path) if kind_first else _place_class_first(path, with_folders)
        if placed is None:
            n_stray += 1
        elif isinstance(placed, str):
            found.problems.append((str(path), placed))
        elif path.suffix.lower() not in IMAGE_SUFFIXES:
            found.problems.append((str(path), "is not a PNG, JPEG, TIFF or BMP file; move it out of the class folders"))
        else:
            files[placed[0]].append(placed[1])
    for count, what in ((n_sidecars, "text"), (n_stray, "other")):
        if count:
            found.notes.append(f"{count} {what} file(s) that are neither images nor masks of a class were left aside.")
    _tell_masks_by_name(files, found.problems)
    _pair(files["image"], files["mask"], found)
    return found


def _is_system(name: str) -> bool:
    return name.startswith(".") or name.lower() in _SYSTEM_NAMES


def _dir_kind(name: str) -> Kind:
    return "image" if name.lower() in _IMAGE_DIRS else "mask" if name.lower() in _MASK_DIRS else "either"


def _holds_both(names: Iterator[str]) -> bool:
    return {"image", "mask"} <= {_dir_kind(name) for name in names}


def walk_files(source: Path, problems: list[Problem]) -> Iterator[PurePosixPath]:
    """Yield all files below a folder in order of their paths; links that leave it are listed as problems."""
    root = source.resolve()
    n_files = 0
    for folder, folders, names in os.walk(source, onerror=_raise_unreadable):
        here = Path(folder)
        inner = PurePosixPath(here.relative_to(source).as_posix())
        links = [str(inner / name) for name in sorted(folders) if (here / name).is_symlink()]
        problems += [(link, "is a link to a folder; links are not followed, copy the files here") for link in links]
        folders[:] = sorted(name for name in folders if not _is_system(name))
        for name in sorted(name for name in names if not _is_system(name)):
            n_files += 1
            if n_files > MAX_FILES:
                raise DataError(f"{source} holds more than {MAX_FILES} files; that is no folder of outlined cells.")
            if not name.isprintable():
                problems.append((repr(str(inner / name)), "has a name with unprintable characters; rename it"))
            elif (here / name).is_symlink() and not (here / name).resolve().is_relative_to(root):
                problems.append((str(inner / name), "is a link that leaves the folder; copy the file here"))
            else:
                yield inner / name


def _raise_unreadable(error: OSError) -> None:
    raise DataError(f"{error.filename} cannot be listed ({error.strerror}).\nFix: allow reading it.")


def _place_kind_first(path: PurePosixPath) -> tuple[Kind, _File] | str | None:
    """Place a file of ``images/<class>/…`` and ``masks/<class>/…``."""
    kind = _dir_kind(path.parts[0])
    if kind == "either" or len(path.parts) == 1:
        return None
    if len(path.parts) == 2:
        return f"lies in no class folder; expected {path.parts[0]}/<class>/{path.name}"
    return kind, _File(str(path), path.parts[1], PurePosixPath(*path.parts[2:]))


def _place_class_first(path: PurePosixPath, with_folders: set[str]) -> tuple[Kind, _File] | str | None:
    """Place a file of ``<class>/images/…`` and ``<class>/masks/…``, or of ``<class>/…`` with marks in the names."""
    if len(path.parts) == 1:
        return "lies in no class folder" if path.suffix.lower() in IMAGE_SUFFIXES else None
    label = path.parts[0]
    if label not in with_folders:
        return "either", _File(str(path), label, PurePosixPath(*path.parts[1:]))
    kind = _dir_kind(path.parts[1])
    if len(path.parts) == 2 or kind == "either":
        return f"lies neither in {label}/images nor in {label}/masks"
    return kind, _File(str(path), label, PurePosixPath(*path.parts[2:]))


def _tell_masks_by_name(files: dict[Kind, list[_File]], problems: list[Problem]) -> None:
    """Divide the files that lie side by side: ``x_mask`` is a mask where there is an ``x``."""
    keys = {(file.label, file.key) for file in files["either"]}
    masks = [f for f in files["either"] if f.key_without_mark and (f.label, f.key_without_mark) in keys]
    of_image = {(mask.label, mask.key_without_mark) for mask in masks}
    for file in files["either"]:
        if file.key_without_mark and (file.label, file.key_without_mark) in keys:
            files["mask"].append(file)
        elif file.key_without_mark and (file.label, file.key) not in of_image:
            problems.append((file.path, f"is named like a mask but there is no image {file.key_without_mark}.*"))
        else:
            files["image"].append(file)


def _pair(images: list[_File], masks: list[_File], found: FoundFiles) -> None:
    images_of: dict[tuple[str, str], list[_File]] = defaultdict(list)
    masks_of: dict[tuple[str, str], list[_File]] = defaultdict(list)
    for image in images:
        images_of[image.label, image.key].append(image)
        found.names[image.path] = f"{image.label}/{image.inner}"
    for mask in masks:
        keys = [(mask.label, key) for key in (mask.key, mask.key_without_mark) if key]
        key = next((key for key in keys if key in images_of), None)
        if key is None:
            found.problems.append((mask.path, f"is a mask without an image (no {mask.label} image {mask.key}.*)"))
        else:
            masks_of[key].append(mask)
    for key, twins in sorted(images_of.items()):
        own = masks_of[key]
        if len(twins) > 1:
            others = ", ".join(image.path for image in twins)
            found.problems += [
                (i.path, f"several images have this name ({others}); it is unclear whose mask it is") for i in twins
            ]
        elif not own:
            found.problems.append(
                (twins[0].path, f"is an image without a mask (no {twins[0].label} mask {twins[0].key}.*)")
            )
        elif len(own) > 1:
            found.problems.append((twins[0].path, f"has several masks ({', '.join(mask.path for mask in own)})"))
        else:
            image = twins[0]
            found.pairs.append(Pair(image.label, f"{image.label}/{image.inner}", image.path, own[0].path))
