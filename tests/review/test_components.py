"""Principal components come block by block and are those that an exact decomposition finds."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from sklearn.decomposition import PCA
from tests.tiny import make_study

from perikarya.errors import InterruptedWorkError
from perikarya.review import components
from perikarya.review.components import N_COMPONENTS, principal_components, small_pictures


def quiet(_share: float) -> None:
    """Say nothing."""


def table(n: int, d: int, *, seed: int = 0) -> np.ndarray:
    """Features with a spectrum that falls, and a mean far from 0."""
    rng = np.random.default_rng(seed)
    spread = 20 / (1 + np.arange(d))
    turn = np.linalg.qr(rng.normal(size=(d, d)))[0]
    return (rng.normal(size=(n, d)) * spread @ turn + 5).astype(np.float16)


def test_components_are_those_of_an_exact_decomposition() -> None:
    features = table(700, 90)
    found = principal_components(features, progress=quiet)
    exact = PCA(N_COMPONENTS, svd_solver="full").fit_transform(features.astype(np.float64))
    assert found.shape == (700, N_COMPONENTS)
    for k in range(N_COMPONENTS - 8):
        assert abs(np.corrcoef(found[:, k], exact[:, k])[0, 1]) > 0.999, k
    np.testing.assert_allclose(found.var(axis=0), exact.var(axis=0), rtol=0.02)
    np.testing.assert_allclose(found.mean(axis=0), 0, atol=1e-3)


def test_blocks_do_not_change_what_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    features = table(300, 40)
    whole = principal_components(features, progress=quiet)
    monkeypatch.setattr(components, "_BLOCK", 37)
    np.testing.assert_allclose(principal_components(features, progress=quiet), whole, atol=2e-3)


def test_the_same_features_give_the_same_components() -> None:
    features = table(300, 40)
    first, second = (principal_components(features, progress=quiet) for _ in range(2))
    assert (first == second).all()


def test_directions_of_a_sample_serve_many_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    features = table(3000, 40)
    whole = principal_components(features, progress=quiet)
    monkeypatch.setattr(components, "_MAX_FITTED", 1000)
    part = principal_components(features, progress=quiet)
    for k in range(4):
        assert abs(np.corrcoef(part[:, k], whole[:, k])[0, 1]) > 0.99


@pytest.mark.parametrize(("n", "d"), [(1, 5), (2, 3), (5, 1), (40, 7), (3, 100)])
def test_few_cells_or_few_features_leave_the_other_components_at_zero(n: int, d: int) -> None:
    features = table(n, d)
    found = principal_components(features, progress=quiet)
    assert found.shape == (n, N_COMPONENTS)
    assert np.isfinite(found).all()
    rank = min(n - 1, d)
    assert np.abs(found[:, rank:]).max(initial=0) < 0.05
    centred = features.astype(float) - features.astype(float).mean(axis=0)
    np.testing.assert_allclose((found.astype(float) ** 2).sum(), (centred**2).sum(), rtol=1e-2, atol=1e-6)


def test_cells_that_are_all_alike_lie_in_one_place() -> None:
    assert not principal_components(np.full((20, 6), 3, np.float16), progress=quiet).any()


def test_a_table_on_disk_is_never_in_memory_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(components, "_BLOCK", 128)
    np.save(tmp_path / "f.npy", table(20_000, 64))
    mapped = np.load(tmp_path / "f.npy", mmap_mode="r")
    tracemalloc.start()
    found = principal_components(mapped, progress=quiet)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < found.nbytes + 1_500_000 < 20_000 * 64 * 4


def test_progress_runs_from_nothing_to_all_and_may_stop_the_work() -> None:
    shares: list[float] = []
    principal_components(table(300, 40), progress=shares.append)
    assert shares == sorted(shares)
    assert shares[-1] == pytest.approx(1)

    def stop(_share: float) -> None:
        raise InterruptedWorkError("enough")

    with pytest.raises(InterruptedWorkError):
        principal_components(table(300, 40), progress=stop)


def test_small_pictures_show_grey_and_mask_of_every_cell(tmp_path: Path) -> None:
    opened = make_study(tmp_path / "tiny", cells_per_subject=3)
    small = small_pictures(opened, progress=quiet).reshape(-1, 2, 16, 16)
    assert len(small) == len(opened.cells)
    crops = np.asarray(opened.crops).astype(float)
    halved = crops.reshape(len(crops), 16, 2, 16, 2, 4).mean(axis=(2, 4))
    np.testing.assert_allclose(small[:, 1], halved[..., 3], atol=1)
    np.testing.assert_allclose(small[:, 0], halved[..., :3] @ [0.299, 0.587, 0.114], atol=1.5)
