"""Frozen features: computed once, resumable, keyed by everything they depend on; halves see what they should."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tests.tiny import make_study

from perikarya.data.augment import resize_batch
from perikarya.data.store import OpenStudy
from perikarya.errors import TrainingError
from perikarya.models import embed as module
from perikarya.models.build import build_feature_extractor
from perikarya.models.embed import compute_features, embed
from perikarya.models.feature_cache import features_path, load_features
from perikarya.models.weights import RANDOM, WeightsFile

ARCH, SIDE = "efficientnet_lite0", 32


@pytest.fixture
def opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> OpenStudy:
    torch.set_num_threads(1)
    monkeypatch.setattr(module, "CHUNK", 16)
    monkeypatch.setattr(module, "_SAVE_EVERY", 2)
    return make_study(tmp_path / "study")


def compute(opened: OpenStudy, progress: module.Progress = lambda done, total: None) -> Path:
    return compute_features(opened, arch=ARCH, weights=RANDOM, input_px=SIDE, progress=progress)


def test_an_interrupted_pass_goes_on_and_ends_with_the_same_bytes(opened: OpenStudy, tmp_path: Path) -> None:
    class StoppedError(Exception):
        pass

    def stop(done: int, total: int) -> None:
        if done >= 80:
            raise StoppedError

    whole = compute(make_study(tmp_path / "undisturbed")).read_bytes()
    with pytest.raises(StoppedError):
        compute(opened, stop)
    assert not features_path(opened, arch=ARCH, weights=RANDOM, input_px=SIDE).exists()
    seen: list[int] = []
    path = compute(opened, lambda done, total: seen.append(done))
    assert min(seen) > 64, "it started from the beginning"
    assert path.read_bytes() == whole
    assert {p.suffix for p in path.parent.iterdir()} == {".npy", ".lock"}


def test_a_second_call_computes_nothing(opened: OpenStudy) -> None:
    path = compute(opened)
    before = path.stat().st_mtime_ns
    compute(opened, lambda done, total: pytest.fail("computed again"))
    assert path.stat().st_mtime_ns == before
    features = load_features(opened, arch=ARCH, weights=RANDOM, input_px=SIDE)
    assert features.shape == (len(opened.cells), 2 * 1280)
    assert features.dtype == np.float16


def test_the_cache_is_keyed_by_data_weights_network_size_and_channels(opened: OpenStudy, tmp_path: Path) -> None:
    other_weights = WeightsFile(tmp_path / "w", "file", "", "abc")
    other_study = make_study(tmp_path / "other", seed=1)
    of = {"arch": ARCH, "weights": RANDOM, "input_px": SIDE}
    paths = {
        features_path(opened, arch=ARCH, weights=RANDOM, input_px=SIDE).name,
        features_path(opened, arch=ARCH, weights=other_weights, input_px=SIDE).name,
        features_path(opened, arch="resnet50", weights=RANDOM, input_px=SIDE).name,
        features_path(opened, arch=ARCH, weights=RANDOM, input_px=SIDE + 16).name,
        features_path(other_study, arch=ARCH, weights=RANDOM, input_px=SIDE).name,
        *(features_path(opened, **of, channels=c).name for c in ("rgb", "mask", "masked-rgb")),
    }
    assert len(paths) == 8
    assert features_path(opened, **of, channels="rgb+mask").name in paths


def test_one_half_sees_the_whole_crop_and_the_other_only_the_cell(opened: OpenStudy) -> None:
    torch.manual_seed(0)
    network = build_feature_extractor(ARCH, weights=RANDOM)
    crops = resize_batch(opened.read_crops(np.arange(8)), SIDE)
    changed_ground = crops.copy()
    changed_ground[..., :3][crops[..., 3] == 0] //= 2
    before, after = embed(network, crops), embed(network, changed_ground)
    width = before.shape[1] // 2
    assert not np.array_equal(before[:, :width], after[:, :width])
    np.testing.assert_array_equal(before[:, width:], after[:, width:])


def test_each_choice_of_channels_sees_its_own_view(opened: OpenStudy) -> None:
    torch.manual_seed(0)
    network = build_feature_extractor(ARCH, weights=RANDOM)
    crops = resize_batch(opened.read_crops(np.arange(4)), SIDE)
    whole, alone = np.split(embed(network, crops), 2, axis=1)
    np.testing.assert_array_equal(embed(network, crops, "rgb"), whole)
    np.testing.assert_array_equal(embed(network, crops, "masked-rgb"), alone)
    outlines = embed(network, crops, "mask")
    as_picture = np.concatenate([np.repeat(crops[..., 3:], 3, axis=3), crops[..., 3:]], axis=3)
    np.testing.assert_array_equal(outlines, embed(network, as_picture, "rgb"))
    assert not np.array_equal(outlines, alone)


def test_features_of_one_view_are_cached_at_their_width(opened: OpenStudy) -> None:
    quiet = {"progress": lambda done, total: None}
    compute_features(opened, arch=ARCH, weights=RANDOM, input_px=SIDE, channels="masked-rgb", **quiet)
    features = load_features(opened, arch=ARCH, weights=RANDOM, input_px=SIDE, channels="masked-rgb")
    compute(opened)
    both = load_features(opened, arch=ARCH, weights=RANDOM, input_px=SIDE)
    assert features.shape == (len(opened.cells), 1280)
    np.testing.assert_array_equal(features, both[:, 1280:])


def test_a_transformer_is_built_for_the_size_its_features_are_taken_at(opened: OpenStudy, small_zoo: None) -> None:
    settings = {"arch": "vit_base_224", "weights": RANDOM, "input_px": 48}
    compute_features(opened, **settings, progress=lambda done, total: None)
    assert load_features(opened, **settings).shape == (len(opened.cells), 2 * 96)


def test_features_that_are_not_finite_are_refused(opened: OpenStudy) -> None:
    network = build_feature_extractor(ARCH, weights=RANDOM)
    with torch.no_grad():
        network.backbone.bn2.weight.fill_(float("nan"))
    with pytest.raises(TrainingError, match="not finite"):
        embed(network, resize_batch(opened.read_crops(np.arange(2)), SIDE))
