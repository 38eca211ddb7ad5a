"""Exported graphs give the answers of torch, for every kind of network, whatever the number of cells."""

from __future__ import annotations

import copy
import json
from collections.abc import Collection
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tests.models.reduced import reduced
from tests.predict.test_manifest import content, network
from torch import nn

from perikarya.errors import ConfigError, DataError, WeightsError
from perikarya.models.build import CellNetwork, bare_extractor, build_network
from perikarya.models.frozen_head import FrozenHead
from perikarya.models.zoo import NETWORKS
from perikarya.predict import graphs
from perikarya.predict.agreement import MAX_DIFFERENCE, compare
from perikarya.predict.backends import UNSTEADY, Backend, open_backend
from perikarya.predict.folder import ModelFolder
from perikarya.predict.graphs import (
    CellGraph,
    read_network,
    write_onnx,
    write_openvino,
    write_openvino_of,
    write_tensors,
)
from perikarya.predict.manifest import Format, read_manifest
from perikarya.settings import Channels

pytest.importorskip("onnxscript", reason="the extra 'export' is not installed")

QUICK = ["custom_cnn", "vit_base_224"]  # one of each kind; the exporter takes seconds
SLOW = sorted(set(NETWORKS.names()) - set(QUICK))
N_CLASSES = 3


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(1)
    for name, spec in NETWORKS.items():
        monkeypatch.setitem(NETWORKS._entries, name, reduced(spec))


class Torch:
    """A network that torch computes, as a backend."""

    name = "torch"
    parallel = False

    def __init__(self, network: CellNetwork) -> None:
        self.graph = CellGraph(network).eval()

    def run(self, crops_nhwc: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        with torch.inference_mode():
            logits, features = self.graph(torch.from_numpy(np.ascontiguousarray(crops_nhwc)))
        return logits.numpy(), features.numpy()


class Exact(Torch):
    """The same in double precision: deep networks with random weights round in torch, too."""

    def __init__(self, network: CellNetwork) -> None:
        super().__init__(copy.deepcopy(network).double())


def lively(network: CellNetwork, side: int) -> CellNetwork:
    """Give a network weights with which every layer matters and cells get different answers."""
    generator = torch.Generator().manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    for name, tensor in network.named_parameters():
        if tensor.ndim == 1 and ("weight" in name or "gamma" in name):  # those that start near zero hide a branch
            tensor.data = 0.8 + 0.4 * torch.rand(tensor.shape, generator=generator)
    with torch.no_grad():  # batch norms see what they will meet, else deep networks answer alike whatever they see
        network.train()(torch.from_numpy(cells(48, side)).permute(0, 3, 1, 2))
    classifier = network.backbone.get_classifier()  # type: ignore[operator]
    features = torch.from_numpy(Torch(network).run(cells(8, side))[1])
    with torch.no_grad():
        spread = (features - features.mean(dim=0)).std()
        classifier.weight.copy_(torch.randn(classifier.weight.shape, generator=generator))
        classifier.weight.mul_(2 / (spread * classifier.in_features**0.5))
        classifier.bias.copy_(-features.mean(dim=0) @ classifier.weight.T)
    return network.requires_grad_(False)


def built(arch: str, *, channels: Channels = "rgb+mask") -> tuple[CellNetwork, int]:
    torch.manual_seed(0)
    side = NETWORKS.get(arch).input_px
    made = build_network(arch, n_classes=N_CLASSES, channels=channels)
    return lively(made, side), side


def headed(arch: str, channels: Channels = "rgb+mask") -> tuple[FrozenHead, int]:
    torch.manual_seed(0)
    side = NETWORKS.get(arch).input_px
    extractor = lively_extractor(arch, side)
    width = extractor.n_features * (2 if channels == "rgb+mask" else 1)
    tensors = {
        "head.mean": torch.zeros(width), "head.scale": torch.ones(width),
        "head.coef": torch.randn(N_CLASSES, width), "head.intercept": torch.zeros(N_CLASSES),
    }  # fmt: skip
    made = FrozenHead(extractor, tensors, channels=channels).eval().requires_grad_(False)
    features = Torch(made).run(cells(8, side))[1]
    made.head_mean.copy_(torch.from_numpy(features.mean(axis=0)))
    made.head_scale.fill_(float(features.std(axis=0).mean()) * width**0.5)
    return made, side


def lively_extractor(arch: str, side: int) -> CellNetwork:
    extractor = bare_extractor(arch, {}, input_px=side)
    for tensor in extractor.parameters():
        if tensor.ndim == 1:
            tensor.data = 0.5 + torch.rand(tensor.shape)
    return extractor.eval()


def cells(n: int, side: int) -> NDArray[np.uint8]:
    rng = np.random.default_rng(1)
    light = rng.integers(20, 236, (n, 1, 1, 4))
    crops = np.clip(light + rng.normal(0, 40, (n, side, side, 4)), 0, 255).astype(np.uint8)
    crops[..., 3] = np.where(crops[..., 3] > 127, 255, 0)
    return crops


def as_model(folder: Path, kind: Format, side: int, **changes: object) -> ModelFolder:
    files = [network(file=f"fold0{graphs.SUFFIXES[kind]}")]
    described = content(
        format=kind,
        input_px=side,
        networks=files,
        class_names=["a", "b", "c"],
        class_colours=["#000000"] * 3,
        **changes,
    )
    return ModelFolder(folder, read_manifest(json.dumps(described), where="test"), "")


def exported(made: CellNetwork, side: int, folder: Path, *, without: Collection[str] = ()) -> dict[str, Backend]:
    write_onnx(made, folder / "fold0.onnx", input_px=side)
    write_openvino(folder / "fold0.onnx", folder / "fold0.xml")
    kinds: tuple[Format, ...] = ("onnx", "openvino")
    return {kind: open_backend(as_model(folder, kind, side), 0, features=True) for kind in kinds if kind not in without}


def assert_same(made: CellNetwork, side: int, folder: Path, *, without: Collection[str] = ()) -> None:
    crops = cells(16, side)
    exact = Exact(made)
    logits, features = exact.run(crops)
    assert np.ptp(logits.argmax(axis=1)) > 0, "a test in which all cells are alike shows little"
    assert np.abs(np.diff(logits, axis=0)).max() > 0.1
    rounding = compare(Torch(made), exact, crops).max_abs_diff  # random weights make it larger than trained ones do
    assert rounding < 3 * MAX_DIFFERENCE
    for kind, backend in exported(made, side, folder, without=without).items():
        found = compare(backend, exact, crops)
        assert found.max_abs_diff <= max(MAX_DIFFERENCE, 2 * rounding), kind
        for n in (1, 2, 5):
            own_logits, own_features = backend.run(crops[:n])
            assert own_logits.shape == (n, N_CLASSES), kind
            assert own_features is not None
            assert own_features.shape == (n, made.n_features)
            assert own_logits.dtype == own_features.dtype == np.float32
            scale = np.abs(features).max()
            np.testing.assert_allclose(own_features, features[:n], atol=2e-4 * scale, err_msg=kind)


@pytest.mark.parametrize("arch", QUICK)
def test_graphs_answer_as_torch_does(arch: str, tmp_path: Path) -> None:
    assert_same(*built(arch), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("arch", SLOW)
def test_graphs_of_all_other_networks_answer_as_torch_does(arch: str, tmp_path: Path) -> None:
    assert_same(*built(arch), tmp_path, without=[name for name, archs in UNSTEADY.items() if arch in archs])


@pytest.mark.parametrize("arch", ["hybrid2", "swinv2_large"])
@pytest.mark.parametrize("kind", ["onnx", "openvino"])
def test_a_backend_never_computes_a_network_it_gives_changing_answers_for(
    kind: Format, arch: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="Fix: export it as ONNX"):
        open_backend(as_model(tmp_path, kind, 64, arch=arch), 0, backend="openvino")


def test_an_ordinal_network_keeps_its_ratios_inside_the_graph(tmp_path: Path) -> None:
    side = 64
    torch.manual_seed(0)
    made = build_network("custom_cnn", n_classes=N_CLASSES, ordinal=True, channels="masked-rgb").eval()
    for module in made.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 1.5, 2.5)
    made.backbone.get_classifier().weight.data *= 4  # type: ignore[operator]
    crops = cells(6, side)
    for backend in exported(made.requires_grad_(False), side, tmp_path).values():
        assert compare(backend, Torch(made), crops).max_abs_diff <= MAX_DIFFERENCE
        np.testing.assert_allclose(np.exp(backend.run(crops)[0]).sum(axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("channels", ["rgb+mask", "mask"])
def test_a_head_and_its_frozen_network_are_one_graph(channels: Channels, tmp_path: Path) -> None:
    assert_same(*headed("custom_cnn", channels), tmp_path)


@pytest.mark.slow
def test_a_head_on_a_lite_network_is_one_graph(tmp_path: Path) -> None:
    assert_same(*headed("efficientnet_lite0"), tmp_path)


def test_a_graph_tells_nothing_of_the_machine_it_was_made_on(tmp_path: Path) -> None:
    made, side = built("custom_cnn")
    write_onnx(made, tmp_path / "fold0.onnx", input_px=side)
    data = (tmp_path / "fold0.onnx").read_bytes()
    assert b".py" not in data
    assert str(Path(graphs.__file__).parent).encode() not in data
    assert b"location" not in data  # what folder.open_model looks for


def test_a_network_that_does_not_fit_one_onnx_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphs, "MAX_ONNX_BYTES", 1_000_000)
    made, side = built("custom_cnn")
    with pytest.raises(ConfigError, match="--format openvino"):
        write_onnx(made, tmp_path / "fold0.onnx", input_px=side)
    assert list(tmp_path.iterdir()) == []


def test_openvino_takes_networks_of_any_size_and_leaves_only_its_two_files(tmp_path: Path) -> None:
    made, side = built("custom_cnn")
    write_openvino_of(made, tmp_path / "fold0.xml", input_px=side)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["fold0.bin", "fold0.xml"]
    backend = open_backend(as_model(tmp_path, "openvino", side), 0)
    assert compare(backend, Torch(made), cells(4, side)).max_abs_diff <= MAX_DIFFERENCE


def test_tensors_make_the_same_network_without_any_other_weights(tmp_path: Path) -> None:
    made, side = built("custom_cnn", channels="rgb")
    write_tensors(made, tmp_path / "fold0.safetensors")
    again = read_network(as_model(tmp_path, "safetensors", side, channels="rgb"), 0)
    np.testing.assert_array_equal(Torch(again).run(cells(4, side))[0], Torch(made).run(cells(4, side))[0])


@pytest.mark.parametrize("arch", ["efficientnet_lite0", "panda_vit", "dinov2_small"])
def test_tensors_of_a_head_hold_its_frozen_network_too(arch: str, tmp_path: Path) -> None:
    made, side = headed(arch)
    write_tensors(made, tmp_path / "fold0.safetensors")
    again = read_network(as_model(tmp_path, "safetensors", side, arch=arch, strategy="head"), 0)
    for one, other in zip(Torch(again).run(cells(4, side)), Torch(made).run(cells(4, side)), strict=True):
        np.testing.assert_array_equal(one, other)


def test_tensors_of_another_network_are_refused(tmp_path: Path) -> None:
    made, side = built("custom_cnn")
    write_tensors(made, tmp_path / "fold0.safetensors")
    with pytest.raises(WeightsError):
        read_network(as_model(tmp_path, "safetensors", side, arch="resnet50"), 0)
    with pytest.raises(WeightsError):
        read_network(as_model(tmp_path, "safetensors", side, strategy="head"), 0)


def test_what_holds_no_tensors_is_refused(tmp_path: Path) -> None:
    (tmp_path / "fold0.safetensors").write_bytes(b"\x80\x04K\x01.")  # a pickle
    with pytest.raises(DataError, match="holds no tensors"):
        read_network(as_model(tmp_path, "safetensors", 64), 0)
    with pytest.raises(DataError, match="which torch cannot compute"):
        read_network(as_model(tmp_path, "onnx", 64), 0)


@pytest.mark.parametrize("arch", NETWORKS.names())
def test_logits_with_features_are_the_logits(arch: str) -> None:
    made, side = built(arch)
    x = torch.from_numpy(cells(3, side)).permute(0, 3, 1, 2)
    with torch.inference_mode():
        logits, features = made.with_features(x)
        torch.testing.assert_close(logits, made(x))
    assert features.shape == (3, made.n_features)
