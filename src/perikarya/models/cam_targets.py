"""The layer of each family of networks from which its maps are read, and how its output lies in the picture."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from timm.models import ConvNeXt, EfficientNet, Eva, ResNet, SwinTransformer, SwinTransformerV2, VisionTransformer
from torch import Tensor, nn

from perikarya.errors import ConfigError
from perikarya.models.attention_maps import patches_nchw
from perikarya.models.build import CellNetwork
from perikarya.models.frozen_head import FrozenHead
from perikarya.models.nets import CustomCnn, JoinedNetwork

TRANSFORMERS = (VisionTransformer, Eva)  # every patch attends to every other; Eva: DINOv3
_ToMaps = Callable[[Tensor], Tensor]
_LEAST_GRID = 7  # rows of an EfficientNet's last map, below which a finer one is taken


@dataclass(frozen=True)
class CamTarget:
    """A layer whose output is explained, and how that output becomes feature maps, (n, features, rows, columns).

    ``to_nchw`` returns a copy: layers further up may change the output in place. ``branch`` is the network or the
    part of a joined one that the layer belongs to.
    """

    layer: nn.Module
    to_nchw: _ToMaps
    branch: nn.Module


def cam_targets(network: CellNetwork, arch: str, *, input_hw: tuple[int, int]) -> tuple[CamTarget, ...]:
    """Return the last layer of a network that still tells where things are; one for each of its branches.

    Where a cell is seen in several views (``FrozenHead``), the feature maps of all of them stand behind one another:
    a linear head adds up what they say, so a map of them together is what each place of either view brought.

    Parameters
    ----------
    network
        Of any family of the zoo.
    arch
        Its name, for messages.
    input_hw
        Height and width of the input, from which the grid of a transformer's patches follows.

    Raises
    ------
    ConfigError
        If nothing is known of the family.
    """
    backbone = network.backbone
    branches = [backbone.convolutional, backbone.transformer] if isinstance(backbone, JoinedNetwork) else [backbone]
    found = [(branch, *_layer(branch, arch, input_hw)) for branch in branches]
    return tuple(CamTarget(at, partial(_views_joined, to_nchw, n_views(network)), b) for b, at, to_nchw in found)


def n_views(network: CellNetwork) -> int:
    """Return how many times a network looks at each cell."""
    return len(network.views) if isinstance(network, FrozenHead) else 1


def _layer(backbone: nn.Module, arch: str, input_hw: tuple[int, int]) -> tuple[nn.Module, _ToMaps]:
    if isinstance(backbone, TRANSFORMERS):
        return backbone.blocks[-1].norm1, partial(patches_nchw, backbone=backbone, input_hw=input_hw)
    if isinstance(backbone, (SwinTransformer, SwinTransformerV2)):
        return backbone.norm, lambda x_nhwc: x_nhwc.permute(0, 3, 1, 2).clone()
    if isinstance(backbone, EfficientNet):
        return _efficientnet_layer(backbone, input_hw), torch.clone
    for family, layer in {ResNet: "layer4", ConvNeXt: "stages", CustomCnn: "blocks"}.items():
        if isinstance(backbone, family):
            return backbone.get_submodule(layer), torch.clone
    raise ConfigError(
        f"Nothing is known of where {arch} ({type(backbone).__name__}) keeps its last feature map.\n"
        "A map taken from another layer would show places the answer does not hang on.\n"
        "Fix: name the layer of this family in models/cam_targets.py."
    )


def _efficientnet_layer(backbone: Any, input_hw: tuple[int, int]) -> nn.Module:
    """Return the last layer, or for a small input the last one of stride 16.

    Measured on 60 held-out blood cells with efficientnet_lite0 fine-tuned at 112 px: blurring the brightest 15 % of
    the last layer's map (4 x 4) lowers the probability of the class by 0.18, of that of stride 16 (7 x 7) by 0.30, of
    random places by 0.11, the cell itself by 0.33; with a head at 160 px 0.23, 0.31, 0.04 and 0.40.
    """
    if min(input_hw) >= _LEAST_GRID * 32:
        return backbone.bn2  # type: ignore[no-any-return]
    stages = [stage["module"] for stage in backbone.feature_info if stage["reduction"] <= 16]
    return backbone.get_submodule(stages[-1])  # type: ignore[no-any-return]


def _views_joined(to_nchw: _ToMaps, n_views: int, output: Tensor) -> Tensor:
    """Turn (n_views * n, …) into feature maps, (n, n_views * features, rows, columns)."""
    return torch.cat(to_nchw(output).chunk(n_views), dim=1)
