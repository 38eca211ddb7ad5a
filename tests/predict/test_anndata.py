"""Predicted cells as AnnData, read back by the library itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.predict.made import CLASSES, made_field, made_manifest

from perikarya.errors import DataError
from perikarya.predict.outputs import finish, parse_formats, write_field

anndata = pytest.importorskip("anndata")


def written(tmp_path: Path, *, n_features: int = 0) -> anndata.AnnData:
    manifest = made_manifest()
    told = {"subject": "s1", "group": "sham"}
    for image_id, words in (("a", told), ("b", {})):
        write_field(tmp_path, made_field(tmp_path, image_id, words=words, n_features=n_features), manifest, ())
    finish(tmp_path, ["b", "a"], manifest, ("h5ad",), model_sha256="ab" * 32, features=n_features > 0)
    return anndata.read_h5ad(tmp_path / "cells.h5ad")


def test_probabilities_places_and_words_come_back(tmp_path: Path) -> None:
    data = written(tmp_path)
    assert data.shape == (8, 3)
    assert data.var_names.tolist() == list(CLASSES)
    assert np.array_equal(data.X, data.obsm["prob"])
    assert data.obsm["prob"][1] == pytest.approx([0.1, 0.1, 0.8])
    assert data.obsm["spatial"][1].tolist() == [59.5, 19.5]
    assert data.obs_names[0] == "b00000000000000"
    assert data.obs["class"].cat.categories.tolist() == list(CLASSES)
    assert data.obs["image_id"].tolist() == ["b"] * 4 + ["a"] * 4
    assert data.obs["subject"].isna().tolist() == [True] * 4 + [False] * 4
    assert data.obs["subject"].iloc[4] == "s1"
    assert data.obs["label"].iloc[1] == "intermediate"
    assert data.obs["abstained"].tolist()[:4] == [False, False, True, False]
    assert data.obs["area_um2"].iloc[0] == 50


def test_what_made_it_is_told(tmp_path: Path) -> None:
    uns = written(tmp_path).uns
    assert uns["perikarya"]["model"] == "made"
    assert uns["perikarya"]["model_sha256"] == "ab" * 32
    assert list(uns["perikarya"]["class_names"]) == list(CLASSES)
    assert list(uns["class_colors"]) == list(made_manifest().class_colours)


def test_features_of_the_network_are_the_matrix_where_asked(tmp_path: Path) -> None:
    data = written(tmp_path, n_features=5)
    assert data.shape == (8, 5)
    assert data.uns["perikarya"]["X"] == "features"
    assert data.X[1].tolist() == [5, 6, 7, 8, 9]
    assert data.X.dtype == np.float32
    assert data.obsm["prob"].shape == (8, 3)


def test_a_cell_in_two_copies_of_an_image_is_written_twice(tmp_path: Path) -> None:
    manifest = made_manifest()
    for image_id in ("a", "b"):
        field = made_field(tmp_path, image_id, cell_id=np.array([f"{i:016d}" for i in range(4)], dtype=str))
        write_field(tmp_path, field, manifest, ())
    finish(tmp_path, ["a", "b"], manifest, ("h5ad",))
    with pytest.warns(UserWarning, match="not unique"):
        assert anndata.read_h5ad(tmp_path / "cells.h5ad").n_obs == 8


def test_without_the_library_it_is_said_before_anything_is_predicted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("perikarya.predict.outputs.anndata.find_spec", lambda name: None)
    with pytest.raises(DataError, match=r"pip install 'perikarya\[anndata\]'"):
        parse_formats("csv,h5ad")
