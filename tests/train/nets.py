"""Networks small enough to train in a test, of the kinds that strategies tell apart."""

from __future__ import annotations

import timm
import torch
from torch import nn

from perikarya.models.build import CellNetwork
from perikarya.models.stem import widen_stem

SIDE = 32


def cell_network(name: str, *, n_classes: int = 3, seed: int = 0, **settings: object) -> CellNetwork:
    """A network of timm with a stem widened as for pretrained weights: the filters of the mask are zero."""
    torch.manual_seed(seed)
    backbone: nn.Module = timm.create_model(name, num_classes=n_classes, **settings)
    widen_stem(backbone, first_conv=backbone.pretrained_cfg["first_conv"], mask_init="zero")
    return CellNetwork(backbone, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))


def vit(*, seed: int = 0, **settings: object) -> CellNetwork:
    """Three blocks of attention on 16 patches."""
    sizes = {"img_size": SIDE, "patch_size": 8, "embed_dim": 24, "depth": 3, "num_heads": 2}
    return cell_network("vit_tiny_patch16_224", seed=seed, **{**sizes, **settings})


def swin_v2(*, seed: int = 0) -> CellNetwork:
    """Two stages of shifted windows, which by default multiply past their layers."""
    sizes = {"img_size": SIDE, "embed_dim": 12, "depths": (1, 1), "num_heads": (2, 2), "window_size": 4}
    network = cell_network("swinv2_tiny_window8_256", seed=seed, **sizes)
    for name, parameter in network.named_parameters():
        if name.endswith(("norm1.weight", "norm2.weight")):  # zero where training starts from random weights
            nn.init.ones_(parameter)
    return network


def convnet(*, seed: int = 0) -> CellNetwork:
    """Convolutions with batch normalisation, a stem and four stages."""
    return cell_network("resnet10t", seed=seed, stem_width=8)


def hybrid(*, seed: int = 0) -> CellNetwork:
    """A weight-standardised residual network under two blocks of attention; the mask has a path of its own."""
    sizes = {"img_size": SIDE, "embed_dim": 24, "depth": 2, "num_heads": 2}
    return cell_network("vit_small_r26_s32_224", seed=seed, **sizes)
