"""Features of cells that lie in a study already, found without computing any. Needs no torch."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from perikarya.config import ExperimentConfig
from perikarya.data.store import OpenStudy
from perikarya.errors import UnknownNameError, WeightsError
from perikarya.models.feature_cache import features_path
from perikarya.models.weights import resolve_weights
from perikarya.settings import Channels

log = logging.getLogger(__name__)

_NAME = re.compile(r"(?P<arch>.+)-(?P<px>\d{1,4})px-[0-9a-f]{16}\.npy")


@dataclass(frozen=True)
class CachedFeatures:
    """``values``, shape (n_cells, n_features), float16, mapped from disk; ``words`` tell what they are."""

    values: NDArray[np.float16]
    words: str


@dataclass(frozen=True)
class _Source:
    arch: str
    weights: str
    input_px: int
    channels: Channels


def find_features(opened: OpenStudy, config: ExperimentConfig | None) -> CachedFeatures | None:
    """Map the cached features of a run's first model that has any, else those of the largest input in the study.

    Only files whose name fits the present data are taken: features of an earlier state of a study would belong to
    other cells.
    """
    for source in [*_of_run(config), *_of_study(opened)]:
        path = _path(opened, source)
        if path is None or not path.is_file():
            continue
        try:
            values = np.load(path, mmap_mode="r", allow_pickle=False)
        except (ValueError, OSError, EOFError) as error:
            log.warning("%s cannot be read and is not used: %s", path, error)
            continue
        if values.ndim == 2 and len(values) == len(opened.cells):
            return CachedFeatures(values, f"features of {source.arch} at {source.input_px} px ({source.channels})")
        log.warning("%s holds %s for %d cells and is not used", path, values.shape, len(opened.cells))
    return None


def _of_run(config: ExperimentConfig | None) -> Iterator[_Source]:
    for model in config.models if config else ():
        if model.input_px:
            yield _Source(model.arch, model.weights, model.input_px, model.channels)


def _of_study(opened: OpenStudy) -> list[_Source]:
    """Return what the names in the study's cache say, largest input first."""
    named = [found for path in (opened.root / "cache").glob("*.npy") if (found := _NAME.fullmatch(path.name))]
    named.sort(key=lambda m: (-int(m["px"]), m["arch"]))
    return [_Source(m["arch"], "default", int(m["px"]), channels) for m in named for channels in get_args(Channels)]


def _path(opened: OpenStudy, source: _Source) -> Path | None:
    try:
        weights = resolve_weights(source.arch, source.weights)
    except (UnknownNameError, WeightsError) as error:
        log.info("no features of %s: %s", source.arch, error)
        return None
    return features_path(opened, arch=source.arch, weights=weights, input_px=source.input_px, channels=source.channels)
