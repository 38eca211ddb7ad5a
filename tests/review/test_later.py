from __future__ import annotations

import base64
import logging
import time
from pathlib import Path

import numpy as np
import pytest
from tests.fake_run import FakeRun, make_fake_run

from perikarya.data.phash import N_BYTES
from perikarya.data.store import save_tables
from perikarya.models.feature_cache import features_path
from perikarya.models.weights import RANDOM
from perikarya.review.cells import ReviewTable, open_review
from perikarya.review.schemas import Query
from perikarya.review.worth import by_worth, worth_of

QUEUE = Query.model_validate({"sort": [{"column": "queue"}]})


@pytest.fixture
def fake(tmp_path: Path) -> FakeRun:
    return make_fake_run(tmp_path, n_cells=90, n_external=0, n_folds=3)


def queue_of(table: ReviewTable) -> list[int]:
    return [int(row) for row in np.frombuffer(base64.b64decode(table.query(QUEUE)["rows_b64"]), "<u4")]


def title_of(table: ReviewTable, key: str) -> str:
    return next(str(c["title"]) for c in table.info()["columns"] if c["key"] == key)


def warmed_up(table: ReviewTable, *, title: str) -> ReviewTable:
    """Wait until the queue is called so, or half a minute."""
    table.warm_up()
    deadline = time.monotonic() + 30
    while title_of(table, "queue") != title and time.monotonic() < deadline:
        time.sleep(0.02)
    table.close()
    assert title_of(table, "queue") == title
    return table


def put_features(fake: FakeRun) -> None:
    """Give the study features in which the cells stand in nine tight groups."""
    path = features_path(fake.opened, arch="custom_cnn", weights=RANDOM, input_px=32)
    path.parent.mkdir()
    groups = 10 * np.eye(9, 40)[np.arange(90) % 9]
    np.save(path, (groups + np.random.default_rng(0).normal(0, 0.01, groups.shape)).astype(np.float16))


def test_the_queue_of_a_run_goes_by_disagreement_and_doubt_at_once(fake: FakeRun) -> None:
    table = open_review(fake.run.root, reader="ann")
    prob = np.array([table.probabilities(row)[0]["prob"] for row in range(90)])
    assert queue_of(table) == by_worth(worth_of(prob, table.codes)).tolist()
    assert title_of(table, "queue") == "review queue (by disagreement and doubt)"


def test_unlike_cells_move_to_its_head_in_the_background(fake: FakeRun) -> None:
    put_features(fake)
    table = open_review(fake.run.root, reader="ann")
    before = queue_of(table)
    warmed_up(table, title="review queue (by disagreement and doubt, unlike cells first)")
    after = queue_of(table)
    assert sorted(after) == list(range(90))
    assert after[0] == before[0]
    assert len({row % 9 for row in after[:9]}) == 9
    assert len({row % 9 for row in before[:9]}) < 9


def test_without_features_pictures_tell_what_is_alike_and_without_a_model_chance_begins(fake: FakeRun) -> None:
    rng = np.random.default_rng(0)
    kinds = [rng.bytes(N_BYTES).hex() for _ in range(9)]
    save_tables(fake.opened.root, fake.opened.study, fake.opened.cells.assign(crop_phash=kinds * 10))
    table = open_review(fake.opened.root, reader="ann")
    assert title_of(table, "queue") == "review queue (by chance)"
    warmed_up(table, title="review queue (by chance, unlike pictures first)")
    assert len({row % 9 for row in queue_of(table)[:9]}) == 9


def test_a_study_whose_pictures_were_never_described_keeps_its_queue(
    fake: FakeRun, caplog: pytest.LogCaptureFixture
) -> None:
    table = open_review(fake.run.root, reader="ann")
    before = queue_of(table)
    with caplog.at_level(logging.WARNING):
        table._later.spread_queue()
    assert "not spread" in caplog.text
    assert queue_of(table) == before


def test_cells_nobody_asked_a_model_about_have_no_place_in_the_queue_and_come_last(fake: FakeRun) -> None:
    for path in (fake.run.root / "tasks").glob("*/seed0/fold1/predictions.parquet"):
        path.unlink()
    table = open_review(fake.run.root, reader="ann")
    unknown = {row for row in range(90) if not table.probabilities(row)}
    assert unknown
    assert set(queue_of(table)[-len(unknown) :]) == unknown
    values = np.frombuffer(base64.b64decode(table.column("queue")["values_b64"]), "<f4")
    assert set(np.flatnonzero(np.isnan(values)).tolist()) == unknown


def test_a_failed_search_for_near_duplicates_is_said_in_the_columns_title(
    fake: FakeRun, caplog: pytest.LogCaptureFixture
) -> None:
    table = open_review(fake.opened.root, reader="ann")
    assert title_of(table, "cluster") == "near-duplicates (not looked for)"
    table.warm_up()  # the made-up study has no usable descriptors
    deadline = time.monotonic() + 60
    while "failed" not in title_of(table, "cluster") and time.monotonic() < deadline:
        time.sleep(0.02)
    assert title_of(table, "cluster") == "near-duplicates (the search failed)"
    assert "crop_phash" in caplog.text
