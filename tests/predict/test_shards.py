"""How cells are divided into shards, and when a prediction goes on from the plan that is there."""

from __future__ import annotations

import os
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests import tiny
from tests.predict.tiny_models import cells, make_field, tiny_model, write_features

from perikarya.data.outlines import ClassMap, ReadOptions
from perikarya.errors import DataError, RunError
from perikarya.predict.fields import PredictOptions
from perikarya.predict.inputs import FieldInput, FoundFields
from perikarya.predict.planning import Wish, counted_before, plan_images, plan_study, settings_of
from perikarya.predict.shards import (
    ShardPlan,
    borders_of_images,
    borders_of_rows,
    has_plan,
    read_plan,
    settle_plan,
)
from perikarya.runs import read_json, write_json


def wish(model: Any, *, n_shards: int | None = 2, at_once: int = 1, **options: Any) -> Wish:
    return Wish(model, model.root, None, PredictOptions(**options), ("geojson",), n_shards, at_once)


@pytest.fixture
def fields(tmp_path: Path) -> list[FieldInput]:
    return [make_field(tmp_path / "fields", f"f{i}", n=n, seed=i) for i, n in enumerate((4, 12, 4, 4))]


@pytest.fixture
def plan_of(tmp_path: Path, fields: list[FieldInput]) -> Callable[..., ShardPlan]:
    model = tiny_model(tmp_path / "model", n_networks=2)

    def plan(items: list[FieldInput] = fields, **changes: Any) -> ShardPlan:
        return plan_images(FoundFields(tuple(items)), wish(model, **changes), known={}, show=False)

    return plan


@pytest.mark.parametrize(("n_rows", "n_shards", "batch_size"), [(1000, 7, 10), (95, 3, 10), (5, 9, 2), (1, 1, 64)])
def test_rows_are_divided_between_batches_into_shards_of_much_the_same_size(
    n_rows: int, n_shards: int, batch_size: int
) -> None:
    borders = borders_of_rows(n_rows, n_shards, batch_size=batch_size)
    sizes = np.diff(borders)
    assert (borders[0], borders[-1]) == (0, n_rows)
    assert all(border % batch_size == 0 for border in borders[:-1])
    assert len(sizes) == min(n_shards, -(-n_rows // batch_size))
    assert sizes.min() > 0
    assert sizes.max() - sizes.min() < 2 * batch_size


def test_images_are_divided_by_their_outlines_and_never_cut() -> None:
    assert borders_of_images([10, 10, 10, 10], 2) == [0, 2, 4]
    assert borders_of_images([30, 1, 1, 1, 1, 30], 2) == [0, 3, 6]
    assert borders_of_images([1, 1, 100, 1, 1], 3) == [0, 2, 3, 5]
    assert borders_of_images([5, 5], 9) == [0, 1, 2]
    rng = np.random.default_rng(0)
    counts = rng.integers(1, 500, 1000)
    sizes = [counts[a:b].sum() for a, b in pairwise(borders_of_images(counts.tolist(), 20))]
    assert len(sizes) == 20
    assert max(sizes) - min(sizes) <= 2 * counts.max()


def test_a_plan_names_all_that_predictions_follow_from(plan_of: Callable[..., ShardPlan], tmp_path: Path) -> None:
    plan = plan_of()
    assert [(s.begin, s.end, s.n_cells) for s in plan.shards] == [(0, 2, 16), (2, 4, 8)]
    assert plan.n_cells == 24
    assert [plan.name(i) for i in range(2)] == ["part-00000-of-00002", "part-00001-of-00002"]
    assert settle_plan(plan, tmp_path / "out") == plan == read_plan(tmp_path / "out")
    assert counted_before(tmp_path / "out") == {image.stamp: image.n_outlines for image in plan.images}


@pytest.mark.parametrize(
    "options",
    [
        {"tta": True},
        {"ensemble": True},
        {"calibrated": False},
        {"threshold": 0.5},
        {"batch_size": 3},
        {"backend": "openvino"},
        {"um_per_px": 0.5},
        {"read": ReadOptions(class_map=ClassMap.parse("normal=fine"))},
        {"read": ReadOptions(regions=frozenset({"CA1"}))},
        {"read": ReadOptions(nucleus=True)},
    ],
)
def test_other_options_are_another_prediction(
    plan_of: Callable[..., ShardPlan], tmp_path: Path, options: dict[str, Any]
) -> None:
    plan, other = plan_of(), plan_of(**options)
    assert plan.key(0) != other.key(0)
    settle_plan(plan, tmp_path / "out")
    with pytest.raises(RunError, match=r"(?s)other settings than now: \w+ was .+ and is now .+choose another --out"):
        settle_plan(other, tmp_path / "out")
    assert read_plan(tmp_path / "out") == plan


def test_the_number_of_threads_makes_no_difference(plan_of: Callable[..., ShardPlan], tmp_path: Path) -> None:
    settle_plan(plan_of(), tmp_path / "out")
    assert settle_plan(plan_of(threads=7), tmp_path / "out") == plan_of()


def test_another_model_other_images_or_shards_are_another_prediction(
    plan_of: Callable[..., ShardPlan], tmp_path: Path, fields: list[FieldInput]
) -> None:
    out = tmp_path / "out"
    settle_plan(plan_of(), out)
    with pytest.raises(RunError, match="--shards was 2 and is now 3"):
        settle_plan(plan_of(n_shards=3), out)
    with pytest.raises(RunError, match="there were 4 images, now there are 3"):
        settle_plan(plan_of(fields[:3]), out)
    other = tiny_model(tmp_path / "other", name="other")
    with pytest.raises(RunError, match=r"the model was .*model"):
        settle_plan(plan_images(FoundFields(tuple(fields)), wish(other), known={}, show=False), out)
    with pytest.raises(RunError, match="--format was geojson and is now none"):
        settle_plan(plan_of().model_copy(update={"formats": ("csv",)}), out)
    assert settle_plan(plan_of().model_copy(update={"formats": ("csv", "geojson")}), out).formats == ("csv", "geojson")


def test_only_the_shard_of_an_image_that_changed_gets_another_key(
    plan_of: Callable[..., ShardPlan], tmp_path: Path, fields: list[FieldInput]
) -> None:
    out = tmp_path / "out"
    before = settle_plan(plan_of(), out)
    write_features(fields[3].outlines, cells(30))
    after = settle_plan(plan_of(), out)
    assert [(s.begin, s.end, s.n_cells) for s in after.shards] == [(0, 2, 16), (2, 4, 34)]
    assert [before.key(i) == after.key(i) for i in range(2)] == [True, False]
    os.utime(fields[0].image, ns=(0, 0))
    assert settle_plan(plan_of(), out).key(0) != before.key(0)


def test_counts_are_kept_for_images_that_did_not_change(
    plan_of: Callable[..., ShardPlan], tmp_path: Path, fields: list[FieldInput], monkeypatch: pytest.MonkeyPatch
) -> None:
    from perikarya.predict import planning

    settle_plan(plan_of(), tmp_path / "out")
    write_features(fields[2].outlines, cells(9))
    counted = []
    monkeypatch.setattr(planning, "count_outlines", lambda outlines, _: counted.append(outlines.name) or 9)
    model = tiny_model(tmp_path / "model", n_networks=2)
    known = counted_before(tmp_path / "out")
    plan = plan_images(FoundFields(tuple(fields)), wish(model), known=known, show=False)
    assert counted == ["f2.geojson"]
    assert [image.n_outlines for image in plan.images] == [4, 12, 9, 4]


def test_a_prediction_without_shards_is_not_mixed_with_one(plan_of: Callable[..., ShardPlan], tmp_path: Path) -> None:
    write_json(tmp_path / "out" / "predict.json", {})
    with pytest.raises(RunError, match="not made in shards"):
        settle_plan(plan_of(), tmp_path / "out")
    assert not has_plan(tmp_path / "out")


def test_a_plan_that_is_none_is_said(plan_of: Callable[..., ShardPlan], tmp_path: Path) -> None:
    out = tmp_path / "out"
    settle_plan(plan_of(), out)
    content = read_json(out / "shards.json", what="a plan")
    for damage, words in (
        (content | {"schema_version": 2}, "has schema version 2"),
        (content | {"shards": []}, r"is no plan of a prediction \(shards"),
        (content | {"surprise": 1}, "surprise"),
    ):
        write_json(out / "shards.json", damage)
        with pytest.raises(RunError, match=words):
            read_plan(out)
    (out / "shards.json").write_text("{")
    with pytest.raises(RunError, match="not readable JSON"):
        read_plan(out)


def test_options_come_back_from_a_plan_as_they_took_effect(tmp_path: Path) -> None:
    model = tiny_model(tmp_path / "model", threshold=0.7)
    (tmp_path / "map.csv").write_text('from,to\n"name:^P,N",pyknotic\ncolour:#f00,\ngroup:2,a=b\n')
    rules = ClassMap.parse(str(tmp_path / "map.csv"))
    given = PredictOptions(tta=True, um_per_px=0.4, read=ReadOptions(rules, frozenset({"CA1", "DG"}), nucleus=True))
    found = settings_of(given, model).as_options(threads=3)
    assert (found.tta, found.um_per_px, found.threads, found.threshold) == (True, 0.4, 3, 0.7)
    assert (found.backend, found.batch_size) == ("onnxruntime", 64)
    assert found.read == given.read


def test_nothing_to_predict_is_said_with_the_reasons(tmp_path: Path) -> None:
    found = FoundFields((), (("a.png", "it has no outlines"),))
    with pytest.raises(DataError, match=r"No image can be predicted:\n  a\.png: it has no outlines"):
        plan_images(found, wish(tiny_model(tmp_path / "model")), known={}, show=False)


def test_a_study_is_divided_by_rows_and_known_by_its_table(tmp_path: Path) -> None:
    opened = tiny.make_study(tmp_path / "study", cells_per_subject=10)
    model = tiny_model(tmp_path / "model", window_px=tiny.WINDOW_PX)
    plan = plan_study(opened.root, wish(model, n_shards=3, batch_size=8))
    assert [(s.begin, s.end) for s in plan.shards] == [(0, 40), (40, 80), (80, 120)]
    assert plan.formats == ()
    assert len(plan_study(opened.root, wish(model, n_shards=None, at_once=2)).shards) == 2
    settle_plan(plan, tmp_path / "out")
    tiny.make_study(tmp_path / "other", cells_per_subject=10, seed=1)
    for other in (
        plan_study(tmp_path / "other", wish(model, n_shards=3, batch_size=8)),
        plan_of_changed(opened, model),
    ):
        with pytest.raises(RunError, match="the study is another one, or has changed"):
            settle_plan(other, tmp_path / "out")
    with pytest.raises(DataError, match="windows of 32 px"):
        plan_study(opened.root, wish(tiny_model(tmp_path / "small")))


def plan_of_changed(opened: Any, model: Any) -> ShardPlan:
    from perikarya.data.store import save_tables

    save_tables(opened.root, opened.study, opened.cells.assign(group="sham"))
    return plan_study(opened.root, wish(model, n_shards=3, batch_size=8))
