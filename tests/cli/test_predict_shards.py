"""``perikarya predict --shards``: what a person types, sees and finds, and what is refused before anything is done."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import typer
from tests.predict.tiny_models import make_field, tiny_model
from tests.tiny import WINDOW_PX as STUDY_PX
from tests.tiny import make_study

from perikarya.cli.predicting import predict_command
from perikarya.cli.sharding import load_launch, show_prediction_status
from perikarya.errors import ConfigError, RunError
from perikarya.launch.slurm.submit import Submission

pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("model")).root


@pytest.fixture
def fields(tmp_path: Path) -> Path:
    """Three images with twelve outlined cells each."""
    for seed in range(3):
        make_field(tmp_path / "fields", f"f{seed}", seed=seed)
    return tmp_path / "fields"


def test_images_become_parts_files_and_tables_and_the_same_command_keeps_them(
    model: Path, fields: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    predict_command(model, [str(fields)], out=out, shards=2, overrides=["launch.jobs=1"], threads=1)
    shown = capsys.readouterr().out
    assert "36 cells in 2 shard(s)." in shown
    assert "2/2 part-00001-of-00002 done" in shown
    assert f"The cells are in {out / 'parts'} (2 files)." in shown
    names = ("confusion.csv", "parts", "predict.json", "predict.log", "problems.csv", "shards.json", "summary.csv")
    own = [f"f{i}.{ending}" for i in range(3) for ending in ("geojson", "overlay.png", "rois.zip")]
    assert sorted(p.name for p in out.iterdir() if p.name != ".lock") == sorted([*names, *own])
    cells = pd.concat([pd.read_parquet(path) for path in sorted((out / "parts").iterdir())])
    assert cells["image_id"].value_counts().to_dict() == {f"f{i}": 12 for i in range(3)}
    before = {path: path.stat().st_mtime_ns for path in [*(out / "parts").iterdir(), *out.glob("*.geojson")]}
    predict_command(model, [str(fields)], out=out)  # the plan that is there holds
    assert "36 cells in 2 shard(s), 2 done before." in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_a_problem_in_a_shard_is_shown_and_the_exit_code_is_one(
    model: Path, fields: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (fields / "f1.png").write_bytes(b"nonsense")
    (fields / "f2.geojson").unlink()
    with pytest.raises(typer.Exit) as end:
        predict_command(
            model, [str(fields / f"f{i}.png") for i in range(3)], out=tmp_path / "out", shards=2, formats="geojson"
        )
    assert end.value.exit_code == 1
    assert "2 image(s) and 0 outline(s) were not predicted" in capsys.readouterr().out
    problems = pd.read_csv(tmp_path / "out" / "problems.csv", keep_default_na=False)
    assert [Path(path).name for path in problems["image"]] == ["f2.png", "f1.png"]


def test_a_study_becomes_parts_only_and_one_csv_where_asked(model: Path, tmp_path: Path) -> None:
    study = make_study(tmp_path / "study", cells_per_subject=3).root
    own = tiny_model(tmp_path / "model", window_px=STUDY_PX).root
    out = tmp_path / "out"
    predict_command(own, [str(study)], out=out, shards=2, batch_size=9, threads=1)
    found = sorted(p.name for p in out.iterdir() if p.name != ".lock")
    assert found == ["parts", "predict.json", "predict.log", "problems.csv", "shards.json", "summary.csv"]
    predict_command(own, [str(study)], out=out, shards=2, batch_size=9, threads=1, formats="csv")
    assert len(pd.read_csv(out / "cells.csv")) == 36
    assert json.loads((out / "predict.json").read_text())["shards"]["n_shards"] == 2
    with pytest.raises(ConfigError, match="A study brings its own cells"):
        predict_command(own, [str(study), "x.png"], out=out, shards=2)
    assert model.is_dir()


def test_what_shards_cannot_do_is_refused_before_anything_is_done(model: Path, fields: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(ConfigError, match="h5ad needs all cells in memory"):
        predict_command(model, [str(fields)], out=out, shards=2, formats="h5ad", features=True)
    with pytest.raises(
        ConfigError, match=r"--set train\.epochs=3: 'predict' takes settings of the section launch only"
    ):
        predict_command(model, [str(fields)], out=out, shards=2, overrides=["train.epochs=3"])
    with pytest.raises(ConfigError, match=r"launch has 1 setting\(s\) that do not fit:\n  slurm\.memory"):
        predict_command(model, [str(fields)], out=out, overrides=["launch.slurm.memory=3G"])
    assert not out.exists()
    predict_command(model, [str(fields)], out=out, formats="csv")
    with pytest.raises(RunError, match="not made in shards"):
        predict_command(model, [str(fields)], out=out, shards=2)


def test_settings_of_a_cluster_come_from_a_file_and_the_command_line(tmp_path: Path) -> None:
    path = tmp_path / "cluster.yaml"
    path.write_text("name: any\nlaunch:\n  engine: slurm\n  slurm: {partition: main, mem: 2G}\n")
    launch = load_launch(path, ["launch.slurm.mem=3G", "launch.jobs=7"])
    assert (launch.engine, launch.slurm.partition, launch.slurm.mem, launch.jobs) == ("slurm", "main", "3G", 7)
    assert load_launch(None, []).engine == "local"
    path.write_text("launch: {jbos: 3}\n")
    with pytest.raises(ConfigError, match=r"cluster\.yaml has 1 setting\(s\) that do not fit:\n  jbos"):
        load_launch(path, [])
    with pytest.raises(ConfigError, match="does not exist"):
        load_launch(tmp_path / "none.yaml", [])


def test_a_dry_run_says_what_would_be_done_and_writes_nothing(
    model: Path, fields: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    predict_command(model, [str(fields)], out=out, shards=2, dry_run=True)
    assert (
        "36 cells in 2 shard(s) of 12 to 24; 2 of them are to be predicted. Nothing was written."
        in capsys.readouterr().out
    )
    assert not out.exists()


def test_with_slurm_the_command_submits_says_what_is_next_and_ends(
    model: Path, fields: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def submit(folder: Path, **more: Any) -> Submission:
        scripts = (folder / "stage1.sh",)
        return Submission(scripts, ("#!/bin/bash [x]",), () if more["dry_run"] else ("17", "18"), len(more["jobs"]), 1)

    monkeypatch.setattr("perikarya.launch.slurm.submit.submit_jobs", submit)
    out, options = tmp_path / "out", {"shards": 2, "overrides": ["launch.engine=slurm"]}
    predict_command(model, [str(fields)], out=out, dry_run=True, **options)
    shown = capsys.readouterr().out
    assert f"# {out / 'stage1.sh'}\n#!/bin/bash [x]\n2 shard(s) would be submitted. Nothing was written." in shown
    assert not out.exists()
    predict_command(model, [str(fields)], out=out, **options)
    shown = capsys.readouterr().out
    assert "2 shard(s) submitted, 1 are in the queue already: job(s) 17, 18." in shown
    assert f"perikarya status {out}" in shown
    assert not (out / "parts").exists()
    show_prediction_status(out)
    shown = capsys.readouterr().out
    assert [line.split() for line in shown.splitlines()] == [
        ["waiting", "shards", "cells"],
        ["2", "2", "0", "of", "36"],
    ]
