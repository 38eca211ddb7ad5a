"""Each family is read at its last layer that tells places, all its branches and all its views."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tests.models.planted import FAMILIES
from tests.models.reduced import crops
from torch import nn

from perikarya.errors import ConfigError
from perikarya.models.build import CellNetwork, build_network
from perikarya.models.cam_targets import cam_targets
from perikarya.models.explain import class_maps
from perikarya.models.nets import JoinedNetwork

HALF = (0.5, 0.5, 0.5)


@pytest.mark.parametrize(
    ("family", "layer"),
    [
        ("custom_cnn", "blocks"),
        ("resnet", "layer4"),
        ("convnext", "stages"),
        ("swin", "norm"),
        ("swinv2", "norm"),
        ("vit", "blocks.1.norm1"),
        ("hybrid vit", "blocks.1.norm1"),
        ("dinov3", "blocks.1.norm1"),
    ],
)
def test_the_last_layer_that_tells_places_is_taken(family: str, layer: str) -> None:
    network = CellNetwork(FAMILIES[family](), mean=HALF, std=HALF)
    (target,) = cam_targets(network, family, input_hw=(64, 64))
    assert target.layer is network.backbone.get_submodule(layer)


def test_both_branches_of_a_joined_network_count() -> None:
    network = CellNetwork(FAMILIES["hybrid2"](), mean=HALF, std=HALF).eval()
    targets = cam_targets(network, "hybrid2", input_hw=(64, 64))
    assert isinstance(network.backbone, JoinedNetwork)
    assert [target.layer for target in targets] == [
        network.backbone.convolutional.blocks[4],
        network.backbone.transformer.norm,
    ]
    x = crops(2, 64)
    before = class_maps(network, "hybrid2", x, [0, 0])
    with torch.no_grad():
        network.backbone.head.weight[0, network.backbone.convolutional.num_features :] = 0
    assert not np.allclose(class_maps(network, "hybrid2", x, [0, 0]), before)


@pytest.mark.parametrize(("side", "layer"), [(112, "blocks.4"), (223, "blocks.4"), (224, "bn2")])
def test_a_small_input_of_an_efficientnet_is_explained_on_a_finer_grid(side: int, layer: str) -> None:
    network = build_network("efficientnet_lite0", n_classes=2)
    (target,) = cam_targets(network, "efficientnet_lite0", input_hw=(side, side))
    assert target.layer is network.backbone.get_submodule(layer)


def test_an_unknown_family_is_refused() -> None:
    network = CellNetwork(nn.Sequential(nn.Flatten(), nn.LazyLinear(2)), mean=HALF, std=HALF)
    with pytest.raises(ConfigError, match="Nothing is known of where"):
        cam_targets(network, "odd", input_hw=(64, 64))
