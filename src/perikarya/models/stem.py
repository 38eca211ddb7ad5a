"""The fourth channel: how a network that knows RGB learns of the outline.

timm's ``in_chans=4`` copies the red filters onto the mask and scales all by 3/4, so the network no longer sees the
picture it was pretrained on. Here the filters of the mask start at zero: before training, the output is that of the
three-channel network, whatever the mask holds.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import nn

from perikarya.errors import ConfigError

MaskInit = Literal["zero", "mean", "random"]


def widen_stem(network: nn.Module, *, first_conv: str, mask_init: MaskInit) -> None:
    """Give the first convolution of a three-channel network a fourth input channel, in place.

    Parameters
    ----------
    network
        A network whose first layer is a plain convolution on 3 channels.
    first_conv
        Dotted name of that layer.
    mask_init
        ``zero``: the mask changes nothing on day one. ``mean``: the mean of the RGB filters. ``random``: drawn
        with the standard deviation of the RGB filters.

    Raises
    ------
    ConfigError
        If the layer is not a plain three-channel convolution: another kind of stem needs another way in.
    """
    parent_name, _, leaf = first_conv.rpartition(".")
    parent = network.get_submodule(parent_name)
    conv = parent.get_submodule(leaf)
    if not isinstance(conv, nn.Conv2d) or conv.in_channels != 3 or conv.groups != 1 or _standardises(conv):
        raise ConfigError(
            f"The first layer ({first_conv}: {type(conv).__name__}) is not a plain convolution on RGB.\n"
            "Extra filters would change what it makes of the picture. Fix: choose another network."
        )
    weight_oihw = conv.weight.detach()
    extra = _mask_filters(weight_oihw, mask_init)
    conv.weight = nn.Parameter(torch.cat([weight_oihw, extra], dim=1))
    conv.in_channels = 4


def _standardises(conv: nn.Conv2d) -> bool:
    return "Std" in type(conv).__name__


def _mask_filters(weight_oihw: torch.Tensor, mask_init: MaskInit) -> torch.Tensor:
    shape = (weight_oihw.shape[0], 1, *weight_oihw.shape[2:])
    if mask_init == "zero":
        return torch.zeros(shape)
    if mask_init == "mean":
        return weight_oihw.mean(dim=1, keepdim=True)
    return torch.randn(shape) * weight_oihw.std()
