"""Rules of the loader: every row once, the same batches whatever the threads, and nothing left running."""

from __future__ import annotations

import gc
import threading
import time
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from perikarya.config import AugmentConfig
from perikarya.data.augment import Augmenter, resize_batch
from perikarya.data.loader import iterate_batches, share_of
from perikarya.data.store import OpenStudy
from perikarya.schema import Study

N = 23


@pytest.fixture
def opened() -> OpenStudy:
    crops = np.random.default_rng(0).integers(0, 256, (N, 16, 16, 4), dtype=np.uint8)
    study = Study(name="made", class_names=("a",), window_px=16)
    return OpenStudy(root=Path("made"), study=study, cells=pd.DataFrame(index=range(N)), crops=crops)


def n_threads() -> int:
    return sum(t.name.startswith("perikarya-batches") for t in threading.enumerate())


def training(opened: OpenStudy, rows: Any, **changes: Any) -> list[tuple[Any, Any]]:
    settings = {"batch_size": 5, "seed": 1, "epoch": 2, "shuffle": True, "out_px": 24, **changes}
    return list(iterate_batches(opened, rows, augmenter=Augmenter(AugmentConfig(), out_px=24), **settings))


def test_evaluation_sees_every_row_once_in_order_and_only_resized(opened: OpenStudy) -> None:
    rows = np.array([3, 1, 22, 7, 9, 0, 4])
    batches = list(iterate_batches(opened, rows, batch_size=3, out_px=8))
    assert [len(r) for _, r in batches] == [3, 3, 1]
    np.testing.assert_array_equal(np.concatenate([r for _, r in batches]), rows)
    np.testing.assert_array_equal(np.concatenate([x for x, _ in batches]), resize_batch(opened.crops[rows], 8))


@pytest.mark.parametrize(("prefetch", "workers"), [(0, 1), (1, 1), (2, 1), (4, 4), (3, 9)])
def test_the_same_batches_come_whatever_the_threads(opened: OpenStudy, prefetch: int, workers: int) -> None:
    expected = training(opened, np.arange(N), prefetch=0)
    found = training(opened, np.arange(N), prefetch=prefetch, workers=workers)
    assert len(found) == len(expected) == 5
    for (x, r), (x0, r0) in zip(found, expected, strict=True):
        np.testing.assert_array_equal(x, x0)
        np.testing.assert_array_equal(r, r0)


@pytest.mark.parametrize("batch_size", [1, 4, 23, 50])
def test_a_cell_looks_the_same_whatever_the_batch_size(opened: OpenStudy, batch_size: int) -> None:
    def by_row(batches: list[tuple[Any, Any]]) -> dict[int, bytes]:
        return {int(row): cell.tobytes() for x, r in batches for cell, row in zip(x, r, strict=True)}

    expected = by_row(training(opened, np.arange(N)))
    assert len(expected) == N
    assert by_row(training(opened, np.arange(N), batch_size=batch_size)) == expected


def test_seed_and_epoch_change_order_and_cells(opened: OpenStudy) -> None:
    first = training(opened, np.arange(N))
    for other in (training(opened, np.arange(N), epoch=3), training(opened, np.arange(N), seed=-2)):
        assert [r.tolist() for _, r in first] != [r.tolist() for _, r in other]
        assert {c.tobytes() for x, _ in first for c in x}.isdisjoint({c.tobytes() for x, _ in other for c in x})


def test_an_oversampled_cell_looks_different_each_time(opened: OpenStudy) -> None:
    x = np.concatenate([x for x, _ in training(opened, np.array([4] * 12))])
    assert len({cell.tobytes() for cell in x}) == 12


def test_an_incomplete_last_batch_can_be_left_out(opened: OpenStudy) -> None:
    assert [len(r) for _, r in training(opened, np.arange(N), drop_last=True)] == [5, 5, 5, 5]
    assert training(opened, np.arange(3), drop_last=True) == []
    assert training(opened, np.array([], dtype=np.int64)) == []


def test_no_more_batches_are_made_than_asked_for_ahead(opened: OpenStudy, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    monkeypatch.setattr(OpenStudy, "read_crops", lambda self, rows: made.append(rows) or self.crops[rows])
    batches = iterate_batches(opened, np.arange(N), batch_size=1, out_px=8, prefetch=3, workers=2)
    next(batches)
    time.sleep(0.2)
    assert 1 < len(made) <= 4
    batches.close()  # type: ignore[attr-defined]


def test_threads_end_when_the_consumer_stops_early(opened: OpenStudy) -> None:
    batches = iterate_batches(opened, np.arange(N), batch_size=2, out_px=8, workers=2)
    assert len(list(islice(batches, 2))) == 2
    assert n_threads() > 0
    del batches
    gc.collect()
    assert n_threads() == 0


def test_batches_that_wait_are_not_made_when_the_consumer_stops(
    opened: OpenStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []

    def read_slowly(self: OpenStudy, rows: Any) -> Any:
        made.append(rows)
        time.sleep(0.1)
        return self.crops[rows]

    monkeypatch.setattr(OpenStudy, "read_crops", read_slowly)
    batches = iterate_batches(opened, np.arange(N), batch_size=1, out_px=8, prefetch=15, workers=1)
    next(batches)  # 16 are asked for by now, and one is ready
    batches.close()  # type: ignore[attr-defined]
    assert len(made) <= 4


@pytest.mark.parametrize("prefetch", [0, 2])
def test_a_batch_that_cannot_be_made_raises_where_it_is_used_and_threads_end(opened: OpenStudy, prefetch: int) -> None:
    rows = np.array([0, 1, 2, 3, N + 5, 4, 5, 6])  # no such row
    batches = iterate_batches(opened, rows, batch_size=2, out_px=8, prefetch=prefetch)
    assert [r.tolist() for _, r in islice(batches, 2)] == [[0, 1], [2, 3]]
    with pytest.raises(IndexError):
        next(batches)
    assert n_threads() == 0


@pytest.mark.parametrize(
    "wrong",
    [
        {"batch_size": 0},
        {"workers": 0},
        {"prefetch": -1},
        {"first": -1},
        {"augmenter": Augmenter(AugmentConfig(), out_px=9)},
    ],
)
def test_senseless_settings_are_refused_at_the_call(opened: OpenStudy, wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        iterate_batches(opened, np.arange(N), **{"batch_size": 2, "out_px": 8, **wrong})


@pytest.mark.parametrize("first", [0, 1, 3, 4, 5, 9])
def test_an_epoch_can_begin_at_any_batch(opened: OpenStudy, first: int, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = training(opened, np.arange(N))
    made = []
    monkeypatch.setattr(OpenStudy, "read_crops", lambda self, rows: made.append(rows) or self.crops[rows])
    rest = training(opened, np.arange(N), first=first)
    assert len(made) == len(rest) == max(0, 5 - first), "none of the batches before it is made"
    for (x, r), (x0, r0) in zip(rest, whole[first:], strict=True):
        np.testing.assert_array_equal(x, x0)
        np.testing.assert_array_equal(r, r0)


@pytest.mark.parametrize("n_shares", [1, 2, 3])
def test_shares_of_a_batch_join_into_it(opened: OpenStudy, n_shares: int) -> None:
    whole = training(opened, np.array([4] * 12 + list(range(11))))
    shares = [training(opened, np.array([4] * 12 + list(range(11))), share=(k, n_shares)) for k in range(n_shares)]
    for i, (x, rows) in enumerate(whole):
        np.testing.assert_array_equal(np.concatenate([share[i][0] for share in shares]), x)
        np.testing.assert_array_equal(np.concatenate([share[i][1] for share in shares]), rows)


@pytest.mark.parametrize("n_cells", [0, 1, 5, 16])
@pytest.mark.parametrize("n_shares", [1, 2, 3, 7])
def test_shares_differ_by_one_cell_at_most_and_leave_none_out(n_cells: int, n_shares: int) -> None:
    shares = [list(range(n_cells))[share_of(n_cells, k, n_shares)] for k in range(n_shares)]
    assert [cell for share in shares for cell in share] == list(range(n_cells))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_there_is_no_share_beyond_the_last() -> None:
    with pytest.raises(ValueError, match="no share 2 of 2"):
        share_of(10, 2, 2)
