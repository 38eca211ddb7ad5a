"""The mask finds a way into every kind of first layer, and nothing else changes."""

from __future__ import annotations

import pytest
import torch
from timm.layers import StdConv2d, StdConv2dSame
from torch import nn

from perikarya.errors import ConfigError
from perikarya.models.stem import TwoPathStem, widen_stem


def widened(conv: nn.Module, mask_init: str = "zero") -> nn.Module:
    network = nn.Sequential(conv)
    widen_stem(network, first_conv="0", mask_init=mask_init)
    return network


@pytest.mark.parametrize("layer", [nn.Linear(3, 3), nn.Conv2d(1, 4, 3), nn.Conv2d(3, 3, 3, groups=3)])
def test_a_first_layer_that_is_no_convolution_on_rgb_is_refused(layer: nn.Module) -> None:
    with pytest.raises(ConfigError, match="not a convolution on RGB"):
        widened(layer)


@pytest.mark.parametrize("side", [64, 65, 66, 67])  # SAME padding differs with the side
@pytest.mark.parametrize("kind", [StdConv2d, StdConv2dSame])
def test_a_standardised_stem_keeps_its_picture_and_pads_the_mask_as_it(side: int, kind: type[nn.Conv2d]) -> None:
    torch.manual_seed(0)
    conv = kind(3, 8, 7, stride=2)
    picture, mask = torch.rand(2, 3, side, side), torch.rand(2, 1, side, side)
    expected = conv(picture)
    network = widened(conv)
    torch.testing.assert_close(network(torch.cat([picture, mask], dim=1)), expected, atol=0, rtol=0)
    stem = network[0]
    assert isinstance(stem, TwoPathStem)
    # with the filters of red for the mask, a mask that is the red channel must add what red alone yields
    with torch.no_grad():
        stem.mask.weight.copy_(conv.weight[:, :1])
    plain = nn.Conv2d(1, 8, 7, stride=2, padding=0 if kind is StdConv2dSame else 3, bias=False)
    plain.weight = stem.mask.weight
    total = -(-side // 2) * 2 - 2 + 7 - side if kind is StdConv2dSame else 0
    padded = nn.functional.pad(picture[:, :1], (total // 2, total - total // 2) * 2)
    added = network(torch.cat([picture, picture[:, :1]], dim=1)) - expected
    torch.testing.assert_close(added, plain(padded), atol=1e-5, rtol=1e-5)


def test_adding_a_filter_to_a_standardised_stem_would_have_changed_the_picture() -> None:
    torch.manual_seed(0)
    conv, four = StdConv2d(3, 8, 3), StdConv2d(4, 8, 3)
    with torch.no_grad():
        four.weight.copy_(torch.cat([conv.weight, torch.zeros(8, 1, 3, 3)], dim=1))
    x = torch.rand(1, 4, 16, 16)
    assert (four(x) - conv(x[:, :3])).abs().max() > 0.1


def test_mean_filters_of_a_standardised_stem_are_the_mean_of_what_the_picture_meets() -> None:
    torch.manual_seed(0)
    conv = StdConv2dSame(3, 8, 7, stride=2, eps=1e-8)
    impulse = torch.zeros(1, 4, 15, 15)
    impulse[:, 3, 7, 7] = 1
    grey = torch.zeros(1, 3, 15, 15)
    grey[:, :, 7, 7] = 1 / 3
    expected = conv(grey)
    seen = widened(conv, "mean")(impulse)
    torch.testing.assert_close(seen, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("conv", [nn.Conv2d(3, 64, 7), StdConv2dSame(3, 64, 7, eps=1e-8)])
def test_random_filters_are_drawn_as_wide_as_those_of_the_picture(conv: nn.Conv2d) -> None:
    torch.manual_seed(0)
    spread = {"Conv2d": conv.weight.std(), "StdConv2dSame": torch.tensor(1.0)}[type(conv).__name__].item()
    stem = widened(conv, "random")[0]
    drawn = stem.mask.weight if isinstance(stem, TwoPathStem) else stem.weight[:, 3:]
    assert drawn.std().item() == pytest.approx(spread, rel=0.1)
