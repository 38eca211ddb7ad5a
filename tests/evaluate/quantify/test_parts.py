"""Predictions in Parquet parts: the same figures as one table, and parts that do not belong together are refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.evaluate.quantify.worlds import CLASS_NAMES, bayes

from perikarya.errors import DataError
from perikarya.evaluate.quantify import assemble, duplicates, parts, tally
from perikarya.evaluate.quantify.assemble import quantify_predictions
from perikarya.evaluate.quantify.tables import open_predictions
from perikarya.settings import QuantifyConfig

PROBS = [f"prob_{name}" for name in CLASS_NAMES]


def table(n: int = 6000, *, seed: int = 0, images: int | None = 7) -> pd.DataFrame:
    """Nine animals in three groups; ``images`` per animal, None: unknown; every other cell has a label."""
    rng = np.random.default_rng(seed)
    label_n = rng.choice(3, n, p=[0.5, 0.3, 0.2])
    frame = pd.DataFrame(bayes(label_n, rng, prior=[0.5, 0.3, 0.2]).astype(np.float32), columns=PROBS)
    animal_n = np.sort(rng.integers(0, 9, n))
    frame.insert(0, "cell_id", [f"{i:064x}" for i in range(n)])
    frame["image_id"] = (
        [f"{a}-{i}" for a, i in zip(animal_n, rng.integers(0, images, n), strict=True)] if images else None
    )
    frame["subject"] = [f"a{a}" for a in animal_n]
    frame["region"] = np.array(["CA1", "DG", None], object)[rng.integers(0, 3, n)]
    frame["group"] = np.array(["sham", "injured", "treated"])[animal_n % 3]
    frame["label"] = np.where(np.arange(n) % 2, np.array(CLASS_NAMES, object)[label_n], None)
    return frame.astype(dict.fromkeys(("cell_id", "image_id", "subject", "region", "group", "label"), "string"))


def write_parts(folder: Path, frame: pd.DataFrame, borders: list[int]) -> Path:
    """Write rows between borders as the parts of a prediction in shards, with its plan; one part is empty."""
    (folder / "parts").mkdir(parents=True)
    ends = [0, *borders, borders[-1], len(frame)]
    for i, (start, end) in enumerate(pairwise(ends)):
        name = f"part-{i:05d}-of-{len(ends) - 1:05d}.parquet"
        write(folder / "parts" / name, frame.iloc[start:end])
    (folder / "shards.json").write_text(json.dumps({"shards": [{}] * (len(ends) - 1)}))
    return folder


def write(path: Path, frame: pd.DataFrame, *, model: str = "lite0") -> Path:
    made = pa.Table.from_pandas(frame, preserve_index=False)
    pq.write_table(made.replace_schema_metadata({"model": model, "class_names": json.dumps(CLASS_NAMES)}), path)
    return path


def figures(source: Any, **changes: Any) -> str:
    settings = QuantifyConfig(n_bootstrap=100, n_permutations=100).model_copy(update=changes)
    block = quantify_predictions(source, settings=settings)
    return json.dumps({k: v for k, v in block.items() if k != "provenance"}, sort_keys=True)


@pytest.mark.parametrize(
    ("correction", "images"),
    [("probabilistic", 7), ("probabilistic", None), ("adjusted", 700), ("em", 7), ("em", 700), ("none", None)],
)
def test_parts_give_the_very_figures_of_the_same_rows_in_one_table(
    correction: str, images: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the byte, wherever the borders are: few images, none known, more than are resampled one by one."""
    monkeypatch.setattr(assemble, "power_block", lambda *_, **__: None)  # slow, and made from the other figures alone
    frame = table(images=images)
    one = open_predictions(write(tmp_path / "one.parquet", frame))
    expected = figures(one, correction=correction)
    assert figures(frame, correction=correction) == expected
    folder = write_parts(tmp_path / "out", frame, [1, 17, 2500, 4001])
    assert figures(open_predictions(folder), correction=correction) == expected
    monkeypatch.setattr(parts, "ROWS_AT_ONCE", 333)
    monkeypatch.setattr(tally, "CELLS_AT_ONCE", 1000)
    monkeypatch.setattr(duplicates, "HASHES_AT_ONCE", 900)
    assert figures(open_predictions(folder), correction=correction) == expected


def test_a_reference_may_come_in_parts_too(tmp_path: Path) -> None:
    known = table(seed=1).assign(subject=lambda f: "r" + f["subject"])
    bare = table().assign(label=pd.Series(pd.NA, range(6000), "string"))
    folder = write_parts(tmp_path / "reference", known, [2000])
    settings = QuantifyConfig(n_bootstrap=100, n_permutations=100)
    found = [
        quantify_predictions(bare, settings=settings, reference=reference)
        for reference in (known, open_predictions(folder))
    ]
    assert found[0]["animals"] == found[1]["animals"]
    assert found[0]["correction"] == found[1]["correction"]
    assert found[0]["correction"]["reference"]["n_cells"] == 3000


def test_a_folder_may_hold_parts_of_any_names_or_the_one_table_of_a_prediction(tmp_path: Path) -> None:
    frame = table(400)
    for i, name in enumerate(("b", "a")):
        write(tmp_path / f"{name}.parquet", frame.iloc[i * 200 : i * 200 + 200])
    assert [p.name for p in parts.find_parts(tmp_path)] == ["a.parquet", "b.parquet"]
    assert open_predictions(tmp_path).n_rows == 400
    write(tmp_path / "cells.parquet", frame)
    assert [p.name for p in parts.find_parts(tmp_path)] == ["cells.parquet"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"empty holds neither a run \(config.yaml\) nor predictions"):
        parts.find_parts(tmp_path / "empty")


def _without_two(folder: Path) -> None:
    for index in (1, 3):
        next((folder / "parts").glob(f"part-{index:05d}-*")).unlink()


def _with_others(folder: Path) -> None:
    write(folder / "parts" / "part-00000-of-00002.parquet", table(10))


def _of_another_plan(folder: Path) -> None:
    (folder / "shards.json").write_text(json.dumps({"shards": [{}] * 7}))


def _with_a_copy(folder: Path) -> None:
    write(folder / "parts" / "copy of part 1.parquet", table(10))


def _plan_of_nothing(folder: Path) -> None:
    (folder / "shards.json").write_text("{}")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (_without_two, r"not finished: 3 of 5 parts are there.*missing is part-00001-of-00005.*--shards 5"),
        (_with_others, "parts of several predictions: part-0000.-of-00002"),
        (_with_a_copy, "parts of several predictions: copy of part 1"),
        (_of_another_plan, "is one of 5 parts, but .*shards.json plans 7"),
        (_plan_of_nothing, "shards.json is not the plan of a prediction"),
    ],
)
def test_parts_that_are_not_all_there_or_are_of_several_predictions_are_refused(
    change: Callable[[Path], None], sentence: str, tmp_path: Path
) -> None:
    folder = write_parts(tmp_path / "out", table(500), [100, 200, 300])
    change(folder)
    with pytest.raises(DataError, match=f"(?s){sentence}"):
        open_predictions(folder)


def test_a_plan_without_any_part_and_parts_without_a_plan_are_told_apart(tmp_path: Path) -> None:
    folder = write_parts(tmp_path / "out", table(500), [100, 200])
    (folder / "shards.json").unlink()
    assert open_predictions(folder).n_rows == 500, "the names say that all are there"
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "shards.json").write_text(json.dumps({"shards": [{}, {}]}))
    with pytest.raises(DataError, match="0 of 2 parts are there"):
        open_predictions(tmp_path / "new")


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda f: f[[c for c in f if c not in PROBS] + PROBS[::-1]], "classes"),
        (lambda f: f.rename(columns={"prob_normal": "prob_healthy"}), "classes"),
        (lambda f: f.drop(columns="region"), "columns"),
        (lambda f: f.assign(subject=7), "types of 'subject'"),
        (lambda f: f.astype(dict.fromkeys(PROBS, "float64")), "types of 'prob_normal'"),
    ],
)
def test_files_of_two_kinds_are_refused_and_both_are_named(change: Any, what: str, tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", table(50))
    write(tmp_path / "b.parquet", change(table(50, seed=1)))
    with pytest.raises(
        DataError, match=rf"a\.parquet and .*b\.parquet are not parts of one table: their {what} differ"
    ):
        open_predictions(tmp_path)


def test_parts_of_two_models_are_refused_and_an_unknown_label_column_is_no_difference(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", table(50))
    write(tmp_path / "b.parquet", table(50, seed=1).assign(label=None))
    assert open_predictions(tmp_path).n_rows == 100
    write(tmp_path / "b.parquet", table(50, seed=1), model="resnet50")
    with pytest.raises(DataError, match=r"their model differ \(lite0; resnet50\)"):
        open_predictions(tmp_path)


def test_a_cell_in_two_parts_is_refused_with_both_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frame = table(300)
    write(tmp_path / "a.parquet", frame.iloc[:200])
    write(tmp_path / "b.parquet", frame.iloc[150:151])
    twice = frame["cell_id"].iloc[150]
    for at_once in (duplicates.HASHES_AT_ONCE, 70):
        monkeypatch.setattr(duplicates, "HASHES_AT_ONCE", at_once)
        with pytest.raises(DataError, match=rf"a\.parquet and .*b\.parquet holds cell {twice} twice"):
            figures(open_predictions(tmp_path))


def test_names_of_one_hash_are_not_the_same_cell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duplicates, "_hashes", lambda name_n: np.zeros(len(name_n), np.uint64))

    def names(*found: str) -> Any:
        return lambda: iter([("here", np.array(found, object)), ("there", np.array(["z"], object))])

    assert duplicates.find_duplicate(names("a", "b"), n_cells=3) is None
    assert duplicates.find_duplicate(names("a", "z"), n_cells=3) == ("z", "here", "there")


def test_a_damaged_part_a_word_of_megabytes_and_too_many_columns_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "cells.parquet", table(2000))
    content = bytearray(path.read_bytes())
    content[200:4000] = bytes(3800)
    (tmp_path / "damaged.parquet").write_bytes(content)
    with pytest.raises(DataError, match=r"damaged\.parquet should hold predictions but cannot be read"):
        figures(open_predictions(tmp_path / "damaged.parquet"))
    write(tmp_path / "long.parquet", table(50).assign(subject="x" * 10**6))
    with pytest.raises(DataError, match="column 'subject' holds a name of 1000000 bytes"):
        figures(open_predictions(tmp_path / "long.parquet"))
    wide = pa.table({f"c{i}": pa.array([1]) for i in range(parts.MAX_COLUMNS + 1)})
    pq.write_table(wide, tmp_path / "wide.parquet")
    with pytest.raises(DataError, match="has 10001 columns"):
        open_predictions(tmp_path / "wide.parquet")
