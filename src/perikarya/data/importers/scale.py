"""One scale for all windows of a study: what images tell, what a person adds, and the coarsest of what differs."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from perikarya.data.importers.base import SourceCell
from perikarya.data.windows import scale_of
from perikarya.errors import ConfigError, DataError

MIN_WINDOW_PX, MAX_WINDOW_PX = 8, 512  # of windows that are chosen by themselves
_LARGEST_WINDOW_PX = 2048
_LARGEST_RATIO = 10.0  # 40x and 5x objectives differ by 8; more is a scale that a program made up
_N_NAMED = 3  # images named in a message


def study_scale(
    roots: Sequence[Path], cells: Sequence[Sequence[SourceCell]], *, given: float | None
) -> tuple[float | None, list[str]]:
    """Find the scale of a study's windows.

    Parameters
    ----------
    roots, cells
        Folders of the sources and their cells, which say the scale of their image where it is known (``with_scale``).
    given
        ``--um-per-px``, the scale of images that do not tell theirs.

    Returns
    -------
    um_per_px
        The scale all images share (see ``windows.scale_of``); else the coarsest of them: finer images can be shrunk to
        it, while detail that is not there cannot be added. None where nobody knows any.
    notes
        Remarks on images of other scales, for the log and the provenance.

    Raises
    ------
    DataError
        If the scale of some images only is known, or scales differ more than objectives do.
    """
    scales = {
        f"{root.name}/{cell.source.partition('#')[0]}": cell.um_per_px
        for root, part in zip(roots, cells, strict=True)
        for cell in part
    }
    known = {image: scale for image, scale in scales.items() if scale is not None}
    unknown = [image for image, scale in scales.items() if scale is None]
    if not known:
        return None, []
    if unknown:
        raise DataError(
            f"{len(unknown)} of {len(scales)} images do not tell their scale ({_some(unknown)}); the others do "
            f"({_span(known.values())}).\n"
            "Cells whose size is unknown cannot be brought to one window with the others.\n"
            "Fix: give the scale of the images that do not tell it with --um-per-px."
        )
    finest, coarsest = min(known, key=known.__getitem__), max(known, key=known.__getitem__)
    if known[coarsest] > _LARGEST_RATIO * known[finest]:
        raise DataError(
            f"The scales of the images differ {known[coarsest] / known[finest]:.0f}-fold: {known[finest]:g} µm/px "
            f"({finest}) to {known[coarsest]:g} µm/px ({coarsest}).\n"
            "Objectives do not differ so much: one scale is made up, and all windows would follow it.\n"
            "Fix: correct the pixel size in the wrong images, or save them without one and give --um-per-px."
        )
    return known[coarsest], _notes(known, known[coarsest], given)


def with_scale(cells: Sequence[SourceCell], given: float | None) -> list[SourceCell]:
    """Give the cells of images that do not tell their scale the one of ``--um-per-px``."""
    return [cell if given is None or cell.um_per_px is not None else replace(cell, um_per_px=given) for cell in cells]


def parse_window(window: int | str, um_per_px: float | None) -> int:
    """Turn ``80``, ``"80px"`` or ``"40um"`` into pixels of a scale; raise ``ConfigError`` when it does not fit."""
    size, in_um = _size(window)
    if in_um:
        if um_per_px is None:
            raise ConfigError(
                f"--window {window} needs the scale of the images, which do not tell it.\nFix: add --um-per-px."
            )
        size = round(size / um_per_px)
    if size != int(size) or not MIN_WINDOW_PX <= size <= _LARGEST_WINDOW_PX:
        raise ConfigError(
            f"--window {window} is {size:g} px; it must be a whole number from {MIN_WINDOW_PX} to {_LARGEST_WINDOW_PX}."
        )
    return int(size)


def check_window(window: int | str) -> None:
    """Raise ``ConfigError`` for a window that is wrong whatever the scale of the images is."""
    if not _size(window)[1]:
        parse_window(window, None)


def check_scale(um_per_px: float | None) -> None:
    """Raise ``ConfigError`` when the scale is no positive number."""
    if um_per_px is not None and not (math.isfinite(um_per_px) and um_per_px > 0):
        raise ConfigError(f"--um-per-px {um_per_px} is not a positive number of micrometres per pixel.")


def _size(window: int | str) -> tuple[float, bool]:
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(px|um|µm|μm)?\s*", str(window))
    if match is None:
        raise ConfigError(f"--window '{window}' is neither pixels (80) nor micrometres (40um).")
    return float(match[1]), match[2] not in (None, "px")


def _notes(known: Mapping[str, float], coarsest: float, given: float | None) -> list[str]:
    notes = []
    finer = [image for image, scale in known.items() if scale_of(scale, coarsest) != 1]
    if finer:
        notes.append(
            f"The images have several scales, {_span(known.values())}; all windows have the coarsest, to which those "
            f"of {len(finer)} image(s) are shrunk ({_some(finer)})."
        )
    telling = {image: scale for image, scale in known.items() if scale_of(scale, given) != 1}
    if telling:
        notes.append(
            f"{len(telling)} image(s) tell {_span(telling.values())}, not the {given:g} of --um-per-px; what they tell "
            f"holds ({_some(list(telling))})."
        )
    return notes


def _span(scales: Iterable[float]) -> str:
    values = sorted(set(scales))
    return f"{values[0]:g} µm/px" if len(values) == 1 else f"{values[0]:g} to {values[-1]:g} µm/px"


def _some(images: Sequence[str]) -> str:
    more = f" and {len(images) - _N_NAMED} more" if len(images) > _N_NAMED else ""
    return ", ".join(images[:_N_NAMED]) + more
