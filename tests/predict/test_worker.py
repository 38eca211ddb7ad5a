"""One worker and its shards: the same cells as without shards, whole parts, and nothing lost when it stops."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from tests import tiny
from tests.predict.shard_makers import do_all, joined_parts, parts_of, payload, planned_images, planned_study
from tests.predict.tiny_models import cells, feature, make_field, ring, tiny_model, write_features

from perikarya.data.store import OpenStudy
from perikarya.errors import InterruptedWorkError, RunError
from perikarya.predict import pieces as pieces_module
from perikarya.predict import worker as worker_module
from perikarya.predict.fields import PredictOptions
from perikarya.predict.folder import ModelFolder
from perikarya.predict.inputs import FieldInput
from perikarya.predict.networks import Networks
from perikarya.predict.outputs import finish
from perikarya.predict.parts import images_of, part_is_done, problems_of
from perikarya.predict.run import run_predictions
from perikarya.predict.study import predict_study
from perikarya.predict.worker import ShardWorker, open_worker, shard_crew


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> OpenStudy:
    return tiny.make_study(tmp_path_factory.mktemp("tiny") / "study")


@pytest.fixture(scope="module")
def study_model(tmp_path_factory: pytest.TempPathFactory) -> ModelFolder:
    root = tmp_path_factory.mktemp("model")
    return tiny_model(root, window_px=tiny.WINDOW_PX, class_names=("large", "medium", "other"))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ModelFolder:
    return tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def fields(tmp_path: Path) -> list[FieldInput]:
    return [make_field(tmp_path / "fields", f"f{i}", n=6 + i, seed=i) for i in range(4)]


@pytest.mark.parametrize(("n_shards", "batch_size"), [(1, 7), (4, 7), (5, None)])
def test_the_parts_of_a_study_are_its_table_whatever_the_number_of_shards(
    opened: OpenStudy,
    study_model: ModelFolder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    n_shards: int,
    batch_size: int | None,
) -> None:
    monkeypatch.setattr(worker_module, "MAX_CELLS", 20)
    whole = predict_study(opened.root, study_model, tmp_path / "whole", PredictOptions(batch_size=batch_size))
    finish(tmp_path / "whole", whole, study_model.manifest, ())
    out = tmp_path / "out"
    plan = planned_study(opened.root, study_model, out, n_shards=n_shards, batch_size=batch_size)
    do_all(plan, out)
    expected = pq.read_table(tmp_path / "whole" / "cells.parquet")
    assert joined_parts(plan, out).equals(expected.replace_schema_metadata())
    assert pq.read_schema(parts_of(plan, out)[0]).metadata.items() >= expected.schema.metadata.items()
    assert sorted(p.name for p in (out / "done").iterdir()) == []


def test_the_parts_of_images_are_their_table_and_images_keep_their_own_files(
    fields: list[FieldInput], model: ModelFolder, tmp_path: Path
) -> None:
    done = run_predictions(fields, model, tmp_path / "whole", formats=("geojson",))
    finish(tmp_path / "whole", done.image_ids, model.manifest, ())
    out = tmp_path / "out"
    plan = planned_images(fields, model, out, n_shards=3, formats=("geojson",))
    do_all(plan, out)
    expected = pq.read_table(tmp_path / "whole" / "cells.parquet")
    assert joined_parts(plan, out).equals(expected.replace_schema_metadata())
    for item in fields:
        name = f"{item.image_id}.geojson"
        assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert sorted(p.name for p in (out / "done").iterdir()) == []
    told = [image for path in parts_of(plan, out) for image in images_of(path)]
    assert [(image["image_id"], image["n_cells"]) for image in told] == [(f"f{i}", 6 + i) for i in range(4)]
    assert len(told[0]["sha256"]["image"]) == 64


def test_a_bad_image_or_outline_is_a_problem_of_its_shard_and_not_its_end(
    fields: list[FieldInput], model: ModelFolder, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    fields[0].image.write_bytes(b"\x89PNG\r\n\x1a\nnonsense")
    write_features(fields[1].outlines, [*cells(5), feature("far", [ring(900, 900, 5)])])
    plan = planned_images(fields, model, out, n_shards=4)
    fields[3].outlines.unlink()
    do_all(plan, out)
    problems = [problems_of(path) for path in parts_of(plan, out)]
    assert [[(Path(image).name, key) for image, key, _ in found] for found in problems] == [
        [("f0.png", "")],
        [("f1.png", "far")],
        [],
        [("f3.png", "")],
    ]
    assert [pq.read_metadata(path).num_rows for path in parts_of(plan, out)] == [0, 5, 8, 0]
    assert all(part_is_done(out, plan, i) for i in range(4))


def test_a_model_is_opened_once_for_all_shards_of_a_worker(
    opened: OpenStudy, study_model: ModelFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []
    monkeypatch.setattr(worker_module, "Networks", lambda *a: made.append(a) or Networks(*a))
    plan = planned_study(opened.root, study_model, tmp_path / "out", n_shards=3)
    do_all(plan, tmp_path / "out")
    assert len(made) == 1
    do_all(plan, tmp_path / "out")
    assert len(made) == 1  # nothing was missing


def test_a_worker_that_is_asked_to_stop_goes_on_at_its_last_piece(
    opened: OpenStudy, study_model: ModelFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_module, "MAX_CELLS", 20)
    out = tmp_path / "out"
    plan = planned_study(opened.root, study_model, out, n_shards=1, batch_size=10)
    job, asked = payload(plan, 0), []

    def stop(done: int, _total: int) -> None:
        if done > 50:
            raise InterruptedWorkError("stop")

    with pytest.raises(InterruptedWorkError):
        ShardWorker(out, threads=1).do(job, stop)
    assert sorted(p.name for p in (out / "done").glob("*.parquet")) == [
        f"part-00000-of-00001.{first:09d}.parquet" for first in (0, 20, 40)
    ]
    worker = ShardWorker(out, threads=1)
    assert not worker.is_done(job)
    worker.do(job, lambda done, total: asked.append((done, total)))
    assert asked[0] == (70, 144)  # the 60 predicted before it was asked are kept
    assert worker.is_done(job)
    untouched = tmp_path / "untouched"
    do_all(planned_study(opened.root, study_model, untouched, n_shards=1, batch_size=10), untouched)
    assert parts_of(plan, out)[0].read_bytes() == parts_of(plan, untouched)[0].read_bytes()


def test_a_slow_network_is_written_more_often_and_makes_the_same_part(
    opened: OpenStudy, study_model: ModelFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    plan = planned_study(opened.root, study_model, out, n_shards=1, batch_size=10)
    do_all(plan, out)
    quick = parts_of(plan, out)[0].read_bytes()
    parts_of(plan, out)[0].unlink()
    monkeypatch.setattr(pieces_module, "MAX_S", 0.0)
    seen: list[int] = []
    ShardWorker(out, threads=1).do(
        payload(plan, 0), lambda _done, _total: seen.append(len(list((out / "done").glob("*.parquet"))))
    )
    assert seen == list(range(1, 16))
    assert parts_of(plan, out)[0].read_bytes() == quick


def test_images_that_were_done_before_a_worker_stopped_are_kept(
    fields: list[FieldInput], model: ModelFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    plan = planned_images(fields, model, out, n_shards=1, formats=("geojson",))

    def stop(done: int, _total: int) -> None:
        if done > 6 + 7:
            raise InterruptedWorkError("stop")

    with pytest.raises(InterruptedWorkError):
        ShardWorker(out, threads=1).do(payload(plan, 0), stop)
    before = {name: (out / f"{name}.geojson").stat().st_mtime_ns for name in ("f0", "f1")}
    asked: list[tuple[int, int]] = []
    ShardWorker(out, threads=1).do(payload(plan, 0), lambda done, total: asked.append((done, total)))
    assert {name: (out / f"{name}.geojson").stat().st_mtime_ns for name in before} == before
    assert asked[:2] == [(6, 30), (13, 30)]
    assert asked[-1] == (30, 30)


def test_pieces_of_something_else_are_not_taken(
    opened: OpenStudy, study_model: ModelFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_module, "MAX_CELLS", 20)
    out, other = tmp_path / "out", tmp_path / "other"
    plan = planned_study(opened.root, study_model, out, n_shards=1, batch_size=10)
    planned_study(opened.root, study_model, other, n_shards=1, batch_size=10, tta=True)
    with pytest.raises(InterruptedWorkError):
        ShardWorker(other, threads=1).do(payload(plan, 0), stop_at(30))
    (out / "done").mkdir()
    for piece in (other / "done").iterdir():
        piece.rename(out / "done" / piece.name)
    do_all(plan, out)
    whole = predict_study(opened.root, study_model, tmp_path / "whole", PredictOptions(batch_size=10))
    finish(tmp_path / "whole", whole, study_model.manifest, ())
    assert joined_parts(plan, out).equals(pq.read_table(tmp_path / "whole" / "cells.parquet").replace_schema_metadata())


def stop_at(n: int) -> Callable[[int, int], None]:
    def progress(done: int, _total: int) -> None:
        if done > n:
            raise InterruptedWorkError("stop")

    return progress


def test_a_part_of_another_plan_is_not_done(opened: OpenStudy, study_model: ModelFolder, tmp_path: Path) -> None:
    out, other = tmp_path / "out", tmp_path / "other"
    plan = planned_study(opened.root, study_model, out)
    do_all(planned_study(opened.root, study_model, other, tta=True), other)
    (other / "parts").rename(out / "parts")
    worker = ShardWorker(out, threads=1)
    assert not worker.is_done(payload(plan, 0))
    parts_of(plan, out)[0].write_bytes(b"PAR1nonsense")
    assert not worker.is_done(payload(plan, 0))
    worker.do(payload(plan, 0), lambda _done, _total: None)
    assert worker.is_done(payload(plan, 0))


def test_a_model_that_changed_since_the_plan_is_refused(opened: OpenStudy, tmp_path: Path) -> None:
    model = tiny_model(tmp_path / "model", window_px=tiny.WINDOW_PX)
    plan = planned_study(opened.root, model, tmp_path / "out")
    tiny_model(tmp_path / "model", window_px=tiny.WINDOW_PX, name="another")
    with pytest.raises(RunError, match=r"is not the model that .* was planned with"):
        do_all(plan, tmp_path / "out")


def test_a_shard_that_another_process_finished_meanwhile_is_done(
    fields: list[FieldInput], model: ModelFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    plan = planned_images(fields, model, out, n_shards=1)
    join = worker_module.write_shard_part

    def slower(*args: Any, **more: Any) -> None:
        monkeypatch.setattr(worker_module, "write_shard_part", join)
        do_all(plan, out)  # the other process; it removes the pieces
        join(*args, **more)

    monkeypatch.setattr(worker_module, "write_shard_part", slower)
    do_all(plan, out)
    assert part_is_done(out, plan, 0)


def test_the_log_is_there_only_while_a_shard_is_not_done(
    opened: OpenStudy, study_model: ModelFolder, tmp_path: Path
) -> None:
    plan = planned_study(opened.root, study_model, tmp_path / "out")
    worker = ShardWorker(tmp_path / "out", threads=1)
    log = worker.log_of(payload(plan, 1))
    assert log == tmp_path / "out" / "done" / "part-00001-of-00002.log"
    log.parent.mkdir()
    log.touch()
    worker.do(payload(plan, 1), lambda _done, _total: None)
    assert not log.exists()


def test_workers_are_started_with_words_only(tmp_path: Path) -> None:
    crew = shard_crew(tmp_path, threads=3)
    assert crew.module == "perikarya.predict.worker"
    assert json.loads(json.dumps(crew.arguments)) == [str(tmp_path.resolve()), "--threads", "3"]
    found = open_worker(crew.arguments)
    assert (found.out, found.threads) == (tmp_path.resolve(), 3)
