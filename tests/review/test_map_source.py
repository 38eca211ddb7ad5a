"""What a map is made from: features that are there, those of a small network, or pixels; and it is said."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.review.waiting import made
from tests.tiny import make_study

from perikarya.data.store import OpenStudy
from perikarya.errors import InterruptedWorkError, WeightsError
from perikarya.review import map_source as sources
from perikarya.review.embedding import Maps
from perikarya.review.map_source import map_source
from perikarya.review.neighbours import Neighbours


def quiet(_share: float) -> None:
    """Say nothing."""


@pytest.fixture
def opened(tmp_path: Path) -> OpenStudy:
    return make_study(tmp_path / "tiny", cells_per_subject=2)


@pytest.fixture
def random_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """The small network is there, with weights that need no package."""
    pytest.importorskip("torch", reason="the extra 'train' is not installed")
    monkeypatch.setattr(sources, "WEIGHTS", "none")
    monkeypatch.setattr(sources, "_NEEDS", ("torch",))
    monkeypatch.setattr(sources, "INPUT_PX", 32)


def test_features_that_are_there_come_first(opened: OpenStudy, random_weights: None) -> None:
    features = np.zeros((24, 5), np.float16)
    found = map_source(opened, features, "features of a test")
    assert found.words == "features of a test"
    assert found.load(quiet) is features


def test_features_of_a_small_network_are_computed_and_kept(opened: OpenStudy, random_weights: None) -> None:
    found = map_source(opened, None, "")
    assert "efficientnet_lite0 at 32 px" in found.words
    shares: list[float] = []
    table = found.load(shares.append)
    assert table.shape == (24, 2560)
    assert shares[-1] == 1
    assert len(list((opened.root / "cache").glob("efficientnet_lite0-32px-*.npy"))) == 1
    maps = Maps(opened, None)
    assert Neighbours(maps).of(0) == []
    assert "Open the map once" in Neighbours(maps).note()
    state = made(maps, "pca")
    assert (state["status"], state["features"]) == ("ready", found.words)
    assert len(Neighbours(maps).of(0)) == 12
    assert Neighbours(maps).note() == ""
    (kept,) = (opened.root / "cache").glob("*.npy")
    later = Maps(opened, np.load(kept, mmap_mode="r"), "features that a later session finds")
    assert later.state("pca")["xy_b64"] == state["xy_b64"] != ""


def test_computing_features_can_be_stopped(opened: OpenStudy, random_weights: None) -> None:
    def stop(_share: float) -> None:
        raise InterruptedWorkError("enough")

    with pytest.raises(InterruptedWorkError, match="enough"):
        map_source(opened, None, "").load(stop)
    assert not list((opened.root / "cache").glob("*.npy"))


def test_closing_ends_the_computation_of_features(opened: OpenStudy, random_weights: None) -> None:
    maps = Maps(opened, None)
    maps.start("pca")
    maps.close()
    while (state := maps.state("pca"))["status"] == "working":
        pass
    assert state["status"] == "absent"
    assert not list(opened.root.glob("cache/*.npy"))


@pytest.mark.parametrize("why", ["many", "missing", "read-only", "no weights"])
def test_pixels_serve_where_a_network_cannot(
    opened: OpenStudy, random_weights: None, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    if why == "many":
        monkeypatch.setattr(sources, "MOST_EMBEDDED", 23)
    elif why == "missing":
        monkeypatch.setattr(sources, "_NEEDS", ("torch", "no_such_package"))
    elif why == "no weights":

        def absent(_arch: str, _choice: str) -> None:
            raise WeightsError("They are not here.")

        monkeypatch.setattr(sources, "resolve_weights", absent)
    else:
        monkeypatch.setattr(sources.os, "access", lambda _path, _mode: False)
    found = map_source(opened, None, "")
    assert found.words.startswith("pixels of the cells")
    assert "strategy 'head'" in found.words
    assert found.load(quiet).shape == (24, 512)
