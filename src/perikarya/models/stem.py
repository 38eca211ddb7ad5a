"""The fourth channel: how a network that knows RGB learns of the outline.

timm's ``in_chans=4`` copies the red filters onto the mask and scales all by 3/4, so the network no longer sees the
picture it was pretrained on. Here the filters of the mask start at zero: before training, the output is that of the
three-channel network, whatever the mask holds.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from perikarya.errors import ConfigError

MaskInit = Literal["zero", "mean", "random"]


def widen_stem(network: nn.Module, *, first_conv: str, mask_init: MaskInit) -> None:
    """Give the first convolution of a three-channel network a fourth input channel, in place.

    A plain convolution (a patch embedding is one) gets filters of the mask beside those of the picture. One that
    standardises its weights would change what it makes of the picture with every filter added; it stays as it is, and
    the mask gets a convolution of its own whose output is added.

    Parameters
    ----------
    network
        A network whose first layer is a convolution on 3 channels.
    first_conv
        Dotted name of that layer.
    mask_init
        ``zero``: the mask changes nothing on day one. ``mean``: the mean of the RGB filters. ``random``: drawn
        with the standard deviation of the RGB filters.

    Raises
    ------
    ConfigError
        If the layer is not a convolution on three channels.
    """
    parent_name, _, leaf = first_conv.rpartition(".")
    parent = network.get_submodule(parent_name)
    conv = parent.get_submodule(leaf)
    if not isinstance(conv, nn.Conv2d) or conv.in_channels != 3 or conv.groups != 1:
        raise ConfigError(
            f"The first layer ({first_conv}: {type(conv).__name__}) is not a convolution on RGB.\n"
            "There is no place for the filters of the mask. Fix: choose another network, or 'channels: rgb'."
        )
    if _standardises(conv):
        setattr(parent, leaf, TwoPathStem(conv, mask_init=mask_init))
        return
    weight_oihw = conv.weight.detach()
    conv.weight = nn.Parameter(torch.cat([weight_oihw, _mask_filters(weight_oihw, mask_init)], dim=1))
    conv.in_channels = 4


class TwoPathStem(nn.Module):
    """A weight-standardised convolution of the picture plus a plain convolution of the mask.

    Parameters
    ----------
    picture
        The convolution of RGB; it is kept.
    mask_init
        How the filters of the mask start; ``mean`` and ``random`` refer to the standardised filters, for these are
        what the picture meets.
    """

    def __init__(self, picture: nn.Conv2d, *, mask_init: MaskInit) -> None:
        super().__init__()
        self.picture = picture
        self.mask = nn.Conv2d(
            1,
            picture.out_channels,
            _pair(picture.kernel_size),
            stride=_pair(picture.stride),
            padding=picture.padding if isinstance(picture.padding, str) else _pair(picture.padding),
            dilation=_pair(picture.dilation),
            bias=False,
        )
        self.mask.weight = nn.Parameter(_mask_filters(_standardised(picture), mask_init))
        self.pads_itself = bool(getattr(picture, "same_pad", False))  # timm pads the input first, in its forward

    def forward(self, x_nchw: Tensor) -> Tensor:
        """Map (n, 4, h, w) to (n, filters, h / stride, w / stride)."""
        mask = x_nchw[:, 3:]
        if self.pads_itself:
            from timm.layers.padding import pad_same

            conv = self.mask
            mask = pad_same(mask, list(conv.kernel_size), list(conv.stride), list(conv.dilation))
        return torch.as_tensor(self.picture(x_nchw[:, :3]) + self.mask(mask))


def _pair(size: tuple[int, ...]) -> tuple[int, int]:
    return size[0], size[1]


def _standardises(conv: nn.Conv2d) -> bool:
    return "Std" in type(conv).__name__


def _standardised(conv: nn.Conv2d) -> Tensor:
    """Return the filters with mean 0 and standard deviation 1, as the layer applies them (Qiao et al. 2019)."""
    rows = conv.weight.detach().flatten(1)
    variance, mean = torch.var_mean(rows, dim=1, keepdim=True, correction=0)
    eps = float(getattr(conv, "eps", 0.0))
    return ((rows - mean) / torch.sqrt(variance + eps)).view_as(conv.weight)


def _mask_filters(weight_oihw: Tensor, mask_init: MaskInit) -> Tensor:
    shape = (weight_oihw.shape[0], 1, *weight_oihw.shape[2:])
    if mask_init == "zero":
        return torch.zeros(shape)
    if mask_init == "mean":
        return weight_oihw.mean(dim=1, keepdim=True)
    return torch.randn(shape) * weight_oihw.std()
