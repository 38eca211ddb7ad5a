"""A model nobody trained and fields nobody predicted: what the writers of results are given, made by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from tests.sources import picture, write

from perikarya.data.outlines.base import CellMask, Outline, Ring
from perikarya.palette import class_colours
from perikarya.predict.fields import PredictedField
from perikarya.predict.inputs import FieldInput
from perikarya.predict.manifest import ModelManifest

CLASSES = ("normal", "intermediate", "pyknotic")
# per cell: predicted class, confidence, below the threshold, class in the file
CELLS = ((0, 0.9, False, "normal"), (2, 0.8, False, "intermediate"), (1, 0.4, True, None), (0, 0.7, False, "glia"))


def made_manifest(class_names: tuple[str, ...] = CLASSES, **changes: Any) -> ModelManifest:
    """The description of a model that does not exist."""
    content = {
        "name": "made", "arch": "custom_cnn", "strategy": "finetune", "class_names": class_names,
        "class_colours": class_colours(len(class_names)), "window_px": 32, "input_px": 32, "channels": "rgb+mask",
        "format": "onnx", "networks": [{"file": "fold0.onnx", "sha256": "0" * 64, "seed": 0, "fold": 0}],
        "n_features": 5, "weights": {"source": "none"},
        "study": {"name": "made", "data_hash": "0", "n_cells": 10},
    }  # fmt: skip
    return ModelManifest.model_validate(content | changes)


def circle(x: float, y: float, radius: float = 8.0) -> Ring:
    """A round outline of 40 points."""
    angle = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    return np.stack([x + radius * np.cos(angle), y + radius * np.sin(angle)], axis=1)


def centres(n: int) -> list[tuple[float, float]]:
    """Centres of cells that do not touch, in an image 160 px wide."""
    return [(20.0 + 40 * (i % 4), 20.0 + 30 * (i // 4)) for i in range(n)]


def made_field(
    folder: Path,
    image_id: str = "f1",
    *,
    cells: tuple[tuple[int, float, bool, str | None], ...] = CELLS,
    um_per_px: float | None = 0.5,
    words: dict[str, str | None] | None = None,
    n_features: int = 0,
    **changes: Any,
) -> PredictedField:
    """A field of 120 x 160 px with an image in ``folder``; its last cell is given as pixels, the others as rings."""
    image = folder / f"{image_id}.png"
    if not image.exists():
        write(image, picture(1, (120, 160)))
    at, n = centres(len(cells)), len(cells)
    outlines = [Outline(f"key{i}", (circle(*xy),), label=c[3]) for i, (xy, c) in enumerate(zip(at, cells, strict=True))]
    if n:
        mask = CellMask(np.ones((10, 10), np.uint8), int(at[-1][0]) - 5, int(at[-1][1]) - 5)
        outlines[-1] = Outline(f"key{n - 1}", mask=mask, label=cells[-1][3])
    prob_nk = np.array([np.full(3, (1 - c[1]) / 2) for c in cells], np.float32).reshape(n, 3)
    code_n = np.array([c[0] for c in cells], np.int64)
    prob_nk[np.arange(n), code_n] = [c[1] for c in cells]
    fields: dict[str, Any] = {
        "item": FieldInput(image, folder / f"{image_id}.geojson", image_id, words or {}),
        "height": 120, "width": 160, "um_per_px": um_per_px, "image_sha256": "0" * 64,
        "outlines": tuple(outlines), "regions": (),
        "cell_id": np.array([f"{image_id}{i:014d}" for i in range(n)], dtype=str),
        "prob_nk": prob_nk, "code_n": code_n,
        "abstained_n": np.array([c[2] for c in cells], bool),
        "label_n": np.array([c[3] for c in cells], dtype=object),
        "region_n": np.full(n, None, dtype=object),
        "x_px": np.array([xy[0] - 0.5 for xy in at]), "y_px": np.array([xy[1] - 0.5 for xy in at]),
        "area_px": np.full(n, 200, np.int64),
        "feature_nf": np.arange(n * n_features, dtype=np.float32).reshape(n, n_features) if n_features else None,
    }  # fmt: skip
    return PredictedField(**(fields | changes))
