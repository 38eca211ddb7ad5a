"""The same two fields with three cells each, as every importer takes them; tests then break them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from tests.sources import class_folders, picture, write

from perikarya.data.outlines.base import Outline
from perikarya.data.outlines.roi import RoiCell, write_rois

HW = (40, 48)
FIELDS = ("f0", "f1")
CLASSES = ("normal", "intermediate", "pyknotic")
BOXES = ((4, 5, 10, 8), (20, 6, 9, 9), (10, 24, 12, 10))  # x, y, width, height of the cells


def ring(number: int) -> list[list[float]]:
    """The corners of a cell, closed without repeating the first."""
    x, y, width, height = BOXES[number]
    return [[x, y], [x + width, y], [x + width, y + height], [x, y + height]]


def put_json(path: Path, content: object) -> Path:
    """Write JSON, lone surrogates and NaN included."""
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def put_images(root: Path) -> Path:
    """Write the two images."""
    root.mkdir(parents=True, exist_ok=True)
    for i, name in enumerate(FIELDS):
        write(root / f"{name}.png", picture(i, HW))
    return root


def label_maps(root: Path) -> Path:
    """``f0.png``, ``f0_labels.tif`` and ``cells.csv``."""
    put_images(root)
    labels = np.zeros(HW, np.uint16)
    rows = ["image,label_id,x_px,y_px,class"]
    for number, (x, y, width, height) in enumerate(BOXES, start=1):
        labels[y : y + height, x : x + width] = number
    for name in FIELDS:
        tifffile.imwrite(root / f"{name}_labels.tif", labels, compression="zlib")
        rows += [f"{name}.png,{n},{x + 2},{y + 2},{CLASSES[n - 1]}" for n, (x, y, _, _) in enumerate(BOXES, 1)]
    (root / "cells.csv").write_text("\n".join(rows) + "\n")
    return root


def feature(number: int, **changes: Any) -> dict[str, Any]:
    """One detection of QuPath."""
    return {
        "type": "Feature",
        "id": f"00000000-0000-4000-8000-{number:012d}",
        "geometry": {"type": "Polygon", "coordinates": [[*ring(number), ring(number)[0]]]},
        "properties": {"objectType": "detection", "classification": {"name": CLASSES[number], "color": [1, 2, 3]}},
    } | changes


def geojson(root: Path) -> Path:
    """``f0.png`` and ``f0.geojson``."""
    put_images(root)
    for name in FIELDS:
        features = [feature(number) for number in range(3)]
        put_json(root / f"{name}.geojson", {"type": "FeatureCollection", "features": features})
    return root


def rois(root: Path) -> Path:
    """``f0.png`` and ``f0.zip``."""
    put_images(root)
    cells = [
        RoiCell(Outline(str(n), (np.array(ring(n), float),)), f"cell {n}", class_name=CLASSES[n]) for n in range(3)
    ]
    for name in FIELDS:
        write_rois(root / f"{name}.zip", cells)
    return root


def coco_content() -> dict[str, Any]:
    """What ``coco`` writes: polygons on the first image, plain run lengths for the last cell of the second."""
    annotations: list[dict[str, Any]] = [
        {"id": 10 * i + n, "image_id": i, "category_id": n, "segmentation": [np.ravel(ring(n)).tolist()], "iscrowd": 0}
        for i in range(2)
        for n in range(3)
    ]
    x, y, width, height = BOXES[2]
    runs = [x * HW[0] + y, *[height, HW[0] - height] * (width - 1), height]
    annotations[-1]["segmentation"] = {"size": list(HW), "counts": [*runs, HW[0] * HW[1] - sum(runs)]}
    return {
        "images": [
            {"id": i, "file_name": f"{name}.png", "width": HW[1], "height": HW[0]} for i, name in enumerate(FIELDS)
        ],
        "annotations": annotations,
        "categories": [{"id": n, "name": name} for n, name in enumerate(CLASSES)],
    }


def coco(root: Path) -> Path:
    """``f0.png`` and ``annotations.json``."""
    put_images(root)
    put_json(root / "annotations.json", coco_content())
    return root


def folders(root: Path) -> Path:
    """Class folders: ``images/normal/c0.png`` and ``masks/normal/c0.png``."""
    return class_folders(root)


SOURCES: dict[str, Callable[[Path], Path]] = {
    "folders": folders,
    "labels": label_maps,
    "geojson": geojson,
    "imagej": rois,
    "coco": coco,
}
IMAGES = {"folders": "images/normal/c0.png"} | dict.fromkeys(("labels", "geojson", "imagej", "coco"), "f0.png")
