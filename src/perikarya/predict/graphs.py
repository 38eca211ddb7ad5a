"""Trained networks as files that need no Perikarya to run: ONNX and OpenVINO graphs, or their bare tensors.

A graph takes ``crops``, uint8 of shape (n, side, side, 4): red, green, blue, mask, as ``data.augment.resize_batch``
makes them, any n; and gives ``logits``, float32 of shape (n, n_classes), and ``features``, float32 of shape
(n, n_features). Channels are chosen and normalised inside.
"""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from perikarya.errors import ConfigError, DataError
from perikarya.models.build import CellNetwork, restore_network
from perikarya.models.frozen_head import restore_frozen_head
from perikarya.predict.backends import FEATURES, INPUT, LOGITS
from perikarya.predict.manifest import Format

if TYPE_CHECKING:
    from perikarya.predict.folder import ModelFolder

OUTPUTS = (LOGITS, FEATURES)
OPSET = 20  # has GELU and layer normalisation as one operation each; ONNX Runtime 1.17 knows it
MAX_ONNX_BYTES = 1_900_000_000  # a protobuf file ends at 2^31
SUFFIXES: dict[Format, str] = {"onnx": ".onnx", "openvino": ".xml", "safetensors": ".safetensors"}


class CellGraph(nn.Module):
    """A network as graphs are: crops as they lie in memory in, logits and features out."""

    def __init__(self, network: CellNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, crops: Tensor) -> tuple[Tensor, Tensor]:
        """Map crops (n, side, side, 4), uint8, to logits, (n, n_classes), and features, (n, n_features)."""
        logits, features = self.network.with_features(crops.permute(0, 3, 1, 2))
        return logits.float(), features.float()


def write_onnx(network: CellNetwork, path: Path, *, input_px: int) -> None:
    """Write a network as one ONNX file.

    Raises
    ------
    ConfigError
        If its weights do not fit into one file.
    """
    n_bytes = sum(t.numel() * t.element_size() for t in network.state_dict().values())
    if n_bytes > MAX_ONNX_BYTES:
        raise ConfigError(
            f"The network has {n_bytes / 1e9:.1f} GB of weights, and an ONNX file ends at 2 GB.\n"
            "Fix: --format openvino, or --format safetensors."
        )
    with quiet():
        _to_onnx(network, path, input_px=input_px, external_data=False)


def write_openvino(onnx_path: Path, path: Path) -> None:
    """Turn an ONNX file into an OpenVINO graph: ``path`` (.xml) and, beside it, its weights (.bin) in fp32."""
    import openvino

    openvino.save_model(openvino.convert_model(onnx_path), path, compress_to_fp16=False)


def write_openvino_of(network: CellNetwork, path: Path, *, input_px: int) -> None:
    """Write a network of any size as an OpenVINO graph."""
    with tempfile.TemporaryDirectory(dir=path.parent) as folder, quiet():
        onnx_path = Path(folder) / "network.onnx"
        _to_onnx(network, onnx_path, input_px=input_px, external_data=True)
        write_openvino(onnx_path, path)


def write_tensors(network: CellNetwork, path: Path) -> None:
    """Write all tensors of a network, of a head's frozen network too, so that it needs no other weights."""
    from safetensors.torch import save_file

    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in network.state_dict().items()}
    save_file(tensors, path)
    path.chmod(0o644)  # the library makes it its owner's alone


def read_network(model: ModelFolder, i: int) -> CellNetwork:
    """Build a network of an exported model of format ``safetensors``, ready for inference.

    Raises
    ------
    DataError
        If the model is a graph, or the file holds no tensors.
    WeightsError
        If the tensors are not those of the network that the manifest names.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    manifest, path = model.manifest, model.network_path(i)
    if manifest.format != "safetensors":
        raise DataError(
            f"{model.root} holds {manifest.format} graphs, which torch cannot compute.\n"
            "Fix: leave out --backend torch, or export the model with --format safetensors."
        )
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        raise DataError(f"{path} holds no tensors ({error}).\nFix: export the model again.") from None
    if manifest.strategy == "head":
        return restore_frozen_head(manifest.arch, tensors, channels=manifest.channels, input_px=manifest.input_px)
    return restore_network(
        manifest.arch,
        tensors,
        n_classes=manifest.n_classes,
        channels=manifest.channels,
        input_px=manifest.input_px,
        ordinal=manifest.ordinal,
    )


def _to_onnx(network: CellNetwork, path: Path, *, input_px: int, external_data: bool) -> None:
    example = torch.zeros((2, input_px, input_px, 4), dtype=torch.uint8)
    program: Any = torch.onnx.export(
        CellGraph(network).eval(),
        (example,),
        dynamo=True,
        input_names=[INPUT],
        output_names=list(OUTPUTS),
        dynamic_shapes=({0: torch.export.Dim("n")},),
        opset_version=OPSET,
        verbose=False,
    )
    # the exporter notes for every node which lines of which files of this machine it comes from
    program.model.graph.metadata_props.clear()
    for node in program.model.graph:
        node.metadata_props.clear()
    program.save(path, external_data=external_data)


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the chatter of exporters about their own insides off the screen."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
