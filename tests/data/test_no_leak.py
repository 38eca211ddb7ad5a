"""Proof that no method of resampling carries anything of a held-out cell into training, in any space.

What training is shown is compared bit by bit between a study and the same study with a marker in every held-out cell,
with other held-out labels, in another order, with more and with fewer held-out cells. A new method is in the registry
and is thereby tested.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from tests.tiny import CLASS_NAMES, WINDOW_PX, paint_crop

from perikarya.config import ResampleConfig
from perikarya.data.resampling import RESAMPLERS, epoch_rows, resample_rows
from perikarya.data.store import OpenStudy
from perikarya.data.synthetic import synthesise_features, with_synthetic
from perikarya.schema import Study

METHODS = RESAMPLERS.names()
SPACES = ("pixels", "features")
MARKER = 1000.0  # a feature no training cell has
MARK_PX = np.array([7, 251, 13, 255], np.uint8)  # a colour no training cell has


@dataclass(frozen=True)
class Cells:
    """A study as arrays; training and held-out cells take turns, so that no block of rows is one of them."""

    crops: np.ndarray
    features: np.ndarray
    labels: np.ndarray  # names; None where unknown
    train: np.ndarray

    @property
    def held_out(self) -> np.ndarray:
        return np.setdiff1d(np.arange(len(self.labels)), self.train)

    def opened(self) -> OpenStudy:
        cells = pd.DataFrame({"label": self.labels})
        study = Study(name="made", class_names=CLASS_NAMES, window_px=WINDOW_PX)
        return OpenStudy(root=Path("made"), study=study, cells=cells, crops=self.crops)


def paint(n_train: tuple[int, ...] = (36, 22, 9), n_held_out: int = 40) -> Cells:
    rng = np.random.default_rng(1)
    labels = np.array([*np.repeat(CLASS_NAMES, n_train), *rng.choice(CLASS_NAMES, n_held_out)], dtype=object)
    radius = {"large": 9.0, "medium": 8.0, "small": 7.0}  # they overlap: every method finds a border
    crops = np.stack([paint_crop(radius[label] + rng.normal(0, 0.7), rng) for label in labels])
    codes = pd.Categorical(labels, categories=CLASS_NAMES).codes
    features = (rng.normal(size=(len(labels), 8)) + 0.5 * codes[:, None]).astype(np.float16)
    place = rng.permutation(len(labels))
    return Cells(crops[place], features[place], labels[place], train=np.flatnonzero(place < sum(n_train)))


def shown(cells: Cells, method: Any, space: Any) -> tuple[np.ndarray, np.ndarray]:
    """What a training sees of three epochs: values and labels, wired as a task wires them."""
    opened, config = cells.opened(), ResampleConfig(method=method, space=space)
    rows = resample_rows(opened.labels, cells.train, config=config, seed=5)
    if space == "features":
        made = synthesise_features(cells.features, opened.labels, rows, class_names=CLASS_NAMES, config=config, seed=5)
        x = np.concatenate([cells.features[made.kept], made.features_new])
        y = np.concatenate([opened.labels[made.kept], made.labels_new])
        places = np.arange(len(y))
        epochs = [epoch_rows(y, places, config=config, seed=5, epoch=e) for e in range(3)]
        return np.concatenate([x[p] for p in epochs]), np.concatenate([y[p] for p in epochs])
    extended, rows = with_synthetic(opened, rows, config=config, seed=5)
    epochs = [epoch_rows(extended.labels, rows, config=config, seed=5, epoch=e) for e in range(3)]
    return np.concatenate([extended.read_crops(r) for r in epochs]), np.concatenate(
        [extended.labels[r] for r in epochs]
    )


def marked(cells: Cells) -> Cells:
    """Plant a marker in every held-out cell, and only there."""
    crops, features = cells.crops.copy(), cells.features.copy()
    crops[cells.held_out] = MARK_PX
    features[cells.held_out] = MARKER
    return replace(cells, crops=crops, features=features)


def relabelled(cells: Cells) -> Cells:
    """Turn the labels of held-out cells around; some become unknown."""
    labels = cells.labels.copy()
    labels[cells.held_out] = np.roll([CLASS_NAMES[2], None, CLASS_NAMES[0]] * len(labels), 1)[: len(cells.held_out)]
    return replace(cells, labels=labels)


def disordered(cells: Cells) -> Cells:
    """Name the training rows in another order."""
    return replace(cells, train=np.random.default_rng(3).permutation(cells.train))


def fewer(cells: Cells) -> Cells:
    """Leave out all held-out cells, which moves the rows of the training cells."""
    train = cells.train
    return Cells(cells.crops[train], cells.features[train], cells.labels[train], train=np.arange(len(train)))


def more(cells: Cells) -> Cells:
    """Add held-out cells before and after all others."""
    n = len(cells.labels)
    rows = np.concatenate([np.arange(20), np.arange(n), np.arange(30)])
    return Cells(cells.crops[rows], cells.features[rows], cells.labels[rows], train=cells.train + 20)


CHANGES = (marked, relabelled, disordered, fewer, more)


@pytest.fixture(scope="module")
def cells() -> Cells:
    return paint()


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("method", METHODS)
def test_training_sees_the_same_whatever_the_held_out_cells_are(
    cells: Cells, method: str, space: str, change: Any
) -> None:
    x, y = shown(cells, method, space)
    x_changed, y_changed = shown(change(cells), method, space)
    assert x.tobytes() == x_changed.tobytes()
    assert y.tobytes() == y_changed.tobytes()


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("method", METHODS)
def test_no_trace_of_the_marker_is_in_what_training_sees(cells: Cells, method: str, space: str) -> None:
    x, _ = shown(marked(cells), method, space)
    if space == "features":
        assert np.abs(x).max() < MARKER / 100
    else:
        far = np.abs(x[..., :3].astype(int) - MARK_PX[:3].astype(int)).max(axis=-1)
        assert far.min() > 10


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("method", METHODS)
def test_the_proof_is_not_about_nothing(cells: Cells, method: str, space: str) -> None:
    """The method does something here, the marker would be seen, and training cells do matter."""
    x, y = shown(cells, method, space)
    plain, _ = shown(cells, "none", space)
    assert (x.tobytes() != plain.tobytes()) == (method != "none")
    swapped = np.random.default_rng(4).permutation(len(cells.labels))[: len(cells.train)]
    all_in = replace(marked(cells), train=np.union1d(swapped, cells.train[:5]))
    assert shown(all_in, method, space)[0].tobytes() != x.tobytes()
    changed = replace(cells, features=cells.features + 1, crops=cells.crops // 2)
    assert shown(changed, method, space)[0].tobytes() != x.tobytes()
    assert len(x) == len(y)
