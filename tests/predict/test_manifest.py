"""The description of an exported model holds together, and what does not is refused with a sentence."""

from __future__ import annotations

import json
from typing import Any

import pytest

from perikarya.errors import DataError
from perikarya.predict.manifest import ModelManifest, read_manifest

HASH = "0" * 64


def content(**changes: Any) -> dict[str, Any]:
    """Return a manifest that is as it must be, but for the changes."""
    return {
        "schema_version": 1,
        "name": "cnn",
        "arch": "custom_cnn",
        "strategy": "finetune",
        "class_names": ["normal", "pyknotic"],
        "class_colours": ["#0072B2", "#E69F00"],
        "window_px": 80,
        "um_per_px": 0.5,
        "input_px": 64,
        "channels": "rgb+mask",
        "format": "onnx",
        "networks": [network()],
        "n_features": 160,
        "weights": {"source": "random"},
        "study": {"name": "rats", "data_hash": "abc", "n_cells": 10},
        **changes,
    }


def network(**changes: Any) -> dict[str, Any]:
    return {"file": "fold0.onnx", "sha256": HASH, "seed": 0, "fold": 0, **changes}


def temperature(n_classes: int) -> dict[str, Any]:
    return {"method": "temperature", "n_cells": 50, "scale": [0.8] * n_classes, "offset": [0.0] * n_classes}


def read(found: object) -> ModelManifest:
    return read_manifest(json.dumps(found), where="model.json")


def test_a_manifest_survives_its_file() -> None:
    sets = {"coverage": 0.9, "floor": [0.2, 0.3], "n_cells": [20, 20]}
    before = read(content(networks=[network(calibration=temperature(2), conformal=sets)]))
    assert read_manifest(before.model_dump_json(), where="model.json") == before
    assert before.window_um == 40.0
    assert before.n_classes == 2


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"class_names": ["normal", "normal"]}, "class_names holds a name twice"),
        ({"class_colours": ["#0072B2"]}, "2 class_names but 1 class_colours"),
        ({"class_colours": ["#0072B2", "url(x)"]}, "class_colours.1"),
        ({"networks": []}, "networks"),
        ({"networks": [network(), network(fold=1)]}, "two networks name the same file"),
        ({"networks": [network(extra_files={"model.json": HASH})]}, "two networks name the same file"),
        ({"networks": [network(file="../fold0.onnx")]}, "networks.0.file"),
        ({"networks": [network(file="/etc/passwd")]}, "networks.0.file"),
        ({"networks": [network(file=".hidden")]}, "networks.0.file"),
        ({"networks": [network(extra_files={"a/b.bin": HASH})]}, "networks.0.extra_files"),
        ({"networks": [network(sha256="abc")]}, "networks.0.sha256"),
        ({"networks": [network(calibration=temperature(3))]}, "calibration of fold0.onnx is not of 2 classes"),
        ({"networks": [network(calibration={"method": "temperature"})]}, "not of 2 classes"),
        ({"networks": [network(conformal={"floor": [0.1]})]}, "conformal sets of fold0.onnx are not of 2 classes"),
        ({"um_per_px": 0}, "um_per_px"),
        ({"window_px": 10**9}, "window_px"),
        ({"input_px": 10**9}, "input_px"),
        ({"threshold": 1.0}, "threshold"),
        ({"channels": "rgbd"}, "channels"),
        ({"format": "pickle"}, "format"),
        ({"code": "import os"}, "code"),
    ],
)
def test_what_does_not_hold_together_is_named(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(DataError, match="does not describe a model") as refused:
        read(content(**changes))
    assert said in str(refused.value)


@pytest.mark.parametrize("version", [2, 0, "1", None, True, 1.5])
def test_a_manifest_of_another_version_is_refused(version: object) -> None:
    with pytest.raises(DataError, match="schema version"):
        read(content(schema_version=version))


@pytest.mark.parametrize("text", ["", "{", "[1]", "null", "3", '"onnx"', "[" * 100_000, "{}"])
def test_what_is_no_manifest_is_refused_with_a_sentence(text: str) -> None:
    with pytest.raises(DataError, match="Fix"):
        read_manifest(text, where="model.json")


def test_crops_of_the_models_window_and_scale_are_taken() -> None:
    manifest = read(content())
    manifest.check_scale(window_px=80, um_per_px=0.5, where="here")
    manifest.check_scale(window_px=80, um_per_px=0.504, where="here")
    without = read(content(um_per_px=None))
    without.check_scale(window_px=80, um_per_px=3.0, where="here")
    without.check_scale(window_px=80, um_per_px=None, where="here")


@pytest.mark.parametrize(
    ("window_px", "um_per_px", "said"),
    [
        (64, 0.5, r"here has windows of 64 px, but cnn was trained on windows of 80 px \(40 µm\)"),
        (80, 0.51, "here has 0.51 µm per pixel, but cnn was trained at 0.5"),
        (80, 0.25, "here has 0.25 µm per pixel, but cnn was trained at 0.5"),
        (80, None, "here does not tell its scale, and cnn was trained at 0.5"),
    ],
)
def test_crops_of_another_window_or_scale_are_refused(window_px: int, um_per_px: float | None, said: str) -> None:
    with pytest.raises(DataError, match=said):
        read(content()).check_scale(window_px=window_px, um_per_px=um_per_px, where="here")
