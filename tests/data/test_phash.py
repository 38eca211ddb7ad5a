from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from tests.sources import picture

from perikarya.data.importers import import_study
from perikarya.data.importers.base import ImportOptions
from perikarya.data.phash import (
    CANDIDATE_RADIUS,
    N_BYTES,
    SAME_PICTURE,
    candidate_pairs,
    crop_phash,
    near_pairs,
    parse_phashes,
    similarity,
)


def jpeg(crop: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
    return cv2.imdecode(cv2.imencode(".jpg", crop, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], cv2.IMREAD_COLOR)


def brighter(crop: NDArray[np.uint8], gain: float, offset: float) -> NDArray[np.uint8]:
    return np.clip(crop * gain + offset, 0, 255).astype(np.uint8)


def shifted(crop: NDArray[np.uint8], dx: int, dy: int) -> NDArray[np.uint8]:
    """Shift by pixels of a window of 80 px; by the same share of other windows."""
    unit = max(crop.shape[0] // 80, 1)
    move = np.array([[1, 0, dx * unit], [0, 1, dy * unit]], np.float32)
    return cv2.warpAffine(crop, move, crop.shape[1::-1], borderMode=cv2.BORDER_REFLECT)


CHANGES = {
    "nothing": lambda crop: crop,
    "quarter turn": lambda crop: np.rot90(crop),
    "half turn": lambda crop: np.rot90(crop, 2),
    "flip": lambda crop: crop[:, ::-1],
    "transposed": lambda crop: crop.transpose(1, 0, 2),
    "recompressed": lambda crop: jpeg(crop, 75),
    "brighter": lambda crop: brighter(crop, 1.08, 4),
    "darker": lambda crop: brighter(crop, 0.85, 0),
    "shifted by 1": lambda crop: shifted(crop, 1, 0),
    "shifted by 2": lambda crop: shifted(crop, 2, -1),
    "all at once": lambda crop: jpeg(brighter(np.rot90(shifted(crop, 1, -1)[:, ::-1]), 0.92, 3), 75),
}


def crops_of(pictures: list[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    rgb = np.stack([np.ascontiguousarray(p) for p in pictures])
    return np.concatenate([rgb, np.zeros((*rgb.shape[:3], 1), np.uint8)], axis=3)


# 2 px are 5 % of a window of 40 px, twice what is promised
@pytest.mark.parametrize(
    ("change", "side"), [(c, s) for c in CHANGES for s in (40, 80, 81, 200) if (c, s) != ("shifted by 2", 40)]
)
def test_a_changed_copy_is_found_among_other_pictures(change: str, side: int) -> None:
    originals = [picture(i, (side, side)) for i in range(6)]
    crops = crops_of([*originals, CHANGES[change](originals[3])])
    found = near_pairs(crops, [crop_phash(crop) for crop in crops])
    assert [(pair.row_a, pair.row_b) for pair in found] == [(3, 6)]


@pytest.mark.parametrize("turns", range(4))
@pytest.mark.parametrize("flip", [False, True])
def test_the_descriptor_is_the_same_in_all_eight_orientations(turns: int, flip: bool) -> None:
    crop = picture(7, (64, 64))
    view = np.rot90(crop, turns)
    assert crop_phash(np.ascontiguousarray(view[:, ::-1] if flip else view)) == crop_phash(crop)


def test_a_flat_crop_has_a_descriptor_and_resembles_nothing() -> None:
    flat = np.full((40, 40, 4), 200, np.uint8)
    assert crop_phash(flat) == "00" * N_BYTES
    assert similarity(flat, crops_of([picture(0)])[0]) == 0


def scattered() -> NDArray[np.uint8]:
    rng = np.random.default_rng(0)
    centres = rng.integers(40, 200, (90, N_BYTES))
    return np.clip(np.repeat(centres, 7, axis=0) + rng.normal(0, 7, (630, N_BYTES)), 0, 255).astype(np.uint8)


def along_a_line() -> NDArray[np.uint8]:
    values = np.full((600, N_BYTES), 90, np.uint8)
    values[:, 3] = np.random.default_rng(0).integers(0, 256, 600)
    return values


@pytest.mark.parametrize("make", [scattered, along_a_line])
def test_candidates_are_exactly_the_close_pairs(make: Callable[[], NDArray[np.uint8]]) -> None:
    values = make()
    distance = np.linalg.norm(values[:, None].astype(float) - values[None].astype(float), axis=2)
    close = {(a, b) for a, b in zip(*np.nonzero(distance < CANDIDATE_RADIUS), strict=True) if a < b}
    found = list(candidate_pairs(values))
    assert len(close) > 500
    assert len(found) == len(set(found))
    assert set(found) == close


def test_ten_thousand_cells_are_compared_in_seconds() -> None:
    values = np.random.default_rng(0).integers(0, 256, (10_000, N_BYTES)).astype(np.uint8)
    values[9_999] = values[17]
    start = time.perf_counter()
    assert list(candidate_pairs(values)) == [(17, 9_999)]
    assert time.perf_counter() - start < 20


def test_descriptors_survive_being_written() -> None:
    texts = [crop_phash(picture(i)) for i in range(3)]
    assert parse_phashes(texts).shape == (3, N_BYTES)
    assert [row.tobytes().hex() for row in parse_phashes(texts)] == texts


@pytest.mark.parametrize("change", ["all at once", "recompressed", "shifted by 2"])
def test_real_cells_resemble_their_changed_copies_and_no_others(tmp_path: Path, rbc: Path, change: str) -> None:
    crops = import_study(rbc / "cells/external", tmp_path / "study", options=ImportOptions()).crops[:60]
    copies = crops_of([CHANGES[change](crop[..., :3]) for crop in crops])
    both = np.concatenate([crops, copies])
    found = {(pair.row_a, pair.row_b) for pair in near_pairs(both, [crop_phash(crop) for crop in both])}
    right = {(i, i + 60) for i in range(60)}
    assert len(found & right) >= 58
    assert found <= right
    assert similarity(crops[0], copies[0]) > SAME_PICTURE
