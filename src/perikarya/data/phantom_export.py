"""The phantom as a lab would bring it: images, and beside each the objects of its cells as QuPath exports them."""

from __future__ import annotations

import csv
import json
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from perikarya.data.outlines import read_outlines
from perikarya.data.outlines.base import Outline
from perikarya.data.outlines.geojson_rings import geometry_of_rings
from perikarya.data.outlines.trace import rings_of
from perikarya.data.phantom import TRUTH_SUMMARY, TRUTH_TABLE, paint_source
from perikarya.data.phantom_plan import CLASS_NAMES, PhantomSettings
from perikarya.palette import class_colours, rgb
from perikarya.runs import new_folder, write_text
from perikarya.schema import DEVELOPMENT, EXTERNAL

FOLDERS = {DEVELOPMENT: "graded", EXTERNAL: "new"}  # set -> where its fields lie
METADATA_FILE = "metadata.csv"
_LABELS = "_labels.tif"
_COLUMNS = ("file", "subject", "region", "group")
_NAMESPACE = uuid.UUID("0f1c56f1-4b0a-5a83-9a53-5f3a0e6c2d11")  # of the ids QuPath would have drawn at random


def export_phantom(out: Path, *, settings: PhantomSettings | None = None, overwrite: bool = False) -> Path:
    """Paint a phantom and leave what a lab has after its work in QuPath; no study is made.

    ``out/graded`` holds the fields of the development animals, with the class of every cell, and ``out/new`` those
    of the external animals, outlined but without classes. Beside each ``<field>.png`` lies ``<field>.geojson``, in
    each folder a ``metadata.csv`` (file, subject, region, group). ``out/truth.csv`` and ``out/truth.json`` hold the
    truth behind both, as in a phantom study.

    Parameters
    ----------
    out
        The folder to make.
    settings
        What to paint; None: the defaults. The same settings give the same cells as ``make_phantom``.
    overwrite
        Replace such a folder that is there already.

    Returns
    -------
    ``out``.

    Raises
    ------
    DataError
        If ``out`` exists and is not to be overwritten, or is something else than an exported phantom.
    """
    with (
        new_folder(
            out,
            is_ours=lambda folder: (folder / TRUTH_TABLE).is_file() and (folder / FOLDERS[DEVELOPMENT]).is_dir(),
            what="an exported phantom",
            why="somebody may be working with it",
            overwrite=overwrite,
        ) as part,
        TemporaryDirectory(dir=part) as temporary,
    ):
        painted = Path(temporary) / "painted"
        paint_source(painted, settings or PhantomSettings())
        rows: dict[str, list[tuple[str, ...]]] = {name: [] for name in FOLDERS.values()}
        for labels in sorted(painted.glob(f"*{_LABELS}")):
            folder, row = _export_field(labels, part)
            rows[folder].append(row)
        for folder, found in rows.items():
            _write_metadata(part / folder / METADATA_FILE, found)
        for name in (TRUTH_TABLE, TRUTH_SUMMARY):
            (painted / name).replace(part / name)
    return out


def _export_field(labels: Path, out: Path) -> tuple[str, tuple[str, ...]]:
    """Move one image and write its objects; return the folder and the row of its table."""
    image = labels.with_name(f"{labels.name.removesuffix(_LABELS)}.png")
    outlines = read_outlines(labels, image=image).outlines
    words: Mapping[str, str] = outlines[0].words  # a field shows one region of one animal
    folder = FOLDERS[words["set"]]
    target = out / folder / image.name
    target.parent.mkdir(exist_ok=True)
    features = list(_features(image.name, outlines, with_classes=words["set"] == DEVELOPMENT))
    text = json.dumps({"type": "FeatureCollection", "features": features}, separators=(",", ":"))
    write_text(target.with_suffix(".geojson"), text + "\n")
    image.replace(target)
    return folder, (image.name, words["subject"], words["region"], words["group"])


def _features(image: str, outlines: tuple[Outline, ...], *, with_classes: bool) -> Iterator[dict[str, Any]]:
    """Iterate over the objects of a field, as QuPath 0.4 to 0.6 write annotations."""
    colours = dict(zip(CLASS_NAMES, class_colours(len(CLASS_NAMES)), strict=True))
    for outline in outlines:
        properties: dict[str, Any] = {"objectType": "annotation"}
        if with_classes and outline.label is not None:
            properties["classification"] = {"name": outline.label, "color": list(rgb(colours[outline.label]))}
        yield {
            "type": "Feature",
            "id": str(uuid.uuid5(_NAMESPACE, f"{image}#{outline.key}")),
            "geometry": geometry_of_rings(rings_of(outline)),
            "properties": properties,
        }


def _write_metadata(path: Path, rows: list[tuple[str, ...]]) -> None:
    if not rows:  # no external animals were painted
        return
    with path.open("w", newline="", encoding="utf-8") as handle:
        table = csv.writer(handle, lineterminator="\n")
        table.writerow(_COLUMNS)
        table.writerows(rows)
