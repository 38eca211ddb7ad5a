"""Eight-bit networks are kept where they name the same classes, and refused where they do not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tests.predict.test_graphs import Torch, as_model, cells
from torch import nn

from perikarya.errors import RunError
from perikarya.models.build import CellNetwork, build_network
from perikarya.predict.agreement import Compared, compare
from perikarya.predict.backends import open_backend
from perikarya.predict.graphs import write_onnx, write_openvino
from perikarya.predict.quantise import MIN_SAME_CLASS, refuse_changed_classes, write_int8

onnx = pytest.importorskip("onnx", reason="the extra 'export' is not installed")
pytest.importorskip("onnxscript", reason="the extra 'export' is not installed")

SIDE = 32


def graded_cells(n: int, seed: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Paint discs of three sizes, which a network can learn in a moment."""
    rng = np.random.default_rng(seed)
    label_n = rng.integers(0, 3, n)
    y, x = np.mgrid[:SIDE, :SIDE] - SIDE / 2
    disc = x**2 + y**2 < (np.array([4, 8, 12])[label_n] + rng.uniform(-1, 1, n))[:, None, None] ** 2
    rgb = np.where(disc[..., None], 70, 190) + rng.normal(0, 15, (n, SIDE, SIDE, 3))
    return np.concatenate([np.clip(rgb, 0, 255), 255 * disc[..., None]], axis=-1).astype(np.uint8), label_n


@pytest.fixture(scope="module")
def learned() -> CellNetwork:
    """A small network that tells discs apart."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    network = build_network("custom_cnn", n_classes=3)
    crops, label_n = graded_cells(96, seed=0)
    x, y = torch.from_numpy(crops).permute(0, 3, 1, 2), torch.from_numpy(label_n)
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)
    for _ in range(12):
        for part in torch.arange(len(x)).split(32):
            optimizer.zero_grad()
            nn.functional.cross_entropy(network.train()(x[part]), y[part]).backward()
            optimizer.step()
    return network.eval().requires_grad_(False)


def quantised(network: CellNetwork, folder: Path, crops: NDArray[np.uint8]) -> Path:
    write_onnx(network, folder / "fp32.onnx", input_px=crops.shape[1])
    write_int8(folder / "fp32.onnx", folder / "fold0.onnx", crops)
    return folder / "fold0.onnx"


def test_a_small_convolutional_network_keeps_its_classes_in_a_third_of_the_room(
    learned: CellNetwork, tmp_path: Path
) -> None:
    path = quantised(learned, tmp_path, graded_cells(64, seed=0)[0])
    write_openvino(path, tmp_path / "fold0.xml")
    unseen, label_n = graded_cells(200, seed=1)
    assert (Torch(learned).run(unseen)[0].argmax(axis=1) == label_n).mean() > 0.9
    for kind in ("onnx", "openvino"):
        found = compare(open_backend(as_model(tmp_path, kind, SIDE), 0), Torch(learned), unseen)  # type: ignore[arg-type]
        assert 0 < found.max_abs_diff < 0.2  # not the same numbers
        assert found.same_class >= MIN_SAME_CLASS
        refuse_changed_classes(found, network="cnn")
    assert path.stat().st_size < (tmp_path / "fp32.onnx").stat().st_size / 3


def test_all_but_the_first_layer_and_the_classifier_count_in_integers(learned: CellNetwork, tmp_path: Path) -> None:
    graph = onnx.load(quantised(learned, tmp_path, graded_cells(16, seed=0)[0])).graph
    made_by = {name: node for node in graph.node for name in node.output}
    layers = [node for node in graph.node if node.op_type in ("Conv", "Gemm", "MatMul")]
    from_integers = [made_by[node.input[0]].op_type == "DequantizeLinear" for node in layers]
    assert from_integers == [False] + [True] * (len(layers) - 2) + [False]
    scales = {init.name: init for init in graph.initializer}
    weight = made_by[layers[1].input[1]]
    assert scales[weight.input[1]].dims[0] > 1  # one scale per filter
    stored = onnx.numpy_helper.to_array(scales[weight.input[0]])
    assert stored.dtype == np.int8
    assert np.abs(stored).max() <= 64  # 7 bits: no overflow on older processors


def test_a_network_whose_classes_hang_on_the_last_digit_is_refused(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    network = build_network("custom_cnn", n_classes=3)
    crops = cells(64, SIDE)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)
            module.momentum = 1.0
    with torch.no_grad():
        network.train()(torch.from_numpy(crops).permute(0, 3, 1, 2))
        classifier = network.eval().backbone.get_classifier()  # type: ignore[operator]
        features = torch.from_numpy(Torch(network).run(crops)[1])
        classifier.weight.copy_(1e-3 * classifier.weight[:1] + 1e-5 * torch.randn(classifier.weight.shape))
        classifier.bias.copy_(-(features @ classifier.weight.T).mean(dim=0))
    path = quantised(network.requires_grad_(False), tmp_path, crops)
    found = compare(open_backend(as_model(path.parent, "onnx", SIDE), 0), Torch(network), crops)
    assert found.max_abs_diff < 0.01  # the probabilities hide it
    with pytest.raises(
        RunError, match=r"In int8, cnn gives the same class as in fp32 on \d+\.\d % of 64 held-out cells"
    ):
        refuse_changed_classes(found, network="cnn")


def test_one_cell_in_a_hundred_may_change_its_class_and_no_more() -> None:
    refuse_changed_classes(Compared(100, 0.3, 0.99), network="cnn")
    with pytest.raises(RunError, match=r"98\.9 %"):
        refuse_changed_classes(Compared(1000, 0.3, 0.989), network="cnn")
