"""Rules of mixing: picture, mask and label of a cell go together, and all follows from (seed, epoch, step)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from tests.crops import blob, only, random_crops

from perikarya.data.mixing import mix_batch

N = 16
WAYS = [{"mixup": 0.4}, {"cutmix": 1.0}, {"mixup": 1.0, "cutmix": 0.5}]


def mix(x_nhwc: NDArray[np.uint8], y_nk: NDArray[np.float32], *, step: int = 0, **settings: Any) -> Any:
    return mix_batch(x_nhwc, y_nk, config=only(**settings), seed=3, epoch=1, step=step)


def one_hot(n: int = N, k: int = 3) -> NDArray[np.float32]:
    return np.eye(k, dtype=np.float32)[np.arange(n) % k]


def own_classes(n: int = N) -> NDArray[np.float32]:
    """Every cell is a class of its own, so that targets tell the partner."""
    return np.eye(n, dtype=np.float32)


def named_cells(px: int = 24, *, n: int = N, seed: int = 0) -> NDArray[np.uint8]:
    """Cells whose whole picture has the number of the cell as its colour, with masks here and there."""
    rng = np.random.default_rng(seed)
    x_nhwc = np.empty((n, px, px, 4), np.uint8)
    x_nhwc[..., :3] = np.arange(n)[:, None, None, None]
    for cell in x_nhwc:
        cell[..., 3] = blob(px, offset=rng.uniform(-0.4, 0.4, 2) * px)
    return x_nhwc


@settings(max_examples=60, deadline=None)
@given(
    ways=st.fixed_dictionaries({"mixup": st.floats(0, 5), "cutmix": st.floats(0, 5), "mix_share": st.floats(0, 1)}),
    n=st.integers(0, 9),
    k=st.integers(2, 7),
    step=st.integers(0, 1000),
)
def test_targets_stay_shares_that_sum_to_one(ways: dict[str, float], n: int, k: int, step: int) -> None:
    given_y = np.random.default_rng(step).dirichlet(np.ones(k), n).astype(np.float32)
    x_nhwc, y_nk = mix(random_crops(n, 12), given_y, step=step, **ways)
    assert x_nhwc.shape == (n, 12, 12, 4)
    assert y_nk.shape == (n, k)
    assert x_nhwc.dtype == np.uint8
    assert y_nk.dtype == np.float32
    assert (y_nk >= 0).all()
    np.testing.assert_allclose(y_nk.sum(axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("step", range(20))
def test_cutmix_takes_picture_and_mask_of_a_pixel_from_one_cell_and_labels_by_shown_outline(step: int) -> None:
    before = named_cells(seed=step)
    after, target = mix(before, own_classes(), step=step, cutmix=1.0)
    for i in range(N):
        source = after[i, ..., 0].astype(int)
        rows, columns = np.indices(source.shape)
        np.testing.assert_array_equal(after[i], before[source, rows, columns])
        others = set(np.unique(source)) - {i}
        assert len(others) <= 1
        assert _is_rectangle(source != i)
        shown = np.array([((source == j) & (after[i, ..., 3] > 0)).sum() for j in range(N)], float)
        shown /= (before[..., 3] > 0).sum(axis=(1, 2))  # a small cell counts as much as a large one
        area = np.array([(source == j).mean() for j in range(N)])
        expected = shown / shown.sum() if shown.sum() else area
        np.testing.assert_allclose(target[i], expected, atol=1e-6)


def _is_rectangle(region: NDArray[np.bool_]) -> bool:
    rows, columns = region.any(axis=1), region.any(axis=0)
    return int(region.sum()) == int(rows.sum()) * int(columns.sum())


def test_a_pasted_piece_of_background_brings_no_class_and_area_decides_where_no_cell_shows() -> None:
    x_nhwc = named_cells()
    x_nhwc[:8, ..., 3] = 0  # eight cells without an outline
    seen = {"background": 0, "area": 0}
    for step in range(30):
        after, target = mix(x_nhwc, own_classes(), step=step, cutmix=1.0)
        for i in range(N):
            pasted = after[i, ..., 0] != i
            if not pasted.any():
                assert target[i, i] == 1
                continue
            partner = int(after[i, ..., 0][pasted][0])
            if after[i, ..., 3].any() and not after[i, pasted, 3].any():
                seen["background"] += 1
                assert target[i, i] == 1
            elif not after[i, ..., 3].any():
                seen["area"] += 1
                assert target[i, partner] == pytest.approx(pasted.mean(), abs=1e-6)
    assert min(seen.values()) > 10


@pytest.mark.parametrize("step", range(5))
def test_mixup_blends_picture_mask_and_label_by_the_same_share(step: int) -> None:
    before = random_crops(N, 24, seed=step)
    after, target = mix(before, own_classes(), step=step, mixup=1.0)
    expected = np.tensordot(target, before.astype(float), axes=1)
    assert np.abs(after - expected).max() <= 0.51
    shares = target.max(axis=1)
    assert len(np.unique(shares)) > N // 2, "every cell has a share of its own"
    assert ((after[..., 3] > 0) & (after[..., 3] < 255)).any()


def test_each_cell_is_the_partner_of_one_other() -> None:
    for ways in WAYS[:2]:
        for step in range(10):
            _, target = mix(named_cells(), own_classes(), step=step, **ways)
            np.testing.assert_array_less((target > 0).sum(axis=1), 3)
            partner = target * (1 - np.eye(N))
            np.testing.assert_array_less((partner > 0).sum(axis=0), 2)


def test_shares_follow_the_beta_distribution_of_the_setting() -> None:
    def own_shares(**ways: float) -> NDArray[np.float64]:
        y = own_classes(64)
        x = named_cells(2, n=64)
        return np.concatenate([mix(x, y, step=step, **ways)[1].diagonal() for step in range(60)]).astype(float)

    for alpha in (0.2, 1.0, 8.0):
        shares = own_shares(mixup=alpha)
        shares = shares[shares < 1]  # a cell that is its own partner
        assert shares.mean() == pytest.approx(0.5, abs=0.03)
        assert shares.var() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.12)


def test_rectangles_have_the_drawn_area_where_they_fit() -> None:
    """Yun et al. 2019: sides are sqrt(1 - share) of the picture's; a large alpha makes all shares a half."""
    x_nhwc = named_cells(100)
    x_nhwc[..., 3] = 0
    areas = []
    for step in range(60):
        after, _ = mix(x_nhwc, own_classes(), step=step, cutmix=1e6)
        for i in range(N):
            pasted = after[i, ..., 0] != i
            border = pasted[0].any() or pasted[-1].any() or pasted[:, 0].any() or pasted[:, -1].any()
            if pasted.any() and not border:
                areas.append(pasted.mean())
    assert len(areas) > 30
    np.testing.assert_allclose(areas, 0.5, atol=0.02)


def test_nothing_asked_nothing_changed() -> None:
    x_nhwc, y_nk = random_crops(N, 8), one_hot()
    for ways in ({}, {"mixup": 1.0, "cutmix": 1.0, "mix_share": 0.0}):
        found = mix(x_nhwc, y_nk, **ways)
        assert found[0] is x_nhwc
        assert found[1] is y_nk


@pytest.mark.parametrize("ways", WAYS)
def test_given_arrays_are_not_written_to(ways: dict[str, float]) -> None:
    x_nhwc, y_nk = random_crops(N, 12), one_hot()
    copies = x_nhwc.copy(), y_nk.copy()
    x_nhwc.setflags(write=False)
    y_nk.setflags(write=False)
    for step in range(5):
        mix(x_nhwc, y_nk, step=step, **ways)
    np.testing.assert_array_equal(x_nhwc, copies[0])
    np.testing.assert_array_equal(y_nk, copies[1])


def test_as_many_batches_are_mixed_as_asked_for_and_each_in_one_way() -> None:
    x_nhwc, y_nk = named_cells(8), own_classes()
    blended = cut = 0
    for step in range(400):
        after, target = mix(x_nhwc, y_nk, step=step, mixup=1.0, cutmix=1.0, mix_share=0.5)
        if target is y_nk:
            continue
        is_cut = bool(np.isin(after[..., 3], (0, 255)).all())
        blended, cut = blended + (not is_cut), cut + is_cut
    assert blended + cut == pytest.approx(200, abs=50)
    assert blended == pytest.approx(cut, abs=50)


@pytest.mark.parametrize("ways", WAYS)
def test_mixing_follows_from_seed_epoch_and_step_alone(ways: dict[str, float]) -> None:
    x_nhwc, y_nk = random_crops(N, 12), own_classes()
    place = {"seed": 5, "epoch": 2, "step": 7}
    found = {
        name: mix_batch(x_nhwc, y_nk, config=only(**ways), **{**place, **other})
        for name, other in {"same": {}, "seed": {"seed": -5}, "epoch": {"epoch": 3}, "step": {"step": 8}}.items()
    }
    again = mix_batch(x_nhwc, y_nk, config=only(**ways), **place)
    np.testing.assert_array_equal(found["same"][0], again[0])
    np.testing.assert_array_equal(found["same"][1], again[1])
    assert len({y.tobytes() for _, y in found.values()}) == 4


def test_cells_and_targets_have_to_fit_together() -> None:
    with pytest.raises(ValueError, match="uint8 cells"):
        mix(random_crops(4, 8), one_hot(5), mixup=1.0)
    with pytest.raises(ValueError, match="uint8 cells"):
        mix(random_crops(4, 8).astype(np.float32), one_hot(4), mixup=1.0)
