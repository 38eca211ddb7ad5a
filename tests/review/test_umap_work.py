"""UMAP runs in a process of its own: seeded, stoppable, with words when it fails."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from perikarya.errors import ConfigError, DataError, InterruptedWorkError
from perikarya.review import umap_work, worker
from perikarya.review.umap_work import UmapWork
from perikarya.review.worker import WorkerError

pytest.importorskip("umap", reason="the extra 'review' is not installed")


def clusters(n_each: int = 40) -> np.ndarray:
    """Three groups of cells in three directions."""
    rng = np.random.default_rng(0)
    middles = np.repeat(np.eye(8)[:3] * 10, n_each, axis=0)
    return (middles + rng.normal(size=middles.shape)).astype(np.float32)


def quiet(_share: float) -> None:
    """Say nothing."""


def instead(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    """Let workers run other code."""
    really = worker.subprocess.Popen
    monkeypatch.setattr(
        worker.subprocess, "Popen", lambda command, **how: really([command[0], "-c", code, *command[3:]], **how)
    )


def test_cells_that_are_alike_lie_together() -> None:
    shares: list[float] = []
    xy = UmapWork().run(clusters(), progress=shares.append)
    assert xy.shape == (120, 2)
    assert np.isfinite(xy).all()
    middles = xy.reshape(3, 40, 2).mean(axis=1)
    spread = np.linalg.norm(xy.reshape(3, 40, 2) - middles[:, None], axis=2).max()
    apart = min(np.linalg.norm(middles[i] - middles[j]) for i, j in ((0, 1), (0, 2), (1, 2)))
    assert apart > 2 * spread
    assert shares == sorted(shares)
    assert shares[0] < 0.1 < 0.9 < shares[-1]
    assert len(shares) > 3


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("n_each", "most_exact"), [(40, 20_000), (1_400, 100)])
def test_the_same_cells_give_the_same_map(monkeypatch: pytest.MonkeyPatch, n_each: int, most_exact: int) -> None:
    """Where neighbours are found exactly, and by search: UMAP searches from 4,096 cells on."""
    instead(monkeypatch, f"from perikarya.review import umap_work as w; w._MOST_EXACT = {most_exact}; w.main()")
    first, second = (UmapWork().run(clusters(n_each), progress=quiet) for _ in range(2))
    assert np.isfinite(first).all()
    assert (first == second).all()


def test_it_ends_at_once_when_cancelled_and_does_not_begin_again() -> None:
    work = UmapWork()
    begun = threading.Event()
    timer = threading.Thread(target=lambda: (begun.wait(30), work.cancel()))
    timer.start()
    started = time.monotonic()
    with pytest.raises(InterruptedWorkError):
        work.run(np.tile(clusters(), (100, 1)), progress=lambda _share: begun.set())
    assert time.monotonic() - started < 30
    timer.join()
    assert work._worker.pid is None
    with pytest.raises(InterruptedWorkError):
        work.run(clusters(), progress=quiet)


@pytest.mark.parametrize("n_cells", [0, 9])
def test_too_few_cells_are_refused(n_cells: int) -> None:
    with pytest.raises(DataError, match=f"not for {n_cells}.*PCA"):
        UmapWork().run(clusters()[:n_cells], progress=quiet)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(umap_work.util, "find_spec", lambda _name: None)
    with pytest.raises(ConfigError, match="umap-learn"):
        UmapWork().run(clusters(), progress=quiet)


def test_work_that_dies_gives_a_sentence_with_a_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    instead(monkeypatch, "raise MemoryError('out of it')")
    with pytest.raises(WorkerError, match=r"^The map by UMAP failed: MemoryError: out of it\nFix: use PCA"):
        UmapWork().run(clusters(4000), progress=quiet)
