"""Maps are made once, in the background, one at a time, and kept."""

from __future__ import annotations

import base64
import logging
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.review.waiting import made
from tests.tiny import make_study

from perikarya.data.store import OpenStudy
from perikarya.errors import DataError, UnknownNameError
from perikarya.review import embedding, map_source
from perikarya.review.components import Floats32, Progress, principal_components
from perikarya.review.embedding import Maps
from perikarya.review.umap_work import UmapWork


@pytest.fixture
def opened(tmp_path: Path) -> OpenStudy:
    return make_study(tmp_path / "tiny", cells_per_subject=2)


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(map_source, "MOST_EMBEDDED", 0)


@pytest.fixture
def quick_umap(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Stands in for UMAP; holds how many cells each call had."""
    calls: list[int] = []

    def run(_self: UmapWork, components_nk: Floats32, *, progress: Progress) -> Floats32:
        calls.append(len(components_nk))
        progress(0.5)
        return components_nk[:, 2:4] * 3

    monkeypatch.setattr(UmapWork, "run", run)
    return calls


def features(n: int = 24, d: int = 12) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(n, d)).astype(np.float16)


def places(state: dict[str, Any]) -> np.ndarray:
    return np.frombuffer(base64.b64decode(state["xy_b64"]), "<f4").reshape(-1, 2)


def test_a_map_is_absent_until_it_is_asked_for(opened: OpenStudy) -> None:
    maps = Maps(opened, features(), "features of a test")
    for method in ("pca", "umap"):
        state = maps.state(method)
        assert state == {
            "method": method, "status": "absent", "progress": 0.0, "message": "",
            "features": "features of a test", "xy_b64": "",
        }  # fmt: skip
    assert maps.components() is None


def test_the_map_by_pca_is_the_first_two_components(opened: OpenStudy) -> None:
    maps = Maps(opened, features(), "features of a test")
    state = made(maps, "pca")
    assert (state["status"], state["progress"], state["message"]) == ("ready", 1.0, "")
    expected = principal_components(features(), progress=lambda _share: None)
    np.testing.assert_array_equal(places(state), expected[:, :2])
    np.testing.assert_array_equal(maps.components(), expected)


def test_the_map_by_umap_is_of_the_components(opened: OpenStudy, quick_umap: list[int]) -> None:
    maps = Maps(opened, features(), "features of a test")
    np.testing.assert_array_equal(places(made(maps, "umap")), maps.components()[:, 2:4] * 3)
    assert maps.state("pca")["status"] == "ready"
    assert quick_umap == [24]


def test_what_was_made_is_kept_for_the_next_session(
    opened: OpenStudy, quick_umap: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = made(Maps(opened, features(), "a"), "umap")
    monkeypatch.setattr(embedding, "principal_components", None)
    later = Maps(opened, features(), "a")
    assert later.state("umap") == first
    assert later.state("pca")["status"] == "ready"
    assert later.components() is not None
    assert quick_umap == [24]


def test_other_features_and_other_cells_have_maps_of_their_own(
    opened: OpenStudy, tmp_path: Path, quick_umap: list[int]
) -> None:
    for name in ("a.npy", "b.npy"):
        np.save(tmp_path / name, features())
    made(Maps(opened, np.load(tmp_path / "a.npy", mmap_mode="r"), "words"), "pca")
    assert Maps(opened, np.load(tmp_path / "a.npy", mmap_mode="r"), "other words").state("pca")["status"] == "ready"
    assert Maps(opened, np.load(tmp_path / "b.npy", mmap_mode="r"), "words").state("pca")["status"] == "absent"
    other = make_study(tmp_path / "other", cells_per_subject=2, seed=5)
    (opened.root / "cache").rename(other.root / "cache")
    assert Maps(other, np.load(tmp_path / "a.npy", mmap_mode="r"), "words").state("pca")["status"] == "absent"


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 no archive", b"\x93NUMPY"], ids=str)
def test_a_damaged_cache_is_made_anew(opened: OpenStudy, content: bytes, caplog: pytest.LogCaptureFixture) -> None:
    first = made(Maps(opened, features(), "a"), "pca")
    (kept,) = (opened.root / "cache").glob("review-pca-*.npz")
    kept.write_bytes(content)
    again = Maps(opened, features(), "a")
    assert again.state("pca")["status"] == "absent"
    assert "made anew" in caplog.text
    assert made(again, "pca") == first


@pytest.mark.parametrize("values", [np.zeros((3, 32)), np.full((24, 32), np.nan), np.array([{}], object)])
def test_a_cache_of_something_else_is_made_anew(opened: OpenStudy, values: np.ndarray) -> None:
    first = made(Maps(opened, features(), "a"), "pca")
    (kept,) = (opened.root / "cache").glob("review-pca-*.npz")
    np.savez(kept, values=values)
    assert made(Maps(opened, features(), "a"), "pca") == first


def test_a_study_that_cannot_be_written_to_still_has_its_map(
    opened: OpenStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    (opened.root / "cache").write_text("no folder can be made here")
    state = made(Maps(opened, features(), "a"), "pca")
    assert state["status"] == "ready"
    assert "for this session only" in state["message"]
    assert len(places(state)) == 24


def test_without_features_pixels_serve_and_it_is_said(opened: OpenStudy) -> None:
    maps = Maps(opened, None)
    maps.warm_up()
    assert maps.state("pca")["status"] == "absent"
    state = made(maps, "pca")
    assert state["status"] == "ready"
    assert state["features"].startswith("pixels of the cells")
    assert np.unique(places(state), axis=0).shape == (24, 2)


def test_components_are_made_at_the_start_where_features_are_there(opened: OpenStudy) -> None:
    maps = Maps(opened, features(), "a")
    maps.warm_up()
    assert maps.state("pca")["status"] in ("working", "ready")
    assert made(maps, "pca")["status"] == "ready"


def test_a_map_that_was_begun_is_not_begun_twice(opened: OpenStudy, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    go = threading.Event()

    def slow(table: np.ndarray, *, progress: Progress) -> Floats32:
        calls.append(len(table))
        progress(0.25)
        assert go.wait(30)
        return principal_components(table, progress=progress)

    monkeypatch.setattr(embedding, "principal_components", slow)
    maps = Maps(opened, features(), "a")
    for _ in range(3):
        assert maps.start("pca")["status"] == "working"
    while maps.state("pca")["progress"] < 0.25:
        pass
    assert maps.state("pca")["message"] == "Finding the main differences."
    assert maps.start("pca")["progress"] == 0.25
    go.set()
    assert made(maps, "pca")["status"] == "ready"
    assert calls == [24]


def test_works_wait_for_one_another(opened: OpenStudy, monkeypatch: pytest.MonkeyPatch, quick_umap: list[int]) -> None:
    at_once: list[int] = []
    busy = threading.Semaphore(1)

    def alone(table: np.ndarray, *, progress: Progress) -> Floats32:
        at_once.append(busy.acquire(blocking=False))
        try:
            return principal_components(table, progress=progress)
        finally:
            busy.release()

    monkeypatch.setattr(embedding, "principal_components", alone)
    maps = Maps(opened, features(), "a")
    maps.start("umap")
    maps.start("pca")
    assert made(maps, "umap")["status"] == made(maps, "pca")["status"] == "ready"
    assert at_once == [True]
    assert quick_umap == [24]


def test_a_failure_is_said_and_can_be_tried_again(opened: OpenStudy, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_self: UmapWork, _components: Floats32, *, progress: Progress) -> Floats32:
        raise DataError("UMAP has no mind to.")

    monkeypatch.setattr(UmapWork, "run", refuse)
    maps = Maps(opened, features(), "a")
    state = made(maps, "umap")
    assert (state["status"], state["message"], state["xy_b64"]) == ("failed", "UMAP has no mind to.", "")
    monkeypatch.setattr(UmapWork, "run", lambda _self, components, *, progress: components[:, :2])
    assert made(maps, "umap")["status"] == "ready"


def test_an_unexpected_failure_is_said_and_logged(
    opened: OpenStudy, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(embedding, "principal_components", lambda *_a, **_k: 1 / 0)
    state = made(Maps(opened, features(), "a"), "pca")
    assert state["status"] == "failed"
    assert "ZeroDivisionError" in state["message"]
    assert any(record.levelno == logging.ERROR and record.exc_info for record in caplog.records)


def test_closing_ends_the_work_and_leaves_nothing_half_written(
    opened: OpenStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = threading.Event()

    def slow(table: np.ndarray, *, progress: Progress) -> Floats32:
        begun.set()
        while True:
            progress(0.5)

    monkeypatch.setattr(embedding, "principal_components", slow)
    maps = Maps(opened, features(), "a")
    maps.start("pca")
    assert begun.wait(30)
    maps.close()
    while maps.state("pca")["status"] == "working":
        pass
    assert maps.state("pca")["status"] == "absent"
    assert not list(opened.root.glob("cache/*"))
    assert maps.start("umap")["status"] == "absent"


def test_an_unknown_method_is_refused(opened: OpenStudy) -> None:
    for ask in (Maps(opened, features()).state, Maps(opened, features()).start):
        with pytest.raises(UnknownNameError, match="tsne"):
            ask("tsne")
