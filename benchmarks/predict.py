"""Prediction of whole fields: cells per second from image and outlines to files, start-up, and a slide's memory.

    python benchmarks/predict.py [--quick] [--parts speed start slide] [--networks NAME...] [--formats geojson,roi,csv]

``speed``: for each network (random weights), ``run_predictions`` on fields with outlines, by ONNX Runtime and by
OpenVINO, files included, beside torch on cells that lie resized in memory: one at a time, as the published study timed
its networks, and in batches. Contestants take turns. Shares are of the fp32 matrix product that torch reaches in the
same run. ``start``: wall time of ``perikarya predict`` with an exported model on one field. ``slide``: a tiled TIFF of
20,000 x 20,000 px with 50,000 outlines, peak memory of the process. Prints a table for each and, last, one JSON object.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import cv2
import numpy as np
import tifffile
from numpy.typing import NDArray

from _common import interleaved, parse_arguments, print_json, print_table
from memory import measure
from perikarya.data.augment import resize_batch
from perikarya.palette import class_colours
from perikarya.predict.backends import usable_threads
from perikarya.predict.fields import PredictOptions
from perikarya.predict.folder import ModelFolder, file_sha256, open_model
from perikarya.predict.inputs import FieldInput
from perikarya.predict.manifest import ModelManifest, ModelStudy, NetworkFile, PretrainedWeights
from perikarya.predict.networks import Networks
from perikarya.predict.run import run_predictions

CLASSES = ("normal", "intermediate", "pyknotic")
WINDOW_PX = 80
BATCH = 32  # of torch
# network -> fields, and cells of all of them together; a turn takes up to half a minute
FIELDS = {
    "custom_cnn": (4, 6000),
    "efficientnet_lite0": (4, 2000),
    "resnet50": (2, 500),
    "vit_base_224": (1, 160),
}
BACKENDS = ("onnxruntime", "openvino")
FIELD_PX = 2048
SLIDE_PX, SLIDE_CELLS = 20_000, 50_000
LIMIT_GIB, LIMIT_START_S, REPEATS = 2.0, 2.0, 3


@dataclass(frozen=True)
class Exported:
    """A network with random weights, in torch and as an exported model."""

    network: Any
    model: ModelFolder
    gflop: float  # of one cell: a multiplication and an addition are two


def export(arch: str, folder: Path) -> Exported:
    """Build a network, count what it computes and write it as a model of format ONNX."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from perikarya.models.build import build_network
    from perikarya.models.zoo import NETWORKS
    from perikarya.predict.graphs import write_onnx

    torch.manual_seed(0)
    side = NETWORKS.get(arch).input_px
    network = build_network(arch, n_classes=len(CLASSES)).eval()
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        network(torch.zeros((1, 4, side, side), dtype=torch.uint8))
    folder.mkdir(parents=True)
    write_onnx(network, folder / "fold0.onnx", input_px=side)
    manifest = ModelManifest(
        name=arch,
        arch=arch,
        strategy="finetune",
        class_names=CLASSES,
        class_colours=tuple(class_colours(len(CLASSES))),
        window_px=WINDOW_PX,
        input_px=side,
        channels="rgb+mask",
        format="onnx",
        networks=(NetworkFile(file="fold0.onnx", sha256=file_sha256(folder / "fold0.onnx"), seed=0, fold=0),),
        n_features=network.n_features,
        weights=PretrainedWeights(source="none"),
        study=ModelStudy(name="none", data_hash="none", n_cells=0),
    )
    (folder / "model.json").write_text(manifest.model_dump_json(), encoding="utf-8")
    channels_last = network.to(memory_format=torch.channels_last)
    return Exported(channels_last, open_model(folder), counter.get_total_flops() / 1e9)


def paint_field(folder: Path, name: str, *, side: int, n_cells: int) -> FieldInput:
    """Write a tiled JPEG TIFF and a GeoJSON file with round outlines of 40 points, as people draw them."""
    rng = np.random.default_rng(0)
    texture = [_texture(rng) for _ in range(8)]
    shape = (side, side, 3)
    n_tiles = (-(-side // 512)) ** 2
    tiles = (texture[i % len(texture)] for i in range(n_tiles))
    image = folder / f"{name}.tif"
    tifffile.imwrite(
        image, tiles, shape=shape, dtype=np.uint8, tile=(512, 512), compression="jpeg", photometric="rgb", bigtiff=True
    )
    places = rng.uniform(WINDOW_PX / 2, side - WINDOW_PX / 2, (n_cells, 2))
    outlines = folder / f"{name}.geojson"
    features = [_feature(i, place, rng.uniform(8, 20)) for i, place in enumerate(places)]
    outlines.write_text(json.dumps({"type": "FeatureCollection", "features": features}), encoding="utf-8")
    return FieldInput(image, outlines, name)


def _texture(rng: np.random.Generator) -> NDArray[np.uint8]:
    coarse = rng.integers(90, 240, (32, 32, 3), dtype=np.uint8)
    fine = cv2.resize(coarse, (512, 512), interpolation=cv2.INTER_CUBIC) + rng.normal(0, 6, (512, 512, 3))
    return np.asarray(np.clip(fine, 0, 255), np.uint8)


def _feature(i: int, place: NDArray[np.float64], radius: float) -> dict[str, Any]:
    angle = np.linspace(0, 2 * np.pi, 41)
    ring = place + radius * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    ring[-1] = ring[0]
    return {
        "type": "Feature",
        "id": f"{i:08x}-0000-4000-8000-000000000000",
        "geometry": {"type": "Polygon", "coordinates": [ring.round(2).tolist()]},
        "properties": {"objectType": "detection", "classification": {"name": CLASSES[i % 3]}},
    }


def matrix_gflops() -> float:
    """Return what a product of square fp32 matrices reaches on the cores that networks may use, in 10^9 per second."""
    import torch

    torch.set_num_threads(usable_threads(None))
    side = 2048
    a, b = torch.randn(side, side), torch.randn(side, side)
    seconds = []
    for _ in range(12):
        start = time.perf_counter()
        torch.mm(a, b)
        seconds.append(time.perf_counter() - start)
    return 2 * side**3 / min(seconds) / 1e9


def speed(names: list[str], formats: tuple[str, ...], folder: Path, *, quick: bool) -> dict[str, Any]:
    """Measure cells per second of each network."""
    found, rows = {}, []
    ceiling = matrix_gflops()
    for arch in names:
        exported = export(arch, folder / "models" / arch)
        n_fields, n_cells = FIELDS[arch]
        n_cells //= 8 if quick else 1
        items = [paint_field(folder, f"{arch}{i}", side=FIELD_PX, n_cells=n_cells // n_fields) for i in range(n_fields)]
        found[arch] = _speed_of(exported, items, n_cells, formats, folder, repeats=1 if quick else REPEATS)
        ceiling = max(ceiling, matrix_gflops())
    for entry in found.values():
        for name in [*BACKENDS, *(f"{b} network" for b in BACKENDS)]:
            if f"{name}_cells_per_s" in entry:
                entry[f"{name}_share"] = round(entry[f"{name}_cells_per_s"] * entry["gflop"] / ceiling, 3)
    for arch, entry in found.items():
        for name in BACKENDS:
            cells_per_s = entry[f"{name}_cells_per_s"]
            rows.append(
                [
                    arch,
                    name,
                    f"{entry['gflop']:.3g}",
                    cells_per_s,
                    f"{1 / cells_per_s:.5f}",
                    entry[f"{name} network_cells_per_s"],
                    f"{100 * entry[f'{name}_share']:.0f} %",
                    f"{100 * entry[f'{name} network_share']:.0f} %",
                    cells_per_s / entry["torch one by one_cells_per_s"],
                    cells_per_s / entry["torch in batches_cells_per_s"],
                ]
            )
    header = (
        "network", "backend", "GFLOP", "cells/s to files", "s per cell", "network alone", "of ceiling", "alone",
        "over torch 1", f"over torch {BATCH}",
    )  # fmt: skip
    print(f"Matrix product in fp32: {ceiling:.0f} GFLOP/s")
    print_table(header, rows)
    return {"ceiling_gflops": round(ceiling, 1), "networks": found}


def _speed_of(
    exported: Exported, items: list[FieldInput], n_cells: int, formats: tuple[str, ...], folder: Path, *, repeats: int
) -> dict[str, Any]:
    import torch

    torch.set_num_threads(usable_threads(None))
    n_alone = max(BATCH, n_cells // 4)
    rng = np.random.default_rng(0)
    crops = rng.integers(0, 256, (n_alone, WINDOW_PX, WINDOW_PX, 4), dtype=np.uint8)
    x_nchw = torch.from_numpy(resize_batch(crops, exported.model.manifest.input_px)).permute(0, 3, 1, 2)
    n_single = max(4, n_alone // 8)
    contestants: dict[str, tuple[int, Callable[[], object]]] = {
        "torch one by one": (n_single, partial(_ask_torch, exported.network, x_nchw[:n_single], 1)),
        "torch in batches": (n_alone, partial(_ask_torch, exported.network, x_nchw, BATCH)),
    }
    for name in BACKENDS:
        options = PredictOptions(backend=name)
        contestants[name] = n_cells, partial(_to_files, items, exported.model, folder / "out", options, formats)
        networks = Networks(exported.model, options)
        contestants[f"{name} network"] = n_alone, partial(_ask_networks, networks, crops)
    wall_s = interleaved({name: run for name, (_, run) in contestants.items()}, repeats=repeats)
    per_s = {f"{name}_cells_per_s": round(n / median(wall_s[name]), 2) for name, (n, _) in contestants.items()}
    return {"gflop": round(exported.gflop, 4), "n_cells": n_cells, **per_s}


def _ask_torch(network: Any, x_nchw: Any, size: int) -> None:
    import torch

    with torch.inference_mode():
        for batch in x_nchw.split(size):
            network(batch)


def _ask_networks(networks: Networks, crops: NDArray[np.uint8]) -> None:
    batches = [crops[i : i + networks.batch_size] for i in range(0, len(crops), networks.batch_size)]
    with networks.workers() as pool:
        list(pool.map(networks.prob, batches))


def _to_files(
    items: list[FieldInput], model: ModelFolder, out: Path, options: PredictOptions, formats: tuple[str, ...]
) -> None:
    shutil.rmtree(out, ignore_errors=True)
    done = run_predictions(items, model, out, options, formats=formats)
    if done.problems:
        sys.exit(f"not predicted: {done.problems[:3]}")


def start(folder: Path, *, quick: bool) -> dict[str, Any]:
    """Measure ``perikarya predict`` from the command to the result of one field with 50 cells."""
    exported = export("custom_cnn", folder / "start_model")
    item = paint_field(folder, "start", side=640, n_cells=50)
    seconds = list(_starts(exported.model.root, item, folder / "start_out", n=2 if quick else 5))
    print_table(["start-up to files of one field", "s"], [["fastest", min(seconds)], ["median", median(seconds)]])
    return {"median_s": round(median(seconds), 2), "over_limit": round(median(seconds) / LIMIT_START_S, 2)}


def _starts(model: Path, item: FieldInput, out: Path, *, n: int) -> Iterator[float]:
    for _ in range(n):
        shutil.rmtree(out, ignore_errors=True)
        command = [sys.executable, "-m", "perikarya", "predict", str(model), str(item.image), "--out", str(out)]
        begin = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        yield time.perf_counter() - begin


def slide(formats: tuple[str, ...], folder: Path, *, quick: bool) -> dict[str, Any]:
    """Measure peak memory and speed on a slide."""
    exported = export("custom_cnn", folder / "slide_model")
    side, n_cells = (SLIDE_PX // 5, SLIDE_CELLS // 25) if quick else (SLIDE_PX, SLIDE_CELLS)
    item = paint_field(folder, "slide", side=side, n_cells=n_cells)
    command = ("predict", exported.model.root, item.image, "--out", folder / "slide_out", "--format", ",".join(formats))
    wall_s, peak_gib = measure(*map(str, command))
    print_table(
        [f"{side} x {side} px, {n_cells} outlines", "s", "cells/s", "peak GiB"],
        [["custom_cnn", wall_s, n_cells / wall_s, peak_gib]],
    )
    return {
        "side_px": side,
        "n_cells": n_cells,
        "cells_per_s": round(n_cells / wall_s, 1),
        "peak_gib": round(peak_gib, 2),
        "over_limit": round(peak_gib / LIMIT_GIB, 2),
    }


def _extend(parser: argparse.ArgumentParser) -> None:
    parts = ("speed", "start", "slide")
    parser.add_argument("--parts", nargs="+", choices=parts, default=parts)
    parser.add_argument("--networks", nargs="+", choices=list(FIELDS), default=list(FIELDS))
    parser.add_argument("--formats", default="geojson,roi,overlay,csv", help="files to write")


def main() -> None:
    """Run the parts that were asked for."""
    arguments = parse_arguments(__doc__, extend=_extend)
    formats = tuple(arguments.formats.split(","))
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        if "speed" in arguments.parts:
            found["speed"] = speed(arguments.networks, formats, folder, quick=arguments.quick)
        if "start" in arguments.parts:
            found["start"] = start(folder, quick=arguments.quick)
        if "slide" in arguments.parts:
            found["slide"] = slide(formats, folder, quick=arguments.quick)
    print_json("predict", quick=arguments.quick, formats=formats, **found)


if __name__ == "__main__":
    main()
