"""The zoo at a size a test can bear: the same classes, stems, layouts and settings, with fewer and narrower layers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn

from perikarya.models.build import _bare
from perikarya.models.weights import WeightsFile
from perikarya.models.zoo import NETWORKS
from perikarya.models.zoo_spec import NetworkSpec

_NARROW_VIT = {"depth": 2, "embed_dim": 96, "num_heads": 3}
_NARROW_SWIN = {"depths": (2, 2, 1, 1), "embed_dim": 24, "num_heads": (1, 2, 4, 8)}
_NARROW_CONVNEXT = {"depths": (1, 1, 2, 1), "dims": (16, 32, 64, 128)}


def reduced(spec: NetworkSpec) -> NetworkSpec:
    """Return the specification of a small relative."""
    if spec.by_width:  # the width is what its size is recognised by
        return _at(spec, 64, depth=2)
    if spec.timm_name.startswith("swin"):
        return _at(spec, 64, **_NARROW_SWIN)
    if spec.timm_name.startswith("vit"):
        return _at(spec, 4 * spec.input_multiple, **_NARROW_VIT)
    if spec.timm_name.startswith("convnext"):
        return _at(spec, 64, **_NARROW_CONVNEXT)
    smaller = {"tf_efficientnet_b7": "tf_efficientnet_b0", "resnet50": "resnet18"}
    return replace(_at(spec, 64), timm_name=smaller.get(spec.timm_name, spec.timm_name))


def _at(spec: NetworkSpec, px: int, **settings: Any) -> NetworkSpec:
    kwargs: Mapping[str, Any] = {**spec.timm_kwargs, **settings}
    return replace(spec, input_px=px, head_px=px, timm_kwargs=kwargs)


def crops(n: int, side: int, *, seed: int = 0) -> torch.Tensor:
    """Paint random crops, (n, 4, side, side) uint8, with a binary mask."""
    x = np.random.default_rng(seed).integers(0, 256, (n, 4, side, side), dtype=np.uint8)
    x[:, 3] = np.where(x[:, 3] > 127, 255, 0)
    return torch.from_numpy(x)


def stand_in_weights(arch: str, folder: Path, *, input_px: int | None = None, n_outputs: int = 7) -> WeightsFile:
    """Write weights of the right names and shapes, for a hub is not reached in tests."""
    spec = NETWORKS.get(arch)
    if spec.branches:
        parts = tuple(stand_in_weights(name, folder, input_px=input_px or spec.input_px) for name in spec.branches)
        return WeightsFile(None, "files", "", "0", parts=parts)
    torch.manual_seed(3)
    network = _bare(spec, in_chans=3, n_outputs=n_outputs, input_px=input_px or spec.input_px)
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            if name.endswith("running_mean"):  # such that a forgotten tensor shows
                tensor.uniform_(-0.1, 0.1)
            elif tensor.ndim == 1 and tensor.dtype.is_floating_point:
                tensor.uniform_(0.5, 1.5)
    path = folder / f"{arch}.safetensors"
    save_file({name: t.contiguous() for name, t in network.state_dict().items()}, path)
    return WeightsFile(path, f"file:{path.name}", "", "0")


def kept_activations(network: nn.Module, x: torch.Tensor) -> int:
    """Count the bytes that autograd keeps for the way back, beside the parameters; works on the meta device."""
    own = {p.untyped_storage()._cdata for p in network.parameters()}
    kept: dict[int, torch.Tensor] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()._cdata
        if storage not in own:
            kept[storage] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        network(x)
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
