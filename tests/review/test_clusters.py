from __future__ import annotations

import shutil
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tests.fake_run import make_fake_run
from tests.review.waiting import until

from perikarya.data.integrity import check_study
from perikarya.data.phash import crop_phash
from perikarya.data.store import OpenStudy, open_study, save_tables
from perikarya.errors import DataError, InterruptedWorkError
from perikarya.review.cells import open_review
from perikarya.review.clusters import ClusterWork, cluster_numbers, clusters_of_run, clusters_of_study
from perikarya.review.schemas import Query
from perikarya.runs import RunFolder, write_json

COPIES = {5: 2, 11: 2, 30: 7}  # row -> the row it is a copy of
NUMBERS = {2: 1, 5: 1, 11: 1, 7: 2, 30: 2}


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> OpenStudy:
    """A study of noise in which a few rows show the same picture as others, one of them turned and darker."""
    root = make_fake_run(tmp_path_factory.mktemp("twins"), n_cells=40, n_external=0, n_folds=3).opened.root
    rng = np.random.default_rng(0)
    crops = np.lib.format.open_memmap(root / "crops.npy", mode="r+")
    crops[..., :3] = rng.integers(60, 200, (40, 8, 8, 3)).repeat(3, axis=1).repeat(3, axis=2)
    for row, of in COPIES.items():
        crops[row] = crops[of]
    crops[30, ..., :3] = np.rot90(crops[30, ..., :3], 1) // 1.05
    crops.flush()
    opened = open_study(root)
    cells = opened.cells.assign(crop_phash=[crop_phash(crop) for crop in crops], subject="one", set="development")
    save_tables(root, opened.study, cells)
    return open_study(root)


@pytest.fixture
def twins(kept: OpenStudy, tmp_path: Path) -> OpenStudy:
    shutil.copytree(kept.root, tmp_path / "study")
    return open_study(tmp_path / "study")


def expected(n_cells: int = 40) -> list[int]:
    return [NUMBERS.get(row, 0) for row in range(n_cells)]


def test_chains_of_pairs_are_one_cluster_and_numbers_follow_the_rows() -> None:
    found = cluster_numbers([(8, 9), (3, 5), (5, 1)], 10)
    assert found.tolist() == [0, 1, 0, 1, 0, 1, 0, 0, 2, 2]
    assert found.dtype == np.int32


def test_without_pairs_every_cell_is_alone() -> None:
    assert cluster_numbers([], 4).tolist() == [0, 0, 0, 0]


def test_copies_are_found_by_looking_through_the_crops(twins: OpenStudy) -> None:
    assert clusters_of_study(twins).tolist() == expected()


def test_a_runs_check_has_found_them_already(twins: OpenStudy, tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    write_json(run.check, [asdict(finding) for finding in check_study(twins).findings])
    ids = pd.Index(twins.cells["cell_id"].astype(object))
    assert clusters_of_run(run, ids).tolist() == expected()
    assert clusters_of_run(run, ids[:6]).tolist() == expected(6)  # cells the study no longer has


def test_another_process_finds_them_and_the_cache_keeps_them(twins: OpenStudy, monkeypatch: pytest.MonkeyPatch) -> None:
    assert ClusterWork(twins).cached() is None
    assert ClusterWork(twins).run().tolist() == expected()
    found = ClusterWork(twins).cached()
    assert found is not None
    assert found.tolist() == expected()


def test_a_damaged_or_foreign_cache_is_not_believed(twins: OpenStudy) -> None:
    work = ClusterWork(twins)
    work._path.parent.mkdir()
    work._path.write_bytes(b"\x93NUMPY nonsense")
    assert work.cached() is None
    np.save(work._path, np.zeros(7, np.int32))
    assert work.cached() is None


def test_a_search_that_fails_says_why(twins: OpenStudy) -> None:
    work = ClusterWork(twins)
    (twins.root / "crops.npy").unlink()
    with pytest.raises(DataError, match=r"crops\.npy"):
        work.run()


def test_a_cancelled_search_starts_nothing(twins: OpenStudy) -> None:
    work = ClusterWork(twins)
    work.cancel()
    with pytest.raises(InterruptedWorkError):
        work.run()
    assert work.cached() is None


def test_the_page_gets_clusters_in_the_background_and_at_once_the_next_time(twins: OpenStudy) -> None:
    table = open_review(twins.root, reader="ann")
    assert {cell["cluster"] for cell in table.cells(range(40))} == {None}
    table.warm_up()
    until(lambda: table.cells([2])[0]["cluster"] is not None)
    for one in (table, open_review(twins.root, reader="ann")):
        assert [cell["cluster"] or 0 for cell in one.cells(range(40))] == expected()
        question = {"filters": [{"column": "cluster", "min": 1, "max": None}], "sort": [{"column": "cluster"}]}
        assert one.query(Query.model_validate(question))["n"] == 5
        one.close()
