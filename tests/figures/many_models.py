"""Names and results of twelve models, as long as the study's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from perikarya.evaluate.metrics import OVERALL, PER_CLASS

NAMES = [
    "custom CNN", "resnet50.a1_in1k", "efficientnet_b7 at 600 px", "vit_base_patch16_224.augreg",
    "vit_base_patch16_384 (TTA)", "swin_large_patch4_window7_224", "swinv2_large_window12_192 $x$",
    "vit_base_r50_s16_384 hybrid of BiT and ViT", "Panda-ViT pretrained on histology (TTA)",
    "Hybrid2 EfficientNet+SwinV2", "efficientnet_lite0", "uni head (frozen features)",
]  # fmt: skip
CLASSES = ("normal", "intermediate", "pyknotic")
REGIONS = ("CA1", "CA3", "CA4", "DG", "PS1", "PS2")


def value(mean: float | None, half: float = 0.03) -> dict[str, Any]:
    return {"mean": mean, "sd_folds": 0.01, "ci95": None if mean is None else [mean - half, mean + half]}


def make_block(score: float, rng: np.random.Generator) -> dict[str, Any]:
    return {
        "n_cells": int(rng.integers(20, 300)),
        **{name: value(score) for name in OVERALL.names()},
        "per_class": {c: {m: value(float(score + rng.normal(0, 0.05))) for m in PER_CLASS.names()} for c in CLASSES},
    }


def make_results(names: Sequence[str], *, seed: int = 0) -> dict[str, Any]:
    """Return the part ``models`` of results.json with cross-validation, external set, regions and speed."""
    rng = np.random.default_rng(seed)
    models: dict[str, Any] = {}
    for name, score in zip(names, np.linspace(0.9, 0.72, len(names)), strict=True):
        models[name] = {
            "kind": "network",
            "cv": make_block(float(score), rng),
            "external": make_block(float(score - 0.03), rng),
            "scopes_of": "cv",
            "regions": {r: make_block(float(score + rng.normal(0, 0.03)), rng) for r in REGIONS},
            "external_regions": {r: make_block(float(score + rng.normal(0, 0.03)), rng) for r in REGIONS},
            "inference_s_per_cell": {"batch1": float(10 ** rng.uniform(-3, -1)), "batched": float(10**-3.2)},
        }
    return models
