"""Rules of synthetic training cells: real crops in look and size, training rows only, and never an identity."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import psutil
import pytest
from tests.tiny import CLASS_NAMES, WINDOW_PX, paint_crop

from perikarya.config import AugmentConfig, ResampleConfig
from perikarya.data.augment import Augmenter, resize_batch
from perikarya.data.loader import iterate_batches
from perikarya.data.resampling import RESAMPLERS
from perikarya.data.smote import Recipe, Synthetic, apply_recipe, plain
from perikarya.data.store import OpenStudy
from perikarya.data.synthetic import (
    SyntheticCrops,
    WithSynthetic,
    synthesise_crops,
    synthesise_features,
    with_synthetic,
)
from perikarya.errors import ConfigError, DataError
from perikarya.schema import Study
from perikarya.settings import SMOTE_FAMILY

COUNTS = (30, 18, 7)
OTHERS = sorted(set(RESAMPLERS.names()) - set(SMOTE_FAMILY))


@pytest.fixture(scope="module")
def opened() -> OpenStudy:
    """Thirty large, eighteen medium, seven small discs, then ten cells that are held out."""
    rng = np.random.default_rng(0)
    labels = [*np.repeat(CLASS_NAMES, COUNTS), *["large"] * 9, None]
    radius = {"large": 10, "medium": 8, "small": 6, None: 7}
    crops = np.stack([paint_crop(radius[label] + rng.normal(0, 0.7), rng) for label in labels])
    cells = pd.DataFrame({"label": labels, "cell_id": [f"cell{i}" for i in range(len(labels))]})
    study = Study(name="made", class_names=CLASS_NAMES, window_px=WINDOW_PX)
    return OpenStudy(root=Path("made"), study=study, cells=cells, crops=crops)


TRAIN = np.arange(sum(COUNTS))


def settings(method: Any = "smote", **changes: Any) -> ResampleConfig:
    return ResampleConfig.model_validate({"method": method, "space": "pixels", **changes})


def crops_of(opened: OpenStudy, method: str = "smote", **changes: Any) -> SyntheticCrops:
    return synthesise_crops(opened, TRAIN, config=settings(method, **changes), seed=0)


@pytest.mark.parametrize("method", SMOTE_FAMILY)
@pytest.mark.parametrize("px", [None, 16, 20, WINDOW_PX])
def test_synthetic_crops_stand_beside_real_ones(opened: OpenStudy, method: str, px: int | None) -> None:
    made = crops_of(opened, method, px=px)
    assert made.crops_new.shape == (len(made.labels_new), WINDOW_PX, WINDOW_PX, 4)
    assert made.crops_new.dtype == np.uint8
    assert set(np.unique(made.crops_new[..., 3])) == {0, 255}
    assert (made.crops_new[..., 3] > 0).any(axis=(1, 2)).all()
    assert set(made.labels_new.tolist()) <= {1, 2}
    assert set(made.kept.tolist()) <= set(TRAIN.tolist())


def smote_of(x_nd: Any, labels: Any) -> Synthetic:
    return apply_recipe(Recipe(plain), x_nd, labels, neighbours=5, seed=0, class_names=CLASS_NAMES)


@pytest.mark.parametrize("block", [10, 1024])
def test_pixels_are_those_of_the_flattened_crops_rounded_with_the_mask_cut_at_half(
    opened: OpenStudy, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("perikarya.data.synthetic._BLOCK", block)
    flat = opened.crops[TRAIN].reshape(len(TRAIN), -1).astype(np.float32)
    made = smote_of(flat, opened.labels[TRAIN]).x_new.reshape(-1, WINDOW_PX, WINDOW_PX, 4)
    crops = crops_of(opened).crops_new
    np.testing.assert_array_equal(crops[..., :3], np.rint(made[..., :3]))
    np.testing.assert_array_equal(crops[..., 3] > 0, made[..., 3] > 127.5)


def test_a_synthetic_crop_is_a_blend_whose_outline_is_that_of_the_nearer_cell(opened: OpenStudy) -> None:
    made = crops_of(opened)
    real = opened.crops[TRAIN].astype(float)
    for crop, label in zip(made.crops_new, made.labels_new, strict=True):
        own = real[opened.labels[TRAIN] == label]
        nearest = own[((own[..., :3] - crop[..., :3]) ** 2).sum(axis=(1, 2, 3)).argmin()]
        np.testing.assert_array_equal(crop[..., 3], nearest[..., 3])
        # between two cells, so never outside the range of its class
        assert (crop >= own.min(axis=0) - 0.5).all()
        assert (crop <= own.max(axis=0) + 0.5).all()


def test_grey_levels_beyond_the_range_are_cut_off_not_wrapped_around(
    opened: OpenStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    def beyond(_: Recipe, x_nd: Any, y_n: Any, **__: Any) -> Synthetic:
        x_new = np.full((2, x_nd.shape[1]), -30.0, np.float32)
        x_new[1] = 300.4
        return Synthetic(kept=np.arange(len(y_n)), x_new=x_new, y_new=np.array([2, 2]))

    monkeypatch.setattr("perikarya.data.synthetic.apply_recipe", beyond)
    crops = crops_of(opened).crops_new
    assert [np.unique(crop).tolist() for crop in crops] == [[0], [255]]


def test_smaller_crops_are_blended_after_shrinking_and_enlarged_again(opened: OpenStudy) -> None:
    small = resize_batch(opened.crops[TRAIN], 16)
    flat = small.reshape(len(small), -1).astype(np.float32)
    made = smote_of(flat, opened.labels[TRAIN])
    expected = np.rint(made.x_new).astype(np.uint8).reshape(-1, 16, 16, 4)
    expected[..., 3] = np.where(expected[..., 3] > 127, 255, 0)
    np.testing.assert_array_equal(crops_of(opened, px=16).crops_new, resize_batch(expected, WINDOW_PX))


def test_px_beyond_the_window_is_refused(opened: OpenStudy) -> None:
    with pytest.raises(ConfigError, match=r"resample\.px is 33 but the study's windows have 32 px"):
        crops_of(opened, px=33)


def test_cells_that_do_not_fit_into_half_of_the_memory_are_refused_before_they_are_read(
    opened: OpenStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []
    monkeypatch.setattr(OpenStudy, "read_crops", lambda self, rows: read.append(1) or self.crops[rows])
    needed = 4 * WINDOW_PX**2 * (26 * 55 + 12 * 35 + 35)
    for available, refused in ((2 * needed, False), (2 * needed - 2, True)):
        monkeypatch.setattr(psutil, "virtual_memory", lambda a=available: SimpleNamespace(available=a))
        read.clear()
        if refused:
            with pytest.raises(DataError, match=r"55 training cells, with 35 synthetic(.*\n)+.*resample\.px to 31"):
                crops_of(opened)
            assert not read
        else:
            assert len(crops_of(opened).labels_new) == 35


def test_the_size_named_in_the_refusal_fits(opened: OpenStudy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=6_000_000))
    with pytest.raises(DataError, match=r"resample\.px to 19 or less"):
        crops_of(opened)
    assert len(crops_of(opened, px=19).labels_new) == 35
    with pytest.raises(DataError, match=r"resample\.px to 19 or less"):
        crops_of(opened, px=20)


def test_no_size_is_named_where_none_would_fit(opened: OpenStudy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=100_000))
    with pytest.raises(DataError, match=r"Fix: use resample\.space features"):
        crops_of(opened)


@pytest.mark.parametrize("method", SMOTE_FAMILY)
@pytest.mark.parametrize(("rows", "message"), [([*range(65)], "row 64"), ([], "no training cell")])
def test_rows_that_cannot_be_trained_on_are_refused(
    opened: OpenStudy, method: str, rows: list[int], message: str
) -> None:
    wanted = np.array(rows, dtype=np.int64)
    with pytest.raises(DataError, match=message):
        synthesise_crops(opened, wanted, config=settings(method), seed=0)
    with pytest.raises(DataError, match=message):
        synthesise_features(
            features_of(opened), opened.labels, wanted, class_names=CLASS_NAMES, config=settings(method), seed=0
        )


def test_neighbours_and_seed_are_those_asked_for(opened: OpenStudy) -> None:
    def made(seed: int = 0, **changes: Any) -> tuple[bytes, bytes]:
        config = settings(**changes)
        features = synthesise_features(
            features_of(opened), opened.labels, TRAIN, class_names=CLASS_NAMES, config=config, seed=seed
        )
        crops = synthesise_crops(opened, TRAIN, config=config, seed=seed)
        return features.features_new.tobytes(), crops.crops_new.tobytes()

    expected = made()
    assert made(neighbours=5) == expected
    for other in (made(neighbours=2), made(seed=1)):
        assert other[0] != expected[0]
        assert other[1] != expected[1]


@pytest.mark.parametrize("method", SMOTE_FAMILY)
def test_the_same_rows_in_another_order_make_the_same_crops(opened: OpenStudy, method: str) -> None:
    made = crops_of(opened, method)
    again = synthesise_crops(opened, TRAIN[::-1], config=settings(method), seed=0)
    np.testing.assert_array_equal(again.kept, made.kept)
    np.testing.assert_array_equal(again.crops_new, made.crops_new)
    np.testing.assert_array_equal(again.labels_new, made.labels_new)


@pytest.mark.parametrize("method", OTHERS)
def test_methods_that_invent_nothing_keep_all_and_add_none(opened: OpenStudy, method: str) -> None:
    rows = np.array([40, 3, 3, 7])  # chosen before, with repetition
    assert with_synthetic(opened, rows, config=settings(method), seed=0) == (opened, rows)
    made = crops_of(opened, method)
    assert made.kept.tolist() == TRAIN.tolist()
    assert made.crops_new.shape == (0, WINDOW_PX, WINDOW_PX, 4)
    features = np.ones((len(opened.cells), 3), np.float16)
    flat = synthesise_features(features, opened.labels, rows, class_names=CLASS_NAMES, config=settings(method), seed=0)
    assert flat.kept.tolist() == [3, 3, 7, 40]
    assert flat.features_new.shape == (0, 3)


def features_of(opened: OpenStudy) -> np.ndarray:
    """Three features: one that tells the classes apart, one a thousand times as wide that does not, a constant one."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(len(opened.cells), 3))
    x[:, 0] += opened.labels
    return (x * [1, 1000, 0] + [0, 0, 7]).astype(np.float16)


def test_features_are_blended_where_they_are_standardised_by_the_training_cells(opened: OpenStudy) -> None:
    features = features_of(opened)
    made = synthesise_features(features, opened.labels, TRAIN[::-1], class_names=CLASS_NAMES, config=settings(), seed=0)
    x = features[TRAIN].astype(np.float64)
    mean, sd = x.mean(axis=0), np.where(x.std(axis=0) > 0, x.std(axis=0), 1)
    expected = smote_of(((x - mean) / sd).astype(np.float32), opened.labels[TRAIN])
    np.testing.assert_allclose(made.features_new, expected.x_new * sd + mean, rtol=1e-4, atol=1e-3)
    np.testing.assert_array_equal(made.labels_new, expected.y_new)
    assert (made.features_new[:, 2] == 7).all()
    assert made.features_new.dtype == np.float32


@pytest.mark.parametrize("method", SMOTE_FAMILY)
def test_every_method_works_among_features(opened: OpenStudy, method: str) -> None:
    made = synthesise_features(
        features_of(opened), opened.labels, TRAIN, class_names=CLASS_NAMES, config=settings(method), seed=0
    )
    assert made.features_new.shape == (len(made.labels_new), 3)
    assert len(made.labels_new) > 0
    assert np.isfinite(made.features_new).all()
    assert set(made.kept.tolist()) <= set(TRAIN.tolist())


def extended(opened: OpenStudy, method: str = "smote-tomek") -> tuple[WithSynthetic, np.ndarray, SyntheticCrops]:
    study, rows = with_synthetic(opened, TRAIN, config=settings(method), seed=0)
    assert isinstance(study, WithSynthetic)
    return study, rows, crops_of(opened, method)


def test_synthetic_cells_come_after_the_last_row_with_their_crops_and_labels(opened: OpenStudy) -> None:
    study, rows, made = extended(opened)
    n_cells = len(opened.cells)
    assert rows.tolist() == [*made.kept, *range(n_cells, n_cells + len(made.labels_new))]
    np.testing.assert_array_equal(study.labels[rows], [*opened.labels[made.kept], *made.labels_new])
    mixed = np.random.default_rng(0).permutation(rows)
    both = np.concatenate([opened.crops, made.crops_new])
    np.testing.assert_array_equal(study.read_crops(mixed), both[mixed])
    np.testing.assert_array_equal(study.read_crops(TRAIN[:3]), opened.crops[:3])
    assert study.read_crops(TRAIN[:0]).shape == (0, WINDOW_PX, WINDOW_PX, 4)


def test_what_is_known_of_real_cells_stays_as_it_is(opened: OpenStudy) -> None:
    study, _, _ = extended(opened)
    everything = np.arange(len(opened.cells))
    np.testing.assert_array_equal(study.labels[everything], opened.labels)
    np.testing.assert_array_equal(study.read_crops(everything), opened.crops)
    assert study.cells is opened.cells
    assert study.study is opened.study


def test_a_synthetic_cell_has_no_identity(opened: OpenStudy) -> None:
    study, rows, _ = extended(opened)
    ids = study.cells["cell_id"].to_numpy(dtype=str)
    assert len(ids) == len(opened.cells)
    with pytest.raises(IndexError):
        ids[rows[-1]]
    with pytest.raises(IndexError):
        study.read_crops(np.array([len(study.labels)]))


def test_the_loader_mixes_real_and_synthetic_cells(opened: OpenStudy) -> None:
    study, rows, _ = extended(opened)
    batches = list(
        iterate_batches(
            study, rows, batch_size=16, out_px=24, augmenter=Augmenter(AugmentConfig(), out_px=24), shuffle=True
        )
    )
    seen = np.concatenate([r for _, r in batches])
    assert sorted(seen.tolist()) == sorted(rows.tolist())
    assert all(x.shape[1:] == (24, 24, 4) for x, _ in batches)
    plain = next(iter(iterate_batches(study, rows[-3:], batch_size=3, out_px=24)))[0]
    np.testing.assert_array_equal(plain, resize_batch(study.crops_new[-3:], 24))


def test_the_log_tells_what_was_made(opened: OpenStudy, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        made = crops_of(opened, "smote-enn")
    assert "smote-enn: new cells: " in caplog.text
    assert f"{len(TRAIN) - len(made.kept)} real cells left out" in caplog.text
