"""Shares of maps inside cells: every class counts alike, animals are drawn, and files that are damaged say so."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from perikarya.config import EvaluateConfig
from perikarya.errors import DataError, RunError
from perikarya.evaluate.saliency import (
    CellShares,
    DrawnMaps,
    explained_path,
    load_explained,
    maps_path,
    summarise_shares,
)
from perikarya.evaluate.stats import draw_counts, percentile_interval
from perikarya.runs import RunFolder, write_json, write_text

NAMES = ("a", "b", "c")
CONFIG = EvaluateConfig(n_bootstrap=500)


def shares_of(n: int, *, n_animals: int, spread: float, seed: int = 0) -> tuple[CellShares, pd.DataFrame]:
    rng = np.random.default_rng(seed)
    animal = rng.integers(0, n_animals, n)
    inside = np.clip(0.5 + spread * rng.normal(size=n_animals)[animal] + 0.05 * rng.normal(size=n), 0, 1)
    cells = pd.DataFrame({"subject": [f"s{a}" for a in animal], "image_id": [f"i{i}" for i in range(n)]})
    return CellShares(np.arange(n), rng.integers(0, 2, n), inside, np.full(n, 0.2)), cells


def test_classes_count_alike_and_empty_maps_enter_no_mean() -> None:
    shares = CellShares(
        row_n=np.array([4, 3, 2, 1, 0]),
        label_n=np.array([0, 0, 0, 1, 1]),
        inside_n=np.array([0.1, 0.2, 0.6, 0.9, np.nan]),
        even_n=np.array([0.2, 0.2, 0.2, 0.4, 0.9]),
    )
    cells = pd.DataFrame({"subject": list("vwxyz"), "image_id": list("vwxyz")})
    found = summarise_shares(shares, cells, NAMES, config=CONFIG)
    assert found["share_inside"]["mean"] == pytest.approx((0.3 + 0.9) / 2)
    assert found["even_share"] == pytest.approx(0.3)
    assert found["beyond_even"]["mean"] == pytest.approx(0.3)
    assert (found["n_cells"], found["n_empty"], found["n_clusters"]) == (4, 1, 4)
    assert found["per_class"]["b"] == {"n": 1, "share_inside": 0.9, "even_share": 0.4}
    assert found["per_class"]["c"] == {"n": 0, "share_inside": None, "even_share": None}


def test_the_interval_is_that_of_cells_copied_out_animal_by_animal() -> None:
    shares, cells = shares_of(60, n_animals=8, spread=0.1)
    found = summarise_shares(shares, cells, NAMES, config=CONFIG)
    animal = pd.Series(cells["subject"]).rank(method="dense").astype(int).to_numpy() - 1
    draws = []
    for counts in draw_counts(8, n_draws=500, seed=0):
        times = counts[animal].astype(int)
        label, inside = np.repeat(shares.label_n, times), np.repeat(shares.inside_n, times)
        draws.append(np.mean([inside[label == k].mean() for k in (0, 1)]))
    expected = percentile_interval(np.array(draws), confidence=0.95, n_clusters=8)
    assert found["share_inside"]["ci95"] == pytest.approx(expected)


def test_few_animals_or_none_give_no_interval_and_no_nan() -> None:
    shares, cells = shares_of(30, n_animals=2, spread=0.1)
    assert summarise_shares(shares, cells, NAMES, config=CONFIG)["share_inside"]["ci95"] is None
    empty = CellShares(shares.row_n, shares.label_n, np.full(30, np.nan), shares.even_n)
    found = summarise_shares(empty, cells, NAMES, config=CONFIG)
    assert found["share_inside"] == {"mean": None, "ci95": None}
    assert found["even_share"] is None
    assert found["n_empty"] == 30


def some_maps() -> DrawnMaps:
    return DrawnMaps(
        cell_id_m=np.array(["x", "y", "y"]),
        label_m=np.array([0, 1, 1]),
        predicted_m=np.array([0, 2, 2]),
        about_m=np.array([0, 2, 1]),
        prob_m=np.array([0.9, 0.7, 0.2]),
        map_mhw=np.arange(3 * 4 * 4, dtype=np.uint8).reshape(3, 4, 4),
    )


def test_maps_come_back_as_they_were_and_equal_maps_give_equal_files(tmp_path: Path) -> None:
    some_maps().save(tmp_path / "a.npz")
    some_maps().save(tmp_path / "b.npz")
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    found = DrawnMaps.load(tmp_path / "a.npz")
    for name, values in some_maps().__dict__.items():
        np.testing.assert_array_equal(getattr(found, name), values)


@pytest.mark.parametrize("content", [None, b"", b"not a file of maps", b"PK\x03\x04 cut short"])
def test_maps_that_cannot_be_read_are_a_sentence(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(RunError, match="run 'perikarya explain' again"):
        DrawnMaps.load(path)


def test_numbers_are_read_where_there_are_any(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    assert load_explained(run) == {}
    write_json(explained_path(run), {"schema_version": 1, "models": {"m": {"reason": "x"}}})
    assert load_explained(run) == {"m": {"reason": "x"}}
    write_json(explained_path(run), {"schema_version": 7, "models": {}})
    with pytest.raises(DataError, match="schema version 7"):
        load_explained(run)
    write_text(explained_path(run), "[1]")
    with pytest.raises(RunError, match="holds no models"):
        load_explained(run)


def test_no_model_name_leaves_the_folder(tmp_path: Path) -> None:
    assert maps_path(RunFolder(tmp_path), "vit@8").name == "vit_8.npz"
