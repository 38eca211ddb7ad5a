"""A model's folder opens only when every file is what it was, and appears whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.predict.test_manifest import content, network

from perikarya.errors import DataError
from perikarya.predict import folder as folders
from perikarya.predict.folder import is_model_folder, new_model_folder, open_model


def write_model(root: Path, files: dict[str, bytes] | None = None, **changes: Any) -> Path:
    """Write a folder with files in place of networks; ``changes`` are of the manifest."""
    files = files or {"fold0.xml": b"<net/>", "fold0.bin": b"weights"}
    root.mkdir(parents=True)
    for name, data in files.items():
        (root / name).write_bytes(data)
    hashes = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    first, *others = hashes
    networks = [network(file=first, sha256=hashes[first], extra_files={name: hashes[name] for name in others})]
    (root / "model.json").write_text(json.dumps(content(networks=networks, **changes)))
    return root


def test_a_whole_folder_opens_wherever_it_is_moved(tmp_path: Path) -> None:
    made = open_model(write_model(tmp_path / "a"))
    moved = (tmp_path / "a").rename(tmp_path / "b")
    assert open_model(moved).manifest == made.manifest
    assert open_model(moved / "model.json").sha256 == made.sha256
    assert open_model(moved).network_path(0) == moved / "fold0.xml"
    assert made.sha256 == hashlib.sha256((moved / "model.json").read_bytes()).hexdigest()


@pytest.mark.parametrize("name", ["fold0.xml", "fold0.bin"])
def test_a_changed_file_is_refused(tmp_path: Path, name: str) -> None:
    root = write_model(tmp_path / "model")
    path = root / name
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    with pytest.raises(DataError, match=rf"{name} is not the file the model was exported with"):
        open_model(root)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    root = write_model(tmp_path / "model")
    (root / "fold0.bin").unlink()
    with pytest.raises(DataError, match=r"fold0\.bin is missing"):
        open_model(root)


def test_a_folder_in_the_place_of_a_file_is_refused(tmp_path: Path) -> None:
    root = write_model(tmp_path / "model")
    (root / "fold0.bin").unlink()
    (root / "fold0.bin").mkdir()
    with pytest.raises(DataError, match="is not a file of at most"):
        open_model(root)


def test_a_pipe_in_the_place_of_a_file_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    root = write_model(tmp_path / "model")
    (root / "fold0.bin").unlink()
    os.mkfifo(root / "fold0.bin")
    with pytest.raises(DataError, match="is not a file of at most"):
        open_model(root)


def test_a_file_that_is_too_large_is_refused_before_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_model(tmp_path / "model")
    with (root / "fold0.bin").open("r+b") as handle:
        handle.truncate(folders.MAX_FILE_BYTES + 1)  # takes no room on the disk
    monkeypatch.setattr(folders, "file_sha256", lambda path: "" if path.suffix != ".bin" else pytest.fail("was read"))
    with pytest.raises(DataError, match=r"fold0\.\w+ is not"):
        open_model(root)


def test_a_link_out_of_the_folder_is_refused_even_with_the_right_content(tmp_path: Path) -> None:
    root = write_model(tmp_path / "model")
    (tmp_path / "secret").write_bytes(b"weights")
    (root / "fold0.bin").unlink()
    (root / "fold0.bin").symlink_to(tmp_path / "secret")
    with pytest.raises(DataError, match=r"fold0\.bin leads out of the model's folder"):
        open_model(root)


def test_a_graph_that_takes_its_weights_from_other_files_is_refused(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx", reason="the extra 'export' is not installed")
    tensor = onnx.TensorProto(name="w", data_type=1, dims=[4], data_location=1)
    tensor.external_data.add(key="location", value="../secret")
    graph = onnx.helper.make_graph([], "g", [], [], [tensor])
    data = onnx.helper.make_model(graph).SerializeToString()
    root = write_model(tmp_path / "model", {"fold0.onnx": data})
    with pytest.raises(DataError, match="names other files that hold its weights"):
        open_model(root)


def test_a_manifest_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    root = write_model(tmp_path / "model")
    with (root / "model.json").open("r+b") as handle:
        handle.truncate(folders.MAX_MANIFEST_BYTES + 1)
    with pytest.raises(DataError, match="is larger than"):
        open_model(root)


@pytest.mark.parametrize("data", [b"\xff\xfe\x00", b"\x00" * 100, b""])
def test_bytes_that_are_no_manifest_are_refused(tmp_path: Path, data: bytes) -> None:
    root = write_model(tmp_path / "model")
    (root / "model.json").write_bytes(data)
    with pytest.raises(DataError, match="Fix: export"):
        open_model(root)


def test_a_run_or_a_file_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for path in (tmp_path, tmp_path / "file", tmp_path / "nothing"):
        assert not is_model_folder(path)
        with pytest.raises(DataError, match=r"is not an exported model: it has no model\.json"):
            open_model(path)


def test_a_folder_that_is_not_finished_leaves_nothing(tmp_path: Path) -> None:
    def stop_half_way(folder: Path) -> None:
        (folder / "fold0.onnx").write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), new_model_folder(tmp_path / "model") as folder:
        stop_half_way(folder)
    assert list(tmp_path.iterdir()) == []


def test_a_model_is_replaced_only_when_asked_to_and_only_by_a_whole_one(tmp_path: Path) -> None:
    root = write_model(tmp_path / "model")
    before = open_model(root)
    with pytest.raises(DataError, match="exists already"), new_model_folder(root):
        pass
    with pytest.raises(RuntimeError), new_model_folder(root, overwrite=True):
        raise RuntimeError
    assert open_model(root).sha256 == before.sha256
    with new_model_folder(root, overwrite=True) as folder:
        write_model(folder / "x", name="new")
        for path in list((folder / "x").iterdir()):
            path.rename(folder / path.name)
        (folder / "x").rmdir()
    assert open_model(root).manifest.name == "new"
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


def test_what_is_no_model_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1.txt").write_text("years of work")
    refused = pytest.raises(DataError, match="not the folder of an exported model")
    with refused, new_model_folder(tmp_path / "thesis", overwrite=True):
        pass
    assert (tmp_path / "thesis" / "chapter1.txt").read_text() == "years of work"


def test_opening_a_model_imports_no_torch_nor_tables() -> None:
    heavy = ("torch", "timm", "pandas", "scipy", "numpy", "onnx", "onnxruntime", "openvino")
    code = f"import sys, perikarya.predict.folder; print([m for m in {heavy} if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
