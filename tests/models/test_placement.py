"""Maps lie where the places of a layer look, by the formula and by gradients that know no formula."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tests.models.planted import FAMILIES
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from perikarya.models.build import CellNetwork, build_network
from perikarya.models.cam_targets import cam_targets
from perikarya.models.nets import CustomCnn
from perikarya.models.placement import displacement_of, moved

HALF = (0.5, 0.5, 0.5)


def network_of(arch: str, px: int) -> CellNetwork:
    torch.manual_seed(0)
    if arch in FAMILIES:
        return CellNetwork(FAMILIES[arch](), mean=HALF, std=HALF).eval()
    return build_network(arch, n_classes=3, input_px=px).eval()


def average_only(network: CellNetwork) -> None:
    """Even out the few filters of depthwise convolutions, which random numbers leave lopsided."""
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.Conv2d):
                module.weight.fill_(1 / module.weight[0].numel())
            if isinstance(module, _BatchNorm):
                module.weight.fill_(1)
                module.bias.zero_()
                module.act = nn.Identity()


def centre_seen(network: CellNetwork, arch: str, px: int) -> tuple[tuple[float, float], tuple[float, float]]:
    """Return the displacement of the middle place of the layer: as noted, and as gradients have it."""
    (target,) = cam_targets(network, arch, input_hw=(px, px))
    found: list[torch.Tensor] = []
    hook = target.layer.register_forward_hook(lambda _layer, _inputs, output: found.append(output))
    x = torch.rand(1, 4, px, px).mul_(255).requires_grad_()
    with displacement_of(target.branch, target.layer) as away:
        network(x)
    hook.remove()
    maps = target.to_nchw(found[0])[0]
    place = maps.shape[-1] // 2
    score = (maps[:, place, place] * torch.linspace(1, 2, len(maps))).sum()
    seen = torch.autograd.grad(score, x)[0][0].abs().sum(dim=0)
    at = torch.arange(px)
    middle = (place + 0.5) * px / maps.shape[-1] - 0.5
    down, right = (float((seen.sum(dim=d) * at).sum() / seen.sum()) - middle for d in (1, 0))
    return away.yx_px, (down, right)


@pytest.mark.parametrize(
    ("arch", "px", "expected"),
    [
        ("custom_cnn", 128, -7.5),
        ("resnet50", 224, -15.5),
        ("efficientnet_lite0", 448, 15.5),
        ("convnext_tiny", 224, 0.0),
    ],
)
def test_the_displacement_is_that_of_the_gradients(arch: str, px: int, expected: float) -> None:
    network = network_of(arch, px)
    if arch == "efficientnet_lite0":
        average_only(network)
    found, measured = centre_seen(network, arch, px)
    assert found == (expected, expected)
    np.testing.assert_allclose(measured, (expected, expected), atol=1.3)


@pytest.mark.parametrize("family", ["vit", "swin", "swinv2", "dinov3"])
def test_patches_lie_where_enlarging_puts_them(family: str) -> None:
    network = network_of(family, 64)
    with displacement_of(network.backbone) as away, torch.no_grad():
        network(torch.zeros(1, 4, 64, 64))
    assert away.yx_px == (0.0, 0.0)


def test_two_paths_to_one_size_count_as_their_mean() -> None:
    """In a BiT ResNet, blocks look 2i + 1 and their shortcuts 2i: the mean is where enlarging puts the place."""
    network = network_of("hybrid vit", 64)
    with displacement_of(network.backbone) as away, torch.no_grad():
        network(torch.zeros(1, 4, 64, 64))
    assert away.yx_px == (0.5 + 1.0, 0.5 + 1.0)  # stem and pooling; the shortcut of the second stage against its block


def test_layers_after_the_one_that_is_explained_do_not_count() -> None:
    network = CellNetwork(CustomCnn(in_chans=4, n_classes=3), mean=HALF, std=HALF)
    with displacement_of(network.backbone, network.backbone.blocks[1]) as away, torch.no_grad():
        network(torch.zeros(1, 4, 64, 64))
    assert away.yx_px == (-1.5, -1.5)
    assert not any(module._forward_hooks for module in network.modules())


def test_maps_move_down_and_to_the_right_and_their_border_goes_on() -> None:
    maps = np.zeros((2, 6, 8), np.float32)
    maps[0, 2, 3], maps[1, 0, :] = 1, 1
    found = moved(maps, (2.0, 1.0))
    assert found.dtype == np.float32
    assert np.unravel_index(found[0].argmax(), (6, 8)) == (4, 4)
    np.testing.assert_array_equal(found[1, :3], 1)
    np.testing.assert_array_equal(found[1, 3:], 0)
    np.testing.assert_array_equal(moved(maps, (0.0, 0.0)), maps)
