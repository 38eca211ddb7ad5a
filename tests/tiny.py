"""A tiny study that trains in seconds: discs of three sizes on noise, twelve animals, four of them external."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from perikarya.config import ExperimentConfig
from perikarya.data.phash import crop_phash
from perikarya.data.store import CropWriter, OpenStudy, new_study_folder, open_study, save_tables
from perikarya.schema import DEVELOPMENT, EXTERNAL, Study

CLASS_NAMES = ("large", "medium", "small")
WINDOW_PX = 32


def paint_crop(radius: float, rng: np.random.Generator) -> np.ndarray:
    """Paint a dark disc on a bright ground, shape (32, 32, 4)."""
    y, x = np.mgrid[:WINDOW_PX, :WINDOW_PX]
    cx, cy = rng.uniform(13, 19, 2)
    disc = (x - cx) ** 2 + (y - cy) ** 2 <= radius**2
    crop = np.empty((WINDOW_PX, WINDOW_PX, 4), np.uint8)
    ground = rng.uniform(150, 230, 3)
    crop[..., :3] = np.clip(np.where(disc[..., None], 80, ground) + rng.normal(0, 15, (*disc.shape, 3)), 0, 255)
    crop[..., 3] = disc * 255
    return crop


def make_study(
    root: Path, *, cells_per_subject: int = 12, seed: int = 0, copies: tuple[tuple[int, int], ...] = ()
) -> OpenStudy:
    """Write a study of 12 animals x ``cells_per_subject`` cells and open it; ``copies`` are (row, row it shows)."""
    rng = np.random.default_rng(seed)
    rows, crops = [], []
    for subject in range(12):
        for i in range(cells_per_subject):
            label = (subject + i) % 3
            crops.append(paint_crop((11, 8, 5)[label] + rng.normal(0, 0.7), rng))
            rows.append(
                {
                    "cell_id": f"{subject:02d}{i:04d}{seed:010d}",
                    "label": CLASS_NAMES[label],
                    "subject": f"animal{subject:02d}",
                    "image_id": f"image{subject:02d}_{i // 4}",
                    "region": ("CA1", "DG")[i % 2],
                    "group": ("sham", "ischemia")[subject % 2],
                    "set": EXTERNAL if subject >= 8 else DEVELOPMENT,
                    "x_px": 16.0,
                    "y_px": 16.0,
                    "area_px": int((crops[-1][..., 3] > 0).sum()),
                    "image_sha256": f"{subject}-{i}",
                    "crop_phash": crop_phash(crops[-1]),
                    "source": f"animal{subject:02d}/{i}.png",
                }
            )
    for copy, original in copies:
        crops[copy] = crops[original]
        rows[copy]["crop_phash"] = rows[original]["crop_phash"]
    with new_study_folder(root) as folder:
        with CropWriter(folder / "crops.npy", n_cells=len(crops), window_px=WINDOW_PX) as writer:
            for crop in crops:
                writer.append(crop)
        study = Study(name="tiny", class_names=CLASS_NAMES, window_px=WINDOW_PX, regions=("CA1", "DG"))
        save_tables(folder, study, pd.DataFrame(rows))
    return open_study(root)


def tiny_config(study: Path, **changes: object) -> ExperimentConfig:
    """Describe an experiment on it: a network that is fine-tuned, a head on frozen features, four folds."""
    content = {
        "name": "tiny",
        "study": str(study),
        "cv": {"n_folds": 4},
        "models": [
            {"name": "cnn", "arch": "custom_cnn", "input_px": WINDOW_PX},
            {
                "name": "lite",
                "arch": "efficientnet_lite0",
                "weights": "none",
                "strategy": "head",
                "input_px": WINDOW_PX,
            },
        ],
    }
    return ExperimentConfig.model_validate({**content, **changes})
