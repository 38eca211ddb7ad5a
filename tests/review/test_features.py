from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.fake_run import FakeRun, make_fake_run

from perikarya.config import ExperimentConfig
from perikarya.data.store import open_study, save_tables
from perikarya.models.feature_cache import features_path
from perikarya.models.weights import RANDOM, WeightsFile
from perikarya.review.features import find_features

ARCH = "custom_cnn"  # has no pretrained weights, so what it starts from is known everywhere


@pytest.fixture
def fake(tmp_path: Path) -> FakeRun:
    return make_fake_run(tmp_path, n_cells=60, n_external=0, n_folds=3)


def put(fake: FakeRun, *, px: int, width: int = 6, n: int = 60, weights: WeightsFile = RANDOM) -> NDArray[np.float16]:
    path = features_path(fake.opened, arch=ARCH, weights=weights, input_px=px)
    path.parent.mkdir(exist_ok=True)
    values = np.random.default_rng(px).normal(0, 1, (n, width)).astype(np.float16)
    np.save(path, values)
    return values


def config_of(fake: FakeRun, px: int) -> ExperimentConfig:
    model = {"name": "small", "arch": ARCH, "weights": "none", "input_px": px}
    return ExperimentConfig.model_validate({"name": "x", "study": str(fake.opened.root), "models": [model]})


def test_a_study_without_a_cache_has_no_features(fake: FakeRun) -> None:
    assert find_features(fake.opened, None) is None
    assert find_features(fake.opened, fake.config) is None


def test_the_features_of_a_run_come_before_others_of_the_study(fake: FakeRun) -> None:
    small, large = put(fake, px=32), put(fake, px=96)
    of_run, of_study = find_features(fake.opened, config_of(fake, 32)), find_features(fake.opened, None)
    assert of_run is not None
    assert of_study is not None
    np.testing.assert_array_equal(of_run.values, small)
    np.testing.assert_array_equal(of_study.values, large)
    assert of_run.words == f"features of {ARCH} at 32 px (rgb+mask)"
    assert isinstance(of_run.values, np.memmap)


def test_features_of_an_earlier_state_of_the_study_are_not_taken(fake: FakeRun) -> None:
    put(fake, px=32)
    save_tables(fake.opened.root, fake.opened.study, fake.opened.cells.assign(label="normal"))
    assert find_features(open_study(fake.opened.root), config_of(fake, 32)) is None


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY nonsense"])
def test_a_damaged_file_is_passed_over(fake: FakeRun, content: bytes) -> None:
    features_path(fake.opened, arch=ARCH, weights=RANDOM, input_px=96).parent.mkdir()
    features_path(fake.opened, arch=ARCH, weights=RANDOM, input_px=96).write_bytes(content)
    small = put(fake, px=32)
    found = find_features(fake.opened, None)
    assert found is not None
    np.testing.assert_array_equal(found.values, small)


def test_features_of_other_cells_are_not_taken(fake: FakeRun) -> None:
    put(fake, px=32, n=59)
    assert find_features(fake.opened, config_of(fake, 32)) is None


def test_files_whose_names_say_nothing_are_passed_over(fake: FakeRun) -> None:
    folder = fake.opened.root / "cache"
    folder.mkdir()
    for name in ("review-pca-0123456789abcdef.npy", "nobody_knows-96px-0123456789abcdef.npy", f"{ARCH}-96px-zz.npy"):
        np.save(folder / name, np.zeros((60, 4), np.float16))
    assert find_features(fake.opened, None) is None
