"""What is told of all parts together: the same as without shards, and what is missing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tests import tiny
from tests.predict.made import CLASSES, made_field
from tests.predict.shard_makers import do_all, parts_of, planned_images, planned_study
from tests.predict.tiny_models import make_field, tiny_model

from perikarya.predict.finishing import finish_shards, main
from perikarya.predict.folder import ModelFolder
from perikarya.predict.inputs import FieldInput
from perikarya.predict.outputs import finish
from perikarya.predict.outputs import summary as summary_module
from perikarya.predict.outputs.cells import cells_table
from perikarya.predict.outputs.summary import Summary, summarise, write_summary
from perikarya.predict.parts import metadata_of, tables_of
from perikarya.predict.run import run_predictions
from perikarya.runs import read_json

TABLES = ("summary.csv", "confusion.csv", "cells.csv")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ModelFolder:
    return tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def fields(tmp_path: Path) -> list[FieldInput]:
    return [make_field(tmp_path / "fields", f"f{i}", n=6 + i, seed=i) for i in range(4)]


def test_tables_are_those_of_a_prediction_without_shards(
    fields: list[FieldInput], model: ModelFolder, tmp_path: Path
) -> None:
    done = run_predictions(fields, model, tmp_path / "whole", formats=("csv",))
    finish(tmp_path / "whole", done.image_ids, model.manifest, ("csv",))
    out = tmp_path / "out"
    plan = planned_images(fields, model, out, n_shards=3, formats=("csv",))
    do_all(plan, out)
    (out / "done" / "left-behind").touch()
    (out / "parts" / ".part-00000.parquet.x.part").touch()
    found = finish_shards(out)
    assert (found.missing, found.problems, found.n_images) == ((), (), 4)
    assert [path.name for path in found.finished.paths] == ["summary.csv", "cells.csv", "confusion.csv"]
    for name in TABLES:
        assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert sorted(p.name for p in out.iterdir()) == sorted(
        [*TABLES, "parts", "predict.json", "problems.csv", "shards.json"]
    )
    assert sorted(p.name for p in (out / "parts").iterdir()) == [path.name for path in parts_of(plan, out)]


def test_what_is_missing_is_said(fields: list[FieldInput], model: ModelFolder, tmp_path: Path) -> None:
    out = tmp_path / "out"
    plan = planned_images(fields, model, out, n_shards=3, problems=[("lost.png", "it has no outlines")])
    do_all(plan, out, [0, 2])
    assert main([str(out)]) == 1
    problems = pd.read_csv(out / "problems.csv", keep_default_na=False)
    assert problems["image"].tolist() == ["lost.png", "parts/part-00001-of-00003"]
    said = read_json(out / "predict.json", what="a record")
    assert (said["n_cells"], said["n_images"], said["n_problems"]) == (6 + 7 + 9, 3, 2)
    shards = said["shards"]
    assert (shards["n_shards"], shards["n_missing"]) == (3, 1)
    assert [part["part"] for part in shards["parts"]] == [
        "parts/part-00000-of-00003.parquet", "parts/part-00002-of-00003.parquet"
    ]  # fmt: skip
    assert [part["n_cells"] for part in shards["parts"]] == [13, 9]
    assert said["options"]["batch_size"] == 64
    assert not (out / "cells.csv").exists()
    do_all(plan, out)
    assert main([str(out)]) == 0
    assert "1 of 3 shards are missing" in (log := (out / "predict.log").read_text())
    assert "30 cells; 0 of 3 shards are missing" in log


def test_classes_the_model_does_not_know_are_counted_once_per_part(
    fields: list[FieldInput], model: ModelFolder, tmp_path: Path
) -> None:
    for item in fields:
        item.outlines.write_text(item.outlines.read_text().replace('"pyknotic"', '"dead"'))
    out = tmp_path / "out"
    plan = planned_images(fields, model, out, n_shards=2)
    do_all(plan, out)
    counted = [Summary(model.manifest.class_names) for _ in range(2)]
    for path in parts_of(plan, out):
        for table in tables_of([path]):
            for few in (table.slice(0, 3), table.slice(3)) if len(table) else (table,):
                counted[0].add(few)
    assert counted[0].unknown == finish_shards(out).finished.summary.unknown == {"dead": 7}


def test_a_prediction_that_cannot_be_read_ends_with_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main([str(tmp_path)]) == 1
    assert "should hold the plan of a prediction in shards" in capsys.readouterr().err


def test_a_cluster_sums_up_by_one_command_and_needs_no_torch(tmp_path: Path) -> None:
    opened = tiny.make_study(tmp_path / "study", cells_per_subject=3)
    model = tiny_model(tmp_path / "model", window_px=tiny.WINDOW_PX)
    plan = planned_study(opened.root, model, tmp_path / "out", batch_size=9)
    code = (
        "import sys, runpy\n"
        f"sys.argv = ['worker', {str(tmp_path / 'out')!r}]\n"
        "from perikarya.predict.worker import open_worker\n"
        f"worker = open_worker([{str(tmp_path / 'out')!r}, '--threads', '1'])\n"
        f"for i in range({len(plan.shards)}): worker.do({{'kind': 'shard', 'index': i}}, lambda *_: None)\n"
        "try: runpy.run_module('perikarya.predict.finishing', run_name='__main__')\n"
        "except SystemExit as end:\n"
        "    print(end.code, sorted({'torch', 'timm', 'anndata', 'matplotlib'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "0 []", done.stderr
    assert metadata_of(parts_of(plan, tmp_path / "out")[0])["model"] == "tiny"
    assert read_json(tmp_path / "out" / "predict.json", what="a record")["images"] == [{"study": str(opened.root)}]


def test_sums_are_those_of_a_table_counted_by_pandas(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    tables = []
    for i in range(7):
        words = {"subject": f"s{i % 3}" if i else None, "group": f"g{i % 2}", "region": None if i == 2 else f"r{i % 2}"}
        cells = tuple((int(rng.integers(3)), float(rng.uniform(0.4, 1)), bool(rng.integers(2)), None) for _ in range(8))
        tables.append(cells_table(made_field(tmp_path, f"i{i}", cells=cells, words=words), CLASSES))
    write_summary(tmp_path / "summary.csv", summarise(tables, CLASSES))
    found = pd.read_csv(tmp_path / "summary.csv", keep_default_na=False)
    frame = pd.concat([table.to_pandas() for table in tables]).fillna({"subject": "", "region": "", "group": ""})
    for scope, keys in (
        ("animal and region", ["group", "subject", "region"]),
        ("image", ["group", "subject", "image_id"]),
    ):
        rows = found[found["scope"] == scope].set_index(keys).sort_index()
        groups = frame.groupby(keys)
        assert rows["n_cells"].to_dict() == groups.size().to_dict()
        assert rows["n_abstained"].to_dict() == groups["abstained"].sum().to_dict()
        for name in CLASSES:
            assert rows[f"n_{name}"].to_dict() == groups["class"].agg(lambda c, n=name: (c == n).sum()).to_dict()
            np.testing.assert_allclose(rows[f"mean_prob_{name}"], groups[f"prob_{name}"].mean(), atol=6e-5)


def test_too_many_images_are_counted_by_animal_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(summary_module, "MAX_IMAGES", 2)
    tables = [cells_table(made_field(tmp_path, f"i{i}", words={"subject": "s1"}), CLASSES) for i in range(4)]
    write_summary(tmp_path / "summary.csv", summarise(tables, CLASSES))
    found = pd.read_csv(tmp_path / "summary.csv")
    assert found.set_index("scope")["n_cells"].to_dict() == {"all": 16, "animal": 16}
    assert "more than 2 images; summary.csv has no rows for each" in caplog.text
