"""Where the frozen features of a study lie, and reading them; ``embed`` computes them. Needs no torch."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from perikarya.data.store import OpenStudy
from perikarya.models.weights import WeightsFile
from perikarya.settings import Channels

FEATURES_VERSION = 2  # raise when the way features are computed changes


def features_path(
    opened: OpenStudy, *, arch: str, weights: WeightsFile, input_px: int, channels: Channels = "rgb+mask"
) -> Path:
    """Return where the features of a study lie; the name is a hash of everything they depend on."""
    key = f"{FEATURES_VERSION}|{opened.data_hash}|{arch}|{weights.sha256 or 'random'}|{input_px}|{channels}"
    return opened.root / "cache" / f"{arch}-{input_px}px-{hashlib.sha256(key.encode()).hexdigest()[:16]}.npy"


def load_features(
    opened: OpenStudy, *, arch: str, weights: WeightsFile, input_px: int, channels: Channels = "rgb+mask"
) -> NDArray[np.float16]:
    """Map the cached features, shape (n_cells, views * n_features), float16; ``rgb+mask`` has two views, others one."""
    path = features_path(opened, arch=arch, weights=weights, input_px=input_px, channels=channels)
    features: NDArray[np.float16] = np.load(path, mmap_mode="r", allow_pickle=False)
    return features
