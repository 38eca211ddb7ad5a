"""From scanned cells to a study folder: classes, window, identities, then crops, files and tables."""

from __future__ import annotations

import csv
import logging
import math
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from perikarya.data.images import bits_needed
from perikarya.data.importers.base import CutSettings, ImportOptions, Problem, Scan, SourceCell, tracked
from perikarya.data.importers.scale import (
    MAX_WINDOW_PX,
    MIN_WINDOW_PX,
    parse_window,
    study_scale,
    with_scale,
)
from perikarya.data.phash import crop_phash
from perikarya.data.store import CropWriter, OpenStudy, new_study_folder, open_study, save_tables
from perikarya.data.windows import scale_of
from perikarya.errors import ConfigError, DataError, ImportRefusedError
from perikarya.runs import provenance
from perikarya.schema import Study

log = logging.getLogger(__name__)

SEVERITY = ("normal", "intermediate", "pyknotic")  # the order of classes that carry these names
_ALMOST_ALL = 0.99  # of the cells fit into the default window
_MARGIN = 0.25  # context around a cell in the default window, share of its size
_SQUARE_ISH = 0.8  # shorter / longer side
_MAX_LISTED = 200  # refused files, and notes, named in study.yaml; all refused files are in refused.csv


def write_study(out: Path, scans: Sequence[Scan], *, layout: str, options: ImportOptions) -> OpenStudy:
    """Write a study from the scans of its sources (development first), whole or not at all.

    Raises
    ------
    ImportRefusedError
        If files cannot become cells (unless ``skip_bad``), or none can.
    """
    cells = [(scan, cell) for scan in scans for cell in scan.cells]
    class_names = _class_names([cell for _, cell in cells], options.classes)
    problems = _all_problems(scans, set(class_names))
    good = [[cell for cell in scan.cells if cell.label is None or cell.label in class_names] for scan in scans]
    good = [with_scale(part, options.um_per_px) for part in good]
    n_good = sum(map(len, good))
    if problems and not (options.skip_bad and n_good):
        raise ImportRefusedError(scans[0].root, problems, n_good=n_good)
    if not n_good:
        raise DataError(f"There are no cells in {scans[0].root}.\nFix: check the folder; see 'perikarya study import'.")
    um_per_px, scale_notes = study_scale([scan.root for scan in scans], good, given=options.um_per_px)
    settings = CutSettings(
        window_px=_window_px(scans, good, um_per_px, options.window),
        bits=bits_needed(max(scan.max_16bit for scan in scans)),
        um_per_px=um_per_px,
    )
    ids = unique_ids([cell for part in good for cell in part])
    with new_study_folder(out, overwrite=options.overwrite) as root:
        phashes = _write_crops(root, scans, good, ids, settings, show=options.progress)
        frame = _table([cell for part in good for cell in part], ids, phashes)
        about = (
            provenance()
            | {
                "layout": layout,
                "sources": [str(scan.root) for scan in scans],  # development first
                "notes": [*_notes(scans), *scale_notes],
                "bits_of_16bit_images": settings.bits if any(scan.max_16bit for scan in scans) else None,
                "n_refused": len(problems),
                "refused": [list(problem) for problem in problems[:_MAX_LISTED]],
            }
        )
        if problems:
            _write_refused(root / "refused.csv", problems)
        save_tables(root, _study(out, class_names, settings, frame, options, about), frame)
    for note in about["notes"]:
        log.info("%s", note)
    return open_study(out)


def unique_ids(cells: Sequence[SourceCell]) -> list[str]:
    """Name every cell by its pixels and outline; exact copies get -2, -3 … in order."""
    seen: Counter[str] = Counter()
    ids = []
    for cell in cells:
        seen[cell.digest] += 1
        ids.append(cell.digest if seen[cell.digest] == 1 else f"{cell.digest}-{seen[cell.digest]}")
    return ids


def _notes(scans: Sequence[Scan]) -> list[str]:
    prefixes = [f"{scan.root.name}: " if len(scans) > 1 else "" for scan in scans]
    notes = [prefix + note for prefix, scan in zip(prefixes, scans, strict=True) for note in scan.notes]
    if len(notes) <= _MAX_LISTED:  # a slide can have several, and study.yaml is a small file
        return notes
    return [*notes[:_MAX_LISTED], f"{len(notes) - _MAX_LISTED} further remarks on single images are left out here."]


def _class_names(cells: Sequence[SourceCell], wanted: tuple[str, ...] | None) -> tuple[str, ...]:
    if wanted is not None:
        if not wanted or len(set(wanted)) != len(wanted) or any(not name.strip() for name in wanted):
            raise ConfigError(f"--classes {','.join(wanted)} must name each class once.")
        return wanted
    names = sorted({cell.label for cell in cells if cell.label is not None})
    if set(map(str.lower, names)) <= set(SEVERITY) and len({name.lower() for name in names}) == len(names):
        names.sort(key=lambda name: SEVERITY.index(name.lower()))
    return tuple(names)


def _all_problems(scans: Sequence[Scan], class_names: set[str]) -> list[Problem]:
    problems: list[Problem] = []
    for i, scan in enumerate(scans):
        found = list(scan.problems)
        for cell in scan.cells:
            if cell.label is not None and cell.label not in class_names:
                known = ", ".join(sorted(class_names))
                found.append((cell.source, f"is of class '{cell.label}', which --classes does not name ({known})"))
        # paths of the first source are relative to it, as in the message; those of others need their folder
        problems += [(path if i == 0 else str(scan.root / path), reason) for path, reason in found]
    return problems


def _window_px(
    scans: Sequence[Scan],
    good: Sequence[Sequence[SourceCell]],
    um_per_px: float | None,
    wanted: int | str | None,
) -> int:
    if wanted is not None:
        return parse_window(wanted, um_per_px)
    cells = [cell for part in good for cell in part]
    sizes = {cell.image_hw for cell in cells}
    if len(sizes) == 1 and all(scan.one_cell_per_image for scan in scans):
        short, long = sorted(next(iter(sizes)))
        if short >= _SQUARE_ISH * long and MIN_WINDOW_PX <= long <= MAX_WINDOW_PX:
            return long
    sides = np.array([max(cell.bbox_xywh[2:]) / scale_of(cell.um_per_px, um_per_px) for cell in cells])
    # "higher": a share of cells is held, not a size between two cells
    side = float(np.quantile(sides, _ALMOST_ALL, method="higher")) * (1 + _MARGIN)
    return int(np.clip(2 * math.ceil(side / 2), MIN_WINDOW_PX, MAX_WINDOW_PX))


def _write_crops(
    root: Path,
    scans: Sequence[Scan],
    good: Sequence[Sequence[SourceCell]],
    ids: Sequence[str],
    settings: CutSettings,
    *,
    show: bool,
) -> list[str]:
    """Write ``crops.npy`` and copy the files; return the descriptor of each crop."""
    phashes: list[str] = []
    copied: set[str] = set()
    with CropWriter(root / "crops.npy", n_cells=len(ids), window_px=settings.window_px) as writer:
        for scan, cells in zip(scans, good, strict=True):
            crops = scan.cut(cells, settings)
            shown = tracked(zip(cells, crops, strict=True), "cutting windows", total=len(cells), show=show)
            for cell, crop in shown:
                for path, inside in scan.files_of(cell, ids[len(phashes)]):
                    if inside not in copied:
                        copied.add(inside)
                        (root / inside).parent.mkdir(parents=True, exist_ok=True)
                        shutil.copyfile(path, root / inside)
                writer.append(crop)
                phashes.append(crop_phash(crop))
    return phashes


def _table(cells: Sequence[SourceCell], ids: Sequence[str], phashes: Sequence[str]) -> pd.DataFrame:
    columns = (
        "label", "subject", "image_id", "region", "group", "set", "x_px", "y_px", "area_px", "um_per_px",
        "image_sha256", "source",
    )  # fmt: skip
    frame = pd.DataFrame({column: [getattr(cell, column) for cell in cells] for column in columns})
    return frame.assign(cell_id=list(ids), crop_phash=list(phashes))


def _study(
    out: Path,
    class_names: tuple[str, ...],
    settings: CutSettings,
    frame: pd.DataFrame,
    options: ImportOptions,
    about: dict[str, Any],
) -> Study:
    if not class_names:
        raise DataError("No cell has a class; a study needs at least one.\nFix: give labels, or name --classes.")
    said = {key: value for key, value in asdict(options).items() if key not in ("progress", "overwrite")}
    about["options"] = {key: str(value) if isinstance(value, Path) else value for key, value in said.items()}
    return Study(
        name=options.name or out.name,
        class_names=class_names,
        um_per_px=settings.um_per_px,
        window_px=settings.window_px,
        regions=tuple(sorted(frame["region"].dropna().unique())),
        groups=tuple(sorted(frame["group"].dropna().unique())),
        provenance=about,
    )


def _write_refused(path: Path, problems: Sequence[Problem]) -> None:
    with path.open("w", encoding="utf-8", newline="") as handle:
        writer = csv.writer(handle)
        writer.writerow(["file", "reason"])
        writer.writerows(problems)
