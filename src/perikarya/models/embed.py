"""Frozen features of every cell, computed once per study and network and kept in the study's cache.

With ``rgb+mask`` each cell is seen twice: its whole window, and the window with everything outside the outline
blackened. The first half of a feature vector tells of the cell in its tissue, the second of the cell alone. With the
other channels it is seen once: the whole window, the blackened one, or the mask as a white-on-black picture.
"""

from __future__ import annotations

import fcntl
import logging
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.lib import format as npy_format
from numpy.typing import NDArray

from perikarya.data.augment import resize_batch
from perikarya.data.store import OpenStudy
from perikarya.errors import TrainingError
from perikarya.models.build import CellNetwork, build_feature_extractor
from perikarya.models.feature_cache import features_path
from perikarya.models.weights import WeightsFile
from perikarya.runs import read_json, write_json
from perikarya.settings import Channels

if TYPE_CHECKING:
    from collections.abc import Iterator

log = logging.getLogger(__name__)

CHUNK = 64  # cells; fixed, for results must not depend on where an interrupted pass went on
_SAVE_EVERY = 16  # chunks between two notes of progress on disk

# what the three-channel network is shown, view after view
VIEWS: dict[Channels, tuple[Channels, ...]] = {
    "rgb+mask": ("rgb", "masked-rgb"),
    "rgb": ("rgb",),
    "masked-rgb": ("masked-rgb",),
    "mask": ("mask",),
}

Progress = Callable[[int, int], None]
FeaturesOf = Callable[[NDArray[np.int64]], NDArray[np.float16]]  # row numbers -> their features


def compute_features(
    opened: OpenStudy,
    *,
    arch: str,
    weights: WeightsFile,
    input_px: int,
    progress: Progress,
    channels: Channels = "rgb+mask",
) -> Path:
    """Compute the features of all cells unless the cache has them, and return their path.

    An interrupted computation goes on where it was; two processes never compute the same features at once.

    Raises
    ------
    TrainingError
        If the network yields values that are not finite.
    """
    path = features_path(opened, arch=arch, weights=weights, input_px=input_px, channels=channels)
    with _exclusive(path.with_suffix(".lock")):
        if not path.exists():
            torch.manual_seed(0)  # random weights, where they are asked for, must be the same ones at every call
            network = build_feature_extractor(arch, weights=weights, input_px=input_px)
            network = network.to(memory_format=torch.channels_last)

            def features_of(rows: NDArray[np.int64]) -> NDArray[np.float16]:
                return embed(network, resize_batch(opened.read_crops(rows), input_px), channels=channels)

            _fill(path, features_of, n_cells=len(opened.cells), progress=progress)
    return path


def embed(network: CellNetwork, crops_nhwc: NDArray[np.uint8], channels: Channels = "rgb+mask") -> NDArray[np.float16]:
    """Compute the features of some cells already at the network's input size.

    Parameters
    ----------
    network
        From ``build_feature_extractor``.
    crops_nhwc
        Shape (n, side, side, 4), uint8.
    channels
        What of the cells is looked at.

    Returns
    -------
    Shape (n, views * n_features), float16; ``rgb+mask`` has two views, the others have one.

    Raises
    ------
    TrainingError
        If a feature is not finite.
    """
    x_nchw = torch.from_numpy(crops_nhwc).permute(0, 3, 1, 2)
    with torch.inference_mode():
        views = [network.backbone(network.normalised(x_nchw, view)).float().numpy() for view in VIEWS[channels]]
    features: NDArray[np.float32] = np.concatenate(views, axis=1)
    if not np.isfinite(features).all():
        raise TrainingError(
            "The frozen network yields features that are not finite; its weights are damaged or do not fit.\n"
            "Fix: get the weights again."
        )
    limit = float(np.finfo(np.float16).max)
    return np.clip(features, -limit, limit).astype(np.float16)


@contextmanager
def _exclusive(path: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _fill(path: Path, features_of: FeaturesOf, *, n_cells: int, progress: Progress) -> None:
    """Write features chunk by chunk beside ``path``, noting the progress, and move them into place at the end."""
    part, note = path.with_suffix(".part"), path.with_suffix(".json")
    width = features_of(np.arange(min(CHUNK, n_cells))).shape[1]
    done = int(read_json(note, what="the progress of features")["done"]) if note.exists() and part.exists() else 0
    with part.open("r+b" if done else "wb") as handle:
        npy_format.write_array_header_1_0(handle, {"descr": "<f2", "fortran_order": False, "shape": (n_cells, width)})
        handle.seek(handle.tell() + done * width * 2)
        for start in range(done, n_cells, CHUNK):
            rows = np.arange(start, min(start + CHUNK, n_cells))
            handle.write(features_of(rows).tobytes())
            progress(int(rows[-1]) + 1, n_cells)
            if (start // CHUNK) % _SAVE_EVERY == _SAVE_EVERY - 1:
                handle.flush()
                write_json(note, {"done": int(rows[-1]) + 1})
    part.replace(path)
    note.unlink(missing_ok=True)
