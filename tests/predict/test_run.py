from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.predict.tiny_models import cells, feature, make_field, ring, tiny_model, write_features

from perikarya.data.outlines import ClassMap, ReadOptions
from perikarya.errors import DataError, RunError
from perikarya.predict import run as run_module
from perikarya.predict.fields import PredictOptions
from perikarya.predict.folder import ModelFolder
from perikarya.predict.inputs import FieldInput
from perikarya.predict.outputs import field_files, finish
from perikarya.predict.outputs.cells import part_path
from perikarya.predict.run import FieldsDone, run_predictions

FORMATS = ("geojson", "csv")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ModelFolder:
    return tiny_model(tmp_path_factory.mktemp("model"))


def make_fields(folder: Path, n: int = 3) -> list[FieldInput]:
    return [make_field(folder, f"field{i}", seed=i) for i in range(n)]


def predict(items: list[FieldInput], model: ModelFolder, out: Path, **options: Any) -> FieldsDone:
    return run_predictions(items, model, out, PredictOptions(**options), formats=FORMATS)


def stamps(out: Path, items: list[FieldInput]) -> dict[str, list[int]]:
    """When the files of each image were written."""
    return {
        item.image_id: [
            path.stat().st_mtime_ns
            for path in (
                out / "done" / f"{item.image_id}.json",
                part_path(out, item.image_id),
                *field_files(out, item.image_id, FORMATS).values(),
            )
            if path.exists()
        ]
        for item in items
    }


def written_again(before: dict[str, list[int]], after: dict[str, list[int]]) -> list[str]:
    return [name for name in before if before[name] != after[name]]


def test_every_field_is_predicted_and_its_files_are_there(tmp_path: Path, model: ModelFolder) -> None:
    items = make_fields(tmp_path)
    done = predict(items, model, tmp_path / "out")
    assert (done.image_ids, done.n_cells, done.problems, done.n_kept) == (["field0", "field1", "field2"], 36, [], 0)
    assert all(len(found) == 3 for found in stamps(tmp_path / "out", items).values())
    assert "field2: 12 cells" in (tmp_path / "out" / "predict.log").read_text()


def test_a_bad_image_is_named_and_the_others_are_predicted(tmp_path: Path, model: ModelFolder) -> None:
    items = make_fields(tmp_path)
    items[1].image.write_bytes(b"\x89PNG\r\n\x1a\nnonsense")
    done = predict(items, model, tmp_path / "out")
    assert done.image_ids == ["field0", "field2"]
    (image, key, reason) = done.problems[0]
    assert (image, key, len(done.problems)) == (str(items[1].image), "", 1)
    assert reason.startswith("the image cannot be used")
    assert reason in (tmp_path / "out" / "predict.log").read_text()


def test_a_field_whose_files_are_gone_is_a_problem(tmp_path: Path, model: ModelFolder) -> None:
    items = make_fields(tmp_path)
    items[0].image.unlink()
    items[2].outlines.unlink()
    done = predict(items, model, tmp_path / "out")
    assert done.image_ids == ["field1"]
    assert [(image, key) for image, key, _ in done.problems] == [(str(items[0].image), ""), (str(items[2].image), "")]


def test_a_field_without_a_usable_outline_is_a_problem_and_no_crash(tmp_path: Path, model: ModelFolder) -> None:
    items = make_fields(tmp_path)
    write_features(items[2].outlines, [feature("far", [ring(900, 900, 5)])])
    done = predict(items, model, tmp_path / "out")
    assert done.image_ids == ["field0", "field1"]
    assert [key for _, key, _ in done.problems] == ["far", ""]


def test_two_images_of_one_name_are_refused_before_anything_is_done(tmp_path: Path, model: ModelFolder) -> None:
    items = make_fields(tmp_path)
    items[2] = replace(items[2], image_id="FIELD0")
    with pytest.raises(DataError, match="have the name 'field0' in common"):
        predict(items, model, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_same_command_again_keeps_everything_and_names_the_same_problems(
    tmp_path: Path, model: ModelFolder
) -> None:
    items = make_fields(tmp_path)
    write_features(items[1].outlines, [*cells(5), feature("far", [ring(900, 900, 5)])])
    out = tmp_path / "out"
    first = predict(items, model, out)
    before = stamps(out, items)
    tables = [path.read_bytes() for path in finish(out, first.image_ids, model.manifest, FORMATS).paths]
    again = predict(items, model, out)
    assert again.n_kept == 3
    assert replace(again, n_kept=0) == first
    assert len(again.problems) == 1
    assert written_again(before, stamps(out, items)) == []
    assert [p.read_bytes() for p in finish(out, again.image_ids, model.manifest, FORMATS).paths] == tables


def test_only_what_changed_is_predicted_again(tmp_path: Path, model: ModelFolder) -> None:
    items, out = make_fields(tmp_path), tmp_path / "out"
    predict(items, model, out)
    before = stamps(out, items)
    write_features(items[0].outlines, cells(4))
    field_files(out, "field1", FORMATS)["geojson"].unlink()
    done = predict([*items, make_field(tmp_path, "field3", seed=3)], model, out)
    assert (done.n_kept, done.n_cells) == (1, 4 + 12 + 12 + 12)
    assert written_again(before, stamps(out, items)) == ["field0", "field1"]


@pytest.mark.parametrize(
    "options",
    [
        {"tta": True},
        {"threshold": 0.9},
        {"um_per_px": 0.5},
        {"calibrated": False},
        {"backend": "openvino"},
        {"read": ReadOptions(class_map=ClassMap.parse("normal=fine"))},
    ],
)
def test_another_way_of_predicting_predicts_again(tmp_path: Path, model: ModelFolder, options: dict[str, Any]) -> None:
    items, out = make_fields(tmp_path, 1), tmp_path / "out"
    predict(items, model, out)
    assert predict(items, model, out, **options).n_kept == 0
    assert predict(items, model, out, **options).n_kept == 1


def test_another_model_or_other_words_predict_again_and_the_number_of_threads_does_not(
    tmp_path: Path, model: ModelFolder
) -> None:
    items, out = make_fields(tmp_path, 1), tmp_path / "out"
    predict(items, model, out)
    assert predict(items, model, out, threads=1, batch_size=2).n_kept == 1
    assert predict(items, tiny_model(tmp_path / "other", n_networks=2), out).n_kept == 0
    assert predict([replace(items[0], words={"subject": "sheep 4"})], model, out).n_kept == 0


def test_a_damaged_mark_is_not_trusted(tmp_path: Path, model: ModelFolder) -> None:
    items, out = make_fields(tmp_path, 2), tmp_path / "out"
    predict(items, model, out)
    (out / "done" / "field0.json").write_text("{")
    (out / "done" / "field1.json").write_text(json.dumps({"version": 1}))
    done = predict(items, model, out)
    assert (done.n_kept, done.n_cells) == (0, 24)


def test_a_field_is_not_marked_as_done_before_its_files_are_there(
    tmp_path: Path, model: ModelFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    items, out = make_fields(tmp_path), tmp_path / "out"

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(run_module, "write_field", full)
    with pytest.raises(RunError, match=r"field0 cannot be written to .*No space left"):
        predict(items, model, out)
    assert not list((out / "done").glob("*.json"))


def test_results_that_cannot_be_expressed_are_a_problem_of_their_field(
    tmp_path: Path, model: ModelFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    items = make_fields(tmp_path)
    write_field = run_module.write_field

    def picky(out: Path, field: Any, *rest: Any) -> None:
        if field.item.image_id == "field1":
            raise DataError("an outline cannot be written")
        write_field(out, field, *rest)

    monkeypatch.setattr(run_module, "write_field", picky)
    done = predict(items, model, tmp_path / "out")
    assert done.image_ids == ["field0", "field2"]
    assert [reason for _, _, reason in done.problems] == ["its results cannot be written: an outline cannot be written"]


_SLOW = """
import sys, time
from pathlib import Path
from perikarya.predict import run
from perikarya.predict.folder import open_model
from perikarya.predict.inputs import FieldInput

root = Path(sys.argv[1])
write = run.write_field

def slowly(out, field, *rest):
    write(out, field, *rest)
    time.sleep(0.5 if field.item.image_id == "field0" else 60)  # between the files of an image and its mark

run.write_field = slowly
items = [FieldInput(root / f"field{i}.png", root / f"field{i}.geojson", f"field{i}") for i in range(3)]
run.run_predictions(items, open_model(Path(sys.argv[2])), root / "out", formats=("geojson", "csv"))
"""


def test_a_run_that_was_killed_goes_on_where_it_was(tmp_path: Path, model: ModelFolder) -> None:
    items, out = make_fields(tmp_path), tmp_path / "out"
    process = subprocess.Popen([sys.executable, "-c", _SLOW, str(tmp_path), str(model.root)])
    deadline = time.monotonic() + 60
    while not (part_path(out, "field1").exists() and (out / "done" / "field0.json").exists()):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    before = stamps(out, items)
    assert [len(before[item.image_id]) for item in items] == [3, 2, 0]
    done = predict(items, model, out)
    assert (done.n_kept, done.n_cells, done.image_ids) == (1, 36, ["field0", "field1", "field2"])
    assert written_again(before, stamps(out, items)) == ["field1", "field2"]
    untouched = tmp_path / "whole"
    predict(items, model, untouched)
    for item in items:
        name = f"{item.image_id}.geojson"
        assert (out / name).read_bytes() == (untouched / name).read_bytes()
