"""A synthetic study with known truth: whole fields of stained tissue are painted, then imported like real ones.

What is painted: the three classes of neurons in six regions, three groups and two sets of animals, with glia,
vessels and neurons out of focus as distractors; stain varies by animal, light, focus and noise by field. The truth
(true classes, expected fractions) is kept beside the study, in ``truth.csv`` and ``truth.json``.
"""

from __future__ import annotations

import csv
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import tifffile
from numpy.typing import NDArray

from perikarya.data.importers import import_study
from perikarya.data.importers.base import ImportOptions, map_threaded
from perikarya.data.importers.label_table import CELLS_NAME
from perikarya.data.phantom_paint import paint_field
from perikarya.data.phantom_plan import (
    CLASS_NAMES,
    GROUPS,
    REGIONS,
    Animal,
    FieldPlan,
    PhantomSettings,
    class_fractions,
    plan_animals,
    plan_fields,
    record_labels,
)
from perikarya.data.store import OpenStudy, new_study_folder, open_study
from perikarya.errors import DataError
from perikarya.runs import write_bytes, write_json
from perikarya.schema import SCHEMA_VERSION, Study

__all__ = ["PhantomSettings", "make_phantom", "paint_source", "read_truth"]

TRUTH_TABLE, TRUTH_SUMMARY = "truth.csv", "truth.json"
_PNG_FAST = (cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_HUFFMAN_ONLY)  # noise leaves nothing else to gain
_CELLS_HEADER = ("image", "label_id", "x_px", "y_px", "class", "subject", "region", "group", "set")
_TRUTH_HEADER = ("source", "true_class", "recorded_class", "severity", "area_px", *_CELLS_HEADER[5:])

_Item = tuple[FieldPlan, NDArray[np.int64]]


def make_phantom(out: Path, *, settings: PhantomSettings | None = None, overwrite: bool = False) -> OpenStudy:
    """Paint a phantom study and import it.

    Parameters
    ----------
    out
        The study folder to make. Besides what every study has, it holds ``fields/`` (images, label maps and
        ``cells.csv``; can be imported by itself), ``truth.csv`` (per cell) and ``truth.json`` (expected fractions).
    settings
        What to paint; None: the defaults. The same settings give the same cells, pixel by pixel.
    overwrite
        Replace a study that is there already.

    Raises
    ------
    DataError
        If ``out`` exists and is not to be overwritten, or is something else than a study.
    """
    settings = settings or PhantomSettings()
    with new_study_folder(out, overwrite=overwrite) as part:
        source, imported = part / ".source", part / ".imported"
        paint_source(source, settings)
        options = ImportOptions(
            layout="labels",
            classes=CLASS_NAMES,
            um_per_px=settings.um_per_px,
            window=settings.window_px,
            name="phantom",
        )
        cells = import_study(source, imported, options=options).cells
        for path in imported.iterdir():
            path.replace(part / path.name)
        _write_truth_with_ids(source / TRUTH_TABLE, part / TRUTH_TABLE, cells)
        (source / TRUTH_SUMMARY).replace(part / TRUTH_SUMMARY)
        _describe(part / "study.yaml", settings)
        imported.rmdir()
        shutil.rmtree(source)
    return open_study(out)


def paint_source(folder: Path, settings: PhantomSettings) -> None:
    """Paint the fields of a phantom study into a new folder that the label-map importer reads.

    Fields are painted and written one by one, so memory stays flat. Writes ``<animal>_<region>_<n>.png``,
    ``…_labels.tif`` (uint16), ``cells.csv``, ``truth.csv`` and ``truth.json``.
    """
    folder.mkdir(parents=True)
    animals = plan_animals(settings)
    rng = np.random.default_rng([settings.seed, 4])
    counts: dict[tuple[str, str], int] = {}
    with (
        (folder / CELLS_NAME).open("w", newline="", encoding="utf-8") as cells_file,
        (folder / TRUTH_TABLE).open("w", newline="", encoding="utf-8") as truth_file,
    ):
        cells, truth = csv.writer(cells_file, lineterminator="\n"), csv.writer(truth_file, lineterminator="\n")
        cells.writerow(_CELLS_HEADER)
        truth.writerow(_TRUTH_HEADER)
        for (plan, true_n), (centre_xy, area_px) in _painted(folder, plan_fields(settings, animals)):
            recorded_n = record_labels(true_n, label_noise=settings.label_noise, rng=rng)
            image = f"{plan.name}.png"
            words = (plan.animal.name, plan.region.name, plan.animal.group, plan.animal.set)
            counts[words[:2]] = counts.get(words[:2], 0) + len(true_n)
            for i, (x, y) in enumerate(centre_xy):
                true, recorded = CLASS_NAMES[true_n[i]], CLASS_NAMES[recorded_n[i]]
                cells.writerow((image, i + 1, f"{x:.1f}", f"{y:.1f}", recorded, *words))
                severity = f"{plan.severity_n[i]:.4f}"
                truth.writerow((f"{image}#{i + 1}", true, recorded, severity, int(area_px[i]), *words))
    write_json(folder / TRUTH_SUMMARY, _summary(settings, animals, counts))


def _painted(
    folder: Path, items: Iterator[_Item]
) -> Iterator[tuple[_Item, tuple[NDArray[np.float64], NDArray[np.int64]]]]:
    def paint(item: _Item) -> tuple[_Item, tuple[NDArray[np.float64], NDArray[np.int64]]]:
        field = paint_field(item[0])
        written, png = cv2.imencode(".png", field.rgb_hwc[..., ::-1], _PNG_FAST)
        if not written:
            raise DataError(f"Field {item[0].name} could not be encoded as PNG.")
        (folder / f"{item[0].name}.png").write_bytes(png.tobytes())
        tifffile.imwrite(folder / f"{item[0].name}_labels.tif", field.labels_hw, compression="zlib", metadata=None)
        return item, (field.centre_xy, field.area_px)

    return map_threaded(paint, items)


def _summary(
    settings: PhantomSettings, animals: Sequence[Animal], counts: dict[tuple[str, str], int]
) -> dict[str, Any]:
    """Return the expected class fractions: of the typical animal of each group, and of each animal."""

    def fractions(group: str, r: int, deviation: float = 0.0) -> dict[str, float]:
        values = class_fractions(group, REGIONS[r], effect=settings.effect, deviation=deviation)
        return {name: round(float(v), 6) for name, v in zip(CLASS_NAMES, values, strict=True)}

    return {
        "schema_version": SCHEMA_VERSION,
        "settings": settings.model_dump(mode="json"),
        "class_names": list(CLASS_NAMES),
        "typical_animal": [
            {"group": group, "region": region.name, "fractions": fractions(group, r)}
            for group in GROUPS
            for r, region in enumerate(REGIONS)
        ],
        "animals": [
            {
                "subject": animal.name,
                "group": animal.group,
                "set": animal.set,
                "region": region.name,
                "n_cells": counts.get((animal.name, region.name), 0),
                "fractions": fractions(animal.group, r, animal.deviation_r[r]),
            }
            for animal in animals
            for r, region in enumerate(REGIONS)
        ],
    }


def _write_truth_with_ids(painted: Path, out: Path, cells: pd.DataFrame) -> None:
    truth = pd.read_csv(painted)
    joined = cells[["cell_id", "source"]].merge(truth, on="source", how="left", validate="one_to_one")
    if joined["true_class"].isna().any() or len(joined) != len(truth):
        raise DataError(f"The imported cells and the painted ones differ ({len(cells)} and {len(truth)}).")
    write_bytes(out, joined.to_csv(index=False, lineterminator="\n").encode())


def _describe(path: Path, settings: PhantomSettings) -> None:
    """Say in ``study.yaml`` what was painted, instead of the folder that is gone."""
    study = Study.load(path)
    known = {k: v for k, v in study.provenance.items() if k not in ("source", "sources")}
    phantom = {"phantom": settings.model_dump(mode="json"), **known}
    study.model_copy(update={"provenance": phantom}).save(path)


def read_truth(root: Path) -> pd.DataFrame:
    """Read the truth behind a phantom study: one row per cell, in the order of its cells table.

    Columns: cell_id, source, true_class, recorded_class, severity (0 normal, 1 intermediate, 2 pyknotic, with the
    spread that ``difficulty`` gives), area_px, subject, region, group, set.

    Raises
    ------
    DataError
        If the study holds no truth, as real ones do not.
    """
    path = root / TRUTH_TABLE
    if not path.is_file():
        raise DataError(f"{path} does not exist; only phantom studies ('perikarya study phantom') know the truth.")
    return pd.read_csv(path)
