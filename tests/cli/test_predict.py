"""``perikarya predict``: an exported model, fields with outlines, and what a person finds afterwards."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import typer
from tests.evaluate.quantify.whole_tables import cells_of_table, read_predictions
from tests.predict.tiny_models import CLASS_NAMES, WINDOW_PX, make_field, tiny_model
from tests.tiny import WINDOW_PX as STUDY_PX
from tests.tiny import make_study

from perikarya.cli.predicting import predict_command
from perikarya.errors import ConfigError, DataError
from perikarya.runs import RunFolder, write_text

pytest.importorskip("onnxruntime")
TABLES = ["cells.csv", "cells.parquet", "confusion.csv", "predict.json", "problems.csv", "summary.csv"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("model"), n_networks=2).root


@pytest.fixture
def fields(tmp_path: Path) -> Path:
    """Two images with twelve outlined cells each."""
    folder = tmp_path / "fields"
    for seed, name in enumerate(("a", "b")):
        make_field(folder, name, seed=seed)
    return folder


def words(out: Path, name: str) -> pd.DataFrame:
    return pd.read_csv(out / name, keep_default_na=False)


def test_fields_become_files_tables_and_a_record(
    model: Path, fields: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    predict_command(model, [str(fields / "*.png")], out=out, threads=1)
    found = sorted(p.name for p in out.iterdir() if p.is_file() and not p.name.startswith("."))
    endings = ("geojson", "overlay.png", "rois.zip")
    assert found == sorted([*(f"{i}.{e}" for i in "ab" for e in endings), *TABLES, "predict.log"])
    cells = pd.read_parquet(out / "cells.parquet")
    assert len(cells) == 24
    assert set(cells["image_id"]) == {"a", "b"}
    said = json.loads((out / "predict.json").read_text())
    assert said["n_cells"] == 24
    assert said["classes"] == cells["class"].value_counts().reindex(CLASS_NAMES, fill_value=0).to_dict()
    assert [image["image_id"] for image in said["images"]] == ["a", "b"]
    assert said["images"][0]["image"] == str(fields / "a.png")
    assert len(said["images"][0]["sha256"]["image"]) == 64
    assert said["options"]["threshold"] == 0
    assert said["with_class_in_file"]["n_cells"] == 18
    shown = capsys.readouterr().out
    assert "2 image(s). In" in shown
    assert "of 18 cells have the class that the file gives them" in shown
    assert "That is no validation: it has no interval" in shown
    assert "tell which animal each image is of" in shown


def test_counts_on_the_screen_are_those_of_the_cells(
    model: Path, fields: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    predict_command(model, [str(fields)], out=tmp_path / "out", formats="csv", threshold=0.9)
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    cells = pd.read_parquet(tmp_path / "out" / "cells.parquet")
    assert lines[0] == ["image", "cells", *CLASS_NAMES, "unsure"]
    for line, part in zip(lines[1:4], [cells[cells["image_id"] == i] for i in "ab"] + [cells], strict=True):
        counts = [str((part["class"] == c).sum()) for c in CLASS_NAMES]
        assert line[1:] == [str(len(part)), *counts, str(part["abstained"].sum())]
    assert lines[3][0] == "all"


def test_animals_of_a_table_make_the_cells_ready_for_quantify(
    model: Path, fields: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "t.csv").write_text("image,subject,group,region\na.png,s1,sham,CA1\nb,s2,ischemia,DG\n")
    predict_command(model, [str(fields)], out=tmp_path / "out", table=tmp_path / "t.csv")
    assert "Next: perikarya quantify" in capsys.readouterr().out
    frame = read_predictions(tmp_path / "out" / "cells.parquet")
    cells = cells_of_table(frame, CLASS_NAMES, where="it")
    assert set(zip(cells.subject_n, cells.region_n, cells.image_n, strict=True)) == {
        ("s1", "CA1", "a"),
        ("s2", "DG", "b"),
    }
    assert words(tmp_path / "out", "summary.csv")["scope"].unique().tolist() == [
        "all", "group", "region", "animal", "animal and region", "image",
    ]  # fmt: skip


def test_one_bad_image_among_many_is_listed_and_the_rest_is_done(
    model: Path, fields: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (fields / "c.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    (fields / "c.geojson").write_text((fields / "a.geojson").read_text())
    (fields / "d.png").write_bytes((fields / "a.png").read_bytes())
    with pytest.raises(typer.Exit) as stopped:
        predict_command(model, [str(fields / "*.png"), str(fields / "gone.png")], out=tmp_path / "out")
    assert stopped.value.exit_code == 1
    problems = words(tmp_path / "out", "problems.csv")
    assert [Path(image).name for image in problems["image"]] == ["gone.png", "d.png", "c.png"]
    assert len(pd.read_parquet(tmp_path / "out" / "cells.parquet")) == 24
    shown = capsys.readouterr().out
    assert "3 image(s) and 0 outline(s) were not predicted, the rest was:" in shown
    assert "there is no such image" in shown


def test_a_bad_outline_is_listed_by_its_name(model: Path, fields: Path, tmp_path: Path) -> None:
    content = json.loads((fields / "a.geojson").read_text())
    content["features"][3]["geometry"]["coordinates"] = [[[5, 5], [6, 6], [5, 5]]]
    (fields / "a.geojson").write_text(json.dumps(content))
    with pytest.raises(typer.Exit):
        predict_command(model, [str(fields / "a.png")], out=tmp_path / "out")
    problems = words(tmp_path / "out", "problems.csv")
    assert problems["object"].tolist() == ["cell3"]
    assert json.loads((tmp_path / "out" / "predict.json").read_text())["n_problems"] == 1


def test_nothing_that_can_be_predicted_leaves_the_problems_only(model: Path, fields: Path, tmp_path: Path) -> None:
    (fields / "a.geojson").unlink()
    with pytest.raises(typer.Exit):
        predict_command(model, [str(fields / "a.png")], out=tmp_path / "out")
    assert (tmp_path / "out" / "problems.csv").is_file()
    assert not (tmp_path / "out" / "cells.csv").exists()
    assert json.loads((tmp_path / "out" / "predict.json").read_text())["n_images"] == 0


def test_a_second_call_keeps_what_is_done_and_writes_the_same_tables(
    model: Path, fields: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    predict_command(model, [str(fields)], out=out)
    before = {name: (out / name).read_bytes() for name in TABLES if name != "predict.json"}
    capsys.readouterr()
    predict_command(model, [str(fields)], out=out)
    assert "2 image(s) (2 were done before and are kept)" in capsys.readouterr().out
    assert {name: (out / name).read_bytes() for name in before} == before


def test_results_never_go_where_outlines_are_read(model: Path, fields: Path) -> None:
    before = sorted(p.name for p in fields.iterdir())
    with pytest.raises(DataError, match=r"is the folder of a\.png, which is read here"):
        predict_command(model, [str(fields)], out=fields)
    assert sorted(p.name for p in fields.iterdir()) == before


def test_results_of_a_prediction_are_not_compared_with_it(
    model: Path, fields: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    predict_command(model, [str(fields / "a.png")], out=tmp_path / "one")
    capsys.readouterr()
    predict_command(
        model, [str(fields / "a.png")], out=tmp_path / "two", outlines=str(tmp_path / "one" / "{stem}.geojson")
    )
    shown = capsys.readouterr().out
    assert "12 cells have their class from an earlier prediction" in shown
    assert not (tmp_path / "two" / "confusion.csv").exists()
    ids = [pd.read_parquet(tmp_path / run / "cells.parquet")["cell_id"].tolist() for run in ("one", "two")]
    assert ids[0] == ids[1]


def test_classes_the_model_does_not_know_are_named_and_translated_where_asked(
    model: Path, fields: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (fields / "a.geojson").read_text().replace('"pyknotic"', '"dead"')
    (fields / "a.geojson").write_text(text)
    predict_command(model, [str(fields / "a.png")], out=tmp_path / "out", formats="csv")
    assert "The model does not know classes of the files: dead (3)." in capsys.readouterr().out
    predict_command(
        model, [str(fields / "a.png")], out=tmp_path / "out", formats="csv", class_map="dead=pyknotic,x=normal"
    )
    shown = capsys.readouterr().out
    assert "does not know" not in shown
    assert "the rule 'x=normal' fitted nothing" in shown
    assert words(tmp_path / "out", "confusion.csv").set_index("class_in_file").loc["pyknotic", "n_cells"] == 3


def test_features_need_a_file_to_go_to(model: Path, fields: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="add h5ad to --format"):
        predict_command(model, [str(fields)], out=tmp_path / "out", features=True)
    anndata = pytest.importorskip("anndata")
    predict_command(model, [str(fields)], out=tmp_path / "out", formats="h5ad", features=True, ensemble=True)
    data = anndata.read_h5ad(tmp_path / "out" / "cells.h5ad")
    assert data.shape == (24, 4)
    said = json.loads((tmp_path / "out" / "predict.json").read_text())
    assert data.uns["perikarya"]["model_sha256"] == said["model"]["sha256"]
    assert said["options"]["n_networks"] == 2


def test_a_study_is_predicted_as_it_was_cut(tmp_path: Path, fields: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = make_study(tmp_path / "study", cells_per_subject=3).root
    model = tiny_model(tmp_path / "model", window_px=STUDY_PX).root
    predict_command(model, [str(study)], out=tmp_path / "out")
    cells = pd.read_parquet(tmp_path / "out" / "cells.parquet")
    assert len(cells) == 36
    assert cells["subject"].nunique() == 12
    assert cells["label"].isna().all()  # large, medium and small are no classes of this model
    assert (tmp_path / "out" / "predictions.parquet").is_file()
    assert "Next: perikarya quantify" in capsys.readouterr().out
    for extra in ({"outlines": "x"}, {"table": fields / "t.csv"}):
        with pytest.raises(ConfigError, match="A study brings its own cells"):
            predict_command(model, [str(study)], out=tmp_path / "o", **extra)
    with pytest.raises(DataError, match=f"windows of {STUDY_PX} px"):
        predict_command(tiny_model(tmp_path / "m2").root, [str(study)], out=tmp_path / "o")
    assert WINDOW_PX != STUDY_PX


def test_what_is_no_model_is_said(model: Path, fields: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is neither an exported model"):
        predict_command(fields, [str(fields)], out=tmp_path / "out")
    with pytest.raises(ConfigError, match="--model is for run folders"):
        predict_command(model, [str(fields)], out=tmp_path / "out", model_name="lite0")
    write_text(RunFolder(tmp_path / "run").config, "nonsense")
    with pytest.raises(ConfigError, match="must hold 'key: value' lines"):
        predict_command(tmp_path / "run", [str(fields)], out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_command_line_says_what_is_wrong_and_ends_with_one(model: Path, fields: Path, tmp_path: Path) -> None:
    def perikarya(*args: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "perikarya", "predict", str(model), *args, "--out", str(tmp_path / "out")]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    done = perikarya(str(fields), "--format", "csv,qupath")
    assert (done.returncode, "known are geojson" in done.stderr, "Traceback" in done.stderr) == (1, True, False)
    done = perikarya(str(fields), "--format", "csv", "--threads", "1")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "cells.csv").is_file()
