"""Exported models that compute in no time, and fields with outlines to predict with them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tests.sources import picture, write

from perikarya.palette import class_colours
from perikarya.predict.folder import ModelFolder, file_sha256, open_model
from perikarya.predict.inputs import FieldInput
from perikarya.predict.manifest import ModelManifest, ModelStudy, NetworkFile, PretrainedWeights

CLASS_NAMES = ("normal", "intermediate", "pyknotic")
WINDOW_PX, INPUT_PX = 24, 16


def weights_of(seed: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """A ramp over the picture, (1, px, px, 1), and a matrix (4, 3): together a network that knows up from down."""
    rng = np.random.default_rng(seed)
    ramp = rng.uniform(0, 0.05, (1, INPUT_PX, INPUT_PX, 1)).astype(np.float32)
    return ramp, rng.normal(size=(4, len(CLASS_NAMES))).astype(np.float32)


def answer(x_nhwc: NDArray[np.uint8], seed: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """What the network of ``write_graph`` gives: logits (n, 3) and features (n, 4)."""
    ramp, matrix = weights_of(seed)
    features = (x_nhwc.astype(np.float32) * ramp).mean(axis=(1, 2))
    return features @ matrix, features


def write_graph(path: Path, seed: int) -> Path:
    from onnx import TensorProto, checker, helper, numpy_helper, save

    ramp, matrix = weights_of(seed)
    nodes = [
        helper.make_node("Cast", ["crops"], ["x"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["x", "ramp"], ["weighted"]),
        helper.make_node("ReduceMean", ["weighted", "axes"], ["features"], keepdims=0),
        helper.make_node("MatMul", ["features", "matrix"], ["logits"]),
    ]
    constants = {"ramp": ramp, "matrix": matrix, "axes": np.array([1, 2], np.int64)}
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("crops", TensorProto.UINT8, ["n", INPUT_PX, INPUT_PX, 4])],
        [
            helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", len(CLASS_NAMES)]),
            helper.make_tensor_value_info("features", TensorProto.FLOAT, ["n", 4]),
        ],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    checker.check_model(model)
    path.parent.mkdir(parents=True, exist_ok=True)
    save(model, path)
    return path


def describe(root: Path, files: Sequence[str], **changes: Any) -> ModelFolder:
    """Write the manifest beside files of networks, and open the folder."""
    calibrations = changes.pop("calibrations", [None] * len(files))
    networks = tuple(
        NetworkFile(file=name, sha256=file_sha256(root / name), seed=0, fold=i, calibration=calibration)
        for i, (name, calibration) in enumerate(zip(files, calibrations, strict=True))
    )
    content: dict[str, Any] = {
        "name": "tiny",
        "arch": "custom_cnn",
        "strategy": "finetune",
        "class_names": CLASS_NAMES,
        "class_colours": tuple(class_colours(len(CLASS_NAMES))),
        "window_px": WINDOW_PX,
        "input_px": INPUT_PX,
        "channels": "rgb+mask",
        "format": "onnx",
        "networks": networks,
        "n_features": 4,
        "weights": PretrainedWeights(source="none"),
        "study": ModelStudy(name="none", data_hash="none", n_cells=1),
    }
    (root / "model.json").write_text(ModelManifest(**(content | changes)).model_dump_json(), encoding="utf-8")
    return open_model(root)


def tiny_model(root: Path, *, n_networks: int = 1, **changes: Any) -> ModelFolder:
    """An exported model of ``n_networks`` tiny graphs; the network of fold i is ``answer(x, seed=i)``."""
    files = [write_graph(root / f"fold{i}.onnx", i).name for i in range(n_networks)]
    return describe(root, files, **changes)


def ring(x: float, y: float, radius: float, *, n: int = 24) -> list[list[float]]:
    """A round polygon of GeoJSON, closed."""
    angles = np.linspace(0, 2 * np.pi, n, endpoint=False)
    points = np.stack([x + radius * np.cos(angles), y + radius * np.sin(angles)], axis=1).round(2).tolist()
    return [*points, points[0]]


def feature(key: str, rings: list[list[list[float]]], *, label: str | None = None, kind: str = "cell") -> dict:
    properties: dict[str, Any] = {"objectType": "annotation" if kind == "region" else "detection"}
    if label is not None:
        properties["classification"] = {"name": label}
    geometry = {"type": "Polygon", "coordinates": rings}
    return {"type": "Feature", "id": key, "geometry": geometry, "properties": properties}


def write_features(path: Path, features: Sequence[dict]) -> Path:
    path.write_text(json.dumps({"type": "FeatureCollection", "features": list(features)}), encoding="utf-8")
    return path


def cells(n: int, *, seed: int = 0, hw: tuple[int, int] = (150, 200)) -> list[dict]:
    """Outlines of some cells, anywhere, two of them at the border."""
    rng = np.random.default_rng(seed)
    places = rng.uniform((8, 8), (hw[1] - 8, hw[0] - 8), (n, 2))
    places[:2] = (3, 40), (hw[1] - 4, hw[0] - 5)
    found = []
    for i, (x, y) in enumerate(places):
        label = (*CLASS_NAMES, None)[i % 4]
        found.append(feature(f"cell{i}", [ring(x, y, rng.uniform(3, 8))], label=label))
    return found


def make_field(
    folder: Path, name: str, *, n: int = 12, seed: int = 0, features: Sequence[dict] | None = None
) -> FieldInput:
    """A picture of 200 x 150 px with outlines beside it."""
    image = write(folder / f"{name}.png", picture(seed, (150, 200)))
    outlines = write_features(folder / f"{name}.geojson", cells(n, seed=seed) if features is None else features)
    return FieldInput(image, outlines, name)
